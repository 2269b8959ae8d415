//! A cluster of scripted parts over real gRPC on ports that the system chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::admin::v1::cluster_admin_service_server::ClusterAdminService;
use api::admin::v1::{
    BeginRecoveryRequest, BeginRecoveryResponse, DrainNodeRequest, DrainNodeResponse,
    EndRecoveryRequest, EndRecoveryResponse, GetMapRequest, GetMapResponse, GetStatusRequest,
    GetStatusResponse, ListSnapshotsRequest, ListSnapshotsResponse, NodeDescriptor, NodeStatus,
    PromoteReplicaRequest, PromoteReplicaResponse, PullSnapshotRequest, PullSnapshotResponse,
    PushSnapshotRequest, PushSnapshotResponse, RecoverShardRequest, RecoverShardResponse,
    RecoveryAction, RecoveryTurn, ReplaceReplicaRequest, ReplaceReplicaResponse, ReplicaDescriptor,
    ReplicaStatus, ShardDescriptor, ShardMap, ShardState, ShardStatus, TransferLeaderRequest,
    TransferLeaderResponse, TurnState, TurnVerdict, WatchdogReport,
};
use api::shard::v1::node_service_server::NodeService;
use api::shard::v1::{
    ChangeMembersRequest, ChangeMembersResponse, GetNodeRequest, GetNodeResponse,
    GiveUpDataRequest, GiveUpDataResponse, ReadSnapshotRequest, SendSnapshotRequest,
    SendSnapshotResponse, SnapshotChunk, TakeSnapshotRequest, TakeSnapshotResponse,
};
use cluster::ShardId;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rpc::{Health, Server, ServerConfig};
use runtime::{CancellationToken, Runtime, Task};
use tonic::{Request, Response, Status, Streaming};
use watchdog::restart::{Restart, RestartError, Restarter};
use watchdog::{Config, Deps, NodeTarget, StartError};

