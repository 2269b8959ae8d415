//! Letting go of the log: how far it may be cut, and who holds it back.
//!
//! A replica keeps the log that its older snapshot needs, and a leader also the log behind a snapshot that it is sending. That is as much as
//! is written meanwhile, and how long it takes is for the receiver to say: so it ends where the node's log is too long, and this group is
//! among those that hold back its oldest part. The receiver is sent a newer snapshot then.

use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use crate::raft::Metrics;
use crate::{SnapshotError, StateMachine};

impl<S: StateMachine> Inner<S> {
    /// Lets go of the log that nobody needs.
    pub(super) async fn let_go(&self) -> Result<(), SnapshotError> {
        let Some(index) = self.purge_target(&self.metrics.borrow_watched()) else {
            return Ok(());
        };
        let asked = self.raft.trigger().purge_log(index).await;
        asked.map_err(|_| self.snapshot_stopped())
    }

    /// Up to where the log may be cut: as far as two generations of snapshots cover it, and no further than whoever is being sent a
    /// snapshot will have it.
    fn purge_target(&self, metrics: &Metrics) -> Option<u64> {
        let covered = self.shared.snapshots.purgeable()?;
        if self.holds_too_long_a_log() {
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
