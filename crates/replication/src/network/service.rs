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
use crate::raft::{AppendRequest, AppendResult, TypeConfig, Vote};
use crate::snapshot::{Receiver, SnapshotFile, SnapshotStore};
use crate::{NodeId, SnapshotError};

/// Requests of one stream that wait for Raft. A sender that is faster waits in HTTP/2's flow control.
const REQUESTS_AHEAD: usize = 16;

/// A group as the service sees it, whatever its state machine.
#[async_trait]
pub(crate) trait Hosted: Send + Sync {
    /// The lease that a leader may hold on the answers of this replica, in milliseconds.
    fn granted_lease_ms(&self) -> u32;
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
}

impl RaftServer {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
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
        let group = GroupId(envelope.group_id);
        self.registry
            .hosted(group)
            .ok_or_else(|| ApiError::new(Reason::NotFound, format!("group {group} is not here")))
    }
}

fn refuse(error: &ConvertError) -> ApiError {
    ApiError::malformed(error)
}

#[async_trait]
impl RaftService for RaftServer {
    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let message = request.into_inner();
        let hosted = self.hosted(message.envelope.as_ref())?;
        let request = VoteRequest {
            vote: convert::vote_from_wire(message.vote).map_err(|error| refuse(&error))?,
            last_log_id: convert::optional_log_id(message.last_log_id.as_ref())
                .map_err(|error| refuse(&error))?,
            leadership_transfer: message.leadership_transfer,
        };
        let answer = hosted.vote(request, message.pre_vote).await?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(convert::vote_to_wire(&answer.vote)),
            last_log_id: answer.last_log_id.as_ref().map(convert::log_id_to_wire),
            granted: answer.vote_granted,
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
            let request = convert::append_from_wire(first).map_err(|error| refuse(&error))?;
            hosted.admit(&request)?;
            requests
                .send(request)
                .await
                .map_err(|_| ApiError::new(Reason::Stopped, "the replica went away"))?;
            let granted = hosted.granted_lease_ms();
            let feed = feed(inbound, envelope, Arc::clone(&hosted), requests);
            let answers = hosted.append(ReceiverStream::new(receiver).boxed());
            Ok(Some(merge(feed, answers, granted)))
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
        let vote = convert::vote_from_wire(first.vote).map_err(|error| refuse(&error))?;
        let header = first
            .header
            .clone()
            .ok_or_else(|| ApiError::field(Reason::Malformed, "header", "is missing"))?;
        let group = GroupId(
            first
                .envelope
                .as_ref()
                .map_or(0, |envelope| envelope.group_id),
        );
        let _only_one = self.registry.begin_receiving(group)?;
        let file = self
            .registry
            .receive(hosted.snapshots(), &header, first, inbound)
            .await?;
        let vote = hosted.install(vote, file).await?;
        Ok(Response::new(wire::InstallSnapshotResponse {
            vote: Some(convert::vote_to_wire(&vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        let hosted = self.hosted(message.envelope.as_ref())?;
        let from = convert::vote_from_wire(message.from_leader).map_err(|error| refuse(&error))?;
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
        let from = envelope.map_or(0, |envelope| envelope.from_node);
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
    mut inbound: Streaming<wire::AppendRequest>,
    envelope: Option<wire::Envelope>,
    hosted: Arc<dyn Hosted>,
    requests: mpsc::Sender<AppendRequest>,
) -> Result<(), Status> {
    while let Some(message) = inbound.message().await? {
        if message.envelope != envelope {
            return Err(ApiError::malformed("one stream is for one group").into());
        }
        let request = convert::append_from_wire(message).map_err(|error| refuse(&error))?;
        hosted.admit(&request)?;
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
    granted_lease_ms: u32,
) -> Answers {
    let to_wire =
        move |result: AppendResult| convert::append_result_to_wire(&result, granted_lease_ms);
    let answers = answers.map(move |answer| answer.map(to_wire));
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

    /// Takes in the pieces of a snapshot, each away from the async workers.
    async fn receive(
        &self,
        store: Arc<SnapshotStore>,
        header: &wire::SnapshotHeader,
        first: wire::InstallSnapshotRequest,
        mut inbound: Streaming<wire::InstallSnapshotRequest>,
    ) -> Result<SnapshotFile, Status> {
        if header.bytes > self.snapshot_bytes_max() {
            let limit = self.snapshot_bytes_max();
            let message = format!(
                "snapshot of {} bytes, at most {limit} are taken",
                header.bytes
            );
            return Err(ApiError::new(Reason::MessageTooLarge, message).into());
        }
        let (bytes, hash) = (header.bytes, header.hash.clone());
        let mut file = self.write(move || Receiver::new(store, bytes)).await?;
        let mut next = Some(first);
        while let Some(piece) = next {
            let take = move || file.take(piece.offset, &piece.data).map(|()| file);
            file = self.write(take).await?;
            next = self.heard(inbound.message()).await?;
        }
        self.write(move || file.finish(&hash)).await
    }

    /// Does a step of receiving a snapshot away from the async workers.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        let written = self.runtime().spawn_blocking("snapshot-receive", work);
        let written = written
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(written.map_err(|error| not_taken(&error))?)
    }
}

fn not_taken(error: &SnapshotError) -> ApiError {
    let reason = match error {
        full if full.is_disk_full() => Reason::DiskFull,
        SnapshotError::Damaged { .. } | SnapshotError::Version { .. } => Reason::DataLoss,
        SnapshotError::Disk(_)
        | SnapshotError::Io(_)
        | SnapshotError::Restore(_)
        | SnapshotError::Empty
        | SnapshotError::Stopped { .. } => Reason::Internal,
    };
    ApiError::new(reason, error.to_string())
}
