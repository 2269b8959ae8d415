//! The cluster as plain processes on loopback, for machines without Docker.
//!
//! Every process is described by a file in the run's folder ([`Spec`]), so that the watchdog can bring one back: its restart
//! command is this program's `respawn`, which starts the process of the description anew and notes its id. A process that the
//! watchdog started outlives the watchdog, which is why [`Processes::stop`] goes by the noted ids.

#![expect(
    clippy::disallowed_methods,
    reason = "the run's folder is scratch space; the vfs crate is for data that must survive"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::deployment::{Deployment, Pid};

/// How one process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// The folder of a run: descriptions, process ids, logs and data.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// A folder, made where it does not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    /// A path inside the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn describe(&self, name: &str, spec: &Spec) -> anyhow::Result<()> {
        std::fs::write(
            self.path(&format!("{name}.json")),
            serde_json::to_vec_pretty(spec)?,
        )?;
        Ok(())
    }

    /// Starts the process of a description and notes its id. Its output is added to its log.
    ///
    /// # Errors
    /// When there is no such description, or the program cannot be started, or the process that was noted before is
    /// still alive: two processes must not share a data directory.
    pub fn spawn(&self, name: &str) -> anyhow::Result<Pid> {
        if let Some(pid) = self.pid(name)? {
            anyhow::bail!("{name} still runs as process {pid}");
        }
        let spec: Spec = serde_json::from_slice(
            &std::fs::read(self.path(&format!("{name}.json")))
                .with_context(|| format!("{name} has no description"))?,
        )?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))?;
        let child = Command::new(&spec.program)
            .args(&spec.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", spec.program.display()))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::new)
            .context("the system gave no process id")?;
        std::fs::write(self.path(&format!("{name}.pid")), pid.to_string())?;
        Ok(pid)
    }

    /// The noted process, while it is alive.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn pid(&self, name: &str) -> anyhow::Result<Option<Pid>> {
        let path = self.path(&format!("{name}.pid"));
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)?;
        let pid = Pid::new(text.trim().parse()?);
        Ok(pid.filter(|pid| pid.is_alive()))
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    chaos: PathBuf,
}

impl Programs {
    /// The programs beside this one: the folder that cargo builds into. They are built first, in the profile of this
    /// program, so that a run never tests programs of yesterday.
    ///
    /// # Errors
    /// When cargo fails, or this program's own path cannot be found out.
    pub fn build() -> anyhow::Result<Self> {
        let mut folder = std::env::current_exe()?;
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--bins"]);
        for package in ["coordinator", "shard-server", "watchdog", "chaos"] {
            build.args(["--package", package]);
        }
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let status = build.status().context("running cargo")?;
        anyhow::ensure!(status.success(), "cargo build failed: {status}");
        Ok(Self {
            chaos: folder.join("chaos"),
            folder,
        })
    }

    fn named(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One coordinator, three shard servers and a watchdog on loopback.
#[derive(Debug)]
pub struct Processes {
    folder: RunFolder,
    coordinator: String,
    watchdog_metrics: String,
    shard_servers: Vec<String>,
}

const SHARD_SERVERS: usize = 3;
const WATCHDOG: &str = "watchdog";
const COORDINATOR: &str = "coordinator";

impl Processes {
    /// Starts everything. The watchdog polls often, so that a run is short.
    ///
    /// # Errors
    /// When a program cannot be started. What was started before is ended.
    pub fn start(folder: RunFolder, programs: &Programs) -> anyhow::Result<Self> {
        let ports = free_ports(2 * (SHARD_SERVERS + 2))?;
        let mut ports = ports.into_iter().map(|port| format!("127.0.0.1:{port}"));
        let mut address = || ports.next().context("ports were counted");
        let coordinator = address()?;
        folder.describe(
            COORDINATOR,
            &coordinator_spec(&folder, programs, &coordinator, &address()?),
        )?;
        let mut shard_servers = Vec::new();
        for number in 1..=SHARD_SERVERS {
            let name = format!("shard-{number}");
            let spec = shard_server_spec(
                &folder,
                programs,
                &name,
                [&address()?, &address()?, &coordinator],
            );
            folder.describe(&name, &spec)?;
            shard_servers.push(name);
        }
        let (watchdog, watchdog_metrics) = (address()?, address()?);
        folder.describe(
            WATCHDOG,
            &watchdog_spec(
                &folder,
                programs,
                [&watchdog, &watchdog_metrics, &coordinator],
            ),
        )?;
        let mut processes = Self {
            folder,
            coordinator,
            watchdog_metrics,
            shard_servers,
        };
        for name in processes.names() {
            if let Err(error) = processes.folder.spawn(&name) {
                processes.stop()?;
                return Err(error);
            }
        }
        Ok(processes)
    }

    /// The watchdog last when starting; the other way round it is stopped first, or it would bring back what is stopped.
    fn names(&self) -> Vec<String> {
        std::iter::once(COORDINATOR.to_owned())
            .chain(self.shard_servers.iter().cloned())
            .chain(std::iter::once(WATCHDOG.to_owned()))
            .collect()
    }
}

impl Deployment for Processes {
    fn coordinator(&self) -> &str {
        &self.coordinator
    }

    fn watchdog_metrics(&self) -> &str {
        &self.watchdog_metrics
    }

    fn shard_servers(&self) -> &[String] {
        &self.shard_servers
    }

    fn pid(&self, node: &str) -> anyhow::Result<Option<Pid>> {
        self.folder.pid(node)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        for name in self.names().iter().rev() {
            if let Some(pid) = self.folder.pid(name)? {
                pid.kill()?;
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Whoever cares for the error has called `stop`; a panicking test still must not leave processes behind.
        let _ = self.stop();
    }
}

fn coordinator_spec(folder: &RunFolder, programs: &Programs, grpc: &str, http: &str) -> Spec {
    Spec {
        program: programs.named(COORDINATOR),
        arguments: [
            "serve",
            "--grpc-addr",
            grpc,
            "--http-addr",
            http,
            "--shards",
            &SHARD_SERVERS.to_string(),
            "--data-dir",
            &folder.path(COORDINATOR).to_string_lossy(),
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
    }
}

fn shard_server_spec(
    folder: &RunFolder,
    programs: &Programs,
    name: &str,
    [grpc, http, coordinator]: [&str; 3],
) -> Spec {
    Spec {
        program: programs.named("shard-server"),
        arguments: [
            "serve",
            "--node-name",
            name,
            "--grpc-addr",
            grpc,
            "--advertise-addr",
            grpc,
            "--http-addr",
            http,
            "--coordinators",
            coordinator,
            "--data-dir",
            &folder.path(name).to_string_lossy(),
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
    }
}

fn watchdog_spec(
    folder: &RunFolder,
    programs: &Programs,
    [grpc, http, coordinator]: [&str; 3],
) -> Spec {
    let restart = format!(
        "{} respawn --run-dir {} --node {{node}}",
        programs.chaos.display(),
        folder.0.display()
    );
    Spec {
        program: programs.named(WATCHDOG),
        arguments: [
            "serve",
            "--coordinators",
            coordinator,
            "--grpc-addr",
            grpc,
            "--http-addr",
            http,
            "--poll-interval",
            "500ms",
            "--restart-command",
            &restart,
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
    }
}

/// Ports that nothing listens on, below the range that the system gives to clients, so that none is taken away between
/// the look and the use.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    let free = (first..32_000)
        .chain(20_000..first)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    anyhow::ensure!(ports.len() == count, "not enough free ports");
    Ok(ports)
}
