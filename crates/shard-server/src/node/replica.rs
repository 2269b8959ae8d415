//! A running replica of a shard: its group, its queue of writes, and the three ways to read it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::{ApiError, Consistency, Outcome, Reason};
use cluster::{Generation, Incarnation, Position, ShardId};
use parking_lot::Mutex;
use replication::{
    Committed, GivenUp, Group, GroupStatus, ProposeError, ReadError, Role, StopCause, Stopped,
};
use rpc::Deadline;
use runtime::{Instant, Runtime};

use super::audit::Audits;
use super::fence::Fence;
use crate::config::QueueConfig;
use crate::metrics::ShardMetrics;
use crate::queue::{Answer, Refused, Ticket, WriteError, WriteQueue};
use crate::state::{DictionaryState, Reading, Response, Scope, StaleGeneration, Write, command};

/// When to come back to a queue that is full, or a disk.
const BUSY_RETRY: std::time::Duration = std::time::Duration::from_millis(100);
const DISK_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// After so long a silence of its majority or of its leader a replica does not serve. Several elections fit into it.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(3);
/// How often a replica that answers nobody is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);
/// The same where it answers: that it does not any more comes by seconds of silence.
const LOOK_AT_ANSWERING: std::time::Duration = std::time::Duration::from_millis(500);

/// A running replica.
#[derive(Debug)]
pub(crate) struct Replica {
    runtime: Runtime,
    begun: Instant,
    shard: ShardId,
    incarnation: Incarnation,
    group: Group<DictionaryState>,
    queue: WriteQueue,
    reads: AtomicU64,
    metrics: ShardMetrics,
    /// Held while the members of the group are changed.
    changing: Arc<tokio::sync::Mutex<Fence>>,
    /// Added to by the task that hashes, read by each report.
    audits: Mutex<Audits>,
}

/// What a read saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen<T> {
    pub(crate) value: T,
    pub(crate) position: Position,
    /// At most how old the answer is; 0 from a leader.
    pub(crate) age_ms: u64,
}

/// How fresh a read must be, and how long it may take to become so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freshness {
    pub(crate) consistency: Consistency,
    /// An index that must be applied; 0 = none.
    pub(crate) min_index: u64,
    pub(crate) deadline: Deadline,
}

impl Replica {
    pub(crate) fn new(
        runtime: &Runtime,
        shard: ShardId,
        incarnation: Incarnation,
        group: Group<DictionaryState>,
        queue: QueueConfig,
        metrics: ShardMetrics,
    ) -> Self {
        let (queue, drain) = WriteQueue::new(runtime, group.clone(), queue);
        drop(group.guard("write-queue", drain));
        Self {
            runtime: runtime.clone(),
            begun: runtime.now(),
            shard,
            incarnation,
            queue,
            group,
            reads: AtomicU64::new(0),
            metrics,
            changing: Arc::default(),
            audits: Mutex::default(),
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn group(&self) -> &Group<DictionaryState> {
        &self.group
    }

    pub(crate) fn state(&self) -> &DictionaryState {
        self.group.machine()
    }

    pub(crate) fn queue(&self) -> &WriteQueue {
        &self.queue
    }

    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// The right to change the members of the group, which one at a time has, and what may still come.
    pub(crate) fn changing(&self) -> Arc<tokio::sync::Mutex<Fence>> {
        Arc::clone(&self.changing)
    }

    /// What its state was at the last entries at which replicas are compared.
    pub(crate) fn audits(&self) -> &Mutex<Audits> {
        &self.audits
    }

    /// Reads since the process began, whether they were answered or not.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn position(&self, index: u64) -> Position {
        Position {
            shard: self.shard,
            incarnation: self.incarnation,
            index,
        }
    }

    /// Whether requests can be served, as far as this replica can tell: it leads, has applied an entry of its own term, and a majority
    /// follows, or it hears whom it follows. The role alone does not say so: one that is cut off keeps it.
    pub(crate) fn is_serving(status: &GroupStatus) -> bool {
        let is_fresh = |age: Option<std::time::Duration>| age.is_some_and(|age| age < SILENCE_MAX);
        match status.role {
            Role::Leader => {
                let alone = status.members.iter().filter(|at| at.voter).count() == 1;
                let has_begun = status.applied.is_some_and(|at| at.term == status.term);
                has_begun && (alone || is_fresh(status.quorum_ack_age))
            }
            // One that has been sent nothing whole yet as well: it is on its way, and nobody is to count it as standing still.
            Role::Follower | Role::Learner => {
                status.leader.is_some() && is_fresh(status.leader_silence)
            }
            Role::Candidate | Role::Stopped => false,
        }
    }

    /// Whether it serves and has a state that its group was once in. A newcomer has none before it was sent one, and refuses even reads
    /// that may be stale.
    pub(crate) fn answers_reads(status: &GroupStatus) -> bool {
        Self::is_serving(status) && status.applied.is_some()
    }

    /// Tells of every status of a replica, until one says that it has stopped, and whether reads are answered. Where that alone changes it is
    /// told soon, too: a leader applies its first entry, and hears of a majority, after the status that says that it leads.
    pub(crate) async fn follow(
        runtime: &Runtime,
        group: &Group<DictionaryState>,
        tell: impl Fn(bool),
    ) -> Option<Stopped> {
        let mut status = group.watch_status();
        loop {
            let stopped = status.borrow_and_update().stopped.clone();
            let answers = Self::answers_reads(&group.status());
            tell(answers);
            if stopped.is_some() {
                return stopped;
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return None },
                () = Self::until_changed(runtime, group, answers) => {}
            }
        }
    }

