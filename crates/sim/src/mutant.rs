//! Bugs put in on purpose, to see that the judges see them.
//!
//! Each changes what the programs reach through a seam (the disk, the clock, the client's ids), so that the programs behave as if they
//! had the bug; none exists outside of a simulation that asks for it. A bank of them is only worth its name if every
//! one is caught within a few seeds: `tests/mutants.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vfs::{Result, Vfs, VfsFile};

use crate::tap::{self, Tap, Tapped};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Mutant {
    /// The log is not synced.
    SkipLogSync,
    /// One in a hundred syncs of the log is left out.
    SkipSomeLogSyncs,
    /// Nothing is ever synced.
    SkipEverySync,
    /// New names are not synced.
    SkipDirSync,
    /// A failed sync is taken for a good one.
    IgnoreSyncErrors,
    /// One in three hundred writes to the log is lost without a word.
    LoseLogWrites,
    /// One in three hundred writes to the log goes to the wrong place.
    MisplaceLogWrites,
    /// A machine that lost its power starts from a disk as it was some seconds before.
    OldDisk,
    /// A machine that lost its power has lost its log, and keeps its identity.
    LoseLogKeepIdentity,
    /// A retry is sent with another id.
    FreshIdOnRetry,
    /// A strict read is answered by any replica.
    StaleForStrict,
    /// The clocks that leases go by are four times too slow on one machine; its timers are right.
    SlowClock,
    /// An outcome that nobody knows is reported as refused.
    UnknownIsRefused,
    /// A write whose outcome nobody knows is reported as acknowledged.
    UnknownIsAcked,
}

impl Mutant {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        use clap::ValueEnum as _;
        Self::value_variants()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The disk as a program with the bug uses it.
    pub(crate) fn disk(self, disk: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
        let habits = Habits {
            mutant: self,
            writes: Arc::default(),
        };
        Arc::new(Tapped::new(disk, habits))
    }
}

/// What a program with a bug does to its disk.
#[derive(Debug, Clone)]
struct Habits {
    mutant: Mutant,
    writes: Arc<AtomicU64>,
}

impl Habits {
    fn one_in(&self, number: u64) -> bool {
        let count = self.writes.fetch_add(1, Ordering::Relaxed);
        count % number == number - 1
    }
}

fn is_log(path: &Path) -> bool {
    path.starts_with(tap::LOG) && path.extension().is_some()
}

impl Tap for Habits {
    fn write(&self, file: &dyn VfsFile, buf: &[u8], offset: u64) -> Result<usize> {
        let strikes = [Mutant::LoseLogWrites, Mutant::MisplaceLogWrites].contains(&self.mutant)
            && is_log(file.path())
            && self.one_in(300);
        if strikes && self.mutant == Mutant::LoseLogWrites {
            return Ok(buf.len());
        }
        let shift = if strikes { 512 } else { 0 };
        file.write_at(buf, offset + shift)
    }

    fn sync(&self, file: &dyn VfsFile, sync: &dyn Fn() -> Result<()>) -> Result<()> {
        let log = is_log(file.path());
        let skips = self.mutant == Mutant::SkipEverySync
            || self.mutant == Mutant::SkipLogSync && log
            || self.mutant == Mutant::SkipSomeLogSyncs && log && self.one_in(100);
        if skips {
            return Ok(());
        }
        match sync() {
            Err(_) if self.mutant == Mutant::IgnoreSyncErrors => Ok(()),
            synced => synced,
        }
    }

    fn sync_dir(&self, disk: &dyn Vfs, path: &Path) -> Result<()> {
        let skips = [Mutant::SkipDirSync, Mutant::SkipEverySync];
        if skips.contains(&self.mutant) {
            return Ok(());
        }
        disk.sync_dir(path)
    }
}
