//! What systemd or a restart policy is elsewhere: starts coordinators and watchdogs again that have ended, by themselves or not.
//!
//! Shard servers are left to the watchdogs, which have to prove that they do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::{CancellationToken, Runtime};

use super::RunFolder;

/// Between two looks, so that a process which ends at each start does not take the machine.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looks after some processes of a run until it is dropped.
#[derive(Debug)]
pub(super) struct Supervisor {
    started_again: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Of processes that have been started once.
    pub(super) fn start(runtime: &Runtime, folder: &RunFolder, names: Vec<String>) -> Self {
        let supervisor = Self {
            started_again: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (stop, count) = (
            supervisor.stop.clone(),
            Arc::clone(&supervisor.started_again),
        );
        let watching = watch(runtime.clone(), folder.clone(), names, count);
        drop(runtime.spawn("chaos supervisor", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watching => {}
            }
        }));
        supervisor
    }

    /// Starts none any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// How often it has started one.
    pub(super) fn started_again(&self) -> u64 {
        self.started_again.load(Ordering::Relaxed)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch(
    runtime: Runtime,
    folder: RunFolder,
    names: Vec<String>,
    started_again: Arc<AtomicU64>,
) {
    loop {
        for name in &names {
            // It still runs, or is held down. Whatever else keeps it from starting may pass.
            if folder.spawn(name).is_ok() {
                started_again.fetch_add(1, Ordering::Relaxed);
            }
        }
        runtime.sleep(INTERVAL).await;
    }
}
