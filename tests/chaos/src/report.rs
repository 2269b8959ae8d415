//! What a run leaves behind: a verdict for people and for machines, and the whole history.

#![expect(
    clippy::disallowed_methods,
    reason = "a report is not data that must survive"
)]

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::faults::Fault;
use crate::history::{Heard, History, Pace};
use crate::oracle::Violation;
use crate::standstill::Standstill;

/// One fault, and how the cluster came back from it.
#[derive(Debug, Clone, Serialize)]
pub struct Blow {
    /// What was done.
    pub fault: Fault,
    /// The servers that it was done to.
    pub nodes: Vec<String>,
    /// Records that had been settled when it struck.
    pub after_records: usize,
    /// From the blow until every replica of every shard served again, milliseconds. What a process stood still is in it.
    pub whole_after_ms: u64,
    /// The longest that a Record which was acknowledged in the end was waited for meanwhile, milliseconds. With several replicas
    /// that is an election and all that it takes to notice it.
    pub longest_wait_ms: u64,
    /// What only a leader that stood still tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standstill: Option<Standstill>,
}

/// What a run was told to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Coordinators of the cluster.
    pub coordinators: usize,
    /// The file that the queries are from; without one the seed made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<PathBuf>,
    /// Queries that were there to be recorded. They begin again after the last one, for as long as the faults take.
    pub records: usize,
    /// Records of queries in flight.
    pub lanes: usize,
    /// The faults that were asked for, all rounds of them. Those that struck are in [`Report::blows`].
    pub faults: Vec<Fault>,
    /// Seconds for which a leader was to stand still.
    pub standstill_s: u64,
    /// The same as a command.
    pub command: String,
}

/// What happened, and the verdict.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// `processes` or `compose`.
    pub deployment: String,
    /// Replicas of each shard.
    pub replicas: usize,
    /// Seed of the choice of victims.
    pub seed: u64,
    /// With these, all that a run needs to be told to be run again.
    pub plan: Told,
    /// Why the run ended early or could prove nothing. The rest is then what had happened by that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Records, each item of a batch being one, and deletions that were acknowledged, left open, refused.
    pub acknowledged: usize,
    /// See [`Report::acknowledged`].
    pub open: usize,
    /// See [`Report::acknowledged`].
    pub refused: usize,
    /// Answers that said that a try before had applied the Record.
    pub repeated: usize,
    /// Batches that were sent, each over all shards.
    pub batches: usize,
    /// Deletions that were sent.
    pub deletions: usize,
    /// Reads while the run went on, by level.
    pub reads: Vec<Heard>,
    /// Replicas whose holdings were compared with those of the others of their shard.
    pub replicas_compared: usize,
    /// Terms whose counts were compared.
    pub terms_compared: usize,
    /// Completions that were compared.
    pub prefixes_compared: usize,
    /// The faults, in order.
    pub blows: Vec<Blow>,
    /// How long Records and deletions took, and how long none was acknowledged.
    pub pace: Pace,
    /// Recovery attempts that the watchdog counted.
    pub recoveries_counted: u64,
    /// How often a coordinator or a watchdog that had ended was started again. What a fault killed and brought back itself is not in it, so that
    /// without `kill-all` each of them had ended by itself.
    pub started_again: u64,
    /// Broken promises. Empty is what is hoped for.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Writes `report.json` and `history.json` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, folder: &Path, history: &History) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(folder.join("history.json"), serde_json::to_vec(history)?)?;
        Ok(())
    }
}

/// Writes what servers have logged, `servers.log`, into a folder.
///
/// # Errors
/// When it cannot be written.
pub fn save_logs(folder: &Path, logs: &str) -> anyhow::Result<()> {
    let path = folder.join("servers.log");
    std::fs::write(&path, logs).with_context(|| format!("writing {}", path.display()))
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}, {} replicas, seed {}: {} acknowledged ({} of them repeats), {} open, {} refused",
            self.deployment,
            self.replicas,
            self.seed,
            self.acknowledged,
            self.repeated,
            self.open,
            self.refused
        )?;
        writeln!(
            formatter,
            "  {} batches over all shards and {} deletions are part of that",
            self.batches, self.deletions
        )?;
        for blow in &self.blows {
            let nodes = blow.nodes.join(", ");
            writeln!(
                formatter,
                "  {:?} of {nodes} after {} records, all replicas serving again {} ms later, no Record waited for longer than {} ms",
                blow.fault, blow.after_records, blow.whole_after_ms, blow.longest_wait_ms
            )?;
            if let Some(standstill) = &blow.standstill {
                writeln!(formatter, "    {standstill:?}")?;
            }
        }
        let pace = &self.pace;
        writeln!(
            formatter,
            "  Records took {} ms (p50), {} ms (p99), {} ms (longest); for at most {} ms none was acknowledged",
            pace.p50_ms, pace.p99_ms, pace.max_ms, pace.longest_gap_ms
        )?;
        for heard in &self.reads {
            writeln!(
                formatter,
                "  {:?} reads: {} answered, {} failed",
                heard.level, heard.answered, heard.failed
            )?;
        }
        writeln!(
            formatter,
            "  the watchdog counted {} recovery attempts; coordinators and watchdogs that had ended were started again {} times",
            self.recoveries_counted, self.started_again
        )?;
        write!(
            formatter,
            "  {} replicas, {} counts and {} completions compared: {} violations",
            self.replicas_compared,
            self.terms_compared,
            self.prefixes_compared,
            self.violations.len()
        )?;
        for violation in self.violations.iter().take(20) {
            write!(formatter, "\n  {violation:?}")?;
        }
        if let Some(error) = &self.error {
            write!(formatter, "\n  not proven: {error}")?;
        }
        Ok(())
    }
}
