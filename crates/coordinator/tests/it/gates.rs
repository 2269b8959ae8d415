//! Nodes that say what the test has them say and answer when it lets them: what happens while a coordinator waits for one of them.

use std::time::Duration;

use api::admin::v1::{
    ActionReport, GetStatusResponse, ListSnapshotsRequest, PromoteReplicaRequest,
    PullSnapshotRequest, RecoverShardRequest, ReplaceReplicaRequest, ReplicaRole, ReplicaStatus,
    SnapshotInfo,
};
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, SyncRequest};
use api::shard::v1::node_service_server::NodeService;
use api::shard::v1::{
    ChangeMembersRequest, ChangeMembersResponse, GetNodeRequest, GetNodeResponse,
    GiveUpDataRequest, GiveUpDataResponse, MemberStep, ReadSnapshotRequest, SendSnapshotRequest,
    SendSnapshotResponse, SnapshotChunk, TakeSnapshotRequest, TakeSnapshotResponse,
    TransferLeaderRequest, TransferLeaderResponse,
};
use api::{ApiError, Reason};
use bytes::Bytes;
use cluster::limits;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rpc::{Server, ServerConfig};
use runtime::CancellationToken;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::harness::{Cluster, PATIENCE, Shape, reason};

/// The shard that most of it is about, and another.
const SHARD: u64 = 2;
const OTHER: u64 = 3;
/// What a sound replica has, and as of which index.
const CONTENT: &[u8] = b"what is left of the shard";
const INDEX: u64 = 40;

/// What a node is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    TakeSnapshot,
    /// One will do that reaches to this index.
    TakeSnapshotTo(u64),
    /// It was sent one, to its end.
    KeepSnapshot,
    GiveUpData,
    /// A step of a change of this shard's members.
    Step(u64, MemberStep),
}

/// What waits for an answer.
struct Question {
    /// The place of the node.
    node: usize,
    asked: Asked,
    answer: oneshot::Sender<bool>,
}

impl Question {
    /// Lets the node answer; a step is done, or goes on, and so is a snapshot.
    fn answer(self, done: bool) {
        // Whoever asked may have given up.
        let _: Result<(), bool> = self.answer.send(done);
    }
}

/// The node at a place.
#[derive(Clone)]
struct Actor {
    node: usize,
    questions: mpsc::Sender<Question>,
}

impl Actor {
    /// Waits until the test lets it answer.
    async fn wait(&self, asked: Asked) -> Result<bool, Status> {
        let over = || Status::unavailable("the play is over");
        let (answer, answered) = oneshot::channel();
        let question = Question {
            node: self.node,
            asked,
            answer,
        };
        let sent = self.questions.send(question).await;
        sent.map_err(|_| over())?;
        answered.await.map_err(|_| over())
    }
}

#[tonic::async_trait]
impl NodeService for Actor {
    type ReadSnapshotStream = BoxStream<'static, Result<SnapshotChunk, Status>>;

    async fn take_snapshot(
        &self,
        request: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotResponse>, Status> {
        let asked = match request.into_inner().reach {
            0 => Asked::TakeSnapshot,
            reach => Asked::TakeSnapshotTo(reach),
        };
        if self.wait(asked).await? {
            return Ok(Response::new(TakeSnapshotResponse::default()));
        }
        let late = ApiError::deadline("it is still being written");
        Err(late.with_metadata("reach", INDEX.to_string()).into())
    }

    async fn read_snapshot(
        &self,
        request: Request<ReadSnapshotRequest>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        let snapshot = SnapshotInfo {
            shard_id: request.into_inner().shard_id,
            incarnation: 1,
            raft_term: 1,
            index: INDEX,
            bytes: CONTENT.len() as u64,
            hash: Bytes::copy_from_slice(blake3::hash(CONTENT).as_bytes()),
            taken_at_ms: 0,
        };
        let chunk = SnapshotChunk {
            snapshot: Some(snapshot),
            offset: 0,
            data: Bytes::from_static(CONTENT),
        };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SendSnapshotRequest>>,
    ) -> Result<Response<SendSnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut bytes = 0;
        while let Some(chunk) = chunks.message().await? {
            bytes += chunk.data.len() as u64;
        }
        self.wait(Asked::KeepSnapshot).await?;
        Ok(Response::new(SendSnapshotResponse { bytes }))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        let request = request.into_inner();
        let step = Asked::Step(request.shard_id, request.step());
        let done = self.wait(step).await?;
        Ok(Response::new(ChangeMembersResponse {
            done,
            ..ChangeMembersResponse::default()
        }))
    }

