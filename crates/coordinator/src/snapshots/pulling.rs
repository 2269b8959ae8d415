//! Fetching a shard's newest snapshot from its node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::shard::v1::{ReadSnapshotRequest, SnapshotChunk, TakeSnapshotRequest};
use api::{ApiError, Reason};
use cluster::ShardId;
use rpc::Deadline;
use runtime::Runtime;
use tonic::Streaming;

use super::store::{Held, Receiving, Store};
use crate::nodes::Link;

/// How long a shard may take to write a snapshot.
const TAKE_PATIENCE: Duration = Duration::from_secs(60);
/// Before a snapshot that is being written is asked for again.
const TAKE_PAUSE: Duration = Duration::from_millis(500);
/// A transfer in which nothing arrives for this long is given up.
const CHUNK_PATIENCE: Duration = Duration::from_secs(30);

/// Has a node take a snapshot of a shard, and fetches it into the store.
pub(crate) async fn take_and_pull(
    runtime: &Runtime,
    store: &Arc<Store>,
    link: &Link,
    shard: ShardId,
) -> Result<Held, ApiError> {
    take(runtime, link, shard).await?;
    pull(runtime, store, link, shard).await
}

/// Has a node take a snapshot of a shard. One call ends before a large one is written, which goes on: it is asked for again, as far as it
/// was to reach, for while more is written to the shard another one would never be the newest.
async fn take(runtime: &Runtime, link: &Link, shard: ShardId) -> Result<(), ApiError> {
    let until = Deadline::after(runtime, TAKE_PATIENCE);
    let mut client = link.node_client()?;
    let mut reach = 0;
    loop {
        let message = TakeSnapshotRequest {
            shard_id: shard.0,
            reach,
        };
        let request = until.request(runtime, message)?;
        let taken = until.call(runtime, client.take_snapshot(request)).await;
        let Err(error) = taken else {
            return Ok(());
        };
        if error.reason() != Reason::Deadline || until.remaining(runtime) <= TAKE_PAUSE {
            return Err(error);
        }
        // One of before does not say it.
        let told = error.metadata().get("reach");
        reach = told.and_then(|told| told.parse().ok()).unwrap_or(reach);
        runtime.sleep(TAKE_PAUSE).await;
    }
}

/// Fetches the newest snapshot of a shard into the store. One that is held already, and sound, is not fetched again.
pub(crate) async fn pull(
    runtime: &Runtime,
    store: &Arc<Store>,
    link: &Link,
    shard: ShardId,
) -> Result<Held, ApiError> {
    let request = ReadSnapshotRequest {
        shard_id: shard.0,
        offset: 0,
    };
    let mut client = link.node_client()?;
    let call = runtime.timeout(CHUNK_PATIENCE, client.read_snapshot(request));
    let mut chunks = call.await.map_err(|_| silent())??.into_inner();
    let first = next(runtime, &mut chunks).await?;
    let first = first.ok_or_else(|| wrong("the node sent no chunk"))?;
    let held = announced(&first, shard)?;
    if store.of(shard).contains(&held) && store.is_sound(&held).await {
        return Ok(held);
    }
    let files = Arc::clone(store);
    let receiving = blocking(runtime, move || files.receive(held)).await?;
    let received = receive(runtime, receiving, first, &mut chunks).await;
    let files = Arc::clone(store);
    match received {
        (receiving, Ok(())) => blocking(runtime, move || files.publish(receiving)).await,
        (receiving, Err(error)) => {
            blocking(runtime, move || {
                files.discard(&receiving);
                Ok(())
            })
            .await?;
            Err(error)
        }
    }
}

/// What the first chunk says of the snapshot of a shard.
pub(crate) fn announced(first: &SnapshotChunk, shard: ShardId) -> Result<Held, ApiError> {
    let info = first
        .snapshot
        .clone()
        .ok_or_else(|| wrong("the first chunk does not say what it is of"))?;
    let held = Held::try_from(info)?;
    if held.shard != shard {
        return Err(wrong("the node sent another shard's snapshot"));
    }
    Ok(held)
}

/// Takes chunks until the stream ends. The half received snapshot comes back with the error, to be removed.
async fn receive(
    runtime: &Runtime,
    mut receiving: Receiving,
    first: SnapshotChunk,
    chunks: &mut Streaming<SnapshotChunk>,
) -> (Receiving, Result<(), ApiError>) {
    let mut chunk = Some(first);
    while let Some(SnapshotChunk { offset, data, .. }) = chunk {
        if offset != receiving.position() {
            return (receiving, Err(wrong("the node sent chunks out of order")));
        }
        let taken = runtime
            .spawn_blocking("snapshot-chunk", move || {
                let taken = receiving.take(&data);
                (receiving, taken)
            })
            .await;
        let (back, taken) = match taken {
            Ok(done) => done,
            // A panic while writing: what it wrote is removed when the store is next opened.
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        };
        receiving = back;
        if let Err(error) = taken {
            return (receiving, Err(disk(&error)));
        }
        chunk = match next(runtime, chunks).await {
            Ok(chunk) => chunk,
            Err(error) => return (receiving, Err(error)),
        };
    }
    (receiving, Ok(()))
}

async fn next(
    runtime: &Runtime,
    chunks: &mut Streaming<SnapshotChunk>,
) -> Result<Option<SnapshotChunk>, ApiError> {
    let chunk = runtime.timeout(CHUNK_PATIENCE, chunks.message()).await;
    Ok(chunk.map_err(|_| silent())??)
}

pub(super) async fn blocking<T: Send + 'static>(
    runtime: &Runtime,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    match runtime.spawn_blocking("snapshot-store", work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(disk(&error)),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

pub(super) fn disk(error: &io::Error) -> ApiError {
    let kind = error.kind();
    let reason = if matches!(
        kind,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    ) {
        Reason::DataLoss
    } else if matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ) {
        Reason::DiskFull
    } else {
        Reason::Internal
    };
    tracing::warn!(%error, "the snapshot store");
    ApiError::new(reason, "the coordinator's snapshot store: see its log")
}

fn silent() -> ApiError {
    ApiError::deadline(format!("no chunk within {CHUNK_PATIENCE:?}"))
}

fn wrong(problem: &str) -> ApiError {
    ApiError::new(Reason::DataLoss, problem)
}
