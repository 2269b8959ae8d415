//! Who takes part in a group: learners in, voters up and out, and leadership handed over.
//!
//! One change at a time; a change that fails half way leaves a membership that the next call completes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::NodeId;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Instant as _, ServerState};

use super::{Group, Inner};
use crate::raft::TypeConfig;
use crate::{ChangeError, Member, Peer, StateMachine, convert};

/// A voter that was heard within this time can take the lead.
const HEARD_LATELY: Duration = Duration::from_secs(1);

type Change = ChangeMembers<u64, BasicNode>;

impl<S: StateMachine> Group<S> {
    /// Adds a member that follows without a vote, and waits until it has caught up with what was committed at the call.
    /// The node must have started the group with [`crate::Start::Join`]. Adding one that is there already changes nothing.
    ///
    /// # Errors
    /// See [`ChangeError`]. After [`ChangeError::Timeout`] it is a member and goes on catching up.
    pub async fn add_learner(&self, peer: Peer, limit: Duration) -> Result<(), ChangeError> {
        let inner = &self.inner;
        let node = peer.node.0;
        let known = inner
            .metrics
            .borrow_watched()
            .membership_config
            .get_node(&node)
            .is_some();
        if !known {
            inner.check_newcomer(&peer)?;
            let nodes = BTreeMap::from([(node, BasicNode::new(peer.address))]);
            inner.change(ChangeMembers::AddNodes(nodes)).await?;
        }
        let target = inner.metrics.borrow_watched().last_log_index;
        inner
            .until(limit, |metrics| {
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&node));
                matched.and_then(|id| id.map(|id| id.index())) >= target
            })
            .await
    }

    /// Gives a learner a vote. It should have caught up, else a majority may have to wait for it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn promote(&self, node: NodeId) -> Result<(), ChangeError> {
        let ids = BTreeSet::from([node.0]);
        self.inner.change(ChangeMembers::AddVoterIds(ids)).await
    }

    /// Removes a member, voter or learner. A node that has lost its disk is removed so and comes back under a new identity.
    ///
    /// # Errors
    /// See [`ChangeError`]. The last voter cannot be removed.
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        let ids = BTreeSet::from([node.0]);
        let votes = {
            let metrics = self.inner.metrics.borrow_watched();
            metrics.membership_config.voter_ids().any(|id| id == node.0)
        };
        if votes {
            let change = ChangeMembers::RemoveVoters(ids.clone());
            self.inner.change(change).await?;
        }
        let gone = {
            let metrics = self.inner.metrics.borrow_watched();
            metrics.membership_config.get_node(&node.0).is_none()
        };
        if gone {
            return Ok(());
        }
        self.inner.change(ChangeMembers::RemoveNodes(ids)).await
    }

    /// The voters that could take the lead from this leader, the best prepared first: those that were heard within the last
    /// second, by how far their logs reach. Empty on a replica that does not lead.
    #[must_use]
    pub fn successors(&self) -> Vec<NodeId> {
        self.inner.successors()
    }

    /// Hands the lead to another voter and waits until this replica no longer leads. From the call on it takes no
    /// proposals and holds no lease.
    ///
    /// # Errors
    /// See [`ChangeError`]. After [`ChangeError::Timeout`] an election decides.
    pub async fn transfer_leader(&self, to: NodeId, limit: Duration) -> Result<(), ChangeError> {
        let inner = &self.inner;
        let node = inner.node;
        if to.0 == node && inner.leads() {
            return Ok(());
        }
        inner.begin_hand_over(to).await?;
        inner
            .until(limit, |metrics| {
                metrics.state != ServerState::Leader
                    && metrics.current_leader.is_some_and(|leader| leader != node)
            })
            .await
    }

    /// Has the leader hand its lead to this replica, a voter, and waits until it leads: for a caller who reaches this replica and not
    /// the leader. Changes nothing on the leader itself.
    ///
    /// # Errors
    /// See [`ChangeError`]: [`ChangeError::Refused`] also where the leader does not answer, or has not heard this replica lately. After
    /// [`ChangeError::Timeout`] an election decides.
    pub async fn request_lead(&self, limit: Duration) -> Result<(), ChangeError> {
        let inner = &self.inner;
        if inner.leads() {
            return Ok(());
        }
        let leader = inner.leader_in(&inner.metrics.borrow_watched());
        let leader = leader.ok_or(ChangeError::NotLeader { leader: None })?;
        let asked = inner.network.ask_for_lead(&leader).await;
        asked.map_err(|error| ChangeError::Refused {
            problem: error.to_string(),
        })?;
        inner
            .until(limit, |metrics| metrics.state == ServerState::Leader)
            .await
    }
}

