//! A change that is under way goes on by one step: the newcomer follows, then votes; then whoever is to leave is removed.

use std::time::Duration;

use api::admin::v1::ReplicaRole;
use api::shard::v1::{ChangeMembersRequest, ChangeMembersResponse, MemberStep};
use api::{ApiError, Reason};
use cluster::{NodeId, Replica, ShardId};

use super::Repair;
use crate::actions::{About, Action, PLANNED};
use crate::metadata::{Command, Intent, Settled, ShardRecord};

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
        self.propose(record, replicas.collect(), rest).await
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
        let is_away = self.is_away(leaving);
        self.propose(record, replicas.collect(), None).await?;
        if let Some(change) = record.members.change.as_ref().filter(|_| is_away) {
            let took = self.meta.now_ms().saturating_sub(change.began_ms);
            let took = Duration::from_millis(u64::try_from(took).unwrap_or_default());
            let shard_key = self.shard_key(record.shard.id);
            self.actions.recovered(&shard_key, took);
        }
        Ok(())
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
        if !answer.done || !answer.settled {
            return Ok(());
        }
        tracing::info!(%shard, former = ?record.members.former, "everybody knows who has left");
        let command = Command::SettleMembers(Settled {
            shard,
            incarnation: record.shard.incarnation,
            expected: record.members.version,
        });
        self.meta.propose(&command).await.map(drop)
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
        let shard = &record.shard;
        let request = ChangeMembersRequest {
            shard_id: shard.id.0,
            incarnation: shard.incarnation.0,
            step: step.into(),
            node_id: node.0,
            address: self.meta.read(|state| {
                let found = state.nodes.get(&node);
                found.map_or_else(String::new, |at| at.node.address.clone())
            }),
            lost_node_ids: self.meta.read(|state| {
                let members = shard.replicas.iter().map(|at| at.node);
                let lost = members.filter(|node| state.is_lost(*node));
                lost.map(|node| node.0).collect()
            }),
        };
        let no_leader = || {
            let message = format!("nobody is known to lead shard {}", shard.id);
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
