//! The programs of the cluster, as the real servers they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Layout, ShardId};
use telemetry::Metrics;

use crate::machine::{Process, Program};
use crate::net::{HostId, address};

const COORDINATOR_PORT: u16 = 50_051;
const SHARD_PORT: u16 = 50_061;
const REPLICAS: usize = 3;

/// Where the coordinators are reached.
pub(crate) fn coordinators() -> Vec<String> {
    vec![address(COORDINATOR, COORDINATOR_PORT).to_string()]
}

/// The coordinator's machine.
pub(crate) const COORDINATOR: HostId = 1;
/// The shard servers' machines.
pub(crate) const SHARD_SERVERS: [HostId; REPLICAS] = [11, 12, 13];
/// The clients' machine, which nothing happens to.
pub(crate) const CLIENTS: HostId = 100;

/// Where a shard server is reached.
pub(crate) fn shard_address(host: HostId) -> String {
    address(host, SHARD_PORT).to_string()
}

/// Two shards, each with a replica on every shard server.
pub(crate) fn shards() -> [ShardId; 2] {
    [ShardId(1), ShardId(2)]
}

pub(crate) fn coordinator(host: HostId) -> anyhow::Result<Program> {
    let starts = ["", "m"].map(str::to_owned);
    let template = Layout::new(starts.into_iter().zip(shards()).collect())?;
    let config = coordinator::Config {
        grpc_addr: address(host, COORDINATOR_PORT),
        data_dir: PathBuf::from("/data"),
        cluster: coordinator::ClusterConfig {
            template,
            replicas: REPLICAS,
            expect_nodes: REPLICAS,
        },
        ..coordinator::Config::default()
    };
    Ok(Arc::new(move |process: Process| {
        let config = config.clone();
        Box::pin(async move {
            let Process { runtime, vfs, stop } = process;
            let text = |error: &dyn std::fmt::Display| error.to_string();
            let grpc = runtime.bind(config.grpc_addr).await;
            let deps = coordinator::Deps {
                grpc: grpc.map_err(|error| text(&error))?,
                http: None,
                neighbours: rpc::Neighbours::default(),
                metrics: Metrics::new(&runtime).map_err(|error| text(&error))?,
                runtime,
                vfs,
            };
            let ended = coordinator::run(config, deps, stop).await;
            ended.map_err(|error| text(&error))
        })
    }))
}

pub(crate) fn shard_server(host: HostId) -> Program {
    let default = shard_server::Config::default();
    let config = shard_server::Config {
        grpc_addr: address(host, SHARD_PORT),
        data_dir: PathBuf::from("/data"),
        node_name: format!("node-{host}"),
        coordinators: coordinators(),
        // Small, so that logs are rotated and snapshots taken within seconds.
        log: shard_server::config::LogConfig {
            segment_bytes: 512 << 10,
            reserve_bytes: 1 << 20,
            ..default.log
        },
        snapshots: shard_server::config::SnapshotConfig {
            entries: 150,
            interval: Duration::from_secs(20),
        },
        ..default
    };
    Arc::new(move |process: Process| {
        let config = config.clone();
        Box::pin(async move {
            let Process { runtime, vfs, stop } = process;
            let deps = shard_server::Deps {
                metrics: Metrics::new(&runtime).map_err(|error| error.to_string())?,
                listener: None,
                neighbours: rpc::Neighbours::default(),
                runtime,
                vfs,
            };
            let ended = shard_server::run(config, deps, stop).await;
            ended.map_err(|error| error.to_string())
        })
    })
}

/// A machine on which nothing runs but what is put there.
pub(crate) fn idle() -> Program {
    Arc::new(|process: Process| {
        Box::pin(async move {
            process.stop.cancelled().await;
            Ok(())
        })
    })
}
