//! The cluster as containers, by the `docker-compose.yml` that operators use.
//!
//! A container is killed by the id of its process on the host: `docker kill` counts as a stop by hand, and the restart policy
//! would not bring it back. `down` goes before `up`, because docker-compose 1.29 cannot recreate containers on current engines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::deployment::{Deployment, Pid, SHARDS, Shape};
use crate::proxy::Link;

/// The name of the project, so that a run touches no other containers.
const PROJECT: &str = "autocomplete-chaos";

/// What makes three of everything out of `docker-compose.yml`.
const REPLICATED: &str = "deploy/docker/replicated.yml";

/// A running `docker-compose.yml`.
#[derive(Debug)]
pub struct Compose {
    shape: Shape,
    shard_servers: Vec<String>,
    coordinators: Vec<String>,
    addresses: Vec<String>,
    watchdog_metrics: Vec<String>,
}

impl Compose {
    /// Whether Docker and docker-compose answer here.
    #[must_use]
    pub fn is_available() -> bool {
        let answers = |program: &str, argument: &str| {
            Command::new(program)
                .arg(argument)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        answers("docker", "info") && answers("docker-compose", "version")
    }

    /// Builds the image and starts everything with empty volumes.
    ///
    /// # Errors
    /// When the build or the start fails; the text has what Docker said.
    pub fn start(shape: Shape) -> anyhow::Result<Self> {
        run(Command::new("deploy/docker/build"))?;
        let numbered = |name: &str, count| {
            let rest = (2..=count).map(|number| format!("{name}-{number}"));
            std::iter::once(name.to_owned()).chain(rest).collect()
        };
        let ports = [50051, 50052, 50053].into_iter().take(shape.coordinators);
        let metrics = [8082, 8083].into_iter().take(shape.watchdogs);
        let compose = Self {
            shape,
            shard_servers: (1..=SHARDS)
                .map(|number| format!("shard-{number}"))
                .collect(),
            coordinators: numbered("coordinator", shape.coordinators),
            addresses: ports.map(|port| format!("127.0.0.1:{port}")).collect(),
            watchdog_metrics: metrics.map(|port| format!("127.0.0.1:{port}")).collect(),
        };
        anyhow::ensure!(
            [Shape::SINGLE, Shape::REPLICATED].contains(&shape),
            "containers are described for one or for three of everything"
        );
        run(compose.command(&["down", "--volumes", "--remove-orphans"]))?;
        run(compose.command(&["up", "--detach"]))?;
        Ok(compose)
    }

    fn container(&self, node: &str) -> anyhow::Result<String> {
        let id = run(self.command(&["ps", "--quiet", node]))?;
        Ok(id.trim().to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", PROJECT, "--file", "docker-compose.yml"]);
        if self.shape == Shape::REPLICATED {
            command.args(["--file", REPLICATED]);
        }
        command.args(arguments);
        command
    }
}

impl Deployment for Compose {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn coordinators(&self) -> &[String] {
        &self.coordinators
    }

    fn watchdog_metrics(&self) -> &[String] {
        &self.watchdog_metrics
    }

    fn shard_servers(&self) -> &[String] {
        &self.shard_servers
    }

    fn pid(&self, node: &str) -> anyhow::Result<Option<Pid>> {
        let mut inspect = Command::new("docker");
        inspect.args(["inspect", "--format", "{{.State.Pid}}"]);
        inspect.arg(self.container(node)?);
        let raw: i32 = run(inspect)?.trim().parse()?;
        Ok(Pid::new(raw))
    }

    fn hold(&self, node: &str) -> anyhow::Result<()> {
        // For Docker that is a stop by hand, after which it restarts nothing.
        run(self.command(&["kill", node])).map(drop)
    }

    fn release(&self, node: &str) -> anyhow::Result<()> {
        run(self.command(&["start", node])).map(drop)
    }

    fn data_dir(&self, node: &str) -> anyhow::Result<PathBuf> {
        let mut inspect = Command::new("docker");
        let volume = format!("{PROJECT}_{node}");
        inspect.args(["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
        Ok(Path::new(run(inspect)?.trim()).join("node"))
    }

    fn set_link(&self, node: &str, link: Link) -> anyhow::Result<()> {
        let network = format!("{PROJECT}_cluster");
        let container = self.container(node)?;
        let mut command = Command::new("docker");
        match link {
            // Under the name that the others know it by.
            Link::Whole => command.args(["network", "connect", "--alias", node]),
            Link::Cut => command.args(["network", "disconnect"]),
            Link::OneWay | Link::HalfOpen => {
                anyhow::bail!("a container is cut off as a whole, or not at all")
            }
        };
        command.args([&network, &container]);
        run(command).map(drop)
    }

    fn own_disk(&self, _: &str) -> anyhow::Result<PathBuf> {
        anyhow::bail!("the containers share a disk, which is not filled")
    }

    fn logs(&self) -> String {
        run(self.command(&["logs", "--no-color"])).unwrap_or_else(|error| error.to_string())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        run(self.command(&["down", "--volumes", "--remove-orphans"])).map(drop)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // Whoever cares for the error has called `stop`; a panicking test still must not leave containers behind.
        let _ = self.stop();
    }
}

fn run(mut command: Command) -> anyhow::Result<String> {
    command.current_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")));
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} failed with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
