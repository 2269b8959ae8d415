//! Letting go of the log: how far it may be cut, and who holds it back.
//!
//! A replica keeps the log that its older snapshot needs, and a leader also the log behind a snapshot that it is sending. That is as much as
//! is written meanwhile, and how long it takes is for the receiver to say: so it ends where the node's log is too long, and this group is
//! among those that hold back its oldest part. The receiver is sent a newer snapshot then.
//!
//! Openraft cuts nothing that a follower has not acknowledged while it streams entries to it, and streams to it until a call fails. A
//! follower that is slow, and answers all the same, would so hold back the log for ever: its stream is ended once it is too far behind, or
//! the log is too long. The log is cut then, and openraft finds that it has to send a snapshot.
//!
//! Where nobody leads who is heard by a majority, nothing is applied any more, and no snapshot can be taken that is newer than the newest.
//! Such a group would hold back the log of all groups of the node, back to the older snapshot, until the disk is full. So where the log is
//! too long, it goes up to the newest one once that has been read again.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use crate::raft::Metrics;
use crate::{NodeId, SnapshotError, SnapshotFile, StateMachine, snapshot};

/// Whoever has heard no leader for so long has none: elections are over much sooner.
const LEADERLESS: Duration = Duration::from_secs(3);

impl<S: StateMachine> Inner<S> {
    /// Lets go of the log that nobody needs.
    pub(super) async fn let_go(&self) -> Result<(), SnapshotError> {
        let is_too_long = self.holds_too_long_a_log();
        let Some(index) = self.purge_target(&self.metrics.borrow_watched(), is_too_long) else {
            return Ok(());
        };
        let asked = self.raft.trigger().purge_log(index).await;
        asked.map_err(|_| self.snapshot_stopped())
    }

    /// Lets go of the log that followers hold back who are not worth it.
    pub(super) async fn leave_behind(&self) {
        let stragglers = self.stragglers();
        if stragglers.is_empty() {
            return;
        }
        let group = self.shared.group;
        // Less may have been let go of before than may be now.
        if let Err(error) = self.let_go().await {
            tracing::debug!(%group, %error, "the log is not cut");
            return;
        }
        for node in stragglers.into_iter().map(NodeId) {
            tracing::info!(%group, %node, "a follower is too far behind to be sent the log, and gets a snapshot");
            self.network.streams.end(node.0);
        }
    }

    /// Lets go of the log up to the newest snapshot where snapshots in a row have freed nothing, if this group stands still. Says so where
    /// it goes on holding back the log.
    pub(super) async fn let_go_alone(&self) {
        if !self.holds_too_long_a_log() {
            return;
        }
        let group = self.shared.group;
        let purged = self.metrics.borrow_watched().purged.map(|id| id.index());
        let newest = self.shared.snapshots.newest();
        let newest = newest.filter(|newest| {
            self.stands_still(newest) && purged < Some(newest.info().applied.index)
        });
        let Some(newest) = newest else {
            tracing::warn!(%group, ?purged, "snapshots do not make this group let go of a log that is too long");
            return;
        };
        let index = newest.info().applied.index;
        let look = move || is_proved(&newest);
        let looked = self.runtime().spawn_blocking("snapshot-verify", look);
        if !looked.await.unwrap_or(false) {
            tracing::warn!(%group, index, "the log is kept: the snapshot that would stand for it cannot be read");
            return;
        }
        tracing::warn!(%group, index, "a group that nobody leads lets go of the log up to its newest snapshot");
        if let Err(error) = self.raft.trigger().purge_log(index).await {
            tracing::debug!(%group, %error, "the log is not cut");
        }
    }

    /// Whether nothing newer can be taken than this snapshot, for nobody could write it.
    fn stands_still(&self, newest: &SnapshotFile) -> bool {
        let held = newest.header().last;
        if self.shared.applied() != Some(held) {
            return false;
        }
        let metrics = self.metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            return metrics.last_log_index > Some(held.index());
        }
        self.shared.leaderless() >= LEADERLESS
    }

    /// The followers that keep this leader from cutting its log, and are too far behind for that.
    fn stragglers(&self) -> Vec<u64> {
        let is_too_long = self.holds_too_long_a_log();
        let metrics = self.metrics.borrow_watched();
        let Some(members) = &metrics.replication else {
            return Vec::new();
        };
        let purged = metrics.purged.map(|id| id.index());
        let target = self.purge_target(&metrics, is_too_long);
        if purged >= target {
            return Vec::new();
        }
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let is_far_behind = |node: u64, matched: Option<u64>| {
            let lag = next(metrics.last_log_index).saturating_sub(next(matched));
            let sendings = &self.network.sendings;
            lag > self.lag_entries_max && !sendings.have_begun(metrics.current_term, node)
        };
        let members = members.iter();
        let members = members.map(|(node, matched)| (*node, matched.as_ref().map(|id| id.index())));
        members
            .filter(|(node, matched)| *node != self.node && *matched < target)
            .filter(|(node, matched)| is_too_long || is_far_behind(*node, *matched))
            .map(|(node, _)| node)
            .collect()
    }

    /// Up to where the log may be cut: as far as two generations of snapshots cover it, and, unless it is too long, no further than
    /// whoever is being sent a snapshot will have it.
    fn purge_target(&self, metrics: &Metrics, is_too_long: bool) -> Option<u64> {
        let covered = self.shared.snapshots.purgeable()?;
        if is_too_long {
            return Some(covered);
        }
        let lacks = |member, index| lacks(metrics, member, index);
        let sent = self.network.sendings.under_way(metrics.current_term, lacks);
        Some(sent.into_values().fold(covered, u64::min))
    }

    /// Whether the node's log is longer than it should be, and this group holds back its oldest segment.
    fn holds_too_long_a_log(&self) -> bool {
        if self.wal.stats().log_bytes <= self.log_bytes_max {
            return false;
        }
        let holding = self.wal.groups_holding(self.wal.oldest_segment());
        holding.iter().any(|(group, _)| *group == self.shared.group)
    }
}

/// Whether a snapshot is still what was written, by what the disk gives back now. May block.
fn is_proved(file: &SnapshotFile) -> bool {
    let found = snapshot::judge(file.vfs().as_ref(), file.path());
    found.is_ok_and(|found| found.info.hash == file.info().hash)
}

/// Whether this replica leads a member that is not known to have an index.
fn lacks(metrics: &Metrics, member: u64, index: u64) -> bool {
    let members = metrics.replication.as_ref();
    let matched = members.and_then(|members| members.get(&member));
    matched.is_some_and(|matched| matched.as_ref().map(|id| id.index()) < Some(index))
}
