//! A cluster in this process: one coordinator, some shard servers, each on a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{GetStatusRequest, GetStatusResponse, ShardState};
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{GetTopKRequest, GetTopKResponse, RecordRequest};
use cluster::{Layout, ShardId};
use coordinator::{ClusterConfig, Config, Deps, LimitsConfig};
use rpc::channel::{PoolConfig, connect};
use runtime::{CancellationToken, Runtime, Task};
use telemetry::Metrics;
use tempfile::TempDir;
use tonic::transport::Channel;

/// How long anything in a test may take; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    dir: TempDir,
    config: Config,
    coordinator: Option<Running<coordinator::Error>>,
    servers: Vec<ShardServer>,
}

struct Running<E> {
    stop: CancellationToken,
    task: Task<Result<(), E>>,
}

struct ShardServer {
    name: String,
    dir: PathBuf,
    address: SocketAddr,
    running: Option<Running<shard_server::RunError>>,
}

impl Cluster {
    /// Shards that begin at "", "g" and "p", each on a server of its own, all serving.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::without_servers().await;
        for number in 1..=3 {
            cluster.add_server(&format!("shard-{number}")).await;
        }
        cluster.until_serving().await;
        cluster
    }

    pub(crate) async fn without_servers() -> Self {
        Self::with_limits(LimitsConfig::default()).await
    }

    pub(crate) async fn with_limits(limits: LimitsConfig) -> Self {
        let runtime = Runtime::real();
        let dir = TempDir::new().unwrap();
        let starts = ["", "g", "p"].map(str::to_owned).into_iter();
        let template = Layout::new(starts.zip((1..).map(ShardId)).collect()).unwrap();
        let config = Config {
            data_dir: dir.path().join("coordinator"),
            cluster: ClusterConfig {
                template,
                replicas: 1,
                expect_nodes: 3,
            },
            limits,
            silent_after: Duration::from_millis(2_500),
            allowed_origins: vec!["https://search.example".into()],
            ..Config::default()
        };
        let mut cluster = Self {
            runtime,
            grpc: ([127, 0, 0, 1], 0).into(),
            http: ([127, 0, 0, 1], 0).into(),
            dir,
            config,
            coordinator: None,
            servers: Vec::new(),
        };
        cluster.start_coordinator().await;
        cluster
    }

    /// Starts the coordinator, at the address it had before.
    pub(crate) async fn start_coordinator(&mut self) {
        let grpc = self.runtime.bind(self.grpc).await.unwrap();
        let http = self.runtime.bind(self.http).await.unwrap();
        (self.grpc, self.http) = (grpc.local_addr(), http.local_addr());
        let deps = Deps {
            runtime: self.runtime.clone(),
            vfs: Arc::new(vfs::RealDisk::new()),
            metrics: Metrics::new(&self.runtime).unwrap(),
            grpc,
            http: Some(http),
        };
        let stop = CancellationToken::new();
        let run = coordinator::run(self.config.clone(), deps, stop.clone());
        let task = self.runtime.spawn("test-coordinator", run);
        self.coordinator = Some(Running { stop, task });
    }

    pub(crate) async fn stop_coordinator(&mut self) {
        let Running { stop, task } = self.coordinator.take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    pub(crate) async fn add_server(&mut self, name: &str) {
        self.servers.push(ShardServer {
            name: name.to_owned(),
            dir: self.dir.path().join(name),
            address: ([127, 0, 0, 1], 0).into(),
            running: None,
        });
        self.start_server(self.servers.len() - 1).await;
    }

    /// Starts a server on its directory, at the address it had before.
    pub(crate) async fn start_server(&mut self, place: usize) {
        let server = &mut self.servers[place];
        let listener = self.runtime.bind(server.address).await.unwrap();
        server.address = listener.local_addr();
        let config = shard_server::Config {
            data_dir: server.dir.clone(),
            node_name: server.name.clone(),
            coordinators: vec![self.grpc.to_string()],
            ..shard_server::Config::default()
        };
        let deps = shard_server::Deps {
            runtime: self.runtime.clone(),
            vfs: Arc::new(vfs::RealDisk::new()),
            metrics: Metrics::new(&self.runtime).unwrap(),
            listener: Some(listener),
        };
        let stop = CancellationToken::new();
        let run = shard_server::run(config, deps, stop.clone());
        let task = self.runtime.spawn("test-shard-server", run);
        server.running = Some(Running { stop, task });
    }

    pub(crate) async fn stop_server(&mut self, place: usize) {
        let Running { stop, task } = self.servers[place].running.take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    /// Waits until a server has ended by itself.
    pub(crate) async fn server_ended(
        &mut self,
        place: usize,
    ) -> Result<(), shard_server::RunError> {
        let Running { task, .. } = self.servers[place].running.take().unwrap();
        let ended = self.runtime.timeout(PATIENCE, task).await;
        ended.expect("the server goes on").unwrap()
    }

    pub(crate) fn server_dir(&self, place: usize) -> &Path {
        &self.servers[place].dir
    }

    pub(crate) async fn until_serving(&self) {
        self.until("all shards serve", |status| {
            status.shards.len() == 3
                && status
                    .shards
                    .iter()
                    .all(|at| at.state() == ShardState::Serving)
        })
        .await;
    }

    /// Waits until the status is as it is wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&GetStatusResponse) -> bool,
    ) -> GetStatusResponse {
        let mut last = String::new();
        let wait = async {
            loop {
                match self.admin().get_status(GetStatusRequest {}).await {
                    Ok(status) => {
                        let status = status.into_inner();
                        if is_so(&status) {
                            return status;
                        }
                        last = format!("{:?}", status.shards);
                    }
                    Err(error) => last = error.to_string(),
                }
                self.runtime.sleep(Duration::from_millis(20)).await;
            }
        };
        match self.runtime.timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => panic!("waited in vain until {what}: {last}"),
        }
    }

    fn channel(&self) -> Channel {
        connect(
            &self.runtime,
            &self.grpc.to_string(),
            &PoolConfig::default(),
        )
        .unwrap()
    }

    pub(crate) fn client(&self) -> AutocompleteServiceClient<Channel> {
        AutocompleteServiceClient::new(self.channel()).max_decoding_message_size(4 << 20)
    }

    pub(crate) fn admin(&self) -> ClusterAdminServiceClient<Channel> {
        ClusterAdminServiceClient::new(self.channel())
    }

    pub(crate) async fn record(&self, term: &str, count: u64) -> u64 {
        let request = RecordRequest {
            term: term.into(),
            count,
            ..RecordRequest::default()
        };
        self.client()
            .record(request)
            .await
            .unwrap()
            .into_inner()
            .count
    }

    pub(crate) async fn top(&self, prefix: &str, k: u32) -> GetTopKResponse {
        let request = GetTopKRequest {
            prefix: prefix.into(),
            k,
            ..GetTopKRequest::default()
        };
        self.client().get_top_k(request).await.unwrap().into_inner()
    }
}

/// What an answer lists, in short.
pub(crate) fn listed(answer: &GetTopKResponse) -> Vec<(&str, u64)> {
    let suggestions = answer.suggestions.iter();
    suggestions.map(|at| (at.term.as_str(), at.count)).collect()
}

/// The machine-readable cause of a status.
pub(crate) fn reason(status: &tonic::Status) -> api::Reason {
    api::ApiError::from_status(status).reason()
}
