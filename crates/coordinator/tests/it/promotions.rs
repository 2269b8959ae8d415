//! When a shard begins anew, and from what: by what its servers say, and to whom, and by what the coordinators hold. The servers are played,
//! for real ones say such things for moments only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{
    GetStatusRequest, GetStatusResponse, PromoteReplicaRequest, PromoteReplicaResponse,
    PullSnapshotRequest, RecoverShardRequest, RecoverShardResponse, RecoveryAction, ReplicaRole,
    ReplicaStatus, SnapshotInfo,
};
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, RegisterResponse, SyncRequest};
use api::shard::v1::node_service_server::NodeService;
use api::shard::v1::{
    ChangeMembersRequest, ChangeMembersResponse, GetNodeRequest, GetNodeResponse,
    GiveUpDataRequest, GiveUpDataResponse, ReadSnapshotRequest, SendSnapshotRequest,
    SendSnapshotResponse, SnapshotChunk, TakeSnapshotRequest, TakeSnapshotResponse,
    TransferLeaderRequest, TransferLeaderResponse,
};
use api::{ApiError, Reason};
use cluster::SEED_AWAITED;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use rpc::{Server, ServerConfig};
use runtime::{CancellationToken, Runtime};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::cli::run;
use super::harness::{Cluster, PATIENCE, Shape, reason};

const SHARD: u64 = 2;

/// A server that is played.
#[derive(Clone)]
struct Player {
    runtime: Runtime,
    admin: ClusterAdminServiceClient<Channel>,
    node: u64,
    coordinators: usize,
    /// What it says of its replica, by coordinator; to one that does not stand here it says nothing.
    says: Arc<Mutex<BTreeMap<usize, ReplicaStatus>>>,
    /// The entry of its newest snapshot.
    taken: Arc<AtomicU64>,
    /// How far it comes while it is at its next snapshot.
    meanwhile: Arc<Mutex<Option<u64>>>,
    /// The lives for which it was sent a snapshot, and the entry of each.
    pushed: Arc<Mutex<Vec<(u64, u64)>>>,
    /// It takes no snapshot that it is sent.
    has_no_room: Arc<AtomicBool>,
}

impl Player {
    fn say(&self, to: impl IntoIterator<Item = usize>, replica: &ReplicaStatus) {
        let replica = ReplicaStatus {
            node_id: self.node,
            ..replica.clone()
        };
        let said = to.into_iter().map(|place| (place, replica.clone()));
        *self.says.lock() = said.collect();
    }

    fn applied(&self) -> u64 {
        let says = self.says.lock();
        says.values().map(|at| at.applied_index).max().unwrap_or(0)
    }

