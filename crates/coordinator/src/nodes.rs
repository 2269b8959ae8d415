//! The shard servers as they are reached from here: a few connections and long-lived streams to each, or by a call without a
//! socket where one is in this process ([`Neighbours`]), which costs a read a fraction of its time.
//!
//! A link belongs to a node at an address. When the map gives the node another address, the next call gets a new link and
//! the old one closes what waited on it. So it is when a link was asked for a while and nothing came back ([`Nodes::doubt`]):
//! what waits on the old one goes on waiting in its own time.

mod mux;
mod protocols;
mod silence;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::shard::v1::node_service_client::NodeServiceClient;
use api::shard::v1::shard_service_client::ShardServiceClient;
use api::shard::v1::{
    ClearRequest, ClearResponse, CountRequest, CountResponse, ListRequest, ListResponse,
    TopKRequest, TopKResponse, WriteRequest, WriteResponse,
};
use api::{ApiError, Outcome, Reason};
use cluster::{Node, NodeId, ShardMap, limits};
use parking_lot::RwLock;
use rpc::channel::PoolConfig;
use rpc::services::ShardNeighbour;
use rpc::{Deadline, Neighbours};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use mux::Lane;
use protocols::{TopKs, Writes};
use silence::Silence;

use crate::config::LimitsConfig;

/// Bytes of an answer from a shard server: a page of terms or a chunk of a snapshot, with room.
const ANSWER_BYTES_MAX: usize = 4 * limits::MESSAGE_BYTES_MAX;

/// A link that was asked for so long without a word is replaced when the next call fails to be answered. Shorter than what one
/// of several replicas is waited for, so that a dead connection costs one try; longer than an answer takes on a busy machine.
const SILENCE_MAX: Duration = Duration::from_millis(400);

/// Every node that was called so far.
#[derive(Debug)]
pub(crate) struct Nodes {
    runtime: Runtime,
    limits: LimitsConfig,
    neighbours: Neighbours<ShardNeighbour>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
}

/// One node at one address.
#[derive(Debug)]
pub(crate) struct Link {
    runtime: Runtime,
    address: String,
    neighbours: Neighbours<ShardNeighbour>,
    channels: Vec<Channel>,
    writes: Vec<Lane<Writes>>,
    top_ks: Vec<Lane<TopKs>>,
    turn: AtomicUsize,
    silence: Silence,
}

impl Nodes {
    pub(crate) fn new(
        runtime: &Runtime,
        limits: LimitsConfig,
        neighbours: Neighbours<ShardNeighbour>,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            limits,
            neighbours,
            links: RwLock::default(),
        }
    }

    /// Whether some node may be in this process.
    pub(crate) fn may_be_near(&self) -> bool {
        !self.neighbours.is_empty()
    }

    /// The link to a node, at the address that the map gives it.
    pub(crate) fn link(&self, node: &Node) -> Result<Arc<Link>, ApiError> {
        let known = self.links.read().get(&node.id).map(Arc::clone);
        if let Some(link) = known.filter(|link| link.address == node.address) {
            return Ok(link);
        }
        let mut links = self.links.write();
        if let Some(link) = links.get(&node.id).filter(|at| at.address == node.address) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(self.connect(node)?);
        links.insert(node.id, Arc::clone(&link));
        Ok(link)
    }

    /// A call over a link was not answered in its time. If nothing else was either for a while, the next call gets a link with
    /// connections of its own.
    pub(crate) fn doubt(&self, node: NodeId, link: &Arc<Link>) {
        if !link.is_silent() {
            return;
        }
        let mut links = self.links.write();
        if links.get(&node).is_some_and(|at| Arc::ptr_eq(at, link)) {
            links.remove(&node);
        }
    }

    /// Lets go of nodes that the map has given up.
    pub(crate) fn keep(&self, map: &ShardMap) {
        let is_kept = |id: &NodeId| map.nodes.get(id).is_some_and(|node| !node.lost);
        self.links.write().retain(|id, _| is_kept(id));
    }

    /// A new link. Its connections are made when they are first used.
    fn connect(&self, node: &Node) -> Result<Link, ApiError> {
        let (runtime, limits) = (&self.runtime, self.limits);
        let channel = |_| {
            rpc::channel::connect(runtime, &node.address, &PoolConfig::default()).map_err(|error| {
                ApiError::new(
                    Reason::ShardUnavailable,
                    format!("node {} has no usable address: {error}", node.id),
                )
                .with_outcome(Outcome::NotApplied)
            })
        };
        let channels: Vec<Channel> = (0..limits.node_streams.max(1))
            .map(channel)
            .collect::<Result<_, _>>()?;
        let queue_max = limits.node_queue_max.div_ceil(channels.len());
        Ok(Link {
            runtime: runtime.clone(),
            address: node.address.clone(),
            neighbours: self.neighbours.clone(),
            writes: channels
                .iter()
                .map(|channel| Lane::new(runtime.clone(), channel.clone(), queue_max))
                .collect(),
            top_ks: channels
                .iter()
                .map(|channel| Lane::new(runtime.clone(), channel.clone(), queue_max))
                .collect(),
            channels,
            turn: AtomicUsize::new(0),
            silence: Silence::default(),
        })
    }
}

