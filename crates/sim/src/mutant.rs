//! Bugs put in on purpose, to see that the judges see them.
//!
//! Each changes what the programs reach through a seam (the disk, the clock, the client's ids), so that the programs behave as if they
//! had the bug; none exists outside of a simulation that asks for it. A bank of them is only worth its name if every
//! one is caught within a few seeds: `tests/mutants.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vfs::{DirEntry, LockGuard, Result, Vfs, VfsFile};

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
    /// The clock that leases and elections go by is four times too slow on one machine.
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

    /// Whether it shows in fewer than one of forty seeds, so that only long campaigns can be expected to catch it.
    #[must_use]
    pub const fn is_rare(self) -> bool {
        matches!(self, Self::SkipSomeLogSyncs | Self::SlowClock)
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
        Arc::new(MutantDisk {
            disk,
            habits: Habits {
                mutant: self,
                writes: Arc::default(),
            },
        })
    }
}

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
    path.starts_with("/data/wal") && path.extension().is_some()
}

#[derive(Debug)]
struct MutantDisk {
    disk: Arc<dyn Vfs>,
    habits: Habits,
}

impl MutantDisk {
    fn wrap(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(MutantFile {
            file,
            habits: self.habits.clone(),
        })
    }
}

impl Vfs for MutantDisk {
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.disk.create_new(path).map(|file| self.wrap(file))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.disk.open_read(path).map(|file| self.wrap(file))
    }

    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.disk.open_write(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.disk.list_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let skips = [Mutant::SkipDirSync, Mutant::SkipEverySync];
        if skips.contains(&self.habits.mutant) {
            return Ok(());
        }
        self.disk.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> Result<u64> {
        self.disk.free_space(path)
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard> {
        self.disk.lock_file(path)
    }
}

#[derive(Debug)]
struct MutantFile {
    file: Box<dyn VfsFile>,
    habits: Habits,
}

impl MutantFile {
    fn sync(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let log = is_log(self.file.path());
        let mutant = self.habits.mutant;
        let skips = mutant == Mutant::SkipEverySync
            || mutant == Mutant::SkipLogSync && log
            || mutant == Mutant::SkipSomeLogSyncs && log && self.habits.one_in(100);
        if skips {
            return Ok(());
        }
        match sync() {
            Err(_) if mutant == Mutant::IgnoreSyncErrors => Ok(()),
            synced => synced,
        }
    }
}

impl VfsFile for MutantFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let mutant = self.habits.mutant;
        let strikes = [Mutant::LoseLogWrites, Mutant::MisplaceLogWrites].contains(&mutant)
            && is_log(self.file.path())
            && self.habits.one_in(300);
        if strikes && mutant == Mutant::LoseLogWrites {
            return Ok(buf.len());
        }
        let shift = if strikes { 512 } else { 0 };
        self.file.write_at(buf, offset + shift)
    }

    fn sync_data(&self) -> Result<()> {
        self.sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.sync(|| self.file.sync_all())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.truncate(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.file.allocate(offset, len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }
}
