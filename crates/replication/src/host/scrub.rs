//! The background scrub: the log and the snapshots of a node are read again, at a bounded rate, so that rot is found while
//! the peers can still make it good.
//!
//! Rot in the log is the end of the node: nobody knows which of its groups are touched, so that all of them stop
//! ([`Inner::halt_all`]), none is started any more, and the process is told to end: its next start is refused as rotten. A rotten snapshot is no longer used, and another one is taken.
//!
//! What the disk does not give back is as rotten as what it gives back wrong, if it fails twice in a row ([`RETRY_PAUSE`] apart): one
//! read can be lost in a reset. Other errors say nothing of the bytes, and the next pass tries again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use runtime::{CancellationToken, Pace};
use wal::{ReadError, ScrubPosition};

use super::Inner;
use crate::snapshot::{Reread, SnapshotFile};
use crate::status::StopCause;
use crate::{GroupId, SnapshotError};

/// The most that is read before the next pause.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// How long after a failed read it is tried again: longer than a controller or a path takes to come back from a reset, mostly.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the scrub has done since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubStats {
    /// Passes over the whole log and all snapshots that came to their end.
    pub passes: u64,
    /// Bytes that were read again and found sound.
    pub bytes: u64,
    /// Snapshots that were found rotten.
    pub rotten_snapshots: u64,
}

/// Whose snapshot was found rotten, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotten {
    /// By the scrub: it is not used any more, and another is taken.
    Reread(GroupId),
    /// By the start of the group, which went without it.
    Started(GroupId),
}

/// Of so many it is remembered whose they were, until somebody asks.
const ROTTEN_MAX: usize = 64;

/// Bytes that are read at once.
fn step_bytes(pace: &Pace) -> u64 {
    (pace.bytes_per_second() / 4).clamp(1, STEP_BYTES_MAX)
}

/// Makes pass after pass until the node ends or its log is found rotten.
pub(super) async fn run(host: Weak<Inner>, ended: CancellationToken) {
    tokio::select! {
        () = ended.cancelled() => {}
        () = passes(&host) => {}
    }
}

async fn passes(host: &Weak<Inner>) {
    while let Some(inner) = host.upgrade() {
        let pause = inner.options.scrub_pause;
        let pace = Pace::new(&inner.runtime, inner.options.scrub_bytes_per_second);
        drop(inner);
        if pass(host, &pace).await.is_none() {
            return;
        }
        pace.runtime().sleep(pause).await;
    }
}

/// One pass; `None` where there is no more to be done.
async fn pass(host: &Weak<Inner>, pace: &Pace) -> Option<()> {
    let mut position = Some(ScrubPosition::default());
    let mut failed = false;
    while let Some(from) = position {
        let inner = host.upgrade()?;
        let (wal, limit) = (inner.wal.clone(), step_bytes(pace));
        let step = pace
            .runtime()
            .spawn_blocking("log-scrub", move || wal.scrub(from, limit))
            .await
            .ok()?;
        match step {
            Ok(step) => {
                inner.scrubbed(step.bytes);
                drop(inner);
                failed = false;
                position = step.next;
                pace.keep(step.bytes).await;
            }
            Err(error @ ReadError::Rotten { .. }) => {
                inner.fault.damage(&error.to_string());
                return None;
            }
            Err(ReadError::Io(error)) if error.is_unreadable() && failed => {
                inner.fault.damage(&error.to_string());
                return None;
            }
            Err(ReadError::Io(error)) if error.is_unreadable() => {
                tracing::warn!(%error, "the log could not be read again, another read decides");
                drop(inner);
                failed = true;
                pace.runtime().sleep(RETRY_PAUSE).await;
            }
            Err(error @ ReadError::Io(_)) => {
                tracing::warn!(%error, "the log could not be read again");
                return Some(());
            }
        }
    }
    let snapshots: Vec<SnapshotFile> = host.upgrade()?.registry.snapshots();
    for file in snapshots {
        snapshot(host, pace, &file).await?;
    }
    host.upgrade()?.scrub.lock().passes += 1;
    Some(())
}

