//! The cluster as plain processes on loopback, for machines without Docker.
//!
//! Where faults of the network are wanted, everybody reaches a shard server through a proxy, whose address is the one that it is
//! known by, and shard servers reach coordinators through others (`network`). Where full disks are, each shard server has a small file
//! system in memory, which takes the right to mount one.
//!
//! Every process is described by a file in the run's folder ([`Spec`]), so that the watchdog can bring one back: its restart
//! command is this program's `respawn`, which starts the process of the description anew and notes its id. A process that the
//! watchdog started outlives the watchdog, which is why [`Processes::stop`] goes by the noted ids. A process that is held down has
//! a file that says so, which the restart command heeds.
//!
//! Nobody but the run itself brings coordinators and watchdogs back (`supervisor`).
//!
//! What always holds: whoever holds a process down writes that before looking for it, and whoever starts one notes its id before looking
//! whether it is held down. So one of the two sees the other, and what is held down stays down.

#![expect(
    clippy::disallowed_methods,
    reason = "the run's folder is scratch space; the vfs crate is for data that must survive"
)]

mod network;
mod scene;
mod supervisor;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use runtime::Runtime;
use serde::{Deserialize, Serialize};

use crate::deployment::{Deployment, Pid, SHARDS, Shape};
use crate::disk::{Disk, copy};
use crate::faults::{LOOK_INTERVAL, Needs, wait_for};
use crate::proxy::Link;
use network::Network;
use scene::Scene;
use supervisor::Supervisor;

/// How long a process that was killed may take to be gone: as long as its disk takes for what it was asked to write.
const END_LIMIT: Duration = Duration::from_mins(1);
/// Folders for runs of processes with the same id, at most.
const NAMESAKES_MAX: usize = 1_000;

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
pub struct RunFolder {
    path: PathBuf,
    /// Held while a process is started: of two here who would start the same one, the second finds that it runs.
    starts: Arc<Mutex<()>>,
}