impl Link {
    /// Notes that a call goes out.
    pub(crate) fn asked(&self) {
        self.silence.asked(self.runtime.now());
    }

    /// Notes that an answer came, be it an error.
    pub(crate) fn heard(&self) {
        self.silence.heard();
    }

    /// Whether it was asked for a while and nothing came back.
    pub(crate) fn is_silent(&self) -> bool {
        self.silence.lasts(self.runtime.now()) >= SILENCE_MAX
    }

    fn turn<'a, T>(&self, among: &'a [T]) -> Result<&'a T, ApiError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        among
            .get(turn % among.len().max(1))
            .ok_or_else(|| ApiError::internal("a link without a connection"))
    }

    /// Applies writes at the node.
    pub(crate) async fn write(
        &self,
        request: WriteRequest,
        limit: Duration,
    ) -> Result<WriteResponse, ApiError> {
        if let Some(near) = self.neighbours.get(&self.address) {
            let written = self.unary(limit, near.write(self.near(request, limit)));
            return written.await.map_err(ApiError::for_write);
        }
        let response = self.turn(&self.writes)?.call(request, limit).await?;
        match response.error {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }

    /// The top of a shard's part.
    pub(crate) async fn top_k(
        &self,
        request: TopKRequest,
        limit: Duration,
    ) -> Result<TopKResponse, ApiError> {
        if let Some(near) = self.neighbours.get(&self.address) {
            return self
                .unary(limit, near.top_k(self.near(request, limit)))
                .await;
        }
        let response = self.turn(&self.top_ks)?.call(request, limit).await?;
        match response.error {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }

    /// As [`Self::top_k`], without waiting for anything. `None` where something has to be waited for, or there is no answer.
    pub(crate) fn top_k_at_once(&self, request: TopKRequest) -> Option<TopKResponse> {
        self.neighbours.get(&self.address)?.top_k_at_once(request)
    }

    pub(crate) async fn count(
        &self,
        request: CountRequest,
        limit: Duration,
    ) -> Result<CountResponse, ApiError> {
        if let Some(near) = self.neighbours.get(&self.address) {
            return self
                .unary(limit, near.count(self.near(request, limit)))
                .await;
        }
        let mut client = self.shard_client()?;
        self.unary(limit, client.count(rpc::request(request, limit)))
            .await
    }

    pub(crate) async fn list(
        &self,
        request: ListRequest,
        limit: Duration,
    ) -> Result<ListResponse, ApiError> {
        let mut client = self.shard_client()?;
        self.unary(limit, client.list(rpc::request(request, limit)))
            .await
    }

    pub(crate) async fn clear(
        &self,
        request: ClearRequest,
        limit: Duration,
    ) -> Result<ClearResponse, ApiError> {
        let mut client = self.shard_client()?;
        self.unary(limit, client.clear(rpc::request(request, limit)))
            .await
    }

    /// A request as the service of a neighbour gets it from its server.
    fn near<T>(&self, message: T, limit: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let deadline = Deadline::after(&self.runtime, limit);
        request.extensions_mut().insert(deadline);
        request
    }

    fn shard_client(&self) -> Result<ShardServiceClient<Channel>, ApiError> {
        let channel = self.turn(&self.channels)?.clone();
        Ok(ShardServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// A client of the node as a whole, for snapshots.
    pub(crate) fn node_client(&self) -> Result<NodeServiceClient<Channel>, ApiError> {
        let channel = self.turn(&self.channels)?.clone();
        Ok(NodeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// Waits for the answer to one call, for as long as it may take.
    pub(crate) async fn unary<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ApiError> {
        match self.runtime.timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The transport watches the same time, and calls it a cancellation when it is the first to see it pass.
            Ok(Err(status)) if status.code() == Code::Cancelled => Err(overdue(limit)),
            Ok(Err(status)) => Err(ApiError::from_status(&status)),
            Err(elapsed) => Err(overdue(elapsed.limit)),
        }
    }
}

fn overdue(limit: Duration) -> ApiError {
    ApiError::deadline(format!("no answer from the shard within {limit:?}"))
}
