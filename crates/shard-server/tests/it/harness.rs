//! One shard server on an executor of its own, so that it can be killed without a chance to tidy up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::shard::v1::node_service_client::NodeServiceClient;
use api::shard::v1::shard_service_client::ShardServiceClient;
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{GetCountRequest, GetTopKRequest, RecordRequest, RequestId};
use api::{ApiError, Reason};
use cluster::limits;
use rpc::HealthcheckError;
use rpc::channel::{PoolConfig, connect};
use rpc::health::READY_SERVICE;
use runtime::{CancellationToken, Runtime, TaskFaults};
use shard_server::{Config, Deps, RunError};
use telemetry::Metrics;
use tonic::Status;
use tonic::transport::Channel;
use vfs::{RealDisk, Vfs};

use crate::registry::Registry;

/// How long anything may take before a test gives up; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) registry: Registry,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) config: Config,
    /// Of the servers' tasks.
    pub(crate) faults: TaskFaults,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(RealDisk::new())).await
    }

    pub(crate) async fn on(vfs: Arc<dyn Vfs>) -> Self {
        let runtime = Runtime::real();
        let registry = Registry::start(&runtime).await;
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            grpc_addr: ([127, 0, 0, 1], 0).into(),
            data_dir: dir.path().join("data"),
            node_name: "under-test".into(),
            coordinators: vec![registry.address.to_string()],
            ..Config::default()
        };
        Self {
            runtime,
            registry,
            dir,
            vfs,
            config,
            faults: TaskFaults::default(),
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts a server and waits until it serves.
    pub(crate) async fn start(&self) -> Node {
        let node = self.launch().await;
        self.until("the node is ready", || async {
            self.health(&node, READY_SERVICE).await.is_ok()
        })
        .await;
        // Ready without orders is ready too; wait for the shards.
        self.until_serving(&node, &[1, 2]).await;
        node
    }

    /// What a server's health says of a name.
    pub(crate) async fn health(&self, node: &Node, name: &str) -> Result<(), HealthcheckError> {
        let patience = Duration::from_secs(1);
        rpc::healthcheck(&self.runtime, &node.address, name, patience).await
    }

    /// Waits until a server takes writes of these shards.
    pub(crate) async fn until_serving(&self, node: &Node, shards: &[u64]) {
        self.until("the shards serve", || async {
            for shard in shards {
                let name = rpc::health::shard_write(cluster::ShardId(*shard));
                if self.health(node, &name).await.is_err() {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Starts a server. The lock of one that was killed may be held for a moment.
    pub(crate) async fn launch(&self) -> Node {
        for _ in 0..200 {
            let world = self.runtime.clone().with_task_faults(self.faults.clone());
            let node = Node::launch(&world, self.config.clone(), &self.vfs).await;
            if let Some(node) = node {
                return node;
            }
            self.runtime.sleep(Duration::from_millis(20)).await;
        }
        panic!("the data directory stays locked");
    }

    /// Waits until a node has taken what the registry answers now: a report that follows another was sent after the answer to that.
    pub(crate) async fn until_orders_are_taken(&self, node: u64) {
        for _ in 0..2 {
            self.registry.state.lock().reports.remove(&node);
            self.until("the node reports", || async {
                self.registry.report(node).is_some()
            })
            .await;
        }
    }

    /// Waits until something holds, looking every few milliseconds.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        mut condition: impl FnMut() -> F,
    ) {
        let begun = self.runtime.now();
        while !condition().await {
            let waited = self.runtime.now().saturating_since(begun);
            assert!(waited < PATIENCE, "waited in vain until {what}");
            self.runtime.sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) metrics: Metrics,
    executor: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    ended: Option<tokio::sync::oneshot::Receiver<Result<(), RunError>>>,
}

impl Node {
    async fn launch(runtime: &Runtime, config: Config, vfs: &Arc<dyn Vfs>) -> Option<Self> {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (tell_address, address) = tokio::sync::oneshot::channel();
        let (tell_end, mut ended) = tokio::sync::oneshot::channel();
        let (vfs, token) = (Arc::clone(vfs), stop.clone());
        let lock = config.data_dir.join("LOCK");
        let locks = [lock, config.data_dir.join("wal")];
        let runtime_of_node = runtime.clone();
        let metrics = Metrics::new(runtime).unwrap();
        let measured = metrics.clone();
        let serve = async move {
            let runtime = runtime_of_node;
            let listener = runtime.bind(config.grpc_addr).await.unwrap();
            tell_address
                .send(listener.local_addr().to_string())
                .unwrap();
            let deps = Deps {
                metrics: measured,
                listener: Some(listener),
                neighbours: rpc::Neighbours::default(),
                runtime,
                vfs,
            };
            drop(tell_end.send(shard_server::run(config, deps, token).await));
        };
        drop(executor.spawn(serve));
        let address = address.await.unwrap();
        // A lock that is still held shows at once.
        let soon = runtime
            .timeout(Duration::from_millis(150), &mut ended)
            .await;
        if let Ok(Ok(Err(error))) = soon {
            executor.shutdown_background();
            let text = error.to_string();
            assert!(text.contains("in use"), "{text}, {locks:?}");
            return None;
        }
        Some(Self {
            address,
            metrics,
            executor: Some(executor),
            stop,
            ended: Some(ended),
        })
    }

    /// Ends it without a word, as a power switch would end its process.
    pub(crate) fn kill(mut self) {
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), RunError> {
        self.stop.cancel();
        self.end().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(&mut self) -> Result<(), RunError> {
        let ended = self.ended.take().unwrap();
        Runtime::real()
            .timeout(PATIENCE, ended)
            .await
            .expect("the server does not end")
            .unwrap()
    }

    /// How often it did something.
    pub(crate) fn actions(&self, kind: &str, reason: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let labels = [
            format!("kind=\"{kind}\""),
            format!("reason=\"{reason}\""),
            "outcome=\"done\"".to_owned(),
        ];
        let lines = text.lines().filter(|line| {
            line.starts_with("autocomplete_node_actions_total")
                && labels.iter().all(|label| line.contains(label.as_str()))
        });
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    }

    /// Of how many replicas, and parts of them, a family of gauges tells.
    pub(crate) fn series(&self, family: &str) -> usize {
        let text = self.metrics.encode().unwrap();
        let start = format!("autocomplete_shard_{family}{{");
        text.lines().filter(|line| line.starts_with(&start)).count()
    }

    fn channel(&self) -> Channel {
        connect(&Runtime::real(), &self.address, &PoolConfig::default()).unwrap()
    }

    pub(crate) fn public(&self) -> AutocompleteServiceClient<Channel> {
        AutocompleteServiceClient::new(self.channel())
    }

    pub(crate) fn shards(&self) -> ShardServiceClient<Channel> {
        ShardServiceClient::new(self.channel())
    }

    pub(crate) fn control(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel())
    }

    pub(crate) async fn record(&self, term: &str, count: u64) -> u64 {
        let request = RecordRequest {
            term: term.to_owned(),
            count,
            ..RecordRequest::default()
        };
        self.public()
            .record(rpc::request(request, limits::DEADLINE_MAX))
            .await
            .unwrap()
            .into_inner()
            .count
    }

    pub(crate) async fn count(&self, term: &str) -> u64 {
        let request = GetCountRequest {
            term: term.to_owned(),
            ..GetCountRequest::default()
        };
        let request = rpc::request(request, limits::DEADLINE_MAX);
        let answer = self.public().get_count(request).await;
        answer.unwrap().into_inner().count
    }

    pub(crate) async fn top(&self, prefix: &str, k: u32) -> Vec<(String, u64)> {
        let request = GetTopKRequest {
            prefix: prefix.to_owned(),
            k,
            ..GetTopKRequest::default()
        };
        let request = rpc::request(request, limits::DEADLINE_MAX);
        let answer = self.public().get_top_k(request).await.unwrap().into_inner();
        let pair = |found: api::v1::Suggestion| (found.term, found.count);
        answer.suggestions.into_iter().map(pair).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// An id of a client of the test's.
pub(crate) fn request_id(client: u8, sequence: u64) -> RequestId {
    RequestId {
        client_id: vec![client; 16].into(),
        sequence,
        issued_at_ms: Runtime::real().wall_ms(),
        acked_below: 0,
    }
}

/// The cause of a refusal.
pub(crate) fn reason(status: &Status) -> Reason {
    ApiError::from_status(status).reason()
}

/// Every file below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
