//! Reading at the level that was promised: by the lease, by a majority, or once an index is applied.
//!
//! A read is never let through on doubt: without a lease, a majority or the index it fails.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use runtime::Instant;
use tokio::sync::{mpsc, oneshot};

use super::{Group, Inner};
use crate::lease::Stamp;
use crate::raft::{Metrics, TypeConfig};
use crate::{Applied, ReadError, StateMachine, convert};

/// Reads that wait for one confirmation of the leader. More wait to be let in.
const READS_WAITING_MAX: usize = 4096;

/// The state may be read: it holds at least what this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    /// The last entry that was applied when this was given.
    pub applied: Applied,
}

/// Why something was waited for no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// The time was up.
    TimedOut,
    /// This replica leads and no majority answers it: what was waited for may come yet, or never.
    QuorumLost,
}

type Confirmed = oneshot::Sender<Result<u64, ReadError>>;

/// Reads that wait for the leader to be confirmed.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<Confirmed>);

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Confirmed>) {
        let (sender, receiver) = mpsc::channel(READS_WAITING_MAX);
        (Self(sender), receiver)
    }
}

impl<S: StateMachine> Group<S> {
    /// Whether this replica leads and holds its lease, so that a look-up made now sees every write that was acknowledged.
    /// Takes about a microsecond. Ask again after the look-up: only then is it known to have been made in time.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn lease_check(&self) -> Result<ReadPoint, ReadError> {
        self.inner.lease_check()
    }

    /// Whether this replica leads, as far as it knows, and no majority has answered it for as long as a request to a peer is waited for
    /// (two election timeouts, 1.2 seconds at least): another may lead by now, and what is proposed here may never be answered. The role
    /// alone does not say so. Takes about a microsecond. Never so where it votes alone.
    #[must_use]
    pub fn has_lost_quorum(&self) -> bool {
        self.inner.has_lost_quorum()
    }

    /// Runs a future for at most `limit`, or until this replica has lost its quorum ([`Group::has_lost_quorum`]) at two looks in a row. The
    /// future is dropped then.
    ///
    /// # Errors
    /// See [`GivenUp`].
    pub async fn unless_quorum_is_lost<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, GivenUp> {
        self.inner.unless_quorum_is_lost(limit, future).await
    }

    /// Confirms with a majority that this replica leads, and waits until everything that was committed before the
    /// call is applied. Calls that arrive together share one confirmation.
    ///
    /// # Errors
    /// See [`ReadError`]; `limit` bounds the whole wait, and who has lost its quorum says so before.
    pub async fn read_index(&self, limit: Duration) -> Result<ReadPoint, ReadError> {
        let inner = &self.inner;
        let confirm = async {
            let (confirmed, receiver) = oneshot::channel();
            let gone = || inner.read_stopped();
            inner.reads.0.send(confirmed).await.map_err(|_| gone())?;
            // What is sent to the queue while its receiver goes away stays in it, and nobody answers.
            let index = tokio::select! {
                biased;
                index = receiver => index.map_err(|_| gone())??,
                () = inner.ended.cancelled() => return Err(gone()),
            };
            inner.applied_at_least(index).await
        };
        if inner.has_lost_quorum() {
            return Err(ReadError::NoQuorum);
        }
        let confirmed = inner.unless_quorum_is_lost(limit, confirm).await;
        confirmed.map_err(|_| ReadError::NoQuorum)?
    }

    /// Waits until an index is applied here, on any replica.
    ///
    /// # Errors
    /// [`ReadError::Timeout`] after `limit`, [`ReadError::Stopped`] when the replica stops.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<ReadPoint, ReadError> {
        let inner = &self.inner;
        if let Some(applied) = inner.shared.progress.applied()
            && applied.index >= index
        {
            return Ok(ReadPoint { applied });
        }
        inner
            .runtime()
            .timeout(limit, inner.applied_at_least(index))
            .await
            .map_err(|_| ReadError::Timeout { index })?
    }

    /// The last entry that was applied here; no promise about others'.
    #[must_use]
    pub fn applied(&self) -> Option<Applied> {
        self.inner.shared.progress.applied()
    }
}

impl<S: StateMachine> Inner<S> {
    fn read_stopped(&self) -> ReadError {
        ReadError::Stopped {
            reason: self.shared.halt.why(),
        }
    }

