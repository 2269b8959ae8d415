//! The watchdog as a process of its own: its health over gRPC, its metrics over HTTP, and the loop.
//!
//! On failure: an address that cannot be bound is an error before anything is begun. What ends early ends the rest.

use std::io;
use std::net::SocketAddr;

use rpc::{Health, Server, ServerConfig};
use runtime::{CancellationToken, Listener, Runtime};
use telemetry::admin::{self, Readiness};
use tokio::sync::watch as watch_channel;
use tracing::info;

use crate::{Config, Deps, StartError, prepare};

/// The name under which a watchdog says that it has found shards to watch.
const SERVICE: &str = "watchdog";

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The watchdog itself.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Serves health and metrics where the configuration says so, and watches, until the shutdown.
///
/// # Errors
///
/// Only at the start, as [`ServeError`] says.
pub async fn serve(
    config: Config,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let runtime = deps.runtime.clone();
    let grpc = bind(&runtime, config.grpc_addr).await?;
    let http = bind(&runtime, config.http_addr).await?;
    let polled = watch_channel::Sender::new(false);
    let readiness = readiness(polled.subscribe());
    let health = Health::new();
    health.set(SERVICE, false);
    let metrics = deps.metrics.clone();
    let follow = follow(health.clone(), polled.subscribe());
    let watch = prepare(config, deps, polled, shutdown.clone())?;
    let serve_grpc = async {
        if let Some(listener) = grpc {
            info!(address = %listener.local_addr(), "health over gRPC");
            let server = Server::new(&runtime, ServerConfig::internal()).with_health(&health);
            server
                .with_reflection()
                .serve(listener, shutdown.clone())
                .await;
        }
    };
    let serve_http = async {
        if let Some(listener) = http {
            info!(address = %listener.local_addr(), "metrics over HTTP");
            let router = admin::router(metrics, readiness);
            admin::serve(&runtime, listener, router, shutdown.clone()).await;
        }
    };
    let watching = async {
        watch.run().await;
        health.stop_serving();
    };
    tokio::join!(watching, serve_grpc, serve_http, follow);
    Ok(())
}

async fn bind(
    runtime: &Runtime,
    address: Option<SocketAddr>,
) -> Result<Option<Listener>, ServeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = runtime.bind(address).await;
    listener
        .map(Some)
        .map_err(|source| ServeError::Bind { address, source })
}

fn readiness(polled: watch_channel::Receiver<bool>) -> Readiness {
    Readiness::new(move || {
        let polled = *polled.borrow();
        polled
            .then_some(())
            .ok_or_else(|| "no coordinator has named a shard yet".to_owned())
    })
}

/// Says over gRPC what was polled, until the loop ends.
async fn follow(health: Health, mut polled: watch_channel::Receiver<bool>) {
    if polled.wait_for(|polled| *polled).await.is_ok() {
        health.set(SERVICE, true);
    }
}
