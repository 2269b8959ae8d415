//! Sending a snapshot in pieces, no faster than [`SNAPSHOT_BYTES_PER_SECOND`].

use std::io::Read as _;
use std::time::Duration;

use api::raft::v1 as wire;
use cluster::limits::SNAPSHOT_BYTES_PER_SECOND;
use futures::Stream;
use runtime::{Pace, Runtime, TaskFailed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::PIECE_BYTES;
use crate::SnapshotError;
use crate::convert;
use crate::raft::Vote;
use crate::snapshot::SnapshotFile;

/// Pieces read ahead of the network.
const PIECES_AHEAD: usize = 2;
/// Time for the receiver to verify, decode and sync, whatever the size.
const BASE_LIMIT: Duration = Duration::from_secs(60);
/// The slowest transfer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// How long a snapshot of a size may take in all.
pub(super) fn time_limit(bytes: u64) -> Duration {
    BASE_LIMIT + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

/// The messages of one transfer, which begins at an offset; at least one, for the receiver knows the file by the first. A file that
/// cannot be read ends the stream early, which the receiver notices.
pub(super) fn send(
    runtime: &Runtime,
    envelope: wire::Envelope,
    vote: &Vote,
    file: &SnapshotFile,
    mut offset: u64,
) -> impl Stream<Item = wire::InstallSnapshotRequest> + Send + 'static {
    let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
    let mut first = Some((envelope, convert::vote_to_wire(vote), header(file)));
    let pace = Pace::new(runtime, SNAPSHOT_BYTES_PER_SECOND);
    let (file, spawner, runtime) = (file.clone(), runtime, runtime.clone());
    let read = async move {
        let open = || runtime.spawn_blocking("snapshot-read", move || file.read_from(offset));
        let mut reader = open().await??;
        loop {
            let piece = move || piece(reader);
            let read = runtime.spawn_blocking("snapshot-read", piece).await??;
            let data = read.0;
            reader = read.1;
            if data.is_empty() && first.is_none() {
                return Ok::<(), SendError>(());
            }
            let bytes = data.len() as u64;
            let (envelope, vote, header) = match first.take() {
                Some((envelope, vote, header)) => (Some(envelope), Some(vote), Some(header)),
                None => (None, None, None),
            };
            let message = wire::InstallSnapshotRequest {
                envelope,
                vote,
                header,
                offset,
                data: data.into(),
            };
            if pieces.send(message).await.is_err() {
                return Ok(());
            }
            offset += bytes;
            pace.keep(bytes).await;
        }
    };
    let sending = async move {
        if let Err(error) = read.await {
            tracing::warn!(%error, "a snapshot could not be sent");
        }
    };
    drop(spawner.spawn("snapshot-send", sending));
    ReceiverStream::new(receiver)
}

/// Why a snapshot is not sent to its end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Read(#[from] SnapshotError),
    #[error(transparent)]
    Task(#[from] TaskFailed),
}

/// The next piece, empty at the end, and the reader behind it.
fn piece<R: std::io::Read>(mut reader: R) -> Result<(Vec<u8>, R), SnapshotError> {
    let mut data = Vec::with_capacity(PIECE_BYTES);
    (&mut reader)
        .take(PIECE_BYTES as u64)
        .read_to_end(&mut data)?;
    Ok((data, reader))
}

/// What a sender says of its file.
pub(super) fn header(file: &SnapshotFile) -> wire::SnapshotHeader {
    let (header, info) = (file.header(), file.info());
    wire::SnapshotHeader {
        snapshot_id: String::new(),
        last_log_id: Some(convert::log_id_to_wire(&header.last)),
        membership_log_id: header
            .membership
            .log_id()
            .as_ref()
            .map(convert::log_id_to_wire),
        membership: Some(convert::membership_to_wire(header.membership.membership())),
        bytes: info.bytes,
        hash: info.hash.to_vec().into(),
    }
}