/// Longer than anything here takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so.
pub(crate) async fn until(runtime: &Runtime, what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = runtime
        .timeout(PATIENCE, async {
            while !is_so() {
                runtime.sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// A server that runs until it is killed.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: Task<rpc::Drained>,
}

impl Running {
    async fn start(
        runtime: &Runtime,
        address: SocketAddr,
        add: impl FnOnce(Server) -> Server,
    ) -> (Self, SocketAddr) {
        let listener = runtime.bind(address).await.unwrap();
        let address = listener.local_addr();
        let stop = CancellationToken::new();
        let config = ServerConfig {
            drain: Duration::from_millis(1),
            ..ServerConfig::internal()
        };
        let server = add(Server::new(runtime, config));
        let task = runtime.spawn("server", server.serve(listener, stop.clone()));
        (Self { stop, task }, address)
    }

    async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// What a process says of the opening of its log.
#[derive(Debug, Clone, Copy, Default)]
struct Opening {
    /// None where it is open.
    bytes: Option<u64>,
    /// Whether more of it is read whenever somebody asks.
    moves: bool,
}

/// A node of which nothing but that is asked.
struct Opens(Arc<Mutex<Opening>>);

fn not_asked<T>() -> Result<T, Status> {
    Err(Status::unimplemented("a watchdog has no business here"))
}

#[tonic::async_trait]
impl NodeService for Opens {
    type ReadSnapshotStream = BoxStream<'static, Result<SnapshotChunk, Status>>;

    async fn get_node(
        &self,
        _: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        let mut opening = self.0.lock();
        let more = u64::from(opening.moves);
        opening.bytes = opening.bytes.map(|bytes| bytes + more);
        Ok(Response::new(GetNodeResponse {
            opening_bytes: opening.bytes,
            ..GetNodeResponse::default()
        }))
    }

    async fn take_snapshot(
        &self,
        _: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotResponse>, Status> {
        not_asked()
    }

    async fn read_snapshot(
        &self,
        _: Request<ReadSnapshotRequest>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        not_asked()
    }

    async fn send_snapshot(
        &self,
        _: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        not_asked()
    }

    async fn change_members(
        &self,
        _: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        not_asked()
    }

    async fn give_up_data(
        &self,
        _: Request<GiveUpDataRequest>,
    ) -> Result<Response<GiveUpDataResponse>, Status> {
        not_asked()
    }

    async fn transfer_leader(
        &self,
        _: Request<api::shard::v1::TransferLeaderRequest>,
    ) -> Result<Response<api::shard::v1::TransferLeaderResponse>, Status> {
        not_asked()
    }
}

/// The process of a shard server: all of it that a watchdog sees.
#[derive(Debug)]
pub(crate) struct Process {
    runtime: Runtime,
    pub(crate) address: SocketAddr,
    /// What the shard's health is after a start.
    pub(crate) serves_after_start: bool,
    running: Option<(Running, Health)>,
    opening: Arc<Mutex<Opening>>,
    shard: ShardId,
}

impl Process {
    pub(crate) async fn start(runtime: &Runtime, shard: u64) -> Self {
        let mut process = Self {
            runtime: runtime.clone(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            serves_after_start: true,
            running: None,
            opening: Arc::default(),
            shard: ShardId(shard),
        };
        process.restart().await;
        process
    }

    pub(crate) async fn kill(&mut self) {
        if let Some((running, _)) = self.running.take() {
            running.kill().await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        let health = Health::new();
        health.set(
            &rpc::health::shard_write(self.shard),
            self.serves_after_start,
        );
        *self.opening.lock() = Opening::default();
        let node = rpc::services::node(Opens(Arc::clone(&self.opening)));
        let (running, address) = Running::start(&self.runtime, self.address, |server| {
            server.with_health(&health).with_service(node)
        })
        .await;
        self.address = address;
        self.running = Some((running, health));
    }

    /// It opens its log, and knows nothing of the shard yet.
    pub(crate) fn open_log(&self) {
        let (_, health) = self.running.as_ref().unwrap();
        health.remove(&rpc::health::shard_read(self.shard));
        health.remove(&rpc::health::shard_write(self.shard));
        *self.opening.lock() = Opening {
            bytes: Some(0),
            moves: true,
        };
    }

    /// No more of its log is read.
    pub(crate) fn hang(&self) {
        self.opening.lock().moves = false;
    }

    /// A shard that answers reads, and no longer takes writes.
    pub(crate) fn serve_reads_only(&self) {
        self.set_serving(false);
        let (_, health) = self.running.as_ref().unwrap();
        health.set(&rpc::health::shard_read(self.shard), true);
    }

    pub(crate) fn set_serving(&self, serving: bool) {
        let (_, health) = self.running.as_ref().unwrap();
        health.set(&rpc::health::shard_read(self.shard), serving);
        health.set(&rpc::health::shard_write(self.shard), serving);
    }
}

/// What the coordinator says of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) state: ShardState,
    pub(crate) replayed: u64,
    /// Whether it has replayed more whenever somebody asks.
    pub(crate) moves: bool,
    pub(crate) action: RecoveryAction,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            state: ShardState::Serving,
            replayed: 0,
            moves: false,
            action: RecoveryAction::None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) shards: BTreeMap<u64, Told>,
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Nodes that the coordinator does not hear of.
    pub(crate) unheard: BTreeSet<u64>,
    pub(crate) draining: BTreeSet<u64>,
    pub(crate) no_quorum: bool,
    pub(crate) recoveries: Vec<RecoverShardRequest>,
    /// The newest turn at each shard, and who holds it.
    turns: BTreeMap<u64, (u64, Option<String>)>,
    /// Turns that were granted, and those that were refused.
    pub(crate) granted: Vec<(u64, String)>,
    pub(crate) refused: u64,
    pub(crate) ended: Vec<EndRecoveryRequest>,
    /// What the watchdog that polled last said of itself.
    pub(crate) told: WatchdogReport,
}

/// A coordinator that follows a script. Node n holds shard n, and nothing where there is no such shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coordinator {
    pub(crate) script: Arc<Mutex<Script>>,
    polls: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl ClusterAdminService for Coordinator {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        let mut script = self.script.lock();
        script.told = request.into_inner().watchdog.unwrap_or_default();
        for told in script.shards.values_mut().filter(|told| told.moves) {
            told.replayed += 1;
        }
        let nodes = script
            .addresses
            .keys()
            .map(|&id| NodeStatus {
                node_id: id,
                alive: !script.unheard.contains(&id),
                draining: script.draining.contains(&id),
                ..NodeStatus::default()
            })
            .collect();
        let shards = script.shards.iter().map(|(&id, told)| ShardStatus {
            shard_id: id,
            shard_key: key(id),
            state: told.state.into(),
            replicas: vec![ReplicaStatus {
                node_id: id,
                replayed_entries: told.replayed,
                ..ReplicaStatus::default()
            }],
            last_attempt: script.turns.get(&id).map_or(0, |(newest, _)| *newest),
            turns: open_turn(script.turns.get(&id)),
            ..ShardStatus::default()
        });
        let (shards, metadata_available) = (shards.collect(), !script.no_quorum);
        Ok(Response::new(GetStatusResponse {
            nodes,
            shards,
            metadata_available,
            ..GetStatusResponse::default()
        }))
    }

    async fn get_map(&self, _: Request<GetMapRequest>) -> Result<Response<GetMapResponse>, Status> {
        let script = self.script.lock();
        let nodes = script
            .addresses
            .iter()
            .map(|(&id, address)| NodeDescriptor {
                node_id: id,
                name: format!("node-{id}"),
                address: address.clone(),
                ..NodeDescriptor::default()
            });
        let shards = script.shards.keys().map(|&id| ShardDescriptor {
            shard_id: id,
            replicas: vec![ReplicaDescriptor {
                node_id: id,
                voter: true,
            }],
            ..ShardDescriptor::default()
        });
        let map = ShardMap {
            nodes: nodes.collect(),
            shards: shards.collect(),
            ..ShardMap::default()
        };
        Ok(Response::new(GetMapResponse { map: Some(map) }))
    }

    async fn recover_shard(
        &self,
        request: Request<RecoverShardRequest>,
    ) -> Result<Response<RecoverShardResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.script.lock();
        let told = script
            .shards
            .get(&request.shard_id)
            .ok_or_else(|| Status::not_found("shard_id"))?;
        let action = told.action.into();
        script.recoveries.push(request);
        Ok(Response::new(RecoverShardResponse {
            action,
            ..RecoverShardResponse::default()
        }))
    }

    async fn begin_recovery(
        &self,
        request: Request<BeginRecoveryRequest>,
    ) -> Result<Response<BeginRecoveryResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.script.lock();
        let (newest, holder) = script.turns.entry(request.shard_id).or_default();
        let verdict = match holder {
            Some(name) if *name == request.watchdog && *newest == request.known_attempt + 1 => {
                TurnVerdict::Granted
            }
            Some(_) => TurnVerdict::Taken,
            None if *newest != request.known_attempt => TurnVerdict::Stale,
            None => {
                *newest += 1;
                *holder = Some(request.watchdog.clone());
                TurnVerdict::Granted
            }
        };
        let answer = BeginRecoveryResponse {
            verdict: verdict.into(),
            attempt: *newest,
            holder: holder.clone().unwrap_or_default(),
        };
        if verdict == TurnVerdict::Granted {
            script.granted.push((request.shard_id, request.watchdog));
        } else {
            script.refused += 1;
        }
        Ok(Response::new(answer))
    }

    async fn end_recovery(
        &self,
        request: Request<EndRecoveryRequest>,
    ) -> Result<Response<EndRecoveryResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.script.lock();
        if let Some((_, holder)) = script.turns.get_mut(&request.shard_id) {
            *holder = None;
        }
        script.ended.push(request);
        Ok(Response::new(EndRecoveryResponse {}))
    }

    async fn drain_node(
        &self,
        _: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn promote_replica(
        &self,
        _: Request<PromoteReplicaRequest>,
    ) -> Result<Response<PromoteReplicaResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn replace_replica(
        &self,
        _: Request<ReplaceReplicaRequest>,
    ) -> Result<Response<ReplaceReplicaResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn pull_snapshot(
        &self,
        _: Request<PullSnapshotRequest>,
    ) -> Result<Response<PullSnapshotResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn push_snapshot(
        &self,
        _: Request<PushSnapshotRequest>,
    ) -> Result<Response<PushSnapshotResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("a watchdog has no business here"))
    }
}

