//! The cluster as containers, by the `docker-compose.yml` that operators use.
//!
//! A container is killed by the id of its process on the host: `docker kill` counts as a stop by hand, and the restart policy
//! would not bring it back. `down` goes before `up`, because docker-compose 1.29 cannot recreate containers on current engines.
//!
//! A container is taken off its network as a whole. Where faults of single directions, or full disks, are wanted, or a shard server is to be
//! asked by itself, `struck.yml` is added: the run's own proxies stand between the servers, as for processes, and each shard server has a small
//! disk that the run has mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use parking_lot::Mutex;
use runtime::Runtime;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::deployment::{Deployment, Pid, SHARDS, Shape};
use crate::disk::{Disk, copy};
use crate::faults::Needs;
use crate::proxy::{Link, Proxy};

/// The name of the project, so that a run touches no other containers.
const PROJECT: &str = "autocomplete-chaos";

/// What lets the watchdogs restart containers: the first, and the second.
const RESTART: &str = "deploy/docker/restart.yml";
const RESTART_SECOND: &str = "deploy/docker/restart-second.yml";
/// What makes three of everything out of `docker-compose.yml`.
const REPLICATED: &str = "deploy/docker/replicated.yml";

/// What puts proxies and small disks in between.
const STRUCK: &str = "tests/chaos/struck.yml";

/// Where the proxy of the shard server of this number, from 1, listens, and where the server itself is: as in `struck.yml`.
fn struck_addresses(number: usize) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let number = u8::try_from(number)?;
    let proxy = ([172, 29, 77, 1], 20_060 + u16::from(number));
    Ok((proxy.into(), ([172, 29, 77, 200 + number], 50061).into()))
}

/// What stands between the servers, and below them, where faults need it.
#[derive(Debug)]
struct Stage {
    proxies: BTreeMap<String, Proxy>,
    disks: BTreeMap<String, Disk>,
    /// Goes after what is mounted in it.
    folder: TempDir,
}

impl Stage {
    /// Mounts the disks. The proxies come when the network is there.
    fn set(servers: &[String]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut disks = BTreeMap::new();
        for name in servers {
            disks.insert(name.clone(), Disk::mount(folder.path().join(name))?);
        }
        Ok(Self {
            proxies: BTreeMap::new(),
            disks,
            folder,
        })
    }

    async fn connect(&mut self, runtime: &Runtime, servers: &[String]) -> anyhow::Result<()> {
        // A container that is cut off has no network at all.
        let nobody = watch::Sender::default();
        for (number, name) in (1..).zip(servers) {
            let (listen, server) = struck_addresses(number)?;
            let proxy = Proxy::start(runtime, listen, server, &nobody).await?;
            self.proxies.insert(name.clone(), proxy);
        }
        Ok(())
    }
}

/// A running `docker-compose.yml`.
#[derive(Debug)]
pub struct Compose {
    shape: Shape,
    shard_servers: Vec<String>,
    coordinators: Vec<String>,
    watchdogs: Vec<String>,
    addresses: Vec<String>,
    watchdog_metrics: Vec<String>,
    /// Empty without a stage.
    shard_addresses: Vec<String>,
    /// Whether the watchdogs restart containers that hang.
    restarts: bool,
    /// Whether the volumes outlive the containers.
    keeps_volumes: bool,
    stage: Option<Stage>,
    /// Servers that are off the network.
    apart: Mutex<BTreeSet<String>>,
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
    /// When the build or the start fails, with what Docker said, or there is no right to mount the disks that are needed.
    pub async fn start(runtime: &Runtime, shape: Shape, needs: Needs) -> anyhow::Result<Self> {
        run(Command::new("deploy/docker/build"))?;
        let numbered = |name: &str, count| {
            let rest = (2..=count).map(|number| format!("{name}-{number}"));
            std::iter::once(name.to_owned()).chain(rest).collect()
        };
        let ports = [50051, 50052, 50053].into_iter().take(shape.coordinators);
        let metrics = [8082, 8083].into_iter().take(shape.watchdogs);
        let shard_servers: Vec<String> = (1..=SHARDS)
            .map(|number| format!("shard-{number}"))
            .collect();
        let is_staged = needs.proxies || needs.small_disks || needs.reach;
        let stage = is_staged.then(|| Stage::set(&shard_servers)).transpose()?;
        let mut compose = Self {
            shape,
            shard_servers,
            shard_addresses: Vec::new(),
            restarts: needs.restarts,
            keeps_volumes: false,
            stage,
            apart: Mutex::default(),
            coordinators: numbered("coordinator", shape.coordinators),
            watchdogs: numbered("watchdog", shape.watchdogs),
            addresses: ports.map(|port| format!("127.0.0.1:{port}")).collect(),
            watchdog_metrics: metrics.map(|port| format!("127.0.0.1:{port}")).collect(),
        };
        anyhow::ensure!(
            [Shape::SINGLE, Shape::REPLICATED].contains(&shape),
            "containers are described for one or for three of everything"
        );
        run(compose.command(&["down", "--volumes", "--remove-orphans"]))?;
        if compose.stage.is_none() {
            run(compose.command(&["up", "--detach"]))?;
            return Ok(compose);
        }
        // This makes the network, without whose gateway no proxy can listen.
        run(compose.command(&["up", "--no-start"]))?;
        if let Some(stage) = &mut compose.stage {
            stage.connect(runtime, &compose.shard_servers).await?;
        }
        run(compose.command(&["start"]))?;
        for number in 1..=SHARDS {
            let (proxy, _) = struck_addresses(number)?;
            compose.shard_addresses.push(proxy.to_string());
        }
        Ok(compose)
    }

