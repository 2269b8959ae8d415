//! A member that is behind: the log that is kept for it, and the snapshots that it is sent.

use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use api::raft::v1::raft_service_server::RaftService;
use async_trait::async_trait;
use futures::channel::mpsc::{self, UnboundedReceiver};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use replication::{Group, HostOptions, Peer, Start};
use runtime::{CancellationToken, Runtime};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::common::trio::{Replica, World, trio_config};
use crate::common::{
    ADD, Counters, Node, PATIENCE, add, client_of, put, serve, settle, small_options,
};

/// What a test lets pass to a node.
#[derive(Debug)]
struct Gate {
    /// Snapshots that have come.
    came: watch::Sender<u64>,
    /// Whether snapshots may pass.
    open: watch::Sender<bool>,
    /// How long each request with entries takes to pass.
    pause: watch::Sender<Duration>,
}

/// Stands before a node.
#[derive(Clone)]
struct Gated {
    node: RaftServiceClient<Channel>,
    gate: Arc<Gate>,
}

/// Passes on what comes, for as long as both sides are there.
fn onward<T: Send + 'static>(requests: Streaming<T>) -> impl Stream<Item = T> + Send + 'static {
    futures::stream::unfold(requests, |mut requests| async move {
        let next = requests.message().await.ok().flatten()?;
        Some((next, requests))
    })
}

/// As [`onward`], where requests with entries take their time.
fn paced(
    mut requests: Streaming<wire::AppendRequest>,
    gate: Arc<Gate>,
) -> UnboundedReceiver<wire::AppendRequest> {
    let (onward, passed) = mpsc::unbounded();
    let pass = async move {
        while let Ok(Some(message)) = requests.message().await {
            let pause = *gate.pause.borrow();
            let has_entries = message.block.is_some() || !message.entries.is_empty();
            if has_entries && !pause.is_zero() {
                Runtime::real().sleep(pause).await;
            }
            if onward.unbounded_send(message).is_err() {
                return;
            }
        }
    };
    drop(Runtime::real().spawn("gate", pass));
    passed
}

#[async_trait]
impl RaftService for Gated {
    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        self.node.clone().vote(request.into_inner()).await
    }

    type AppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let gate = Arc::clone(&self.gate);
        let requests = paced(request.into_inner(), gate);
        let answers = self.node.clone().append(requests).await?;
        Ok(Response::new(answers.into_inner().boxed()))
    }

    async fn offer_snapshot(
        &self,
        request: Request<wire::OfferSnapshotRequest>,
    ) -> Result<Response<wire::OfferSnapshotResponse>, Status> {
        self.node.clone().offer_snapshot(request.into_inner()).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        self.gate.came.send_modify(|came| *came += 1);
        let mut open = self.gate.open.subscribe();
        drop(open.wait_for(|open| *open).await);
        let requests = onward(request.into_inner());
        self.node.clone().install_snapshot(requests).await
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        self.node
            .clone()
            .transfer_leader(request.into_inner())
            .await
    }

    async fn yield_leader(
        &self,
        request: Request<wire::YieldLeaderRequest>,
    ) -> Result<Response<wire::YieldLeaderResponse>, Status> {
        self.node.clone().yield_leader(request.into_inner()).await
    }
}

/// A group whose only voter no election disturbs, and a learner that is not in it yet, behind a gate.
struct Pair {
    leader: Node,
    group: Group<Counters>,
    learner: Replica,
    gate: Arc<Gate>,
    /// The learner, as the leader is to reach it.
    peer: Peer,
    stop: CancellationToken,
    /// Held for what the nodes lie in.
    _world: World,
}

impl Pair {
    async fn new(options: HostOptions) -> Self {
        Self::of(options, None).await
    }

    async fn of(options: HostOptions, lag_entries_max: Option<u64>) -> Self {
        let mut world = World::new();
        world.options = options;
        let leader = world.open(1, None).await;
        let members = vec![leader.member()];
        let mut config = trio_config(Start::Bootstrap { members });
        config.lag_entries_max = lag_entries_max.unwrap_or(config.lag_entries_max);
        let group = leader.host.start_group(config, Arc::default()).await;
        let group = group.unwrap();
        settle(&group).await;
        let learner = world.joining(2).await;
        let gate = Arc::new(Gate {
            came: watch::Sender::new(0),
            open: watch::Sender::new(true),
            pause: watch::Sender::new(Duration::ZERO),
        });
        let gated = Gated {
            node: client_of(&learner.node),
            gate: Arc::clone(&gate),
        };
        let stop = CancellationToken::new();
        let peer = Peer {
            node: learner.node.id,
            address: serve(gated, &stop).await,
        };
        Self {
            leader,
            group,
            learner,
            gate,
            peer,
            stop,
            _world: world,
        }
    }

    /// Writes something and takes a snapshot, over and over.
    async fn take_snapshots(&self, count: u64) {
        for _ in 0..count {
            put(&self.group, "n", 1).await.unwrap();
            self.group.take_snapshot().await.unwrap();
        }
    }

