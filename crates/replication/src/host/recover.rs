//! Bringing a group's state back from its snapshot and its log, before Raft hears of it.
//!
//! Every byte that is used is verified first: the log when it was opened, the snapshot here. What cannot be brought
//! back completely is refused with [`StartError::DataLoss`], and nothing on the disk is changed.

use std::sync::Arc;

use openraft::EntryPayload;
use wal::{GroupId, GroupState, Wal};

use crate::log::committed_of;
use crate::machine::Shared;
use crate::raft::{LogId, term_of};
use crate::snapshot::{Found, SnapshotStore};
use crate::{SnapshotFile, StartError, StateMachine, convert};

/// Payload bytes read in one go.
const CHUNK_BYTES: u64 = 4 << 20;
const CHUNK_ENTRIES: u64 = 1024;

/// A group's stored state, verified but not yet loaded.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) state: GroupState,
}

impl Stored {
    /// Opens the snapshots of a group and checks that they and the log make a whole.
    pub(super) fn open(
        wal: &Wal,
        opened: (SnapshotStore, Found),
        group: GroupId,
    ) -> Result<Self, StartError> {
        let (snapshots, found) = opened;
        if found.temporaries > 0 {
            tracing::info!(%group, files = found.temporaries, "half-written snapshots removed");
        }
        for damaged in &found.damaged {
            tracing::error!(%group, error = %damaged, "a snapshot cannot be used");
        }
        let stored = Self {
            snapshots: Arc::new(snapshots),
            state: wal.group(group),
        };
        stored.check(wal, group, &found)?;
        Ok(stored)
    }

    /// Whether nothing of the group was ever committed here.
    pub(super) fn is_empty(&self) -> bool {
        self.state.last.is_none() && self.snapshots.newest().is_none()
    }

    fn check(&self, wal: &Wal, group: GroupId, found: &Found) -> Result<(), StartError> {
        let lost = |problem: String| Err(StartError::DataLoss { group, problem });
        let newest = self.snapshots.newest();
        let held = newest.as_ref().map(|file| file.info().applied);
        if let Some(purged) = self.state.purged
            && held.is_none_or(|held| held.index < purged.index)
        {
            let damaged = found.damaged.first();
            let why = damaged.map_or_else(|| "it is missing".to_owned(), ToString::to_string);
            return lost(format!(
                "the log begins behind index {}, and no snapshot reaches it: {why}",
                purged.index
            ));
        }
        if self.state.last.is_none() && newest.is_none() && !found.damaged.is_empty() {
            return lost("its only snapshot is damaged".to_owned());
        }
        let Some(held) = held else {
            return Ok(());
        };
        if self.state.vote.is_none_or(|vote| vote.term < held.term) {
            return lost("its snapshot is there, but the log with its vote is not".to_owned());
        }
        let entry = wal.entry_meta(group, held.index);
        if entry.is_some_and(|entry| entry.id.term != held.term) {
            return lost(format!(
                "the log contradicts the snapshot at {}",
                held.index
            ));
        }
        Ok(())
    }
}

/// Loads the newest snapshot, then applies what the log is known to have committed. May block.
pub(super) fn load<S: StateMachine>(
    shared: &Shared<S>,
    wal: &Wal,
    state: &GroupState,
) -> Result<(), StartError> {
    let group = shared.group;
    let newest = shared.snapshots.newest();
    let committed = committed_of(state);
    let held = newest.as_ref().map(|file| file.header().last);
    if let Some(target) = committed.max(held) {
        shared.progress.set_replay_target(target.index());
    }
    if let Some(file) = &newest {
        restore(shared, file)?;
    }
    let Some(committed) = committed else {
        return Ok(());
    };
    replay(shared, wal, committed).map_err(|error| match error {
        ReplayError::Read(error) => unread(group, &error),
        ReplayError::Stopped(reason) => StartError::Stopped { group, reason },
    })
}

/// Entries that were there when the log was opened cannot be read.
fn unread(group: GroupId, error: &wal::ReadError) -> StartError {
    StartError::DataLoss {
        group,
        problem: error.to_string(),
    }
}

fn restore<S: StateMachine>(shared: &Shared<S>, file: &SnapshotFile) -> Result<(), StartError> {
    Ok(shared.restore(file)?)
}

enum ReplayError {
    Read(wal::ReadError),
    Stopped(String),
}

fn replay<S: StateMachine>(
    shared: &Shared<S>,
    wal: &Wal,
    committed: LogId,
) -> Result<(), ReplayError> {
    let first = wal.group(shared.group).first_index;
    let mut next = shared.applied().map_or(first, |id| id.index() + 1);
    while next <= committed.index() {
        let end = (committed.index() + 1).min(next + CHUNK_ENTRIES);
        let entries = wal
            .read(shared.group, next..end, CHUNK_BYTES)
            .map_err(ReplayError::Read)?;
        if entries.is_empty() {
            return Err(ReplayError::Stopped(format!("entry {next} is missing")));
        }
        for entry in entries {
            let entry = convert::entry_from_wal(entry)
                .map_err(|error| ReplayError::Stopped(error.to_string()))?;
            next = entry.log_id.index() + 1;
            shared
                .apply_entry(entry)
                .map_err(|error| ReplayError::Stopped(error.to_string()))?;
        }
    }
    shared.progress.publish();
    Ok(())
}

/// The voters that a group had last, by its snapshot and its log.
pub(super) fn voters<S: StateMachine>(
    shared: &Shared<S>,
    wal: &Wal,
    state: &GroupState,
) -> Result<Vec<u64>, StartError> {
    let mut voters: Vec<u64> = shared.membership().voter_ids().collect();
    let last = state.last.map_or(0, |id| id.index + 1);
    let mut next = shared
        .applied()
        .map_or(state.first_index, |id| id.index() + 1);
    while next < last {
        let end = last.min(next + CHUNK_ENTRIES);
        let read = wal.read(shared.group, next..end, CHUNK_BYTES);
        let entries = read.map_err(|error| unread(shared.group, &error))?;
        let Some(end) = entries.last().map(|entry| entry.id.index + 1) else {
            break;
        };
        for entry in entries {
            let payload = convert::entry_from_wal(entry).map(|entry| entry.payload);
            if let Ok(EntryPayload::Membership(members)) = payload {
                voters = members.voter_ids().collect();
            }
        }
        next = end;
    }
    Ok(voters)
}

/// The least vote that a replica with a snapshot must have cast.
pub(super) fn vote_for(held: &LogId, node: u64) -> crate::raft::Vote {
    crate::raft::vote(term_of(held), node, false)
}