fn open_turn(turn: Option<&(u64, Option<String>)>) -> Vec<RecoveryTurn> {
    let open = turn.filter(|(_, holder)| holder.is_some());
    let told = open.map(|(attempt, _)| RecoveryTurn {
        attempt: *attempt,
        state: TurnState::Open.into(),
        ..RecoveryTurn::default()
    });
    told.into_iter().collect()
}

/// The label of a shard's metrics.
pub(crate) fn key(shard: u64) -> String {
    format!("key-{shard}")
}

/// Restarts the processes of a cluster, and notes which.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervisor {
    processes: Arc<Mutex<BTreeMap<u64, Arc<tokio::sync::Mutex<Process>>>>>,
    pub(crate) restarted: Arc<Mutex<Vec<String>>>,
}

impl Supervisor {
    /// From now on the process cannot be restarted.
    pub(crate) fn forget(&self, node: u64) -> Arc<tokio::sync::Mutex<Process>> {
        self.processes.lock().remove(&node).unwrap()
    }
}

impl Restarter for Supervisor {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        Box::pin(async move {
            let process = self.processes.lock().get(&node.id.0).cloned();
            let process =
                process.ok_or_else(|| RestartError::Supervisor(format!("no {}", node.name)))?;
            process.lock().await.restart().await;
            self.restarted.lock().push(node.name.clone());
            Ok(Restart::Begun)
        })
    }
}

