//! What a replica says about itself.

use std::sync::Arc;
use std::time::Duration;

use cluster::NodeId;
use runtime::CancellationToken;
use tokio::sync::watch;
use wal::GroupId;

use crate::{Applied, Member, Peer};

/// What a replica does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Orders proposals.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote, or does not know of any group yet.
    Learner,
    /// Has stopped for good, see [`GroupStatus::stopped`].
    Stopped,
}

/// A replica at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// The Raft term it is in.
    pub term: u64,
    /// The leader it knows; itself if it leads.
    pub leader: Option<Peer>,
    /// All members, as of the newest entry that changed them, committed or not.
    pub members: Vec<Member>,
    /// Whether the last change of them is only half done: what is decided takes a majority of the voters before it and one of those after
    /// it. The call that began it writes the other half at once. Where it was dropped, or its leader lost the lead in between, whoever leads
    /// has to be asked for a change, such as a vote for a member that has one.
    pub joint: bool,
    /// The index of the last entry of its log.
    pub last_log: Option<u64>,
    /// The index up to which it knows the log to be committed.
    pub committed: Option<u64>,
    /// The last entry that was applied.
    pub applied: Option<Applied>,
    /// The index of the newest snapshot.
    pub snapshot: Option<u64>,
    /// The index up to which the log was purged.
    pub purged: Option<u64>,
    /// The replay of the log when the replica was started.
    pub replay: Replay,
    /// For a leader of several voters: how long ago a majority last acknowledged it, at most. `None` where there is no such moment.
    pub quorum_ack_age: Option<Duration>,
    /// How long ago somebody who leads was last heard here; `None` where that never was. A leader hears nobody who leads.
    pub leader_silence: Option<Duration>,
    /// For a leader: the index up to which each member's log is known to match.
    pub matched: Vec<(NodeId, Option<u64>)>,
    /// Why it stopped, if it did.
    pub stopped: Option<Stopped>,
}

impl GroupStatus {
    /// Whether it stopped because data is damaged or lost, so that it must be repaired and not just restarted.
    #[must_use]
    pub fn data_loss(&self) -> bool {
        self.stopped
            .as_ref()
            .is_some_and(|stopped| stopped.cause == StopCause::DataLoss)
    }
}

/// How far the replay of the log at the start has come. A replica with progress is not dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replay {
    /// Entries that are part of the state, those of the snapshot included.
    pub done: u64,
    /// Entries that have to be.
    pub target: u64,
}

/// Why a replica stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The kind of reason.
    pub cause: StopCause,
    /// In words.
    pub reason: String,
}

/// The kinds of reasons for which a replica stops for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// It was told to.
    Shutdown,
    /// An entry could not be applied.
    Apply,
    /// What was durable is damaged.
    DataLoss,
    /// The disk failed. Where a sync failed, the whole process must end.
    Disk,
    /// The disk is full beyond its reserve.
    DiskFull,
    /// A snapshot could not be installed.
    Snapshot,
    /// A bug; a start from the disk may do better.
    Internal,
}

/// Remembers the first reason to stop, and tells who waits for it.
///
/// From that moment the replica is silent: whatever of it still runs sends its peers nothing and answers them nothing. One
/// that went on to be heard would keep them loyal to a leader that cannot lead.
#[derive(Debug)]
pub(crate) struct Halt {
    reason: watch::Sender<Option<Stopped>>,
    silence: CancellationToken,
}

impl Halt {
    /// For a replica that is silent as soon as its host is.
    pub(crate) fn new(host_silence: &CancellationToken) -> Self {
        Self {
            reason: watch::channel(None).0,
            silence: host_silence.child_token(),
        }
    }

    /// Cancelled when nothing may be heard of the replica any more.
    pub(crate) fn silence(&self) -> &CancellationToken {
        &self.silence
    }

    pub(crate) fn set(&self, cause: StopCause, reason: &str) {
        self.silence.cancel();
        self.reason.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(Stopped {
                    cause,
                    reason: reason.to_owned(),
                });
            }
            first
        });
    }

    pub(crate) fn get(&self) -> Option<Stopped> {
        self.reason.borrow().clone()
    }

    /// The reason, for callers who find the replica stopped.
    pub(crate) fn why(&self) -> String {
        self.get().map_or_else(
            || "the replica is gone".to_owned(),
            |stopped| stopped.reason,
        )
    }

    pub(crate) fn is_set(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// Waits until there is a reason.
    pub(crate) async fn told(&self) {
        // The sender lives as long as this value.
        drop(self.reason.subscribe().wait_for(Option::is_some).await);
    }
}

/// Stops a replica when a panic drops it: for what tasks hold that somebody else starts, and whose end nobody tells.
#[derive(Debug, Clone)]
pub(crate) struct Tripwire {
    halt: Arc<Halt>,
    task: &'static str,
}

impl Tripwire {
    pub(crate) fn new(halt: Arc<Halt>, task: &'static str) -> Self {
        Self { halt, task }
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = format!("task {} panicked", self.task);
            self.halt.set(StopCause::Internal, &reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn only_a_panic_trips_the_wire() {
        let halt = Arc::new(Halt::new(&CancellationToken::new()));
        let wire = Tripwire::new(Arc::clone(&halt), "of-another");
        drop(wire.clone());
        assert_eq!(halt.get(), None);
        let work = move || {
            let _wire = wire;
            panic!("on purpose");
        };
        catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        let stopped = halt.get().unwrap();
        assert_eq!(stopped.cause, StopCause::Internal);
        assert_eq!(stopped.reason, "task of-another panicked");
        assert!(halt.silence().is_cancelled());
    }
}
