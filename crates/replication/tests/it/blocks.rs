//! Requests to append that go to followers in compressed blocks: to whom, what they save, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use api::raft::v1::raft_service_server::RaftService;
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::channel::mpsc::{self, UnboundedReceiver};
use futures::channel::oneshot;
use futures::stream::BoxStream;
use prost::Message as _;
use replication::{AppendSize, Host, NodeId, Peer, Start};
use runtime::{CancellationToken, Runtime};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::common::trio::{World, begin};
use crate::common::{PATIENCE, envelope, put, serve};

/// What a learner was sent.
#[derive(Debug, Default)]
struct Seen {
    raw: AtomicU64,
    blocks: AtomicU64,
    streams_that_begin_with_a_block: AtomicU64,
}

/// Stands before a node and looks at what it is sent.
#[derive(Clone)]
struct Watched {
    node: RaftServiceClient<Channel>,
    seen: Arc<Seen>,
    /// Its answers are those of a program that knows no blocks.
    is_old: bool,
}

impl Watched {
    /// Passes on what comes, for as long as both sides are there: the second request when the first was answered, so that the window of the
    /// connection keeps the leader from sending more before it can have heard what the peer takes.
    fn look_at(
        &self,
        mut requests: Streaming<wire::AppendRequest>,
        answered: oneshot::Receiver<()>,
    ) -> UnboundedReceiver<wire::AppendRequest> {
        let seen = Arc::clone(&self.seen);
        let (onward, passed) = mpsc::unbounded();
        let look = async move {
            let mut first_answer = Some(answered);
            while let Ok(Some(message)) = requests.message().await {
                if message.block.is_some() {
                    assert!(message.vote.is_none() && message.entries.is_empty());
                    seen.blocks.fetch_add(1, Ordering::Relaxed);
                    let begins = &seen.streams_that_begin_with_a_block;
                    begins.fetch_add(first_answer.is_some().into(), Ordering::Relaxed);
                } else if !message.entries.is_empty() {
                    seen.raw.fetch_add(1, Ordering::Relaxed);
                }
                if onward.unbounded_send(message).is_err() {
                    return;
                }
                if let Some(answered) = first_answer.take() {
                    // Without one the stream is over.
                    let _ = answered.await;
                }
            }
        };
        drop(Runtime::real().spawn("look", look));
        passed
    }
}

