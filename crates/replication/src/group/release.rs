//! Letting go of the log: how far it may be cut, and who holds it back.
//!
//! A replica keeps the log that its older snapshot needs, and a leader also the log behind a snapshot that it is sending. That is as much as
//! is written meanwhile, and how long it takes is for the receiver to say: so it ends where the node's log is too long, and this group is
//! among those that hold back its oldest part. The receiver is sent a newer snapshot then.
//!
//! Openraft cuts nothing that a follower has not acknowledged while it streams entries to it, and streams to it until a call fails. A
//! follower that is slow, and answers all the same, would so hold back the log for ever: its stream is ended once it is too far behind, or
//! the log is too long. The log is cut then, and openraft finds that it has to send a snapshot.

use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use crate::raft::Metrics;
use crate::{NodeId, SnapshotError, StateMachine};

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

/// Whether this replica leads a member that is not known to have an index.
fn lacks(metrics: &Metrics, member: u64, index: u64) -> bool {
    let members = metrics.replication.as_ref();
    let matched = members.and_then(|members| members.get(&member));
    matched.is_some_and(|matched| matched.as_ref().map(|id| id.index()) < Some(index))
}
