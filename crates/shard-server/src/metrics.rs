//! What this crate measures. Counters are added to where things happen; gauges are set by the node's upkeep each second.
//!
//! Several nodes of one process share the families and tell themselves apart by the label `node`; shards are told apart by
//! `shard_key`, their first term in the template. What is counted of a shard is the sum over the nodes of a process, and has no `node`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::ActionReport;
use cluster::ShardId;
use cluster::limits::ACTIONS_TOLD_MAX;
use replication::{Host, ScrubStats};
use runtime::Runtime;
use telemetry::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, Metrics, MetricsError, Recent,
};
use wal::WalStats;

use crate::node::Replica;

/// The families of a node.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    base: Metrics,
    node: String,
    shards: ShardFamilies,
    log: LogGauges,
    sound: SoundGauges,
    commits: Histogram,
    appends: AppendCounters,
    torn_bytes: Counter,
    ambiguous_bytes: Counter,
    stalls: Counter,
    resumed_snapshot_bytes: Gauge,
    actions: CounterFamily<4>,
    /// The last actions, for the reports to the coordinators.
    recent: Recent<ActionReport>,
}

/// What a node does about its replicas and its data, of its own accord or asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A lead is given to another node.
    HandOverLead,
    /// A lead is taken from another node.
    TakeLead,
    /// A replica that stopped is started again.
    RestartReplica,
    /// A replica that is not what a majority has is stopped, to be rebuilt.
    StopReplica,
    /// The data of a replica is removed.
    RemoveReplica,
    /// Damaged data is set aside, with the identity.
    SetDataAside,
    /// A snapshot is not used any more, and another is taken.
    ReplaceSnapshot,
    /// A start went without a snapshot.
    PassOverSnapshot,
}

impl Action {
    const fn label(self) -> &'static str {
        match self {
            Self::HandOverLead => "hand_over_lead",
            Self::TakeLead => "take_lead",
            Self::RestartReplica => "restart_replica",
            Self::StopReplica => "stop_replica",
            Self::RemoveReplica => "remove_replica",
            Self::SetDataAside => "set_data_aside",
            Self::ReplaceSnapshot => "replace_snapshot",
            Self::PassOverSnapshot => "pass_over_snapshot",
        }
    }
}

#[derive(Debug)]
struct ShardFamilies {
    repeats: CounterFamily<1>,
    refused: CounterFamily<1>,
    evicted: CounterFamily<1>,
    queue_calls: GaugeFamily<2>,
    queue_bytes: GaugeFamily<2>,
    terms: GaugeFamily<2>,
    logical_bytes: GaugeFamily<2>,
    memory_bytes: GaugeFamily<2>,
    memory_part_bytes: GaugeFamily<3>,
    repeat_table_bytes: GaugeFamily<2>,
    applied_index: GaugeFamily<2>,
    snapshot_index: GaugeFamily<2>,
    stale_age: GaugeFamily<2>,
}

#[derive(Debug)]
struct LogGauges {
    log_bytes: Gauge,
    segments: Gauge,
    written_bytes: Gauge,
    syncs: Gauge,
    entries: Gauge,
    disk_full: Gauge,
    stall: Gauge,
}

/// Whether what is at rest is still what was written.
#[derive(Debug)]
struct SoundGauges {
    damaged: Gauge,
    passes: Gauge,
    bytes: Gauge,
    rotten_snapshots: Gauge,
}

impl SoundGauges {
    fn new(base: &Metrics, node: &str) -> Result<Self, MetricsError> {
        let gauge = |part: &str, name: &str, help: &str| -> Result<Gauge, MetricsError> {
            Ok(base.part(part)?.gauges(name, help, ["node"])?.with([node]))
        };
        Ok(Self {
            damaged: gauge(
                "node",
                "damaged_flag",
                "1 while data of this node are damaged and nothing is served of them.",
            )?,
            passes: gauge(
                "scrub",
                "passes_count",
                "Times that the whole log and all snapshots were read again since the start.",
            )?,
            bytes: gauge(
                "scrub",
                "read_bytes",
                "Bytes that were read again since the start and found sound.",
            )?,
            rotten_snapshots: gauge(
                "scrub",
                "rotten_snapshots_count",
                "Snapshots that were found rotten since the start.",
            )?,
        })
    }
}

/// What goes to followers.
#[derive(Debug, Clone)]
struct AppendCounters {
    raw_bytes: Counter,
    sent_bytes: Counter,
}

