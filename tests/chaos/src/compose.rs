//! The cluster as containers, by the `docker-compose.yml` that operators use.
//!
//! A container is killed by the id of its process on the host: `docker kill` counts as a stop by hand, and the restart policy
//! would not bring it back. `down` goes before `up`, because docker-compose 1.29 cannot recreate containers on current engines.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::deployment::{Deployment, Pid};

/// The name of the project, so that a run touches no other containers.
const PROJECT: &str = "autocomplete-chaos";

/// A running `docker-compose.yml`.
#[derive(Debug)]
pub struct Compose {
    shard_servers: Vec<String>,
    coordinator: String,
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
    pub fn start() -> anyhow::Result<Self> {
        run(Command::new("deploy/docker/build"))?;
        run(compose(&["down", "--volumes", "--remove-orphans"]))?;
        run(compose(&["up", "--detach"]))?;
        Ok(Self {
            shard_servers: (1..=3).map(|number| format!("shard-{number}")).collect(),
            coordinator: "127.0.0.1:50051".to_owned(),
        })
    }

    /// What the containers have logged so far.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn logs(&self) -> anyhow::Result<String> {
        run(compose(&["logs", "--no-color"]))
    }
}

impl Deployment for Compose {
    fn coordinator(&self) -> &str {
        &self.coordinator
    }

    fn watchdog_metrics(&self) -> &'static str {
        "127.0.0.1:8082"
    }

    fn shard_servers(&self) -> &[String] {
        &self.shard_servers
    }

    fn pid(&self, node: &str) -> anyhow::Result<Option<Pid>> {
        let container = run(compose(&["ps", "--quiet", node]))?;
        let mut inspect = Command::new("docker");
        inspect.args(["inspect", "--format", "{{.State.Pid}}", container.trim()]);
        let raw: i32 = run(inspect)?.trim().parse()?;
        Ok(Pid::new(raw))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        run(compose(&["down", "--volumes", "--remove-orphans"])).map(drop)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // Whoever cares for the error has called `stop`; a panicking test still must not leave containers behind.
        let _ = self.stop();
    }
}

fn compose(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker-compose");
    command.args(["--project-name", PROJECT]).args(arguments);
    command
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
