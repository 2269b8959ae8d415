//! A cluster in this process: one coordinator or three, some shard servers, each on a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{GetStatusRequest, GetStatusResponse, ReplicaRole, ReplicaStatus, ShardState};
use api::meta::v1::metadata_service_client::MetadataServiceClient;
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{GetTopKRequest, GetTopKResponse, RecordRequest};
use cluster::{Layout, NodeId, ShardId, limits};
use coordinator::{ClusterConfig, Config, CoordinatorsConfig, Deps, LimitsConfig};
use futures::future::join_all;
use parking_lot::RwLock;
use rpc::Neighbours;
use rpc::channel::{PoolConfig, connect};
use rpc::services::NearShard;
use runtime::{
    CancellationToken, Clock, Listener, Runtime, Task, TaskFaults, TestClock, TokioClock,
};
use shard_server::config::{SnapshotConfig, StateConfig};
use telemetry::Metrics;
use tempfile::TempDir;
use tonic::transport::Channel;
use vfs::{SimDisk, Vfs};

use crate::machine::Machine;
use crate::net::Links;

/// How long anything in a test may take; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) coordinators: u64,
    pub(crate) replicas: usize,
    pub(crate) limits: LimitsConfig,
    /// The coordinators reach the shards without a socket, as in one process.
    pub(crate) near: bool,
    /// How often replicas are compared.
    pub(crate) audit_interval: Option<Duration>,
    /// Entries after which a shard takes a snapshot.
    pub(crate) snapshot_entries: u64,
    /// The servers' disks are simulated: see [`Cluster::disk`].
    pub(crate) simulated: bool,
    /// The network can be cut, and the coordinators' clocks be stopped: see [`Cluster::cut`] and [`Cluster::clock`].
    pub(crate) cuttable: bool,
    /// The place of a server whose memory budget is a byte, so that it is above it with its first term.
    pub(crate) tight: Option<usize>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            coordinators: 1,
            replicas: 1,
            limits: LimitsConfig::default(),
            near: false,
            audit_interval: StateConfig::default().audit_interval,
            snapshot_entries: SnapshotConfig::default().entries,
            simulated: false,
            cuttable: false,
            tight: None,
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    /// Of the coordinators' tasks and the servers'.
    pub(crate) faults: TaskFaults,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    dir: TempDir,
    coordinators: Vec<Coordinator>,
    servers: Vec<ShardServer>,
    near: bool,
    audit_interval: Option<Duration>,
    snapshot_entries: u64,
    simulated: bool,
    tight: Option<usize>,
    /// Between the coordinators and the servers, where they can be cut.
    links: Option<Links>,
    pub(crate) neighbours: Neighbours<dyn NearShard>,
}

/// The first coordinator's number on the network; the servers have theirs by their places, from 1.
const COORDINATORS: u64 = 1_000;

fn coordinator_number(place: usize) -> u64 {
    COORDINATORS + place as u64
}

fn number_of(place: usize) -> u64 {
    place as u64 + 1
}

struct Coordinator {
    config: Config,
    /// Of all its lives.
    metrics: Metrics,
    clock: Arc<TestClock>,
    grpc: SocketAddr,
    http: SocketAddr,
    neighbours: Neighbours<dyn NearShard>,
    running: Option<Running<coordinator::Error>>,
}

struct Running<E> {
    stop: CancellationToken,
    task: Task<Result<(), E>>,
}

struct ShardServer {
    disk: SimDisk,
    /// Of all its lives.
    metrics: Metrics,
    name: String,
    region: String,
    dir: PathBuf,
    address: SocketAddr,
    running: Option<Machine>,
}