    async fn give_up_data(
        &self,
        _: Request<GiveUpDataRequest>,
    ) -> Result<Response<GiveUpDataResponse>, Status> {
        self.wait(Asked::GiveUpData).await?;
        Ok(Response::new(GiveUpDataResponse::default()))
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

/// As whom a node reports.
struct Identity {
    node_id: u64,
    cluster_id: Bytes,
    address: String,
}

/// A coordinator, and nodes named by their places that count as alive however long they say nothing.
struct Stage {
    cluster: Cluster,
    nodes: Vec<Identity>,
    asks: mpsc::Sender<Question>,
    questions: mpsc::Receiver<Question>,
    stop: CancellationToken,
}

impl Stage {
    /// Three nodes with a replica of every shard each, of which they say nothing yet.
    async fn new() -> Self {
        let mut cluster = Cluster::of(Shape {
            replicas: 3,
            ..Shape::default()
        })
        .await;
        cluster.coordinator_config(0).silent_after = Duration::from_hours(1);
        cluster.stop_coordinator().await;
        cluster.start_coordinator().await;
        let (asks, questions) = mpsc::channel(16);
        let mut stage = Self {
            cluster,
            nodes: Vec::new(),
            asks,
            questions,
            stop: CancellationToken::new(),
        };
        for _ in 0..3 {
            stage.add_node().await;
        }
        let is_placed = |status: &GetStatusResponse| {
            let mut shards = status.shards.iter();
            shards.all(|shard| shard.replicas.len() == 3)
        };
        stage.cluster.until("all are placed", is_placed).await;
        stage
    }

    /// One more node, which holds nothing.
    async fn add_node(&mut self) {
        let (runtime, place) = (&self.cluster.runtime, self.nodes.len());
        let listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().to_string();
        let actor = Actor {
            node: place,
            questions: self.asks.clone(),
        };
        let server =
            Server::new(runtime, ServerConfig::internal()).with_service(rpc::services::node(actor));
        runtime.spawn("actor", server.serve(listener, self.stop.clone()));
        self.register(place, address).await;
    }

    fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.cluster.channel(0))
    }

    /// An empty directory registers by the name of a place, and reports.
    async fn register(&mut self, place: usize, address: String) {
        let node = self.nodes.len();
        let directory = u8::try_from(node + 1).unwrap();
        let request = RegisterRequest {
            node_name: format!("shard-{}", place + 1),
            address: address.clone(),
            region: String::new(),
            instance_id: vec![directory; 16].into(),
        };
        let request = rpc::request(request, limits::DEADLINE_MAX);
        let issued = self.registry().register(request).await.unwrap();
        let issued = issued.into_inner();
        self.nodes.push(Identity {
            node_id: issued.node_id,
            cluster_id: issued.cluster_id,
            address,
        });
        self.report(node, Vec::new()).await;
    }

    /// A node says what it holds; the coordinator has heard it when this returns.
    async fn report(&self, node: usize, replicas: Vec<ReplicaStatus>) {
        let report = SyncRequest {
            replicas,
            ..SyncRequest::default()
        };
        self.say(node, report).await;
    }

