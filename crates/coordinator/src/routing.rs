//! Where a request goes, and what to do when it was sent to the wrong place.
//!
//! A request works in rounds. Each looks at the newest map, sends what is still open to who should have it, and keeps what was
//! answered. What came back as *not applied, route again* (a stale map, another leader) is open in the next round, after a short
//! pause, as long as there is time. Nothing else is tried again here: the caller retries, with its request id.
//!
//! What always holds: a write that may have been applied is never sent again from here; no round begins after the deadline.

mod leaders;
mod list;
mod reads;
mod rounds;
mod scatter;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use api::shard::v1::Route;
use api::{ApiError, Consistency, Outcome, Reason};
use cluster::{Namespace, NodeId, SessionToken, Shard, ShardId, ShardMap};
use runtime::{Instant, Runtime};
use term::NamespaceName;

use crate::config::LimitsConfig;
use crate::lanes::Lanes;
use crate::meta::{Meta, unexpected};
use crate::metadata::{Command, Response};
use crate::nodes::{Link, Nodes};

use leaders::Leaders;

/// What of the time that is left is kept for the way back to the caller: one part in this many, at most [`RETURN_MAX`].
const RETURN_PARTS: u32 = 10;
const RETURN_MAX: Duration = Duration::from_millis(50);

/// Routes requests to shards.
#[derive(Debug)]
pub(crate) struct Router {
    runtime: Runtime,
    meta: Arc<Meta>,
    nodes: Nodes,
    lanes: Lanes,
    leaders: Leaders,
}

/// Where one try of a request goes.
#[derive(Debug)]
struct Target {
    route: Route,
    node: NodeId,
    link: Arc<Link>,
}

impl Router {
    pub(crate) fn new(runtime: &Runtime, meta: Arc<Meta>, limits: LimitsConfig) -> Self {
        Self {
            runtime: runtime.clone(),
            meta,
            nodes: Nodes::new(runtime.clone(), limits),
            lanes: Lanes::new(runtime.clone()),
            leaders: Leaders::default(),
        }
    }

    /// The link to a node, by its identity.
    pub(crate) fn link(&self, node: NodeId) -> Result<Arc<Link>, ApiError> {
        let map = self.map()?;
        let found = map.nodes.get(&node).filter(|node| !node.lost);
        let found = found.ok_or_else(|| {
            ApiError::new(Reason::NotFound, format!("node {node} is not in the map"))
        })?;
        self.nodes.link(found)
    }

    /// Forgets what the map has given up. Called when the map has changed.
    pub(crate) fn map_changed(&self) {
        if let Some(map) = self.meta.map() {
            self.nodes.keep(&map);
        }
    }

    /// A node said that it leads a shard.
    pub(crate) fn learn_leader(&self, shard: ShardId, leader: NodeId) {
        self.leaders.learn(shard, leader);
    }

    fn map(&self) -> Result<Arc<ShardMap>, ApiError> {
        self.meta.map().ok_or_else(|| {
            ApiError::new(Reason::Starting, "the metadata is not readable yet")
                .with_outcome(Outcome::NotApplied)
        })
    }

    /// The map for a read or a delete. What is missing in it (a namespace, a life that a token names) does not exist: before anybody
    /// is told so, this coordinator catches up with the one that leads. Only a STALE read does without.
    async fn map_for(
        &self,
        name: &NamespaceName,
        token: Option<&SessionToken>,
        consistency: Option<Consistency>,
    ) -> Result<Arc<ShardMap>, ApiError> {
        let map = self.map()?;
        let is_known = |position| map.translate(position).is_some();
        let knows_token = token.is_none_or(|token| token.iter().all(is_known));
        if knows_token && map.namespaces.contains_key(name) {
            return Ok(map);
        }
        match self.meta.catch_up().await {
            Err(error) if consistency != Some(Consistency::Stale) => Err(error),
            Ok(()) | Err(_) => self.map(),
        }
    }

