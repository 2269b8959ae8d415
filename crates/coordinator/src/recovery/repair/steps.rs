//! A change that is under way goes on by one step: the newcomer follows, then votes; then whoever is to leave is removed.
//!
//! A group is asked for nothing by a record that is not what the map says any more. Should that come to be so on the way, the group's leader
//! refuses: it is told the epoch of the map.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::v1::ReplicaRole;
use api::shard::v1::{ChangeMembersRequest, ChangeMembersResponse, GroupMember, MemberStep};
use api::{ApiError, Reason};
use cluster::{NodeId, Replica, ShardId};

use super::{Repair, departure};
use crate::actions::{About, Action, PLANNED};
use crate::metadata::{Command, Intent, MemberChange, Settled, ShardRecord, State};
use crate::placement::repair::Cause;

/// How long one call to a leader may take; a newcomer that needs longer is asked after again.
const CALL_PATIENCE: Duration = Duration::from_secs(8);
/// Leaders that are followed before the step is put off.
const LEADERS_MAX: usize = 3;

impl Repair {
    pub(super) async fn go_on(&self, shard: ShardId) -> Result<(), ApiError> {
        let record = self.record(shard)?;
        let Some(change) = record.members.change.clone() else {
            return Ok(());
        };
        match (change.intent.add, change.intent.remove) {
            (Some(newcomer), _) => self.admit(&record, &change.intent, newcomer).await,
            (None, Some(leaving)) => self.dismiss(&record, leaving).await,
            (None, None) => Ok(()),
        }
    }

    /// The newcomer catches up, and gets its vote if it is to have one.
    async fn admit(
        &self,
        record: &ShardRecord,
        intent: &Intent,
        newcomer: NodeId,
    ) -> Result<(), ApiError> {
        // It takes its orders with its next report, and until then would refuse what the leader sends.
        if !self.has_opened(record, newcomer) {
            return Ok(());
        }
        let steps = [
            (MemberStep::AddLearner, Action::AddLearner),
            (MemberStep::Promote, Action::Promote),
        ];
        let steps = &steps[..if intent.votes { 2 } else { 1 }];
        let about = About::shard(record.shard.id).with_node(Some(newcomer));
        for (step, action) in steps {
            let answer = self.change(record, *step, newcomer).await;
            if answer.is_err() {
                self.actions.count(*action, PLANNED, about, &answer);
            }
            if !answer?.done {
                return Ok(());
            }
        }
        // Only now: what is done is asked again until all of it is.
        for (_, action) in steps {
            let done: Result<(), ApiError> = Ok(());
            self.actions.count(*action, PLANNED, about, &done);
        }
        tracing::info!(shard = %record.shard.id, %newcomer, votes = intent.votes, "a new replica has caught up");
        let replicas = record.shard.replicas.iter().map(|at| Replica {
            voter: at.voter || (intent.votes && at.node == newcomer),
            ..*at
        });
        let rest = Intent {
            add: None,
            ..intent.clone()
        };
        let rest = rest.remove.is_some().then_some(rest);
        let restoring = self.restoring(record).filter(|_| rest.is_none());
        self.propose(record, replicas.collect(), rest).await?;
        self.count_restored(record.shard.id, restoring);
        Ok(())
    }

    /// Whoever is to leave is removed, as soon as the others can do without it.
    async fn dismiss(&self, record: &ShardRecord, leaving: NodeId) -> Result<(), ApiError> {
        if !self.can_do_without(record, leaving) {
            return Ok(());
        }
        let answer = self.change(record, MemberStep::Remove, leaving).await;
        if answer.as_ref().map_or(true, |answer| answer.done) {
            let about = About::shard(record.shard.id).with_node(Some(leaving));
            self.actions
                .count(Action::RemoveMember, PLANNED, about, &answer);
        }
        let answer = answer?;
        if !answer.done {
            return Ok(());
        }
        tracing::info!(shard = %record.shard.id, %leaving, settled = answer.settled, "a replica has left its group");
        let replicas = record.shard.replicas.iter();
        let replicas = replicas.filter(|at| at.node != leaving).copied();
        let restoring = self.restoring(record);
        self.propose(record, replicas.collect(), None).await?;
        self.count_restored(record.shard.id, restoring);
        Ok(())
    }

    /// Whether what is meant gives a shard back what it has lost: it ends a replica that is away, or brings a vote that the shard lacks. That
    /// a newcomer which failed is taken back gives nothing back.
    pub(super) fn restores(&self, record: &ShardRecord, intent: &Intent) -> bool {
        let Some(leaving) = intent.remove else {
            let voters = record.shard.replicas.iter().filter(|at| at.voter);
            return intent.votes && voters.count() < self.rules().replicas;
        };
        let taken_back = self.reason(Cause::NewcomerFailed, departure(leaving));
        self.is_away(leaving) && intent.reason != taken_back
    }

