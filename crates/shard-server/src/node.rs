//! One node: what it hosts, what it knows, and who looks after it.
//!
//! [`Node`] is the state that handlers and tasks share. The tasks: `sync` talks to the coordinators and takes their orders,
//! `reconcile` starts and stops replicas accordingly, `watch` keeps the health table true, `upkeep` does small chores.
//!
//! What always holds:
//! - A node that has lost touch with the coordinators goes on with its last orders, also after a restart.
//! - Health is computed from the replicas' own state, never from having answered.
//! - The first fatal fault decides how the process ends ([`Node::end`]), and is not overwritten.
//! - None of the tasks is missing for longer than the process needs to end: those of the node are [`Vital`], and those of a replica
//!   take it with them ([`replication::Group::guard`]).

mod audit;
mod budget;
mod fence;
mod given_up;
mod handover;
mod health;
pub(crate) mod identity;
mod magic;
pub(crate) mod memory;
mod names;
mod pace;
mod reconcile;
mod registry;
mod removal;
mod replica;
mod report;
mod seeds;
mod slot;
mod stall;
mod sync;
mod upkeep;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use api::{ApiError, Reason};
use arc_swap::ArcSwap;
use cluster::{Incarnation, ShardId};
use parking_lot::{Mutex, RwLock};
use replication::Host;
use rpc::Health;
use runtime::{CancellationToken, Instant, Runtime, Vital};
use tokio::sync::{Notify, watch};
use vfs::{Traffic, Vfs};

pub(crate) use fence::Fence;
pub(crate) use given_up::finish as finish_giving_up;
pub use identity::IdentityError;
pub(crate) use identity::{IdentityFile, load_or_begin, store as store_identity};
pub use memory::MemoryError;
pub(crate) use memory::{Memory, load as load_memory};
pub(crate) use names::{Names, resolved};
use reconcile::Place;
pub(crate) use registry::RegistryClient;
pub(crate) use replica::{Freshness, Replica, Seen, stale_generation};
pub(crate) use seeds::{SeedError, Seeds, whole_hash};
pub(crate) use slot::{Failure, Slot, SlotState};
pub(crate) use sync::{issued, register, view_of};
pub(crate) use view::View;

use crate::config::Config;
use crate::error::RunError;
use crate::metrics::{Action, NodeMetrics};

/// What a node is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) runtime: Runtime,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) config: Config,
    /// `host:port` by which others reach this node.
    pub(crate) address: String,
    pub(crate) metrics: NodeMetrics,
    pub(crate) health: Health,
    pub(crate) memory: Memory,
}

