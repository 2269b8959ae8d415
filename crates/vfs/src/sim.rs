//! A disk in memory that keeps only what a real one promises.
//!
//! It holds two views: what a running process sees, and what is durable. A write is pending in blocks
//! of [`BLOCK_BYTES`] until the file is synced; a length likewise; a new, renamed or removed name until
//! its directory is synced. [`SimDisk::pending`] lists all that is undecided, and
//! [`SimDisk::crash_with`] builds the disk that a machine would find after a power loss, each item
//! lost, kept, kept in an earlier version, or turned into garbage.
//!
//! Faults are scripted by [`SimDisk::inject`]: the n-th operation of a kind fails, writes short, or
//! halts the disk; [`every_mishap`] lets everything go wrong that can. A failed sync marks its blocks clean without making them durable, as Linux does:
//! later syncs succeed, readers see the new bytes, a crash shows the old. [`SimDisk::make_unreadable`] is a sector that has gone bad.
//!
//! Deterministic: no clock, no randomness but the seeds given. A clone is another handle to the same
//! disk. The namespace is flat in memory; paths are taken as given and must not contain `..`.

mod content;
mod crash;
mod disk;
mod door;
mod fault;
mod inode;
mod mishap;
mod names;
#[cfg(test)]
mod tests;

use std::{io, ops::Range, path::Path, sync::Arc};

use parking_lot::Mutex;

pub use crash::{Fate, Pending, PendingKind};
pub use fault::{Effect, Fault, TraceEntry};
pub use mishap::{Mishap, Run, every_mishap, every_mishap_twice};

use crate::{Error, Op, Result};
use disk::Disk;

/// The unit in which unsynced content survives or is lost, in bytes: one disk sector.
pub const BLOCK_BYTES: u64 = 512;

/// A handle to a simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    disk: Arc<Mutex<Disk>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without limit, with a root directory.
    #[must_use]
    pub fn new() -> Self {
        Self::from_disk(Disk::new())
    }

    fn from_disk(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// Limits the bytes of all files together; `None` lifts the limit. Files that are already larger stay.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Scripts a fault. Several may wait at a time; each fires once.
    pub fn inject(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Faults that have not fired yet.
    #[must_use]
    pub fn faults_waiting(&self) -> usize {
        self.disk.lock().faults.len()
    }

    /// Takes back the faults that have not fired yet, and says how many they were.
    pub fn take_back_faults(&self) -> usize {
        std::mem::take(&mut self.disk.lock().faults).len()
    }

    /// Lets this many further mutating operations ([`Op::is_mutation`]) pass, then fails every operation,
    /// as if the machine had stopped there. `None` lifts it.
    pub fn halt_after(&self, mutations: Option<u64>) {
        let mut disk = self.disk.lock();
        disk.halt_at = mutations.map(|more| disk.mutations + more);
    }

    /// While `held`, every sync of a file waits, as on a disk that has stopped answering. It blocks the thread that asks: for
    /// programs that give their disk threads of its own.
    pub fn hold_syncs(&self, held: bool) {
        let mut disk = self.disk.lock();
        disk.syncs_held = held;
        disk.released.notify_all();
    }

    /// Whether the disk has halted.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.disk.lock().halted
    }

    /// Mutating operations so far, those that failed included.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.disk.lock().mutations
    }

    /// How often an operation was called.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.disk.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// The last operations, at most 65,536, oldest first.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.disk.lock().trace.iter().cloned().collect()
    }

    /// The kinds of the last operations; see [`SimDisk::trace`].
    #[must_use]
    pub fn calls(&self) -> Vec<Op> {
        self.disk
            .lock()
            .trace
            .iter()
            .map(|entry| entry.op)
            .collect()
    }

    /// What a process sees in a file now. For tests' oracles.
    pub fn contents(&self, path: &Path) -> Result<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.file(Op::Read, path)?;
        Ok(inode.data.to_vec())
    }

    /// Changes a file at rest: rot, misdirected writes, the hand of an operator. Both views change, at once and
    /// durably.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut disk = self.disk.lock();
        let inode = disk.file_mut(Op::Write, path)?;
        let mut bytes = inode.data.to_vec();
        change(&mut bytes);
        inode.data = bytes.into();
        inode.settle();
        Ok(())
    }

    /// Flips one bit of a file at rest, `bit` counting from the lowest bit of its first byte.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> Result<()> {
        let mut inside = false;
        self.edit(path, |bytes| {
            let index = usize::try_from(bit / 8).unwrap_or(usize::MAX);
            if let Some(byte) = bytes.get_mut(index) {
                *byte ^= 1 << (bit % 8);
                inside = true;
            }
        })?;
        if inside {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        Err(Error::new(Op::Write, path, source))
    }

    /// Lets the disk not give back the blocks of a range of a file any more, also after a restart or a loss of power, and under another
    /// name. A read that begins there fails with an input/output error, one that begins before ends before. Other than on a real disk
    /// nothing is in a page cache. A block that is written whole is good again; a write of a part of one fails.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<u64>) -> Result<()> {
        let mut disk = self.disk.lock();
        let inode = disk.file_mut(Op::Read, path)?;
        let end = bytes.end.min(inode.len());
        let blocks = bytes.start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        inode.unreadable.extend(blocks);
        Ok(())
    }

    /// All that is not durable, in an order that depends on nothing but the operations so far.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        crash::pending(&self.disk.lock())
    }

    /// The disk after a power loss now: `fate` is asked for each item of [`SimDisk::pending`], in that
    /// order. The new disk has no faults, no limit, no locks; this one is unchanged.
    #[must_use]
    pub fn crash_with(&self, fate: impl FnMut(&Pending) -> Fate) -> Self {
        Self::from_disk(crash::image(&self.disk.lock(), fate))
    }

    /// The disk after a power loss that keeps nothing but what is durable.
    #[must_use]
    pub fn crash_losing_all(&self) -> Self {
        self.crash_with(|_| Fate::Lost)
    }

    /// The disk after a power loss that happens to keep everything. Also what a new process finds after
    /// the old one was killed, but for pages that a failed sync marked clean: see [`SimDisk::restart`].
    #[must_use]
    pub fn crash_keeping_all(&self) -> Self {
        self.crash_with(|_| Fate::Kept)
    }

    /// The disks after power losses that keep each subset of what is not durable. Where that is more than `items_max` items, 16 at most,
    /// only those that keep none of them and all.
    #[must_use]
    pub fn crash_subsets(&self, items_max: usize) -> Vec<Self> {
        let items = self.pending().len();
        if items > items_max.min(16) {
            return vec![self.crash_losing_all(), self.crash_keeping_all()];
        }
        let image = |kept: u32| {
            let mut rest = kept;
            self.crash_with(|_| {
                let is_kept = rest & 1 == 1;
                rest >>= 1;
                if is_kept { Fate::Kept } else { Fate::Lost }
            })
        };
        (0..1 << items).map(image).collect()
    }

    /// The disk after a power loss that decides each item by a pseudo-random generator.
    #[must_use]
    pub fn crash_seeded(&self, seed: u64) -> Self {
        let mut dice = crash::Dice::new(seed);
        self.crash_with(|item| dice.fate(item))
    }

    /// The machine stays up and the process is gone: a copy with the same views, pending items
    /// and page cache, without faults, halt or locks.
    #[must_use]
    pub fn restart(&self) -> Self {
        Self::from_disk(self.disk.lock().restarted())
    }
}