impl AppendCounters {
    fn new(base: &Metrics, node: &str) -> Result<Self, MetricsError> {
        let part = base.part("replication")?;
        let counter = |name: &str, help: &str| -> Result<Counter, MetricsError> {
            Ok(part.counters(name, help, ["node"])?.with([node]))
        };
        Ok(Self {
            raw_bytes: counter(
                "append_raw_bytes_total",
                "Bytes of requests to append that went to other replicas, before compression.",
            )?,
            sent_bytes: counter(
                "append_sent_bytes_total",
                "Bytes of requests to append that went to other replicas, as they were sent.",
            )?,
        })
    }
}

/// The series of one shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardMetrics {
    shard_key: Arc<str>,
    pub(crate) record: Counter,
    pub(crate) delete: Counter,
    pub(crate) top_k: Counter,
    pub(crate) count: Counter,
    pub(crate) list: Counter,
    pub(crate) clear: Counter,
    pub(crate) repeats: Counter,
    pub(crate) refused: Counter,
    pub(crate) evicted: Counter,
    queue_calls: Gauge,
    queue_bytes: Gauge,
    terms: Gauge,
    logical_bytes: Gauge,
    memory_bytes: Gauge,
    bucket_bytes: Gauge,
    node_bytes: Gauge,
    cached_list_bytes: Gauge,
    repeat_table_bytes: Gauge,
    applied_index: Gauge,
    snapshot_index: Gauge,
    stale_age: Gauge,
}

/// What memory is told apart by.
const MEMORY_PARTS: [&str; 3] = ["buckets", "nodes", "cached lists"];

impl ShardFamilies {
    fn new(base: &Metrics) -> Result<Self, MetricsError> {
        let part = base.part("shard")?;
        let key = ["shard_key"];
        let replica = ["node", "shard_key"];
        Ok(Self {
            repeats: part.counters("repeats_total", "Items that had been applied before.", key)?,
            refused: part.counters("refused_total", "Writes and items that were refused.", key)?,
            evicted: part.counters(
                "evicted_terms_total",
                "Terms that this node, as leader, had given up to keep the budget.",
                key,
            )?,
            queue_calls: part.gauges("queue_calls", "Write calls that wait.", replica)?,
            queue_bytes: part.gauges("queue_bytes", "Bytes of write calls that wait.", replica)?,
            terms: part.gauges("terms_count", "Terms in the dictionaries.", replica)?,
            logical_bytes: part.gauges(
                "logical_bytes",
                "Lengths of terms and display forms, and 8 a term.",
                replica,
            )?,
            memory_bytes: part.gauges("memory_bytes", "Memory of the dictionaries.", replica)?,
            memory_part_bytes: part.gauges(
                "memory_part_bytes",
                "Memory of the dictionaries by what it is for.",
                ["node", "shard_key", "part"],
            )?,
            repeat_table_bytes: part.gauges(
                "repeat_table_bytes",
                "Memory for remembering request ids, as its cap counts it.",
                replica,
            )?,
            applied_index: part.gauges("applied_index", "Newest entry applied.", replica)?,
            snapshot_index: part.gauges("snapshot_index", "Newest entry in a snapshot.", replica)?,
            stale_age: part.gauges(
                "stale_age_seconds",
                "At most how old an answer may be that this replica gives to a STALE read; 0 where it leads.",
                replica,
            )?,
        })
    }

    /// Removes what tells how a replica is now. What it has done stays counted.
    fn forget(&self, node: &str, shard_key: &str) {
        let gauges = [
            &self.queue_calls,
            &self.queue_bytes,
            &self.terms,
            &self.logical_bytes,
            &self.memory_bytes,
            &self.repeat_table_bytes,
            &self.applied_index,
            &self.snapshot_index,
            &self.stale_age,
        ];
        for gauge in gauges {
            gauge.remove([node, shard_key]);
        }
        for part in MEMORY_PARTS {
            self.memory_part_bytes.remove([node, shard_key, part]);
        }
    }
}

