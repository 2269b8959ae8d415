//! What every gRPC server and client of the cluster shares: limits, deadlines, channels, health, shutdown.
//!
//! - [`server`]: one way to serve. Bounds on everything a caller can make grow, a deadline for every unary call, load
//!   shedding, panics that cost one call, and a stop that ends.
//! - [`services`]: the services of `api` with the message limits of the contract.
//! - [`deadline`]: how long a call may still take, here and further down.
//! - [`channel`]: kept connections to peers.
//! - [`streams`]: streams of requests, answered in their order.
//! - [`trace`]: which request a piece of work belongs to, on every server that it passes.
//! - [`Neighbours`]: services of the same process, without a socket.
//! - [`Late`]: a service that is not there yet while the server already serves.
//! - [`health`]: `grpc.health.v1`, and [`healthcheck()`] for the command line.
//!
//! What always holds: an error that leaves a server here is one of [`api::Reason`], also where the gRPC library
//! speaks of its own accord; sockets, tasks and timers come from [`runtime`]. This crate must not know of shards, Raft
//! or Prometheus: measurements go to an [`RpcObserver`].

pub mod channel;
pub mod deadline;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
mod healthcheck;
mod late;
mod methods;
mod neighbours;
mod observer;
pub mod server;
pub mod services;
pub mod streams;
pub mod trace;

pub use deadline::Deadline;
pub use health::Health;
pub use healthcheck::{HealthcheckError, healthcheck};
pub use late::Late;
pub use neighbours::{Door, Neighbours};
pub use observer::{Call, RpcObserver, code_name};
pub use server::{Drained, Server, ServerConfig};
pub use trace::{Trace, request, traced};
