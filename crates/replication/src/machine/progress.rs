//! How far a replica has applied its log.
//!
//! The numbers are plain atomics, so that a read may look at them without a lock; who waits for an index is woken
//! through a watch channel. They are written by the one task that applies.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::watch;
use vfs::Traffic;

use super::Applied;

#[derive(Debug)]
pub(crate) struct Progress {
    /// The applied index plus one; 0 before the first entry.
    next_index: AtomicU64,
    term: AtomicU64,
    stamp_ms: AtomicI64,
    /// Bytes of commands applied since this process started.
    bytes: AtomicU64,
    /// The index that the replay at the start goes to, plus one.
    replay_next_index: AtomicU64,
    /// What its snapshots have moved.
    traffic: Traffic,
    changed: watch::Sender<u64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            next_index: AtomicU64::new(0),
            term: AtomicU64::new(0),
            stamp_ms: AtomicI64::new(0),
            bytes: AtomicU64::new(0),
            replay_next_index: AtomicU64::new(0),
            traffic: Traffic::default(),
            changed: watch::channel(0).0,
        }
    }

    pub(crate) fn applied(&self) -> Option<Applied> {
        // The index is published after the term, so that an index is never paired with an older term.
        let index = self.next_index.load(Ordering::Acquire).checked_sub(1)?;
        let term = self.term.load(Ordering::Acquire);
        Some(Applied { index, term })
    }

    /// For the door to its snapshots.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(crate) fn stamp_ms(&self) -> i64 {
        self.stamp_ms.load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The stamp that an entry is applied under: its own, or the newest before where that is later.
    pub(crate) fn advance_stamp(&self, stamp_ms: i64) -> i64 {
        self.stamp_ms
            .fetch_max(stamp_ms, Ordering::AcqRel)
            .max(stamp_ms)
    }

    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, at: Applied) {
        self.term.store(at.term, Ordering::Release);
        self.next_index.store(at.index + 1, Ordering::Release);
        if self.changed.receiver_count() > 0 {
            self.publish();
        }
    }

    /// Takes over the stamp of a snapshot that replaced the state.
    pub(crate) fn set_stamp(&self, stamp_ms: i64) {
        self.stamp_ms.store(stamp_ms, Ordering::Release);
    }

    /// Wakes who waits. Called at the end of every run of entries at the latest.
    pub(crate) fn publish(&self) {
        self.changed
            .send_replace(self.next_index.load(Ordering::Acquire));
    }

    pub(crate) fn set_replay_target(&self, index: u64) {
        self.replay_next_index.store(index + 1, Ordering::Release);
    }

    /// Entries that the replay at the start has to reach and has reached, counted from index 0.
    pub(crate) fn replay(&self) -> (u64, u64) {
        let target = self.replay_next_index.load(Ordering::Acquire);
        let done = self.next_index.load(Ordering::Acquire).min(target);
        (done, target)
    }

    /// Returns when an index is applied. Never returns for one that is never applied.
    pub(crate) async fn wait_for(&self, index: u64) {
        let mut changes = self.changed.subscribe();
        if self.next_index.load(Ordering::Acquire) > index {
            return;
        }
        // An error would mean that the sender is gone, but `self` holds it.
        drop(changes.wait_for(|next| *next > index).await);
    }
}
