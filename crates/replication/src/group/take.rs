//! Taking snapshots of a group, and what repeated failures mean: a disk that fails again and again stops the replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::{Group, Inner};
use crate::machine::Capture;
use crate::status::StopCause;
use crate::{SnapshotError, SnapshotFile, StateMachine};

/// How long a group that has ended keeps what comes next waiting for its last snapshot. Both states in memory at once may be too much.
const RETIRE_PATIENCE: Duration = Duration::from_secs(30);
/// Attempts in a row that may fail for the disk's sake before the replica stops.
const FAILURES_MAX: u32 = 3;

/// Failed attempts in a row.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
}

impl<S: StateMachine> Group<S> {
    /// Takes a snapshot of what is applied now, unless the newest one holds it already. Proposals and reads go on.
    /// Of all groups of a node one is written at a time, so that the memory that frozen views hold is that of one; a second caller
    /// waits. Only a snapshot that replaces a rotten one for a follower does not: entries wait for it.
    ///
    /// # Errors
    /// See [`SnapshotError`]. The file is discarded, older ones and the log are kept, and another call begins anew;
    /// but a disk that fails three times in a row stops the replica. A full disk does not count.
    pub async fn take_snapshot(&self) -> Result<SnapshotFile, SnapshotError> {
        self.inner.take_snapshot().await
    }

    /// As [`Group::take_snapshot`], where one that reaches to an index will do: whoever asks again for what is being written finds it, and
    /// has no other one written because of what was applied since.
    ///
    /// # Errors
    /// See [`Group::take_snapshot`].
    pub async fn take_snapshot_to(&self, index: u64) -> Result<SnapshotFile, SnapshotError> {
        self.inner.take_snapshot_to(index).await
    }

    /// Stops the replica of a group that is not started again, and has a snapshot hold all that it applied, so that its log need not be kept
    /// for that: see [`crate::Host::retire_group`]. None of those that it has goes for it. What it takes longer than half a minute goes on in
    /// the background, and holds the state in memory as long. One that had stopped for another reason than being told to takes none, and one
    /// on a disk without room for as much again neither: what comes next goes first.
    pub async fn retire(&self) {
        self.inner.shutdown().await;
        let (runtime, inner) = (self.inner.runtime(), Arc::clone(&self.inner));
        // In a task of its own, for it may have to wait until others have written theirs.
        let last = runtime.spawn("group-retire", async move { inner.take_last().await });
        let problem = match runtime.timeout(RETIRE_PATIENCE, last).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(group = %self.id(), problem, "a group that has ended may have no snapshot of its last entries");
    }

    /// The newest complete snapshot. Its file stays as long as it is held.
    #[must_use]
    pub fn latest_snapshot(&self) -> Option<SnapshotFile> {
        self.inner.shared.snapshots.newest()
    }
}

impl<S: StateMachine> Inner<S> {
    pub(super) async fn take_snapshot(&self) -> Result<SnapshotFile, SnapshotError> {
        self.take_snapshot_to(u64::MAX).await
    }

