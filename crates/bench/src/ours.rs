//! Our cluster: `autocomplete up` as one process, or a coordinator and shard servers as processes of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::ThreadId;
use std::time::Duration;

use anyhow::Context as _;
use client::{Client, ClientOptions};
use parking_lot::Mutex;
use runtime::Runtime;
use workload::{Grpc, GrpcOptions};

use crate::process::{Process, Processes, free_port, is_file};

/// How many threads a process runs its tasks on. With more processes than cores, one each: the others only wake each other.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
/// How long a cluster may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Replicas of each shard where there are several, and the servers that this takes.
const REPLICAS: u8 = 3;
/// How long a load may take: ten million terms, at a hundredth of the rate that is usual.
const LOAD_PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// The program of this build: beside this one.
pub(crate) fn beside() -> Option<PathBuf> {
    let mut path = std::env::current_exe().ok()?;
    path.set_file_name("autocomplete");
    is_file(&path).then_some(path)
}

/// How a cluster runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// `autocomplete up`, with so many shards.
    Up(u16),
    /// A coordinator and shard servers as processes of their own.
    Processes(Shape),
}

impl Form {
    pub(crate) fn shards(self) -> u16 {
        match self {
            Self::Up(shards) => shards,
            Self::Processes(shape) => shape.shards,
        }
    }
}

/// What a cluster of processes is made up of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) shards: u16,
    /// Of each shard.
    pub(crate) replicas: u8,
    /// Shard servers, named shard-1, shard-2 and so on; at least as many as replicas.
    pub(crate) servers: u8,
    /// Calls that the coordinator works on at once, unless that is left to it.
    pub(crate) calls_max: Option<u16>,
}

impl Shape {
    /// [`REPLICAS`] of each shard, on as many servers.
    pub(crate) fn replicated(shards: u16) -> Self {
        Self {
            shards,
            replicas: REPLICAS,
            servers: REPLICAS,
            calls_max: None,
        }
    }
}

/// The programs of a cluster of processes, beside the command.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    coordinator: PathBuf,
    shard_server: PathBuf,
}

impl Programs {
    pub(crate) fn beside(autocomplete: &Path) -> Option<Self> {
        let find = |name| Some(autocomplete.with_file_name(name)).filter(|path| is_file(path));
        Some(Self {
            coordinator: find("coordinator")?,
            shard_server: find("shard-server")?,
        })
    }

    /// The command that also serves as the operator's.
    pub(crate) fn coordinator(&self) -> Command {
        command(&self.coordinator)
    }
}