    /// The change that is under way, if it restores the shard.
    fn restoring<'a>(&self, record: &'a ShardRecord) -> Option<&'a MemberChange> {
        let change = record.members.change.as_ref();
        change.filter(|change| self.restores(record, &change.intent))
    }

    /// A change is over, by which a shard was restored.
    fn count_restored(&self, shard: ShardId, change: Option<&MemberChange>) {
        let Some(change) = change else {
            return;
        };
        let took = self.meta.now_ms().saturating_sub(change.began_ms);
        let took = Duration::from_millis(u64::try_from(took).unwrap_or_default());
        self.actions.recovered(&self.shard_key(shard), took);
    }

    /// Those who left hold nothing any more. Where every voter knows that they have left, too, they may come again.
    pub(super) async fn settle(&self, shard: ShardId) -> Result<(), ApiError> {
        let record = self.record(shard)?;
        let Some(left) = record.members.former.first() else {
            return Ok(());
        };
        if record.members.change.is_some() {
            return Ok(());
        }
        // What was done long ago is found done; what is asked is whether all have all of the log.
        let answer = self.change(&record, MemberStep::Remove, *left).await?;
        if !answer.done {
            return Ok(());
        }
        let (members, shown) = (&answer.members, &record.shard.replicas);
        if let Some(stranger) = stranger(members, shown) {
            return self.send_away(&record, stranger).await;
        }
        if !answer.settled {
            return Ok(());
        }
        if !are_members(members, shown) {
            let message = format!(
                "the group of shard {shard} lacks a member, or a vote, that the map shows: have the replica that does not serve replaced"
            );
            return Err(ApiError::new(Reason::Aborted, message));
        }
        tracing::info!(%shard, former = ?record.members.former, "everybody knows who has left");
        let command = Command::SettleMembers(Settled {
            shard,
            incarnation: record.shard.incarnation,
            expected: record.members.version,
        });
        self.meta.propose(&command).await.map(drop)
    }

    /// The group has let somebody in whom the map does not show, and who may hold nothing by now.
    async fn send_away(&self, record: &ShardRecord, stranger: NodeId) -> Result<(), ApiError> {
        let shard = record.shard.id;
        tracing::warn!(%shard, %stranger, "a group has a member that the map does not show, it is removed");
        let removed = self.change(record, MemberStep::Remove, stranger).await;
        let about = About::shard(shard).with_node(Some(stranger));
        self.actions
            .count(Action::RemoveMember, "not_in_map", about, &removed);
        removed.map(drop)
    }

    /// Whether a node is lost, or not heard of.
    fn is_away(&self, node: NodeId) -> bool {
        self.meta.read(|state| state.is_lost(node)) || !self.liveness.is_alive(node)
    }

    fn has_opened(&self, record: &ShardRecord, node: NodeId) -> bool {
        let heard = self.liveness.of(node).filter(|heard| heard.alive);
        heard.is_some_and(|heard| {
            let replica = heard
                .report
                .replica(record.shard.id, record.shard.incarnation);
            replica.is_some_and(|at| at.role() != ReplicaRole::Unspecified)
        })
    }

    /// Whether a majority of those who stay is at work.
    fn can_do_without(&self, record: &ShardRecord, leaving: NodeId) -> bool {
        let observed = self.observe();
        let shards = observed.shards.iter();
        let members = shards
            .filter(|at| at.id == record.shard.id)
            .flat_map(|at| &at.members);
        let rest: Vec<bool> = members
            .filter(|at| at.voter && at.node != leaving)
            .map(|at| at.serves)
            .collect();
        rest.iter().filter(|serves| **serves).count() > rest.len() / 2
    }

    /// Asks the leader of a group, whoever that turns out to be.
    async fn change(
        &self,
        record: &ShardRecord,
        step: MemberStep,
        node: NodeId,
    ) -> Result<ChangeMembersResponse, ApiError> {
        let shard = record.shard.id;
        let request = self.meta.read(|state| request(state, record, step, node));
        let request = request.ok_or_else(|| {
            let message = format!("the members of shard {shard} have changed meanwhile");
            ApiError::new(Reason::Aborted, message)
        })?;
        let no_leader = || {
            let message = format!("nobody is known to lead shard {shard}");
            ApiError::new(Reason::ShardUnavailable, message)
        };
        let mut leader = self.leader(record).ok_or_else(no_leader)?;
        for _ in 0..LEADERS_MAX {
            let mut client = self.router.link(leader)?.node_client()?;
            let call = client.change_members(rpc::request(request.clone(), CALL_PATIENCE));
            // The transport keeps the time, too; this is for a connection that keeps none.
            let answer = self.runtime.timeout(CALL_PATIENCE * 2, call).await;
            let answer = answer.map_err(|_| ApiError::deadline("no answer from the leader"))?;
            let error = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => ApiError::from_status(&status),
            };
            match error
                .leader()
                .filter(|_| error.reason() == Reason::NotLeader)
            {
                Some(next) => leader = next,
                None => return Err(error),
            }
        }
        Err(no_leader())
    }

    /// Who says that it leads; the newest of several.
    fn leader(&self, record: &ShardRecord) -> Option<NodeId> {
        let heard = self.liveness.all();
        let replicas = crate::status::replicas(&heard, record);
        let leaders = replicas
            .into_iter()
            .filter(|at| at.role() == ReplicaRole::Leader);
        let newest = leaders.max_by_key(|at| at.raft_term)?;
        Some(NodeId(newest.node_id))
    }
}

