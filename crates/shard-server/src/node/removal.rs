//! Removes what this node hosts no more.
//!
//! - The data of a shard that is no longer assigned is removed only when the map says that its replicas are elsewhere.
//! - Earlier lives of a shard are removed once the present one runs, or has what it begins from; or for want of room for that.
//! - What was begun here is known from the memory, and what was joined and is not noted there yet from the log, which it would hold back for
//!   ever.
//! - What could not be removed, or was not before the process ended, is reported, and tried again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::registry::v1::Assignment;
use cluster::{Incarnation, ShardId};
use replication::{Host, life_of, shard_group};

use super::reconcile::{BeginError, Place, RETRY};
use super::{Node, Slot};
use crate::metrics::Action;

impl Node {
    /// All that may be on the disk: what was begun here, and what the log holds something of.
    pub(super) fn lives_here(&self, host: &Host) -> BTreeSet<Place> {
        let mut lives = self.memory.lock().begun.clone();
        lives.extend(host.wal().groups().into_iter().filter_map(life_of));
        lives
    }

    fn older_lives(&self, host: &Host, shard: ShardId, present: Incarnation) -> Vec<Place> {
        let lives = self.lives_here(host);
        let older = lives.range((shard, Incarnation(0))..(shard, present));
        older.copied().collect()
    }

    /// What an earlier attempt, or an earlier process, did not come to remove: it was begun or joined here and is assigned no more. Its
    /// entries would hold back the log for ever.
    pub(super) fn left_behind(
        &self,
        host: &Host,
        wanted: &BTreeMap<ShardId, Assignment>,
        slots: &BTreeMap<ShardId, Slot>,
    ) -> Vec<Place> {
        let lives = self.lives_here(host);
        let here = |shard: &ShardId| wanted.contains_key(shard) || slots.contains_key(shard);
        let gone = lives.into_iter().filter(|(shard, _)| !here(shard));
        gone.filter(|(shard, _)| self.is_elsewhere(host, *shard))
            .collect()
    }

    /// Starts the task that stops a replica and removes its data, unless one is at work on the shard.
    pub(super) fn begin_to_leave(self: &Arc<Self>, host: &Host, place: Place, slot: Option<Slot>) {
        let shard = place.0;
        match self.leaving.lock().entry(shard) {
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => drop(free.insert(place.1)),
        }
        let (node, host) = (Arc::clone(self), host.clone());
        drop(self.vital.spawn_once("shard-leave", async move {
            let is_done = node.leave(&host, place, slot).await;
            node.leaving.lock().remove(&shard);
            // It may have been assigned again meanwhile. What failed waits for the next look.
            if is_done {
                node.reconcile();
            }
        }));
    }

    /// Removes the earlier lives of a shard for want of room, if the present one waits for the snapshot of this hash, which somebody is
    /// about to send: it is not here alone.
    pub(crate) async fn make_room_for_seed(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        hash: &[u8],
    ) {
        let is_awaited = {
            let memory = self.memory.lock();
            let mut assignments = memory.orders.assignments.iter();
            assignments.any(|found| {
                let seed = found.seed.as_ref();
                found.shard_id == shard.0
                    && found.incarnation == incarnation.0
                    && seed.is_some_and(|seed| seed.hash == hash)
            })
        };
        let Some(host) = self.host().filter(|_| is_awaited) else {
            return;
        };
        if let Err(error) = self.remove_older(host, shard, incarnation).await {
            tracing::warn!(%shard, %error, "an earlier life of a shard leaves no room for a snapshot");
        }
    }

    /// Says of the earlier lives of a shard that they are not started again, so that the log is not kept for them.
    pub(super) fn retire_older(&self, host: &Host, shard: ShardId, present: Incarnation) {
        for (shard, incarnation) in self.older_lives(host, shard, present) {
            host.retire_group(shard_group(shard, incarnation));
        }
    }

    /// Removes the earlier lives of a shard that runs. What fails is tried again.
    pub(super) async fn clear_older(&self, host: &Host, shard: ShardId, present: Incarnation) {
        match self.remove_older(host, shard, present).await {
            Ok(()) => {
                self.uncleared.lock().remove(&shard);
            }
            Err(error) => {
                tracing::warn!(%shard, %error, "an earlier life of a shard stays on the disk for now");
                let again = self.runtime.now() + RETRY;
                self.uncleared.lock().insert(shard, again);
            }
        }
    }

    /// Starts the tasks that try again to remove earlier lives. A shard that does not run does so once it does.
    pub(super) fn begin_to_clear(self: &Arc<Self>, host: &Host, slots: &BTreeMap<ShardId, Slot>) {
        let now = self.runtime.now();
        let mut uncleared = self.uncleared.lock();
        uncleared.retain(|shard, _| slots.contains_key(shard));
        let due = uncleared.extract_if(.., |shard, again| {
            let runs = slots
                .get(shard)
                .is_some_and(|slot| slot.running().is_some());
            runs && *again <= now
        });
        for (shard, _) in due {
            let present = slots.get(&shard).map(|slot| slot.incarnation);
            let (node, host) = (Arc::clone(self), host.clone());
            drop(self.vital.spawn_once("shard-clear", async move {
                if let Some(present) = present {
                    node.clear_older(&host, shard, present).await;
                }
            }));
        }
    }

    /// Removes earlier lives of a shard, as many as can be.
    ///
    /// # Errors
    /// The first of those that were met.
    pub(super) async fn remove_older(
        &self,
        host: &Host,
        shard: ShardId,
        present: Incarnation,
    ) -> Result<(), BeginError> {
        let mut outcome = Ok(());
        for place in self.older_lives(host, shard, present) {
            tracing::warn!(%shard, incarnation = %place.1, "removing an earlier life of a shard");
            let removed = self.remove_group(host, place, "older_life").await;
            outcome = outcome.and(removed);
        }
        outcome
    }

    async fn remove_group(
        &self,
        host: &Host,
        place: Place,
        reason: &'static str,
    ) -> Result<(), BeginError> {
        let removed = host.remove_group(shard_group(place.0, place.1)).await;
        self.metrics
            .count_action(Action::RemoveReplica, reason, Some(place.0), &removed);
        removed?;
        self.memory.lock().begun.remove(&place);
        self.remember().await.map_err(BeginError::Memory)
    }

    /// Stops a replica that is no longer assigned, and removes its data where the others are known. Says whether it came to its end.
    async fn leave(&self, host: &Host, place: Place, slot: Option<Slot>) -> bool {
        let shard = place.0;
        tracing::info!(%shard, "a shard is no longer assigned to this node");
        self.forget_health(shard);
        if let Some(replica) = slot.as_ref().and_then(Slot::running) {
            replica.group().shutdown().await;
            self.metrics.forget(replica.metrics());
        }
        // Before the data go, so that nothing of it is held on to.
        drop(slot);
        if !self.is_elsewhere(host, shard) {
            return true;
        }
        match self.remove_group(host, place, "reassigned").await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%shard, %error, "the data of a shard that left stays for now");
                false
            }
        }
    }

    /// Whether the map says that a shard has replicas, and none of them here.
    fn is_elsewhere(&self, host: &Host, shard: ShardId) -> bool {
        let me = host.identity().node;
        let view = self.view();
        let found = view.map().and_then(|map| map.shards.get(&shard));
        found.is_some_and(|found| {
            let mut replicas = found.replicas.iter();
            !found.replicas.is_empty() && replicas.all(|replica| replica.node != me)
        })
    }
}