    async fn say(&self, node: usize, mut report: SyncRequest) {
        let identity = &self.nodes[node];
        for replica in &mut report.replicas {
            replica.node_id = identity.node_id;
        }
        let report = SyncRequest {
            node_id: identity.node_id,
            cluster_id: identity.cluster_id.clone(),
            address: identity.address.clone(),
            ..report
        };
        let report = rpc::request(report, limits::DEADLINE_MAX);
        self.registry().sync(report).await.unwrap();
    }

    /// What a node is asked for next.
    async fn question(&mut self) -> Question {
        let next = self.questions.recv();
        let next = self.cluster.runtime.timeout(PATIENCE, next).await;
        next.unwrap().unwrap()
    }

    /// As [`Self::question`], where that is known.
    async fn until_asked(&mut self, expected: Asked) -> Question {
        let question = self.question().await;
        assert_eq!(question.asked, expected);
        question
    }

    /// What the first node has of the shard is sound, and what the others have is damaged.
    async fn only_the_first_is_left(&self) {
        self.report(0, vec![sound()]).await;
        for node in [1, 2] {
            let damaged = ReplicaStatus {
                data_loss: true,
                ..replica(SHARD, ReplicaRole::Stopped, 0, false)
            };
            self.report(node, vec![damaged]).await;
        }
    }

    /// An operator accepts that the shard begins anew from what the first node has. What comes of it is told by the status.
    fn accept_the_first(&self) {
        let request = PromoteReplicaRequest {
            shard_id: SHARD,
            node: "shard-1".into(),
            accept_loss: true,
            confirmation: format!("lose shard {SHARD}"),
        };
        let mut admin = self.cluster.admin();
        self.cluster.runtime.spawn("operator", async move {
            drop(admin.promote_replica(request).await);
        });
    }

    /// An operator accepts that nothing of the shard is left. What comes of it is told by the status.
    fn accept_nothing(&self) {
        let request = RecoverShardRequest {
            shard_id: SHARD,
            accept_loss: true,
            confirmation: format!("lose all of shard {SHARD}"),
            accept_empty: true,
        };
        let mut admin = self.cluster.admin();
        self.cluster.runtime.spawn("operator", async move {
            drop(admin.recover_shard(request).await);
        });
    }

    /// How it ended that the shard was to begin anew, and how the cluster is then.
    async fn outcome(&self) -> (ActionReport, GetStatusResponse) {
        let ended = |status: &GetStatusResponse| {
            let mut actions = status.actions.iter();
            actions.find(|at| at.kind == "begin_anew").cloned()
        };
        let status = self
            .cluster
            .until("it has ended", |status| ended(status).is_some())
            .await;
        (ended(&status).unwrap(), status)
    }

    /// The shard was not begun anew, for a cause.
    async fn keeps_its_life(&self, cause: Reason) {
        let (outcome, status) = self.outcome().await;
        assert!(outcome.error.starts_with(cause.as_str()), "{outcome:?}");
        assert_eq!(status.shards[1].incarnation, 1);
    }

    /// An operator has a replica of the first node replaced by one of the fourth.
    async fn replace(&self, shard_id: u64) {
        let request = ReplaceReplicaRequest {
            shard_id,
            node: "shard-1".into(),
            with: "shard-4".into(),
        };
        let request = rpc::request(request, limits::DEADLINE_MAX);
        let begun = self.cluster.admin().replace_replica(request).await;
        begun.unwrap();
    }

    /// Lets the leader answer what it is asked next, and says of which shard that is, and what: a step of the second is done, one of the
    /// third never is.
    async fn step(&mut self) -> (u64, MemberStep) {
        let question = self.question().await;
        let Asked::Step(shard, step) = question.asked else {
            panic!("{:?}", question.asked);
        };
        question.answer(shard == SHARD);
        (shard, step)
    }

    async fn status(&self) -> GetStatusResponse {
        self.cluster.until("there is a status", |_| true).await
    }
}

/// A replica in the first life of its shard.
fn replica(shard_id: u64, role: ReplicaRole, applied_index: u64, serving: bool) -> ReplicaStatus {
    ReplicaStatus {
        shard_id,
        incarnation: 1,
        role: role.into(),
        raft_term: 1,
        applied_index,
        serving,
        ..ReplicaStatus::default()
    }
}

