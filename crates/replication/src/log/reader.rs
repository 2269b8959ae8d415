//! Reading a group's log for openraft: small ranges from memory, others away from the async workers. Damage halts the replica.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;
use runtime::Runtime;
use wal::{GroupId, ReadError, Wal};

use crate::convert;
use crate::raft::{Entry, TypeConfig, Vote};
use crate::status::StopCause;

use super::Judge;

/// Payload bytes of one message to a follower. With its overhead it stays far below the limit of a message.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Payload bytes read in one go to be applied.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;
/// Entries read in one go to be applied.
pub(crate) const CHUNK_ENTRIES: u64 = 256;
/// Ranges that begin this close to the end of the log are read at once: the log has them in memory.
const TAIL_ENTRIES: u64 = 1024;

/// Reads the log of one group.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    wal: Wal,
    group: GroupId,
    judge: Judge,
    runtime: Runtime,
}

impl LogReader {
    pub(super) fn new(wal: Wal, group: GroupId, judge: Judge, runtime: Runtime) -> Self {
        Self {
            wal,
            group,
            judge,
            runtime,
        }
    }

    /// Entries of a range, from its start as far as `bytes_max` allows.
    async fn read(&self, range: Range<u64>, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let found = if range.start.saturating_add(TAIL_ENTRIES) >= self.next_index() {
            self.wal.read(self.group, range, bytes_max)
        } else {
            let (wal, group) = (self.wal.clone(), self.group);
            self.runtime
                .spawn_blocking("log-read", move || wal.read(group, range, bytes_max))
                .await
                .map_err(io::Error::other)?
        };
        found
            .map_err(|error| self.unreadable(error))?
            .into_iter()
            .map(|entry| convert::entry_from_wal(entry).map_err(io::Error::other))
            .collect()
    }

    /// The index that the next entry will have.
    fn next_index(&self) -> u64 {
        self.wal.group(self.group).last.map_or(0, |id| id.index + 1)
    }

    /// Whether entries do not begin where they have to, or do not follow one another.
    fn has_hole(&self, start: u64, piece: &[Entry]) -> bool {
        piece.is_empty()
            || piece
                .iter()
                .zip(start..)
                .any(|(entry, due)| entry.log_id.index() != due)
    }

    /// The error of an entry that a stopped replica was to apply; whoever judged the append has said why it stopped.
    fn refused(&self, index: u64) -> Option<io::Error> {
        let reason = self.judge.halt.get()?;
        let problem = format!("the log did not take entry {index}: {}", reason.reason);
        Some(io::Error::other(problem))
    }

    /// The state without an entry would be another one than the peers'.
    fn missing(&self, problem: &str) -> io::Error {
        self.judge.halt.set(StopCause::DataLoss, problem);
        io::Error::other(problem.to_owned())
    }

    /// Going on without an entry would build a wrong log at a peer or a wrong state here.
    fn unreadable(&self, error: ReadError) -> io::Error {
        let cause = match &error {
            ReadError::Rotten { .. } => {
                self.judge.fault.damage(&error.to_string());
                StopCause::DataLoss
            }
            ReadError::Io(_) => StopCause::Disk,
        };
        self.judge.halt.set(cause, &error.to_string());
        io::Error::other(error)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(bounds(&range), u64::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(super::vote_of(&self.wal.group(self.group)))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, MESSAGE_BYTES_MAX).await
    }

    /// Reads committed entries in pieces, so that a replica that is far behind does not hold its backlog in memory.
    ///
    /// A range that reaches beyond the log is read as far as the log goes, unless the replica has stopped: then others may have
    /// committed what this log refused, and that is an error.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let reader = self.clone();
        let pieces = futures::stream::unfold(Some(bounds(&range)), move |left| {
            let reader = reader.clone();
            async move {
                let left = left.filter(|left| !left.is_empty())?;
                let end = left.end.min(left.start.saturating_add(CHUNK_ENTRIES));
                match reader.read(left.start..end, CHUNK_BYTES).await {
                    Ok(piece) if piece.is_empty() && left.start >= reader.next_index() => {
                        let refused = reader.refused(left.start)?;
                        Some((vec![Err(refused)], None))
                    }
                    Ok(piece) if reader.has_hole(left.start, &piece) => {
                        let problem = format!("entry {} is missing", left.start);
                        Some((vec![Err(reader.missing(&problem))], None))
                    }
                    Ok(piece) => {
                        let next = piece.last().map_or(end, |entry| entry.log_id.index() + 1);
                        let items: Vec<_> = piece.into_iter().map(Ok).collect();
                        Some((items, Some(next..left.end)))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        Box::pin(futures::StreamExt::flat_map(pieces, futures::stream::iter))
    }
}
