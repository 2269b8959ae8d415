//! The server side: finds the group, checks for whom a message is, and hands it to Raft.

use std::sync::Arc;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_server::RaftService;
use api::{ApiError, Reason};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wal::GroupId;

use crate::convert::{self, ConvertError};
use crate::host::Registry;
use crate::network::block::{BlockError, Unpacker};
use crate::raft::{AppendRequest, AppendResult, TypeConfig, Vote};
use crate::snapshot::{Announced, ReceiveError, Receiver, SnapshotFile, SnapshotStore};
use crate::{NodeId, SnapshotError};

/// Requests of one stream that wait for Raft. A sender that is faster waits in HTTP/2's flow control.
const REQUESTS_AHEAD: usize = 16;

/// A group as the service sees it, whatever its state machine.
#[async_trait]
pub(crate) trait Hosted: Send + Sync {
    /// The lease that a leader may hold on the answers of this replica, in milliseconds.
    fn granted_lease_ms(&self) -> u32;
    /// Whether the leader is asked for an entry, though it has nothing to write. Said once.
    fn wants_entry(&self) -> bool;
    /// How far the log of this node reaches on its disk.
    fn standing(&self) -> wire::Standing;
    /// Takes in what a member says of how far logs reach. Nothing else that it says may count before.
    fn hear(&self, from: u64, told: &[wire::Standing]) -> Result<(), Status>;
    /// Judges a request for a vote.
    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, Status>;
    /// Whether there is room on the disk for what a request brings.
    fn admit(&self, request: &AppendRequest) -> Result<(), Status>;
    /// Takes a stream of appends; answers in order.
    fn append(
        &self,
        requests: BoxStream<'static, AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResult, Status>>;
    /// The vote of this replica, where it is higher than that of a leader, who is none any more then.
    fn higher_vote(&self, vote: &Vote) -> Option<Vote>;
    /// Where snapshots are received.
    fn snapshots(&self) -> Arc<SnapshotStore>;
    /// Installs a received snapshot and answers with this replica's vote.
    async fn install(&self, vote: Vote, file: SnapshotFile) -> Result<Vote, Status>;
    /// Takes the lead over, if everything of the old leader is here.
    async fn take_lead(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<(), Status>;
    /// Begins to hand the lead to a voter that asks for it.
    async fn yield_lead(&self, to: NodeId) -> Result<(), Status>;
}

/// The service of all groups of a node.
#[derive(Debug, Clone)]
pub struct RaftServer {
    registry: Arc<Registry>,
    unpacker: Arc<Unpacker>,
}

impl RaftServer {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            unpacker: Arc::default(),
        }
    }

    /// What a leader sends, out of its block where it came in one, if this replica may take it.
    fn read(
        &self,
        hosted: &dyn Hosted,
        message: wire::AppendRequest,
    ) -> Result<AppendRequest, Status> {
        let unpacked = self.unpacker.unpack(message);
        let message = unpacked.map_err(|error| not_unpacked(&error))?;
        // A stream may have begun before it was known.
        self.check_sender(from_node(message.envelope.as_ref()))?;
        hosted.hear(from_node(message.envelope.as_ref()), &message.standings)?;
        let request = convert::append_from_wire(message).map_err(|error| refuse(&error))?;
        hosted.admit(&request)?;
        Ok(request)
    }

    fn hosted(&self, envelope: Option<&wire::Envelope>) -> Result<Arc<dyn Hosted>, ApiError> {
        let envelope =
            envelope.ok_or_else(|| ApiError::field(Reason::Malformed, "envelope", "is missing"))?;
        if envelope.cluster_id.as_ref() != self.registry.cluster().0 {
            let message = "this node belongs to another cluster";
            return Err(ApiError::new(Reason::WrongCluster, message));
        }
        if envelope.to_node != self.registry.node().0 {
            let message = format!(
                "this is node {}, not {}",
                self.registry.node(),
                envelope.to_node
            );
            return Err(ApiError::new(Reason::WrongNode, message));
        }
        self.check_sender(envelope.from_node)?;
        let group = GroupId(envelope.group_id);
        self.registry
            .hosted(group)
            .ok_or_else(|| ApiError::new(Reason::NotFound, format!("group {group} is not here")))
    }

