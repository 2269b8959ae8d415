//! Snapshots on their way: what a replica sends another, and what a coordinator pushes to a node.

use std::path::Path;
use std::sync::Arc;

use api::admin::v1::SnapshotInfo;
use api::raft::v1::{InstallSnapshotRequest, SnapshotHeader, Vote};
use api::shard::v1::SendSnapshotRequest;
use bytes::Bytes;
use prost::Message;
use replication::SnapshotFile;
use vfs::{SimDisk, Vfs, durable};

use super::snapshots::file_seeds;
use super::{join, pieces, sure};
use crate::{Target, mend};

/// The largest snapshot that a test input makes, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where the hash of the content stands before the end of a snapshot file.
const HASH_TO_END: usize = 40;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "snapshot-install",
            run: install,
            mend: |input| mend_messages::<InstallSnapshotRequest>(input),
            seeds: || seeds(InstallSnapshotRequest::of),
            quick: 4_000,
        },
        Target {
            name: "snapshot-push",
            run: push,
            mend: |input| mend_messages::<SendSnapshotRequest>(input),
            seeds: || seeds(SendSnapshotRequest::of),
            quick: 4_000,
        },
    ]
}

/// A message that carries a piece of a file; the first one says what the whole is.
trait Piece: Message + Default {
    fn of(first: bool, offset: u64, data: &[u8], file: &[u8]) -> Self;
    fn data(&mut self) -> &mut Bytes;
    /// Says anew what the whole is, in the first message.
    fn announce(&mut self, file: &[u8]);
}

impl Piece for InstallSnapshotRequest {
    fn of(first: bool, offset: u64, data: &[u8], file: &[u8]) -> Self {
        let mut message = Self {
            offset,
            data: Bytes::copy_from_slice(data),
            ..Self::default()
        };
        if first {
            message.vote = Some(Vote {
                term: 3,
                node_id: 1,
                committed: true,
            });
            message.header = Some(SnapshotHeader::default());
            message.announce(file);
        }
        message
    }

    fn data(&mut self) -> &mut Bytes {
        &mut self.data
    }

    fn announce(&mut self, file: &[u8]) {
        if let Some(header) = &mut self.header {
            let at = file.len().saturating_sub(HASH_TO_END);
            let hash = file.get(at..at + 32).unwrap_or_default();
            (header.bytes, header.hash) = (file.len() as u64, Bytes::copy_from_slice(hash));
        }
    }
}

impl Piece for SendSnapshotRequest {
    fn of(first: bool, offset: u64, data: &[u8], file: &[u8]) -> Self {
        let mut message = Self {
            offset,
            data: Bytes::copy_from_slice(data),
            ..Self::default()
        };
        if first {
            message.target_incarnation = 2;
            message.snapshot = Some(SnapshotInfo {
                shard_id: 1,
                incarnation: 1,
                ..SnapshotInfo::default()
            });
            message.announce(file);
        }
        message
    }

    fn data(&mut self) -> &mut Bytes {
        &mut self.data
    }

    fn announce(&mut self, file: &[u8]) {
        if let Some(info) = &mut self.snapshot {
            let hash = blake3::hash(file);
            info.bytes = file.len() as u64;
            info.hash = Bytes::copy_from_slice(hash.as_bytes());
        }
    }
}

/// In one message, and in several.
fn seeds<M: Piece>(of: fn(bool, u64, &[u8], &[u8]) -> M) -> Vec<Vec<u8>> {
    let files = file_seeds();
    let file = files.first().map(Vec::as_slice).unwrap_or_default();
    let cut = |piece_bytes: usize| {
        let mut offset = 0;
        let mut messages = Vec::new();
        for data in file.chunks(piece_bytes) {
            messages.push(of(offset == 0, offset, data, file).encode_to_vec());
            offset += data.len() as u64;
        }
        join(messages.iter().map(|message| (0, message.as_slice())))
    };
    vec![cut(file.len().max(1)), cut(70)]
}

fn decoded<M: Piece>(input: &[u8]) -> Option<Vec<M>> {
    let decode = |(_, bytes): (u8, &[u8])| M::decode(bytes).ok();
    pieces(input).into_iter().map(decode).collect()
}

fn whole<M: Piece>(messages: &mut [M]) -> Vec<u8> {
    let mut file = Vec::new();
    for message in messages {
        file.extend_from_slice(message.data());
    }
    file
}

/// Makes the file whole in itself, and has the first message announce it, where that takes as many bytes as before.
fn mend_messages<M: Piece>(input: &mut [u8]) {
    let Some(mut messages) = decoded::<M>(input) else {
        return;
    };
    let mut file = whole(&mut messages);
    mend::snapshot_file(&mut file);
    let mut rest = file.as_slice();
    for message in &mut messages {
        let (data, after) = rest.split_at(message.data().len());
        *message.data() = Bytes::copy_from_slice(data);
        rest = after;
    }
    if let Some(first) = messages.first_mut() {
        first.announce(&file);
    }
    let encoded: Vec<Vec<u8>> = messages.iter().map(Message::encode_to_vec).collect();
    let mended = join(encoded.iter().map(|message| (0, message.as_slice())));
    if mended.len() == input.len() {
        input.copy_from_slice(&mended);
    }
}

fn disk() -> (Arc<dyn Vfs>, &'static Path) {
    (Arc::new(SimDisk::new()), Path::new("/snapshots"))
}

/// What is accepted is what was sent, and verifies.
fn accepted(vfs: &Arc<dyn Vfs>, file: &SnapshotFile, sent: &[u8]) {
    let found = sure(durable::read(vfs.as_ref(), file.path(), FILE_BYTES_MAX));
    assert_eq!(found, sent);
    let again = sure(SnapshotFile::open(Arc::clone(vfs), file.path()));
    assert_eq!(again.info(), file.info());
}

fn install(input: &[u8]) {
    let (vfs, dir) = disk();
    let messages = pieces(input);
    let messages: Vec<&[u8]> = messages.into_iter().map(|(_, bytes)| bytes).collect();
    if let Some(file) = replication::fuzzing::receive_snapshot(&vfs, dir, &messages) {
        let mut messages = decoded::<InstallSnapshotRequest>(input).unwrap_or_default();
        accepted(&vfs, &file, &whole(&mut messages));
    }
}

fn push(input: &[u8]) {
    let (vfs, dir) = disk();
    let Some(mut messages) = decoded::<SendSnapshotRequest>(input) else {
        return;
    };
    if let Some(file) = shard_server::fuzzing::push(&vfs, dir, &messages) {
        accepted(&vfs, &file, &whole(&mut messages));
    }
}