    async fn until_changed(runtime: &Runtime, group: &Group<DictionaryState>, answered: bool) {
        let every = if answered {
            LOOK_AT_ANSWERING
        } else {
            LOOK_EVERY
        };
        while Self::answers_reads(&group.status()) == answered {
            runtime.sleep(every).await;
        }
    }

    /// Why it has stopped, if it did.
    pub(crate) fn stop_cause(&self) -> Option<StopCause> {
        self.group.status().stopped.map(|stopped| stopped.cause)
    }

    /// When it was started.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Queues writes and waits for what becomes of them.
    pub(crate) async fn write(
        &self,
        writes: Vec<Write>,
        deadline: Deadline,
    ) -> Result<Answer, ApiError> {
        let ticket = self.put(writes, deadline)?;
        self.settled(ticket, deadline).await
    }

    /// Queues writes: what is put in first is applied first. A leader that has lost its quorum takes none.
    pub(crate) fn put(&self, writes: Vec<Write>, deadline: Deadline) -> Result<Ticket, ApiError> {
        self.check_quorum()?;
        self.queue.put(writes, Some(deadline.at())).map_err(refused)
    }

    /// Waits for what becomes of queued writes.
    pub(crate) async fn settled(
        &self,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Result<Answer, ApiError> {
        match self.answered(ticket, deadline).await? {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(WriteError::Expired)) => {
                Err(Deadline::error().with_outcome(Outcome::NotApplied))
            }
            Ok(Err(WriteError::Log(error))) => Err(self.not_proposed(&error)),
            Err(_) => Err(ApiError::new(Reason::Stopped, "the replica has stopped")
                .with_outcome(Outcome::Unknown)),
        }
    }

    /// Proposes a command of its own and waits until it is applied.
    pub(crate) async fn command(
        &self,
        kind: u16,
        command: bytes::Bytes,
        deadline: Deadline,
    ) -> Result<Committed<Response>, ApiError> {
        self.check_quorum()?;
        let proposed = self.group.propose(kind, command);
        let answered = self.answered(proposed, deadline).await?;
        answered.map_err(|error| self.not_proposed(&error))
    }

    /// Waits for what becomes of something that was handed over, for as long as there is a quorum.
    async fn answered<F: Future>(
        &self,
        future: F,
        deadline: Deadline,
    ) -> Result<F::Output, ApiError> {
        let left = deadline.remaining(&self.runtime);
        let answered = self.group.unless_quorum_is_lost(left, future).await;
        let given_up = |why| match why {
            GivenUp::TimedOut => Deadline::error(),
            GivenUp::QuorumLost => self.no_quorum(),
        };
        answered.map_err(|why| given_up(why).with_outcome(Outcome::Unknown))
    }

