//! The bounded queue of writes before a shard's log.
//!
//! Calls put their writes in and wait; one task takes all that wait, makes one log entry of them, hands it to Raft, and goes on
//! with the next while earlier ones are on their way. What is drawn together shares an entry and a sync.
//!
//! What always holds:
//! - Bounded in calls and in bytes. A call that finds it full is refused at once; nothing waits outside.
//! - Entries are handed to Raft in the order in which their writes came.
//! - A call that goes away after it was queued takes nothing back; one whose deadline has passed before its entry is made is dropped,
//!   and its outcome is certain: not applied.
//! - Everybody who was queued is answered: with outcomes, or with an error that says whether the writes may have been applied.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Future;
use replication::{Committed, Done, Group, ProposeError, Proposed};
use runtime::{Instant, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::QueueConfig;
use crate::state::{DictionaryState, Response, Write, WriteOutcome, command};

/// Where entries go: a shard's Raft group.
#[async_trait]
pub(crate) trait Log: Send + Sync + 'static {
    /// Hands over an entry of kind [`command::KIND_WRITES`]; returns when its place in the order is certain, or it was refused. What
    /// became of it is told in any case.
    async fn submit(&self, command: Bytes, done: Done<Response>);
}

#[async_trait]
impl Log for Group<DictionaryState> {
    async fn submit(&self, command: Bytes, done: Done<Response>) {
        self.submit_then(command::KIND_WRITES, command, done).await;
    }
}

/// What became of the writes of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// One for each, in their order.
    pub(crate) outcomes: Vec<WriteOutcome>,
    /// The index of the entry that held them.
    pub(crate) index: u64,
}

/// Why writes that were queued have no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The deadline passed while they waited; nothing was applied.
    #[error("the deadline passed in the queue")]
    Expired,
    /// The log did not take them, or did not say what became of them.
    #[error(transparent)]
    Log(#[from] ProposeError),
}

/// Why writes were not queued. Nothing was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// As many calls wait as may.
    #[error("{limit} write calls are waiting")]
    Calls {
        /// How many may.
        limit: usize,
    },
    /// As many bytes wait as may.
    #[error("{limit} bytes of writes are waiting")]
    Bytes {
        /// How many may.
        limit: usize,
    },
    /// The replica is being stopped.
    #[error("the replica is being stopped")]
    Closed,
}

/// Resolves to what became of queued writes; an error of the channel itself means that the replica went away and nobody knows.
pub(crate) type Ticket = oneshot::Receiver<Result<Answer, WriteError>>;

struct Waiting {
    writes: Vec<Write>,
    items: usize,
    bytes: usize,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<Answer, WriteError>>,
}

/// The entrance of a queue.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    sender: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    config: QueueConfig,
}

impl WriteQueue {
    /// A queue, and the task that has to run behind it. It ends when the queue is dropped, after what is in it was handed over. Dropping
    /// it answers everybody who waits.
    pub(crate) fn new<L: Log>(
        runtime: &Runtime,
        log: L,
        config: QueueConfig,
    ) -> (Self, impl Future<Output = ()> + Send + use<L>) {
        let (sender, receiver) = mpsc::channel(config.calls_max);
        let bytes = Arc::new(AtomicUsize::new(0));
        let drain = Drain {
            runtime: runtime.clone(),
            log,
            config,
            receiver,
            bytes: Arc::clone(&bytes),
            carried: None,
            in_flight: Arc::new(Semaphore::new(config.entries_in_flight)),
        };
        let queue = Self {
            sender,
            bytes,
            config,
        };
        (queue, drain.run())
    }

