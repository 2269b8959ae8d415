//! Routes requests, merges the global top-K, keeps the shard map, holds snapshots.
//!
//! Where to look:
//! - [`metadata`]: what the cluster agrees on, a replicated state machine; `meta`: the Raft group it lives in, of one coordinator or
//!   three. `identity`, `arrival`: who a coordinator is, and how one with a new directory comes to its cluster.
//! - [`placement`], [`gather`]: where shards go, and many answers as one. Pure.
//! - `public`, `registry`, `admin`: the three gRPC services. Handlers check, call, map the error, and do nothing else.
//! - `routing`: owners, rounds, hedges, scatter and gather. `nodes`: the streams to the shard servers. `lanes`: request ids.
//! - `snapshots`, `recovery`: what is held for the day a disk is lost, and what is done then.
//! - `http`: the page, the JSON interface, metrics. `cli`: the commands of the binary. [`config`]: everything that can be set.
//!
//! What always holds: a coordinator has no unique state but the metadata and the held snapshots; an answer that lacks a
//! shard's part says so; a write that may have been applied is not sent again from here; nothing acknowledged is given up unless an
//! operator has said so in words.
//!
//! On failure: when the metadata log's disk fails, [`run`] ends with an error and the process must exit. Everything else
//! is answered to whoever asked.

mod actions;
mod admin;
mod arrival;
pub mod cli;
pub mod config;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
mod giving_up;
mod http;
mod identity;
mod lanes;
mod liveness;
mod meta;
pub mod metadata;
mod nodes;
pub mod placement;
mod public;
mod recovery;
mod registry;
mod routing;
mod server;
mod snapshots;
mod status;
mod upkeep;

pub use config::{ClusterConfig, Config, CoordinatorsConfig, LimitsConfig, Settings};
pub use error::Error;
pub use server::{Deps, run};