    /// Refuses whoever is lost, whatever it says.
    fn check_sender(&self, node: u64) -> Result<(), ApiError> {
        if self.registry.is_lost(node) {
            let message = format!("node {node} is lost, its identity is nobody's any more");
            return Err(ApiError::new(Reason::NodeLost, message));
        }
        Ok(())
    }
}

/// Who sends a message.
fn from_node(envelope: Option<&wire::Envelope>) -> u64 {
    envelope.map_or(0, |envelope| envelope.from_node)
}

fn refuse(error: &ConvertError) -> ApiError {
    ApiError::malformed(error)
}

fn not_unpacked(error: &BlockError) -> ApiError {
    let reason = match error {
        BlockError::Damaged { .. } => Reason::DataLoss,
        BlockError::TooLarge { .. } => Reason::MessageTooLarge,
        BlockError::Beside | BlockError::Nested | BlockError::Content(_) => {
            return ApiError::malformed(error);
        }
        BlockError::Zstd(_) => Reason::Internal,
    };
    ApiError::new(reason, error.to_string())
}

/// What the header of a snapshot says of its file.
pub(crate) fn announced(header: Option<&wire::SnapshotHeader>) -> Result<Announced, ApiError> {
    let header =
        header.ok_or_else(|| ApiError::field(Reason::Malformed, "header", "is missing"))?;
    let hash = <[u8; 32]>::try_from(header.hash.as_ref())
        .map_err(|_| ApiError::field(Reason::Malformed, "header.hash", "must have 32 bytes"))?;
    Ok(Announced {
        bytes: header.bytes,
        hash,
        index: header.last_log_id.as_ref().map_or(0, |id| id.index),
    })
}

/// What becomes of a snapshot that is being sent.
enum Received {
    /// It is here as a whole.
    File(SnapshotFile),
    /// Its sender does not lead any more.
    Outvoted(Vote),
}