/// What a group is asked for; nothing if the members of its shard are no longer those of the record. Read at once, so that the epoch is one of
/// a map by which they still are.
fn request(
    state: &State,
    record: &ShardRecord,
    step: MemberStep,
    node: NodeId,
) -> Option<ChangeMembersRequest> {
    let shard = &record.shard;
    let present = state.shards.get(&shard.id)?;
    if present.members.version != record.members.version {
        return None;
    }
    let known = state.nodes.get(&node);
    let replicas = shard.replicas.iter().map(|at| at.node);
    let lost = replicas.filter(|node| state.is_lost(*node));
    Some(ChangeMembersRequest {
        shard_id: shard.id.0,
        incarnation: shard.incarnation.0,
        step: step.into(),
        node_id: node.0,
        address: known.map_or_else(String::new, |at| at.node.address.clone()),
        lost_node_ids: lost.map(|node| node.0).collect(),
        epoch: state.epoch.0,
    })
}

/// A member of a group that the map does not show.
pub(crate) fn stranger(members: &[GroupMember], shown: &[Replica]) -> Option<NodeId> {
    let is_shown = |node: NodeId| shown.iter().any(|at| at.node == node);
    let mut nodes = members.iter().map(|at| NodeId(at.node_id));
    nodes.find(|node| !is_shown(*node))
}

/// Whether a group has the members that the map shows, with the same votes.
pub(crate) fn are_members(members: &[GroupMember], shown: &[Replica]) -> bool {
    let shown: BTreeMap<u64, bool> = shown.iter().map(|at| (at.node.0, at.voter)).collect();
    let members = members.iter().map(|at| (at.node_id, at.voter));
    members.collect::<BTreeMap<u64, bool>>() == shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::NewReplicas;

    const SHARD: ShardId = ShardId(1);

    /// A node is to leave.
    fn intend_to_remove(state: &mut State, node: NodeId) {
        let record = &state.shards[&SHARD];
        let intent = Intent {
            add: None,
            votes: false,
            remove: Some(node),
            reason: "a test".into(),
        };
        let step = NewReplicas {
            shard: SHARD,
            incarnation: record.shard.incarnation,
            expected: record.members.version,
            replicas: record.shard.replicas.clone(),
            intent: Some(intent),
            settled: false,
        };
        state.apply(1, Command::ChangeReplicas(step));
    }

    #[test]
    fn a_group_is_asked_by_the_newest_map_and_only_for_what_the_map_still_says() {
        let mut state = State::founded(4);
        let record = state.shards[&SHARD].clone();
        let asked = |state: &State| request(state, &record, MemberStep::Remove, NodeId(2));
        let first = asked(&state).unwrap();
        assert_eq!((first.epoch, first.node_id), (state.epoch.0, 2));
        assert_eq!(first.address, "n2:1");
        assert!(first.lost_node_ids.is_empty());
        // Of something else the map may tell news.
        state.apply(1, Command::MarkNodeLost { node: NodeId(3) });
        let second = asked(&state).unwrap();
        assert_eq!(
            (second.epoch, second.lost_node_ids),
            (state.epoch.0, vec![3])
        );
        assert!(second.epoch > first.epoch);
        // What is meant may change without a change of the map that is shown.
        let epoch = state.epoch;
        intend_to_remove(&mut state, NodeId(1));
        assert_eq!(state.epoch, epoch);
        assert_eq!(asked(&state), None);
    }

    #[test]
    fn a_group_that_is_not_as_the_map_shows_is_noticed() {
        let replica = |(node, voter): (u64, bool)| Replica {
            node: NodeId(node),
            voter,
        };
        let shown = [(1, true), (2, true), (3, false)].map(replica);
        let told = |members: &[(u64, bool)]| {
            let member = |(node_id, voter): &(u64, bool)| GroupMember {
                node_id: *node_id,
                voter: *voter,
                matched_index: 5,
            };
            let members: Vec<GroupMember> = members.iter().map(member).collect();
            (stranger(&members, &shown), are_members(&members, &shown))
        };
        assert_eq!(told(&[(3, false), (2, true), (1, true)]), (None, true));
        let stranger = [(1, true), (2, true), (3, false), (4, true)];
        assert_eq!(told(&stranger), (Some(NodeId(4)), false));
        assert_eq!(told(&[(1, true), (3, false)]), (None, false));
        let without_a_vote = [(1, true), (2, false), (3, false)];
        assert_eq!(told(&without_a_vote), (None, false));
    }
}