#[async_trait]
impl RaftService for Watched {
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
        let (first, answered) = oneshot::channel();
        let requests = self.look_at(request.into_inner(), answered);
        let answers = self.node.clone().append(requests).await?;
        let (is_old, mut first) = (self.is_old, Some(first));
        let answers = answers.into_inner().map(move |answer| {
            let answer = answer?;
            if let Some(first) = first.take() {
                let _ = first.send(());
            }
            Ok(wire::AppendResponse {
                takes_blocks: answer.takes_blocks && !is_old,
                ..answer
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn offer_snapshot(
        &self,
        _request: Request<wire::OfferSnapshotRequest>,
    ) -> Result<Response<wire::OfferSnapshotResponse>, Status> {
        Err(Status::unimplemented("the log is all there"))
    }

    async fn install_snapshot(
        &self,
        _request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        Err(Status::unimplemented("the log is all there"))
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

fn client(address: &str) -> RaftServiceClient<Channel> {
    let config = rpc::channel::PoolConfig::default();
    let channel = rpc::channel::connect(&Runtime::real(), address, &config);
    RaftServiceClient::new(channel.unwrap())
}

/// Serves in front of a node; gives the address.
async fn watch(address: &str, seen: &Arc<Seen>, is_old: bool, stop: &CancellationToken) -> String {
    let watched = Watched {
        node: client(address),
        seen: Arc::clone(seen),
        is_old,
    };
    serve(watched, stop).await
}

/// What a node has sent: before compression, and as it was.
#[derive(Debug, Default)]
struct Sent {
    raw_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Sent {
    fn of(host: &Host) -> Arc<Self> {
        let sent = Arc::<Self>::default();
        let told = Arc::clone(&sent);
        host.observe_appends(move |size: AppendSize| {
            told.raw_bytes.fetch_add(size.raw_bytes, Ordering::Relaxed);
            told.sent_bytes
                .fetch_add(size.sent_bytes, Ordering::Relaxed);
        });
        sent
    }

    fn bytes(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.raw_bytes), load(&self.sent_bytes))
    }
}

/// A learner comes to a group that has written much, and follows it; gives what it was sent.
async fn follow(is_old: bool) -> (Arc<Seen>, Arc<Sent>) {
    const NAME_BYTES: usize = 64 << 10;
    const ENTRIES: usize = 256;
    let world = World::new();
    let first = world.open(1, None).await;
    let sent = Sent::of(&first.host);
    let members = vec![first.member()];
    let (group, machine) = begin(&first.host, Start::Bootstrap { members }).await;
    crate::common::settle(&group).await;
    let writes = (0..ENTRIES).map(|number| {
        let name = format!("{number:04} ").repeat(NAME_BYTES / 5);
        let group = group.clone();
        async move { put(&group, &name, 1).await.unwrap() }
    });
    futures::stream::iter(writes)
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    let second = world.open(2, None).await;
    let (joined, copy) = begin(&second.host, Start::Join).await;
    let (seen, stop) = (Arc::<Seen>::default(), CancellationToken::new());
    let peer = Peer {
        node: second.id,
        address: watch(&second.address, &seen, is_old, &stop).await,
    };
    group.add_learner(peer, PATIENCE).await.unwrap();
    // What comes after it has caught up reaches it, too.
    for number in 0..8 {
        let name = format!("{number:04} ").repeat(1000);
        let written = put(&group, &name, 1).await.unwrap();
        joined.wait_applied(written.index, PATIENCE).await.unwrap();
    }
    assert_eq!(copy.state(), machine.state());
    assert_eq!(copy.state().counts.len(), ENTRIES + 8);
    stop.cancel();
    first.kill().await;
    second.kill().await;
    (seen, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_behind_catches_up_in_compressed_batches() {
    let (seen, sent) = follow(false).await;
    let (raw, packed) = sent.bytes();
    assert!(raw > 16_000_000, "{raw} bytes, {seen:?}");
    assert!(packed < raw / 2, "{packed} of {raw} bytes, {seen:?}");
    let blocks = seen.blocks.load(Ordering::Relaxed);
    assert!(blocks > seen.raw.load(Ordering::Relaxed), "{seen:?}");
    let begun = seen.streams_that_begin_with_a_block.load(Ordering::Relaxed);
    assert_eq!(begun, 0, "the peer had said nothing yet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_knows_no_blocks_is_sent_none() {
    let (seen, sent) = follow(true).await;
    let (raw, packed) = sent.bytes();
    assert_eq!(raw, packed);
    assert_eq!(seen.blocks.load(Ordering::Relaxed), 0);
    assert!(seen.raw.load(Ordering::Relaxed) > 16, "{seen:?}");
}

fn log_id(index: u64) -> wire::LogId {
    wire::LogId {
        term: 3,
        node_id: 0,
        index,
    }
}

/// Three entries of a leader, without an envelope.
fn content() -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(wire::Vote {
            term: 3,
            node_id: 1,
            committed: true,
        }),
        entries: (0..3)
            .map(|index| wire::Entry {
                log_id: Some(log_id(index)),
                payload: Some(wire::entry::Payload::Blank(true)),
            })
            .collect(),
        ..wire::AppendRequest::default()
    }
}

/// By the description of the format, not by the code that is tried.
fn block(content: &wire::AppendRequest, raw_bytes: u32) -> wire::Block {
    let data = zstd::bulk::compress(&content.encode_to_vec(), 3).unwrap();
    let mut crc = crc32fast::Hasher::new_with_initial(raw_bytes);
    crc.update(&data);
    wire::Block {
        data: data.into(),
        raw_bytes,
        crc: crc.finalize(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_read_whole_or_refused_and_changes_nothing() {
    let world = World::new();
    let node = world.open(2, None).await;
    let (group, _) = begin(&node.host, Start::Join).await;
    let mut client = client(&node.address);
    let length = u32::try_from(content().encoded_len()).unwrap();
    let right = block(&content(), length);
    let mut spoilt = right.data.to_vec();
    spoilt[4] ^= 1;
    let spoilt = wire::Block {
        data: spoilt.into(),
        ..right.clone()
    };
    let nested = wire::AppendRequest {
        envelope: Some(envelope(1, 2)),
        ..content()
    };
    let nested_bytes = u32::try_from(nested.encoded_len()).unwrap();
    let alone = |block| wire::AppendRequest {
        envelope: Some(envelope(1, 2)),
        block: Some(block),
        ..wire::AppendRequest::default()
    };
    let beside = wire::AppendRequest {
        envelope: Some(envelope(1, 2)),
        block: Some(right.clone()),
        ..content()
    };
    let wrong = [
        (alone(spoilt), Code::DataLoss),
        (alone(block(&content(), length + 1)), Code::DataLoss),
        (alone(block(&content(), length - 1)), Code::DataLoss),
        (alone(block(&content(), u32::MAX)), Code::ResourceExhausted),
        (alone(block(&nested, nested_bytes)), Code::InvalidArgument),
        (alone(wire::Block::default()), Code::InvalidArgument),
        (beside, Code::InvalidArgument),
    ];
    for (request, code) in wrong {
        let answers = client.append(futures::stream::iter([request])).await;
        let status = answers.unwrap().into_inner().message().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(group.status().last_log, None);
        assert_eq!(group.status().term, 0);
    }
    let request = alone(right);
    let answers = client.append(futures::stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().message().await;
    let answer = answer.unwrap().unwrap();
    let here = wire::append_response::Result::PartialSuccess(wire::LogId {
        term: 3,
        node_id: 0,
        index: 2,
    });
    assert_eq!(answer.result, Some(here));
    assert!(answer.takes_blocks);
    let mut status = group.watch_status();
    let here = status.wait_for(|status| status.last_log == Some(2));
    let here = Runtime::real().timeout(PATIENCE, here).await;
    assert_eq!(here.unwrap().unwrap().node, NodeId(2));
    node.kill().await;
}
