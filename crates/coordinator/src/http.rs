//! The HTTP port: the page, the JSON interface it uses, suggestions for browsers, metrics and probes.
//!
//! What always holds: nothing is loaded from anywhere else, which the content security policy enforces; a browser may record only from the
//! page's own origin or one that the configuration names; every error of the JSON interface is JSON with the status and reason of the
//! contract. Probes and metrics are answered from the beginning, and everything else is refused as `STARTING` until the data are open.

mod error;
pub(crate) mod origin;
mod page;
pub(crate) mod record;
mod status;
pub(crate) mod suggest;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::{ApiError, Reason};
use axum::Router as Routes;
use axum::extract::DefaultBodyLimit;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use rpc::health::READY_SERVICE;
use rpc::{Health, Trace};
use runtime::Runtime;
use telemetry::Metrics;
use telemetry::admin::Readiness;
use tonic::codegen::Service as _;

use crate::liveness::Liveness;
use crate::meta::Meta;
use crate::routing::Router;
use error::HttpError;

/// Bytes of a request's body; a record fits many times.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a request may take.
const PATIENCE: Duration = cluster::limits::DEADLINE_DEFAULT;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) runtime: Runtime,
    pub(crate) router: Arc<Router>,
    pub(crate) meta: Arc<Meta>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) allowed_origins: Vec<String>,
}

/// Where everybody comes in, before there is a site as well. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entrance(Arc<OnceLock<Routes>>);

impl Entrance {
    /// The data are open. Only the first site counts.
    pub(crate) fn open(&self, site: Site) {
        drop(self.0.set(routes(site)));
    }

    /// Everything that is served.
    pub(crate) fn routes(&self, runtime: &Runtime, metrics: &Metrics, health: &Health) -> Routes {
        let health = health.clone();
        let readiness = Readiness::new(move || match health.get(READY_SERVICE) {
            Some(true) => Ok(()),
            Some(false) | None => Err("not every shard has been seen serving yet".into()),
        });
        let admin = telemetry::admin::router(metrics.clone(), readiness);
        Routes::new()
            .fallback(enter)
            .with_state(self.clone())
            .merge(admin)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(runtime.clone(), follow))
            .layer(middleware::from_fn(harden))
    }
}

async fn enter(State(entrance): State<Entrance>, request: Request) -> Response {
    let Some(site) = entrance.0.get() else {
        let starting = ApiError::new(Reason::Starting, "this coordinator is opening its data");
        return HttpError(starting.for_write()).into_response();
    };
    let answered = site.clone().call(request).await;
    answered.unwrap_or_else(|never| match never {})
}

/// What needs the data.
fn routes(site: Site) -> Routes {
    Routes::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/icon.svg", get(page::icon))
        .route("/opensearch.xml", get(page::opensearch))
        .route("/suggest", get(suggest::opensearch))
        .route("/v1/suggest", get(suggest::json))
        .route(
            "/v1/record",
            post(record::record).options(origin::preflight),
        )
        .route("/v1/status", get(status::status))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::not_allowed)
        .with_state(Arc::new(site))
}

/// What a browser may do with an answer of ours.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Works on a request as a part of the trace that it names.
async fn follow(State(runtime): State<Runtime>, request: Request, next: Next) -> Response {
    let Some(trace) = Trace::of(request.headers()) else {
        return next.run(request).await;
    };
    let (began, call) = (runtime.now(), request.uri().path().to_owned());
    let response = rpc::trace::follow(Some(trace), &call, next.run(request)).await;
    let took = runtime.now().saturating_since(began);
    trace.ended(&call, response.status().as_str(), took);
    response
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