    /// Puts writes in, at once or not at all.
    pub(crate) fn put(
        &self,
        writes: Vec<Write>,
        deadline: Option<Instant>,
    ) -> Result<Ticket, Refused> {
        let items = writes.iter().map(Write::items).sum();
        let bytes: usize = writes.iter().map(Write::weight).sum();
        let limit = self.config.bytes_max;
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let give_back = || self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > limit {
            give_back();
            return Err(Refused::Bytes { limit });
        }
        let (answer, ticket) = oneshot::channel();
        let waiting = Waiting {
            writes,
            items,
            bytes,
            deadline,
            answer,
        };
        match self.sender.try_send(waiting) {
            Ok(()) => Ok(ticket),
            Err(mpsc::error::TrySendError::Full(_)) => {
                give_back();
                let limit = self.config.calls_max;
                Err(Refused::Calls { limit })
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                give_back();
                Err(Refused::Closed)
            }
        }
    }

    /// Calls that wait.
    pub(crate) fn calls(&self) -> usize {
        self.config.calls_max - self.sender.capacity()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The task behind a queue.
struct Drain<L> {
    runtime: Runtime,
    log: L,
    config: QueueConfig,
    receiver: mpsc::Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
    /// What did not fit the entry before.
    carried: Option<Waiting>,
    in_flight: Arc<Semaphore>,
}

impl<L: Log> Drain<L> {
    async fn run(mut self) {
        loop {
            // The semaphore is never closed; an error would mean that nothing can be handed over any more.
            let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else {
                return;
            };
            let Some(first) = self.first().await else {
                return;
            };
            // Calls that are ready to run get to put their writes in before this entry is closed.
            tokio::task::yield_now().await;
            let batch = self.batch(first);
            if batch.is_empty() {
                continue;
            }
            let writes = batch.iter().flat_map(|waiting| &waiting.writes);
            let command = command::encode_writes(writes);
            let done = move |proposed| {
                settle(batch, proposed);
                drop(permit);
            };
            self.log.submit(command, Box::new(done)).await;
        }
    }

    async fn first(&mut self) -> Option<Waiting> {
        if let Some(carried) = self.carried.take() {
            return Some(carried);
        }
        let next = self.receiver.recv().await?;
        self.taken(&next);
        Some(next)
    }

    fn taken(&self, waiting: &Waiting) {
        self.bytes.fetch_sub(waiting.bytes, Ordering::AcqRel);
    }

    /// All that wait, as far as they fit one entry.
    fn batch(&mut self, first: Waiting) -> VecDeque<Waiting> {
        let now = self.runtime.now();
        let mut batch = VecDeque::new();
        let (mut items, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(waiting) = next {
            let fits = items + waiting.items <= self.config.entry_items_max
                && bytes + waiting.bytes <= self.config.entry_bytes_max;
            if !fits && !batch.is_empty() {
                self.carried = Some(waiting);
                break;
            }
            if waiting.deadline.is_some_and(|deadline| deadline <= now) {
                // Whoever has gone away needs no answer.
                drop(waiting.answer.send(Err(WriteError::Expired)));
            } else {
                items += waiting.items;
                bytes += waiting.bytes;
                batch.push_back(waiting);
            }
            next = self.receiver.try_recv().ok();
            if let Some(next) = &next {
                self.taken(next);
            }
        }
        batch
    }
}

/// Answers everybody whose writes were in an entry.
fn settle(batch: VecDeque<Waiting>, proposed: Proposed<Response>) {
    let (index, outcomes) = match proposed {
        Ok(Committed {
            index,
            term: _,
            response: Response::Writes(outcomes),
        }) => (index, outcomes),
        Ok(Committed {
            index: _,
            term: _,
            response: Response::Cleared(_) | Response::Configured | Response::Evicted(_),
        }) => {
            let reason = "writes were answered as something else".to_owned();
            let outcome = replication::Outcome::Unknown;
            return refuse(batch, &ProposeError::Stopped { reason, outcome });
        }
        Err(error) => return refuse(batch, &error),
    };
    let mut outcomes = outcomes.into_iter();
    for waiting in batch {
        let outcomes = outcomes.by_ref().take(waiting.writes.len()).collect();
        drop(waiting.answer.send(Ok(Answer { outcomes, index })));
    }
}

fn refuse(batch: VecDeque<Waiting>, error: &ProposeError) {
    for waiting in batch {
        drop(waiting.answer.send(Err(error.clone().into())));
    }
}

#[cfg(test)]
mod tests;
