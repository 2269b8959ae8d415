//! The options as they are written on a command line, in the environment or in a file, and how they are checked.

use std::path::PathBuf;
use std::time::Duration;

use cluster::limits;
use settings::Problems;

use super::{
    BATCH_BYTES_MAX, CallsConfig, Config, LogConfig, QueueConfig, SnapshotConfig, StateConfig,
};

const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_hours(24);

settings::settings! {
    /// The options of `serve`.
    pub struct Settings for Config, "AUTOCOMPLETE_SHARD_";

    /// Address for gRPC; port 0 takes a free one [default: 127.0.0.1:50061]
    grpc_addr: String, "GRPC_ADDR", "ADDR:PORT";
    /// Address for /metrics, /healthz and /readyz [default: none]
    http_addr: String, "HTTP_ADDR", "ADDR:PORT";
    /// Address by which coordinators and other nodes reach this one [default: that of --grpc-addr]
    advertise_addr: String, "ADVERTISE_ADDR", "HOST:PORT";
    /// Directory of the log, the snapshots and this node's identity [default: shard-data]
    data_dir: PathBuf, "DATA_DIR", "DIR";
    /// Name of this node: unique in the cluster, stable over restarts and lost disks [required]
    node_name: String, "NODE_NAME", "NAME";
    /// Region this node stands in [default: none]
    region: String, "REGION", "NAME";
    /// Coordinators, comma separated; any of them will do [required]
    #[arg(value_delimiter = ',')]
    coordinators: Vec<String>, "COORDINATORS", "HOST:PORT,...";
    /// Bytes at which a segment of the log is sealed, 4096 to 1073741824 [default: 67108864]
    log_segment_bytes: u64, "LOG_SEGMENT_BYTES", "BYTES";
    /// Bytes from which on an entry of the log is compressed [default: 1024]
    log_compress_above_bytes: usize, "LOG_COMPRESS_ABOVE_BYTES", "BYTES";
    /// Bytes of disk kept back for when it is full; 0 turns it off [default: 67108864]
    log_reserve_bytes: u64, "LOG_RESERVE_BYTES", "BYTES";
    /// Time for which the disk may be at one write of the log before the leads of this node go to others; 0s turns it off [default: 1s]
    log_stall_yield: String, "LOG_STALL_YIELD", "DURATION";
    /// Time for which the disk may be at one write of the log before it counts as failed and the process ends; 0s turns it off [default: 10s]
    log_stall_abort: String, "LOG_STALL_ABORT", "DURATION";
    /// Entries of the log after which a shard takes a snapshot, at least 1 [default: 20000]
    snapshot_entries: u64, "SNAPSHOT_ENTRIES", "N";
    /// Time after which a shard that changed takes a snapshot, at least 1s; one is also taken when a burst of writes is over, and at a stop [default: 10m]
    snapshot_interval: String, "SNAPSHOT_INTERVAL", "DURATION";
    /// Time for which followers are loyal to a leader that is silent, 150ms to 1s; servers can be given another one after another [default: 300ms]
    election_timeout: String, "ELECTION_TIMEOUT", "DURATION";
    /// Write calls that may wait at a shard; more are refused [default: 4096]
    queue_calls_max: usize, "QUEUE_CALLS_MAX", "N";
    /// Bytes of write calls that may wait at a shard; more are refused [default: 16777216]
    queue_bytes_max: usize, "QUEUE_BYTES_MAX", "BYTES";
    /// Entries of the log that a shard has on their way at once, 1 to 256 [default: 8]
    queue_entries_in_flight: usize, "QUEUE_ENTRIES_IN_FLIGHT", "N";
    /// Bytes of memory for remembering request ids at each shard, at least 65536 [default: 67108864]
    repeat_table_bytes: u64, "REPEAT_TABLE_BYTES", "BYTES";
    /// Length of the lists kept ready at trie nodes, 1 to 1000 [default: 10]
    cached_k: usize, "CACHED_K", "K";
    /// Logical bytes of a shard (lengths of terms and display forms, and 8 a term) at which --at-budget holds [default: no limit]
    shard_bytes_max: u64, "SHARD_BYTES_MAX", "BYTES";
    /// What happens at --shard-bytes-max: refuse records, or evict the rarest terms, whose counts are lost then [default: refuse]
    at_budget: String, "AT_BUDGET", "refuse|evict";
    /// Bytes of memory for dictionaries above which records are refused [default: no limit]
    memory_bytes_max: u64, "MEMORY_BYTES_MAX", "BYTES";
    /// Time after which the replicas of a shard that changed are compared; 0s turns it off [default: 1h]
    audit_interval: String, "AUDIT_INTERVAL", "DURATION";
    /// Calls worked on at once, 1 to 65536; more are refused [default: 4096]
    calls_max: usize, "CALLS_MAX", "N";
    /// Requests of one stream worked on at once, 1 to 1024 [default: 64]
    stream_window: usize, "STREAM_WINDOW", "N";
    /// How a line of the log looks: text or json [default: text]
    log_format: String, "LOG_FORMAT", "FORMAT";
    /// Levels of the log by module, such as info,wal=debug [default: info,openraft=error]
    log_filter: String, "LOG_FILTER", "FILTER";
}

