//! Makes what this node hosts what it was told to host.
//!
//! Each shard is started by a task of its own, so that a long replay holds up nobody. What happens to the disk:
//! - A group is begun (founded, seeded or joined) only where the memory does not name it; where it does, it is resumed, and refused as
//!   lost data when nothing of it is there.
//! - A replica that stopped because there was no room at all is resumed once the log has room again. What it could not write was
//!   acknowledged to nobody. One that stopped for a fault of the program, such as a task that panicked, is resumed at once, but not
//!   twice within [`RETRY`].
//! - A newer incarnation, which takes an operator's word, ends an older one: that is shut down before anything else. Its data is removed
//!   when what the newer one begins from is on this disk, for it may be all that is left. Until then its snapshots are what counts: the last
//!   holds all that it applied, and the log need not be kept for it.
//!
//! What is removed, and when: see [`super::removal`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::admin::v1::SnapshotInfo;
use api::registry::v1::Assignment;
use cluster::{Incarnation, NodeId, SEED_AWAITED, ShardId};
use replication::{
    Applied, Group, GroupConfig, Host, Member, SnapshotError, SnapshotFile, SnapshotPolicy, Start,
    StartError, StopCause, Timing, shard_group,
};

use super::{Failure, Node, Replica, Slot, SlotState, whole_hash};
use crate::metrics::Action;
use crate::state::DictionaryState;

/// When a start that failed is tried again, and how often a replica that fails again and again is.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// A life of a shard.
pub(super) type Place = (ShardId, Incarnation);

/// What came of an attempt to start a replica.
enum Begun {
    Running(Group<DictionaryState>),
    Waiting { reason: String },
}

/// Why a replica was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeginError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    #[error(transparent)]
    Task(#[from] runtime::TaskFailed),
    #[error("cannot remember that the group has begun: {0}")]
    Memory(ApiError),
    #[error("this node began the group before, and nothing of it is left on the disk")]
    Vanished,
    #[error("node {node} of the group has no address")]
    NoAddress { node: NodeId },
}

/// What a replica that has stopped needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    /// Room on the disk, and a start.
    Room,
    /// A start from the disk.
    Start,
}

impl Cure {
    /// Why it is started again, for what counts it.
    const fn reason(self) -> &'static str {
        match self {
            Self::Room => "disk_full",
            Self::Start => "fault",
        }
    }
}

/// None where it would stop again, or is to stay as it is.
const fn cure(cause: StopCause) -> Option<Cure> {
    match cause {
        StopCause::DiskFull => Some(Cure::Room),
        // One that could not be installed is sent again.
        StopCause::Internal | StopCause::Snapshot => Some(Cure::Start),
        StopCause::Shutdown | StopCause::Apply | StopCause::DataLoss | StopCause::Disk => None,
    }
}

impl BeginError {
    fn is_data_loss(&self) -> bool {
        match self {
            Self::Start(StartError::DataLoss { .. }) | Self::Vanished => true,
            Self::Start(_)
            | Self::Snapshot(_)
            | Self::Disk(_)
            | Self::Task(_)
            | Self::Memory(_)
            | Self::NoAddress { .. } => false,
        }
    }
}

impl Node {
    /// Compares what is hosted with what is assigned, starts the tasks that bring them together, and has the health say how that
    /// stands. Returns at once.
    pub(super) fn reconcile(self: &Arc<Self>) {
        if self.closing.is_cancelled() {
            return;
        }
        if let Some(host) = self.host().cloned() {
            self.begin_and_leave(&host);
        }
        self.refresh_health();
    }

