//! How each process of a run is started.

use super::{Programs, RunFolder, Spec};
use crate::deployment::{SHARDS, Shape};

/// What the processes of a run have in common.
pub(super) struct Scene<'a> {
    pub(super) folder: &'a RunFolder,
    pub(super) programs: &'a Programs,
    pub(super) shape: Shape,
    /// Where the coordinators are reached.
    pub(super) coordinators: &'a [String],
    /// Where shard servers reach them.
    pub(super) registry: &'a [String],
}

impl Scene<'_> {
    fn spec(&self, program: &str, arguments: &[(&str, &str)]) -> Spec {
        let pairs = arguments.iter();
        let options = pairs.flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        Spec {
            program: self.programs.named(program),
            arguments: std::iter::once("serve".to_owned()).chain(options).collect(),
        }
    }

    pub(super) fn coordinator(&self, number: usize, name: &str, grpc: &str, http: &str) -> Spec {
        let (shards, replicas) = (SHARDS.to_string(), self.shape.replicas.to_string());
        let (id, data) = (number.to_string(), self.folder.data_of(name));
        let data = data.to_string_lossy();
        let peers = (1..).zip(self.coordinators);
        let peers: Vec<String> = peers.map(|(id, at)| format!("{id}={at}")).collect();
        let peers = peers.join(",");
        let mut arguments = vec![
            ("grpc-addr", grpc),
            ("http-addr", http),
            ("shards", shards.as_str()),
            ("replicas", replicas.as_str()),
            ("data-dir", &data),
        ];
        if self.shape.coordinators > 1 {
            arguments.extend([("id", id.as_str()), ("peers", peers.as_str())]);
        }
        self.spec("coordinator", &arguments)
    }

    pub(super) fn shard_server(&self, name: &str, grpc: &str, known_by: &str, http: &str) -> Spec {
        let data = self.folder.data_of(name);
        let arguments = [
            ("node-name", name),
            ("grpc-addr", grpc),
            ("advertise-addr", known_by),
            ("http-addr", http),
            ("coordinators", &self.registry.join(",")),
            ("data-dir", &data.to_string_lossy()),
        ];
        self.spec("shard-server", &arguments)
    }

    pub(super) fn watchdog(&self, grpc: &str, http: &str) -> Spec {
        let restart = format!(
            "{} respawn --run-dir {} --node {{node}}",
            self.programs.chaos.display(),
            self.folder.as_path().display()
        );
        let arguments = [
            ("coordinators", self.coordinators.join(",").as_str()),
            ("grpc-addr", grpc),
            ("http-addr", http),
            ("poll-interval", "500ms"),
            ("restart-command", &restart),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let arguments: Vec<(&str, &str)> = arguments
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.spec("watchdog", &arguments)
    }
}