    fn lease_check(&self) -> Result<ReadPoint, ReadError> {
        if self.shared.halt.is_set() {
            return Err(self.read_stopped());
        }
        // Read before the lease is judged: what is applied by then is covered by it.
        let applied = self.shared.progress.applied();
        let metrics = self.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            let leader = self.leader_in(&metrics);
            return Err(ReadError::NotLeader { leader });
        }
        // Until it has applied an entry of its own term, a leader does not know what its predecessors acknowledged.
        let applied = applied
            .filter(|at| at.term == metrics.current_term)
            .ok_or(ReadError::NotReady)?;
        if self.handing_over.load(Ordering::Acquire) == metrics.current_term {
            return Err(ReadError::LeaseExpired);
        }
        // One that is being removed, and knows it, is followed by nobody that has to wait for it.
        let mut sets = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .iter();
        if !sets.all(|voters| voters.contains(&self.node)) {
            return Err(ReadError::LeaseExpired);
        }
        let lease = self.grants.lease();
        let age = |sent: &Stamp| self.runtime().now().saturating_since(sent.at);
        if self.is_followed(&metrics, |sent| age(sent) < lease) {
            Ok(ReadPoint { applied })
        } else {
            Err(ReadError::LeaseExpired)
        }
    }

    fn has_lost_quorum(&self) -> bool {
        if self.shared.halt.is_set() {
            return false;
        }
        let metrics = self.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return false;
        }
        let (now, limit) = (self.runtime().now(), self.network.limits.answer);
        let is_recent = |at: Instant| now.saturating_since(at) < limit;
        // A new leader has had no time to be answered.
        let asked = self.grants.asked_since(metrics.current_term);
        let configs = metrics.membership_config.membership().get_joint_config();
        asked.is_some_and(|since| !is_recent(since))
            && !self
                .grants
                .hears_majority(configs, self.node, metrics.current_term, is_recent)
    }

    async fn unless_quorum_is_lost<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, GivenUp> {
        let runtime = self.runtime();
        let (deadline, look_every) = (runtime.now() + limit, self.network.limits.answer / 4);
        let mut future = std::pin::pin!(future);
        // One that stood still finds the answers that came meanwhile only after the first look.
        let mut was_lost = false;
        loop {
            let left = deadline.saturating_since(runtime.now());
            let waited = runtime.timeout(left.min(look_every), future.as_mut());
            match waited.await {
                Ok(done) => return Ok(done),
                Err(_) if left <= look_every => return Err(GivenUp::TimedOut),
                Err(_) => {}
            }
            let is_lost = self.has_lost_quorum();
            if is_lost && was_lost {
                return Err(GivenUp::QuorumLost);
            }
            was_lost = is_lost;
        }
    }

    /// Whether a majority, in this term, has accepted a request that is `recent`. Who votes alone needs none.
    fn is_followed(&self, metrics: &Metrics, recent: impl Fn(&Stamp) -> bool) -> bool {
        // By the sets themselves: the library's list of voters is put together anew for each call.
        let configs = metrics.membership_config.membership().get_joint_config();
        self.grants
            .has_majority(configs, self.node, metrics.current_term, recent)
    }

    async fn applied_at_least(&self, index: u64) -> Result<ReadPoint, ReadError> {
        tokio::select! {
            biased;
            () = self.shared.progress.wait_for(index) => {}
            () = self.ended.cancelled() => return Err(self.read_stopped()),
        }
        let applied = self.shared.progress.applied();
        applied
            .map(|applied| ReadPoint { applied })
            .ok_or(ReadError::Timeout { index })
    }

    /// Has a majority say that this replica still leads, after the call, and says up to where the log was committed then.
    async fn confirm(&self) -> Result<u64, ReadError> {
        let (begun, term) = (
            self.grants.next(),
            self.metrics.borrow_watched().current_term,
        );
        let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let confirmed = confirmed.map_err(|error| self.unconfirmed(error))?;
        // It has sent heartbeats meanwhile; what it takes for their answers may be older: see `lease`.
        let followed = self.followed_since(begun, term);
        let limit = self.network.limits.answer;
        let followed = self.runtime().timeout(limit, followed).await;
        followed.map_err(|_| ReadError::NoQuorum)??;
        Ok(confirmed.read_log_id().index())
    }

    /// Waits until a majority has accepted a request of the leader of a term with this number or a later one. Who has led again in
    /// between is another leader: what was committed meanwhile is not in the index that was read before.
    async fn followed_since(&self, number: u64, term: u64) -> Result<(), ReadError> {
        let mut metrics = self.raft.metrics();
        loop {
            let news = self.grants.news();
            {
                let now = metrics.borrow_watched();
                if now.state != ServerState::Leader || now.current_term != term {
                    let leader = self.leader_in(&now);
                    return Err(ReadError::NotLeader { leader });
                }
                if self.is_followed(&now, |sent| sent.number >= number) {
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.ended.cancelled() => return Err(self.read_stopped()),
                () = news => {}
                changed = metrics.changed() => changed.map_err(|_| self.read_stopped())?,
            }
        }
    }

    fn unconfirmed(
        &self,
        error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>,
    ) -> ReadError {
        match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => {
                ReadError::NotLeader {
                    leader: convert::peer(to.leader_id, to.leader_node.as_ref()),
                }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadError::NoQuorum,
            RaftError::Fatal(_) => self.read_stopped(),
        }
    }
}

/// Answers waiting reads, all that arrived by the time a round begins with one confirmation.
pub(super) async fn run<S: StateMachine>(
    inner: Arc<Inner<S>>,
    mut waiting: mpsc::Receiver<Confirmed>,
) {
    let mut round = Vec::new();
    loop {
        tokio::select! {
            () = inner.ended.cancelled() => return,
            count = waiting.recv_many(&mut round, READS_WAITING_MAX) => if count == 0 { return },
        }
        let confirmed = tokio::select! {
            () = inner.ended.cancelled() => return,
            confirmed = inner.confirm() => confirmed,
        };
        for read in round.drain(..) {
            // Whoever has gone away needs no answer.
            drop(read.send(confirmed.clone()));
        }
    }
}
