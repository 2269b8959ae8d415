//! The programs of the cluster, as the real servers they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Layout, NodeId, ShardId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use telemetry::Metrics;
use watchdog::NodeTarget;
use watchdog::restart::{Restart, RestartError, Restarter};

use crate::dice::Dice;
use crate::machine::{Process, Program};
use crate::net::{HostId, address};

const COORDINATOR_PORT: u16 = 50_051;
const SHARD_PORT: u16 = 50_061;
const REPLICAS: usize = 3;

/// The coordinators' machines, of which a world has the first or all.
const COORDINATORS: [HostId; 3] = [1, 2, 3];
/// The watchdogs' machines, of which a world has none, the first or both.
const WATCHDOGS: [HostId; 2] = [21, 22];
/// The shard servers' machines that every world has.
pub(crate) const SHARD_SERVERS: [HostId; REPLICAS] = [11, 12, 13];
/// The same with the one to spare that some have.
const WITH_A_SPARE: [HostId; REPLICAS + 1] = [11, 12, 13, 14];
/// The clients' machine, which nothing happens to.
pub(crate) const CLIENTS: HostId = 100;

/// What a world consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    has_group: bool,
    /// There is one shard server more than a shard has replicas, so that they can move.
    has_spare: bool,
    /// How many watchdogs have shard servers restarted; without any they come back by themselves.
    watchdogs: usize,
}

impl Shape {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let has_group = dice.percent(30);
        let has_spare = dice.percent(30);
        let watchdogs = match dice.below(0..100) {
            0..18 => 1,
            18..36 => 2,
            _ => 0,
        };
        Self {
            has_group,
            // Whoever gave up its data, and was replaced by the spare before it came back as a new node, is nobody's for a watchdog:
            // it comes back by its supervisor alone, which such a world does not have.
            has_spare: has_spare && watchdogs == 0,
            watchdogs,
        }
    }

    /// The machines of the coordinators.
    pub(crate) fn coordinators(self) -> &'static [HostId] {
        if self.has_group {
            &COORDINATORS
        } else {
            &[COORDINATORS[0]]
        }
    }

    /// The machines of the shard servers.
    pub(crate) fn shard_servers(self) -> &'static [HostId] {
        if self.has_spare {
            &WITH_A_SPARE
        } else {
            &SHARD_SERVERS
        }
    }

    /// The machines of the watchdogs.
    pub(crate) fn watchdogs(self) -> &'static [HostId] {
        let (there, _) = WATCHDOGS.split_at(self.watchdogs.min(WATCHDOGS.len()));
        there
    }

    /// Where the coordinators are reached.
    pub(crate) fn endpoints(self) -> Vec<String> {
        let hosts = self.coordinators().iter();
        hosts.map(|host| coordinator_address(*host)).collect()
    }
}

/// Where a coordinator is reached.
pub(crate) fn coordinator_address(host: HostId) -> String {
    address(host, COORDINATOR_PORT).to_string()
}

/// Where a shard server is reached.
pub(crate) fn shard_address(host: HostId) -> String {
    address(host, SHARD_PORT).to_string()
}

/// Whether a machine is a shard server's.
pub(crate) fn serves_shards(host: HostId) -> bool {
    WITH_A_SPARE.contains(&host)
}

/// Two shards, each with a replica on three shard servers.
pub(crate) fn shards() -> [ShardId; 2] {
    [ShardId(1), ShardId(2)]
}

/// Where the shards begin.
const STARTS: [&str; 2] = ["", "m"];

/// The shard that a term belongs to.
pub(crate) fn shard_of(term: &str) -> ShardId {
    let [first, second] = shards();
    if term < STARTS[1] { first } else { second }
}

pub(crate) fn coordinator(host: HostId, shape: Shape) -> anyhow::Result<Program> {
    let starts = STARTS.map(str::to_owned);
    let template = Layout::new(starts.into_iter().zip(shards()).collect())?;
    let config = coordinator::Config {
        grpc_addr: address(host, COORDINATOR_PORT),
        data_dir: PathBuf::from("/data"),
        group: coordinator::config::CoordinatorsConfig {
            id: NodeId(u64::from(host)),
            peers: if shape.has_group {
                let peer = |host: HostId| (NodeId(u64::from(host)), coordinator_address(host));
                COORDINATORS.into_iter().map(peer).collect()
            } else {
                BTreeMap::new()
            },
        },
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

pub(crate) fn shard_server(host: HostId, shape: Shape) -> Program {
    let default = shard_server::Config::default();
    let config = shard_server::Config {
        grpc_addr: address(host, SHARD_PORT),
        data_dir: PathBuf::from("/data"),
        node_name: node_name(host),
        coordinators: shape.endpoints(),
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

/// The name by which operators know a shard server.
pub(crate) fn node_name(host: HostId) -> String {
    format!("node-{host}")
}

/// Shard servers that are to be restarted; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes(Arc<Mutex<Vec<HostId>>>);

impl Wishes {
    /// What was wished since the last time.
    pub(crate) fn take(&self) -> Vec<HostId> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Restarter for Wishes {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        let mut hosts = WITH_A_SPARE.into_iter();
        let host = hosts.find(|host| node_name(*host) == node.name);
        self.0.lock().extend(host);
        Box::pin(std::future::ready(Ok(Restart::Begun)))
    }
}

/// A watchdog, with times that fit those of the faults.
pub(crate) fn watchdog(shape: Shape, wishes: &Wishes) -> Program {
    let default = watchdog::Config::default();
    let config = watchdog::Config {
        coordinators: shape.endpoints(),
        grpc_addr: None,
        http_addr: None,
        poll_interval: Duration::from_millis(500),
        probe_timeout: Duration::from_millis(400),
        detector: watchdog::detector::DetectorConfig {
            startup_grace: Duration::from_secs(5),
            stall_after: Duration::from_secs(8),
            ..default.detector
        },
        policy: watchdog::policy::PolicyConfig {
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(3),
            concurrent_percent: 100,
            ..default.policy
        },
        attempt_timeout: Duration::from_secs(4),
        ..default
    };
    let wishes = wishes.clone();
    Arc::new(move |process: Process| {
        let (config, wishes) = (config.clone(), wishes.clone());
        Box::pin(async move {
            let Process { runtime, stop, .. } = process;
            let deps = watchdog::Deps {
                metrics: Metrics::new(&runtime).map_err(|error| error.to_string())?,
                restarter: Arc::new(wishes),
                runtime,
            };
            let ended = watchdog::run(config, deps, stop).await;
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
