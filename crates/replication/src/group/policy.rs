//! When a replica takes a snapshot of its own accord.
//!
//! A start reads the newest snapshot, several million terms a second, and replays the log behind it, several hundred thousand a
//! second. So the snapshot has to follow what was written closely: at every so many entries and bytes, when a burst
//! of writes (a load) is over, and when the node is stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use crate::{SnapshotError, StateMachine};

/// How often the limits are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The first pause after a failed attempt; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A burst is worth a snapshot if it is one of so many parts of the last one: what is written stays in proportion.
const SNAPSHOT_PARTS: u64 = 4;
/// What a snapshot may add to the time a stop takes. Supervisors are used to wait ten seconds.
const SETTLE_PATIENCE: Duration = Duration::from_secs(6);

pub(super) async fn run<S: StateMachine>(inner: Arc<Inner<S>>) {
    let runtime = inner.runtime().clone();
    let mut since = Since {
        at: runtime.now(),
        seen_bytes: inner.shared.progress.bytes(),
        seen_at: runtime.now(),
    };
    let mut pause = Duration::ZERO;
    let mut not_before = runtime.now();
    loop {
        let wanted = tokio::select! {
            () = inner.ended.cancelled() => return,
            () = inner.snapshot_wanted.notified() => true,
            () = inner.network.entry_wanted.notified() => {
                inner.write_nothing().await;
                continue;
            }
            () = runtime.sleep(LOOK_EVERY) => false,
        };
        // Whoever wants one asks again and again; a disk that just failed needs the pause all the same.
        if runtime.now() < not_before {
            continue;
        }
        if wanted {
            inner.move_on().await;
        } else if !inner.is_due(&mut since) {
            continue;
        }
        inner.doubt_snapshots().await;
        match inner.take_snapshot().await {
            Ok(_) => {
                pause = Duration::ZERO;
                since.at = runtime.now();
            }
            Err(SnapshotError::Empty | SnapshotError::Stopped { .. }) => {}
            Err(error) => {
                pause = (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                not_before = runtime.now() + pause;
                tracing::warn!(group = %inner.shared.group, %error, ?pause, "no snapshot was taken");
            }
        }
    }
}

/// What is remembered between two looks.
struct Since {
    /// When the last snapshot was taken.
    at: runtime::Instant,
    /// Bytes of commands that were applied at the last look that found new ones, and when that was.
    seen_bytes: u64,
    seen_at: runtime::Instant,
}

impl<S: StateMachine> Inner<S> {
    fn is_due(&self, since: &mut Since) -> bool {
        let now = self.runtime().now();
        let bytes = self.shared.progress.bytes();
        if bytes != since.seen_bytes {
            (since.seen_bytes, since.seen_at) = (bytes, now);
        }
        let Some(applied) = self.shared.progress.applied() else {
            return false;
        };
        if self.shared.snapshots.has_rotten() {
            return true;
        }
        let newest = self.shared.snapshots.newest();
        let held = newest.map_or(0, |file| file.info().applied.index + 1);
        let entries = (applied.index + 1).saturating_sub(held);
        if entries == 0 {
            return false;
        }
        let quiet = now.saturating_since(since.seen_at) >= self.policy.quiet;
        let age = now.saturating_since(since.at);
        entries >= self.policy.entries
            || self.bytes_to_replay() >= self.policy.bytes
            || age >= self.policy.interval
            || (quiet && self.is_burst_left())
    }

    /// Where one snapshot was found rotten, looks at the others too, before the log that they stand for is let go of.
    async fn doubt_snapshots(&self) {
        if !self.shared.snapshots.has_rotten() {
            return;
        }
        let store = Arc::clone(&self.shared.snapshots);
        let look = move || store.reconsider();
        if let Err(error) = self.runtime().spawn_blocking("snapshot-verify", look).await {
            tracing::error!(group = %self.shared.group, %error, "the snapshots could not be verified");
        }
    }

    /// Bytes of commands that were applied since the newest snapshot was taken.
    fn bytes_to_replay(&self) -> u64 {
        let held = self.snapshot_at_bytes.load(Ordering::Relaxed);
        self.shared.progress.bytes().saturating_sub(held)
    }

    /// Whether a start would replay so much that a snapshot is worth writing.
    fn is_burst_left(&self) -> bool {
        let newest = self.shared.snapshots.newest();
        let worth = newest.map_or(0, |file| file.info().bytes) / SNAPSHOT_PARTS;
        self.bytes_to_replay() >= self.policy.burst_bytes.max(worth)
    }

    /// Takes a snapshot before the replica is stopped in good order, so that the next start has little to replay. Whatever
    /// prevents it costs that start some time and nothing else. A leader that others could follow does not: they wait for it to go.
    pub(crate) async fn settle(&self) {
        if self.is_ended() || self.leads_others() || !self.is_burst_left() {
            return;
        }
        let taken = self
            .runtime()
            .timeout(SETTLE_PATIENCE, self.take_snapshot());
        match taken.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::info!(group = %self.shared.group, %error, "stopped without a snapshot");
            }
            Err(error) => {
                tracing::info!(group = %self.shared.group, %error, "stopped without a snapshot");
            }
        }
    }

    fn leads_others(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids().count();
        metrics.state == ServerState::Leader && voters > 1
    }

    /// Makes sure that there is something new to snapshot. The log is kept back to the older of two generations, so an
    /// idle group lets go of it only when it moves on. Only its leader can do that; the logs of its followers grow with what other groups
    /// write there, and they ask it.
    async fn move_on(&self) {
        let newest = self.shared.snapshots.newest();
        let applied = self.shared.applied();
        if newest.is_none_or(|file| Some(file.header().last) != applied) {
            return;
        }
        if self.metrics.borrow_watched().state == ServerState::Leader {
            self.write_nothing().await;
        } else {
            self.wants_entry.store(true, Ordering::Relaxed);
        }
    }

    /// An entry without effect, by the leader.
    async fn write_nothing(&self) {
        if self.metrics.borrow_watched().state != ServerState::Leader {
            return;
        }
        if let Err(error) = self.raft.write_blank().await {
            tracing::debug!(group = %self.shared.group, %error, "an idle group could not move on");
        }
    }
}