    /// Has come to an entry, and returns once the first coordinator has heard of it.
    async fn come_to(&self, index: u64) -> Result<(), Status> {
        for replica in self.says.lock().values_mut() {
            replica.applied_index = index;
        }
        loop {
            let mut admin = self.admin.clone();
            let status = admin.get_status(GetStatusRequest::default()).await?;
            let heard = heard(status.get_ref(), self.node);
            if heard.is_some_and(|at| at.applied_index == index) {
                return Ok(());
            }
            self.runtime.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says to a coordinator what it has to say, again and again.
    async fn report(
        self,
        place: usize,
        mut registry: RegistryServiceClient<Channel>,
        (identity, address): (RegisterResponse, String),
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let said = self.says.lock().get(&place).cloned();
            if let Some(replica) = said {
                let request = SyncRequest {
                    node_id: identity.node_id,
                    cluster_id: identity.cluster_id.clone(),
                    address: address.clone(),
                    replicas: vec![replica],
                    ..SyncRequest::default()
                };
                // The coordinator may be away.
                drop(registry.sync(request).await);
            }
            self.runtime.sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a snapshot holds.
fn content(index: u64) -> Vec<u8> {
    format!("all of it, as of entry {index}").into_bytes()
}

fn snapshot(index: u64) -> SnapshotInfo {
    let content = content(index);
    SnapshotInfo {
        shard_id: SHARD,
        incarnation: 1,
        raft_term: 1,
        index,
        bytes: content.len() as u64,
        hash: blake3::hash(&content).as_bytes().to_vec().into(),
        taken_at_ms: 1_700_000_000_000,
    }
}

#[tonic::async_trait]
impl NodeService for Player {
    type ReadSnapshotStream = BoxStream<'static, Result<SnapshotChunk, Status>>;

    async fn take_snapshot(
        &self,
        _: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotResponse>, Status> {
        let index = self.applied();
        self.taken.store(index, Ordering::SeqCst);
        let further = self.meanwhile.lock().take();
        if let Some(further) = further {
            self.come_to(further).await?;
        }
        Ok(Response::new(TakeSnapshotResponse {
            snapshot: Some(snapshot(index)),
        }))
    }

    async fn read_snapshot(
        &self,
        _: Request<ReadSnapshotRequest>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        let index = self.taken.load(Ordering::SeqCst);
        let chunk = SnapshotChunk {
            snapshot: Some(snapshot(index)),
            offset: 0,
            data: content(index).into(),
        };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.unwrap_or_default();
        let life = first.target_incarnation;
        let announced = first.snapshot.unwrap_or_default();
        let mut sent = first.data.to_vec();
        while let Some(piece) = pieces.message().await? {
            sent.extend_from_slice(&piece.data);
        }
        if self.has_no_room.load(Ordering::SeqCst) {
            self.say(0..self.coordinators, &waiting(life, announced.index));
            return Err(ApiError::new(Reason::DiskFull, "there is no room").into());
        }
        if announced.hash != blake3::hash(&sent).as_bytes().as_slice() {
            return Err(ApiError::new(Reason::DataLoss, "it has another hash").into());
        }
        self.pushed.lock().push((life, announced.index));
        let serves = ReplicaStatus {
            incarnation: life,
            ..leader(announced.index)
        };
        self.say(0..self.coordinators, &serves);
        Ok(Response::new(SendSnapshotResponse {
            bytes: announced.bytes,
        }))
    }

    async fn change_members(
        &self,
        _: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }

    async fn give_up_data(
        &self,
        _: Request<GiveUpDataRequest>,
    ) -> Result<Response<GiveUpDataResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }

    async fn get_node(
        &self,
        _: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }
}

/// A replica that is sound, and hears no leader.
fn follower(applied_index: u64) -> ReplicaStatus {
    ReplicaStatus {
        shard_id: SHARD,
        incarnation: 1,
        role: ReplicaRole::Follower.into(),
        applied_index,
        reason: "no leader is heard".to_owned(),
        ..ReplicaStatus::default()
    }
}

/// A replica that serves, and leads.
fn leader(applied_index: u64) -> ReplicaStatus {
    ReplicaStatus {
        role: ReplicaRole::Leader.into(),
        serving: true,
        reason: String::new(),
        ..follower(applied_index)
    }
}

/// A replica that serves, and does not lead.
fn serving(applied_index: u64) -> ReplicaStatus {
    ReplicaStatus {
        role: ReplicaRole::Follower.into(),
        ..leader(applied_index)
    }
}

/// A replica that has not replayed its log yet.
fn starting() -> ReplicaStatus {
    ReplicaStatus {
        role: ReplicaRole::Unspecified.into(),
        reason: "it is being recovered".to_owned(),
        ..follower(0)
    }
}

/// A replica of a later life, which waits for the snapshot that it is to begin from.
fn waiting(life: u64, index: u64) -> ReplicaStatus {
    ReplicaStatus {
        incarnation: life,
        reason: format!("the snapshot of index {index} {SEED_AWAITED}"),
        ..starting()
    }
}

/// What a coordinator was last told of the replica on a node that counts as alive.
fn heard(status: &GetStatusResponse, node: u64) -> Option<&ReplicaStatus> {
    let mut nodes = status.nodes.iter();
    let is_alive = nodes.any(|at| at.node_id == node && at.alive);
    let shard = status.shards.iter().find(|at| at.shard_id == SHARD)?;
    let mut replicas = shard.replicas.iter();
    replicas.find(|at| at.node_id == node && is_alive)
}

/// A cluster whose servers are all played, each with a replica of the shard.
struct Stage {
    cluster: Cluster,
    coordinators: usize,
    /// Node 1 first.
    players: Vec<Player>,
    stop: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    async fn of(shape: Shape) -> Self {
        let mut stage = Self {
            cluster: Cluster::of(shape).await,
            coordinators: usize::try_from(shape.coordinators).unwrap(),
            players: Vec::new(),
            stop: CancellationToken::new(),
        };
        for _ in 0..shape.replicas {
            stage.add_player().await;
        }
        let is_placed = |status: &GetStatusResponse| {
            let mut shards = status.shards.iter();
            shards.any(|at| at.shard_id == SHARD && at.replicas.len() == shape.replicas)
        };
        for place in 0..stage.coordinators {
            let what = "the shard is placed";
            stage.cluster.until_at(place, what, is_placed).await;
        }
        stage
    }

    async fn add_player(&mut self) {
        let (runtime, coordinators) = (&self.cluster.runtime, self.coordinators);
        let listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().to_string();
        let number = self.players.len() + 1;
        let identity = self.register(number, &address, number).await;
        let player = Player {
            runtime: runtime.clone(),
            admin: self.cluster.admin(),
            node: identity.node_id,
            coordinators,
            says: Arc::default(),
            taken: Arc::default(),
            meanwhile: Arc::default(),
            pushed: Arc::default(),
            has_no_room: Arc::default(),
        };
        player.say(0..coordinators, &follower(1));
        let server = Server::new(runtime, ServerConfig::internal())
            .with_service(rpc::services::node(player.clone()));
        let serving = server.serve(listener, self.stop.clone());
        runtime.spawn("player", async move {
            serving.await;
        });
        for place in 0..coordinators {
            let registry = RegistryServiceClient::new(self.cluster.channel(place));
            let itself = (identity.clone(), address.clone());
            let report = player
                .clone()
                .report(place, registry, itself, self.stop.clone());
            runtime.spawn("player-report", report);
        }
        self.players.push(player);
    }

    /// Registers a directory under the name of a player with whichever coordinator does it, which may take until the name is free.
    async fn register(&self, number: usize, address: &str, directory: usize) -> RegisterResponse {
        let request = RegisterRequest {
            node_name: format!("shard-{number}"),
            address: address.to_owned(),
            region: String::new(),
            instance_id: vec![u8::try_from(directory).unwrap(); 16].into(),
        };
        let registered = async {
            loop {
                for place in 0..self.coordinators {
                    let mut registry = RegistryServiceClient::new(self.cluster.channel(place));
                    if let Ok(identity) = registry.register(request.clone()).await {
                        return identity.into_inner();
                    }
                }
                self.cluster.runtime.sleep(Duration::from_millis(50)).await;
            }
        };
        let registered = self.cluster.runtime.timeout(PATIENCE, registered).await;
        registered.unwrap()
    }

    fn player(&self, node: u64) -> &Player {
        let mut players = self.players.iter();
        players.find(|at| at.node == node).unwrap()
    }

    /// From now on a node says this to these coordinators, and nothing to the others.
    fn says(&self, node: u64, to: &[usize], replica: &ReplicaStatus) {
        self.player(node).say(to.iter().copied(), replica);
    }

    fn falls_silent(&self, node: u64) {
        self.says(node, &[], &ReplicaStatus::default());
    }

    /// Waits until a coordinator has heard what is said to it, and takes those for gone that say nothing.
    async fn until_heard(&self, place: usize) {
        let said = |player: &Player| (player.node, player.says.lock().get(&place).cloned());
        let said: Vec<_> = self.players.iter().map(said).collect();
        let is_heard = |status: &GetStatusResponse| {
            let mut said = said.iter();
            said.all(|(node, said)| heard(status, *node) == said.as_ref())
        };
        let what = "what is said has been heard";
        self.cluster.until_at(place, what, is_heard).await;
    }

    /// Asks a coordinator to have the shard begun anew from a node's replica.
    async fn promote(&self, place: usize, node: u64) -> Result<PromoteReplicaResponse, Status> {
        let mut request = Request::new(PromoteReplicaRequest {
            shard_id: SHARD,
            node: node.to_string(),
            accept_loss: true,
            confirmation: format!("lose shard {SHARD}"),
        });
        request.set_timeout(Duration::from_secs(8));
        let answer = self.cluster.admin_at(place).promote_replica(request).await;
        answer.map(Response::into_inner)
    }

    /// Has the shard begun anew from a node's replica, and says which entry its new life has begun from.
    async fn promoted(&self, node: u64) -> u64 {
        let done = async {
            while !self.promote(0, node).await.unwrap().done {
                self.cluster.runtime.sleep(Duration::from_millis(50)).await;
            }
        };
        let done = self.cluster.runtime.timeout(PATIENCE, done).await;
        done.unwrap();
        let pushed = self.player(node).pushed.lock();
        let [(2, index)] = pushed.as_slice() else {
            panic!("{pushed:?}");
        };
        *index
    }

    async fn recover(
        &self,
        place: usize,
        accept_loss: bool,
    ) -> Result<RecoverShardResponse, Status> {
        let mut request = Request::new(RecoverShardRequest {
            shard_id: SHARD,
            accept_loss,
            confirmation: format!("lose shard {SHARD}"),
            accept_empty: false,
        });
        request.set_timeout(Duration::from_secs(8));
        let answer = self.cluster.admin_at(place).recover_shard(request).await;
        answer.map(Response::into_inner)
    }

    /// Has the shard begun anew from the replica of node 1, which has no room for what it is to begin from, and waits until a coordinator has
    /// heard that it waits.
    async fn begins_without_its_snapshot(&self, place: usize) {
        self.player(1).has_no_room.store(true, Ordering::SeqCst);
        let mut admin = self.cluster.admin();
        let request = PromoteReplicaRequest {
            shard_id: SHARD,
            node: "1".to_owned(),
            accept_loss: true,
            confirmation: format!("lose shard {SHARD}"),
        };
        // It would be answered when the shard serves.
        let asked = async move { admin.promote_replica(request).await };
        self.cluster.runtime.spawn("promotion", asked);
        self.until_it_waits(place).await;
    }

    async fn until_it_waits(&self, place: usize) {
        let waits = |status: &GetStatusResponse| {
            let heard = heard(status, 1);
            heard.is_some_and(|at| at.incarnation == 2 && at.reason.ends_with(SEED_AWAITED))
        };
        let what = "the next life waits";
        self.cluster.until_at(place, what, waits).await;
    }

    /// The snapshot of the shard, as of an entry, that a coordinator holds.
    fn held(&mut self, place: usize, index: u64) -> std::path::PathBuf {
        let dir = &self.cluster.coordinator_config(place).data_dir;
        let dir = dir.join("held-snapshots").join(SHARD.to_string());
        let name = format!("1-{index}-");
        let entries = std::fs::read_dir(dir).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        let is_it = |path: &std::path::PathBuf| {
            let file = path.file_name().unwrap().to_string_lossy();
            file.starts_with(&name) && file.ends_with(".snapshot")
        };
        paths.find(is_it).unwrap()
    }

    /// Accepts the loss until the recovery has ended.
    async fn recovered(&self) -> RecoverShardResponse {
        let ended = async {
            loop {
                let done = self.recover(0, true).await.unwrap();
                if done.action() != RecoveryAction::WaitForProcess {
                    return done;
                }
                self.cluster.runtime.sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = self.cluster.runtime.timeout(PATIENCE, ended).await;
        ended.unwrap()
    }
}

/// Three servers, with a replica each.
fn three() -> Shape {
    Shape {
        replicas: 3,
        ..Shape::default()
    }
}

/// The same, and three coordinators.
fn three_of_each() -> Shape {
    Shape {
        coordinators: 3,
        ..three()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_starting_is_heard_out_before_another_is_promoted() {
    let stage = Stage::of(three()).await;
    stage.says(1, &[0], &follower(100));
    stage.says(2, &[0], &starting());
    stage.falls_silent(3);
    stage.until_heard(0).await;
    let refused = stage.promote(0, 1).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Starting, "{refused}");
    let said = refused.message();
    assert!(said.contains("node 2 may still have"), "{said}");
    assert!(said.contains("stop its server"), "{said}");
    // Whoever goes on without it, does.
    stage.falls_silent(2);
    stage.until_heard(0).await;
    assert_eq!(stage.promoted(1).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_that_may_come_to_be_a_majority_are_not_ended_by_a_promotion() {
    let stage = Stage::of(three()).await;
    stage.says(1, &[0], &follower(100));
    stage.says(2, &[0], &follower(100));
    stage.falls_silent(3);
    stage.until_heard(0).await;
    let refused = stage.promote(0, 1).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Starting, "{refused}");
    let said = refused.message();
    assert!(said.contains("can be a majority"), "{said}");
    stage.falls_silent(2);
    stage.until_heard(0).await;
    assert_eq!(stage.promoted(1).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_is_promoted_where_another_sound_one_reaches_further() {
    let stage = Stage::of(Shape {
        replicas: 5,
        ..Shape::default()
    })
    .await;
    stage.says(1, &[0], &follower(100));
    stage.says(2, &[0], &follower(101));
    for node in 3..=5 {
        stage.falls_silent(node);
    }
    stage.until_heard(0).await;
    let refused = stage.promote(0, 1).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    let said = refused.message();
    assert!(said.contains("on node 2 reaches to index 101"), "{said}");
    assert_eq!(stage.promoted(2).await, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_comes_to_while_it_is_fetched_is_in_the_life_that_begins_from_it() {
    let stage = Stage::of(three()).await;
    stage.says(1, &[0], &follower(100));
    stage.falls_silent(2);
    stage.falls_silent(3);
    stage.until_heard(0).await;
    *stage.player(1).meanwhile.lock() = Some(105);
    assert_eq!(stage.promoted(1).await, 105);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_another_coordinator_hears_is_not_ended_by_a_promotion() {
    let stage = Stage::of(three_of_each()).await;
    stage.says(1, &[0, 1, 2], &follower(100));
    stage.says(2, &[1, 2], &leader(120));
    stage.says(3, &[1, 2], &serving(120));
    for place in 0..3 {
        stage.until_heard(place).await;
    }
    let refused = stage.promote(0, 1).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    let said = refused.message();
    assert!(said.contains("has a majority at work"), "{said}");
    stage.falls_silent(2);
    stage.falls_silent(3);
    for place in 0..3 {
        stage.until_heard(place).await;
    }
    assert_eq!(stage.promoted(1).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_replica_that_another_coordinator_hears_is_what_a_lost_shard_begins_anew_from() {
    let stage = Stage::of(three_of_each()).await;
    stage.says(1, &[1], &follower(100));
    stage.falls_silent(2);
    stage.falls_silent(3);
    for place in 0..3 {
        stage.until_heard(place).await;
    }
    // The names come with other directories: what was in theirs is gone for good.
    for number in [2, 3] {
        stage.register(number, "127.0.0.1:1", number + 10).await;
    }
    let done = stage.recovered().await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation, "{done:?}");
    let pushed = stage.player(1).pushed.lock().clone();
    assert_eq!(pushed, [(2, 100)]);
    assert_eq!(done.snapshot_index, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_whose_snapshot_nobody_holds_any_more_is_lost_and_ended_by_word_only() {
    let mut stage = Stage::of(three()).await;
    stage.says(1, &[0], &leader(100));
    stage.says(2, &[0], &serving(100));
    stage.says(3, &[0], &serving(100));
    stage.until_heard(0).await;
    let request = PullSnapshotRequest { shard_id: SHARD };
    let pulled = stage.cluster.admin().pull_snapshot(request).await.unwrap();
    assert_eq!(pulled.into_inner().snapshot, Some(snapshot(100)));
    stage.says(1, &[0], &follower(105));
    stage.falls_silent(2);
    stage.falls_silent(3);
    stage.until_heard(0).await;
    stage.begins_without_its_snapshot(0).await;
    stage.cluster.stop_coordinator().await;
    std::fs::remove_file(stage.held(0, 105)).unwrap();
    stage.cluster.start_coordinator().await;
    stage.until_it_waits(0).await;
    let needs = stage.recover(0, false).await.unwrap();
    assert_eq!(needs.action(), RecoveryAction::NeedsAcceptLoss, "{needs:?}");
    assert!(needs.message.contains("held by nobody"), "{needs:?}");
    // What is left is the older one.
    stage.player(1).has_no_room.store(false, Ordering::SeqCst);
    let done = stage.recovered().await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation, "{done:?}");
    assert_eq!((done.incarnation, done.snapshot_index), (3, 100));
    let pushed = stage.player(1).pushed.lock().clone();
    assert_eq!(pushed, [(3, 100)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_has_rotted_is_not_sent_for_ever_and_counts_as_gone() {
    let mut stage = Stage::of(three()).await;
    stage.says(1, &[0], &follower(100));
    stage.falls_silent(2);
    stage.falls_silent(3);
    stage.until_heard(0).await;
    stage.begins_without_its_snapshot(0).await;
    let path = stage.held(0, 100);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    stage.player(1).has_no_room.store(false, Ordering::SeqCst);
    let told = async {
        loop {
            match stage.recover(0, false).await {
                Ok(told) if told.action() == RecoveryAction::NeedsAcceptLoss => return told,
                Ok(_) => {}
                Err(refused) => assert_eq!(reason(&refused), Reason::UnknownSnapshot),
            }
            stage.cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let told = stage.cluster.runtime.timeout(PATIENCE, told).await.unwrap();
    assert!(told.message.contains("held by nobody"), "{told:?}");
    assert!(stage.player(1).pushed.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_not_ended_while_a_coordinator_may_hold_the_snapshot_that_it_waits_for() {
    let mut stage = Stage::of(three_of_each()).await;
    stage.says(1, &[0, 1, 2], &follower(100));
    stage.falls_silent(2);
    stage.falls_silent(3);
    for place in 0..3 {
        stage.until_heard(place).await;
    }
    stage.begins_without_its_snapshot(1).await;
    let waits = stage.recover(1, true).await.unwrap();
    assert_eq!(waits.action(), RecoveryAction::WaitForProcess, "{waits:?}");
    let said = &waits.message;
    assert!(said.contains("coordinator 1 holds it"), "{said}");
    stage.cluster.stop_coordinators(&[0]).await;
    let waits = stage.recover(1, true).await.unwrap();
    assert_eq!(waits.action(), RecoveryAction::WaitForProcess, "{waits:?}");
    let said = &waits.message;
    assert!(said.contains("bring those back that do not (1)"), "{said}");
    // Whoever holds it goes on by itself.
    stage.cluster.start_coordinator_at(0).await;
    stage.player(1).has_no_room.store(false, Ordering::SeqCst);
    let serves = |status: &GetStatusResponse| heard(status, 1).is_some_and(|at| at.serving);
    stage.cluster.until_at(1, "it serves", serves).await;
    let pushed = stage.player(1).pushed.lock().clone();
    assert!(pushed.iter().all(|sent| *sent == (2, 100)), "{pushed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_push_a_snapshot_and_promote_a_replica_by_commands() {
    let stage = Stage::of(three()).await;
    stage.says(1, &[0], &leader(100));
    stage.says(2, &[0], &serving(100));
    stage.says(3, &[0], &serving(100));
    stage.until_heard(0).await;
    let succeeds = async |arguments: &[&str]| {
        let (code, told, said) = run(&stage.cluster, arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {told} {said}");
        told
    };
    let pulled = succeeds(&["snapshot", "pull", "2"]).await;
    stage.says(1, &[0], &follower(105));
    stage.falls_silent(2);
    stage.falls_silent(3);
    stage.until_heard(0).await;
    let pushed = succeeds(&["snapshot", "push", "2"]).await;
    assert_eq!(pushed, format!("sent to node 1\n{pulled}"));
    // For the life that may be next, which the push does not begin.
    assert_eq!(*stage.player(1).pushed.lock(), [(2, 100)]);
    assert_eq!(stage.cluster.actions("push_snapshot", "asked"), 1);
    assert_eq!(stage.cluster.recoveries("g"), (0, 0));
    stage.says(1, &[0], &follower(105));
    stage.until_heard(0).await;
    let words = ["--accept-loss", "--confirm", "lose shard 2"];
    let told = succeeds(&[&["promote", "2", "1"][..], &words[..]].concat()).await;
    assert!(told.contains("shard 2 serves in its life 2"), "{told}");
    assert_eq!(*stage.player(1).pushed.lock(), [(2, 100), (2, 105)]);
    assert_eq!(stage.cluster.recoveries("g"), (1, 1));
}
