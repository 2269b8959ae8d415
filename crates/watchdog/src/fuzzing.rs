//! A door to what coordinators, shard servers and a Docker Engine answer to a watchdog, for `crates/fuzz`.

use std::collections::BTreeMap;

use api::admin::v1::{GetStatusResponse, ShardMap};
use api::shard::v1::GetNodeResponse;
use cluster::ShardId;
use hyper::StatusCode;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckResponse;

use crate::NodeTarget;
use crate::fleet::Fleet;
use crate::prober::{self, Answer};
use crate::restart::{RestartError, container};

/// Where the engine is asked to restart the container of node `n7`, of those that it lists for it.
///
/// # Errors
/// What is told of the attempt.
pub fn restart_path(listed: &[u8]) -> Result<String, RestartError> {
    container::only_one("n7", listed).map(|id| container::restart_path(&id))
}

/// What is told of an attempt that the engine refuses with this body.
#[must_use]
pub fn refused(body: &[u8]) -> RestartError {
    container::refused(StatusCode::INTERNAL_SERVER_ERROR, body)
}

/// What is watched after an answer of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The shards, and where each is looked for.
    pub shards: BTreeMap<ShardId, Vec<NodeTarget>>,
    /// How many of them the coordinator does not see serving.
    pub down: usize,
    /// The nodes that somebody waits for.
    pub nodes: Vec<NodeTarget>,
    /// How many of them the coordinator does not hear of.
    pub silent: usize,
}

/// What is watched after a coordinator's status and map, and once it has not been heard of for a while.
#[must_use]
pub fn watched(status: &GetStatusResponse, map: &ShardMap) -> [Watched; 2] {
    let fleet = Fleet::new(status, map);
    let later = fleet.without_reports();
    [fleet, later].map(shown)
}

/// Whether a service serves whose process answers with this status, or refuses with this code; nothing if that says nothing.
#[must_use]
pub fn served(answer: Result<i32, i32>) -> Option<bool> {
    let answer = answer.map(|status| HealthCheckResponse { status });
    prober::served(answer.map_err(|code| Status::new(Code::from_i32(code), "")))
}

/// A number that moves while a shard gets on that does not serve, by what coordinators tell of it and each of its processes says.
#[must_use]
pub fn progress(told: Option<u64>, processes: &[GetNodeResponse]) -> Option<u64> {
    let answer = |process: &GetNodeResponse| {
        let opening = process.opening_bytes;
        opening.map_or(Answer::NotServing, Answer::Opening)
    };
    let answers: Vec<Answer> = processes.iter().map(answer).collect();
    prober::progress(told, &answers)
}

fn shown(fleet: Fleet) -> Watched {
    let (down, silent) = (fleet.down(), fleet.silent_nodes());
    let shards = fleet.shards.into_iter();
    let nodes = fleet.nodes.into_values();
    Watched {
        shards: shards.map(|(id, shard)| (id, shard.nodes)).collect(),
        down,
        nodes: nodes.map(|node| node.target).collect(),
        silent,
    }
}
