//! The shard servers as they are reached from here: a few connections and long-lived streams to each, or by a call without a
//! socket where one is in this process ([`Neighbours`]), which costs a read a fraction of its time.
//!
//! A link belongs to a node at an address. When the map gives the node another address, the next call gets a new link and
//! the old one closes what waited on it. So it is when a link was asked for a while and nothing came back ([`Nodes::doubt`]):
//! what waits on the old one goes on waiting in its own time.

mod mux;
pub(crate) mod protocols;
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
use futures::FutureExt as _;
use parking_lot::RwLock;
use rpc::channel::PoolConfig;
use rpc::services::NearShard;
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

/// A link with a connection that was asked for so long without a word is replaced when the next call fails to be answered. Shorter than what one
/// of several replicas is waited for, so that a dead connection costs one try; longer than an answer takes on a busy machine.
const SILENCE_MAX: Duration = Duration::from_millis(400);

/// Every node that was called so far.
#[derive(Debug)]
pub(crate) struct Nodes {
    runtime: Runtime,
    limits: LimitsConfig,
    neighbours: Neighbours<dyn NearShard>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
}

/// One node at one address.
#[derive(Debug)]
pub(crate) struct Link {
    runtime: Runtime,
    address: String,
    neighbours: Neighbours<dyn NearShard>,
    connections: Vec<Connection>,
    turn: AtomicUsize,
}

/// One connection to a node, with what goes over it.
#[derive(Debug)]
struct Connection {
    channel: Channel,
    writes: Lane<Writes>,
    top_ks: Lane<TopKs>,
    silence: Arc<Silence>,
}

impl Nodes {
    pub(crate) fn new(
        runtime: &Runtime,
        limits: LimitsConfig,
        neighbours: Neighbours<dyn NearShard>,
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

    /// A call over a link was not answered in its time. If nothing else over one of its connections was either for a while, the next
    /// call gets a link with connections of its own.
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
        let queue_max = limits.node_queue_max.div_ceil(limits.node_streams.max(1));
        let connection = |_| {
            let channel = rpc::channel::connect(runtime, &node.address, &PoolConfig::default());
            let channel = channel.map_err(|error| {
                ApiError::new(
                    Reason::ShardUnavailable,
                    format!("node {} has no usable address: {error}", node.id),
                )
                .with_outcome(Outcome::NotApplied)
            })?;
            Ok(Connection::new(runtime, channel, queue_max))
        };
        Ok(Link {
            runtime: runtime.clone(),
            address: node.address.clone(),
            neighbours: self.neighbours.clone(),
            connections: (0..limits.node_streams.max(1))
                .map(connection)
                .collect::<Result<_, ApiError>>()?,
            turn: AtomicUsize::new(0),
        })
    }
}

impl Connection {
    fn new(runtime: &Runtime, channel: Channel, queue_max: usize) -> Self {
        let silence = Arc::new(Silence::default());
        Self {
            writes: Lane::new(runtime, &channel, queue_max, &silence),
            top_ks: Lane::new(runtime, &channel, queue_max, &silence),
            channel,
            silence,
        }
    }