    /// Waits until a snapshot is on its way.
    async fn until_one_came(&self) {
        let mut came = self.gate.came.subscribe();
        let one = came.wait_for(|came| *came > 0);
        let one = Runtime::real().timeout(PATIENCE, one).await;
        drop(one.unwrap().unwrap());
    }

    async fn agree(&self) {
        let last = put(&self.group, "last", 1).await.unwrap().index;
        let learner = &self.learner;
        let waited = learner.group.wait_applied(last, PATIENCE).await;
        assert!(waited.is_ok(), "{:?}", learner.group.status());
        assert_eq!(learner.machine.state(), self.group.machine().state());
    }

    async fn end(self) {
        self.stop.cancel();
        self.leader.kill().await;
        self.learner.node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_longer_than_two_generations_for_a_snapshot_needs_no_other() {
    let pair = Pair::new(small_options()).await;
    pair.take_snapshots(3).await;
    pair.gate.open.send_replace(false);
    let joining = pair.group.add_learner(pair.peer.clone(), PATIENCE);
    let meanwhile = async {
        pair.until_one_came().await;
        pair.take_snapshots(3).await;
        pair.gate.open.send_replace(true);
    };
    let (joined, ()) = futures::join!(joining, meanwhile);
    joined.unwrap();
    pair.agree().await;
    assert_eq!(*pair.gate.came.borrow(), 1);
    // Once it has it, nothing is kept for it any more.
    let newest = pair.group.latest_snapshot().unwrap().info().applied.index;
    pair.take_snapshots(1).await;
    pair.agree().await;
    let purged = async {
        while pair.group.status().purged < Some(newest) {
            tokio::task::yield_now().await;
        }
    };
    let purged = Runtime::real().timeout(PATIENCE, purged).await;
    assert!(purged.is_ok(), "{:?}", pair.group.status());
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_arrive_holds_back_no_more_than_the_log_may_be_long() {
    let options = HostOptions {
        log_bytes_max: 64 << 10,
        ..small_options()
    };
    let pair = Pair::new(options).await;
    pair.take_snapshots(3).await;
    pair.gate.open.send_replace(false);
    let joining = pair.group.add_learner(pair.peer.clone(), PATIENCE * 3);
    let meanwhile = async {
        pair.until_one_came().await;
        let sent = pair.group.latest_snapshot().unwrap().info().applied.index;
        let runtime = Runtime::real();
        let deadline = runtime.now() + PATIENCE;
        let mut number = 0;
        while pair.group.status().purged <= Some(sent) {
            assert!(runtime.now() < deadline, "{:?}", pair.group.status());
            number += 1;
            put(&pair.group, &format!("{number:0300}"), 1)
                .await
                .unwrap();
        }
        pair.gate.open.send_replace(true);
    };
    let (joined, ()) = futures::join!(joining, meanwhile);
    joined.unwrap();
    pair.agree().await;
    pair.end().await;
}

/// A follower gets much, and takes a second for each request: it answers in time, and would need a long time for all.
async fn a_slow_follower_is_sent_a_snapshot(options: HostOptions, lag_entries_max: Option<u64>) {
    // More than a dozen requests hold.
    const ENTRIES: usize = 12_000;
    let pair = Pair::of(options, lag_entries_max).await;
    let (group, peer) = (&pair.group, pair.peer.clone());
    group.add_learner(peer, PATIENCE).await.unwrap();
    pair.agree().await;
    let learner = &pair.learner;
    let held = learner.group.applied().unwrap().index;
    pair.gate.open.send_replace(false);
    pair.gate.pause.send_replace(Duration::from_secs(1));
    let mut last = group.submit(ADD, add("n", 1)).await.unwrap();
    for _ in 0..ENTRIES {
        last = group.submit(ADD, add("n", 1)).await.unwrap();
    }
    last.await.unwrap();
    pair.take_snapshots(1).await;
    let covered = group.latest_snapshot().unwrap().info().applied.index;
    pair.take_snapshots(1).await;
    pair.until_one_came().await;
    // While it is on its way the follower answers from what it has, and the leader whatever it is asked.
    learner.group.wait_applied(held, PATIENCE).await.unwrap();
    assert_eq!(learner.machine.get("last"), 1);
    group.read_index(PATIENCE).await.unwrap();
    pair.gate.open.send_replace(true);
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while group.status().purged < Some(covered) {
        assert!(runtime.now() < deadline, "{:?}", group.status());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    pair.gate.pause.send_replace(Duration::ZERO);
    pair.agree().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_slow_and_answers_is_sent_a_snapshot_once_it_is_far_behind() {
    a_slow_follower_is_sent_a_snapshot(small_options(), Some(1000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_slow_and_answers_does_not_hold_back_a_log_that_is_too_long() {
    let options = HostOptions {
        log_bytes_max: 64 << 10,
        ..small_options()
    };
    a_slow_follower_is_sent_a_snapshot(options, None).await;
}
