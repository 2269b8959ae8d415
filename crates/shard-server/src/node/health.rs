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
            let serves = slot
                .running()
                .is_some_and(|replica| Replica::is_serving(&replica.group().status()));
            self.health.set(&shard_read(shard), serves);
            self.health.set(&shard_write(shard), serves && takes_writes);
            all &= serves;
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
        let serves = |slot: &Slot| {
            slot.running()
                .is_some_and(|replica| Replica::is_serving(&replica.group().status()))
        };
        let slots = self.slots();
        let waiting = slots.iter().find(|(_, slot)| !serves(slot));
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
        let mut status = group.watch_status();
        let watch = async move {
            loop {
                node.refresh_health();
                node.sync_now.notify_one();
                node.upkeep_now.notify_one();
                let stopped = status.borrow_and_update().stopped.clone();
                if let Some(stopped) = stopped {
                    // A disk that fails is no replica's private trouble.
                    if stopped.cause == StopCause::Disk {
                        let reason = stopped.reason;
                        node.end(RunError::DiskFailed { reason });
                    }
                    break;
                }
                tokio::select! {
                    () = node.closing.cancelled() => break,
                    changed = status.changed() => if changed.is_err() { break },
                }
            }
            drop(node);
            group.ended().await;
        };
        drop(replica.group().guard("replica-watch", watch));
    }
}
