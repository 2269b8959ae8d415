//! What an operator can set, and what it means once it was checked.
//!
//! A value comes from the command line, else from the environment, else from the file named by `--config`, else from its
//! default (see [`::settings`]). [`Settings::load`] looks at everything and returns every problem at once; nothing is bound before.

mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cluster::{Layout, NodeId};
use telemetry::logging::LogConfig;

pub use self::settings::Settings;
pub use ::settings::{Problem, Problems};

/// A coordinator's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC is served. Default 127.0.0.1:50051.
    pub grpc_addr: SocketAddr,
    /// Where the page, the JSON interface and the metrics are served. Default 127.0.0.1:8080.
    pub http_addr: SocketAddr,
    /// The metadata and the snapshots. Default `coordinator-data`.
    pub data_dir: PathBuf,
    /// This coordinator and the others of its cluster.
    pub group: CoordinatorsConfig,
    /// What a cluster is begun with; an existing one keeps what it has.
    pub cluster: ClusterConfig,
    /// Limits of the public interface.
    pub limits: LimitsConfig,
    /// Web origins, besides the page's own, from which a browser may record. Default none.
    pub allowed_origins: Vec<String>,
    /// A node that has not reported for this long counts as not alive. Default 3 s, at least 1 s.
    pub silent_after: Duration,
    /// How long a node may be gone before others take its place, where there are others; never, if none. Default 10 min.
    pub replace_after: Option<Duration>,
    /// Leads that lie unevenly are spread over the servers when they have stayed where they are for this long; never, if none. Default
    /// 1 min.
    pub balance_after: Option<Duration>,
    /// Where all voters stand; other regions that have nodes get a learner of each shard, which answers STALE reads. Default
    /// none: voters anywhere, no learners.
    pub home_region: Option<String>,
    /// Snapshots held of each shard. Default 2, at least 1.
    pub snapshots_kept: usize,
    /// How the process logs; for whoever owns the process. Default: text, from level info on.
    pub logging: LogConfig,
}

/// The coordinators of a cluster. They are fixed when the cluster begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorsConfig {
    /// Which of them this one is. Default 1.
    pub id: NodeId,
    /// All of them, this one included, with the `host:port` at which the others reach them; three, or one. Default none: this
    /// one alone.
    pub peers: BTreeMap<NodeId, String>,
}

impl CoordinatorsConfig {
    /// All coordinators, in ascending order.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        if self.peers.is_empty() {
            vec![self.id]
        } else {
            self.peers.keys().copied().collect()
        }
    }

    /// Everybody but this one.
    #[must_use]
    pub fn others(&self) -> BTreeMap<NodeId, String> {
        let mut others = self.peers.clone();
        others.remove(&self.id);
        others
    }

    /// Where the others reach this one, if it was said.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        self.peers.get(&self.id).cloned()
    }
}

impl Default for CoordinatorsConfig {
    fn default() -> Self {
        Self {
            id: NodeId(1),
            peers: BTreeMap::new(),
        }
    }
}

/// What a cluster is begun with.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The split of terms over shards. Default: three shards, split for English text.
    pub template: Layout,
    /// Replicas of each shard. Default 1.
    pub replicas: usize,
    /// Shards are placed when so many nodes are there. Default: as many as shards.
    pub expect_nodes: usize,
}

impl ClusterConfig {
    /// Whether one replica fewer would stand the loss of as many.
    pub(crate) fn has_a_replica_in_vain(&self) -> bool {
        self.replicas.is_multiple_of(2)
    }
}

/// Limits of the public interface.
#[derive(Debug, Clone, Copy)]
pub struct LimitsConfig {
    /// Calls that are worked on at once; more are refused. Default 4,096.
    pub calls_max: usize,
    /// Requests of one RecordStream or TopKStream that are worked on at once. Default 32.
    pub stream_window: usize,
    /// Requests on their way to one node. Default 4,096.
    pub node_queue_max: usize,
    /// Streams held open to each node for each direction of work. Default 2.
    pub node_streams: usize,
    /// Of a hundred STALE reads so many, at most, are sent to a second replica as well when the first is slow, beyond the first few.
    /// Default 5; 0 sends none.
    pub hedge_percent: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            calls_max: 4_096,
            stream_window: 32,
            node_queue_max: 4_096,
            node_streams: 2,
            hedge_percent: 5,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            http_addr: SocketAddr::from(([127, 0, 0, 1], 8_080)),
            data_dir: PathBuf::from("coordinator-data"),
            group: CoordinatorsConfig::default(),
            cluster: ClusterConfig::default(),
            limits: LimitsConfig::default(),
            allowed_origins: Vec::new(),
            silent_after: Duration::from_secs(3),
            replace_after: Some(Duration::from_mins(10)),
            balance_after: Some(Duration::from_mins(1)),
            home_region: None,
            snapshots_kept: 2,
            logging: LogConfig::default(),
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "three shards are between one and the limit"
        )]
        let template = Layout::for_english(SHARDS_DEFAULT).expect("a default split");
        Self {
            template,
            replicas: 1,
            expect_nodes: SHARDS_DEFAULT,
        }
    }
}

/// Shards of a cluster that is begun without saying how many.
pub const SHARDS_DEFAULT: usize = 3;
const _: () = assert!(SHARDS_DEFAULT > 0 && SHARDS_DEFAULT <= cluster::limits::SHARDS_MAX);

#[cfg(test)]
mod tests;
