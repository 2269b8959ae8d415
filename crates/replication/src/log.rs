//! A group's part of the node's log, as openraft wants to see it.
//!
//! Entries, votes, truncations, purges and commit hints of all groups go through the one ordered stream of the [`wal`]
//! crate, so that a vote never overtakes an entry. What always holds:
//!
//! - [`LogStore::append`] returns when the entries are readable; openraft hears of them as flushed after the sync. What is more than
//!   the log takes at once goes to it piece by piece, each when the one before is durable.
//! - Where too much waits for the disk, whoever appends waits without a thread of the runtime, and all groups of the node with one
//!   that may block: else a disk that hangs would take them all, and with them whoever is to notice.
//! - A vote, a truncation and a purge return when they are durable. A commit hint does not wait.
//! - Before members other than this node are appended, the node's note of shared groups says so ([`VotersNote`]).
//! - A failed sync is final: openraft is told, the group stops, and the node is reported as poisoned
//!   ([`NodeFault`]), so that the process ends.

mod reader;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use runtime::{CancellationToken, Runtime};
use tokio::sync::{oneshot, watch};
use wal::{AppendError, GroupId, Record, Wal};

use crate::convert;
use crate::host::VotersNote;
use crate::raft::{Entry, LogId, TypeConfig, Vote};
use crate::status::{Halt, StopCause};

pub(crate) use reader::LogReader;

/// Payload bytes that go to the log at once. What it takes beyond that is for the headers of records.
const PIECE_BYTES: usize = wal::BATCH_BYTES_MAX / 2;
const _: () = assert!(wal::PAYLOAD_BYTES_MAX <= PIECE_BYTES);

/// Says that the node's disk has failed and the process must end, or that the log is rotten or set back and must not be served from.
///
/// With a failed disk the node falls silent at once ([`Halt`]), all its groups together: those that happen to write nothing would
/// not notice, and go on leading.
#[derive(Debug, Clone)]
pub(crate) struct NodeFault {
    failed: Arc<Reason>,
    damaged: Arc<Reason>,
    is_set_back: Arc<AtomicBool>,
    silence: CancellationToken,
}

type Reason = watch::Sender<Option<String>>;

impl NodeFault {
    pub(crate) fn new() -> Self {
        Self {
            failed: Arc::new(watch::channel(None).0),
            damaged: Arc::new(watch::channel(None).0),
            is_set_back: Arc::default(),
            silence: CancellationToken::new(),
        }
    }

    /// Cancelled when nothing may be heard of any group of this node any more.
    pub(crate) fn silence(&self) -> &CancellationToken {
        &self.silence
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    pub(crate) fn subscribe_damage(&self) -> watch::Receiver<Option<String>> {
        self.damaged.subscribe()
    }

    /// Whether the disk has failed or the log is damaged.
    pub(crate) fn is_told(&self) -> bool {
        self.failed.borrow().is_some() || self.damaged.borrow().is_some()
    }

    pub(crate) fn report(&self, reason: &str) {
        self.silence.cancel();
        first(&self.failed, reason);
    }

    pub(crate) fn damage(&self, reason: &str) {
        first(&self.damaged, reason);
    }

    /// The log is sound in itself, and lacks what others count on. Unlike rot this is found again by no start.
    pub(crate) fn set_back(&self, reason: &str) {
        self.silence.cancel();
        self.is_set_back.store(true, Ordering::Release);
        self.damage(reason);
    }

    /// Whether the log was found to be older than it was.
    pub(crate) fn is_set_back(&self) -> bool {
        self.is_set_back.load(Ordering::Acquire)
    }

    /// Why the log must not be served from, if that is so.
    pub(crate) fn damaged(&self) -> Option<String> {
        self.damaged.borrow().clone()
    }
}

/// Only the first reason counts.
fn first(told: &Reason, reason: &str) {
    told.send_if_modified(|present| {
        let first = present.is_none();
        if first {
            *present = Some(reason.to_owned());
        }
        first
    });
}

/// Judges the outcome of every append of a group.
#[derive(Debug, Clone)]
struct Judge {
    fault: NodeFault,
    halt: Arc<Halt>,
}

impl Judge {
    /// A failed append is the end of the replica, and a failed sync that of the node.
    fn judge(&self, result: Result<(), AppendError>) -> io::Result<()> {
        result.map_err(|error| {
            let cause = match &error {
                AppendError::OutcomeUnknown(_) | AppendError::Poisoned => {
                    self.fault.report(&error.to_string());
                    StopCause::Disk
                }
                AppendError::DiskFull => StopCause::DiskFull,
                AppendError::Shutdown => StopCause::Shutdown,
                AppendError::Invalid { .. } => StopCause::Internal,
            };
            self.halt.set(cause, &error.to_string());
            io::Error::other(error)
        })
    }
}

/// The log of one group.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    wal: Wal,
    group: GroupId,
    node: u64,
    voters: Arc<VotersNote>,
    judge: Judge,
    runtime: Runtime,
    room_turn: Arc<tokio::sync::Mutex<()>>,
}

/// What the log of a group is made of.
#[derive(Debug)]
pub(crate) struct LogParts {
    pub(crate) wal: Wal,
    pub(crate) group: GroupId,
    /// This node.
    pub(crate) node: u64,
    pub(crate) voters: Arc<VotersNote>,
    pub(crate) fault: NodeFault,
    pub(crate) halt: Arc<Halt>,
    pub(crate) runtime: Runtime,
    /// Whose turn it is to wait for room in the log, of all groups of the node.
    pub(crate) room_turn: Arc<tokio::sync::Mutex<()>>,
}

