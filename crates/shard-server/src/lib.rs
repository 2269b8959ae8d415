//! Hosts replicas of shards: the dictionary under Raft, served over gRPC.
//!
//! - [`state`]: what is replicated: dictionaries and the repeat table, pure; the formats of commands and snapshots.
//! - `queue`: writes that arrive together become one log entry.
//! - `node`: identity, orders of the coordinators, starting and stopping replicas, health.
//! - `service`: the gRPC services; they decode, call and map errors.
//! - [`config`]: what an operator can set. [`run`]: a server from its start to its end.
//!
//! What always holds:
//! - A write is answered after it is on the disks of a majority and applied here; a read never waits for a disk.
//! - What is damaged does not serve and says so; what is lost is never begun anew in silence.
//! - Everything that a caller can make grow has a bound: queues, streams, batches, memory of request ids.

pub mod cli;
pub mod config;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod node;
mod queue;
mod server;
mod service;
pub mod state;

pub use config::{Config, Settings};
pub use error::RunError;
pub use node::{IdentityError, MemoryError};
pub use server::{Deps, run};