/// A node. Shared by everything that runs on it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) config: Config,
    pub(crate) address: String,
    pub(crate) metrics: NodeMetrics,
    pub(crate) health: Health,
    pub(crate) registry: RegistryClient,
    pub(crate) names: Names,
    pub(crate) seeds: Seeds,
    /// Known once the node is registered and its log is open. Never set on a node whose log is damaged.
    host: OnceLock<Host>,
    identity: OnceLock<replication::Identity>,
    /// What the opening of the log moves, once it has begun.
    opening: OnceLock<Traffic>,
    /// Why nothing on this node serves: its log is damaged.
    damage: RwLock<Option<String>>,
    view: ArcSwap<View>,
    slots: RwLock<BTreeMap<ShardId, Slot>>,
    /// Shards whose replica is being taken away; none is begun in its place meanwhile.
    leaving: Mutex<BTreeMap<ShardId, Incarnation>>,
    /// Shards that run and have earlier lives which could not be removed, and when that is tried again.
    uncleared: Mutex<BTreeMap<ShardId, Instant>>,
    memory: Mutex<Memory>,
    /// The memory has changed since it was last written, or that failed.
    is_unwritten: AtomicBool,
    /// Held while the memory is written, so that an older one never replaces a newer; false once the data is given up, when nothing more is to be.
    remembering: tokio::sync::Mutex<bool>,
    /// Wakes the task that talks to the coordinators.
    pub(crate) sync_now: Notify,
    /// Wakes the task that does the chores.
    pub(crate) upkeep_now: Notify,
    /// Whether the health table still follows the replicas; false once the node stops.
    follows_health: Mutex<bool>,
    ended: watch::Sender<bool>,
    fault: Mutex<Option<RunError>>,
    /// Cancelled when the node begins to stop: no new work, and streams end.
    pub(crate) closing: CancellationToken,
    /// The tasks without which the process is of no use, until then.
    pub(crate) vital: Vital,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            runtime,
            vfs,
            config,
            address,
            metrics,
            health,
            memory,
        } = parts;
        let view = sync::view_of(&memory.orders).unwrap_or_default();
        let closing = CancellationToken::new();
        Arc::new(Self {
            registry: RegistryClient::new(&runtime, config.coordinators.clone()),
            names: Names::default(),
            seeds: Seeds::new(Arc::clone(&vfs), &config.data_dir),
            host: OnceLock::new(),
            identity: OnceLock::new(),
            opening: OnceLock::new(),
            damage: RwLock::default(),
            view: ArcSwap::from_pointee(view),
            slots: RwLock::default(),
            leaving: Mutex::default(),
            uncleared: Mutex::default(),
            memory: Mutex::new(memory),
            is_unwritten: AtomicBool::new(false),
            remembering: tokio::sync::Mutex::new(true),
            sync_now: Notify::new(),
            upkeep_now: Notify::new(),
            follows_health: Mutex::new(true),
            ended: watch::Sender::new(false),
            fault: Mutex::default(),
            vital: Vital::new(&runtime, closing.clone()),
            closing,
            runtime,
            vfs,
            config,
            address,
            metrics,
            health,
        })
    }

    /// Starts the tasks of a node whose log is open, or damaged.
    pub(crate) fn start(self: &Arc<Self>, opened: Option<Host>) {
        if let Some(host) = opened {
            self.watch_disk(&host);
            drop(self.host.set(host));
            self.tell_peers();
            self.reconcile();
        }
        let spawn = |name, task| drop(self.vital.spawn(name, task));
        spawn("node-sync", boxed(sync::run(Arc::clone(self))));
        spawn("node-upkeep", boxed(upkeep::run(Arc::clone(self))));
        spawn("node-budget", boxed(budget::run(Arc::clone(self))));
        spawn("node-audit", boxed(audit::run(Arc::clone(self))));
        spawn("node-stall", boxed(stall::run(Arc::clone(self))));
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.get()
    }

    pub(crate) fn identity(&self) -> Option<replication::Identity> {
        self.identity.get().copied()
    }

    /// The identity, once it is known.
    pub(crate) fn set_identity(&self, identity: replication::Identity) {
        let _: Result<(), _> = self.identity.set(identity);
    }

    /// The files, by a door through which is seen how the opening of the log gets on. Nothing is reported before it is open, and a large
    /// log on a slow disk takes long.
    pub(crate) fn begin_opening(&self) -> Arc<dyn Vfs> {
        let opening = self.opening.get_or_init(Traffic::default);
        opening.through(Arc::clone(&self.vfs))
    }

    /// Bytes that the opening of the log has moved; none before it and after it.
    pub(crate) fn opening_bytes(&self) -> Option<u64> {
        let is_over = self.host().is_some() || self.damage().is_some();
        let opening = self.opening.get().filter(|_| !is_over);
        opening.map(Traffic::bytes)
    }

    /// The log is damaged: from now on everything is refused.
    pub(crate) fn set_damage(&self, reason: String) {
        tracing::error!(%reason, "the data of this node is damaged; it serves nothing until it is repaired");
        *self.damage.write() = Some(reason);
        self.sync_now.notify_one();
    }

    /// Why nothing on this node serves.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.read().clone()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Tells the groups what the map says of their peers: where they are, for after a restart a node may have another address, and who is
    /// lost and must not be heard.
    fn tell_peers(&self) {
        let view = self.view();
        if let (Some(host), Some(map)) = (self.host(), view.map()) {
            let nodes = map.nodes.values();
            host.know_addresses(nodes.map(|node| (node.id, node.address.clone())));
            let lost = map.nodes.values().filter(|node| node.lost);
            host.know_lost(lost.map(|node| node.id));
        }
    }

    /// What this node holds, shard by shard.
    pub(crate) fn slots(&self) -> BTreeMap<ShardId, Slot> {
        self.slots.read().clone()
    }

    /// Looks at what this node holds without a copy of it. Must not block: it holds up whoever changes that.
    pub(crate) fn look_at_slots<T>(&self, look: impl FnOnce(&BTreeMap<ShardId, Slot>) -> T) -> T {
        look(&self.slots.read())
    }

    /// The running replicas.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        let slots = self.slots.read();
        slots.values().filter_map(Slot::running).cloned().collect()
    }

    /// The replica of a shard, or why there is none here.
    pub(crate) fn replica(&self, shard: ShardId) -> Result<Arc<Replica>, ApiError> {
        if let Some(slot) = self.slots.read().get(&shard) {
            return slot.replica(shard).cloned();
        }
        if let Some(reason) = self.damage() {
            let message = format!("the data of this node is damaged: {reason}");
            return Err(ApiError::new(Reason::DataLoss, message));
        }
        let view = self.view();
        let known = view
            .map()
            .is_some_and(|map| map.shards.contains_key(&shard));
        if known {
            let message = format!("shard {shard} is not on this node");
            return Err(self.elsewhere(&view, shard, message));
        }
        if self.host().is_none() || view.map().is_none() {
            let message = format!("this node is starting, shard {shard} is not known yet");
            return Err(ApiError::new(Reason::Starting, message));
        }
        let message = format!("there is no shard {shard}");
        Err(ApiError::new(Reason::UnknownShard, message))
    }

    /// The error of a request that belongs to another node: carries the map, or its epoch where it is large, and the owner.
    pub(crate) fn elsewhere(&self, view: &View, shard: ShardId, message: String) -> ApiError {
        let mut error = ApiError::new(Reason::WrongShard, message).with_epoch(view.epoch());
        if let Some(map) = view
            .map()
            .filter(|map| map.namespaces.len() <= ATTACHED_NAMESPACES_MAX)
        {
            error = error.with_map(map.as_ref().into());
        }
        if let Some(node) = view.owner_node(shard) {
            error = error.with_metadata("owner_node_id", node.to_string());
            if let Some(address) = view.address(node) {
                error = error.with_metadata("owner_address", address);
            }
        }
        error
    }

    /// Ends the process, or the node of a process with several, for a reason. The first reason counts.
    pub(crate) fn end(&self, reason: RunError) {
        {
            let mut fault = self.fault.lock();
            if fault.is_some() {
                return;
            }
            tracing::error!(%reason, "this node ends");
            *fault = Some(reason);
        }
        self.stop_serving();
        self.ended.send_replace(true);
    }

    /// Waits until something fatal happened, and says what.
    pub(crate) async fn fatal(&self) -> RunError {
        let mut ended = self.ended.subscribe();
        loop {
            // The sender lives as long as the node.
            drop(ended.wait_for(|ended| *ended).await);
            if let Some(fault) = self.fault.lock().take() {
                return fault;
            }
        }
    }

    fn watch_disk(self: &Arc<Self>, host: &Host) {
        let mut poisoned = host.poisoned();
        let node = Arc::clone(self);
        let watch = async move {
            let failed = tokio::select! {
                () = node.closing.cancelled() => return,
                failed = poisoned.wait_for(Option::is_some) => failed.ok().and_then(|reason| reason.clone()),
            };
            if let Some(reason) = failed {
                node.end(RunError::DiskFailed { reason });
            }
            node.closing.cancelled().await;
        };
        drop(self.vital.spawn("node-disk-watch", watch));
    }

    /// Whether data on this node is damaged: its log, or what a replica needs of it.
    pub(crate) fn has_damage(&self) -> bool {
        let is_damaged = |slot: &Slot| match &slot.state {
            SlotState::Running(replica) => replica.group().status().data_loss(),
            SlotState::Failed(failure) => failure.data_loss,
            SlotState::Starting(_) | SlotState::Waiting { .. } => false,
        };
        self.damage().is_some() || self.slots.read().values().any(is_damaged)
    }

    /// Moves everything but the lock aside, so that the next start begins with a new identity, and ends. What was moved is kept.
    /// Replicas that are sound stop for good, too: their promises go with the identity.
    pub(crate) async fn give_up_data(self: &Arc<Self>) -> Result<String, ApiError> {
        self.stop_serving();
        if let Some(host) = self.host() {
            // What the log still had to write does not matter any more.
            if let Err(error) = host.shutdown().await {
                tracing::info!(%error, "the log that is given up did not close cleanly");
            }
        }
        // Orders that come while the data goes must not be remembered beside it.
        let mut remembers = self.remembering.lock().await;
        *remembers = false;
        let node = Arc::clone(self);
        let moved = self.runtime.spawn_blocking("move-data-aside", move || {
            given_up::give_up(node.vfs.as_ref(), node.data_dir(), node.runtime.wall_ms())
        });
        let moved = moved
            .await
            .map_err(|error| ApiError::internal(error.to_string()))
            .and_then(|moved| moved.map_err(|error| ApiError::internal(error.to_string())));
        self.metrics
            .count_action(Action::SetDataAside, "damaged", None, &moved);
        let name = moved?;
        let moved_to = name.clone();
        self.end(RunError::GaveUpData { moved_to });
        Ok(name)
    }
}

/// A map with more namespaces than this is not attached to errors: it would not fit their header.
const ATTACHED_NAMESPACES_MAX: usize = 64;

fn boxed<'a>(
    task: impl Future<Output = ()> + Send + 'a,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(task)
}