/// The program, cut off from the environment's settings.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AUTOCOMPLETE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Starts a cluster of so many shards in an empty folder; gives its address.
pub(crate) async fn start(
    runtime: &Runtime,
    program: &Path,
    shards: u16,
    dir: &Path,
) -> Result<(Processes, String), anyhow::Error> {
    let mut up = command(program);
    up.args(["up", "--grpc-addr", "127.0.0.1:0", "--http-addr"])
        .args(["127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(["--shards", &shards.to_string()])
        .stdout(Stdio::piped());
    let mut process = Process::start(&mut up)?;
    let look = |lines: &mut dyn Iterator<Item = String>| {
        let mut address = None;
        for line in lines {
            if let Some(at) = line.trim().strip_prefix("gRPC ") {
                address = Some(at.trim().to_owned());
            }
            if line.contains("Ctrl-C stops it") {
                break;
            }
        }
        address
    };
    let address = process.banner(runtime, START_PATIENCE, look).await?;
    let address = address.context("it ended before it served")?;
    Ok((Processes(vec![process]), address))
}

/// Starts a coordinator and shard servers in an empty folder; gives the coordinator's address once all shards are served.
pub(crate) async fn start_processes(
    runtime: &Runtime,
    programs: &Programs,
    shape: Shape,
    dir: &Path,
) -> Result<(Processes, String), anyhow::Error> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut coordinator = programs.coordinator();
    coordinator
        .args(["serve", "--grpc-addr", &address, "--http-addr"])
        .args(["127.0.0.1:0", "--data-dir"])
        .arg(dir.join("coordinator"))
        .args(["--shards", &shape.shards.to_string()])
        .args(["--replicas", &shape.replicas.to_string()])
        .args(["--expect-nodes", &shape.servers.to_string()])
        .env(WORKER_THREADS, "1");
    if let Some(calls_max) = shape.calls_max {
        coordinator.args(["--calls-max", &calls_max.to_string()]);
    }
    let mut processes = Processes(vec![Process::start(&mut coordinator)?]);
    for number in 1..=shape.servers {
        let name = format!("shard-{number}");
        let mut shard_server = command(&programs.shard_server);
        shard_server
            .env(WORKER_THREADS, "1")
            .args(["serve", "--grpc-addr", "127.0.0.1:0", "--node-name", &name])
            .args(["--coordinators", &address, "--data-dir"])
            .arg(dir.join(&name));
        processes.0.push(Process::start(&mut shard_server)?);
    }
    let deadline = runtime.now() + START_PATIENCE;
    loop {
        processes.ensure_run()?;
        let mut look = programs.coordinator();
        look.args(["healthcheck", "--addr", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let look = Process::start(&mut look)?;
        if look.finish(runtime, START_PATIENCE).await.is_ok() {
            return Ok((processes, address));
        }
        anyhow::ensure!(runtime.now() < deadline, "it does not come to serve");
        runtime.sleep(POLL).await;
    }
}

/// Loads a file through the front door.
pub(crate) async fn load(
    runtime: &Runtime,
    program: &Path,
    address: &str,
    file: &Path,
    dir: &Path,
) -> Result<(), anyhow::Error> {
    let mut load = command(program);
    load.args(["load", "--addr", address])
        .arg(file)
        .env("AUTOCOMPLETE_STATE_DIR", dir.join("loads"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Process::start(&mut load)?;
    process.finish(runtime, LOAD_PATIENCE).await
}

/// How a request gets to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A call to the coordinator, which sends it on.
    Routed,
    /// A call to the shard server itself.
    Direct,
    /// A message of a stream to the coordinator.
    Stream,
}

/// One connection with one request in flight.
pub(crate) fn target(
    runtime: &Runtime,
    address: &str,
    k: u32,
    way: Way,
) -> Result<Grpc, anyhow::Error> {
    Ok(over(&connect(runtime, address, way)?, k, way))
}

fn connect(runtime: &Runtime, address: &str, way: Way) -> Result<Client, anyhow::Error> {
    let options = ClientOptions {
        connections: 1,
        // Who goes to the shard itself is told who leads it by the first that is asked.
        retries: u32::from(way == Way::Direct),
        direct: way == Way::Direct,
        ..ClientOptions::to(address)
    };
    Ok(Client::connect(runtime.clone(), options)?)
}

fn over(client: &Client, k: u32, way: Way) -> Grpc {
    let options = GrpcOptions {
        namespace: "default".to_owned(),
        k,
        stream: way == Way::Stream,
    };
    Grpc::new(client, options)
}

/// Connections that targets share. Those of a thread share what was made on it, so that no answer wakes another thread.
#[derive(Debug)]
pub(crate) struct Pool {
    runtime: Runtime,
    address: String,
    /// So many are made, and one more on each thread that has none by then.
    most: u16,
    made: Mutex<Vec<Shared>>,
}

#[derive(Debug)]
struct Shared {
    thread: ThreadId,
    client: Client,
    targets: usize,
}

impl Pool {
    pub(crate) fn new(runtime: &Runtime, address: &str, most: u16) -> Self {
        Self {
            runtime: runtime.clone(),
            address: address.to_owned(),
            most,
            made: Mutex::default(),
        }
    }

    /// One more request in flight, called for on the thread that waits for its answer.
    pub(crate) fn target(&self, k: u32) -> Result<Grpc, anyhow::Error> {
        let (here, way) = (std::thread::current().id(), Way::Routed);
        let mut made = self.made.lock();
        if made.len() >= usize::from(self.most) {
            let own = made.iter_mut().filter(|at| at.thread == here);
            if let Some(least) = own.min_by_key(|at| at.targets) {
                least.targets += 1;
                return Ok(over(&least.client, k, way));
            }
        }
        let client = connect(&self.runtime, &self.address, way)?;
        let target = over(&client, k, way);
        made.push(Shared {
            thread: here,
            client,
            targets: 1,
        });
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_shared_when_there_are_enough() {
        let runtime = Runtime::real();
        let pool = Pool::new(&runtime, "127.0.0.1:1", 3);
        for _ in 0..10 {
            pool.target(1).unwrap();
        }
        let targets: Vec<usize> = pool.made.lock().iter().map(|at| at.targets).collect();
        assert_eq!(targets, [4, 3, 3]);
        let elsewhere = runtime.spawn_blocking("another thread", move || {
            pool.target(1).unwrap();
            pool.target(1).unwrap();
            pool.made.lock().len()
        });
        assert_eq!(elsewhere.await.unwrap(), 4, "none of another thread's");
    }
}
