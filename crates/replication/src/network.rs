//! Replicas talk to each other through `autocomplete.raft.v1`: the client side here, the server side in
//! [`service`].
//!
//! Every message names the cluster, the group, its sender and the node it is meant for, so that an address that has
//! changed hands cannot mislead anybody. Every call has a deadline; a stream of appends fails when an answer is
//! overdue. Votes and heartbeats have a connection of their own, and snapshots another, so that neither waits behind
//! the bulk. Delivering a message twice or late is harmless: Raft judges it by term and index.

mod channels;
mod client;
mod message;
pub(crate) mod service;
mod snapshot;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use cluster::{ClusterId, NodeId};
use runtime::Runtime;
use wal::GroupId;

pub(crate) use channels::Channels;
pub(crate) use client::Factory;

/// Bytes of a piece of a snapshot.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// What all clients of a node share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) channels: Channels,
}

/// How long peers may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// An answer to a vote, or the first answer to an outstanding append.
    pub(crate) answer: Duration,
}

impl Context {
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
