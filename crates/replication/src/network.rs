//! Replicas talk to each other through `autocomplete.raft.v1`: the client side here, the server side in
//! [`service`].
//!
//! Every message names the cluster, the group, its sender and the node it is meant for, so that an address that has
//! changed hands cannot mislead anybody. A node that was started anew may have another address than the group's
//! membership says, and nobody can lead before its members reach each other: what the node was told of addresses ([`Context::know`])
//! goes before the membership.
//!
//! What goes to a peer that is behind, or to any that is written to much, is compressed in blocks, once the peer has said that it takes
//! them ([`block`]).
//!
//! That an entry is committed goes with the next one, where that comes soon ([`hold`]).
//!
//! With votes and appends goes how far the logs reach on the disks, so that a disk that was set back is noticed ([`standing`]).
//!
//! Every call has a deadline; a stream of appends fails when an answer is overdue, and when its leader gives up on a peer that is too far
//! behind. Votes and heartbeats have a connection of their own, and snapshots another, so that neither waits behind
//! the bulk. A snapshot is offered before it is sent: the receiver says how much of it is there from a transfer that broke off, and only
//! the rest follows. The log behind it stays until it is there ([`sending`]). Delivering a message twice or late is harmless: Raft judges it
//! by term and index.

pub(crate) mod block;
mod channels;
mod client;
mod hold;
mod leash;
mod message;
mod sending;
pub(crate) mod service;
mod snapshot;
mod standing;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use cluster::{ClusterId, NodeId};
use parking_lot::RwLock;
use runtime::Runtime;
use wal::GroupId;

pub use block::AppendSize;
pub(crate) use channels::Channels;
pub(crate) use client::{Factory, Offer, said_to_offer};
pub(crate) use sending::Sendings;
pub(crate) use standing::{Behind, Own, Standings};
pub(crate) use stream::Streams;

/// Bytes of a piece of a snapshot.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// What all clients of a node share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) channels: Channels,
    pub(crate) packer: block::Packer,
    /// Where nodes are now, as far as this one was told.
    pub(crate) addresses: RwLock<BTreeMap<u64, String>>,
}

/// How long peers may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// An answer to a vote, or the first answer to an outstanding append.
    pub(crate) answer: Duration,
}

impl Context {
    /// Takes over where nodes are; what was known before is forgotten.
    pub(crate) fn know(&self, addresses: BTreeMap<u64, String>) {
        *self.addresses.write() = addresses;
    }

    /// Where a node is, if anybody said so.
    fn address_of(&self, node: u64) -> Option<String> {
        self.addresses.read().get(&node).cloned()
    }

    fn envelope(&self, group: GroupId, to: u64) -> wire::Envelope {
        wire::Envelope {
            cluster_id: self.cluster.0.to_vec().into(),
            group_id: group.0,
            from_node: self.node.0,
            to_node: to,
        }
    }
}

pub(crate) type SharedContext = Arc<Context>;
