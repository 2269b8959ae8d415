//! A door to what a coordinator takes from its disk, from browsers, nodes, watchdogs and other coordinators, for `crates/fuzz`.
//!
//! On failure: what is refused says why. Nothing here keeps or sends anything.

use api::admin::v1::{BeginRecoveryRequest, EndRecoveryRequest, SnapshotInfo};
use api::meta::v1::{GreetResponse, ProposeRequest};
use api::registry::v1::{ClearNamespaceRequest, RegisterRequest, SyncRequest};
use api::{ApiError, validate};
use axum::Json;
use axum::extract::Query;
use axum::http::Uri;
use cluster::{Incarnation, NodeId, Replica, Shard, ShardId};

use crate::admin::turns;
use crate::liveness::{Report, voices};
use crate::metadata::Command;
use crate::placement::audit::{Verdict, judge};
use crate::snapshots::Held;
use crate::{arrival, http, identity, meta, registry};

/// Reads the file that says who a coordinator is, and writes what it says; nothing if it says nothing.
#[must_use]
pub fn identity(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = identity::decode(bytes).ok()?;
    Some(identity::encode(&found))
}

/// The body of a request to record.
///
/// # Errors
/// As the browser is told.
pub fn record(body: &[u8]) -> Result<validate::Record, ApiError> {
    http::record::sound(Json::from_bytes(body))
}

/// The query of a request for suggestions.
///
/// # Errors
/// As the browser is told.
pub fn question(uri: &Uri) -> Result<validate::GetTopK, ApiError> {
    http::suggest::sound(Query::try_from_uri(uri))
}

/// A node that registers.
///
/// # Errors
/// As the node is told.
pub fn register(request: RegisterRequest) -> Result<Command, ApiError> {
    registry::registration(request).map(Command::RegisterNode)
}

/// Reports of nodes 1, 2, ..., which vote in life 1 of shard 1: what comparing their replicas comes to.
///
/// # Errors
/// As the first node is told whose report is refused.
pub fn reports(requests: Vec<SyncRequest>) -> Result<Option<Verdict>, ApiError> {
    requests.iter().try_for_each(registry::check_report)?;
    let nodes = (1..).map(NodeId);
    let reports: Vec<(NodeId, Report)> = nodes
        .zip(requests)
        .map(|(node, request)| (node, registry::report_of(request)))
        .collect();
    let shard = Shard {
        id: ShardId(1),
        incarnation: Incarnation::FIRST,
        replicas: reports
            .iter()
            .map(|(node, _)| Replica {
                node: *node,
                voter: true,
            })
            .collect(),
        lineage: Vec::new(),
    };
    let of = |node| {
        let found = reports.iter().find(|(at, _)| *at == node);
        found.map(|(_, report)| report)
    };
    Ok(judge(&voices(&shard, of)))
}

/// A namespace that is to be cleared.
///
/// # Errors
/// As the node is told.
pub fn clear(request: ClearNamespaceRequest) -> Result<validate::ClearNamespace, ApiError> {
    registry::clear_of(request)
}

/// A watchdog that asks for a turn.
///
/// # Errors
/// As the watchdog is told.
pub fn begin_recovery(request: BeginRecoveryRequest) -> Result<Command, ApiError> {
    turns::checked(request).map(Command::BeginRecovery)
}

/// A watchdog that gives a turn back.
///
/// # Errors
/// As the watchdog is told.
pub fn end_recovery(request: EndRecoveryRequest) -> Result<Command, ApiError> {
    turns::checked_end(request).map(Command::EndRecovery)
}

/// A change that another coordinator brings to the leader.
///
/// # Errors
/// As the other coordinator is told.
pub fn propose(request: &ProposeRequest) -> Result<Command, ApiError> {
    meta::known_change(request).map(|(_, change)| change)
}

/// What coordinator 2 answers to a greeting of one that is configured for 1, 2 and 3.
///
/// # Errors
/// What is said in the log.
pub fn greeting(answer: &GreetResponse) -> Result<(), String> {
    let configured = [1, 2, 3].map(NodeId);
    arrival::understand(NodeId(2), &configured, answer).map(drop)
}

/// What a node says of a snapshot that is fetched from it.
///
/// # Errors
/// As the caller is told.
pub fn snapshot(info: SnapshotInfo) -> Result<SnapshotInfo, ApiError> {
    Held::try_from(info).map(|held| (&held).into())
}