impl RunFolder {
    /// A new folder for one run, below another one: `run-` with the id of this process, and a number where an earlier run has that.
    ///
    /// # Errors
    /// When it cannot be made, or there is no name left for it.
    pub fn create(parent: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let name = format!("run-{}", std::process::id());
        let others = (2..=NAMESAKES_MAX).map(|number| format!("{name}-{number}"));
        for name in std::iter::once(name.clone()).chain(others) {
            let path = parent.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Self::open(&path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {}", path.display()));
                }
            }
        }
        anyhow::bail!("{} has no name left for a run", parent.display())
    }

    /// The folder of a run that goes on.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Self {
            path,
            starts: Arc::default(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// A path inside the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn describe(&self, name: &str, spec: &Spec) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.path(name))?;
        std::fs::write(
            self.path(&format!("{name}.json")),
            serde_json::to_vec_pretty(spec)?,
        )?;
        Ok(())
    }

    /// Starts the process of a description and notes its id. Its output is added to its log.
    ///
    /// # Errors
    /// When there is no such description, or the program cannot be started, or it is held down, or the process that was noted
    /// before is still alive: two processes must not share a data directory.
    pub fn spawn(&self, name: &str) -> anyhow::Result<Pid> {
        let _alone = self.starts.lock();
        self.begin(name)
    }

    /// Lets a process that was held down be started, and starts it before anybody else here can.
    fn release(&self, name: &str) -> anyhow::Result<Pid> {
        let _alone = self.starts.lock();
        std::fs::remove_file(self.hold_of(name))?;
        self.begin(name)
    }

    /// [`RunFolder::spawn`], while nobody else here starts anything.
    fn begin(&self, name: &str) -> anyhow::Result<Pid> {
        anyhow::ensure!(!self.hold_of(name).exists(), "{name} is held down");
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
        if let Err(error) = self.note(name, pid) {
            // Nobody else may know of it; who holds it down may have ended it already.
            pid.kill().ok();
            return Err(error);
        }
        Ok(pid)
    }

    /// Notes the id of a process that was started. Whoever reads the note finds all of it.
    fn note(&self, name: &str, pid: Pid) -> anyhow::Result<()> {
        let aside = self.path(&format!("{name}.{pid}.pid"));
        std::fs::write(&aside, pid.to_string())?;
        std::fs::rename(&aside, self.path(&format!("{name}.pid")))?;
        anyhow::ensure!(!self.hold_of(name).exists(), "{name} is held down");
        Ok(())
    }

    /// Where a process keeps its data: inside its folder, which may be a disk and so cannot be removed.
    fn data_of(&self, name: &str) -> PathBuf {
        self.path(name).join("data")
    }

    /// Ends what still runs of a process, and starts it anew: what a watchdog has done to a server that it hears nothing of.
    ///
    /// # Errors
    /// As [`RunFolder::spawn`], or when the process does not end.
    pub async fn respawn(&self, runtime: &Runtime, name: &str) -> anyhow::Result<Pid> {
        anyhow::ensure!(!self.hold_of(name).exists(), "{name} is held down");
        if let Some(pid) = self.pid(name)? {
            pid.kill()?;
            wait_for(runtime, END_LIMIT, || Ok(!pid.is_alive()))
                .await
                .with_context(|| format!("{name} does not end"))?;
        }
        self.spawn(name)
    }

    /// The file that keeps a process from being started.
    fn hold_of(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.held"))
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
    /// Programs that were built before, as they are, and where this one is, which the watchdogs call.
    #[must_use]
    pub fn in_folder(folder: PathBuf, chaos: PathBuf) -> Self {
        Self { folder, chaos }
    }

    /// The programs beside this one: the folder that cargo builds into. They are built first, in the profile of this
    /// program, so that a run never tests programs of yesterday.
    ///
    /// # Errors
    /// When cargo fails, or this program's own path cannot be found out.
    pub fn build() -> anyhow::Result<Self> {
        // Once it is built anew, the system calls this one deleted.
        let mut chaos = std::env::current_exe()?;
        let mut folder = chaos.clone();
        folder.pop();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace"]);
        for program in ["coordinator", "shard-server", "watchdog", "chaos"] {
            build.args(["--bin", program]);
        }
        if folder.ends_with("deps") {
            folder.pop();
            // This is a test, which cannot be called.
            chaos = folder.join("chaos");
            // A test among what is built makes cargo choose the features that it chose for all tests, so that nearly all of
            // it is there already.
            build.args(["--test", "processes"]);
        }
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let status = build.status().context("running cargo")?;
        anyhow::ensure!(status.success(), "cargo build failed: {status}");
        Ok(Self::in_folder(folder, chaos))
    }

    fn named(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Coordinators, three shard servers and watchdogs on loopback.
#[derive(Debug)]
pub struct Processes {
    folder: RunFolder,
    shape: Shape,
    addresses: Vec<String>,
    watchdog_metrics: Vec<String>,
    coordinators: Vec<String>,
    shard_servers: Vec<String>,
    shard_addresses: Vec<String>,
    watchdogs: Vec<String>,
    network: Network,
    disks: Vec<Disk>,
    /// Of coordinators and watchdogs; none before all have been started.
    supervisor: Option<Supervisor>,
}

impl Processes {
    /// Starts everything. The watchdogs poll often, so that a run is short.
    ///
    /// # Errors
    /// When a program cannot be started, or there is no right to mount the disks that are needed. What was started before is ended.
    pub async fn start(
        runtime: &Runtime,
        folder: RunFolder,
        programs: &Programs,
        shape: Shape,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        let names = |kind: &str, count| {
            (1..=count)
                .map(|number| format!("{kind}-{number}"))
                .collect()
        };
        let coordinators: Vec<String> = names("coordinator", shape.coordinators);
        let shard_servers: Vec<String> = names("shard", SHARDS);
        let watchdogs: Vec<String> = names("watchdog", shape.watchdogs);
        let servers = coordinators.len() + shard_servers.len() + watchdogs.len();
        let ports = free_ports(2 * servers + coordinators.len() + SHARDS)?;
        let mut ports = ports.into_iter().map(|port| format!("127.0.0.1:{port}"));
        let mut address = || ports.next().context("ports were counted");
        let addresses: Vec<String> = coordinators
            .iter()
            .map(|_| address())
            .collect::<anyhow::Result<_>>()?;
        let (mut network, mut registry) = (Network::new(needs.proxies), Vec::new());
        for (name, grpc) in coordinators.iter().zip(&addresses) {
            let reached = network.reached(runtime, (name, grpc), address()?).await?;
            registry.push(reached);
        }
        let scene = Scene {
            folder: &folder,
            programs,
            shape,
            coordinators: &addresses,
            registry: &registry,
        };
        for (number, (name, grpc)) in (1..).zip(coordinators.iter().zip(&addresses)) {
            folder.describe(name, &scene.coordinator(number, name, grpc, &address()?))?;
        }
        let (mut disks, mut shard_addresses) = (Vec::new(), Vec::new());
        for name in &shard_servers {
            let (grpc, http) = (address()?, address()?);
            let known_by = network.reached(runtime, (name, &grpc), address()?).await?;
            if needs.small_disks {
                disks.push(Disk::mount(folder.path(name))?);
            }
            folder.describe(name, &scene.shard_server(name, &grpc, &known_by, &http))?;
            shard_addresses.push(known_by);
        }
        let mut watchdog_metrics = Vec::new();
        for name in &watchdogs {
            let (grpc, http) = (address()?, address()?);
            folder.describe(name, &scene.watchdog(&grpc, &http))?;
            watchdog_metrics.push(http);
        }
        let mut processes = Self {
            folder,
            shape,
            addresses,
            watchdog_metrics,
            coordinators,
            shard_servers,
            shard_addresses,
            watchdogs,
            network,
            disks,
            supervisor: None,
        };
        for name in processes.names() {
            if let Err(error) = processes.folder.spawn(&name) {
                processes.stop()?;
                return Err(error);
            }
        }
        processes.supervise(runtime);
        Ok(processes)
    }

    /// Whether there is the right to mount small disks.
    #[must_use]
    pub fn can_mount() -> bool {
        tempfile::tempdir().is_ok_and(|folder| Disk::mount(folder.path().join("disk")).is_ok())
    }

    fn supervise(&mut self, runtime: &Runtime) {
        let names = self.coordinators.iter().chain(&self.watchdogs);
        let names = names.cloned().collect();
        self.supervisor = Some(Supervisor::start(runtime, &self.folder, names));
    }

    /// The watchdogs last when starting; the other way round they are stopped first.
    fn names(&self) -> Vec<String> {
        let servers = self.coordinators.iter().chain(&self.shard_servers);
        servers.chain(&self.watchdogs).cloned().collect()
    }
}

impl Deployment for Processes {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn watchdogs(&self) -> &[String] {
        &self.watchdogs
    }

    fn watchdog_metrics(&self) -> &[String] {
        &self.watchdog_metrics
    }

    fn coordinators(&self) -> &[String] {
        &self.coordinators
    }

    fn shard_servers(&self) -> &[String] {
        &self.shard_servers
    }

    fn shard_addresses(&self) -> &[String] {
        &self.shard_addresses
    }

    fn pid(&self, node: &str) -> anyhow::Result<Option<Pid>> {
        self.folder.pid(node)
    }

    fn guard(&self, node: &str, is_guarded: bool) -> anyhow::Result<()> {
        if is_guarded {
            // What keeps it from being started keeps it from being ended before that, too.
            return self.hold(node);
        }
        std::fs::remove_file(self.folder.hold_of(node))?;
        Ok(())
    }

    fn hold(&self, node: &str) -> anyhow::Result<()> {
        // From here on the watchdog's restart command refuses.
        std::fs::write(self.folder.hold_of(node), "")?;
        Ok(())
    }

    fn release(&self, node: &str) -> anyhow::Result<()> {
        match self.folder.release(node) {
            // The watchdog was faster.
            Err(_) if self.folder.pid(node)?.is_some() => Ok(()),
            spawned => spawned.map(drop),
        }
    }

    fn started_again(&self) -> anyhow::Result<u64> {
        let supervisor = self.supervisor.as_ref();
        Ok(supervisor.map_or(0, Supervisor::started_again))
    }

    fn data_dir(&self, node: &str) -> anyhow::Result<PathBuf> {
        Ok(self.folder.data_of(node))
    }

    fn set_link(&self, node: &str, link: Link) -> anyhow::Result<()> {
        self.network.set(&self.folder, node, link)
    }

    fn own_disk(&self, node: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path(node);
        let disk = self.disks.iter().find(|disk| disk.folder() == folder);
        anyhow::ensure!(disk.is_some(), "{node} shares its disk");
        Ok(folder)
    }

    fn logs(&self) -> String {
        const LINES: usize = 40;
        let tail = |name: String| {
            let log = std::fs::read(self.folder.path(&format!("{name}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = text.lines().rev().take(LINES).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("--- {name}\n{}\n", lines.join("\n"))
        };
        self.names().into_iter().map(tail).collect()
    }

    fn keep_data(&mut self, folder: &Path) -> anyhow::Result<String> {
        self.stop()?;
        let (own, kept) = (self.folder.as_path(), folder.join("kept"));
        if folder != own {
            copy(own, &kept)?;
            return Ok(format!("logs and data are copied to {}", kept.display()));
        }
        for disk in &self.disks {
            let name = disk.folder().file_name().context("a disk has a name")?;
            copy(disk.folder(), &kept.join(name))?;
        }
        Ok(format!("logs and data are in {}", own.display()))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(supervisor) = &self.supervisor {
            supervisor.stop();
        }
        let names = self.names();
        // A restart command that is under way would else start a server behind our back.
        let held: anyhow::Result<()> = names.iter().try_for_each(|name| self.hold(name));
        let looks_max = END_LIMIT.as_millis() / LOOK_INTERVAL.as_millis();
        for _ in 0..looks_max {
            let mut are_gone = true;
            for name in names.iter().rev() {
                let Some(pid) = self.folder.pid(name)? else {
                    continue;
                };
                are_gone = false;
                // It may be gone before the signal comes; the next look tells.
                pid.kill().ok();
            }
            if are_gone {
                return held;
            }
            pause();
        }
        anyhow::bail!(
            "processes of {} do not end",
            self.folder.as_path().display()
        )
    }
}

/// Between two looks at what ends.
#[expect(
    clippy::disallowed_methods,
    reason = "also called on drop, where nothing can be awaited"
)]
fn pause() {
    std::thread::sleep(LOOK_INTERVAL);
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Whoever cares for the error has called `stop`; a panicking test still must not leave processes behind.
        let _ = self.stop();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(scratch: &tempfile::TempDir) -> RunFolder {
        RunFolder::create(&scratch.path().join("out")).unwrap()
    }

    /// Something that does not end by itself while a test runs.
    fn describe(folder: &RunFolder, name: &str) {
        let spec = Spec {
            program: "sleep".into(),
            arguments: vec!["60".to_owned()],
        };
        folder.describe(name, &spec).unwrap();
    }

    #[test]
    fn each_run_has_a_folder_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let (first, second) = (folder(&scratch), folder(&scratch));
        assert_ne!(first.as_path(), second.as_path());
        let opened = RunFolder::open(first.as_path()).unwrap();
        assert_eq!(opened.as_path(), first.as_path());
        assert!(RunFolder::open(&scratch.path().join("none")).is_err());
    }

    #[test]
    fn a_start_fails_where_it_is_held_down_meanwhile() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = folder(&scratch);
        describe(&folder, "held");
        let pid = folder.spawn("held").unwrap();
        assert_eq!(folder.pid("held").unwrap(), Some(pid));
        // As if whoever holds it down had come between the start and the note.
        std::fs::write(folder.hold_of("held"), "").unwrap();
        assert!(folder.note("held", pid).is_err());
        pid.kill().unwrap();
        assert!(folder.spawn("held").is_err());
    }

    const NAMES: [&str; 3] = ["coordinator-1", "shard-1", "watchdog-1"];

    /// One of each that serves nothing, and their processes.
    fn one_of_each(folder: &RunFolder) -> (Processes, [Pid; 3]) {
        let pids = NAMES.map(|name| {
            describe(folder, name);
            folder.spawn(name).unwrap()
        });
        let [coordinators, shard_servers, watchdogs] = NAMES.map(|name| vec![name.to_owned()]);
        let processes = Processes {
            folder: folder.clone(),
            shape: Shape::SINGLE,
            addresses: Vec::new(),
            watchdog_metrics: Vec::new(),
            coordinators,
            shard_servers,
            shard_addresses: Vec::new(),
            watchdogs,
            network: Network::default(),
            disks: Vec::new(),
            supervisor: None,
        };
        (processes, pids)
    }

    #[test]
    fn a_stop_ends_everything_and_lets_nothing_start_any_more() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = folder(&scratch);
        let (mut processes, pids) = one_of_each(&folder);
        processes.stop().unwrap();
        assert!(pids.iter().all(|pid| !pid.is_alive()));
        assert!(NAMES.iter().all(|name| folder.spawn(name).is_err()));
        processes.stop().unwrap();
    }

    async fn killed(runtime: &Runtime, pid: Pid) {
        pid.kill().unwrap();
        let gone = wait_for(runtime, END_LIMIT, || Ok(!pid.is_alive())).await;
        gone.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_coordinator_or_a_watchdog_that_ends_is_started_again_and_no_other() {
        let runtime = Runtime::real();
        let scratch = tempfile::tempdir().unwrap();
        let folder = folder(&scratch);
        let (mut processes, pids) = one_of_each(&folder);
        processes.supervise(&runtime);
        for pid in pids {
            killed(&runtime, pid).await;
        }
        let started = |times: u64| processes.started_again().map(|at| at == times);
        let twice = wait_for(&runtime, END_LIMIT, || started(2)).await;
        twice.unwrap();
        let [coordinator, shard, watchdog] = NAMES.map(|name| folder.pid(name).unwrap());
        assert_eq!(shard, None, "its watchdogs are asked for that");
        let [coordinator, watchdog] = [coordinator, watchdog].map(Option::unwrap);

        // What is held down stays down, also when the one that is looked at after it comes back.
        processes.hold(NAMES[0]).unwrap();
        for pid in [coordinator, watchdog] {
            killed(&runtime, pid).await;
        }
        let again = wait_for(&runtime, END_LIMIT, || started(3)).await;
        again.unwrap();
        assert_eq!(folder.pid(NAMES[0]).unwrap(), None);
        processes.stop().unwrap();
    }
}
