//! What a run leaves behind: a verdict for people and for machines, and the whole history.

#![expect(
    clippy::disallowed_methods,
    reason = "a report is not data that must survive"
)]

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::history::History;
use crate::oracle::Violation;

/// One kill, and how the cluster came back from it.
#[derive(Debug, Clone, Serialize)]
pub struct Kill {
    /// The shard server.
    pub node: String,
    /// Records that had been settled when it was killed.
    pub after_records: usize,
    /// From the kill until the coordinator reported every shard as serving again, milliseconds.
    pub recovered_after_ms: u64,
}

/// What happened, and the verdict.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `processes` or `compose`.
    pub deployment: String,
    /// Seed of the choice of victims.
    pub seed: u64,
    /// Records that were acknowledged, left open, refused.
    pub acknowledged: usize,
    /// See [`Report::acknowledged`].
    pub open: usize,
    /// See [`Report::acknowledged`].
    pub refused: usize,
    /// Answers that said that a try before had applied the Record.
    pub repeated: usize,
    /// Terms whose counts were compared.
    pub terms_compared: usize,
    /// Completions that were compared.
    pub prefixes_compared: usize,
    /// The kills, in order.
    pub kills: Vec<Kill>,
    /// Recovery attempts that the watchdog counted.
    pub recoveries_counted: u64,
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

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}, seed {}: {} acknowledged ({} of them repeats), {} open, {} refused",
            self.deployment, self.seed, self.acknowledged, self.repeated, self.open, self.refused
        )?;
        for kill in &self.kills {
            writeln!(
                formatter,
                "  killed {} after {} records, all shards serving again {} ms later",
                kill.node, kill.after_records, kill.recovered_after_ms
            )?;
        }
        writeln!(
            formatter,
            "  the watchdog counted {} recovery attempts",
            self.recoveries_counted
        )?;
        write!(
            formatter,
            "  {} counts and {} completions compared: {} violations",
            self.terms_compared,
            self.prefixes_compared,
            self.violations.len()
        )?;
        for violation in self.violations.iter().take(20) {
            write!(formatter, "\n  {violation:?}")?;
        }
        Ok(())
    }
}
