//! Handing the lead of a shard over: by its leader, at an operator's word, or by a follower that takes it.

use std::time::Duration;

use api::shard::v1::TransferLeaderRequest;
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId};
use runtime::Instant;

use super::rounds::{Kind, Rounds};
use super::{Ask, Router, Target, found};

impl Router {
    /// Has a voter of a shard take the lead from a leader that is not reached from here.
    pub(crate) async fn take_lead(
        &self,
        shard: ShardId,
        to: NodeId,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let request = TransferLeaderRequest {
            shard_id: shard.0,
            to_node_id: to.0,
            take: true,
        };
        let link = self.link(to)?;
        let mut client = link.node_client()?;
        let call = client.transfer_leader(rpc::request(request, limit));
        link.unary(limit, call).await?;
        self.leaders.learn(shard, to);
        Ok(())
    }

    /// Has the leader of a shard hand over to `to`, or to whom it finds best prepared, and says who leads then.
    pub(crate) async fn transfer_leader(
        &self,
        shard: ShardId,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, ApiError> {
        let mut rounds = Rounds::new(Kind::Write, deadline);
        loop {
            let map = self.map()?;
            found(&map, shard)?;
            let ask = Ask {
                map: &map,
                shard,
                consistency: None,
                rounds: &rounds,
            };
            let call = |target: Target| async move {
                let request = TransferLeaderRequest {
                    shard_id: shard.0,
                    to_node_id: to.map_or(0, |node| node.0),
                    take: false,
                };
                let mut client = target.link.node_client()?;
                let call = client.transfer_leader(rpc::request(request, target.limit));
                target.link.unary(target.limit, call).await
            };
            match self.ask(ask, call).await {
                Ok((_, answer)) if answer.leader_node_id == 0 => {
                    let message = "the shard did not say who leads it";
                    return Err(ApiError::new(Reason::Internal, message));
                }
                Ok((_, answer)) => {
                    let leader = NodeId(answer.leader_node_id);
                    self.leaders.learn(shard, leader);
                    return Ok(leader);
                }
                Err(failed) => {
                    let again = rounds.may_follow(shard, &failed);
                    if !again || !rounds.next(&self.runtime, &self.leaders).await {
                        return Err(rounds.conclude(shard, failed));
                    }
                }
            }
        }
    }
}