    fn begin_and_leave(self: &Arc<Self>, host: &Host) {
        let wanted: BTreeMap<ShardId, Assignment> = {
            let memory = self.memory.lock();
            let assignments = memory.orders.assignments.iter();
            assignments
                .map(|found| (ShardId(found.shard_id), found.clone()))
                .collect()
        };
        let mut slots = self.slots.write();
        let surplus: Vec<ShardId> = slots
            .iter()
            .filter(|(shard, slot)| !wanted.contains_key(shard) && !slot.is_starting())
            .map(|(shard, _)| *shard)
            .collect();
        for shard in surplus {
            if let Some(slot) = slots.remove(&shard) {
                self.begin_to_leave(host, (shard, slot.incarnation), Some(slot));
            }
        }
        for place in self.left_behind(host, &wanted, &slots) {
            self.begin_to_leave(host, place, None);
        }
        self.begin_to_clear(host, &slots);
        let leaving = self.leaving.lock().clone();
        for (shard, assignment) in wanted {
            if leaving.contains_key(&shard) {
                continue;
            }
            let incarnation = Incarnation(assignment.incarnation);
            let replaced = match slots.get(&shard) {
                Some(slot) if !self.is_to_start(host, slot, incarnation) => continue,
                present => present.cloned(),
            };
            let starting = Slot {
                incarnation,
                state: SlotState::Starting(None),
            };
            slots.insert(shard, starting);
            let start = Arc::clone(self).start_shard(host.clone(), assignment, replaced);
            drop(self.vital.spawn_once("shard-start", start));
        }
    }

    fn is_to_start(&self, host: &Host, slot: &Slot, wanted: Incarnation) -> bool {
        if slot.incarnation != wanted {
            // Never back to an older life.
            return slot.incarnation < wanted && !slot.is_starting();
        }
        match &slot.state {
            SlotState::Starting(_) => false,
            SlotState::Running(replica) => match replica.stop_cause().and_then(cure) {
                Some(Cure::Room) => !host.wal_stats().disk_full,
                Some(Cure::Start) => self.runtime.now().saturating_since(replica.begun()) >= RETRY,
                None => false,
            },
            SlotState::Waiting { .. } => true,
            SlotState::Failed(failure) => {
                failure.retry_at.is_some_and(|at| at <= self.runtime.now())
            }
        }
    }

    async fn start_shard(
        self: Arc<Self>,
        host: Host,
        assignment: Assignment,
        replaced: Option<Slot>,
    ) {
        let shard = ShardId(assignment.shard_id);
        let incarnation = Incarnation(assignment.incarnation);
        let waited = replaced.as_ref().is_some_and(Slot::is_waiting);
        let mut restart = None;
        if let Some(running) = replaced.as_ref().and_then(Slot::running) {
            restart = running.stop_cause().and_then(cure).map(Cure::reason);
            if running.incarnation() < incarnation {
                running.group().retire().await;
            } else {
                running.group().shutdown().await;
            }
            // Whatever comes of the start: what it was is not what is.
            self.metrics.forget(running.metrics());
            // Its data may be needed yet, and stays. Its state must not take the memory of what comes.
            host.forget_group(shard_group(shard, running.incarnation()));
        }
        drop(replaced);
        self.retire_older(&host, shard, incarnation);
        let result = self.begin(&host, shard, &assignment).await;
        if let Some(reason) = restart {
            tracing::warn!(%shard, reason, "a replica that stopped is started again");
            self.metrics
                .count_action(Action::RestartReplica, reason, Some(shard), &result);
        }
        let state = self.state_of((shard, incarnation), result);
        let running = match &state {
            SlotState::Running(replica) => Some(Arc::clone(replica)),
            SlotState::Starting(_) | SlotState::Waiting { .. } | SlotState::Failed(_) => None,
        };
        let slot = Slot { incarnation, state };
        // What it waits for is looked for with every answer to a report: telling of it at once would never end.
        let is_news = !(waited && slot.is_waiting());
        self.slots.write().insert(shard, slot);
        match &running {
            Some(replica) => self.watch(replica),
            None => self.refresh_health(),
        }
        if is_news {
            self.sync_now.notify_one();
        }
        if running.is_some() {
            self.clear_older(&host, shard, incarnation).await;
        }
    }

