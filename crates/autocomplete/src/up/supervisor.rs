//! Keeps the nodes of this process running: what a service manager does for separate processes.
//!
//! Each node has a loop of its own. A node that ends, by an error or a panic, is started again after a pause that doubles up to a limit;
//! one that has run for a while begins with the short pause again. The watchdog can have a node restarted ([`Restarter`]): a pause is cut
//! short, and a node that runs is told to stop first.
//!
//! A failed disk ends the node's own part and leaves the other nodes alone. The new start reads the log again from the disk, as a new
//! process would.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use rpc::Neighbours;
use rpc::services::NearShard;
use runtime::{CancellationToken, Runtime, Task, Vital};
use shard_server::{Config, Deps, RunError};
use telemetry::Metrics;
use tokio::sync::Notify;
use vfs::RealDisk;
use watchdog::NodeTarget;
use watchdog::restart::{Restart, RestartError, Restarter};

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A node that ran for so long has earned the short pause.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is taken down.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Supervisor {
    nodes: Vec<Arc<Node>>,
    loops: Mutex<Vec<Task<()>>>,
}

/// One node and its wishes.
#[derive(Debug)]
struct Node {
    config: Config,
    runtime: Runtime,
    metrics: Metrics,
    neighbours: Neighbours<dyn NearShard>,
    /// Ends the node for good.
    stop: CancellationToken,
    /// A restart is wanted now.
    wanted: Notify,
}

impl Supervisor {
    /// Starts a node for each configuration.
    pub(super) fn start(
        vital: &Vital,
        runtime: &Runtime,
        configs: Vec<Config>,
        metrics: Metrics,
        neighbours: &Neighbours<dyn NearShard>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let nodes: Vec<_> = configs
            .into_iter()
            .map(|config| {
                Arc::new(Node {
                    config,
                    runtime: runtime.clone(),
                    metrics: metrics.clone(),
                    neighbours: neighbours.clone(),
                    stop: stop.clone(),
                    wanted: Notify::new(),
                })
            })
            .collect();
        let loops = nodes
            .iter()
            .map(|node| vital.spawn("node", Arc::clone(node).keep_running()))
            .collect();
        Arc::new(Self {
            nodes,
            loops: Mutex::new(loops),
        })
    }

    /// Waits until all nodes have ended, once the stop was asked for.
    pub(super) async fn stopped(&self) {
        let loops = std::mem::take(&mut *self.loops.lock());
        for ended in join_all(loops).await {
            if let Err(error) = ended {
                tracing::error!(%error, "a node's supervision did not end well");
            }
        }
    }
}

impl Restarter for Supervisor {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        let found = self
            .nodes
            .iter()
            .find(|known| known.config.node_name == node.name);
        let result = match found {
            Some(known) => {
                // Kept until the loop looks: a wish that comes too early is not lost.
                known.wanted.notify_one();
                Ok(Restart::Begun)
            }
            None => Err(RestartError::Supervisor(format!(
                "no node of this process is called {}",
                node.name
            ))),
        };
        Box::pin(std::future::ready(result))
    }
}

impl Node {
    async fn keep_running(self: Arc<Self>) {
        let mut pause_max = PAUSE_MIN;
        while !self.stop.is_cancelled() {
            let begun = self.runtime.now();
            let ended = self.run_once().await;
            if self.stop.is_cancelled() {
                return;
            }
            if self.runtime.now().saturating_since(begun) >= STABLE_AFTER {
                pause_max = PAUSE_MIN;
            }
            let pause = self.runtime.jitter(pause_max);
            match ended {
                Ok(()) => tracing::info!(node = self.name(), "node is started again"),
                Err(error) => {
                    tracing::error!(
                        node = self.name(),
                        error,
                        ?pause,
                        "node ended; it is started again"
                    );
                }
            }
            pause_max = (pause_max * 2).min(PAUSE_MAX);
            tokio::select! {
                () = self.runtime.sleep(pause) => {}
                () = self.wanted.notified() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Runs the node until it ends, is told to stop, or a restart is wanted.
    async fn run_once(&self) -> Result<(), String> {
        let stop = self.stop.child_token();
        let deps = Deps {
            runtime: self.runtime.clone(),
            vfs: Arc::new(RealDisk::new()),
            metrics: self.metrics.clone(),
            listener: None,
            neighbours: self.neighbours.clone(),
        };
        // A task of its own, so that a panic in it is an end like any other.
        let mut running = self.runtime.spawn(
            "shard server",
            shard_server::run(self.config.clone(), deps, stop.clone()),
        );
        let ended = tokio::select! {
            ended = &mut running => return outcome(ended),
            () = self.wanted.notified() => {
                tracing::warn!(node = self.name(), "node is restarted at the watchdog's word");
                self.stop_within(&mut running, &stop).await
            }
            () = self.stop.cancelled() => self.stop_within(&mut running, &stop).await,
        };
        ended.unwrap_or(Ok(()))
    }

    /// Lets a node stop; takes it down when that takes too long.
    async fn stop_within(
        &self,
        running: &mut Task<Result<(), RunError>>,
        stop: &CancellationToken,
    ) -> Option<Result<(), String>> {
        stop.cancel();
        match self.runtime.timeout(STOP_PATIENCE, &mut *running).await {
            Ok(ended) => Some(outcome(ended)),
            Err(elapsed) => {
                tracing::error!(node = self.name(), %elapsed, "node did not stop and is taken down");
                running.abort();
                None
            }
        }
    }

    fn name(&self) -> &str {
        &self.config.node_name
    }
}

fn outcome(ended: Result<Result<(), RunError>, runtime::TaskFailed>) -> Result<(), String> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(failed) => Err(failed.to_string()),
    }
}
