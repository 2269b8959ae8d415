//! `GET /v1/status`: what the page shows beside the search box.

use std::sync::Arc;

use api::admin::v1::{NodeStatus, ReplicaStatus, ShardState, ShardStatus};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;

use super::Site;
use crate::admin::cluster_status;
use crate::status::{entries_behind, role_name};
use crate::upkeep::label;

#[derive(Debug, Serialize)]
struct Body {
    epoch: u64,
    metadata_available: bool,
    namespaces: u64,
    version: String,
    shards: Vec<Shard>,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Shard {
    shard_id: u64,
    shard_key: String,
    incarnation: u64,
    state: &'static str,
    reason: String,
    terms: u64,
    total_count: u64,
    memory_bytes: u64,
    applied_index: u64,
    snapshot_index: u64,
    records_per_second: f64,
    reads_per_second: f64,
    recoveries: u64,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node_id: u64,
    role: &'static str,
    serving: bool,
    raft_term: u64,
    applied_index: u64,
    entries_behind: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Node {
    node_id: u64,
    name: String,
    address: String,
    alive: bool,
    lost: bool,
    silent_ms: i64,
    process_memory_bytes: u64,
    disk_free_bytes: u64,
}

pub(crate) async fn status(State(site): State<Arc<Site>>) -> impl IntoResponse {
    let status = cluster_status(&site.meta, &site.liveness);
    let body = Body {
        epoch: status.epoch,
        metadata_available: status.metadata_available,
        namespaces: status.namespaces,
        version: status.version,
        shards: status.shards.into_iter().map(shard).collect(),
        nodes: status.nodes.into_iter().map(node).collect(),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

fn shard(status: ShardStatus) -> Shard {
    let state = ShardState::try_from(status.state).unwrap_or(ShardState::Unspecified);
    let best = status
        .replicas
        .iter()
        .max_by_key(|replica| (replica.serving, replica.applied_index))
        .cloned()
        .unwrap_or_default();
    let replica = |replica: &ReplicaStatus| Replica {
        node_id: replica.node_id,
        role: role_name(replica),
        serving: replica.serving,
        raft_term: replica.raft_term,
        applied_index: replica.applied_index,
        entries_behind: entries_behind(&status, replica),
        reason: replica.reason.clone(),
    };
    let replicas = status.replicas.iter().map(replica).collect();
    Shard {
        shard_id: status.shard_id,
        shard_key: status.shard_key,
        incarnation: status.incarnation,
        state: label(state),
        reason: status.reason,
        terms: best.terms,
        total_count: best.total_count,
        memory_bytes: best.memory_bytes + best.repeat_table_bytes,
        applied_index: best.applied_index,
        snapshot_index: best.snapshot_index,
        records_per_second: status.records_per_second,
        reads_per_second: status.reads_per_second,
        recoveries: status.recoveries,
        replicas,
    }
}

fn node(status: NodeStatus) -> Node {
    Node {
        node_id: status.node_id,
        name: status.name,
        address: status.address,
        alive: status.alive,
        lost: status.lost,
        silent_ms: status.silent_ms,
        process_memory_bytes: status.process_memory_bytes,
        disk_free_bytes: status.disk_free_bytes,
    }
}
