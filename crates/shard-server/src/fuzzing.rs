//! A door to what a shard server takes from its disk and from coordinators, for `crates/fuzz`.
//!
//! On failure: what is refused says why. Nothing here sends anything, and files are kept only on the disk that is given.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::shard::v1 as wire;
use cluster::{Incarnation, ShardId};
use replication::SnapshotFile;
use vfs::Vfs;

use crate::node::{Seeds, identity, memory, view_of};
use crate::service::{members, snapshots, writes};
use crate::state::Write;

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

/// A step of a change of members.
///
/// # Errors
/// As the coordinator is told.
pub fn change_members(request: wire::ChangeMembersRequest) -> Result<(), ApiError> {
    members::checked(request, Duration::from_secs(1)).map(drop)
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
