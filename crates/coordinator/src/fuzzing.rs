//! A door to what a coordinator takes from its disk, from browsers, nodes, watchdogs and other coordinators, to what it makes of the
//! answers of shards, and to what its commands show of a coordinator's answers, for `crates/fuzz`.
//!
//! On failure: what is refused says why. Nothing here sends anything, and files are kept only on the disk that is given.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use api::admin::v1::{
    BeginRecoveryRequest, DrainNodeRequest, EndRecoveryRequest, GetStatusResponse,
    ListSnapshotsResponse, PromoteReplicaRequest, RecoverShardRequest, ReplaceReplicaRequest,
    ShardMap, SnapshotInfo,
};
use api::meta::v1::{AdmitRequest, GreetResponse, ProposeRequest};
use api::registry::v1::{
    ClearNamespaceRequest, RegisterRequest, ResolveNamespaceRequest, SyncRequest,
};
use api::shard::v1::{
    ChangeMembersResponse, ListResponse, SnapshotChunk, TopKResponse, WriteResponse,
};
use api::v1::{GetTopKResponse, ListTermsResponse, RecordBatchResponse};
use api::{ApiError, validate};
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Uri};
use cluster::{ClusterId, Incarnation, KeyRange, NodeId, Replica, Shard, ShardId};
use runtime::Runtime;
use serde_json::Value;
use term::NamespaceName;
use vfs::Vfs;

use crate::admin::{members, others, turns};
use crate::arrival::Next;
use crate::cli::outlook::Outlook;
use crate::cli::{map, snapshot, status};
use crate::http::origin::{self, Origin};
use crate::identity::{Identity, Membership};
use crate::liveness::{Report, voices};
use crate::metadata::{Admission, Command, Metadata};
use crate::nodes::protocols::{TopKs, Writes};
use crate::placement::audit::{Verdict, judge};
use crate::recovery::repair::steps;
use crate::routing::list::{Filled, Page};
use crate::routing::scatter::{self, Slot};
use crate::routing::writes::{self, Progress};
use crate::snapshots::{Held, Store, announced, name};
use crate::{arrival, http, identity, meta, recovery, registry};

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
    http::suggest::sound(uri)
}

