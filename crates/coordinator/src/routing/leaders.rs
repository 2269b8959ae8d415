//! Who leads which shard, as far as anybody has said. A hint: wrong ones cost a try.

use std::collections::HashMap;

use cluster::{NodeId, ShardId};
use parking_lot::RwLock;

/// The newest hint for each shard; as many as there are shards.
#[derive(Debug, Default)]
pub(crate) struct Leaders(RwLock<HashMap<ShardId, NodeId>>);

impl Leaders {
    pub(crate) fn of(&self, shard: ShardId) -> Option<NodeId> {
        self.0.read().get(&shard).copied()
    }

    pub(crate) fn learn(&self, shard: ShardId, leader: NodeId) {
        if self.of(shard) != Some(leader) {
            self.0.write().insert(shard, leader);
        }
    }

    pub(crate) fn forget(&self, shard: ShardId) {
        self.0.write().remove(&shard);
    }
}
