//! Snapshots on their way: what a replica sends another, what a coordinator pushes to a node, and what it fetches from one.
//!
//! An input is the messages. What a coordinator asks to have a snapshot taken or read, a node looks up by numbers, and nothing
//! else is in it.

use std::path::Path;
use std::sync::Arc;

use api::admin::v1::SnapshotInfo;
use api::raft::v1::{InstallSnapshotRequest, SnapshotHeader, Vote};
use api::shard::v1::{SendSnapshotRequest, SnapshotChunk};
use bytes::Bytes;
use prost::Message;
use replication::SnapshotFile;
use replication::fuzzing::Replica;
use vfs::{SimDisk, Vfs, durable};

use super::snapshots::file_seeds;
use super::{join, pieces, sure};
use crate::{Target, mend};

/// The largest snapshot that a test input makes, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where the hash of the content stands before the end of a snapshot file.
const HASH_TO_END: usize = 40;
/// Kinds of messages of a replica: the first of another transfer, when the one before has broken off; and the offer of a snapshot.
/// All others belong to the transfer that was begun.
const BEGINS: u8 = 1;
const OFFER: u8 = 2;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "snapshot-install",
            run: install,
            mend: |input| mend_messages::<InstallSnapshotRequest>(input),
            seeds: || [seeds(InstallSnapshotRequest::of), vec![broken_off()]].concat(),
            quick: 4_000,
        },
        Target {
            name: "snapshot-push",
            run: push,
            mend: |input| mend_messages::<SendSnapshotRequest>(input),
            seeds: || seeds(SendSnapshotRequest::of),
            quick: 4_000,
        },
        Target {
            name: "snapshot-fetch",
            run: fetch,
            mend: |input| mend_messages::<SnapshotChunk>(input),
            seeds: || {
                let early = |first, offset, data: &[u8], file: &[u8]| {
                    let mut chunk = SnapshotChunk::of(first, offset, data, file);
                    if let Some(info) = &mut chunk.snapshot {
                        info.taken_at_ms = -1;
                    }
                    chunk
                };
                [seeds(SnapshotChunk::of), seeds(early)].concat()
            },
            quick: 4_000,
        },
    ]
}

/// A message that carries a piece of a file; the first one says what the whole is.
trait Piece: Message + Default {
    fn of(first: bool, offset: u64, data: &[u8], file: &[u8]) -> Self;
    fn offset(&self) -> u64;
    fn data(&mut self) -> &mut Bytes;
    /// Says anew what the whole is, if it does.
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

