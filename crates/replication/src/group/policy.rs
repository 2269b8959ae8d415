//! When a replica takes a snapshot of its own accord.

use std::sync::Arc;
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

pub(super) async fn run<S: StateMachine>(inner: Arc<Inner<S>>) {
    let runtime = inner.runtime().clone();
    let mut since = Since {
        bytes: inner.shared.progress.bytes(),
        at: runtime.now(),
    };
    let mut pause = Duration::ZERO;
    let mut not_before = runtime.now();
    loop {
        let wanted = tokio::select! {
            () = inner.ended.cancelled() => return,
            () = inner.snapshot_wanted.notified() => true,
            () = runtime.sleep(LOOK_EVERY) => false,
        };
        // Whoever wants one asks again and again; a disk that just failed needs the pause all the same.
        if runtime.now() < not_before {
            continue;
        }
        if wanted {
            inner.move_on().await;
        } else if !inner.is_due(&since) {
            continue;
        }
        let bytes = inner.shared.progress.bytes();
        match inner.take_snapshot().await {
            Ok(_) => {
                pause = Duration::ZERO;
                since = Since {
                    bytes,
                    at: runtime.now(),
                };
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

/// Where the last snapshot was taken.
struct Since {
    bytes: u64,
    at: runtime::Instant,
}

impl<S: StateMachine> Inner<S> {
    fn is_due(&self, since: &Since) -> bool {
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
        let bytes = self.shared.progress.bytes().saturating_sub(since.bytes);
        let age = self.runtime().now().saturating_since(since.at);
        entries >= self.policy.entries || bytes >= self.policy.bytes || age >= self.policy.interval
    }

    /// Makes sure that there is something new to snapshot. The log is kept back to the older of two generations, so an
    /// idle group lets go of it only when it moves on.
    async fn move_on(&self) {
        let newest = self.shared.snapshots.newest();
        let applied = self.shared.applied();
        let idle = newest.is_some_and(|file| Some(file.header().last) == applied);
        let leads = self.metrics.borrow_watched().state == ServerState::Leader;
        if idle
            && leads
            && let Err(error) = self.raft.write_blank().await
        {
            tracing::debug!(group = %self.shared.group, %error, "an idle group could not move on");
        }
    }
}
