//! The sending side of Raft: one client for each group and member. Every call has a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use cluster::limits::RAFT_MESSAGE_BYTES_MAX;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes};
use runtime::CancellationToken;
use tokio::sync::Notify;
use tonic::Code;
use tonic::transport::Channel;
use wal::GroupId;

use super::channels::Lane;
use super::hold::Hold;
use super::leash::leash;
use super::message::{failed, late, malformed, silent_after_pause, unreachable};
use super::{Limits, Sendings, SharedContext, Standings, Streams, snapshot, stream};
use crate::Peer;
use crate::convert::{self, ConvertError};
use crate::lease::Grants;
use crate::raft::{AppendRequest, AppendResult, RpcError, Snapshot, TypeConfig, Vote};
use crate::snapshot::SnapshotFile;
use crate::status::Tripwire;

/// Makes the clients of one group.
#[derive(Debug, Clone)]
pub(crate) struct Factory {
    pub(crate) context: SharedContext,
    pub(crate) group: GroupId,
    /// Cancelled when nothing may be heard of this replica any more.
    pub(crate) silence: CancellationToken,
    /// For the tasks that send.
    pub(crate) tripwire: Tripwire,
    pub(crate) limits: Limits,
    pub(crate) grants: Arc<Grants>,
    pub(crate) standings: Arc<Standings>,
    /// A follower of this leader asks for an entry, whatever is in it.
    pub(crate) entry_wanted: Arc<Notify>,
    pub(crate) sendings: Arc<Sendings>,
    pub(crate) streams: Arc<Streams>,
}

impl Factory {
    /// Asks the leader to hand its lead to this replica. Answered when it has begun to.
    pub(crate) async fn ask_for_lead(&self, leader: &Peer) -> Result<(), RpcError> {
        let node = BasicNode::new(&leader.address);
        let client = self.client(leader.node.0, &node, Lane::Control);
        let message = wire::YieldLeaderRequest {
            envelope: Some(client.envelope()),
        };
        let mut service = client.service(client.lane)?;
        let call = service.yield_leader(message);
        let limit = self.limits.answer;
        client.within(RPCTypes::TransferLeader, limit, call).await?;
        Ok(())
    }

    fn client(&self, target: u64, node: &BasicNode, lane: Lane) -> Client {
        Client {
            context: self.context.clone(),
            group: self.group,
            silence: self.silence.clone(),
            _tripwire: self.tripwire.clone(),
            limits: self.limits,
            grants: Arc::clone(&self.grants),
            standings: Arc::clone(&self.standings),
            entry_wanted: Arc::clone(&self.entry_wanted),
            sendings: Arc::clone(&self.sendings),
            streams: Arc::clone(&self.streams),
            target,
            address: node.addr.clone(),
            lane,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, Lane::Snapshot)
    }
}

/// Talks to one member of one group.
#[derive(Debug)]
pub(crate) struct Client {
    context: SharedContext,
    group: GroupId,
    silence: CancellationToken,
    _tripwire: Tripwire,
    limits: Limits,
    grants: Arc<Grants>,
    standings: Arc<Standings>,
    entry_wanted: Arc<Notify>,
    sendings: Arc<Sendings>,
    streams: Arc<Streams>,
    target: u64,
    /// Where the membership says that it is.
    address: String,
    lane: Lane,
}

