//! A door to what a shard server takes from its disk and from coordinators, for `crates/fuzz`.
//!
//! On failure: what is refused says why. Nothing here sends anything, and files are kept only on the disk that is given.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::registry::v1::{RegisterResponse, ResolveNamespaceResponse};
use api::shard::v1 as wire;
use api::{ApiError, Consistency};
use cluster::{Incarnation, Namespace, NodeId, ShardId};
use replication::SnapshotFile;
use vfs::Vfs;

use crate::node;
use crate::node::{IdentityFile, Seeds, identity, memory, view_of};
use crate::service::{members, shard, snapshots, writes};
use crate::state::{Scope, Write};

/// Reads the file that says who a node is, and writes what it says; nothing if it says nothing.
#[must_use]
pub fn identity(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = identity::decode(bytes).ok()?;
    Some(identity::encode(&found))
}

/// Reads the file of remembered orders, makes of its map what a start makes of it, and writes what the file says; nothing if it
/// says nothing.
#[must_use]
pub fn orders(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = memory::decode(bytes).ok()?;
    drop(view_of(&found.orders));
    Some(memory::encode(&found))
}

/// The writes of a request.
///
/// # Errors
/// As the coordinator is told.
pub fn writes(request: wire::WriteRequest) -> Result<Vec<Write>, ApiError> {
    writes::checked(request.writes)
}

/// Where a count is looked up.
///
/// # Errors
/// As the coordinator is told.
pub fn count(request: &wire::CountRequest) -> Result<Scope, ApiError> {
    writes::check_term(&request.term)?;
    let scope = shard::scope(request.namespace_id, request.generation)?;
    Consistency::parse(request.consistency)?;
    Ok(scope)
}

/// What is cleared.
///
/// # Errors
/// As the coordinator is told.
pub fn clear(request: &wire::ClearRequest) -> Result<Scope, ApiError> {
    shard::scope(request.namespace_id, request.generation)
}

/// A step of a change of members: the node that it is about, and those that are not waited for.
///
/// # Errors
/// As the coordinator is told.
pub fn change_members(
    request: wire::ChangeMembersRequest,
) -> Result<(NodeId, Vec<NodeId>), ApiError> {
    let change = members::checked(request, Duration::from_secs(1))?;
    Ok((change.peer.node, change.lost))
}

/// What a node that registers writes down of the answer.
///
/// # Errors
/// What is said in the log.
pub fn registered(answer: &RegisterResponse) -> Result<Vec<u8>, ApiError> {
    let file = IdentityFile {
        instance: [5; 16],
        registered: Some(node::issued(answer)?),
        name: "shard-1".to_owned(),
    };
    Ok(identity::encode(&file))
}

/// The namespace that a coordinator found by its name.
///
/// # Errors
/// As the client is told.
pub fn resolved(answer: ResolveNamespaceResponse) -> Result<Option<Namespace>, ApiError> {
    node::resolved(answer)
}

/// Takes in a snapshot that is pushed in these messages; the file, and what the start of its incarnation finds, if it is kept.
#[must_use]
pub fn push(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    messages: &[wire::SendSnapshotRequest],
) -> Option<SnapshotFile> {
    let first = messages.first()?;
    let announced = first.snapshot.as_ref()?;
    let (shard, incarnation) = (
        ShardId(announced.shard_id),
        Incarnation(first.target_incarnation),
    );
    snapshots::check_announced(incarnation, announced).ok()?;
    let seeds = Seeds::new(Arc::clone(vfs), dir);
    seeds.open().ok()?;
    let mut incoming = seeds.receive(shard, incarnation, announced).ok()?;
    for message in messages {
        incoming.piece(message.offset, &message.data).ok()?;
    }
    incoming.finish().ok()?;
    seeds.find(shard, incarnation, &announced.hash).ok()?
}
