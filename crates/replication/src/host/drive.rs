//! The log's writer in a world without threads.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Inner;

/// Writes to the log whenever something is due, until the host is gone. What is appended while a write waits for its turn
/// goes with it.
pub(super) fn run(host: &Inner, due: Arc<Notify>) -> impl Future<Output = ()> + Send + use<> {
    let (runtime, wal) = (host.runtime.clone(), host.wal.clone());
    let closed = host.closed.clone();
    async move {
        loop {
            tokio::select! {
                biased;
                () = closed.cancelled() => return,
                () = due.notified() => {}
            }
            let wal = wal.clone();
            let written = runtime.spawn_blocking("log-write", move || wal.turn());
            if let Err(error) = written.await {
                tracing::error!(%error, "the log's writer failed");
            }
        }
    }
}