impl Client {
    fn service(&self, lane: Lane) -> Result<RaftServiceClient<Channel>, RpcError> {
        let known = self.context.address_of(self.target);
        let address = known.as_ref().unwrap_or(&self.address);
        let channel = self
            .context
            .channels
            .get(address, lane)
            .ok_or_else(|| unreachable(&format!("{address:?} is no address")))?;
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RAFT_MESSAGE_BYTES_MAX))
    }

    fn envelope(&self) -> wire::Envelope {
        self.context.envelope(self.group, self.target)
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RpcError> {
        let call = self.context.runtime.timeout(limit, call);
        let answered = tokio::select! {
            biased;
            () = self.silence.cancelled() => return Err(silent_after_pause(&self.context.runtime).await),
            answered = call => answered,
        };
        match answered {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed(&status)),
            Err(_) => Err(late(action, self.context.node.0, self.target, limit)),
        }
    }

    async fn ask_for_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        limit: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = wire::VoteRequest {
            envelope: Some(self.envelope()),
            vote: Some(convert::vote_to_wire(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(convert::log_id_to_wire),
            pre_vote,
            leadership_transfer: request.leadership_transfer,
            standings: self.standings.all(),
        };
        let mut service = self.service(Lane::Control)?;
        let mut call = tonic::Request::new(message);
        call.set_timeout(limit);
        let answer = self
            .within(RPCTypes::Vote, limit, service.vote(call))
            .await?;
        self.standings
            .hear_answer(self.target, answer.standing.as_ref())?;
        Ok(VoteResponse {
            vote: convert::vote_from_wire(answer.vote).map_err(|error| malformed(&error))?,
            vote_granted: answer.granted,
            last_log_id: convert::optional_log_id(answer.last_log_id.as_ref())
                .map_err(|error| malformed(&error))?,
        })
    }

    async fn open_append<S>(
        &mut self,
        mut input: S,
    ) -> Result<BoxStream<'static, Result<AppendResult, RpcError>>, RpcError>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        // Raft holds back the first request for as long as it wants to wait after failures. A call that is made before would be
        // made again and again to a peer that refuses connections.
        let first = tokio::select! {
            biased;
            () = self.silence.cancelled() => return Err(silent_after_pause(&self.context.runtime).await),
            first = input.next() => first,
        };
        let Some(first) = first else {
            return Ok(futures::stream::empty().boxed());
        };
        let end = match self.lane {
            Lane::Append => self.streams.open(self.target, &self.silence),
            // What they ask for holds back no log.
            Lane::Control | Lane::Snapshot => self.silence.clone(),
        };
        let mut service = self.service(self.lane)?;
        let (input, leash) = leash(Hold::new(self.context.runtime.clone(), first, input));
        let input = input.take_until(self.silence.clone().cancelled_owned());
        let (requests, shared) = stream::requests(
            input,
            self.envelope(),
            self.context.clone(),
            Arc::clone(&self.grants),
            Arc::clone(&self.standings),
        );
        let inbound = self
            .within(
                RPCTypes::AppendEntries,
                self.limits.answer,
                service.append(requests),
            )
            .await?;
        Ok(stream::answers(stream::Answers {
            inbound,
            shared,
            leash,
            end,
            silence: self.silence.clone(),
            runtime: self.context.runtime.clone(),
            limit: self.limits.answer,
            node: self.context.node.0,
            target: self.target,
            grants: Arc::clone(&self.grants),
            standings: Arc::clone(&self.standings),
            entry_wanted: Arc::clone(&self.entry_wanted),
        }))
    }

    /// Asks how much of a snapshot is there already.
    async fn offer(&self, vote: &Vote, file: &SnapshotFile) -> Result<Offer, RpcError> {
        let message = wire::OfferSnapshotRequest {
            envelope: Some(self.envelope()),
            vote: Some(convert::vote_to_wire(vote)),
            header: Some(snapshot::header(file)),
        };
        let mut service = self.service(Lane::Snapshot)?;
        let call = async move {
            match service.offer_snapshot(message).await {
                // A peer of an older version, which takes a snapshot from its beginning.
                Err(status) if status.code() == Code::Unimplemented => {
                    Ok(tonic::Response::new(wire::OfferSnapshotResponse::default()))
                }
                answer => answer,
            }
        };
        let limit = self.limits.answer;
        let answer = self.within(RPCTypes::InstallSnapshot, limit, call).await?;
        said_to_offer(answer, file.info().bytes).map_err(|error| malformed(&error))
    }

    /// Sends what a peer lacks of a snapshot; answers with the peer's vote.
    async fn transfer(&self, vote: &Vote, file: SnapshotFile) -> Result<Vote, RpcError> {
        let (term, index) = (vote.leader_id.term, file.info().applied.index);
        self.sendings.begin(self.target, term, index);
        let offset = match self.offer(vote, &file).await? {
            Offer::Outvoted(higher) => return Ok(higher),
            Offer::From(offset) => offset,
        };
        let (group, to, bytes) = (self.group, self.target, file.info().bytes);
        if offset > 0 {
            tracing::info!(%group, to, offset, bytes, "a snapshot is sent on from where it broke off");
        }
        let mut service = self.service(Lane::Snapshot)?;
        let limit = snapshot::time_limit(bytes);
        let runtime = self.context.runtime.clone();
        let requests = snapshot::send(&runtime, self.envelope(), vote, &file, offset);
        let install = async move {
            let answer = service.install_snapshot(requests).await;
            if matches!(&answer, Err(status) if status.code() == Code::DataLoss) {
                // Damaged on the way, at the receiver, or here: what is rotten here must not be sent for ever.
                let look = runtime.spawn_blocking("snapshot-verify", move || file.reconsider());
                drop(look.await);
            }
            answer
        };
        let call = self.within(RPCTypes::InstallSnapshot, limit, install);
        convert::vote_from_wire(call.await?.vote).map_err(|error| malformed(&error))
    }
}

/// What a peer says to the offer of a file of so many bytes.
pub(crate) fn said_to_offer(
    answer: wire::OfferSnapshotResponse,
    bytes: u64,
) -> Result<Offer, ConvertError> {
    if answer.higher_vote.is_some() {
        return convert::vote_from_wire(answer.higher_vote).map(Offer::Outvoted);
    }
    // More than there is cannot be there.
    let sense = answer.offset <= bytes;
    Ok(Offer::From(if sense { answer.offset } else { 0 }))
}

/// What a peer says to a snapshot.
pub(crate) enum Offer {
    /// It follows somebody else.
    Outvoted(Vote),
    /// This is the first byte that it lacks.
    From(u64),
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let one = futures::stream::iter([request]);
        let mut answers = self.open_append(one).await?;
        let answer = answers
            .next()
            .await
            .ok_or_else(|| malformed(&"no answer to an append"))?;
        Ok(AppendEntriesResponse::from(answer?))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move { Ok(self.open_append(input).await?.boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(request, false, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(request, true, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transfer = Box::pin(self.transfer(&vote, snapshot.snapshot));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            vote = transfer => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = wire::TransferLeaderRequest {
            envelope: Some(self.envelope()),
            from_leader: Some(convert::vote_to_wire(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().map(convert::log_id_to_wire),
        };
        let mut service = self.service(Lane::Control)?;
        let limit = option.soft_ttl().max(self.limits.answer);
        let call = service.transfer_leader(message);
        self.within(RPCTypes::TransferLeader, limit, call).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