impl Settings {
    fn examine(self, at: &mut Problems) -> Config {
        let default = Config::default();
        let grpc_addr = at.address("grpc-addr", self.grpc_addr.as_deref());
        let grpc_addr = grpc_addr.unwrap_or(default.grpc_addr);
        if self.advertise_addr.is_none() && grpc_addr.ip().is_unspecified() {
            let text = format!("must be set, for nobody reaches this node at {grpc_addr}");
            at.add("advertise-addr", text);
        }
        if self.node_name.is_none() {
            at.add("node-name", "must be set");
        }
        Config {
            grpc_addr,
            http_addr: at.address("http-addr", self.http_addr.as_deref()),
            advertise_addr: at.authority("advertise-addr", self.advertise_addr.as_deref()),
            node_name: at.name("node-name", self.node_name.as_deref()),
            region: at.name(
                "region",
                self.region.as_deref().filter(|name| !name.is_empty()),
            ),
            log: self.log(at),
            snapshots: self.snapshots(at),
            election_timeout: at.duration(
                "election-timeout",
                self.election_timeout.as_deref(),
                Duration::from_millis(150)..=replication::ELECTION_LIMIT,
                default.election_timeout,
            ),
            queue: self.queue(at),
            state: self.state(at),
            calls: self.calls(at),
            logging: at.logging(self.log_format.as_deref(), self.log_filter.as_deref()),
            coordinators: at.authorities("coordinators", self.coordinators, None),
            data_dir: self.data_dir.unwrap_or(default.data_dir),
        }
    }

    fn log(&self, at: &mut Problems) -> LogConfig {
        let default = LogConfig::default();
        let compress_above = (self.log_compress_above_bytes, default.compress_above_bytes);
        LogConfig {
            segment_bytes: at.number(
                "log-segment-bytes",
                self.log_segment_bytes,
                4096..=GIB,
                default.segment_bytes,
            ),
            compress_above_bytes: compress_above.0.unwrap_or(compress_above.1),
            reserve_bytes: at.number(
                "log-reserve-bytes",
                self.log_reserve_bytes,
                0..=64 * GIB,
                default.reserve_bytes,
            ),
            stall_yield: at.timeout(
                "log-stall-yield",
                self.log_stall_yield.as_deref(),
                DAY,
                default.stall_yield,
            ),
            stall_abort: at.timeout(
                "log-stall-abort",
                self.log_stall_abort.as_deref(),
                DAY,
                default.stall_abort,
            ),
        }
    }

    fn snapshots(&self, at: &mut Problems) -> SnapshotConfig {
        let default = SnapshotConfig::default();
        SnapshotConfig {
            entries: at.number(
                "snapshot-entries",
                self.snapshot_entries,
                1..=1_000_000_000,
                default.entries,
            ),
            interval: at.duration(
                "snapshot-interval",
                self.snapshot_interval.as_deref(),
                Duration::from_secs(1)..=DAY * 366,
                default.interval,
            ),
        }
    }

    fn queue(&self, at: &mut Problems) -> QueueConfig {
        let default = QueueConfig::default();
        QueueConfig {
            calls_max: at.number(
                "queue-calls-max",
                self.queue_calls_max,
                1..=1_000_000,
                default.calls_max,
            ),
            // A batch of any size that is allowed must find room.
            bytes_max: at.number(
                "queue-bytes-max",
                self.queue_bytes_max,
                BATCH_BYTES_MAX..=1 << 32,
                default.bytes_max,
            ),
            entries_in_flight: at.number(
                "queue-entries-in-flight",
                self.queue_entries_in_flight,
                1..=256,
                default.entries_in_flight,
            ),
            ..default
        }
    }

    fn state(&self, at: &mut Problems) -> StateConfig {
        let default = StateConfig::default();
        StateConfig {
            repeat_table_bytes: at.number(
                "repeat-table-bytes",
                self.repeat_table_bytes,
                64 * 1024..=64 * GIB,
                default.repeat_table_bytes,
            ),
            cached_k: at.number(
                "cached-k",
                self.cached_k,
                1..=limits::K_MAX as usize,
                default.cached_k,
            ),
            shard_bytes_max: self.shard_bytes_max,
            at_budget: at.parsed("at-budget", self.at_budget.as_deref(), default.at_budget),
            memory_bytes_max: self.memory_bytes_max,
            audit_interval: at.timeout(
                "audit-interval",
                self.audit_interval.as_deref(),
                DAY * 366,
                default.audit_interval,
            ),
        }
    }
    fn calls(&self, at: &mut Problems) -> CallsConfig {
        let default = CallsConfig::default();
        CallsConfig {
            calls_max: at.number("calls-max", self.calls_max, 1..=65_536, default.calls_max),
            stream_window: at.number(
                "stream-window",
                self.stream_window,
                1..=1_024,
                default.stream_window,
            ),
        }
    }
}
