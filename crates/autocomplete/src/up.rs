//! `autocomplete up`: the whole cluster in one process.
//!
//! The same parts as in a cluster of many machines, over the same protocols, but that the coordinator calls the shards without a socket: a
//! coordinator, as many shard servers as a shard has replicas (each with a data directory and an internal port of its own), and a watchdog. What a process manager does elsewhere, the [`Supervisor`] does here: a node
//! that ends is started again.
//!
//! What always holds:
//! - Nothing is bound or written before the arguments and the data directory are checked.
//! - The coordinator stops first and the nodes after it, so that calls that were taken can be answered.
//! - A failed disk stops the node that has it, and no other; a coordinator that cannot go on ends the process.

mod banner;
mod cluster;
mod place;
mod ready;
mod sample;
mod supervisor;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use client::ClientOptions;
use runtime::{CancellationToken, Runtime};
use telemetry::logging::{self, LogConfig, LogFormat};

use crate::exit::usage;
use crate::signals::Signals;
use crate::target::connect;
use cluster::{Addresses, Cluster};
pub(crate) use place::numbers_of;
use place::{Asked, Place};

/// Shards of a cluster that is begun without saying how many, and replicas of each.
const SHARDS_DEFAULT: u16 = 3;
const REPLICAS_DEFAULT: u16 = 1;
/// At most as many shards, and as many servers; and replicas of each shard.
const SERVERS_MAX: u16 = 64;
const REPLICAS_MAX: u16 = 7;

/// Starts a whole cluster in one process: shards, coordinator and watchdog. Data stays in the data directory; Ctrl-C stops.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpArgs {
    /// Shards to spread terms over; fixed when the data directory is first used [default: 3]
    #[arg(long, value_name = "NUMBER", env = "AUTOCOMPLETE_SHARDS", value_parser = clap::value_parser!(u16).range(1..=SERVERS_MAX.into()))]
    shards: Option<u16>,

    /// Replicas of each shard, on as many servers; a majority of them must run. In one process this protects from a failed
    /// data directory, not from a failed machine; fixed when the data directory is first used [default: 1]
    #[arg(long, value_name = "NUMBER", env = "AUTOCOMPLETE_REPLICAS", value_parser = clap::value_parser!(u16).range(1..=REPLICAS_MAX.into()))]
    replicas: Option<u16>,

    /// Shard servers, each with a log of its own; at least as many as replicas. One log takes the records of several shards in
    /// one sync, so that more are only good for trying what happens between them; fixed when the data directory is first
    /// used [default: as many as replicas]
    #[arg(long, value_name = "NUMBER", env = "AUTOCOMPLETE_SERVERS", value_parser = clap::value_parser!(u16).range(1..=SERVERS_MAX.into()))]
    servers: Option<u16>,

    /// Where gRPC is served
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "AUTOCOMPLETE_GRPC_ADDR",
        default_value = "127.0.0.1:50051"
    )]
    grpc_addr: SocketAddr,

    /// Where the page, the JSON interface and the metrics are served
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "AUTOCOMPLETE_HTTP_ADDR",
        default_value = "127.0.0.1:8080"
    )]
    http_addr: SocketAddr,

    /// Where everything is kept
    #[arg(
        long,
        value_name = "DIR",
        env = "AUTOCOMPLETE_DATA_DIR",
        default_value = "./autocomplete-data"
    )]
    data_dir: PathBuf,

    /// Load the names of 98,436 places when the data directory is first used
    #[arg(long)]
    sample: bool,

    /// Log levels by module, such as info,wal=debug
    #[arg(
        long,
        value_name = "FILTER",
        env = "AUTOCOMPLETE_LOG_FILTER",
        default_value = "warn,openraft=error,autocomplete=info,rpc::trace=info"
    )]
    log_filter: String,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", env = "AUTOCOMPLETE_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

pub(crate) async fn run(runtime: &Runtime, arguments: UpArgs) -> Result<(), anyhow::Error> {
    let format: LogFormat = arguments
        .log_format
        .parse()
        .map_err(|error: logging::LoggingError| usage(error.to_string()))?;
    let log = LogConfig {
        format,
        filter: arguments.log_filter.clone(),
    };
    logging::init(&log).map_err(|error| usage(error.to_string()))?;
    let mut signals = Signals::new()?;
    let runtime = &runtime
        .clone()
        .with_connection_threads()
        .context("cannot start threads")?;
    let asked = Asked {
        shards: arguments.shards,
        replicas: arguments.replicas,
        servers: arguments.servers,
    };
    let place = Place::open(&arguments.data_dir, asked)?;
    let stop = CancellationToken::new();
    let mut cluster = Cluster::start(runtime, &arguments, &place, &stop).await?;
    let addresses = cluster.addresses();
    let result = tokio::select! {
        result = serve(runtime, &arguments, &place, addresses) => result,
        failure = cluster.failed() => Err(failure),
        () = signals.next() => Ok(()),
    };
    if result.is_ok() {
        banner::stopping();
    }
    stop.cancel();
    tokio::select! {
        () = cluster.stopped() => result,
        () = signals.next() => Err(anyhow::anyhow!("stopped in a hurry, by a second signal")),
    }
}

/// Waits until the cluster serves, says so, and brings the sample in. Returns only with an error.
async fn serve(
    runtime: &Runtime,
    arguments: &UpArgs,
    place: &Place,
    addresses: Addresses,
) -> Result<(), anyhow::Error> {
    let client = connect(runtime, ClientOptions::to(addresses.grpc.to_string()))?;
    ready::wait(runtime, &client, place.shards()).await;
    banner::ready(addresses, place)?;
    if arguments.sample {
        sample::load(runtime, &client, place).await;
    }
    std::future::pending().await
}