impl Cluster {
    /// Shards that begin at "", "g" and "p", each on a server of its own, all serving.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::without_servers().await;
        cluster.add_servers(3).await;
        cluster.until_serving().await;
        cluster
    }

    /// Shards as in [`Cluster::start`], in the process of the coordinator and reached without a socket.
    pub(crate) async fn near() -> Self {
        let mut cluster = Self::of(Shape {
            near: true,
            ..Shape::default()
        })
        .await;
        cluster.add_servers(3).await;
        cluster.until_serving().await;
        cluster
    }

    /// Shards as in [`Cluster::start`], each with a replica on every one of the three servers; all serve.
    pub(crate) async fn replicated() -> Self {
        let mut cluster = Self::of(Shape {
            replicas: 3,
            ..Shape::default()
        })
        .await;
        cluster.add_servers(3).await;
        cluster.until("all replicas serve", all_serve).await;
        cluster
    }

    pub(crate) async fn without_servers() -> Self {
        Self::of(Shape::default()).await
    }

    /// Three coordinators, and shards as in [`Cluster::start`].
    pub(crate) async fn of_three() -> Self {
        let mut cluster = Self::of(Shape {
            coordinators: 3,
            ..Shape::default()
        })
        .await;
        cluster.add_servers(3).await;
        for place in 0..3 {
            cluster.until_at(place, "all shards serve", serves).await;
        }
        cluster
    }

    pub(crate) async fn of(shape: Shape) -> Self {
        let Shape {
            coordinators: count,
            replicas,
            limits,
            near,
            audit_interval,
            snapshot_entries,
            simulated,
            cuttable,
            tight,
        } = shape;
        let links = cuttable.then(Links::default);
        let faults = TaskFaults::default();
        let runtime = Runtime::real().with_task_faults(faults.clone());
        let dir = TempDir::new().unwrap();
        let starts = ["", "g", "p"].map(str::to_owned).into_iter();
        let template = Layout::new(starts.zip((1..).map(ShardId)).collect()).unwrap();
        let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        // All ports are taken before any address is told.
        let mut listeners = Vec::new();
        for _ in 0..count {
            let grpc = runtime.bind(anywhere).await.unwrap();
            listeners.push((grpc, runtime.bind(anywhere).await.unwrap()));
        }
        let ids = (1..=count).map(NodeId);
        let addresses = listeners
            .iter()
            .map(|(grpc, _)| grpc.local_addr().to_string());
        let peers: BTreeMap<NodeId, String> = ids.zip(addresses).collect();
        let mut cluster = Self {
            runtime,
            faults,
            grpc: listeners[0].0.local_addr(),
            http: listeners[0].1.local_addr(),
            dir,
            coordinators: Vec::new(),
            servers: Vec::new(),
            near,
            audit_interval,
            snapshot_entries,
            simulated,
            tight,
            links,
            neighbours: Neighbours::default(),
        };
        for ((grpc, http), id) in listeners.iter().zip((1..).map(NodeId)) {
            let peers = if count == 1 {
                BTreeMap::new()
            } else {
                peers.clone()
            };
            let config = Config {
                data_dir: cluster.dir.path().join(format!("coordinator-{id}")),
                group: CoordinatorsConfig { id, peers },
                cluster: ClusterConfig {
                    template: template.clone(),
                    replicas,
                    expect_nodes: replicas.max(3),
                },
                limits,
                silent_after: Duration::from_millis(2_500),
                allowed_origins: vec!["https://search.example".into()],
                ..Config::default()
            };
            let coordinator = Coordinator {
                config,
                metrics: Metrics::new(&cluster.runtime).unwrap(),
                clock: Arc::default(),
                grpc: grpc.local_addr(),
                http: http.local_addr(),
                neighbours: cluster.neighbours.clone(),
                running: None,
            };
            if let Some(links) = &cluster.links {
                let number = coordinator_number(cluster.coordinators.len());
                links.place(number, &coordinator.grpc.to_string());
            }
            cluster.coordinators.push(coordinator);
        }
        // Now all of them are on the network, where they can be cut off from each other.
        for (place, (grpc, http)) in listeners.into_iter().enumerate() {
            let world = cluster.world_of_coordinator(place);
            cluster.coordinators[place].run(&world, grpc, http);
        }
        for place in 0..cluster.coordinators.len() {
            cluster.until_open(place).await;
        }
        cluster
    }

    /// What the first coordinator measures.
    pub(crate) fn metrics(&self) -> String {
        self.coordinators[0].metrics.encode().unwrap()
    }

    /// How often the coordinators did something, and how often a server did.
    pub(crate) fn actions(&self, kind: &str, reason: &str) -> u64 {
        self.by_coordinators([kind, reason], DONE)
    }

    pub(crate) fn server_actions(&self, place: usize, kind: &str, reason: &str) -> u64 {
        self.by_server(place, [kind, reason], DONE)
    }

    /// As [`Self::actions`] and [`Self::server_actions`] together, whatever came of it.
    pub(crate) fn attempts(&self, place: usize, by_server: [&str; 2], by_any: [&str; 2]) -> u64 {
        self.by_server(place, by_server, "") + self.tries(by_any)
    }

    /// As [`Self::actions`], whatever came of it.
    pub(crate) fn tries(&self, by_any: [&str; 2]) -> u64 {
        self.by_coordinators(by_any, "")
    }

    fn by_coordinators(&self, [kind, reason]: [&str; 2], outcome: &str) -> u64 {
        let family = "autocomplete_coordinator_actions_total";
        let coordinators = self.coordinators.iter();
        coordinators
            .map(|at| counted(&at.metrics, family, kind, reason, outcome))
            .sum()
    }

    /// How many recoveries of a shard the coordinators have begun, and how many of them succeeded.
    pub(crate) fn recoveries(&self, shard_key: &str) -> (u64, u64) {
        let of = |family: &str| {
            let series = format!("{family}{{shard_key={shard_key:?}}} ");
            let coordinators = self.coordinators.iter();
            let counts = coordinators.map(|at| -> u64 {
                let page = at.metrics.encode().unwrap();
                let mut lines = page.lines();
                let count = lines.find_map(|line| line.strip_prefix(series.as_str()));
                count.map_or(0, |count| count.parse().unwrap())
            });
            counts.sum::<u64>()
        };
        let begun = of("shard_recovery_attempts_total");
        (begun, of("shard_recovery_duration_seconds_count"))
    }

    /// How often the members of the coordinators' group were changed.
    pub(crate) fn member_changes(&self) -> u64 {
        self.actions("change_coordinators", "planned")
    }

    /// Starts a coordinator that the others are to take in as another one, and waits until it knows the cluster, and votes. The members had
    /// been changed so often before anybody could take it in.
    pub(crate) async fn start_newcomer_at(
        &mut self,
        place: usize,
        changes_before: u64,
    ) -> GetStatusResponse {
        self.start_coordinator_at(place).await;
        // The one that it was goes, and the one that it is comes.
        let changes = changes_before + 2;
        self.until_at(place, "it is taken in", |status| {
            let is_there = status.metadata_available && status.nodes.len() == 3;
            is_there && self.member_changes() >= changes
        })
        .await
    }

    fn by_server(&self, place: usize, [kind, reason]: [&str; 2], outcome: &str) -> u64 {
        let family = "autocomplete_node_actions_total";
        counted(&self.servers[place].metrics, family, kind, reason, outcome)
    }

    /// Starts the only coordinator, at the address it had before.
    pub(crate) async fn start_coordinator(&mut self) {
        self.start_coordinator_at(0).await;
        self.until_open(0).await;
    }

    pub(crate) async fn start_coordinator_at(&mut self, place: usize) {
        let world = self.world_of_coordinator(place);
        let coordinator = &mut self.coordinators[place];
        let grpc = self.runtime.bind(coordinator.grpc).await.unwrap();
        let http = self.runtime.bind(coordinator.http).await.unwrap();
        coordinator.run(&world, grpc, http);
    }

    pub(crate) async fn stop_coordinator(&mut self) {
        self.stop_coordinators(&[0]).await;
    }

    /// Stops coordinators at the same time.
    pub(crate) async fn stop_coordinators(&mut self, places: &[usize]) {
        let running = places
            .iter()
            .map(|place| self.coordinators[*place].running.take().unwrap());
        let tasks: Vec<_> = running
            .map(|Running { stop, task }| {
                stop.cancel();
                task
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        no_child_is_begun();
    }

    /// Waits until a coordinator has ended by itself.
    pub(crate) async fn coordinator_ended(
        &mut self,
        place: usize,
    ) -> Result<(), coordinator::Error> {
        let Running { task, .. } = self.coordinators[place].running.take().unwrap();
        let ended = self.runtime.timeout(PATIENCE, task).await;
        no_child_is_begun();
        ended.expect("the coordinator goes on").unwrap()
    }

    pub(crate) fn coordinator_config(&mut self, place: usize) -> &mut Config {
        &mut self.coordinators[place].config
    }

    /// Waits until a coordinator has the map.
    async fn until_open(&self, place: usize) {
        self.until_at(place, "the cluster has begun", |status| {
            !status.shards.is_empty()
        })
        .await;
    }

    /// The coordinator that leads, in the eyes of one of them.
    pub(crate) async fn leader_at(&self, place: usize) -> usize {
        let leads = |status: &GetStatusResponse| {
            status.metadata_available && status.coordinators.iter().any(|at| at.leads)
        };
        let status = self.until_at(place, "somebody leads", leads).await;
        let leader = status.coordinators.iter().position(|at| at.leads);
        leader.unwrap()
    }

    /// Servers named `shard-1` to `shard-N`.
    pub(crate) async fn add_servers(&mut self, count: usize) {
        for number in 1..=count {
            self.add_server(&format!("shard-{number}")).await;
        }
    }

    pub(crate) async fn add_server(&mut self, name: &str) {
        self.add_server_in("", name).await;
    }

    pub(crate) async fn add_server_in(&mut self, region: &str, name: &str) {
        self.servers.push(ShardServer {
            disk: SimDisk::new(),
            metrics: Metrics::new(&self.runtime).unwrap(),
            name: name.to_owned(),
            region: region.to_owned(),
            dir: self.dir.path().join(name),
            address: ([127, 0, 0, 1], 0).into(),
            running: None,
        });
        self.start_server(self.servers.len() - 1).await;
    }

    /// Starts a server on its directory, at the address it had before.
    pub(crate) async fn start_server(&mut self, place: usize) {
        let addresses = self.coordinators.iter().map(|at| at.grpc.to_string());
        let coordinators: Vec<String> = addresses.collect();
        let (world, links) = (self.world_of(number_of(place)), self.links.clone());
        let server = &mut self.servers[place];
        let config = shard_server::Config {
            data_dir: server.dir.clone(),
            node_name: server.name.clone(),
            region: server.region.clone(),
            coordinators: coordinators.clone(),
            // Dozens of clusters run beside each other on a few cores here.
            election_timeout: Duration::from_millis(600),
            state: StateConfig {
                audit_interval: self.audit_interval,
                memory_bytes_max: (self.tight == Some(place)).then_some(1),
                ..StateConfig::default()
            },
            snapshots: SnapshotConfig {
                entries: self.snapshot_entries,
                ..SnapshotConfig::default()
            },
            ..shard_server::Config::default()
        };
        let metrics = server.metrics.clone();
        let near = self.near.then(|| self.neighbours.clone());
        let neighbours = near.unwrap_or_default();
        let vfs: Arc<dyn Vfs> = if self.simulated {
            Arc::new(server.disk.clone())
        } else {
            Arc::new(vfs::RealDisk::new())
        };
        let deps = |listener: Listener| {
            // Before anybody can know the address.
            if let Some(links) = links {
                links.place(number_of(place), &listener.local_addr().to_string());
            }
            shard_server::Deps {
                runtime: world,
                vfs,
                metrics,
                listener: Some(listener),
                neighbours,
            }
        };
        let started = Machine::start(&self.runtime, server.address, config, deps);
        let started = self.runtime.timeout(PATIENCE, started).await;
        let (machine, address) = started.expect("the server's address is in use");
        server.address = address;
        server.running = Some(machine);
    }

    /// The world as a server sees it.
    fn world_of(&self, number: u64) -> Runtime {
        let links = self.links.as_ref();
        links.map_or_else(
            || self.runtime.clone(),
            |links| links.runtime(number, Arc::new(TokioClock::new())),
        )
    }

    /// The world as a coordinator sees it.
    fn world_of_coordinator(&self, place: usize) -> Runtime {
        let Some(links) = &self.links else {
            return self.runtime.clone();
        };
        let clock = Arc::clone(&self.coordinators[place].clock) as Arc<dyn Clock>;
        links.runtime(coordinator_number(place), clock)
    }

    /// The clock of a coordinator, in a cluster of [`Shape::cuttable`].
    pub(crate) fn clock(&self, place: usize) -> &TestClock {
        &self.coordinators[place].clock
    }

    /// Cuts a server off the others, in a cluster of [`Shape::cuttable`].
    pub(crate) fn cut(&self, place: usize) {
        let links = self.links.as_ref().unwrap();
        for other in (0..self.servers.len()).filter(|other| *other != place) {
            links.cut(number_of(place), number_of(other));
        }
    }

    /// Cuts a server off the coordinators, too.
    pub(crate) fn cut_off_coordinator(&self, place: usize) {
        let links = self.links.as_ref().unwrap();
        for coordinator in 0..self.coordinators.len() {
            links.cut(number_of(place), coordinator_number(coordinator));
        }
    }

    /// Cuts a coordinator off the other coordinators.
    pub(crate) fn cut_coordinator(&self, place: usize) {
        let links = self.links.as_ref().unwrap();
        for other in (0..self.coordinators.len()).filter(|other| *other != place) {
            links.cut(coordinator_number(place), coordinator_number(other));
        }
    }

    /// All links work again.
    pub(crate) fn heal(&self) {
        self.links.as_ref().unwrap().heal();
    }

    /// Stops a server as an operator does, and waits until it has ended.
    pub(crate) async fn stop_server(&mut self, place: usize) {
        let machine = self.servers[place].running.take().unwrap();
        machine.stop().await.unwrap();
        no_child_is_begun();
    }

    /// The next start of a server is at another address.
    pub(crate) fn move_server(&mut self, place: usize) {
        self.servers[place].address = ([127, 0, 0, 1], 0).into();
    }

    /// Takes a server away without a word, as a killed process goes.
    pub(crate) async fn kill_server(&mut self, place: usize) {
        self.kill_servers(&[place]).await;
    }

    /// Takes servers away at the same moment.
    pub(crate) async fn kill_servers(&mut self, places: &[usize]) {
        let runtime = self.runtime.clone();
        let servers = self.servers.iter_mut().enumerate();
        let struck = servers.filter(|(place, _)| places.contains(place));
        let gone = struck.map(|(_, server)| {
            let machine = server.running.take().unwrap();
            machine.kill(&runtime, &server.dir)
        });
        let gone = runtime.timeout(PATIENCE, join_all(gone)).await;
        gone.expect("the directory of a killed server is still in use");
        no_child_is_begun();
    }

    /// How old a server's replica is by what a scrape of it shows, in seconds.
    pub(crate) fn stale_age(&self, place: usize, shard_key: &str) -> f64 {
        let server = &self.servers[place];
        let labels = format!("{{node=\"{}\",shard_key=\"{shard_key}\"}} ", server.name);
        let gauge = format!("autocomplete_shard_stale_age_seconds{labels}");
        let text = server.metrics.encode().unwrap();
        let age = text.lines().find_map(|line| line.strip_prefix(&gauge));
        age.unwrap().parse().unwrap()
    }

    /// Waits until a server has ended by itself.
    pub(crate) async fn server_ended(
        &mut self,
        place: usize,
    ) -> Result<(), shard_server::RunError> {
        let machine = self.servers[place].running.take().unwrap();
        let ended = self.runtime.timeout(PATIENCE, machine.ended()).await;
        no_child_is_begun();
        ended.expect("the server goes on")
    }

    /// The disk of a server in a cluster of [`Shape::simulated`].
    pub(crate) fn disk(&self, place: usize) -> &SimDisk {
        &self.servers[place].disk
    }

    pub(crate) fn server_address(&self, place: usize) -> String {
        self.servers[place].address.to_string()
    }

    pub(crate) fn server_dir(&self, place: usize) -> &Path {
        &self.servers[place].dir
    }

    /// The server on which the leader of a shard is, by what the coordinator was last told.
    pub(crate) async fn leader_of(&self, shard: u64) -> usize {
        let leader = |status: &GetStatusResponse| {
            let found = status.shards.iter().find(|at| at.shard_id == shard)?;
            let leads = |at: &&ReplicaStatus| at.role() == ReplicaRole::Leader;
            let newest = found.replicas.iter().filter(leads);
            let node = newest.max_by_key(|at| at.raft_term)?.node_id;
            let node = status.nodes.iter().find(|at| at.node_id == node)?;
            self.servers
                .iter()
                .position(|at| at.name == node.name && at.running.is_some())
        };
        let is_known = |status: &GetStatusResponse| leader(status).is_some();
        let status = self.until("the shard has a leader", is_known).await;
        leader(&status).unwrap()
    }

    pub(crate) async fn until_serving(&self) {
        self.until("all shards serve", serves).await;
    }

    /// Waits until the status is as it is wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&GetStatusResponse) -> bool,
    ) -> GetStatusResponse {
        self.until_at(0, what, is_so).await
    }

    pub(crate) async fn until_at(
        &self,
        place: usize,
        what: &str,
        is_so: impl Fn(&GetStatusResponse) -> bool,
    ) -> GetStatusResponse {
        let mut last = String::new();
        let wait = async {
            loop {
                match self
                    .admin_at(place)
                    .get_status(GetStatusRequest::default())
                    .await
                {
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

    /// A connection to a coordinator.
    pub(crate) fn channel(&self, place: usize) -> Channel {
        let address = self.coordinators[place].grpc.to_string();
        connect(&self.runtime, &address, &PoolConfig::default()).unwrap()
    }

    pub(crate) fn client(&self) -> AutocompleteServiceClient<Channel> {
        self.client_at(0)
    }

    pub(crate) fn client_at(&self, place: usize) -> AutocompleteServiceClient<Channel> {
        AutocompleteServiceClient::new(self.channel(place)).max_decoding_message_size(4 << 20)
    }

    /// A connection to a server.
    pub(crate) fn channel_of(&self, place: usize) -> Channel {
        let address = self.server_address(place);
        connect(&self.runtime, &address, &PoolConfig::default()).unwrap()
    }

    /// Asks a server, and no coordinator.
    pub(crate) fn client_of(&self, place: usize) -> AutocompleteServiceClient<Channel> {
        AutocompleteServiceClient::new(self.channel_of(place))
    }

    pub(crate) fn admin(&self) -> ClusterAdminServiceClient<Channel> {
        self.admin_at(0)
    }

    pub(crate) fn admin_at(&self, place: usize) -> ClusterAdminServiceClient<Channel> {
        ClusterAdminServiceClient::new(self.channel(place))
    }

    pub(crate) fn metadata_at(&self, place: usize) -> MetadataServiceClient<Channel> {
        MetadataServiceClient::new(self.channel(place))
    }

    pub(crate) async fn record(&self, term: &str, count: u64) -> u64 {
        let request = RecordRequest {
            term: term.into(),
            count,
            ..RecordRequest::default()
        };
        self.client()
            .record(rpc::request(request, limits::DEADLINE_MAX))
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
        let request = rpc::request(request, limits::DEADLINE_MAX);
        self.client().get_top_k(request).await.unwrap().into_inner()
    }
}

/// Held while a child is begun: until it is another program, it has open what this process has, locks and listeners included.
static BEGINNING: RwLock<()> = RwLock::new(());

/// Runs a program to its end.
pub(crate) fn run_child(command: &mut Command) -> Output {
    let piped = command.stdin(Stdio::null());
    let piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _beginning = BEGINNING.read();
        piped.spawn().unwrap()
    };
    child.wait_with_output().unwrap()
}

/// Waits until no child that is being begun has a lock or a listener that was given up before.
fn no_child_is_begun() {
    drop(BEGINNING.write());
}

impl Coordinator {
    fn run(&mut self, runtime: &Runtime, grpc: Listener, http: Listener) {
        let deps = Deps {
            runtime: runtime.clone(),
            vfs: Arc::new(vfs::RealDisk::new()),
            metrics: self.metrics.clone(),
            grpc,
            http: Some(http),
            neighbours: self.neighbours.clone(),
        };
        let stop = CancellationToken::new();
        let run = coordinator::run(self.config.clone(), deps, stop.clone());
        let task = runtime.spawn("test-coordinator", run);
        self.running = Some(Running { stop, task });
    }
}

const DONE: &str = "outcome=\"done\"";

/// How often an action was counted, with an outcome or, for "", with any.
fn counted(metrics: &Metrics, family: &str, kind: &str, reason: &str, outcome: &str) -> u64 {
    let text = metrics.encode().unwrap();
    let labels = [
        format!("kind=\"{kind}\""),
        format!("reason=\"{reason}\""),
        outcome.to_owned(),
    ];
    let lines = text.lines().filter(|line| {
        line.starts_with(family) && labels.iter().all(|label| line.contains(label.as_str()))
    });
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

fn serves(status: &GetStatusResponse) -> bool {
    let mut shards = status.shards.iter();
    status.shards.len() == 3 && shards.all(|at| at.state() == ShardState::Serving)
}

/// Whether three replicas of every shard serve.
pub(crate) fn all_serve(status: &GetStatusResponse) -> bool {
    let whole = |at: &api::admin::v1::ShardStatus| {
        at.replicas.len() == 3 && at.replicas.iter().all(|replica| replica.serving)
    };
    serves(status) && status.shards.iter().all(whole)
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