impl LogStore {
    pub(crate) fn new(parts: LogParts) -> Self {
        let LogParts {
            wal,
            group,
            node,
            voters,
            fault,
            halt,
            runtime,
            room_turn,
        } = parts;
        Self {
            wal,
            group,
            node,
            voters,
            judge: Judge { fault, halt },
            runtime,
            room_turn,
        }
    }

    pub(crate) fn reader(&self) -> LogReader {
        LogReader::new(
            self.wal.clone(),
            self.group,
            self.judge.clone(),
            self.runtime.clone(),
        )
    }

    /// Notes that others vote, if a batch says so. Batches that do are rare.
    async fn note_voters(&self, batch: &[Entry]) -> io::Result<()> {
        let shared = batch.iter().any(|entry| match &entry.payload {
            EntryPayload::Membership(members) => convert::has_others(members, self.node),
            EntryPayload::Blank | EntryPayload::Normal(_) => false,
        });
        if !shared || self.voters.is_shared(self.group) {
            return Ok(());
        }
        let (voters, group) = (Arc::clone(&self.voters), self.group);
        let noted = self
            .runtime
            .spawn_blocking("voters-note", move || voters.share(group))
            .await
            .map_err(io::Error::other)
            .and_then(|noted| Ok(noted?));
        noted.inspect_err(|error| self.judge.halt.set(StopCause::Disk, &error.to_string()))
    }

    async fn wait_for_room(&self) -> io::Result<()> {
        if !self.wal.is_crowded() {
            return Ok(());
        }
        let _turn = self.room_turn.lock().await;
        let wal = self.wal.clone();
        let wait = move || wal.wait_for_room();
        let waited = self.runtime.spawn_blocking("log-room", wait).await;
        waited.map_err(io::Error::other)
    }

    /// Appends what comes before the last batch of several, and waits until there is room for that. Each is waited for: behind one that
    /// finds no room the next would be refused, or begin an empty log with a hole.
    async fn make_way(&self, before: Vec<Vec<Record>>) -> io::Result<()> {
        for batch in before {
            self.append_all_durably(batch).await?;
        }
        self.wait_for_room().await
    }

    /// Entries are synced when this returns.
    async fn append_durably(&self, record: Record) -> io::Result<()> {
        self.append_all_durably(vec![record]).await
    }

    async fn append_all_durably(&self, batch: Vec<Record>) -> io::Result<()> {
        self.wait_for_room().await?;
        let (done, durable) = oneshot::channel();
        let judge = self.judge.clone();
        let done = move |result| drop(done.send(judge.judge(result)));
        self.wal.append_now(self.group, batch, Box::new(done));
        durable
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the log went away")))
    }
}

/// Entries as batches that the log takes, however many openraft has put together: the last one, and those before it.
fn in_pieces(entries: Vec<Entry>) -> (Vec<Vec<Record>>, Vec<Record>) {
    let (mut before, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let entry = convert::entry_to_wal(entry);
        if bytes + entry.payload.len() > PIECE_BYTES {
            before.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += entry.payload.len();
        piece.push(Record::Entry(entry));
    }
    (before, piece)
}

/// The vote that a group has cast.
pub(crate) fn vote_of(state: &wal::GroupState) -> Option<Vote> {
    let vote = state.vote?;
    Some(crate::raft::vote(vote.term, vote.node, vote.committed))
}

/// How far a group is known to be committed, beyond what its snapshot covers. A hint may lie beyond a log whose damaged
/// end was given up.
pub(crate) fn committed_of(state: &wal::GroupState) -> Option<LogId> {
    let purged = state.purged.map_or(0, |id| id.index + 1);
    let committed = state.committed.filter(|id| id.index >= purged)?;
    let last = state.last?;
    let sooner = if last.index < committed.index {
        last
    } else {
        committed
    };
    Some(convert::log_id_from_wal(&sooner))
}

pub(crate) fn vote_record(vote: &Vote) -> Record {
    Record::Vote(wal::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    })
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.wal.group(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.as_ref().map(convert::log_id_from_wal),
            last_log_id: state.last.as_ref().map(convert::log_id_from_wal),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.append_durably(vote_record(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            let record = Record::Committed(convert::log_id_to_wal(&committed));
            let judge = self.judge.clone();
            let done = move |result| drop(judge.judge(result));
            self.wal
                .append_now(self.group, vec![record], Box::new(done));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(committed_of(&self.wal.group(self.group)))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let noted = self.note_voters(&entries).await;
        let (before, batch) = in_pieces(entries);
        let prepared = match noted {
            Ok(()) => self.make_way(before).await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            let told = io::Error::new(error.kind(), error.to_string());
            callback.io_completed(Err(told));
            return Err(error);
        }
        let judge = self.judge.clone();
        let done = move |result| callback.io_completed(judge.judge(result));
        self.wal.append_now(self.group, batch, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let purged = self.wal.group(self.group).purged;
        let floor = purged.map_or(0, |id| id.index + 1);
        let from_index = last_log_id.map_or(0, |id| id.index() + 1).max(floor);
        self.append_durably(Record::Truncate { from_index }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.append_durably(Record::Purge {
            upto: convert::log_id_to_wal(&upto),
            chain: None,
        })
        .await
    }
}

#[cfg(test)]
pub(crate) mod tests;