    fn shard_client(&self) -> ShardServiceClient<Channel> {
        ShardServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

impl Link {
    /// Whether one of its connections was asked for a while and nothing came back. What comes back over another says nothing of it:
    /// each is a flow of its own to whatever is on the way.
    pub(crate) fn is_silent(&self) -> bool {
        let now = self.runtime.now();
        let mut connections = self.connections.iter();
        connections.any(|at| at.silence.lasts(now) >= SILENCE_MAX)
    }

    /// The connection for what may go over any.
    fn next(&self) -> Result<&Connection, ApiError> {
        self.connection(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    fn connection(&self, turn: usize) -> Result<&Connection, ApiError> {
        let place = turn % self.connections.len().max(1);
        let found = self.connections.get(place);
        found.ok_or_else(|| ApiError::internal("a link without a connection"))
    }

    /// The connection for the writes of a shard: always the same, because they reach the shard in the order in which they were sent
    /// only over one.
    fn of_writes(&self, request: &WriteRequest) -> Result<&Connection, ApiError> {
        let shard = request.route.as_ref().map_or(0, |route| route.shard_id);
        self.connection(usize::try_from(shard).unwrap_or_default())
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
        let lane = &self.of_writes(&request)?.writes;
        Writes::answered(lane.call(request, limit).await?)
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
        TopKs::answered(self.next()?.top_ks.call(request, limit).await?)
    }

    /// As [`Self::top_k`], without waiting for anything. `None` where something has to be waited for, or there is no answer.
    pub(crate) fn top_k_at_once(&self, request: TopKRequest) -> Option<TopKResponse> {
        self.neighbours.get(&self.address)?.top_k_at_once(request)
    }

    /// As [`Self::count`], without waiting for anything. `None` where something has to be waited for, or there is no answer.
    pub(crate) fn count_at_once(&self, request: CountRequest) -> Option<CountResponse> {
        self.neighbours.get(&self.address)?.count_at_once(request)
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
        let connection = self.next()?;
        let mut client = connection.shard_client();
        let call = client.count(rpc::request(request, limit));
        self.over(connection, limit, call).await
    }

    pub(crate) async fn list(
        &self,
        request: ListRequest,
        limit: Duration,
    ) -> Result<ListResponse, ApiError> {
        let connection = self.next()?;
        let mut client = connection.shard_client();
        let call = client.list(rpc::request(request, limit));
        self.over(connection, limit, call).await
    }

    pub(crate) async fn clear(
        &self,
        request: ClearRequest,
        limit: Duration,
    ) -> Result<ClearResponse, ApiError> {
        let connection = self.next()?;
        let mut client = connection.shard_client();
        let call = client.clear(rpc::request(request, limit));
        self.over(connection, limit, call).await
    }

    /// A request as the service of a neighbour gets it from its server.
    fn near<T>(&self, message: T, limit: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let deadline = Deadline::after(&self.runtime, limit);
        request.extensions_mut().insert(deadline);
        request
    }

    /// A client of the node as a whole, for snapshots.
    pub(crate) fn node_client(&self) -> Result<NodeServiceClient<Channel>, ApiError> {
        let channel = self.next()?.channel.clone();
        Ok(NodeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// As [`Self::unary`], over a connection that is watched. Not an `async fn`, which would hold the call twice.
    fn over<'a, T>(
        &'a self,
        connection: &'a Connection,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>> + 'a,
    ) -> impl Future<Output = Result<T, ApiError>> + 'a
    where
        T: 'a,
    {
        connection.silence.asked(self.runtime.now());
        self.unary(limit, call).inspect(|answer| {
            let is_silent = |error: &ApiError| error.reason() == Reason::Deadline;
            if !answer.as_ref().is_err_and(is_silent) {
                connection.silence.heard();
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_silent_whatever_comes_back_over_another() {
        let runtime = Runtime::real();
        let nodes = Nodes::new(&runtime, LimitsConfig::default(), Neighbours::default());
        let node = Node {
            id: NodeId(1),
            name: "n1".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            region: String::new(),
            lost: false,
        };
        let link = nodes.link(&node).unwrap();
        let [dead, alive] = link.connections.as_slice() else {
            panic!("{} connections", link.connections.len());
        };
        for at in [dead, alive] {
            at.silence.asked(runtime.now());
        }
        runtime.sleep(SILENCE_MAX).await;
        alive.silence.heard();
        nodes.doubt(node.id, &link);
        let next = nodes.link(&node).unwrap();
        assert!(!Arc::ptr_eq(&link, &next), "replaced");
        nodes.doubt(node.id, &next);
        let same = nodes.link(&node).unwrap();
        assert!(Arc::ptr_eq(&next, &same), "nobody asked it yet");
    }
}
