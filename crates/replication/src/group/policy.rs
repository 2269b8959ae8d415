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
/// The first pause after an attempt that failed or was in vain; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A burst is worth a snapshot if it is one of so many parts of the last one: what is written stays in proportion.
const SNAPSHOT_PARTS: u64 = 4;
/// How long the leader waits until an entry without effect is applied.
const ENTRY_PATIENCE: Duration = Duration::from_secs(2);
/// What a snapshot may add to the time a stop takes. Supervisors are used to wait ten seconds.
const SETTLE_PATIENCE: Duration = Duration::from_secs(6);

pub(super) async fn run<S: StateMachine>(inner: Arc<Inner<S>>) {
    let runtime = inner.runtime().clone();
    let mut since = Since {
        at: runtime.now(),
        seen_bytes: inner.shared.progress.bytes(),
        seen_at: runtime.now(),
    };
    let mut failed = Pause::over(runtime.now());
    let mut for_the_log = ForTheLog::none_yet(runtime.now());
    loop {
        let asked = tokio::select! {
            () = inner.ended.cancelled() => return,
            () = inner.snapshot_wanted.notified() => true,
            () = inner.network.entry_wanted.notified() => {
                inner.write_nothing().await;
                continue;
            }
            () = runtime.sleep(LOOK_EVERY) => false,
        };
        inner.leave_behind().await;
        // Whoever wants one asks again and again; a disk that just failed needs the pause all the same.
        let now = runtime.now();
        if failed.lasts(now) {
            continue;
        }
        let wanted = asked && !for_the_log.is_in_vain(inner.wal.oldest_segment(), now);
        if wanted {
            inner.move_on().await;
        } else if !inner.is_due(&mut since) {
            continue;
        }
        inner.doubt_snapshots().await;
        let oldest = inner.wal.oldest_segment();
        match inner.take_snapshot().await {
            Ok(_) => {
                let now = runtime.now();
                failed = Pause::over(now);
                since.at = now;
                if wanted {
                    for_the_log.taken(oldest, now);
                    if for_the_log.is_stuck() {
                        inner.let_go_alone().await;
                    }
                }
            }
            Err(SnapshotError::Empty | SnapshotError::Stopped { .. }) => {}
            Err(error) => {
                let pause = failed.lengthen(runtime.now());
                tracing::warn!(group = %inner.shared.group, %error, ?pause, "no snapshot was taken");
            }
        }
    }
}

/// How long something is not tried again.
#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: runtime::Instant,
}

impl Pause {
    fn over(now: runtime::Instant) -> Self {
        Self {
            length: Duration::ZERO,
            until: now,
        }
    }

    fn lasts(&self, now: runtime::Instant) -> bool {
        now < self.until
    }

    /// Begins anew, twice as long as before.
    fn lengthen(&mut self, now: runtime::Instant) -> Duration {
        self.length = (self.length * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.until = now + self.length;
        self.length
    }
}

/// Snapshots that are taken because the log is too long. One alone may free nothing, for the log reaches back to the one before it; where
/// two in a row have not, something else holds the log back, and more of them would only write. That is so until the log lets go of that
/// segment all the same: what holds back the next is another question.
#[derive(Debug)]
struct ForTheLog {
    /// Of the segment that was the oldest, and of no other.
    pause: Pause,
    /// The oldest segment of the log when the last was taken.
    oldest: Option<u64>,
}

impl ForTheLog {
    fn none_yet(now: runtime::Instant) -> Self {
        Self {
            pause: Pause::over(now),
            oldest: None,
        }
    }

    /// Whether another one, while a segment is the oldest, is likely to free as little as the last.
    fn is_in_vain(&self, oldest: u64, now: runtime::Instant) -> bool {
        self.oldest == Some(oldest) && self.pause.lasts(now)
    }

    /// One was taken while a segment was the oldest.
    fn taken(&mut self, oldest: u64, now: runtime::Instant) {
        if self.oldest.replace(oldest) == Some(oldest) {
            self.pause.lengthen(now);
        } else {
            self.pause = Pause::over(now);
        }
    }

    /// Whether more have freed nothing than it takes for two generations to move on.
    fn is_stuck(&self) -> bool {
        self.pause.length > FIRST_PAUSE
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

    /// An entry without effect, by the leader. One that waits to be committed will do as well, and without a majority more of them would
    /// only lengthen the log.
    async fn write_nothing(&self) {
        let may_write = {
            let metrics = self.metrics.borrow_watched();
            let applied = self.shared.applied().map(|id| id.index());
            metrics.state == ServerState::Leader && metrics.last_log_index <= applied
        };
        if !may_write {
            return;
        }
        let group = self.shared.group;
        let written = self.raft.write_blank();
        match self.runtime().timeout(ENTRY_PATIENCE, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%group, %error, "an idle group could not move on"),
            Err(error) => tracing::debug!(%group, %error, "an idle group does not move on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_that_free_nothing_of_the_log_are_taken_more_and_more_rarely() {
        let at = |seconds| runtime::Instant::from_origin(Duration::from_secs(seconds));
        let mut for_the_log = ForTheLog::none_yet(at(0));
        for_the_log.taken(3, at(0));
        assert!(!for_the_log.is_in_vain(3, at(0)), "the next may free it");
        for (taken, over) in [(0, 1), (1, 3), (3, 7)] {
            for_the_log.taken(3, at(taken));
            assert_eq!(for_the_log.is_stuck(), taken > 0, "{taken}");
            assert!(for_the_log.is_in_vain(3, at(over - 1)));
            assert!(!for_the_log.is_in_vain(3, at(over)));
        }
        for _ in 0..10 {
            for_the_log.taken(3, at(100));
        }
        assert!(for_the_log.is_in_vain(3, at(159)));
        assert!(!for_the_log.is_in_vain(3, at(160)));
        assert!(for_the_log.is_stuck());
        for_the_log.taken(4, at(200));
        assert!(!for_the_log.is_stuck());
        assert!(!for_the_log.is_in_vain(4, at(200)), "it is another segment");
    }

    #[test]
    fn a_log_that_let_go_of_its_oldest_segment_is_not_held_back_by_the_snapshots_that_did_not() {
        let at = |seconds| runtime::Instant::from_origin(Duration::from_secs(seconds));
        let mut for_the_log = ForTheLog::none_yet(at(0));
        for _ in 0..10 {
            for_the_log.taken(3, at(0));
        }
        assert!(for_the_log.is_in_vain(3, at(59)));
        assert!(!for_the_log.is_in_vain(4, at(1)), "that was not tried yet");
        for_the_log.taken(4, at(1));
        assert!(!for_the_log.is_in_vain(4, at(1)), "the next may free it");
        for_the_log.taken(4, at(1));
        assert!(for_the_log.is_in_vain(4, at(1)));
        assert!(!for_the_log.is_in_vain(4, at(2)), "it begins anew");
    }
}