    fn check_quorum(&self) -> Result<(), ApiError> {
        if self.group.has_lost_quorum() {
            return Err(self.no_quorum().with_outcome(Outcome::NotApplied));
        }
        Ok(())
    }

    fn no_quorum(&self) -> ApiError {
        let message = format!("no majority answers the leader of shard {}", self.shard);
        ApiError::new(Reason::NoQuorum, message)
    }

    /// Looks something up in a namespace, as fresh as asked for.
    ///
    /// A generation that is not known here says that the namespace was cleared. Whoever is told so by a strict read must not see later what a
    /// coordinator that has not heard of it still writes: the shard is cleared first.
    pub(crate) async fn read_in<T>(
        &self,
        scope: Scope,
        fresh: Freshness,
        look_up: impl FnOnce(&DictionaryState) -> Result<Reading<T>, StaleGeneration>,
    ) -> Result<Seen<T>, ApiError> {
        if self.must_clear(scope, fresh.consistency) {
            let clear = command::encode_clear(scope.namespace, scope.generation);
            self.command(command::KIND_CLEAR, clear, fresh.deadline)
                .await?;
            self.metrics().clear.increment();
        }
        self.read(fresh, look_up).await
    }

    /// Looks something up, as fresh as asked for.
    pub(crate) async fn read<T>(
        &self,
        fresh: Freshness,
        look_up: impl FnOnce(&DictionaryState) -> Result<Reading<T>, StaleGeneration>,
    ) -> Result<Seen<T>, ApiError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.ready(fresh).await?;
        self.look_up(fresh.consistency, look_up)
    }

    /// As [`Self::read_in`], without waiting for anything. `None` where something has to be waited for, or there is no answer: only
    /// [`Self::read_in`] says why.
    pub(crate) fn read_at_once<T>(
        &self,
        scope: Scope,
        fresh: Freshness,
        look_up: impl FnOnce(&DictionaryState) -> Result<Reading<T>, StaleGeneration>,
    ) -> Option<Seen<T>> {
        let waits = fresh.consistency == Consistency::Linearizable
            || self.must_clear(scope, fresh.consistency)
            || fresh.min_index > self.applied();
        // Before the look-up, too: a lease that is there only after it says nothing of what had been applied by then.
        if waits || self.may_read(fresh.consistency).is_err() {
            return None;
        }
        let seen = self.look_up(fresh.consistency, look_up).ok()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Some(seen)
    }

    fn must_clear(&self, scope: Scope, consistency: Consistency) -> bool {
        consistency != Consistency::Stale
            && scope.generation > Generation::FIRST
            && !self.state().knows(scope)
    }

    fn applied(&self) -> u64 {
        self.group.applied().map_or(0, |applied| applied.index)
    }

    /// Looks something up in a state that may be read.
    fn look_up<T>(
        &self,
        consistency: Consistency,
        look_up: impl FnOnce(&DictionaryState) -> Result<Reading<T>, StaleGeneration>,
    ) -> Result<Seen<T>, ApiError> {
        let age_ms = match consistency {
            Consistency::Leader | Consistency::Linearizable => 0,
            // What is applied during the look-up is not in the answer, and may be newer by far.
            Consistency::Stale => self.age_ms(),
        };
        let reading = look_up(self.state()).map_err(stale_generation)?;
        match consistency {
            // Only now is it known that the look-up was made inside the lease.
            Consistency::Leader => self.lease()?,
            Consistency::Linearizable | Consistency::Stale => {}
        }
        Ok(Seen {
            value: reading.value,
            position: self.position(reading.index.max(self.applied())),
            age_ms,
        })
    }

    /// Waits until the state may be read.
    async fn ready(&self, fresh: Freshness) -> Result<(), ApiError> {
        let left = fresh.deadline.remaining(&self.runtime);
        if fresh.consistency == Consistency::Linearizable {
            self.group
                .read_index(left)
                .await
                .map_err(|error| self.not_read(&error))?;
        }
        if fresh.min_index > 0 {
            let left = fresh.deadline.remaining(&self.runtime);
            self.group
                .wait_applied(fresh.min_index, left)
                .await
                .map_err(|error| self.not_read(&error))?;
        }
        self.may_read(fresh.consistency)
    }

    /// Whether a state that is as new as asked for may be read.
    fn may_read(&self, consistency: Consistency) -> Result<(), ApiError> {
        match consistency {
            Consistency::Leader => self.lease(),
            Consistency::Linearizable => Ok(()),
            Consistency::Stale => self.holds_something(),
        }
    }

    fn lease(&self) -> Result<(), ApiError> {
        let checked = self.group.lease_check();
        checked.map(drop).map_err(|error| self.not_read(&error))
    }

    /// Whether the state is one that the group was once in: a replica that has just joined has none.
    fn holds_something(&self) -> Result<(), ApiError> {
        let status = self.group.status();
        if let Some(stopped) = status.stopped {
            return Err(self.stopped(&stopped.reason));
        }
        if status.applied.is_none() {
            let message = format!("the replica of shard {} is still empty", self.shard);
            return Err(ApiError::new(Reason::Starting, message));
        }
        Ok(())
    }

    /// At most how old the state is: by the stamp of the newest entry, unless this replica leads.
    pub(crate) fn age_ms(&self) -> u64 {
        if self.group.lease_check().is_ok() {
            return 0;
        }
        let age = self.runtime.wall_ms().saturating_sub(self.group.stamp_ms());
        u64::try_from(age).unwrap_or(0)
    }

    fn stopped(&self, reason: &str) -> ApiError {
        if self.group.status().data_loss() {
            let message = format!("shard {} is damaged: {reason}", self.shard);
            return ApiError::new(Reason::DataLoss, message);
        }
        let message = format!("the replica of shard {} has stopped: {reason}", self.shard);
        ApiError::new(Reason::Stopped, message)
    }

    fn not_proposed(&self, error: &ProposeError) -> ApiError {
        let outcome = match error.outcome() {
            replication::Outcome::NotApplied => Outcome::NotApplied,
            replication::Outcome::Unknown => Outcome::Unknown,
        };
        let mapped = match error {
            ProposeError::NotLeader { leader } | ProposeError::LeadLost { leader } => {
                ApiError::not_leader(leader.as_ref().map(|peer| peer.node))
            }
            ProposeError::LeaseExpired => self.no_quorum(),
            ProposeError::DiskFull => {
                ApiError::new(Reason::DiskFull, "the disk is full").with_retry_after(DISK_RETRY)
            }
            ProposeError::TooLarge { bytes, limit } => {
                ApiError::message_too_large(Some(*bytes), *limit)
            }
            ProposeError::Stopped { reason, outcome: _ } => self.stopped(reason),
        };
        mapped.with_outcome(outcome)
    }

    fn not_read(&self, error: &ReadError) -> ApiError {
        match error {
            ReadError::NotLeader { leader } => {
                ApiError::not_leader(leader.as_ref().map(|peer| peer.node))
            }
            ReadError::LeaseExpired | ReadError::NoQuorum => {
                ApiError::new(Reason::NoQuorum, error.to_string())
            }
            ReadError::NotReady => ApiError::new(Reason::Starting, error.to_string()),
            ReadError::Timeout { index } => {
                ApiError::deadline(format!("index {index} was not applied in time"))
            }
            ReadError::Stopped { reason } => self.stopped(reason),
        }
    }
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Calls { limit: _ } | Refused::Bytes { limit: _ } => {
            ApiError::overloaded(refused.to_string(), BUSY_RETRY)
        }
        Refused::Closed => ApiError::new(Reason::Stopped, refused.to_string()),
    }
    .with_outcome(Outcome::NotApplied)
}

pub(crate) fn stale_generation(stale: StaleGeneration) -> ApiError {
    ApiError::new(
        Reason::StaleGeneration,
        format!("the namespace was cleared: {stale}"),
    )
    .with_metadata("generation", stale.known.to_string())
}

#[cfg(test)]
mod tests;
