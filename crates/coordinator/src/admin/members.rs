//! The verbs of operators that move replicas: drain, promote, replace.

use api::admin::v1::{
    DrainNodeRequest, DrainNodeResponse, PromoteReplicaRequest, PromoteReplicaResponse,
    ReplaceReplicaRequest, ReplaceReplicaResponse,
};
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId};
use rpc::Deadline;

use super::Admin;
use crate::actions::{ASKED, About, Action};
use crate::metadata::{Command, State};

pub(super) async fn drain(
    admin: &Admin,
    request: DrainNodeRequest,
) -> Result<DrainNodeResponse, ApiError> {
    let draining = !request.undo;
    let node = admin
        .meta
        .read(|state| named(state, "node", &request.node))?;
    let command = Command::SetDraining { node, draining };
    let told = admin.meta.propose(&command).await;
    let reason = if draining { ASKED } else { "taken_back" };
    let about = About::node(node);
    admin.actions.count(Action::Drain, reason, about, &told);
    told?;
    let left = admin.meta.read(|state| state.replicas_on(node));
    let message = match (draining, left) {
        (false, _) => format!("node {node} may hold replicas"),
        (true, 0) => format!("node {node} holds nothing, and gets nothing"),
        (true, left) => match admin.repair.stuck_on(node) {
            0 => format!("node {node} holds {left} replicas, which go elsewhere"),
            stuck => format!(
                "node {node} holds {left} replicas, and leads nothing any more; no server is there that could take {stuck} of them: start another"
            ),
        },
    };
    Ok(DrainNodeResponse {
        message,
        node_id: node.0,
        replicas_left: left as u64,
    })
}

pub(super) async fn promote(
    admin: &Admin,
    request: PromoteReplicaRequest,
    deadline: Deadline,
) -> Result<PromoteReplicaResponse, ApiError> {
    let shard = ShardId(request.shard_id);
    let node = admin
        .meta
        .read(|state| named(state, "node", &request.node))?;
    if request.accept_loss {
        let confirmation = request.confirmation.as_str();
        let told = admin
            .recovery
            .begin_from(shard, node, confirmation, deadline);
        let (done, message) = told.await?;
        return Ok(PromoteReplicaResponse { done, message });
    }
    let asked = admin.repair.ask(shard, None, Some(node)).await?;
    Ok(PromoteReplicaResponse {
        done: asked.done,
        message: asked.message,
    })
}

pub(super) async fn replace(
    admin: &Admin,
    request: ReplaceReplicaRequest,
) -> Result<ReplaceReplicaResponse, ApiError> {
    let shard = ShardId(request.shard_id);
    let (leaving, with) = admin.meta.read(|state| to_replace(state, &request))?;
    let asked = admin.repair.ask(shard, Some(leaving), with).await?;
    Ok(ReplaceReplicaResponse {
        done: asked.done,
        message: asked.message,
        with_node_id: asked.newcomer.0,
    })
}

/// Whose replica is to leave, and who is to take its place where somebody was named.
pub(crate) fn to_replace(
    state: &State,
    request: &ReplaceReplicaRequest,
) -> Result<(NodeId, Option<NodeId>), ApiError> {
    let leaving = named(state, "node", &request.node)?;
    let with = if request.with.is_empty() {
        None
    } else {
        Some(named(state, "with", &request.with)?)
    };
    Ok((leaving, with))
}

/// A node by its number, or by the name that it has and no lost one.
pub(crate) fn named(state: &State, field: &'static str, text: &str) -> Result<NodeId, ApiError> {
    if text.is_empty() {
        return Err(ApiError::field(Reason::BadArgument, field, "must be set"));
    }
    let by_number = text.parse().ok().map(NodeId);
    let known = by_number.filter(|id| state.nodes.contains_key(id));
    let found = known.or_else(|| {
        let mut nodes = state.nodes.values().map(|record| &record.node);
        let found = nodes.find(|node| !node.lost && node.name == text);
        found.map(|node| node.id)
    });
    found.ok_or_else(|| {
        let message = format!("{field}: no node has the number or the name {text:?}");
        ApiError::new(Reason::NotFound, message)
    })
}
