//! Who belongs to a group.

use cluster::{Incarnation, NodeId, ShardId};
use wal::GroupId;

/// Another replica, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its gRPC server.
    pub address: String,
}

/// A replica of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its gRPC server.
    pub address: String,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
}

impl Member {
    /// A voter.
    #[must_use]
    pub fn voter(node: NodeId, address: impl Into<String>) -> Self {
        Self {
            node,
            address: address.into(),
            voter: true,
        }
    }
}

/// The group of the cluster's metadata.
pub const METADATA_GROUP: GroupId = GroupId(1);

/// The group of a shard. Each incarnation of a shard is a group of its own, so that logs and snapshots of one that was
/// given up can never be taken for those of its successor.
#[must_use]
pub const fn shard_group(shard: ShardId, incarnation: Incarnation) -> GroupId {
    // Both are counted up from 1 and stay far below 2^32, so that no two pairs share a group.
    GroupId((shard.0 << 32) | (incarnation.0 & 0xffff_ffff))
}

/// The shard that a group is of; none where it is the cluster's metadata.
#[must_use]
pub const fn shard_of(group: GroupId) -> Option<ShardId> {
    match group.0 >> 32 {
        0 => None,
        shard => Some(ShardId(shard)),
    }
}

/// The shard that a group is of, and which of its lives; none where it is the cluster's metadata.
#[must_use]
pub const fn life_of(group: GroupId) -> Option<(ShardId, Incarnation)> {
    match shard_of(group) {
        None => None,
        Some(shard) => Some((shard, Incarnation(group.0 & 0xffff_ffff))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_names_its_shard_and_its_life() {
        let group = shard_group(ShardId(7), Incarnation(3));
        assert_eq!(shard_of(group), Some(ShardId(7)));
        assert_eq!(shard_of(METADATA_GROUP), None);
        assert_eq!(life_of(group), Some((ShardId(7), Incarnation(3))));
        assert_eq!(life_of(METADATA_GROUP), None);
    }
}
