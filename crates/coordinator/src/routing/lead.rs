//! Handing the lead of a shard over, at an operator's word.

use api::shard::v1::TransferLeaderRequest;
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId};
use runtime::Instant;

use super::rounds::{Kind, Rounds};
use super::{Ask, Router, Target, found};

impl Router {
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