/// Shards, a coordinator and a watchdog.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) coordinator: Coordinator,
    coordinator_at: SocketAddr,
    coordinator_runs: Option<Running>,
    pub(crate) supervisor: Supervisor,
    pub(crate) metrics: telemetry::Metrics,
    shutdown: CancellationToken,
    config: Config,
    watchdogs: Vec<Task<Result<(), StartError>>>,
}

impl Cluster {
    /// Starts shards 1 to `shards`, all serving, and waits until the watchdog has seen them do so.
    pub(crate) async fn start(shards: u64, config: Config) -> Self {
        let runtime = Runtime::real();
        let supervisor = Supervisor::default();
        let coordinator = Coordinator::default();
        for shard in 1..=shards {
            coordinator
                .script
                .lock()
                .shards
                .insert(shard, Told::default());
            start_node(&runtime, &coordinator, &supervisor, shard).await;
        }
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (running, coordinator_at) = serve_coordinator(&runtime, &coordinator, anywhere).await;
        let metrics = telemetry::Metrics::new(&runtime).unwrap();
        let config = Config {
            coordinators: vec![coordinator_at.to_string()],
            ..config
        };
        let mut cluster = Self {
            runtime,
            coordinator,
            coordinator_at,
            coordinator_runs: Some(running),
            supervisor,
            metrics: metrics.clone(),
            shutdown: CancellationToken::new(),
            config,
            watchdogs: Vec::new(),
        };
        cluster.start_watchdog(metrics);
        for shard in 1..=shards {
            cluster.until_up(shard, true).await;
        }
        cluster
    }

    /// Starts a node that holds nothing, and waits until the watchdog has seen it.
    pub(crate) async fn add_spare(&self, node: u64) {
        start_node(&self.runtime, &self.coordinator, &self.supervisor, node).await;
        self.until_node_up(node, Some(true)).await;
    }

    /// Starts a watchdog that counts where it is told to.
    pub(crate) fn start_watchdog(&mut self, metrics: telemetry::Metrics) {
        let deps = Deps {
            runtime: self.runtime.clone(),
            metrics,
            restarter: Arc::new(self.supervisor.clone()),
        };
        let run = watchdog::run(self.config.clone(), deps, self.shutdown.clone());
        self.watchdogs.push(self.runtime.spawn("watchdog", run));
    }

    pub(crate) fn process(&self, shard: u64) -> Arc<tokio::sync::Mutex<Process>> {
        Arc::clone(&self.supervisor.processes.lock()[&shard])
    }

    /// Ends the process of a shard.
    pub(crate) async fn kill(&self, shard: u64) {
        self.process(shard).lock().await.kill().await;
    }

