//! Reading at the level that was promised: by the lease, by a majority, or once an index is applied.
//!
//! A read is never let through on doubt: without a lease, a majority or the index it fails.

use std::cell::LazyCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use runtime::{CancellationToken, Instant};
use tokio::sync::{mpsc, oneshot};

use super::{Group, Inner};
use crate::lease::{Moment, Stamp};
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
        // The clocks are read once, and by who votes alone not at all.
        let now = LazyCell::new(|| Moment::present(self.runtime()));
        let age = |sent: &Stamp| sent.age(&now);
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
        let asked = async {
            let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            confirmed
                .map(|confirmed| confirmed.read_log_id().index())
                .map_err(|error| self.unconfirmed(error))
        };
        self.followed_meanwhile(asked).await
    }

    /// Gives the index that Raft is asked for, once a majority has accepted a request that was sent since: Raft has sent heartbeats
    /// meanwhile, and what it takes for their answers may be older, see `lease`.
    async fn followed_meanwhile(
        &self,
        asked: impl Future<Output = Result<u64, ReadError>>,
    ) -> Result<u64, ReadError> {
        let (begun, term) = (
            self.grants.next(),
            self.metrics.borrow_watched().current_term,
        );
        let index = asked.await?;
        let followed = self.followed_since(begun, term);
        let limit = self.network.limits.answer;
        let followed = self.runtime().timeout(limit, followed).await;
        followed.map_err(|_| ReadError::NoQuorum)??;
        Ok(index)
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

/// Answers waiting reads until the replica ends.
pub(super) async fn run<S: StateMachine>(inner: Arc<Inner<S>>, waiting: mpsc::Receiver<Confirmed>) {
    answer_in_rounds(&inner.ended, waiting, || inner.confirm()).await;
}

/// Answers waiting reads, all that arrived by the time a round begins with one confirmation.
async fn answer_in_rounds<F>(
    ended: &CancellationToken,
    mut waiting: mpsc::Receiver<Confirmed>,
    confirm: impl Fn() -> F,
) where
    F: Future<Output = Result<u64, ReadError>>,
{
    let mut round = Vec::new();
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            count = waiting.recv_many(&mut round, READS_WAITING_MAX) => if count == 0 { return },
        }
        let confirmed = tokio::select! {
            () = ended.cancelled() => return,
            confirmed = confirm() => confirmed,
        };
        for read in round.drain(..) {
            // Whoever has gone away needs no answer.
            drop(read.send(confirmed.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use runtime::Runtime;
    use tokio::sync::Notify;
    use vfs::SimDisk;

    use super::*;
    use crate::host::deps;
    use crate::log::tests::Nothing;
    use crate::raft::{AppendRequest, vote};
    use crate::{
        ChangeError, GroupConfig, GroupId, GroupStatus, Host, Member, NodeId, Peer, Role, Start,
    };

    /// Longer than anything here may take on a starved machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits until a replica says so of itself.
    async fn until_status(group: &Group<Nothing>, reached: impl Fn(&GroupStatus) -> bool) {
        let mut status = group.watch_status();
        let reached = status.wait_for(|status| reached(status));
        let reached = Runtime::real().timeout(PATIENCE, reached).await;
        drop(reached.unwrap().unwrap());
    }

    /// A replica that leads, alone in its group.
    async fn leader() -> (Host, Group<Nothing>) {
        let (host, _) = Host::open(deps(&SimDisk::new())).await.unwrap();
        let members = vec![Member::voter(NodeId(1), "127.0.0.1:1")];
        let config = GroupConfig::new(GroupId(7), Start::Bootstrap { members });
        let group = host.start_group(config, Arc::new(Nothing)).await.unwrap();
        until_status(&group, |status| status.role == Role::Leader).await;
        (host, group)
    }

    /// A read that waits for a confirmation.
    async fn ask(queue: &Queue) -> oneshot::Receiver<Result<u64, ReadError>> {
        let (confirmed, receiver) = oneshot::channel();
        queue.0.send(confirmed).await.unwrap();
        receiver
    }

    #[tokio::test]
    async fn a_read_that_comes_while_a_round_is_confirmed_is_answered_by_the_next() {
        let (queue, waiting) = Queue::new();
        let (ended, begun, goes_on) = (CancellationToken::new(), Notify::new(), Notify::new());
        let rounds = Cell::new(0);
        let confirm = || {
            rounds.set(rounds.get() + 1);
            begun.notify_one();
            let (round, goes_on) = (rounds.get(), &goes_on);
            async move {
                goes_on.notified().await;
                Ok::<u64, ReadError>(round)
            }
        };
        let reads = async {
            let first = ask(&queue).await;
            begun.notified().await;
            // What was committed before this one may not be in what the round has asked for.
            let late = ask(&queue).await;
            goes_on.notify_one();
            assert_eq!(first.await.unwrap(), Ok(1));
            goes_on.notify_one();
            assert_eq!(late.await.unwrap(), Ok(2));
            ended.cancel();
        };
        tokio::join!(answer_in_rounds(&ended, waiting, confirm), reads);
    }

    /// Raft takes the answer to an entry, held up on its way, for that to a heartbeat that was sent much later.
    #[tokio::test]
    async fn a_late_answer_to_what_was_sent_before_confirms_no_read() {
        let (host, group) = leader().await;
        let inner = group.inner();
        let second = Peer {
            node: NodeId(2),
            address: "127.0.0.1:1".to_owned(),
        };
        let added = group.add_learner(second, Duration::ZERO).await;
        assert_eq!(added, Err(ChangeError::Timeout));
        // From now on a majority takes the second, which nobody reaches.
        let grows = group.clone();
        let promote = async move { grows.promote(NodeId(2)).await };
        let promoted = Runtime::real().spawn("promote", promote);
        until_status(&group, |status| status.joint).await;
        let term = group.status().term;
        let send = || inner.grants.stamp(term, Moment::present(inner.runtime()));
        let answer = |sent| inner.grants.accepted(2, sent, inner.runtime().now());
        let before = send();
        let confirmed = inner.followed_meanwhile(async {
            answer(before);
            Ok(7)
        });
        assert_eq!(confirmed.await, Err(ReadError::NoQuorum));
        let confirmed = inner.followed_meanwhile(async {
            answer(send());
            Ok(8)
        });
        assert_eq!(confirmed.await, Ok(8));
        host.shutdown().await.unwrap();
        assert!(promoted.await.unwrap().is_err());
    }

    /// What others committed while they led is not in the index that was asked for before.
    #[tokio::test]
    async fn who_has_lost_the_lead_and_has_it_again_confirms_no_read_from_before() {
        let (host, group) = leader().await;
        let inner = group.inner();
        let term = group.status().term;
        let asked = async {
            let other = AppendRequest {
                vote: vote(term + 1, 2, true),
                prev_log_id: None,
                entries: Vec::new(),
                leader_commit: None,
            };
            inner.raft.append_entries(other).await.unwrap();
            // Who votes alone stands again at once.
            let leads_again =
                |status: &GroupStatus| status.role == Role::Leader && status.term > term;
            until_status(&group, leads_again).await;
            Ok::<u64, ReadError>(7)
        };
        let confirmed = inner.followed_meanwhile(asked).await;
        let is_refused = matches!(confirmed, Err(ReadError::NotLeader { .. }));
        assert!(is_refused, "{confirmed:?}");
        host.shutdown().await.unwrap();
    }
}