    /// What is in the place of a shard after an attempt to start it.
    fn state_of(
        &self,
        (shard, incarnation): Place,
        result: Result<Begun, BeginError>,
    ) -> SlotState {
        match result {
            Ok(Begun::Waiting { reason }) => SlotState::Waiting { reason },
            Ok(Begun::Running(group)) => {
                let shard_key = self.view().shard_key(shard).to_owned();
                let replica = Arc::new(Replica::new(
                    &self.runtime,
                    shard,
                    incarnation,
                    group,
                    self.config.queue,
                    self.metrics.shard(&shard_key),
                ));
                tracing::info!(%shard, %incarnation, "a replica has started");
                SlotState::Running(replica)
            }
            Err(error) => {
                let data_loss = error.is_data_loss();
                tracing::error!(%shard, %incarnation, %error, data_loss, "a replica did not start");
                SlotState::Failed(Failure {
                    reason: error.to_string(),
                    data_loss,
                    retry_at: (!data_loss).then(|| self.runtime.now() + RETRY),
                })
            }
        }
    }

    async fn begin(
        self: &Arc<Self>,
        host: &Host,
        shard: ShardId,
        assignment: &Assignment,
    ) -> Result<Begun, BeginError> {
        let incarnation = Incarnation(assignment.incarnation);
        let group = shard_group(shard, incarnation);
        let place = (shard, incarnation);
        let was_begun = self.memory.lock().begun.contains(&place);
        let exists = {
            let host = host.clone();
            let look = move || host.exists(group);
            self.runtime.spawn_blocking("group-look", look).await??
        };
        let start = match (was_begun, exists) {
            (true, true) => Start::Resume,
            (true, false) => return Err(BeginError::Vanished),
            (false, _) => match self.how_to_begin(host, shard, assignment).await? {
                Ok(start) => start,
                Err(reason) => return Ok(Begun::Waiting { reason }),
            },
        };
        let joined = matches!(start, Start::Join);
        let started = match self.start_group(host, shard, incarnation, start).await {
            // Begun by an earlier process that did not come to remember it: nobody was answered yet.
            Err(StartError::Exists { .. }) if !was_begun => {
                self.start_group(host, shard, incarnation, Start::Resume)
                    .await?
            }
            other => other?,
        };
        // A group that was joined has nothing on the disk until its leader writes to it: see [`Node::note_joined`].
        if !was_begun && !joined {
            self.memory.lock().begun.insert(place);
            if let Err(error) = self.remember().await {
                self.memory.lock().begun.remove(&place);
                started.shutdown().await;
                return Err(BeginError::Memory(error));
            }
            if let Err(error) = self.seeds.remove(shard, incarnation) {
                tracing::warn!(%shard, %error, "what a shard was begun from stays on the disk");
            }
        }
        Ok(Begun::Running(started))
    }

    /// Remembers a group that was joined as soon as its log holds something, so that nothing being left of it later is found out.
    /// Before that there was nothing to lose: whoever joins has promised nothing.
    pub(super) async fn note_joined(&self, replica: &Arc<Replica>) {
        let place = (replica.shard(), replica.incarnation());
        let is_there = replica.group().status().last_log.is_some();
        if !is_there || self.memory.lock().begun.contains(&place) {
            return;
        }
        {
            // One that has left meanwhile may be gone from the disk, and would be taken for lost when it comes back.
            let slots = self.slots.read();
            let present = slots.get(&place.0).and_then(Slot::running);
            if present.is_none_or(|present| !Arc::ptr_eq(present, replica)) {
                return;
            }
            self.memory.lock().begun.insert(place);
        }
        if let Err(error) = self.remember().await {
            self.memory.lock().begun.remove(&place);
            tracing::warn!(shard = %place.0, %error, "a group that was joined is not remembered yet");
        }
    }

    async fn start_group(
        self: &Arc<Self>,
        host: &Host,
        shard: ShardId,
        incarnation: Incarnation,
        start: Start,
    ) -> Result<Group<DictionaryState>, StartError> {
        let options = trie_core::Options {
            cached_k: self.config.state.cached_k,
            ..trie_core::Options::default()
        };
        let config = GroupConfig {
            snapshots: SnapshotPolicy {
                entries: self.config.snapshots.entries,
                interval: self.config.snapshots.interval,
                ..SnapshotPolicy::default()
            },
            timing: Timing::of(self.config.election_timeout),
            ..GroupConfig::new(shard_group(shard, incarnation), start)
        };
        let machine = Arc::new(DictionaryState::new(options));
        let node = Arc::clone(self);
        host.start_group_watched(config, machine, move |watch| {
            let state = SlotState::Starting(Some(watch));
            node.slots
                .write()
                .insert(shard, Slot { incarnation, state });
        })
        .await
    }

