//! Snapshots on the wire: described, read in pieces, taken in.

use std::collections::BTreeMap;

use api::admin::v1::SnapshotInfo;
use api::{ApiError, Reason};
use bytes::Bytes;
use cluster::limits::SNAPSHOT_CHUNK_BYTES;
use cluster::{Incarnation, ShardId};
use parking_lot::Mutex;
use replication::{SnapshotError, SnapshotFile};
use runtime::Runtime;

use crate::node::{SeedError, whole_hash};

/// Hashes of whole files that were asked for; making one reads the file.
#[derive(Debug, Default)]
pub(super) struct Hashes(Mutex<BTreeMap<[u8; 32], [u8; 32]>>);

/// Hashes that are kept.
const HASHES_MAX: usize = 64;

impl Hashes {
    /// What a snapshot is, for the wire.
    pub(super) async fn describe(
        &self,
        runtime: &Runtime,
        place: (ShardId, Incarnation),
        file: &SnapshotFile,
    ) -> Result<SnapshotInfo, ApiError> {
        let info = file.info();
        Ok(SnapshotInfo {
            shard_id: place.0.0,
            incarnation: place.1.0,
            raft_term: info.applied.term,
            index: info.applied.index,
            bytes: info.bytes,
            hash: self.whole(runtime, file).await?.to_vec().into(),
            taken_at_ms: info.taken_at_ms,
        })
    }

    async fn whole(&self, runtime: &Runtime, file: &SnapshotFile) -> Result<[u8; 32], ApiError> {
        let content = file.info().hash;
        if let Some(known) = self.0.lock().get(&content) {
            return Ok(*known);
        }
        let read = file.clone();
        let hash = runtime
            .spawn_blocking("snapshot-hash", move || whole_hash(&read))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| snapshot_error(&error))?;
        let mut hashes = self.0.lock();
        if hashes.len() >= HASHES_MAX {
            hashes.pop_first();
        }
        hashes.insert(content, hash);
        Ok(hash)
    }
}

/// Reads one piece of a snapshot; empty at its end. May block.
pub(super) fn piece(
    vfs: &dyn vfs::Vfs,
    file: &SnapshotFile,
    offset: u64,
) -> Result<Bytes, vfs::Error> {
    let opened = vfs.open_read(file.path())?;
    let mut buffer = vec![0; SNAPSHOT_CHUNK_BYTES];
    let read = opened.read_full_at(&mut buffer, offset)?;
    buffer.truncate(read);
    Ok(buffer.into())
}

/// Whether what is to be pushed is named as it must be.
pub(crate) fn check_announced(
    incarnation: Incarnation,
    announced: &SnapshotInfo,
) -> Result<(), ApiError> {
    if incarnation.0 == 0 {
        let field = "target_incarnation";
        return Err(ApiError::field(Reason::BadArgument, field, "must be set"));
    }
    let bytes = announced.hash.len();
    if bytes != blake3::OUT_LEN {
        let problem = format!("{bytes} bytes, must be {}", blake3::OUT_LEN);
        return Err(ApiError::field(
            Reason::BadArgument,
            "snapshot.hash",
            problem,
        ));
    }
    Ok(())
}

pub(super) fn snapshot_error(error: &SnapshotError) -> ApiError {
    let reason = match error {
        full if full.is_disk_full() => Reason::DiskFull,
        SnapshotError::Empty => Reason::UnknownSnapshot,
        SnapshotError::Stopped { .. } => Reason::Stopped,
        SnapshotError::Damaged { .. } | SnapshotError::Restore(_) => Reason::DataLoss,
        SnapshotError::Version { .. } | SnapshotError::Io(_) | SnapshotError::Disk(_) => {
            // Errors of files name paths, which callers need not know.
            tracing::error!(%error, "a snapshot cannot be read or written");
            return ApiError::internal("the snapshot cannot be read or written");
        }
    };
    ApiError::new(reason, error.to_string())
}

pub(super) fn seed_error(error: &SeedError) -> ApiError {
    match error {
        SeedError::Hash | SeedError::Content(_) => {
            ApiError::new(Reason::DataLoss, error.to_string())
        }
        SeedError::Order { .. } | SeedError::Length { .. } => {
            ApiError::new(Reason::BadArgument, error.to_string())
        }
        SeedError::UnderWay => ApiError::new(Reason::NotNeeded, error.to_string()),
        SeedError::Disk(disk) if disk.is_disk_full() => {
            ApiError::new(Reason::DiskFull, "the disk is full")
        }
        SeedError::Disk(_) | SeedError::Write(_) => {
            tracing::error!(%error, "a snapshot cannot be taken in");
            ApiError::internal("the snapshot cannot be written")
        }
    }
}