/// Where a request that records comes from: nothing for this host's own page and for whoever is no browser, else a page of one of
/// the origins that are allowed.
///
/// # Errors
/// As the browser is told.
pub fn origin(headers: &HeaderMap, allowed: &[String]) -> Result<Option<HeaderValue>, ApiError> {
    Ok(match origin::check(headers, allowed)? {
        Origin::Own => None,
        Origin::Allowed(page) => Some(page),
    })
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

/// A namespace that is to be found.
///
/// # Errors
/// As the node is told.
pub fn resolve(request: &ResolveNamespaceRequest) -> Result<NamespaceName, ApiError> {
    registry::namespace(&request.name)
}

/// An operator who has a shard recovered.
///
/// # Errors
/// As the operator is told.
pub fn recover(request: &RecoverShardRequest) -> Result<(), ApiError> {
    recovery::check_acceptance(request)
}

/// The node that is to be drained.
///
/// # Errors
/// As the operator is told.
pub fn drain(metadata: &Metadata, request: &DrainNodeRequest) -> Result<NodeId, ApiError> {
    metadata.read(|state| members::named(state, "node", &request.node))
}

/// The node that is to get a replica, or whose replica a shard is to begin anew from.
///
/// # Errors
/// As the operator is told.
pub fn promote(metadata: &Metadata, request: &PromoteReplicaRequest) -> Result<NodeId, ApiError> {
    let node = metadata.read(|state| members::named(state, "node", &request.node))?;
    if request.accept_loss {
        recovery::check_words(ShardId(request.shard_id), &request.confirmation)?;
    }
    Ok(node)
}

/// Whose replica is to leave, and who is to take its place where somebody was named.
///
/// # Errors
/// As the operator is told.
pub fn replace(
    metadata: &Metadata,
    request: &ReplaceReplicaRequest,
) -> Result<(NodeId, Option<NodeId>), ApiError> {
    metadata.read(|state| members::to_replace(state, request))
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

/// A directory that asks for the place of a coordinator, of those that a cluster of 1, 2 and 3 was begun with.
///
/// # Errors
/// As the other coordinator is told.
pub fn admit(request: &AdmitRequest) -> Result<Command, ApiError> {
    Ok(Command::AdmitCoordinator(Admission {
        number: NodeId(request.coordinator_id),
        instance: meta::new_instance(request)?,
        begun: [1, 2, 3].map(|id: u8| (NodeId(id.into()), [id; 16])).into(),
    }))
}

/// What a coordinator with a new directory does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It waits.
    Waits,
    /// It founds a cluster, and writes this down.
    Founds(Vec<u8>),
    /// It belongs to a cluster, and writes this down.
    Joins(Vec<u8>),
    /// It asks for the place of the directory that it had before.
    Asks,
    /// It ends, for the cluster has no coordinator of its number.
    Ends,
}

/// What coordinator 1 does when 2 and 3 have answered its greetings; of several answers of one the last counts.
#[must_use]
pub fn arrive(answers: &[(NodeId, GreetResponse)]) -> Arrival {
    let configured = [1, 2, 3].map(NodeId);
    let understood = answers.iter().filter_map(|(from, answer)| {
        let greeting = arrival::understand(*from, &configured, answer).ok()?;
        Some((*from, greeting))
    });
    let others = [2, 3].map(|id| (NodeId(id), String::new())).into();
    let myself = Identity {
        id: NodeId(1),
        instance: [1; 16],
        membership: None,
        begun: false,
    };
    let file = |membership: Membership| {
        identity::encode(&Identity {
            membership: Some(membership),
            ..myself.clone()
        })
    };
    let cluster = ClusterId([9; 16]);
    match arrival::conclude(&myself, &others, &understood.collect()) {
        Next::Wait { missing: _ } => Arrival::Waits,
        Next::Begin(members) => Arrival::Founds(file(Membership { cluster, members })),
        Next::Join(membership) => Arrival::Joins(file(membership)),
        Next::Ask(_) => Arrival::Asks,
        Next::Refused(_) => Arrival::Ends,
    }
}

/// What a node says of a snapshot that is fetched from it.
///
/// # Errors
/// As the caller is told.
pub fn snapshot(info: SnapshotInfo) -> Result<SnapshotInfo, ApiError> {
    Held::try_from(info).map(|held| (&held).into())
}

/// What the name of a held file of so many bytes says; nothing if it is none.
#[must_use]
pub fn held_of(shard: u64, name: &str, bytes: u64) -> Option<SnapshotInfo> {
    let held = name::parse(ShardId(shard), name, bytes)?;
    Some((&held).into())
}

/// The name under which a snapshot is held.
///
/// # Errors
/// As whoever sent it is told.
pub fn held_name(info: SnapshotInfo) -> Result<String, ApiError> {
    Held::try_from(info).map(|held| name::of(&held))
}

/// A snapshot that was fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// What the node said of it.
    pub info: SnapshotInfo,
    /// What is in the file.
    pub content: Vec<u8>,
    /// What is held after the next start.
    pub held: Vec<SnapshotInfo>,
}

/// Fetches a snapshot of shard 1 from a node that sends these chunks, into a folder; nothing if it is not taken.
#[must_use]
pub fn fetch(vfs: &Arc<dyn Vfs>, dir: &Path, chunks: &[SnapshotChunk]) -> Option<Fetched> {
    let open = || Store::open(Runtime::real(), Arc::clone(vfs), dir.to_owned(), 2).ok();
    let store = open()?;
    let mut receiving = store
        .receive(announced(chunks.first()?, ShardId(1)).ok()?)
        .ok()?;
    for chunk in chunks {
        if chunk.offset != receiving.position() || receiving.take(&chunk.data).is_err() {
            store.discard(&receiving);
            return None;
        }
    }
    let held = store.publish(receiving).ok()?;
    let mut content = Vec::new();
    store.read(&held).ok()?.read_to_end(&mut content).ok()?;
    Some(Fetched {
        info: (&held).into(),
        content,
        held: open()?.list().iter().map(Into::into).collect(),
    })
}