    fn offset(&self) -> u64 {
        self.offset
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

    fn offset(&self) -> u64 {
        self.offset
    }

    fn data(&mut self) -> &mut Bytes {
        &mut self.data
    }

    fn announce(&mut self, file: &[u8]) {
        announce(self.snapshot.as_mut(), file);
    }
}

impl Piece for SnapshotChunk {
    fn of(first: bool, offset: u64, data: &[u8], file: &[u8]) -> Self {
        let mut message = Self {
            snapshot: None,
            offset,
            data: Bytes::copy_from_slice(data),
        };
        if first {
            message.snapshot = Some(SnapshotInfo {
                shard_id: 1,
                incarnation: 2,
                raft_term: 3,
                index: 77,
                taken_at_ms: 1_700_000,
                ..SnapshotInfo::default()
            });
            message.announce(file);
        }
        message
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn data(&mut self) -> &mut Bytes {
        &mut self.data
    }

    fn announce(&mut self, file: &[u8]) {
        announce(self.snapshot.as_mut(), file);
    }
}

/// Has a first message name the length and the hash of the file that follows.
fn announce(info: Option<&mut SnapshotInfo>, file: &[u8]) {
    if let Some(info) = info {
        let hash = blake3::hash(file);
        info.bytes = file.len() as u64;
        info.hash = Bytes::copy_from_slice(hash.as_bytes());
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

/// A transfer that broke off, an offer, and another transfer that goes on from where that one ended.
fn broken_off() -> Vec<u8> {
    const HERE: usize = 140;
    let files = file_seeds();
    let file = files.first().map(Vec::as_slice).unwrap_or_default();
    let (before, after) = file.split_at(HERE.min(file.len()));
    let offset = before.len() as u64;
    // What stands in an offer stands in the same places in the first message of a transfer.
    let messages = [
        (0, InstallSnapshotRequest::of(true, 0, before, file)),
        (OFFER, InstallSnapshotRequest::of(true, 0, &[], file)),
        (
            BEGINS,
            InstallSnapshotRequest::of(true, offset, after, file),
        ),
    ];
    let messages = messages.map(|(kind, message)| (kind, message.encode_to_vec()));
    join(
        messages
            .iter()
            .map(|(kind, message)| (*kind, message.as_slice())),
    )
}

fn decoded<M: Piece>(input: &[u8]) -> Option<Vec<(u8, M)>> {
    let decode = |(kind, bytes): (u8, &[u8])| Some((kind, M::decode(bytes).ok()?));
    pieces(input).into_iter().map(decode).collect()
}

fn messages<M: Piece>(input: &[u8]) -> Option<Vec<M>> {
    let decoded = decoded(input)?;
    Some(decoded.into_iter().map(|(_, message)| message).collect())
}

fn whole<M: Piece>(messages: &mut [M]) -> Vec<u8> {
    let mut file = Vec::new();
    for message in messages {
        file.extend_from_slice(message.data());
    }
    file
}

/// Makes the file whole in itself, and has the messages announce it, where that takes as many bytes as before.
fn mend_messages<M: Piece>(input: &mut [u8]) {
    let Some(mut messages) = decoded::<M>(input) else {
        return;
    };
    let place = |message: &mut M| {
        let start = usize::try_from(message.offset()).ok()?;
        Some(start..start.checked_add(message.data().len())?)
    };
    let mut file = Vec::new();
    for (_, message) in &mut messages {
        match place(message) {
            Some(place) if !place.is_empty() && place.start <= file.len() => {
                file.truncate(place.start);
                file.extend_from_slice(message.data());
            }
            Some(_) | None => {}
        }
    }
    mend::snapshot_file(&mut file);
    for (_, message) in &mut messages {
        let mended = place(message).and_then(|place| file.get(place));
        if let Some(mended) = mended {
            *message.data() = Bytes::copy_from_slice(mended);
        }
        message.announce(&file);
    }
    let encoded = messages
        .iter()
        .map(|(kind, message)| (*kind, message.encode_to_vec()));
    let encoded: Vec<(u8, Vec<u8>)> = encoded.collect();
    let mended = join(
        encoded
            .iter()
            .map(|(kind, message)| (*kind, message.as_slice())),
    );
    if mended.len() == input.len() {
        input.copy_from_slice(&mended);
    }
}

fn disk() -> (Arc<dyn Vfs>, &'static Path) {
    (Arc::new(SimDisk::new()), Path::new("/snapshots"))
}

/// What is accepted is what was sent, from an offset on, and verifies.
fn accepted(vfs: &Arc<dyn Vfs>, file: &SnapshotFile, offset: u64, sent: &[u8]) {
    let found = sure(durable::read(vfs.as_ref(), file.path(), FILE_BYTES_MAX));
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    assert_eq!(found.get(from..), Some(sent));
    let again = sure(SnapshotFile::open(Arc::clone(vfs), file.path()));
    assert_eq!(again.info(), file.info());
}

fn install(input: &[u8]) {
    let (vfs, dir) = disk();
    let Some(mut replica) = Replica::new(&vfs, dir) else {
        return;
    };
    let mut transfer = Vec::new();
    for (kind, message) in pieces(input) {
        if matches!(kind, BEGINS | OFFER) {
            receive(&vfs, &mut replica, &std::mem::take(&mut transfer));
        }
        if kind == OFFER {
            offer(&mut replica, message);
        } else {
            transfer.push(message);
        }
    }
    receive(&vfs, &mut replica, &transfer);
}

fn receive(vfs: &Arc<dyn Vfs>, replica: &mut Replica, messages: &[&[u8]]) {
    let Some(file) = replica.receive(messages) else {
        return;
    };
    let decode = |bytes: &&[u8]| InstallSnapshotRequest::decode(*bytes).ok();
    let mut messages: Vec<InstallSnapshotRequest> = messages.iter().filter_map(decode).collect();
    let offset = messages.first().map_or(0, Piece::offset);
    accepted(vfs, &file, offset, &whole(&mut messages));
}

/// Who goes on from where an offer is answered loses nothing of what is there.
fn offer(replica: &mut Replica, message: &[u8]) {
    let Some(here) = replica.lacks(message) else {
        return;
    };
    // An offer is the first message of a transfer, but for the place where that begins.
    let Ok(mut first) = InstallSnapshotRequest::decode(message) else {
        return;
    };
    let bytes = first.header.as_ref().map_or(0, |header| header.bytes);
    assert!(here <= bytes, "not more than the file has");
    if here > 0 && here < bytes {
        (first.offset, first.data) = (here, Bytes::new());
        let received = replica.receive(&[&first.encode_to_vec()]);
        assert!(received.is_none(), "it is not whole");
        assert_eq!(replica.lacks(message), Some(here));
    }
}

fn push(input: &[u8]) {
    let (vfs, dir) = disk();
    let Some(mut messages) = messages::<SendSnapshotRequest>(input) else {
        return;
    };
    if let Some(file) = shard_server::fuzzing::push(&vfs, dir, &messages) {
        accepted(&vfs, &file, 0, &whole(&mut messages));
    }
}

/// What is held is what was sent, and is found by the next start.
fn fetch(input: &[u8]) {
    let (vfs, dir) = disk();
    let Some(mut chunks) = messages::<SnapshotChunk>(input) else {
        return;
    };
    let Some(fetched) = coordinator::fuzzing::fetch(&vfs, dir, &chunks) else {
        return;
    };
    let told = chunks.first().and_then(|first| first.snapshot.as_ref());
    assert_eq!(told, Some(&fetched.info));
    assert_eq!(fetched.content, whole(&mut chunks));
    assert_eq!(fetched.held, [fetched.info]);
}
