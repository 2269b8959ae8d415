//! Keeps the health table true: computed from what the replicas are, whenever that changes.

use std::sync::Arc;

use cluster::ShardId;
use replication::StopCause;
use rpc::health::{READY_SERVICE, shard_read, shard_write};

use super::replica::Replica;
use super::{Node, Slot};
use crate::error::RunError;

impl Node {
    /// Sets every service to what is true now. Does nothing once the node stops.
    pub(super) fn refresh_health(&self) {
        let follows = self.follows_health.lock();
        if !*follows {
            return;
        }
        let takes_writes = !self.is_disk_full() && self.stall().is_none();
        let mut all = true;
        for (shard, slot) in self.slots() {
            let status = slot.running().map(|replica| replica.group().status());
            let answers = status.as_ref().is_some_and(Replica::answers_reads);
            // Also of a newcomer that has nothing yet: writes are its leader's to take, and it gets on.
            let serves = status.as_ref().is_some_and(Replica::is_serving);
            self.health.set(&shard_read(shard), answers);
            self.health.set(&shard_write(shard), serves && takes_writes);
            all &= answers;
        }
        let has_orders = self.host().is_some() && self.view().map().is_some();
        let ready = has_orders && all && self.damage().is_none();
        self.health.set(READY_SERVICE, ready);
    }

    /// Whether there is no room for writes.
    pub(super) fn is_disk_full(&self) -> bool {
        self.host().is_some_and(|host| host.wal_stats().disk_full)
    }

    /// From now on nothing but liveness serves.
    pub(crate) fn stop_serving(&self) {
        let mut follows = self.follows_health.lock();
        *follows = false;
        self.health.stop_serving();
    }

    /// Why this node is not ready for users.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if let Some(damage) = self.damage() {
            return Some(format!("the data is damaged: {damage}"));
        }
        if self.host().is_none() {
            return Some("not registered yet".to_owned());
        }
        if self.view().map().is_none() {
            return Some("no map yet".to_owned());
        }
        let answers = |slot: &Slot| {
            slot.running()
                .is_some_and(|replica| Replica::answers_reads(&replica.group().status()))
        };
        let slots = self.slots();
        let waiting = slots.iter().find(|(_, slot)| !answers(slot));
        waiting.map(|(shard, _)| format!("shard {shard} does not serve"))
    }

    /// Forgets a shard whose slot is gone.
    pub(super) fn forget_health(&self, shard: ShardId) {
        // Not while somebody sets what a look at the slots has shown before: it would stay for good.
        let _follows = self.follows_health.lock();
        self.health.remove(&shard_read(shard));
        self.health.remove(&shard_write(shard));
    }

    /// Follows a replica until it stops.
    pub(super) fn watch(self: &Arc<Self>, replica: &Arc<Replica>) {
        let node = Arc::clone(self);
        let group = replica.group().clone();
        let watch = async move {
            let tell = |_: bool| {
                node.refresh_health();
                node.sync_now.notify_one();
                node.upkeep_now.notify_one();
            };
            let stopped = tokio::select! {
                biased;
                stopped = Replica::follow(&node.runtime, &group, tell) => stopped,
                () = node.closing.cancelled() => None,
            };
            // A disk that fails is no replica's private trouble.
            if let Some(stopped) = stopped.filter(|stopped| stopped.cause == StopCause::Disk) {
                let reason = stopped.reason;
                node.end(RunError::DiskFailed { reason });
            }
            drop(node);
            group.ended().await;
        };
        drop(replica.group().guard("replica-watch", watch));
    }
}