#[async_trait]
impl RaftService for RaftServer {
    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let message = request.into_inner();
        let hosted = self.hosted(message.envelope.as_ref())?;
        hosted.hear(from_node(message.envelope.as_ref()), &message.standings)?;
        let request = VoteRequest {
            vote: convert::candidate_from_wire(message.vote).map_err(|error| refuse(&error))?,
            last_log_id: convert::optional_log_id(message.last_log_id.as_ref())
                .map_err(|error| refuse(&error))?,
            leadership_transfer: message.leadership_transfer,
        };
        let answer = hosted.vote(request, message.pre_vote).await?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(convert::vote_to_wire(&answer.vote)),
            last_log_id: answer.last_log_id.as_ref().map(convert::log_id_to_wire),
            granted: answer.vote_granted,
            standing: Some(hosted.standing()),
        }))
    }

    type AppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut inbound = request.into_inner();
        let server = self.clone();
        let (requests, receiver) = mpsc::channel(REQUESTS_AHEAD);
        let answers = async_stream(move || async move {
            // The first message says which group the stream is for; nothing is answered before.
            let Some(first) = server.registry.heard(inbound.message()).await? else {
                return Ok(None);
            };
            let hosted = server.hosted(first.envelope.as_ref())?;
            let envelope = first.envelope.clone();
            let request = server.read(hosted.as_ref(), first)?;
            requests
                .send(request)
                .await
                .map_err(|_| ApiError::new(Reason::Stopped, "the replica went away"))?;
            let answered = Arc::clone(&hosted);
            let feed = feed(server, inbound, envelope, Arc::clone(&hosted), requests);
            let answers = hosted.append(ReceiverStream::new(receiver).boxed());
            Ok(Some(merge(feed, answers, answered)))
        });
        Ok(Response::new(answers))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        let mut inbound = request.into_inner();
        let first = self
            .registry
            .heard(inbound.message())
            .await?
            .ok_or_else(|| ApiError::malformed("the stream is empty"))?;
        let hosted = self.hosted(first.envelope.as_ref())?;
        let vote = convert::leader_from_wire(first.vote).map_err(|error| refuse(&error))?;
        let received = self
            .registry
            .receive(hosted.as_ref(), &vote, first, inbound);
        let vote = match received.await? {
            Received::File(file) => hosted.install(vote, file).await?,
            Received::Outvoted(higher) => higher,
        };
        Ok(Response::new(wire::InstallSnapshotResponse {
            vote: Some(convert::vote_to_wire(&vote)),
        }))
    }

    async fn offer_snapshot(
        &self,
        request: Request<wire::OfferSnapshotRequest>,
    ) -> Result<Response<wire::OfferSnapshotResponse>, Status> {
        let message = request.into_inner();
        let hosted = self.hosted(message.envelope.as_ref())?;
        let vote = convert::leader_from_wire(message.vote).map_err(|error| refuse(&error))?;
        let announced = announced(message.header.as_ref())?;
        if let Some(higher) = hosted.higher_vote(&vote) {
            return Ok(Response::new(wire::OfferSnapshotResponse {
                higher_vote: Some(convert::vote_to_wire(&higher)),
                offset: 0,
            }));
        }
        let kept = hosted.snapshots().kept_of(&announced);
        let offset = kept.ok_or_else(|| not_taken(&ReceiveError::Busy))?;
        Ok(Response::new(wire::OfferSnapshotResponse {
            higher_vote: None,
            offset,
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        let hosted = self.hosted(message.envelope.as_ref())?;
        let from =
            convert::leader_from_wire(message.from_leader).map_err(|error| refuse(&error))?;
        let last = convert::optional_log_id(message.last_log_id.as_ref())
            .map_err(|error| refuse(&error))?;
        hosted
            .take_lead(TransferLeaderRequest::new(from, message.to_node, last))
            .await?;
        Ok(Response::new(wire::TransferLeaderResponse {}))
    }

    async fn yield_leader(
        &self,
        request: Request<wire::YieldLeaderRequest>,
    ) -> Result<Response<wire::YieldLeaderResponse>, Status> {
        let envelope = request.into_inner().envelope;
        let hosted = self.hosted(envelope.as_ref())?;
        let from = from_node(envelope.as_ref());
        hosted.yield_lead(NodeId(from)).await?;
        Ok(Response::new(wire::YieldLeaderResponse {}))
    }
}

/// A stream that is only known after something was awaited.
fn async_stream<F, Fut>(open: F) -> BoxStream<'static, Result<wire::AppendResponse, Status>>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<Option<Answers>, Status>> + Send + 'static,
{
    let opened = open();
    futures::stream::once(opened)
        .flat_map(|opened| match opened {
            Ok(Some(answers)) => answers,
            Ok(None) => futures::stream::empty().boxed(),
            Err(status) => futures::stream::iter([Err(status)]).boxed(),
        })
        .boxed()
}

type Answers = BoxStream<'static, Result<wire::AppendResponse, Status>>;

/// Passes requests on until the sender ends, fails, sends something that is not for this group, or more than there is
/// room for.
async fn feed(
    server: RaftServer,
    mut inbound: Streaming<wire::AppendRequest>,
    envelope: Option<wire::Envelope>,
    hosted: Arc<dyn Hosted>,
    requests: mpsc::Sender<AppendRequest>,
) -> Result<(), Status> {
    while let Some(message) = inbound.message().await? {
        if message.envelope != envelope {
            return Err(ApiError::malformed("one stream is for one group").into());
        }
        let request = server.read(hosted.as_ref(), message)?;
        if requests.send(request).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Answers as they come; an error of the sender is passed on after the answers that precede it.
fn merge(
    feed: impl Future<Output = Result<(), Status>> + Send + 'static,
    answers: BoxStream<'static, Result<AppendResult, Status>>,
    hosted: Arc<dyn Hosted>,
) -> Answers {
    let granted_lease_ms = hosted.granted_lease_ms();
    let to_wire = move |result: AppendResult| wire::AppendResponse {
        wants_entry: hosted.wants_entry(),
        ..convert::append_result_to_wire(&result, granted_lease_ms, hosted.standing())
    };
    let answers = answers.map(move |answer| answer.map(&to_wire));
    // Polling the feed together with the answers ties its life to that of the call.
    let feed = futures::stream::once(feed).filter_map(|fed| async move { fed.err().map(Err) });
    futures::stream::select(answers, feed).boxed()
}

impl Registry {
    /// Waits for the next message of a peer, and not for ever: one that says nothing must not keep a place.
    async fn heard<T>(
        &self,
        message: impl Future<Output = Result<Option<T>, Status>>,
    ) -> Result<Option<T>, Status> {
        let limit = self.peer_silence_max();
        let heard = self.runtime().timeout(limit, message).await;
        heard.map_err(|_| {
            let message = format!("nothing was sent for {} ms", limit.as_millis());
            Status::from(ApiError::new(Reason::Deadline, message))
        })?
    }

    /// Takes in the pieces of a snapshot, each away from the async workers. What came of one that breaks off is kept.
    async fn receive(
        &self,
        hosted: &dyn Hosted,
        vote: &Vote,
        first: wire::InstallSnapshotRequest,
        mut inbound: Streaming<wire::InstallSnapshotRequest>,
    ) -> Result<Received, Status> {
        let announced = announced(first.header.as_ref())?;
        if announced.bytes > self.snapshot_bytes_max() {
            let limit = self.snapshot_bytes_max();
            let message = format!(
                "snapshot of {} bytes, at most {limit} are taken",
                announced.bytes
            );
            return Err(ApiError::new(Reason::MessageTooLarge, message).into());
        }
        if let Some(higher) = hosted.higher_vote(vote) {
            return Ok(Received::Outvoted(higher));
        }
        let group = first.envelope.as_ref().map_or(0, |to| to.group_id);
        let (bytes, from) = (announced.bytes, first.offset);
        let (store, number) = (hosted.snapshots(), self.next_number());
        if from == bytes
            && let Some(file) = store.same_as(&announced)
        {
            // The connection broke while it was being installed.
            return Ok(Received::File(file));
        }
        let begin = move || Receiver::begin(&store, announced, from, number);
        let mut file = self.write(begin).await?;
        if from > 0 {
            self.add_resumed(from);
            tracing::info!(
                group,
                from,
                bytes,
                "a snapshot is received on from where it broke off"
            );
        }
        let mut next = Some(first);
        while let Some(piece) = next {
            let end = piece.offset.saturating_add(piece.data.len() as u64);
            let take = move || file.take(piece.offset, &piece.data).map(|()| file);
            file = self.write(take).await?;
            let heard = self.heard(inbound.message()).await;
            next = heard.inspect_err(|status| {
                let reason = status.message();
                tracing::info!(group, end, bytes, reason, "a snapshot broke off");
            })?;
            if let Some(higher) = hosted.higher_vote(vote) {
                return Ok(Received::Outvoted(higher));
            }
        }
        // Where nobody waits for the outcome any more, the file comes back and is kept.
        let verify = move || file.verify().map(|()| file);
        let file = self.write(verify).await?.into_file();
        Ok(Received::File(
            file.map_err(|error| not_taken(&error.into()))?,
        ))
    }

    /// Does a step of receiving a snapshot away from the async workers.
    async fn write<T: Send + 'static, E: Into<ReceiveError> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Status> {
        let written = self.runtime().spawn_blocking("snapshot-receive", work);
        let written = written
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(written.map_err(|error| not_taken(&error.into()))?)
    }
}

fn not_taken(error: &ReceiveError) -> ApiError {
    let reason = match error {
        ReceiveError::Busy => Reason::Overloaded,
        ReceiveError::Elsewhere { .. } => Reason::Aborted,
        ReceiveError::Snapshot(full) if full.is_disk_full() => Reason::DiskFull,
        ReceiveError::Snapshot(SnapshotError::Damaged { .. } | SnapshotError::Version { .. }) => {
            Reason::DataLoss
        }
        ReceiveError::Snapshot(
            SnapshotError::Disk(_)
            | SnapshotError::Io(_)
            | SnapshotError::Restore(_)
            | SnapshotError::Empty
            | SnapshotError::Stopped { .. },
        ) => Reason::Internal,
    };
    ApiError::new(reason, error.to_string())
}
