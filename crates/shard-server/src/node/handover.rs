//! Handing the lead of shards to other nodes: at an operator's word, and before this node stops. And taking it, for those who reach
//! this node and not the one that leads.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::NodeId;
use futures::future::join_all;
use replication::{ChangeError, Role};

use super::{Node, Replica};
use crate::metrics::Action;

/// How long one other node may take to take a lead over; it takes some milliseconds.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(700);
/// How long all leads of a node that stops may take together.
const STOP_PATIENCE: Duration = Duration::from_millis(1_500);

impl Replica {
    /// Hands the lead to a voter, or to the one that is best prepared, and says who leads then.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, ApiError> {
        let group = self.group();
        let status = group.status();
        if status.role != Role::Leader {
            let leader = status.leader.map(|peer| peer.node);
            return Err(ApiError::not_leader(leader));
        }
        if to == Some(status.node) {
            return Ok(status.node);
        }
        let votes = |node| status.members.iter().any(|at| at.voter && at.node == node);
        if let Some(node) = to.filter(|node| !votes(*node)) {
            let problem = format!("node {node} has no vote in shard {}", self.shard());
            return Err(ApiError::field(Reason::BadArgument, "to_node_id", problem));
        }
        if status.members.iter().filter(|at| at.voter).count() < 2 {
            let message = format!("shard {} has nobody else to lead it", self.shard());
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        let heard = group.successors();
        let mut prepared = heard.iter().filter(|node| to.is_none_or(|to| to == **node));
        let Some(chosen) = prepared.next().copied() else {
            let message = "who should take the lead was not heard lately";
            return Err(ApiError::new(Reason::Aborted, message));
        };
        let handed = group.transfer_leader(chosen, TRANSFER_PATIENCE).await;
        handed.map_err(|error| not_handed(chosen, error))?;
        let leader = group.status().leader;
        Ok(leader.map_or(chosen, |peer| peer.node))
    }

    /// Takes the lead from whoever has it, and says who leads then: this node.
    pub(crate) async fn take_lead(&self) -> Result<NodeId, ApiError> {
        let group = self.group();
        let node = group.status().node;
        let taken = group.request_lead(TRANSFER_PATIENCE).await;
        taken.map_err(|error| not_handed(node, error))?;
        Ok(node)
    }
}

fn not_handed(to: NodeId, error: ChangeError) -> ApiError {
    match error {
        ChangeError::NotLeader { leader } => ApiError::not_leader(leader.map(|peer| peer.node)),
        error @ ChangeError::Stopped { .. } => ApiError::new(Reason::Stopped, error.to_string()),
        error @ (ChangeError::InProgress
        | ChangeError::Refused { .. }
        | ChangeError::LeadLost
        | ChangeError::Timeout) => {
            let message = format!("node {to} did not take the lead: {error}");
            ApiError::new(Reason::Aborted, message)
        }
    }
}

impl Node {
    /// Hands over every lead that somebody else can take, so that nobody has to wait for an election when this node is gone. `reason` is
    /// for what counts it.
    pub(crate) async fn hand_over_leads(self: &Arc<Self>, reason: &'static str) {
        let leads = |replica: &Arc<Replica>| !replica.group().successors().is_empty();
        let replicas: Vec<_> = self.replicas().into_iter().filter(leads).collect();
        let handed = join_all(replicas.iter().map(|replica| async {
            let shard = replica.shard();
            let handed = replica.hand_over(None).await;
            self.metrics
                .count_action(Action::HandOverLead, reason, Some(shard), &handed);
            match handed {
                Ok(leader) => tracing::info!(%shard, %leader, reason, "the lead is handed over"),
                Err(error) => tracing::warn!(%shard, %error, reason, "the lead is not handed over"),
            }
        }));
        if self.runtime.timeout(STOP_PATIENCE, handed).await.is_err() {
            tracing::warn!("not all leads were handed over in time");
        }
    }
}
