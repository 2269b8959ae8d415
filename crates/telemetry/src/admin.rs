//! What operators and orchestrators ask over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! [`router`] can be nested into a server that has a port of its own; [`serve`] runs it, or any router, on a listener of
//! the runtime until it is told to stop. On failure: a socket that cannot be accepted is logged and the next one tried.

use std::fmt;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use runtime::{CancellationToken, Connection, Listener, Runtime};

use crate::Metrics;

/// How long to wait after a failed accept, so that a full table of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What open requests have to end at a stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Says whether the process is ready for users, and if not, why.
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl Readiness {
    /// Asks the closure each time; it must not block.
    pub fn new(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// The answer now.
    ///
    /// # Errors
    /// Why the process is not ready, for people.
    pub fn check(&self) -> Result<(), String> {
        (self.0)()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Readiness")
            .field(&self.check())
            .finish()
    }
}

#[derive(Debug, Clone)]
struct Admin {
    metrics: Metrics,
    readiness: Readiness,
}

/// The routes `/metrics`, `/healthz` (the process answers) and `/readyz` (it is ready for users).
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Admin { metrics, readiness })
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => {
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.readiness.check() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Serves a router until `stop` is cancelled; requests that are open then have two seconds to end.
pub async fn serve(runtime: &Runtime, listener: Listener, router: Router, stop: CancellationToken) {
    let accepting = Accepting {
        runtime: runtime.clone(),
        listener,
    };
    let serving = axum::serve(accepting, router)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let patience = async {
        stop.cancelled().await;
        runtime.sleep(DRAIN).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::warn!(%error, "the HTTP server ended with an error");
        },
        () = patience => tracing::info!("closing HTTP requests that are open after the drain time"),
    }
}

/// The runtime's listener in the form that axum takes.
struct Accepting {
    runtime: Runtime,
    listener: Listener,
}

impl axum::serve::Listener for Accepting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    let peer = connection.peer().unwrap_or(self.listener.local_addr());
                    return (connection, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    self.runtime.sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.listener.local_addr())
    }
}

#[cfg(test)]
mod tests;
