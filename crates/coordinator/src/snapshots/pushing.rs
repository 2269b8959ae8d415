//! Sending a held snapshot to the node that is to begin a shard's new life from it.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::shard::v1::SendSnapshotRequest;
use bytes::Bytes;
use cluster::{Incarnation, limits};
use runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use vfs::FileReader;

use super::pulling::{blocking, disk};
use super::store::{Held, Store};
use crate::nodes::Link;

/// Chunks that were read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// The least that a transfer must manage before it is given up: this many bytes a second, with a minute to spare.
const BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;
const SPARE: Duration = Duration::from_secs(60);

/// Sends a held snapshot to a node, which checks its hash before it keeps it.
pub(crate) async fn push(
    runtime: &Runtime,
    store: &Arc<Store>,
    link: &Link,
    held: &Held,
    target: Incarnation,
) -> Result<u64, ApiError> {
    let (files, wanted) = (Arc::clone(store), held.clone());
    let reader = blocking(runtime, move || files.read(&wanted)).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let feed = runtime.spawn(
        "snapshot-push",
        feed(runtime.clone(), reader, sender, held.clone(), target),
    );
    let mut client = link.node_client()?;
    let limit = SPARE + Duration::from_secs(held.bytes / BYTES_PER_SECOND_MIN);
    let sent = runtime.timeout(limit, client.send_snapshot(ReceiverStream::new(receiver)));
    let answer = match sent.await {
        Ok(answer) => answer.map_err(|status| ApiError::from_status(&status)),
        Err(_) => Err(ApiError::deadline(format!(
            "the snapshot was not taken within {limit:?}"
        ))),
    };
    match (answer, feed.await) {
        // The disk's word explains the broken stream.
        (_, Ok(Err(error))) => Err(disk(&error)),
        (Ok(answer), _) => Ok(answer.into_inner().bytes),
        (Err(error), _) => Err(error),
    }
}

/// Reads the file and queues it chunk by chunk. Ends without a word when the receiver is gone: the call knows why.
async fn feed(
    runtime: Runtime,
    mut reader: FileReader,
    sender: mpsc::Sender<SendSnapshotRequest>,
    held: Held,
    target: Incarnation,
) -> io::Result<()> {
    let mut header = Some((&held).into());
    let mut offset = 0;
    loop {
        let read = runtime.spawn_blocking("snapshot-chunk", move || {
            let mut data = Vec::with_capacity(limits::SNAPSHOT_CHUNK_BYTES);
            let limit = limits::SNAPSHOT_CHUNK_BYTES as u64;
            let read = reader.by_ref().take(limit).read_to_end(&mut data);
            (reader, read.map(|_| data))
        });
        let (back, data) = read.await.map_err(io::Error::other)?;
        reader = back;
        let data = Bytes::from(data?);
        if data.is_empty() && header.is_none() {
            return Ok(());
        }
        let length = data.len() as u64;
        let message = SendSnapshotRequest {
            snapshot: header.take(),
            target_incarnation: target.0,
            offset,
            data,
        };
        offset += length;
        if sender.send(message).await.is_err() {
            return Ok(());
        }
    }
}