    /// The volume of a server, by the name that Docker has for it.
    fn volume(node: &str) -> String {
        format!("{PROJECT}_{node}")
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
        if self.restarts {
            command.args(["--file", RESTART]);
            if self.shape == Shape::REPLICATED {
                command.args(["--file", RESTART_SECOND]);
            }
        }
        if let Some(stage) = &self.stage {
            command.args(["--file", STRUCK]);
            command.env("CHAOS_DISKS", stage.folder.path());
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

    fn watchdogs(&self) -> &[String] {
        &self.watchdogs
    }

    fn watchdog_metrics(&self) -> &[String] {
        &self.watchdog_metrics
    }

    fn shard_servers(&self) -> &[String] {
        &self.shard_servers
    }

    fn shard_addresses(&self) -> &[String] {
        &self.shard_addresses
    }

    fn guard(&self, node: &str, _: bool) -> anyhow::Result<()> {
        // The restart policy only looks for what has ended.
        anyhow::ensure!(!self.restarts, "the watchdogs restart {node} when it hangs");
        Ok(())
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

    fn started_again(&self) -> anyhow::Result<u64> {
        // By the restart policy. What it did before a start by hand, Docker does not tell.
        let count = |node: &String| -> anyhow::Result<u64> {
            let mut inspect = Command::new("docker");
            inspect.args(["inspect", "--format", "{{.RestartCount}}"]);
            inspect.arg(self.container(node)?);
            Ok(run(inspect)?.trim().parse::<u64>()?)
        };
        let names = self.coordinators.iter().chain(&self.watchdogs);
        names.map(count).sum()
    }

    fn data_dir(&self, node: &str) -> anyhow::Result<PathBuf> {
        if let Some(disk) = self.stage.as_ref().and_then(|stage| stage.disks.get(node)) {
            return Ok(disk.folder().join("node"));
        }
        let mut inspect = Command::new("docker");
        let volume = Self::volume(node);
        inspect.args(["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
        let is_coordinator = self.coordinators.iter().any(|name| name == node);
        let folder = if is_coordinator {
            "coordinator"
        } else {
            "node"
        };
        Ok(Path::new(run(inspect)?.trim()).join(folder))
    }

    fn set_link(&self, node: &str, link: Link) -> anyhow::Result<()> {
        let network = format!("{PROJECT}_cluster");
        let proxy = self
            .stage
            .as_ref()
            .and_then(|stage| stage.proxies.get(node));
        let is_apart = self.apart.lock().contains(node);
        let mut command = Command::new("docker");
        match link {
            Link::Whole if is_apart => {
                // Under the name, and the address if it has one of its own, that the others know it by.
                command.args(["network", "connect", "--alias", node]);
                let mut servers = (1..).zip(&self.shard_servers);
                let number = servers.find(|(_, name)| *name == node);
                if let Some((number, _)) = number.filter(|_| proxy.is_some()) {
                    let (_, server) = struck_addresses(number)?;
                    command.args(["--ip", &server.ip().to_string()]);
                }
            }
            Link::Cut => {
                command.args(["network", "disconnect"]);
            }
            Link::Whole | Link::OneWay | Link::HalfOpen => {
                let proxy = proxy.with_context(|| format!("{node} has no proxy"))?;
                proxy.set(link);
                return Ok(());
            }
        }
        command.args([&network, &self.container(node)?]);
        run(command)?;
        let mut apart = self.apart.lock();
        if link == Link::Cut {
            apart.insert(node.to_owned());
        } else {
            apart.remove(node);
        }
        Ok(())
    }

    fn own_disk(&self, node: &str) -> anyhow::Result<PathBuf> {
        let disk = self.stage.as_ref().and_then(|stage| stage.disks.get(node));
        let disk = disk.with_context(|| format!("{node} shares its disk, which is not filled"))?;
        let data = self.data_dir(node)?;
        anyhow::ensure!(
            data.exists(),
            "{node} keeps nothing below {}, so that filling it would prove nothing",
            disk.folder().display()
        );
        Ok(disk.folder().to_owned())
    }

    fn logs(&self) -> String {
        run(self.command(&["logs", "--no-color"])).unwrap_or_else(|error| error.to_string())
    }

    fn keep_data(&mut self, folder: &Path) -> anyhow::Result<String> {
        // First, for the rest may fail.
        self.keeps_volumes = true;
        run(self.command(&["kill"]))?;
        let mut servers = self.coordinators.clone();
        let mut copied = String::new();
        if let Some(stage) = &self.stage {
            let kept = folder.join("kept");
            for (name, disk) in &stage.disks {
                copy(disk.folder(), &kept.join(name))?;
            }
            let kept = kept.display();
            copied = format!("; what was on the small disks of shard servers is in {kept}");
        } else {
            servers.extend(self.shard_servers.iter().cloned());
        }
        let volumes: Vec<String> = servers.iter().map(|name| Self::volume(name)).collect();
        let volumes = volumes.join(", ");
        Ok(format!(
            "the data are in the volumes {volumes}, which the next run of containers removes{copied}"
        ))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let mut arguments = vec!["down", "--remove-orphans"];
        if !self.keeps_volumes {
            arguments.push("--volumes");
        }
        run(self.command(&arguments)).map(drop)
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
