//! Polls health, and sees to it that what stopped serving comes back.
//!
//! Once every poll interval the watchdog asks the coordinator for the shards and their nodes, asks each node's `grpc.health.v1`
//! whether it serves its shards, and judges ([`detector`]). For a shard that is dead it decides whether to act now
//! ([`policy`]), has the process restarted ([`restart`]), asks the coordinator to diagnose and repair, and verifies that the shard
//! serves. A process that holds no replica, because it is new or in reserve, is asked whether it lives, and restarted when it does not
//! (`nodes`). The watchdog observes and proposes; it never edits the map, never decides who leads, and never gives up data: where only a
//! loss could go on, it raises an alert and leaves it to a person.
//!
//! What always holds:
//! - A shard that makes progress is left alone, however slow it is.
//! - Shards do not hold each other up: polls, backoff and attempts are each shard's own.
//! - Every node that is registered, and neither lost nor drained away, has somebody who restarts it.
//! - Of several watchdogs one acts on a shard at a time: each asks the coordinators for the turn first. Where none answers,
//!   restarting and recovering are safe to repeat.
//!
//! On failure: a coordinator that is away leaves the last known list; nothing that is unknown counts against a shard. When most
//! shards look down and nobody confirms it, nothing is begun.
//!
//! The two parts that judge and decide are pure; time, chance and what was seen come in as values.

mod actions;
mod cli;
pub mod config;
mod coordinators;
pub mod detector;
mod fleet;
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod nodes;
pub mod policy;
mod prober;
mod recovery;
pub mod restart;
mod server;
mod watch;

use std::sync::Arc;

use runtime::{CancellationToken, Runtime};
use telemetry::MetricsError;
use tokio::sync::watch as watch_channel;

pub use cli::{command, main};
pub use config::{Config, Settings};
pub use fleet::NodeTarget;
pub use server::{ServeError, serve};

use actions::Actions;
use coordinators::Coordinators;
use metrics::Metrics;
use prober::Prober;
use recovery::Tools;
use restart::{Restarter, Restarts};
use watch::Watch;

/// What a watchdog is given from outside.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Time, tasks, randomness, sockets.
    pub runtime: Runtime,
    /// Where it counts.
    pub metrics: telemetry::Metrics,
    /// Who brings processes back.
    pub restarter: Arc<dyn Restarter>,
}

/// Why a watchdog did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The names of the metrics are taken by others.
    #[error("setting up the metrics")]
    Metrics(#[from] MetricsError),
    /// A coordinator's address is none.
    #[error("the address of a coordinator: {0}")]
    Coordinator(api::ApiError),
}

/// Watches until the shutdown. Serves nothing itself: for a process that does so on its own, such as the all-in-one.
///
/// # Errors
///
/// Only before the first poll: names of metrics that are taken, or an address that is none.
pub async fn run(
    config: Config,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let watch = prepare(config, deps, watch_channel::Sender::new(false), shutdown)?;
    watch.run().await;
    Ok(())
}

/// Makes everything ready. `polled` becomes true after the first poll that found shards.
fn prepare(
    config: Config,
    deps: Deps,
    polled: watch_channel::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<Watch, StartError> {
    let Deps {
        runtime,
        metrics,
        restarter,
    } = deps;
    let actions = Actions::new(&runtime, &metrics)?;
    let metrics = Metrics::new(&metrics)?;
    let coordinators =
        Coordinators::new(runtime.clone(), &config.coordinators, config.probe_timeout)
            .map_err(StartError::Coordinator)?;
    let name = format!("watchdog-{:016x}", runtime.random_u64());
    tracing::info!(name, "watching");
    let tools = Tools {
        name,
        coordinators,
        prober: Prober::new(runtime.clone(), config.probe_timeout),
        restarts: Restarts::new(
            runtime.clone(),
            restarter,
            config.attempt_timeout,
            actions.clone(),
        ),
        actions,
        attempt_timeout: config.attempt_timeout,
        poll_interval: config.poll_interval,
        runtime,
    };
    Ok(Watch::new(
        config,
        Arc::new(tools),
        metrics,
        polled,
        shutdown,
    ))
}
