//! The groups that run on a node, whatever their state machines, by their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{ClusterId, NodeId};
use parking_lot::RwLock;
use runtime::Runtime;
use wal::GroupId;

use crate::config::{HostOptions, Identity};
use crate::group;
use crate::network::service::Hosted;
use crate::{SnapshotFile, StateMachine, StopCause};

/// A running group, whatever its state machine.
#[async_trait]
pub(crate) trait Running: Hosted {
    /// Takes a snapshot if the next start would have much to replay without.
    async fn settle(&self);
    /// Stops it.
    async fn stop(&self);
    /// Stops it for a reason other than being told to.
    async fn halt(&self, cause: StopCause, reason: &str);
    /// Asks it to take a snapshot that lets go of the oldest log.
    fn want_snapshot(&self);
    /// Whether it has stopped.
    fn has_ended(&self) -> bool;
    /// Whether nothing may be heard of it any more; a replica that is about to stop is silent first.
    fn is_silent(&self) -> bool;
}

#[async_trait]
impl<S: StateMachine> Running for group::Inner<S> {
    async fn settle(&self) {
        group::Inner::settle(self).await;
    }

    async fn stop(&self) {
        self.shutdown().await;
    }

    async fn halt(&self, cause: StopCause, reason: &str) {
        self.halt_for(cause, reason).await;
    }

    fn want_snapshot(&self) {
        self.request_snapshot();
    }

    fn has_ended(&self) -> bool {
        self.is_ended()
    }

    fn is_silent(&self) -> bool {
        self.silence().is_cancelled()
    }
}

/// The running groups of a node.
pub(crate) struct Registry {
    identity: Identity,
    snapshot_bytes_max: u64,
    peer_silence_max: Duration,
    runtime: Runtime,
    /// For names that are never used again.
    numbers: AtomicU64,
    /// Bytes of snapshots that were not sent again.
    resumed_bytes: AtomicU64,
    running: RwLock<BTreeMap<GroupId, Arc<dyn Running>>>,
    /// Identities that nobody may use any more, as far as this node was told.
    lost: RwLock<BTreeSet<u64>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("identity", &self.identity)
            .field("groups", &self.groups())
            .finish_non_exhaustive()
    }
}

impl Registry {
    pub(super) fn new(identity: Identity, options: &HostOptions, runtime: Runtime) -> Self {
        Self {
            identity,
            snapshot_bytes_max: options.snapshot_bytes_max,
            peer_silence_max: options.peer_silence_max,
            runtime,
            numbers: AtomicU64::new(0),
            resumed_bytes: AtomicU64::new(0),
            running: RwLock::default(),
            lost: RwLock::default(),
        }
    }

    /// Takes over which identities are lost; what was known before is forgotten.
    pub(super) fn know_lost(&self, lost: BTreeSet<u64>) {
        *self.lost.write() = lost;
    }

    /// Whether an identity is lost, as far as this node was told.
    pub(crate) fn is_lost(&self, node: u64) -> bool {
        self.lost.read().contains(&node)
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    pub(crate) fn node(&self) -> NodeId {
        self.identity.node
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn snapshot_bytes_max(&self) -> u64 {
        self.snapshot_bytes_max
    }

    pub(crate) fn peer_silence_max(&self) -> Duration {
        self.peer_silence_max
    }

    /// A number for the files of a transfer of a snapshot or of a group's life, never given out before.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// So many bytes of a snapshot were here from a transfer that broke off.
    pub(crate) fn add_resumed(&self, bytes: u64) {
        self.resumed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes.load(Ordering::Relaxed)
    }

    /// A group that its peers may talk to.
    pub(crate) fn hosted(&self, group: GroupId) -> Option<Arc<dyn Hosted>> {
        let running = self.running.read();
        let found = running.get(&group).filter(|found| !found.is_silent())?;
        Some(Arc::clone(found) as Arc<dyn Hosted>)
    }

    /// Whether a group is there and has not stopped.
    pub(super) fn is_running(&self, group: GroupId) -> bool {
        let running = self.running.read();
        running.get(&group).is_some_and(|found| !found.has_ended())
    }

    pub(super) fn running(&self, group: GroupId) -> Option<Arc<dyn Running>> {
        self.running.read().get(&group).cloned()
    }

    pub(super) fn groups(&self) -> Vec<GroupId> {
        let running = self.running.read();
        running
            .iter()
            .filter(|(_, found)| !found.has_ended())
            .map(|(group, _)| *group)
            .collect()
    }

    pub(super) fn insert(&self, group: GroupId, running: Arc<dyn Running>) {
        self.running.write().insert(group, running);
    }

    /// Lets go of a group that has ended, and so of its state.
    pub(super) fn forget(&self, group: GroupId) {
        let mut running = self.running.write();
        if running.get(&group).is_some_and(|found| found.has_ended()) {
            running.remove(&group);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<dyn Running>> {
        self.running.read().values().cloned().collect()
    }

    /// The sound snapshots of all running groups.
    pub(super) fn snapshots(&self) -> Vec<SnapshotFile> {
        let all = self.all();
        all.iter()
            .filter(|running| !running.has_ended())
            .flat_map(|running| running.snapshots().sound())
            .collect()
    }

    pub(super) fn take_all(&self) -> Vec<Arc<dyn Running>> {
        std::mem::take(&mut *self.running.write())
            .into_values()
            .collect()
    }
}
