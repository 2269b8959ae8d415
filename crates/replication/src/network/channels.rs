//! Connections to other nodes: one for each peer and use, shared by all groups.

use std::time::Duration;

use rpc::channel::{Pool, PoolConfig};
use runtime::Runtime;
use tonic::transport::Channel;

/// A peer that does not answer a ping for this long, sent after as long a silence, is connected to anew.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// What a connection is used for; each use has one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Appends of entries.
    Append,
    /// Votes and heartbeats.
    Control,
    /// Snapshots.
    Snapshot,
}

/// Connections to other nodes, made when first used and shared by all groups.
#[derive(Debug)]
pub(crate) struct Channels {
    append: Pool,
    control: Pool,
    snapshot: Pool,
}

impl Channels {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let pool = || {
            let config = PoolConfig {
                connections_per_peer: 1,
                keepalive_interval: KEEPALIVE,
                keepalive_timeout: KEEPALIVE,
                ..PoolConfig::default()
            };
            Pool::new(runtime, config)
        };
        Self {
            append: pool(),
            control: pool(),
            snapshot: pool(),
        }
    }

    /// The connection to an address, `None` where it is none.
    pub(crate) fn get(&self, address: &str, lane: Lane) -> Option<Channel> {
        let pool = match lane {
            Lane::Append => &self.append,
            Lane::Control => &self.control,
            Lane::Snapshot => &self.snapshot,
        };
        pool.get(address).ok()
    }
}