async fn snapshot(host: &Weak<Inner>, pace: &Pace, file: &SnapshotFile) -> Option<()> {
    let mut failed = false;
    loop {
        match read_again(host, pace, file).await? {
            Ok(()) => return Some(()),
            Err(error) if error.is_unreadable() && !failed => {
                tracing::warn!(%error, "a snapshot could not be read again, another read decides");
                failed = true;
                pace.runtime().sleep(RETRY_PAUSE).await;
            }
            Err(error)
                if error.is_unreadable() || matches!(error, SnapshotError::Damaged { .. }) =>
            {
                host.upgrade()?.note_rotten(file, &error);
                return Some(());
            }
            Err(error) => {
                // It may have been replaced meanwhile.
                tracing::debug!(%error, "a snapshot was not read again");
                return Some(());
            }
        }
    }
}

/// Reads a file from its start to its end; `None` where the node has ended.
async fn read_again(
    host: &Weak<Inner>,
    pace: &Pace,
    file: &SnapshotFile,
) -> Option<Result<(), SnapshotError>> {
    let mut reading = match Reread::new(file) {
        Ok(reading) => reading,
        Err(error) => return Some(Err(error)),
    };
    loop {
        let limit = step_bytes(pace);
        let work = move || {
            let read = reading.step(limit);
            (reading, read)
        };
        let done = pace.runtime().spawn_blocking("snapshot-scrub", work).await;
        let (back, read) = done.ok()?;
        reading = back;
        let inner = host.upgrade()?;
        match read {
            Ok(Some(bytes)) => {
                inner.scrubbed(bytes);
                drop(inner);
                pace.keep(bytes).await;
            }
            Ok(None) => return Some(Ok(())),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Stops all groups once the log is known to be damaged, whoever found out.
pub(super) async fn stop_on_damage(host: Weak<Inner>, ended: CancellationToken) {
    let Some(mut damaged) = host.upgrade().map(|inner| inner.fault.subscribe_damage()) else {
        return;
    };
    let found = tokio::select! {
        biased;
        found = damaged.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
        () = ended.cancelled() => return,
    };
    if let (Some(inner), Some(reason)) = (host.upgrade(), found) {
        tracing::error!(%reason, "the log is not what it was, all replicas of this node stop and must be rebuilt from their peers");
        // First, for groups may take their time to stop.
        if inner.fault.is_set_back() {
            inner.note_set_back(&reason).await;
        }
        inner.halt_all(&reason).await;
        // What else is rotten only a start finds out, which verifies all of it and is refused.
        inner.fault.report(&reason);
    }
}

impl Inner {
    fn scrubbed(&self, bytes: u64) {
        self.scrub.lock().bytes += bytes;
    }

    fn note_rotten(&self, file: &SnapshotFile, error: &SnapshotError) {
        if !file.is_rotten() {
            self.scrub.lock().rotten_snapshots += 1;
            self.note_found(Rotten::Reread(file.info().group));
        }
        file.mark_rotten(&error.to_string());
    }

    pub(super) fn note_found(&self, found: Rotten) {
        let mut rotten = self.rotten.lock();
        if rotten.len() < ROTTEN_MAX {
            rotten.push(found);
        }
    }

    /// What was found since this was asked last.
    pub(super) fn take_rotten(&self) -> Vec<Rotten> {
        std::mem::take(&mut *self.rotten.lock())
    }

    /// Stops every group for the loss of its log's integrity.
    pub(super) async fn halt_all(&self, reason: &str) {
        let groups = self.registry.all();
        join_all(
            groups
                .iter()
                .map(|running| running.halt(StopCause::DataLoss, reason)),
        )
        .await;
    }

    /// What the scrub has done.
    pub(super) fn scrub_stats(&self) -> ScrubStats {
        *self.scrub.lock()
    }
}

/// Starts the scrub's tasks; without a rate nothing is read again.
pub(super) fn spawn(inner: &Arc<Inner>) {
    let ended = &inner.ended;
    if inner.options.scrub_bytes_per_second > 0 {
        let scrub = run(Arc::downgrade(inner), ended.clone());
        inner.guard("host-scrub", scrub);
    }
    let stop = stop_on_damage(Arc::downgrade(inner), ended.clone());
    inner.guard("host-damage", stop);
}