    /// How a group that this node has not begun yet is to begin; or, in the inner error, what it waits for.
    async fn how_to_begin(
        self: &Arc<Self>,
        host: &Host,
        shard: ShardId,
        assignment: &Assignment,
    ) -> Result<Result<Start, String>, BeginError> {
        if !assignment.bootstrap {
            return Ok(Ok(Start::Join));
        }
        let me = host.identity().node;
        let Some(seed) = &assignment.seed else {
            let members = self.members(me, assignment)?;
            return Ok(Ok(Start::Bootstrap { members }));
        };
        let seeds = self.seeds.clone();
        let incarnation = Incarnation(assignment.incarnation);
        let hash = seed.hash.clone();
        let find = move || seeds.find(shard, incarnation, &hash);
        let pushed = self.runtime.spawn_blocking("seed-find", find).await??;
        let found = match pushed {
            Some(pushed) => {
                // Now, so that the disk need not hold the earlier life beside it and what is written from it.
                self.remove_older(host, shard, incarnation).await?;
                Some(pushed)
            }
            None => self.own_seed(host, shard, seed).await,
        };
        let begins = found.map(|snapshot| Start::Seed {
            snapshot,
            member: Member::voter(me, self.address.clone()),
        });
        Ok(begins.ok_or_else(|| format!("the snapshot of index {} {SEED_AWAITED}", seed.index)))
    }

    /// The snapshot that a life is to begin from, where it was taken here and is still there: whoever was to push it may be gone. What
    /// cannot be used is waited for as one that was taken elsewhere.
    async fn own_seed(
        &self,
        host: &Host,
        shard: ShardId,
        seed: &SnapshotInfo,
    ) -> Option<SnapshotFile> {
        let place = (shard, Incarnation(seed.incarnation));
        if !self.memory.lock().begun.contains(&place) {
            return None;
        }
        match self.taken_here(host, place, seed).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%shard, %error, "the snapshot that a shard is to begin from cannot be taken from an earlier life");
                None
            }
        }
    }

    async fn taken_here(
        &self,
        host: &Host,
        place: Place,
        seed: &SnapshotInfo,
    ) -> Result<Option<SnapshotFile>, BeginError> {
        let applied = Applied {
            index: seed.index,
            term: seed.raft_term,
        };
        let group = shard_group(place.0, place.1);
        let Some(found) = host.snapshot_of(group, applied).await? else {
            return Ok(None);
        };
        let read = found.clone();
        let hash = move || whole_hash(&read);
        let hash = self.runtime.spawn_blocking("seed-hash", hash).await??;
        Ok((seed.hash == hash.as_slice()).then_some(found))
    }

    fn members(&self, me: NodeId, assignment: &Assignment) -> Result<Vec<Member>, BeginError> {
        let voters = assignment.replicas.iter().filter(|replica| replica.voter);
        let mut members = Vec::new();
        for replica in voters {
            let node = NodeId(replica.node_id);
            let peer = assignment.peers.iter().find(|peer| peer.node_id == node.0);
            let address = match peer {
                _ if node == me => self.address.clone(),
                Some(peer) => peer.address.clone(),
                None => return Err(BeginError::NoAddress { node }),
            };
            members.push(Member::voter(node, address));
        }
        if members.is_empty() {
            members.push(Member::voter(me, self.address.clone()));
        }
        Ok(members)
    }

    /// Whether a life of a shard, or a later one, has begun here.
    pub(crate) fn has_begun(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        let last = (shard, Incarnation(u64::MAX));
        let memory = self.memory.lock();
        let mut begun = memory.begun.range((shard, incarnation)..=last);
        begun.next().is_some()
    }
}