impl<S: StateMachine> Inner<S> {
    fn leads(&self) -> bool {
        self.metrics.borrow_watched().state == ServerState::Leader
    }

    pub(super) fn successors(&self) -> Vec<NodeId> {
        let metrics = self.metrics.borrow_watched();
        let Some(heartbeat) = &metrics.heartbeat else {
            return Vec::new();
        };
        let is_heard = |node: &u64| {
            let heard = heartbeat.get(node).and_then(Option::as_ref);
            heard.is_some_and(|at| at.elapsed() < HEARD_LATELY)
        };
        let reach = |node: &u64| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(node));
            matched.and_then(|id| id.as_ref().map(|id| id.index()))
        };
        let voters = metrics.membership_config.voter_ids();
        let mut others: Vec<u64> = voters
            .filter(|node| *node != self.node && is_heard(node))
            .collect();
        others.sort_by_key(|node| (std::cmp::Reverse(reach(node)), *node));
        others.into_iter().map(NodeId).collect()
    }

    /// Begins to hand the lead to another voter. From here on this replica takes no proposals and holds no lease.
    pub(super) async fn begin_hand_over(&self, to: NodeId) -> Result<(), ChangeError> {
        let term = {
            let metrics = self.metrics.borrow_watched();
            if metrics.state != ServerState::Leader {
                let leader = self.leader_in(&metrics);
                return Err(ChangeError::NotLeader { leader });
            }
            if !metrics.membership_config.voter_ids().any(|id| id == to.0) {
                let problem = format!("node {to} has no vote");
                return Err(ChangeError::Refused { problem });
            }
            metrics.current_term
        };
        // The lease ends before the other can be elected: votes for it disregard what followers granted to us.
        self.handing_over.store(term, Ordering::Release);
        let sent = self.raft.trigger().transfer_leader(to.0).await;
        sent.map_err(|_| self.change_stopped())
    }

    /// A membership that no replica would read must not be written.
    fn check_newcomer(&self, peer: &Peer) -> Result<(), ChangeError> {
        let mut members = self.status_now().members;
        members.push(Member {
            node: peer.node,
            address: peer.address.clone(),
            voter: false,
        });
        convert::check_members(&members).map_err(|error| ChangeError::Refused {
            problem: error.to_string(),
        })
    }

    async fn change(&self, change: Change) -> Result<(), ChangeError> {
        // Voters that lose their vote do not stay on as learners: they are to be gone.
        match self.raft.change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(_)) => Err(self.change_stopped()),
            Err(RaftError::APIError(error)) => Err(refused(error)),
        }
    }

    async fn until(
        &self,
        limit: Duration,
        reached: impl Fn(&crate::raft::Metrics) -> bool,
    ) -> Result<(), ChangeError> {
        let mut metrics = self.raft.metrics();
        let wait = async {
            while !reached(&metrics.borrow_watched()) {
                tokio::select! {
                    () = self.ended.cancelled() => return Err(self.change_stopped()),
                    changed = metrics.changed() => {
                        changed.map_err(|_| self.change_stopped())?;
                    }
                }
            }
            Ok(())
        };
        self.runtime()
            .timeout(limit, wait)
            .await
            .map_err(|_| ChangeError::Timeout)?
    }

    fn change_stopped(&self) -> ChangeError {
        ChangeError::Stopped {
            reason: self.shared.halt.why(),
        }
    }
}

fn refused(error: ClientWriteError<TypeConfig>) -> ChangeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ChangeError::NotLeader {
            leader: convert::peer(to.leader_id, to.leader_node.as_ref()),
        },
        ClientWriteError::LogEntryDiscarded(_) => ChangeError::LeadLost,
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
            ChangeError::InProgress
        }
        error @ (ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_)) => ChangeError::Refused {
            problem: error.to_string(),
        },
    }
}