impl NodeMetrics {
    pub(crate) fn new(runtime: &Runtime, base: &Metrics, node: &str) -> Result<Self, MetricsError> {
        let part = base.part("wal")?;
        let gauge = |name: &str, help: &str| -> Result<Gauge, MetricsError> {
            Ok(part.gauges(name, help, ["node"])?.with([node]))
        };
        let log = LogGauges {
            log_bytes: gauge("log_bytes", "Bytes of all segments.")?,
            segments: gauge("segments_count", "Segments.")?,
            written_bytes: gauge("written_bytes", "Bytes written since the start.")?,
            syncs: gauge("syncs_count", "Syncs since the start.")?,
            entries: gauge("entries_count", "Entries appended since the start.")?,
            disk_full: gauge(
                "disk_full_flag",
                "1 while writes are refused for want of space.",
            )?,
            stall: gauge(
                "stall_seconds",
                "How long the disk has been at one write of the log, 0 while it answers.",
            )?,
        };
        let torn = part.counters(
            "torn_bytes_total",
            "Bytes behind the last complete batch that were dropped at starts.",
            ["node"],
        )?;
        let ambiguous = part.counters(
            "ambiguous_bytes_total",
            "Bytes from a damaged last batch on that were dropped at starts and may have been acknowledged.",
            ["node"],
        )?;
        let commits = part.histograms(
            "commit_seconds",
            "How long group commits of the log took, from the first byte to the end of the sync.",
            ["node"],
            telemetry::latency_buckets(),
        )?;
        let stalls = part.counters(
            "stalls_total",
            "Times that leads were given away because the disk did not answer.",
            ["node"],
        )?;
        let resumed = base.part("snapshot")?.gauges(
            "resumed_bytes",
            "Bytes of snapshots that peers did not send again after a transfer had broken off, since the start.",
            ["node"],
        )?;
        let actions = base.part("node")?.counters(
            "actions_total",
            "What this node did about its replicas and its data, by why and by what came of it.",
            ["node", "kind", "reason", "outcome"],
        )?;
        // The one that tells of a bug is there before there is anything to tell, so that its first increase is seen.
        drop(actions.with([node, Action::RestartReplica.label(), "fault", "done"]));
        Ok(Self {
            actions,
            recent: Recent::new(runtime, ACTIONS_TOLD_MAX),
            base: base.clone(),
            node: node.to_owned(),
            shards: ShardFamilies::new(base)?,
            log,
            sound: SoundGauges::new(base, node)?,
            commits: commits.with([node]),
            appends: AppendCounters::new(base, node)?,
            torn_bytes: torn.with([node]),
            ambiguous_bytes: ambiguous.with([node]),
            stalls: stalls.with([node]),
            resumed_snapshot_bytes: resumed.with([node]),
        })
    }

