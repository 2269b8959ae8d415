//! What operators and orchestrators ask over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! [`router`] can be nested into a server that has a port of its own; [`serve`] runs it, or any router, on a listener of
//! the runtime until it is told to stop. On failure: a socket that cannot be accepted is logged and the next one tried.

mod accepting;

use std::fmt;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use runtime::{CancellationToken, Listener, Runtime};

use crate::Metrics;
use accepting::{Accepting, Limits};

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

/// Serves a router until `stop` is cancelled; requests that are open then have two seconds to end. At most 4,096 connections are open at a
/// time, or a quarter of what the process may have, and one on which nothing moves for a minute is closed.
pub async fn serve(runtime: &Runtime, listener: Listener, router: Router, stop: CancellationToken) {
    serve_within(Limits::of(runtime), runtime, listener, router, stop).await;
}

async fn serve_within(
    limits: Limits,
    runtime: &Runtime,
    listener: Listener,
    router: Router,
    stop: CancellationToken,
) {
    let accepting = Accepting::new(runtime, listener, limits);
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

#[cfg(test)]
mod tests;
