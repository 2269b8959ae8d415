//! Letting go of the log of groups that do not run.
//!
//! The oldest segment of the log stays as long as any group has entries in it. One that runs is asked for a snapshot. One that does not has
//! only those that it took:
//! - Where it may be started again, its log goes as far as that of a running group does, back to the older of two sound snapshots: nothing
//!   else would help it if the newer one rots.
//! - Where it is not ([`super::Host::retire_group`]), the newest sound one stands for all that it holds. That is what somebody may still
//!   want of it, and nothing is replayed any more.
//!
//! What no snapshot holds stays, whatever it costs, and is told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Instant, Task};
use wal::{GroupId, Record};

use super::Inner;
use crate::snapshot::{GENERATIONS, SnapshotStore};
use crate::{SnapshotFile, StartError, convert};

/// Between two attempts at a group, each of which may read its snapshots; doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(600);

/// The groups at rest that hold back a log which is too long.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// When each was last looked at, and how long it is left alone then.
    looks: BTreeMap<GroupId, Look>,
    /// What the last look began. Others wait until it is over: they would read the same disk.
    at_work: Option<Task<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    pause: Duration,
}

impl Idle {
    /// Has the log let go of what it can of these groups, in the background.
    pub(super) fn release(&mut self, host: &Arc<Inner>, holding: &[GroupId]) {
        if self
            .at_work
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let due = self.due(holding, host.runtime.now());
        if due.is_empty() {
            return;
        }
        let host = Arc::clone(host);
        let runtime = host.runtime.clone();
        let release = move || due.into_iter().for_each(|group| host.release_idle(group));
        self.at_work = Some(runtime.spawn_background("log-release", release));
    }

    /// Which of those that hold back the log now are to be looked at.
    fn due(&mut self, holding: &[GroupId], now: Instant) -> Vec<GroupId> {
        self.looks.retain(|group, _| holding.contains(group));
        let mut due = Vec::new();
        for group in holding {
            let last = self.looks.get(group).copied();
            let rests = |look: Look| now.saturating_since(look.at) < look.pause;
            if last.is_some_and(rests) {
                continue;
            }
            let pause = last.map_or(FIRST_PAUSE, |look| (look.pause * 2).min(LAST_PAUSE));
            self.looks.insert(*group, Look { at: now, pause });
            due.push(*group);
        }
        due
    }
}

impl Inner {
    /// Lets go of the log of a group that does not run, as far as that is safe, and says where it goes on holding it back. May block.
    fn release_idle(&self, group: GroupId) {
        if self.busy.lock().contains(&group) || self.fault.is_told() {
            return;
        }
        match self.purge_idle(group) {
            Ok(()) if self.holds_oldest(group) => {
                let log_bytes = self.wal.stats().log_bytes;
                tracing::warn!(%group, log_bytes, "a group that does not run holds back the log: no snapshot stands for what it has there");
            }
            // It is being started or removed.
            Ok(()) | Err(StartError::Running { .. }) => {}
            Err(error) => {
                tracing::warn!(%group, %error, "a group that does not run holds back the log");
            }
        }
    }

    fn holds_oldest(&self, group: GroupId) -> bool {
        let holding = self.wal.groups_holding(self.wal.oldest_segment());
        holding.iter().any(|(holds, _)| *holds == group)
    }

    fn purge_idle(&self, group: GroupId) -> Result<(), StartError> {
        let is_retired = self.retired.lock().contains(&group);
        let place = if is_retired { 1 } else { GENERATIONS };
        let purged = self.wal.group(group).purged;
        let next = purged.map_or(0, |id| id.index + 1);
        let found = SnapshotStore::reaching(&self.vfs, &self.snapshot_root, group, next, place)?;
        let Some(file) = found else {
            return Ok(());
        };
        *self.releasing.lock() = Some(group);
        let purged = self.purge_to(&file, is_retired);
        *self.releasing.lock() = None;
        purged
    }

    fn purge_to(&self, file: &SnapshotFile, was_retired: bool) -> Result<(), StartError> {
        let group = file.info().group;
        let _claim = self.claim(group)?;
        // While the file was read, the group may have been removed, or started and stopped.
        let is_as_before = self.retired.lock().contains(&group) == was_retired;
        let is_there = self.wal.groups().contains(&group) && self.vfs.exists(file.path())?;
        if !is_as_before || !is_there {
            return Ok(());
        }
        let upto = convert::log_id_to_wal(&file.header().last);
        let purge = Record::Purge { upto, chain: None };
        self.wal.append_sync(group, vec![purge])?;
        tracing::info!(%group, index = upto.index, "the log of a group that does not run is let go of up to its snapshot");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_goes_on_holding_back_the_log_is_looked_at_more_and_more_rarely() {
        const ONE: GroupId = GroupId(7);
        const OTHER: GroupId = GroupId(8);
        let at = |seconds| Instant::from_origin(Duration::from_secs(seconds));
        let mut idle = Idle::default();
        assert_eq!(idle.due(&[ONE], at(0)), [ONE]);
        assert_eq!(idle.due(&[ONE, OTHER], at(0)), [OTHER]);
        for (is_due, second) in [(1, 1), (0, 2), (1, 3), (0, 6), (1, 7)] {
            assert_eq!(idle.due(&[ONE], at(second)).len(), is_due, "{second}");
        }
        for hour in 1..9 {
            assert_eq!(idle.due(&[ONE], at(hour * 3600)), [ONE]);
        }
        assert!(idle.due(&[ONE], at(8 * 3600 + 599)).is_empty());
        assert_eq!(idle.due(&[ONE], at(8 * 3600 + 600)), [ONE]);
        // What has let go meanwhile begins anew.
        assert!(idle.due(&[], at(8 * 3600 + 601)).is_empty());
        assert_eq!(idle.due(&[ONE], at(8 * 3600 + 602)), [ONE]);
    }
}
