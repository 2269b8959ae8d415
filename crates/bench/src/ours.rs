//! Our cluster: `autocomplete up` as a process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use client::{Client, ClientOptions};
use runtime::Runtime;
use workload::{Grpc, GrpcOptions};

use crate::process::{Process, is_file};

/// How long a cluster may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a load may take: ten million terms, at a hundredth of the rate that is usual.
const LOAD_PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// The program of this build: beside this one.
pub(crate) fn beside() -> Option<PathBuf> {
    let mut path = std::env::current_exe().ok()?;
    path.set_file_name("autocomplete");
    is_file(&path).then_some(path)
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
) -> Result<(Process, String), anyhow::Error> {
    let mut up = command(program);
    up.args(["up", "--grpc-addr", "127.0.0.1:0", "--http-addr"])
        .args(["127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(["--shards", &shards.to_string()])
        .stdout(Stdio::piped());
    let mut process = Process::start(&mut up)?;
    let stdout = process.take_stdout().context("it has no output")?;
    // Ends at the latest when the process does, which is when this function fails.
    let banner = runtime.spawn_blocking("banner", move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
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
    });
    let banner = runtime.timeout(START_PATIENCE, banner).await;
    let address = banner.context("it does not start")??;
    Ok((process, address.context("it ended before it served")?))
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

/// One connection with one request in flight.
pub(crate) fn target(
    runtime: &Runtime,
    address: &str,
    k: u32,
    stream: bool,
) -> Result<Grpc, anyhow::Error> {
    let options = ClientOptions {
        connections: 1,
        retries: 0,
        ..ClientOptions::to(address)
    };
    let client = Client::connect(runtime.clone(), options)?;
    let options = GrpcOptions {
        namespace: "default".to_owned(),
        k,
        stream,
    };
    Ok(Grpc::new(&client, options))
}