/// What the client hears of a batch, all of which one shard owns, when that gives one of these answers to each try.
///
/// # Errors
/// As the client is told.
pub fn written(
    batch: &validate::RecordBatch,
    tries: Vec<WriteResponse>,
) -> Result<RecordBatchResponse, ApiError> {
    let mut progress = Progress::new(batch);
    let numbers: Vec<usize> = (0..batch.items.len()).collect();
    for answer in tries {
        let taken = Writes::answered(answer)
            .and_then(writes::written)
            .and_then(|written| progress.take(&numbers, written));
        match taken {
            Ok(()) => break,
            Err(error) => progress.fail(&numbers, &error, false),
        }
    }
    progress.into_response()
}

/// What the client hears of a completion whose parts shards 1, 2, ... own, by what each answers.
///
/// # Errors
/// As the client is told.
pub fn completed(
    ask: &validate::GetTopK,
    parts: Vec<(KeyRange, TopKResponse)>,
) -> Result<GetTopKResponse, ApiError> {
    let slots = (1..).zip(parts).map(|(number, (range, answer))| {
        let (shard, node) = (ShardId(number), NodeId(number));
        let part = TopKs::answered(answer)
            .and_then(|answer| scatter::checked(ask, answer, (&range, shard), node));
        Slot::tried(range, shard, part)
    });
    scatter::assemble(ask, slots.collect())
}

/// The page of so many terms that shards 1, 2, ... fill, by what each answers in its turn; nothing if none answers.
///
/// # Errors
/// As the client is told.
pub fn listed(
    size: usize,
    answers: Vec<ListResponse>,
) -> Result<Option<ListTermsResponse>, ApiError> {
    let count = answers.len();
    let mut page = Page::default();
    for (place, answer) in (1..).zip(answers) {
        let shard = ShardId(place as u64);
        page = match page.take(shard, answer.into(), size, place == count)? {
            Filled::GoesOn(page) => page,
            Filled::Ends(answer) => return Ok(Some(answer)),
        };
    }
    Ok(None)
}

/// A member of a group that the map does not show, by what its leader says, and whether the members are those of the map.
#[must_use]
pub fn members(answer: &ChangeMembersResponse, shown: &[Replica]) -> (Option<NodeId>, bool) {
    let stranger = steps::stranger(&answer.members, shown);
    (stranger, steps::are_members(&answer.members, shown))
}

/// What `coordinator map` prints of an answer, a table each.
#[must_use]
pub fn map_tables(map: &ShardMap) -> Vec<String> {
    let tables = map::tables_of(map);
    tables.iter().map(ToString::to_string).collect()
}

/// What `coordinator map --json` prints of an answer.
#[must_use]
pub fn map_json(map: &ShardMap) -> Value {
    map::as_json(map)
}

/// What a person is told before the loss of a part of a shard is accepted, by a status and by what each coordinator holds: for a
/// recovery, and for a promotion of the replica of a node.
#[must_use]
pub fn outlook(
    (shard, node): (u64, &str),
    status: GetStatusResponse,
    held: Vec<ListSnapshotsResponse>,
) -> [Vec<String>; 2] {
    let held = (1..).zip(held);
    let held = held.map(|(place, held)| (format!("coordinator-{place}:1"), Ok(held.snapshots)));
    let outlook = Outlook {
        shard,
        status: Ok(status),
        held: held.collect(),
    };
    [outlook.of_recovery(), outlook.of_promotion(node)]
}

/// What `coordinator status` prints of an answer, at a moment of the wall clock.
#[must_use]
pub fn status_text(status: &GetStatusResponse, now_ms: i64) -> String {
    status::as_text(status, now_ms)
}

/// What `coordinator status --json` prints of an answer.
#[must_use]
pub fn status_json(status: &GetStatusResponse) -> Value {
    status::as_json(status)
}

/// What `coordinator snapshot list` prints of an answer.
#[must_use]
pub fn snapshot_table(listed: &ListSnapshotsResponse) -> String {
    snapshot::table_of(&listed.snapshots).to_string()
}

/// A status, once the other coordinators that are in it have answered, in their order; one without an answer is left as it is.
#[must_use]
pub fn heard_from_others(
    mut status: GetStatusResponse,
    answers: Vec<GetStatusResponse>,
) -> GetStatusResponse {
    let asked = status.coordinators.iter().filter(|at| !at.answers);
    let said = asked
        .zip(answers)
        .map(|(other, answer)| others::actions_of(other, answer))
        .collect();
    others::add(&mut status, said);
    status
}