/// All that is left of the shard, and sound.
fn sound() -> ReplicaStatus {
    replica(SHARD, ReplicaRole::Follower, INDEX, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_comes_back_while_a_replica_is_fetched_keeps_its_life() {
    let mut stage = Stage::new().await;
    stage.only_the_first_is_left().await;
    stage.accept_the_first();
    let fetch = stage.until_asked(Asked::TakeSnapshot).await;
    assert_eq!(fetch.node, 0);
    for (node, role) in [(1, ReplicaRole::Leader), (2, ReplicaRole::Follower)] {
        let at_work = replica(SHARD, role, INDEX, true);
        stage.report(node, vec![at_work]).await;
    }
    fetch.answer(true);
    stage.keeps_its_life(Reason::NotNeeded).await;
    stage.stop.cancel();
}

/// The shard goes on meanwhile, so that what it holds then is another snapshot each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_takes_longer_than_a_call_is_asked_for_again_and_not_another_one() {
    let mut stage = Stage::new().await;
    stage.only_the_first_is_left().await;
    stage.accept_the_first();
    let late = stage.until_asked(Asked::TakeSnapshot).await;
    late.answer(false);
    for is_written in [false, true] {
        let again = stage.until_asked(Asked::TakeSnapshotTo(INDEX)).await;
        again.answer(is_written);
    }
    let sent = stage.until_asked(Asked::KeepSnapshot).await;
    assert_eq!(sent.node, 0);
    let serves = ReplicaStatus {
        incarnation: 2,
        ..replica(SHARD, ReplicaRole::Leader, INDEX, true)
    };
    stage.report(0, vec![serves]).await;
    sent.answer(true);
    let (outcome, _) = stage.outcome().await;
    assert_eq!(outcome.error, "");
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_fetched_for_longer_than_a_call_is_what_the_next_call_gets() {
    let mut stage = Stage::new().await;
    for (node, role) in [
        (0, ReplicaRole::Leader),
        (1, ReplicaRole::Follower),
        (2, ReplicaRole::Follower),
    ] {
        let serves = replica(SHARD, role, INDEX, true);
        stage.report(node, vec![serves]).await;
    }
    let pull = |patience: Duration| {
        let request = PullSnapshotRequest { shard_id: SHARD };
        let request = rpc::request(request, patience);
        let mut admin = stage.cluster.admin();
        async move { admin.pull_snapshot(request).await }
    };
    let late = pull(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(reason(&late), Reason::Deadline, "{late}");
    let again = pull(limits::DEADLINE_MAX);
    let mut admin = stage.cluster.admin();
    let runtime = stage.cluster.runtime.clone();
    let fetched = async {
        loop {
            // Where the machine stood still its call may have ended, too: then it is asked again.
            while let Ok(question) = stage.questions.try_recv() {
                assert_eq!(question.asked, Asked::TakeSnapshot);
                question.answer(true);
            }
            let held = admin.list_snapshots(ListSnapshotsRequest {}).await;
            if !held.unwrap().into_inner().snapshots.is_empty() {
                return;
            }
            runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let fetched = runtime.timeout(PATIENCE, fetched).await;
    fetched.expect("nobody fetches it once the call has ended");
    let pulled = again.await.unwrap().into_inner().snapshot.unwrap();
    assert_eq!(pulled.index, INDEX);
    assert!(stage.questions.try_recv().is_err(), "another one was taken");
    stage.stop.cancel();
}

/// Two of three nodes give their damaged data up, and the third has nothing, since a person has accepted that nothing is left. Returns
/// what the second of the two waits for, while the name of the first has come back with an empty directory.
async fn the_damaged_give_up() -> (Stage, Question) {
    let mut stage = Stage::new().await;
    for node in [0, 1] {
        let damaged = SyncRequest {
            data_loss: true,
            ..SyncRequest::default()
        };
        stage.say(node, damaged).await;
    }
    let empty = replica(SHARD, ReplicaRole::Follower, 0, false);
    stage.report(2, vec![empty]).await;
    stage.accept_nothing();
    let first = stage.until_asked(Asked::GiveUpData).await;
    let place = first.node;
    first.answer(true);
    let second = stage.until_asked(Asked::GiveUpData).await;
    let address = stage.nodes[place].address.clone();
    stage.register(place, address).await;
    (stage, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_serves_again_while_damaged_data_is_given_up_keeps_its_life() {
    let (stage, second) = the_damaged_give_up().await;
    let serves = replica(SHARD, ReplicaRole::Leader, INDEX, true);
    stage.report(2, vec![serves]).await;
    second.answer(true);
    stage.keeps_its_life(Reason::NotNeeded).await;
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_replica_that_comes_back_while_damaged_data_is_given_up_is_begun_from() {
    let (mut stage, second) = the_damaged_give_up().await;
    stage.report(2, vec![sound()]).await;
    second.answer(true);
    for asked in [Asked::TakeSnapshot, Asked::KeepSnapshot] {
        let question = stage.until_asked(asked).await;
        assert_eq!(question.node, 2);
        if asked == Asked::KeepSnapshot {
            let serves = ReplicaStatus {
                incarnation: 2,
                ..replica(SHARD, ReplicaRole::Leader, INDEX, true)
            };
            stage.report(2, vec![serves]).await;
        }
        question.answer(true);
    }
    let (outcome, status) = stage.outcome().await;
    assert_eq!(outcome.error, "");
    assert_eq!(outcome.reason, "from_replica");
    let shard = &status.shards[1];
    assert_eq!(shard.incarnation, 2);
    // Others may be on their way to it.
    let first = shard.replicas.iter().map(|at| at.node_id).next();
    assert_eq!(first, Some(stage.nodes[2].node_id));
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_keeps_its_life_while_a_node_that_came_back_has_not_said_what_it_has() {
    let (stage, second) = the_damaged_give_up().await;
    stage.report(2, Vec::new()).await;
    second.answer(true);
    stage.keeps_its_life(Reason::Starting).await;
    stage.stop.cancel();
}

/// Half done, a removal would need most of those who stay: the shard would stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_a_shard_while_most_of_those_who_stay_are_not_at_work() {
    let mut stage = Stage::new().await;
    stage.add_node().await;
    let both = |role: ReplicaRole, serving: bool| {
        let of = |shard| replica(shard, role, INDEX, serving);
        vec![of(SHARD), of(OTHER)]
    };
    stage.report(1, both(ReplicaRole::Leader, true)).await;
    for node in [0, 2] {
        stage.report(node, both(ReplicaRole::Follower, true)).await;
    }
    stage.replace(SHARD).await;
    stage.replace(OTHER).await;
    // Of those who are to stay only the leader is at work.
    stage.report(2, both(ReplicaRole::Follower, false)).await;
    stage.report(3, both(ReplicaRole::Learner, false)).await;
    let comes = |status: &GetStatusResponse| {
        let change = status.shards[1].change.as_ref();
        change.is_none_or(|change| change.add_node_id != 0)
    };
    while comes(&stage.status().await) {
        assert_ne!(stage.step().await.1, MemberStep::Remove);
    }
    // Whoever looks goes on with both changes.
    for _ in 0..10 {
        assert_ne!(stage.step().await.1, MemberStep::Remove);
    }
    stage.report(2, both(ReplicaRole::Follower, true)).await;
    while stage.status().await.shards[1].change.is_some() {
        stage.step().await;
    }
    let status = stage.status().await;
    let replicas = status.shards[1].replicas.iter();
    let mut nodes: Vec<u64> = replicas.map(|at| at.node_id).collect();
    nodes.sort_unstable();
    let stay: Vec<u64> = stage.nodes[1..].iter().map(|at| at.node_id).collect();
    assert_eq!(nodes, stay);
    stage.stop.cancel();
}