    async fn take_snapshot_to(&self, index: u64) -> Result<SnapshotFile, SnapshotError> {
        let mut attempts = self.taking.lock().await;
        let applied = self.shared.applied().ok_or(SnapshotError::Empty)?;
        let newest = self.shared.snapshots.newest();
        let will_do = |newest: &SnapshotFile| {
            newest.header().last == applied || newest.info().applied.index >= index
        };
        if let Some(newest) = newest.filter(will_do) {
            let snapshots = Arc::clone(&self.shared.snapshots);
            let prune = move || snapshots.prune();
            let pruned = self.shared.runtime.spawn_blocking("snapshot-prune", prune);
            if let Err(error) = pruned.await {
                tracing::warn!(group = %self.shared.group, %error, "old snapshots were not removed");
            }
            // What came between this snapshot and the log's being cut behind it may have been the end of the process. A replica that has
            // stopped has its snapshot all the same.
            if let Err(error) = self.let_go().await {
                tracing::debug!(group = %self.shared.group, %error, "the log is not cut");
            }
            return Ok(newest);
        }
        let turn = self.snapshot_turn.lock().await;
        // Read before the view is captured: what is applied in between is counted as still to be replayed.
        let bytes = self.shared.progress.bytes();
        let taken = self.write_snapshot().await;
        drop(turn);
        match &taken {
            Ok(_) => {
                attempts.failed = 0;
                self.snapshot_at_bytes.store(bytes, Ordering::Relaxed);
            }
            Err(error) if error.is_disk_full() => {}
            Err(SnapshotError::Stopped { .. } | SnapshotError::Empty) => {}
            Err(error) => {
                attempts.failed += 1;
                if attempts.failed >= FAILURES_MAX {
                    let reason = format!("no snapshot can be written: {error}");
                    self.halt_for(StopCause::Disk, &reason).await;
                }
            }
        }
        let file = taken?;
        self.announce().await?;
        Ok(file)
    }

    async fn write_snapshot(&self) -> Result<SnapshotFile, SnapshotError> {
        // The view is captured by the task that applies, hence between two entries.
        let capture: Option<Capture<S::View>> = self
            .raft
            .with_state_machine(|machine| {
                let capture = machine.0.capture();
                Box::pin(async move { capture })
            })
            .await
            .map_err(|_| self.snapshot_stopped())?;
        let capture = capture.ok_or(SnapshotError::Empty)?;
        let store = Arc::clone(&self.shared.snapshots);
        self.runtime()
            .spawn_background("snapshot-write", move || capture.write(&store))
            .await
            .map_err(|error| SnapshotError::Io(std::io::Error::other(error)))?
    }

    /// Writes down what a replica that was told to stop has applied, unless its newest snapshot holds it.
    async fn take_last(&self) -> Result<(), SnapshotError> {
        let stopped = self.shared.halt.get();
        if stopped.is_none_or(|stopped| stopped.cause != StopCause::Shutdown) {
            return Err(self.snapshot_stopped());
        }
        let turn = self.snapshot_turn.lock().await;
        // One of these may be what somebody begins from; held, they do not give way to one more.
        let held = self.shared.snapshots.sound();
        let newest = held.last().map(|file| file.header().last);
        if newest == self.shared.applied() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let write = move || {
            let store = &shared.snapshots;
            store.require_space(store.expected_bytes().saturating_mul(2))?;
            // A snapshot that is being installed is waited for, which takes as long as it is large.
            let capture = shared.capture().ok_or(SnapshotError::Empty)?;
            let written = capture.write(store);
            drop(held);
            written
        };
        let written = self.runtime().spawn_background("snapshot-write", write);
        let written = written
            .await
            .map_err(|error| SnapshotError::Io(std::io::Error::other(error)))?;
        drop(turn);
        written.map(drop)
    }

    /// Makes a new snapshot known to openraft, then lets go of the log.
    async fn announce(&self) -> Result<(), SnapshotError> {
        let gone = |_| self.snapshot_stopped();
        let newest = self.shared.snapshots.newest();
        let index = newest.map(|file| file.info().applied.index);
        self.shared.adopt_newest();
        self.raft.trigger().snapshot().await.map_err(gone)?;
        let mut metrics = self.raft.metrics();
        while metrics.borrow_watched().snapshot.map(|id| id.index()) < index {
            tokio::select! {
                () = self.ended.cancelled() => return Err(self.snapshot_stopped()),
                changed = metrics.changed() => changed.map_err(|_| self.snapshot_stopped())?,
            }
        }
        self.let_go().await
    }

    pub(super) fn snapshot_stopped(&self) -> SnapshotError {
        SnapshotError::Stopped {
            reason: self.shared.halt.why(),
        }
    }
}
