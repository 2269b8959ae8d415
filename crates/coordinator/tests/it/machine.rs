//! A machine for one shard server: a pool of threads that can be taken away at once, with everything that runs on it.
//!
//! What runs on it hears of nothing: its tasks are dropped where they stand and its connections are closed by the operating
//! system, as those of a killed process are. Only what the disk was already told to do is done.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use runtime::{CancellationToken, Listener, Runtime};
use tokio::task::JoinHandle;
use vfs::Vfs as _;

/// The names of the locks that a shard server holds in its directory while anything of it is left.
const LOCKS: [&str; 2] = ["LOCK", "wal/LOCK"];

/// How often is looked whether something is free.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A machine that runs a shard server.
pub(crate) struct Machine {
    /// Until the machine is taken away.
    threads: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), shard_server::RunError>>,
}

impl Machine {
    /// Starts a shard server on a listener of the new machine's, and says where it listens.
    pub(crate) async fn start(
        runtime: &Runtime,
        address: SocketAddr,
        config: shard_server::Config,
        deps: impl FnOnce(Listener) -> shard_server::Deps,
    ) -> (Self, SocketAddr) {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let binding = {
            let runtime = runtime.clone();
            threads.spawn(async move {
                loop {
                    // The listener of before may be on its way out.
                    match runtime.bind(address).await {
                        Ok(listener) => return listener,
                        Err(_) => runtime.sleep(LOOK_EVERY).await,
                    }
                }
            })
        };
        let listener = binding.await.unwrap();
        let local = listener.local_addr();
        let stop = CancellationToken::new();
        let run = shard_server::run(config, deps(listener), stop.clone());
        let machine = Self {
            server: threads.spawn(run),
            threads: Some(threads),
            stop,
        };
        (machine, local)
    }

    /// Tells the server to stop and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), shard_server::RunError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(mut self) -> Result<(), shard_server::RunError> {
        (&mut self.server).await.unwrap()
    }

    /// Takes the machine away, and waits until nothing of the server holds its directory any more.
    pub(crate) async fn kill(self, runtime: &Runtime, dir: &Path) {
        drop(self);
        let disk = vfs::RealDisk::new();
        for name in LOCKS {
            let path = dir.join(name);
            while path.parent().is_some_and(Path::exists) && disk.lock_file(&path).is_err() {
                runtime.sleep(LOOK_EVERY).await;
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
