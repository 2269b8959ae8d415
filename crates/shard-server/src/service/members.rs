//! Changes of a group's members, one step at a time, on the replica that leads.
//!
//! What always holds: a group has one change at a time; a step that was begun goes on when its caller's patience ends, and the
//! same step asked for again finds what has become of it; one that is older than what was done is refused ([`Fence`]).

use std::sync::Arc;
use std::time::Duration;

use api::shard::v1 as wire;
use api::{ApiError, Reason};
use cluster::{Epoch, Incarnation, NodeId, ShardId};
use replication::{ChangeError, GroupStatus, Member, Peer, Role};
use rpc::Deadline;
use runtime::Runtime;

use super::Services;
use crate::metrics::Action;
use crate::node::{Fence, Node, Replica};

/// Part of the caller's patience that is kept for the answer.
const RETURN_PARTS: u32 = 10;
/// How often it is looked whether every voter has heard of a removal.
const LOOK: Duration = Duration::from_millis(20);

/// What is to be done to whom.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    step: wire::MemberStep,
    /// How new it is.
    fence: Fence,
    pub(crate) peer: Peer,
    /// Members that are lost for good.
    pub(crate) lost: Vec<NodeId>,
    /// How long it may take.
    limit: Duration,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    done: bool,
    settled: bool,
}

impl Services {
    pub(super) async fn change_members(
        &self,
        request: wire::ChangeMembersRequest,
        deadline: Deadline,
    ) -> Result<wire::ChangeMembersResponse, ApiError> {
        let shard = ShardId(request.shard_id);
        let replica = self.node.replica(shard)?;
        if replica.incarnation() != Incarnation(request.incarnation) {
            let message = format!(
                "shard {shard} is in its life {} here",
                replica.incarnation()
            );
            return Err(ApiError::new(Reason::StaleIncarnation, message));
        }
        let left = deadline.remaining(&self.node.runtime);
        let change = checked(request, left - left / RETURN_PARTS)?;
        leads(&replica.group().status())?;
        let Ok(mut single) = replica.changing().try_lock_owned() else {
            return Ok(answer(&replica, Done::default()));
        };
        single.pass(change.fence, self.node.view().epoch())?;
        let (node, limit) = (Arc::clone(&self.node), change.limit);
        let at_work = Arc::clone(&replica);
        // A task of its own: a change that was proposed is seen through, and no second one comes between.
        let task = self.node.runtime.spawn("change-members", async move {
            let _single = single;
            take(&node, &at_work, change).await
        });
        match self.node.runtime.timeout(limit, task).await {
            Ok(Ok(done)) => Ok(answer(&replica, done?)),
            Ok(Err(failed)) => Err(ApiError::internal(failed.to_string())),
            Err(_) => Ok(answer(&replica, Done::default())),
        }
    }
}

pub(crate) fn checked(
    request: wire::ChangeMembersRequest,
    limit: Duration,
) -> Result<Change, ApiError> {
    let step = request.step();
    if step == wire::MemberStep::Unspecified {
        return Err(ApiError::field(Reason::BadArgument, "step", "must be set"));
    }
    if request.node_id == 0 {
        return Err(ApiError::field(
            Reason::BadArgument,
            "node_id",
            "must be set",
        ));
    }
    if request.address.is_empty() && step != wire::MemberStep::Remove {
        return Err(ApiError::field(
            Reason::BadArgument,
            "address",
            "must be set",
        ));
    }
    let removes = step == wire::MemberStep::Remove;
    Ok(Change {
        step,
        fence: Fence::of(Epoch(request.epoch), removes),
        peer: Peer {
            node: NodeId(request.node_id),
            address: request.address,
        },
        lost: request.lost_node_ids.into_iter().map(NodeId).collect(),
        limit,
    })
}

fn leads(status: &GroupStatus) -> Result<(), ApiError> {
    if status.role == Role::Leader {
        return Ok(());
    }
    let leader = status.leader.as_ref().map(|peer| peer.node);
    Err(ApiError::not_leader(leader))
}

async fn take(host: &Node, replica: &Replica, change: Change) -> Result<Done, ApiError> {
    let group = replica.group();
    let node = change.peer.node;
    let changed = match change.step {
        wire::MemberStep::AddLearner => group.add_learner(change.peer, change.limit).await,
        // Whoever is a member already is only waited for.
        wire::MemberStep::Promote => match group.add_learner(change.peer, change.limit).await {
            Ok(()) => group.promote(node).await,
            Err(error) => Err(error),
        },
        // A leader that is to leave lets another lead first, which then removes it.
        wire::MemberStep::Remove if node == group.status().node => {
            let handed = replica.hand_over(None).await;
            host.metrics.count_action(
                Action::HandOverLead,
                "leaving",
                Some(replica.shard()),
                &handed,
            );
            return Err(ApiError::not_leader(Some(handed?)));
        }
        wire::MemberStep::Remove => group.remove(node).await,
        wire::MemberStep::Unspecified => return Ok(Done::default()),
    };
    match changed {
        Ok(()) if change.step == wire::MemberStep::Remove => Ok(Done {
            done: true,
            settled: settled(&host.runtime, replica, &change.lost, change.limit).await,
        }),
        Ok(()) => Ok(Done {
            done: true,
            settled: false,
        }),
        // It goes on; asked again, it is found done.
        Err(ChangeError::Timeout | ChangeError::InProgress) => Ok(Done::default()),
        Err(error) => Err(not_changed(error)),
    }
}

/// Waits until the log of every voter that is not lost has what was just changed; false when that takes too long.
async fn settled(runtime: &Runtime, replica: &Replica, lost: &[NodeId], limit: Duration) -> bool {
    let target = replica.group().status().last_log;
    let until = runtime.now() + limit / 2;
    loop {
        let status = replica.group().status();
        let has_it = |node: NodeId| {
            let matched = status.matched.iter().find(|(at, _)| *at == node);
            node == status.node || matched.is_some_and(|(_, matched)| *matched >= target)
        };
        let counts = |at: &Member| at.voter && !lost.contains(&at.node);
        let mut voters = status.members.iter().filter(|at| counts(at));
        if status.role == Role::Leader && voters.all(|at| has_it(at.node)) {
            return true;
        }
        if status.role != Role::Leader || runtime.now() >= until {
            return false;
        }
        runtime.sleep(LOOK).await;
    }
}

fn answer(replica: &Replica, done: Done) -> wire::ChangeMembersResponse {
    let status = replica.group().status();
    let matched = |node: NodeId| {
        let found = status.matched.iter().find(|(at, _)| *at == node);
        found.and_then(|(_, matched)| *matched).unwrap_or_default()
    };
    wire::ChangeMembersResponse {
        done: done.done,
        settled: done.settled,
        members: status
            .members
            .iter()
            .map(|member| wire::GroupMember {
                node_id: member.node.0,
                voter: member.voter,
                matched_index: matched(member.node),
            })
            .collect(),
    }
}

fn not_changed(error: ChangeError) -> ApiError {
    match error {
        ChangeError::NotLeader { leader } => ApiError::not_leader(leader.map(|peer| peer.node)),
        ChangeError::LeadLost => ApiError::not_leader(None),
        ChangeError::Refused { problem } => ApiError::new(Reason::NotNeeded, problem),
        ChangeError::Timeout | ChangeError::InProgress => {
            ApiError::new(Reason::Aborted, error.to_string())
        }
        ChangeError::Stopped { reason } => ApiError::new(Reason::Stopped, reason),
    }
}
