//! The snapshots of shards that are held here, for the day when a disk is lost.
//!
//! What always holds: a file has its final name only when it was received whole, its BLAKE3 matched and it was synced. Names are made
//! here from numbers and the hash; nothing that a node sends reaches a path. Of each shard the newest few are kept.
//!
//! On failure: a transfer that breaks leaves a temporary file, which is removed; what was held stays. A held file that does not match its
//! hash any more is passed over, with a loud word in the log, and an older one is used; until the next start it counts as not held.

pub(crate) mod name;
mod puller;
mod pulling;
mod pulls;
mod pushing;
mod store;

pub(crate) use puller::Puller;
pub(crate) use pulling::{announced, pull, take_and_pull};
pub(crate) use pulls::Pulls;
pub(crate) use pushing::push;
pub(crate) use store::{Held, Store};

use cluster::ShardId;

use crate::metadata::Seed;

impl Held {
    /// The file that a life begins from, as it is held.
    pub(crate) fn of_seed(shard: ShardId, seed: &Seed) -> Self {
        Self {
            shard,
            incarnation: seed.incarnation,
            raft_term: seed.raft_term,
            index: seed.index,
            bytes: seed.bytes,
            hash: seed.hash,
            taken_at_ms: seed.taken_at_ms,
        }
    }

    /// What a new life of the shard would begin from.
    pub(crate) fn seed(&self) -> Seed {
        Seed {
            incarnation: self.incarnation,
            raft_term: self.raft_term,
            index: self.index,
            bytes: self.bytes,
            hash: self.hash,
            taken_at_ms: self.taken_at_ms,
        }
    }
}