    /// How long an answer from a shard may be waited for.
    fn left(&self, deadline: Instant) -> Result<Duration, ApiError> {
        let left = deadline.saturating_since(self.runtime.now());
        if left.is_zero() {
            let error = ApiError::deadline("the deadline passed before a shard was asked");
            return Err(error.with_outcome(Outcome::NotApplied));
        }
        Ok(left - (left / RETURN_PARTS).min(RETURN_MAX))
    }

    /// The namespace of a write, which creates it where it does not exist.
    pub(crate) async fn namespace_of_write(
        &self,
        name: &NamespaceName,
    ) -> Result<(Arc<ShardMap>, Namespace), ApiError> {
        let map = self.map()?;
        if let Some(found) = map.namespaces.get(name) {
            let found = found.clone();
            return Ok((map, found));
        }
        self.create_namespace(name).await?;
        let map = self.map()?;
        match map.namespaces.get(name).cloned() {
            Some(found) => Ok((map, found)),
            None => Err(
                ApiError::new(Reason::Starting, "the new namespace is not in the map yet")
                    .with_outcome(Outcome::NotApplied),
            ),
        }
    }

    /// Creates a namespace where it does not exist.
    pub(crate) async fn create_namespace(&self, name: &NamespaceName) -> Result<(), ApiError> {
        let command = Command::CreateNamespace {
            name: name.as_str().to_owned(),
            normaliser_version: term::NORMALISER_VERSION,
            unicode_version: term::UNICODE_VERSION.to_owned(),
        };
        // Creating is idempotent and the record itself was not sent yet, whatever became of the creation.
        let created = self.meta.propose(&command).await;
        match created.map_err(|error| error.with_outcome(Outcome::NotApplied))? {
            Response::Namespace => Ok(()),
            other @ (Response::Done
            | Response::Node { .. }
            | Response::Generation { .. }
            | Response::Incarnation { .. }
            | Response::Refused(_)) => Err(unexpected(&other)),
        }
    }

    /// Where a request for a shard goes at the `tried`-th try.
    fn target(
        &self,
        map: &ShardMap,
        id: ShardId,
        consistency: Option<Consistency>,
        tried: usize,
    ) -> Result<Target, ApiError> {
        let shard = map.shards.get(&id).ok_or_else(|| {
            ApiError::new(
                Reason::UnknownShard,
                format!("shard {id} is not in the map"),
            )
        })?;
        let node = self.pick(map, shard, consistency, tried)?;
        let found = map
            .nodes
            .get(&node)
            .ok_or_else(|| ApiError::internal(format!("node {node} is not in the map")))?;
        Ok(Target {
            route: Route {
                shard_id: id.0,
                incarnation: shard.incarnation.0,
                epoch: map.epoch.0,
            },
            node,
            link: self.nodes.link(found)?,
        })
    }

    fn pick(
        &self,
        map: &ShardMap,
        shard: &Shard,
        consistency: Option<Consistency>,
        tried: usize,
    ) -> Result<NodeId, ApiError> {
        if shard.replicas.is_empty() {
            let message = format!("shard {} waits for enough nodes", shard.id);
            return Err(ApiError::new(Reason::Starting, message).with_outcome(Outcome::NotApplied));
        }
        let is_there = |node: &NodeId| map.nodes.get(node).is_some_and(|at| !at.lost);
        let mut there: Vec<NodeId> = shard
            .replicas
            .iter()
            .map(|replica| replica.node)
            .filter(is_there)
            .collect();
        if there.is_empty() {
            let message = format!("the disks that held shard {} are lost", shard.id);
            return Err(ApiError::new(Reason::DataLoss, message).with_outcome(Outcome::NotApplied));
        }
        if consistency != Some(Consistency::Stale)
            && let Some(leader) = self.leaders.of(shard.id)
            && let Some(place) = there.iter().position(|node| *node == leader)
        {
            there.swap(0, place);
        }
        Ok(there.get(tried % there.len()).copied().unwrap_or(NodeId(0)))
    }
}

/// Whether another replica could answer where one could not be reached.
fn has_other_replica(map: &ShardMap, shard: ShardId) -> bool {
    map.shards
        .get(&shard)
        .is_some_and(|shard| shard.replicas.len() > 1)
}