    pub(crate) fn base(&self) -> &Metrics {
        &self.base
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn shard(&self, shard_key: &str) -> ShardMetrics {
        let operation = |name| self.base.trie_operations(name, shard_key);
        let key = [shard_key];
        let node = self.node.as_str();
        let replica = [node, shard_key];
        let [buckets, nodes, lists] =
            MEMORY_PARTS.map(|name| self.shards.memory_part_bytes.with([node, shard_key, name]));
        ShardMetrics {
            record: operation("record"),
            delete: operation("delete"),
            top_k: operation("top_k"),
            count: operation("count"),
            list: operation("list"),
            clear: operation("clear"),
            repeats: self.shards.repeats.with(key),
            refused: self.shards.refused.with(key),
            evicted: self.shards.evicted.with(key),
            queue_calls: self.shards.queue_calls.with(replica),
            queue_bytes: self.shards.queue_bytes.with(replica),
            terms: self.shards.terms.with(replica),
            logical_bytes: self.shards.logical_bytes.with(replica),
            memory_bytes: self.shards.memory_bytes.with(replica),
            bucket_bytes: buckets,
            node_bytes: nodes,
            cached_list_bytes: lists,
            repeat_table_bytes: self.shards.repeat_table_bytes.with(replica),
            applied_index: self.shards.applied_index.with(replica),
            snapshot_index: self.shards.snapshot_index.with(replica),
            shard_key: shard_key.into(),
            stale_age: self.shards.stale_age.with(replica),
        }
    }

    /// A replica has left or ended: its last figures are nobody's.
    pub(crate) fn forget(&self, replica: &ShardMetrics) {
        self.shards.forget(&self.node, &replica.shard_key);
    }

    /// Has itself told how long each group commit of a node takes, and how much goes to followers.
    pub(crate) fn observe(&self, host: &Host) {
        let commits = self.commits.clone();
        host.observe_commits(move |took| commits.observe(took.as_secs_f64()));
        let AppendCounters {
            raw_bytes,
            sent_bytes,
        } = self.appends.clone();
        host.observe_appends(move |size| {
            raw_bytes.add(size.raw_bytes);
            sent_bytes.add(size.sent_bytes);
        });
    }

    /// What the start of the log has left out.
    pub(crate) fn dropped(&self, report: &wal::RecoveryReport) {
        self.torn_bytes.add(report.torn_bytes);
        self.ambiguous_bytes.add(report.ambiguous_bytes);
    }

    pub(crate) fn set_stall(&self, stalled: Duration) {
        self.log.stall.set(stalled.as_secs_f64());
    }

    pub(crate) fn count_stall(&self) {
        self.stalls.increment();
    }

    pub(crate) fn set_resumed_snapshot_bytes(&self, bytes: u64) {
        self.resumed_snapshot_bytes.set_count(bytes);
    }

    pub(crate) fn set_damaged(&self, damaged: bool) {
        self.sound.damaged.set_count(damaged.into());
    }

    pub(crate) fn set_scrub(&self, stats: ScrubStats) {
        self.sound.passes.set_count(stats.passes);
        self.sound.bytes.set_count(stats.bytes);
        self.sound
            .rotten_snapshots
            .set_count(stats.rotten_snapshots);
    }

    /// Counts an attempt, logs it, and keeps it for the reports. `reason` is one of a few words that stand in the source.
    pub(crate) fn count_action<T, E: Display>(
        &self,
        action: Action,
        reason: &'static str,
        shard: Option<ShardId>,
        result: &Result<T, E>,
    ) {
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let kind = action.label();
        let labels = [self.node.as_str(), kind, reason, outcome];
        self.actions.with(labels).increment();
        let error = result.as_ref().err().map(E::to_string);
        let error = error.unwrap_or_default();
        tracing::info!(kind, reason, ?shard, outcome, error, "action");
        let report = ActionReport::of(kind, reason, (shard, None), &error);
        self.recent.note(report);
    }

    /// The last of what was done, the newest last.
    pub(crate) fn recent_actions(&self) -> Vec<ActionReport> {
        self.recent.told(ActionReport::seen)
    }

    pub(crate) fn set_log(&self, stats: &WalStats) {
        self.log.log_bytes.set_count(stats.log_bytes);
        self.log.segments.set_count(stats.segments);
        self.log.written_bytes.set_count(stats.bytes_written);
        self.log.syncs.set_count(stats.fsyncs);
        self.log.entries.set_count(stats.entries);
        self.log.disk_full.set_count(stats.disk_full.into());
    }
}

impl ShardMetrics {
    /// Sets the gauges to what a replica is now.
    pub(crate) fn set(&self, replica: &Replica) {
        let stats = replica.state().stats();
        let status = replica.group().status();
        self.queue_calls.set_count(replica.queue().calls() as u64);
        self.queue_bytes.set_count(replica.queue().bytes() as u64);
        self.terms.set_count(stats.terms);
        self.logical_bytes.set_count(stats.logical_bytes);
        self.memory_bytes.set_count(stats.memory_bytes);
        self.bucket_bytes.set_count(stats.memory.bucket_bytes);
        self.node_bytes.set_count(stats.memory.node_bytes);
        self.cached_list_bytes
            .set_count(stats.memory.cached_list_bytes);
        self.repeat_table_bytes.set_count(stats.repeat_table_bytes);
        self.applied_index
            .set_count(status.applied.map_or(0, |at| at.index));
        self.snapshot_index
            .set_count(status.snapshot.unwrap_or_default());
        let age = Duration::from_millis(replica.age_ms());
        self.stale_age.set(age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_process_tell_of_their_own_replicas() {
        let runtime = Runtime::real();
        let base = Metrics::new(&runtime).unwrap();
        let of = |node: &str| NodeMetrics::new(&runtime, &base, node).unwrap();
        let (one, two) = (of("one"), of("two"));
        let (first, second) = (one.shard("m"), two.shard("m"));
        first.terms.set_count(1);
        second.terms.set_count(2);
        let told = || {
            let text = base.encode().unwrap();
            [("one", 1), ("two", 2)].map(|(node, terms)| {
                let labels = format!("{{node=\"{node}\",shard_key=\"m\"}}");
                let line = format!("autocomplete_shard_terms_count{labels} {terms}");
                text.lines().any(|found| found == line)
            })
        };
        assert_eq!(told(), [true, true]);
        one.forget(&first);
        assert_eq!(told(), [false, true]);
    }
}
