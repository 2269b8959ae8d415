//! Where to send what: coordinators, or the owner of a shard by the cached map.
//!
//! The map is a hint. A server that does not own what it is asked for says so, the map is fetched again, and whatever
//! the map does not answer goes to a coordinator.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::ApiError;
use api::admin::v1::GetMapRequest;
use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use arc_swap::ArcSwapOption;
use cluster::{Epoch, NodeId, ShardId, ShardMap};
use parking_lot::Mutex;
use rpc::channel::Pool;
use runtime::{Instant, Runtime};
use term::{NamespaceName, Prefix, Term};
use tonic::transport::Channel;

/// What an operation is about, as far as routing cares.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route<'a> {
    /// Any coordinator.
    Coordinator,
    /// The owner of a term.
    Term { namespace: &'a str, term: &'a str },
    /// The owner of all terms of a prefix, if it is one shard.
    Prefix { namespace: &'a str, prefix: &'a str },
}

/// For how long a node that could not be reached is not asked directly.
const AVOID_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Routing {
    pool: Pool,
    map: ArcSwapOption<ShardMap>,
    runtime: Runtime,
    /// Who was found to lead. Bounded by the shards of the map.
    leaders: Mutex<HashMap<ShardId, NodeId>>,
    /// When a node last could not be reached. Bounded by the nodes of the map.
    failed: Mutex<HashMap<NodeId, Instant>>,
    refreshing: tokio::sync::Mutex<()>,
    /// There is no map, or a server has contradicted it.
    in_doubt: AtomicBool,
}

impl Routing {
    pub(crate) fn new(runtime: Runtime, pool: Pool) -> Self {
        Self {
            pool,
            map: ArcSwapOption::empty(),
            runtime,
            leaders: Mutex::default(),
            failed: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(()),
            in_doubt: AtomicBool::new(true),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.map.load().as_ref().map_or(Epoch(0), |map| map.epoch)
    }

    /// The shard that alone answers, if the map knows one. Text that cannot be normalised is left to the coordinator to refuse.
    pub(crate) fn shard(&self, route: Route<'_>) -> Option<ShardId> {
        let map = self.map.load();
        let map = map.as_ref()?;
        match route {
            Route::Coordinator => None,
            Route::Term { namespace, term } => {
                let namespace = NamespaceName::new(namespace).ok()?;
                Some(map.owner(&namespace, Term::new(term).ok()?.as_str()))
            }
            Route::Prefix { namespace, prefix } => {
                let namespace = NamespaceName::new(namespace).ok()?;
                let cover = map.cover(&namespace, Prefix::new(prefix).ok()?.as_str());
                match cover.as_slice() {
                    [(_, shard)] => Some(*shard),
                    [] | [_, _, ..] => None,
                }
            }
        }
    }

    /// The node that leads a shard, or may, and a connection to it. `None` where all that may have failed lately: a
    /// coordinator knows better.
    pub(crate) fn owner(&self, shard: ShardId) -> Option<(NodeId, Channel)> {
        let map = self.map.load();
        let map = map.as_ref()?;
        let leader = self.leaders.lock().get(&shard).copied();
        let mut voters: Vec<NodeId> = map
            .shards
            .get(&shard)?
            .replicas
            .iter()
            .filter(|replica| replica.voter)
            .map(|replica| replica.node)
            .collect();
        voters.sort_by_key(|node| leader != Some(*node));
        let node = voters.into_iter().find(|node| !self.has_failed(*node))?;
        let channel = self.pool.get(&map.nodes.get(&node)?.address).ok()?;
        Some((node, channel))
    }

    /// Remembers that a node could not be reached.
    pub(crate) fn failed(&self, node: NodeId) {
        self.failed.lock().insert(node, self.runtime.now());
    }

    fn has_failed(&self, node: NodeId) -> bool {
        let failed = self.failed.lock().get(&node).copied();
        failed.is_some_and(|at| self.runtime.now().saturating_since(at) < AVOID_FOR)
    }

    /// Remembers who leads a shard.
    pub(crate) fn leads(&self, shard: ShardId, leader: Option<NodeId>) {
        let mut leaders = self.leaders.lock();
        match leader {
            Some(node) => leaders.insert(shard, node),
            None => leaders.remove(&shard),
        };
    }

    /// A server has contradicted the map: it is to be fetched before it is used again.
    pub(crate) fn doubt_map(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    pub(crate) fn doubts_map(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Fetches the map, unless somebody else has done so in the meantime. A failure leaves the old one, until a server contradicts it again.
    pub(crate) async fn refresh(&self, coordinator: Channel) -> Result<(), ApiError> {
        let _single = self.refreshing.lock().await;
        if !self.doubts_map() {
            return Ok(());
        }
        let answer = ClusterAdminServiceClient::new(coordinator)
            .get_map(GetMapRequest {})
            .await;
        self.in_doubt
            .store(self.map.load().is_none(), Ordering::Relaxed);
        let answer = answer?.into_inner();
        let Some(map) = answer.map else {
            return Err(ApiError::internal("the coordinator answered without a map"));
        };
        self.install(map)
    }

    pub(crate) fn install(&self, map: api::admin::v1::ShardMap) -> Result<(), ApiError> {
        let map = ShardMap::try_from(map)
            .map_err(|error| ApiError::internal(format!("the coordinator's map: {error}")))?;
        if map.epoch < self.epoch() {
            return Ok(());
        }
        self.leaders
            .lock()
            .retain(|shard, _| map.shards.contains_key(shard));
        self.failed
            .lock()
            .retain(|node, _| map.nodes.contains_key(node));
        self.map.store(Some(Arc::new(map)));
        self.in_doubt.store(false, Ordering::Relaxed);
        Ok(())
    }
}
