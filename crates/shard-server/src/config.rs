//! What an operator can set, and what it means once it was checked.
//!
//! A value comes from the command line, else from the environment, else from the file named by `--config`, else from its
//! default (see [`::settings`]). [`Settings::load`] looks at everything and returns every problem at once; nothing is bound before.

mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use cluster::limits;

pub use self::settings::Settings;

/// A shard server's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC is served. Default 127.0.0.1:50061; port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// `host:port` by which coordinators and other nodes reach this one. Default: the address listened on.
    pub advertise_addr: Option<String>,
    /// Where metrics are served. Default none.
    pub http_addr: Option<SocketAddr>,
    /// Log, snapshots and identity. Default `shard-data`.
    pub data_dir: PathBuf,
    /// What this node is called: stable over restarts and lost disks, unique in the cluster.
    pub node_name: String,
    /// The region it stands in; empty where regions are not used.
    pub region: String,
    /// `host:port` of each coordinator; at least one.
    pub coordinators: Vec<String>,
    /// The log.
    pub log: LogConfig,
    /// Snapshots.
    pub snapshots: SnapshotConfig,
    /// How long followers are loyal to a silent leader. Writes and strict reads stand still for about one and a half times this when a leader dies.
    /// Default 300 ms; 150 ms to 1 s.
    pub election_timeout: Duration,
    /// Writes that wait.
    pub queue: QueueConfig,
    /// The dictionaries.
    pub state: StateConfig,
    /// Calls.
    pub calls: CallsConfig,
    /// How the process logs; for whoever owns the process. Default: text, from level info on.
    pub logging: telemetry::logging::LogConfig,
}

/// The write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Size at which a segment is sealed. Default 64 MiB; 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Entries from this size on are compressed. Default 1 KiB.
    pub compress_above_bytes: usize,
    /// Disk kept back so that votes and truncations can be written when the disk is full. Default 64 MiB; 0 turns it off.
    pub reserve_bytes: u64,
    /// How long the disk may be at one write before the leads of this node go to others; never, if none. Default 1 s.
    pub stall_yield: Option<Duration>,
    /// How long it may be before it counts as failed, and the process ends; never, if none. Default 10 s.
    pub stall_abort: Option<Duration>,
}

/// When a shard takes a snapshot: whichever comes first, provided that anything was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Entries since the last one. Default 20,000; at least 1.
    pub entries: u64,
    /// Time since the last one. Default 10 minutes; at least 1 s.
    pub interval: Duration,
}

/// The bounds of each shard's queue of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Write calls that wait; more are refused. Default 4,096.
    pub calls_max: usize,
    /// Bytes of them; more are refused. Default 16 MiB.
    pub bytes_max: usize,
    /// Items of one log entry. Default 4,000; at least a batch's limit.
    pub entry_items_max: usize,
    /// Bytes of one log entry. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// Entries on their way at once. Default 8.
    pub entries_in_flight: usize,
}

/// The dictionaries of each shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateConfig {
    /// Cap of the repeat table. Part of the replicated state: the leader's counts. Default 64 MiB; at least 64 KiB.
    pub repeat_table_bytes: u64,
    /// Entries of the lists cached at trie nodes. Default 10; 1 to 1,000.
    pub cached_k: usize,
    /// Logical bytes of a shard above which [`StateConfig::at_budget`] holds; `None` means no limit. Default none.
    pub shard_bytes_max: Option<u64>,
    /// What happens to a shard above its bytes. Default: records are refused.
    pub at_budget: AtBudget,
    /// Bytes of all dictionaries of this node above which records are refused; `None` means no limit. Default none.
    pub memory_bytes_max: Option<u64>,
    /// How often the replicas of a shard are compared, as far as this node leads it; never, if none. Default 1 h.
    pub audit_interval: Option<Duration>,
}

/// What happens where a shard has reached its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtBudget {
    /// Records are refused.
    #[default]
    Refuse,
    /// The rarest terms are given up; should they be recorded again, they begin at 0.
    Evict,
}

impl FromStr for AtBudget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "evict" => Ok(Self::Evict),
            _ => Err("neither refuse nor evict"),
        }
    }
}

/// Bounds on calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsConfig {
    /// Calls worked on at once; more are refused. Default 4,096.
    pub calls_max: usize,
    /// Requests of one stream worked on at once. Default 64.
    pub stream_window: usize,
}

impl Default for Config {
    /// Not complete: a name and the coordinators are missing.
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from(([127, 0, 0, 1], 50_061)),
            advertise_addr: None,
            http_addr: None,
            data_dir: PathBuf::from("shard-data"),
            node_name: String::new(),
            region: String::new(),
            coordinators: Vec::new(),
            log: LogConfig::default(),
            snapshots: SnapshotConfig::default(),
            election_timeout: replication::Timing::ELECTION_DEFAULT,
            queue: QueueConfig::default(),
            state: StateConfig::default(),
            calls: CallsConfig::default(),
            logging: telemetry::logging::LogConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            compress_above_bytes: 1024,
            reserve_bytes: 64 << 20,
            stall_yield: Some(Duration::from_secs(1)),
            stall_abort: Some(Duration::from_secs(10)),
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            entries: 20_000,
            interval: Duration::from_secs(600),
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            calls_max: 4_096,
            bytes_max: 16 << 20,
            entry_items_max: 4_000,
            entry_bytes_max: 1 << 20,
            entries_in_flight: 8,
        }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            repeat_table_bytes: limits::REPEAT_TABLE_BYTES_MAX,
            cached_k: limits::CACHED_K,
            shard_bytes_max: None,
            at_budget: AtBudget::default(),
            memory_bytes_max: None,
            audit_interval: Some(Duration::from_hours(1)),
        }
    }
}

impl Default for CallsConfig {
    fn default() -> Self {
        Self {
            calls_max: 4_096,
            stream_window: 64,
        }
    }
}

/// Bytes of a batch of the most items, each with the longest term and display form, fit the smallest queue and entry.
pub(crate) const BATCH_BYTES_MAX: usize =
    limits::BATCH_ITEMS_MAX * (term::TERM_BYTES_MAX + term::DISPLAY_BYTES_MAX + 64);
const _: () = assert!(BATCH_BYTES_MAX <= wal::PAYLOAD_BYTES_MAX / 2);

#[cfg(test)]
mod tests;