    /// Changes what the coordinator says of a shard.
    pub(crate) fn tell(&self, shard: u64, change: impl FnOnce(&mut Told)) {
        change(
            self.coordinator
                .script
                .lock()
                .shards
                .get_mut(&shard)
                .unwrap(),
        );
    }

    pub(crate) async fn kill_coordinator(&mut self) {
        if let Some(running) = self.coordinator_runs.take() {
            running.kill().await;
        }
    }

    pub(crate) async fn restart_coordinator(&mut self) {
        let (running, _) =
            serve_coordinator(&self.runtime, &self.coordinator, self.coordinator_at).await;
        self.coordinator_runs = Some(running);
    }

    /// Waits for so many further polls.
    pub(crate) async fn polls(&self, count: u64) {
        let polls = || self.coordinator.polls.load(Ordering::SeqCst);
        let target = polls() + count;
        until(&self.runtime, "it has polled", || polls() >= target).await;
    }

    pub(crate) async fn until_up(&self, shard: u64, up: bool) {
        let name = "autocomplete_watchdog_shard_up";
        until(&self.runtime, &format!("shard {shard} is up: {up}"), || {
            self.value(name, shard) == Some(f64::from(u8::from(up)))
        })
        .await;
    }

    /// Waits until the watchdog sees that a node lives, that it does not, or does not look at it.
    pub(crate) async fn until_node_up(&self, node: u64, up: Option<bool>) {
        let up = up.map(|up| f64::from(u8::from(up)));
        until(&self.runtime, &format!("node {node} is up: {up:?}"), || {
            self.of_node("up", node) == up
        })
        .await;
    }

    /// A series of a node.
    pub(crate) fn of_node(&self, name: &str, node: u64) -> Option<f64> {
        let wanted = format!("autocomplete_watchdog_node_{name}{{node=\"node-{node}\"}}");
        self.scraped(|series| series == wanted)
    }

    pub(crate) async fn until_attempts(&self, shard: u64, attempts: u32) {
        let what = format!("shard {shard} has {attempts} attempts");
        until(&self.runtime, &what, || {
            self.attempts(shard) >= f64::from(attempts)
        })
        .await;
    }

    pub(crate) fn attempts(&self, shard: u64) -> f64 {
        self.value("shard_recovery_attempts_total", shard)
            .unwrap_or(0.0)
    }

    /// How often a shard was brought back.
    pub(crate) fn recovered(&self, shard: u64) -> u64 {
        let name = "shard_recovery_duration_seconds_count";
        self.value(name, shard).unwrap_or(0.0) as u64
    }

    /// The value of the first series of a shard, as a scrape would show it.
    pub(crate) fn value(&self, name: &str, shard: u64) -> Option<f64> {
        let label = format!("shard_key=\"{}\"", key(shard));
        self.scraped(|series| series.starts_with(&format!("{name}{{")) && series.contains(&label))
    }

    pub(crate) fn frozen(&self) -> bool {
        self.scraped(|series| series == "autocomplete_watchdog_frozen_state") == Some(1.0)
    }

    fn scraped(&self, is_wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let text = self.metrics.encode().unwrap();
        let mut series = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = series.find(|(series, _)| is_wanted(series))?;
        value.parse().ok()
    }

    /// Stops the watchdogs and sees that they end well.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for watchdog in self.watchdogs {
            watchdog.await.unwrap().unwrap();
        }
    }
}

async fn start_node(
    runtime: &Runtime,
    coordinator: &Coordinator,
    supervisor: &Supervisor,
    node: u64,
) {
    let process = Process::start(runtime, node).await;
    let address = process.address.to_string();
    coordinator.script.lock().addresses.insert(node, address);
    let process = Arc::new(tokio::sync::Mutex::new(process));
    supervisor.processes.lock().insert(node, process);
}

async fn serve_coordinator(
    runtime: &Runtime,
    coordinator: &Coordinator,
    address: SocketAddr,
) -> (Running, SocketAddr) {
    let service = rpc::services::admin(coordinator.clone());
    Running::start(runtime, address, |server| server.with_service(service)).await
}
