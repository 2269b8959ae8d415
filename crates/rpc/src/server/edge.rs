//! What stands between the connection and the handlers: the deadline, load shedding, panics, and the words of the
//! contract for whatever the library says.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::limits::MESSAGE_BYTES_MAX;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response};
use runtime::{CancellationToken, Instant, Runtime};
use tokio::sync::SemaphorePermit;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use super::body::{self, StreamBody};
use super::config::ServerConfig;
use super::lifecycle::Busy;
use super::shedding::Shedding;
use super::verdict;
use crate::deadline::{Deadline, TIMEOUT_HEADER, parse_timeout};
use crate::methods::{Lane, Method, Methods};
use crate::observer::{Call, RpcObserver, code_name};
use crate::trace::{Trace, follow};

type Answer = Response<Body>;

/// Bytes that are read of a refused call: a message with its head, and room.
const SKIPPED_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What all calls of a server share.
pub(super) struct Shared {
    pub(super) runtime: Runtime,
    pub(super) config: ServerConfig,
    pub(super) methods: Methods,
    pub(super) calls: Shedding,
    pub(super) cluster_calls: Shedding,
    pub(super) observer: Option<Arc<dyn RpcObserver>>,
    /// Cancelled when streams have had their time to end.
    pub(super) end_streams: CancellationToken,
}

/// Reports a call when it is dropped. A call that nobody gave a code was left by its caller.
pub(super) struct Report {
    shared: Arc<Shared>,
    method: Method,
    started: Instant,
    trace: Option<Trace>,
    pub(super) code: Code,
}

impl Report {
    fn new(shared: &Arc<Shared>, method: &Method, trace: Option<Trace>) -> Self {
        Self {
            shared: Arc::clone(shared),
            method: method.clone(),
            started: shared.runtime.now(),
            trace,
            code: Code::Cancelled,
        }
    }

    pub(super) fn method(&self) -> &str {
        &self.method.name
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let took = self.shared.runtime.now().saturating_since(self.started);
        if let Some(trace) = self.trace {
            trace.ended(&self.method.name, code_name(self.code), took);
        }
        if let Some(observer) = &self.shared.observer {
            observer.call_ended(Call {
                method: &self.method.name,
                code: self.code,
                took,
                streaming: self.method.streaming,
            });
        }
    }
}

/// The service that every connection talks to.
#[derive(Clone)]
pub(super) struct Edge {
    pub(super) shared: Arc<Shared>,
    pub(super) routes: Routes,
}

impl fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Edge {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The routes are always ready; what limits calls is the semaphore.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let routes = self.routes.clone();
        Box::pin(async move {
            let method = shared.methods.of(request.uri().path()).clone();
            let trace = Trace::of(request.headers());
            let report = Report::new(&shared, &method, trace);
            let answered = answer(shared, routes, request, report);
            Ok(follow(trace, &method.name, answered).await)
        })
    }
}

async fn answer(
    shared: Arc<Shared>,
    routes: Routes,
    mut request: Request<Body>,
    mut report: Report,
) -> Answer {
    let method = report.method.clone();
    let busy = request.extensions_mut().remove::<Busy>();
    let result = if method.streaming {
        handled(routes, request, &method).await
    } else {
        unary(&shared, routes, request, &method).await
    };
    let mut answer = result.unwrap_or_else(|error| Status::from(error).into_http());
    let code = verdict::rewrite(answer.headers_mut());
    if let Some(code) = code {
        // An answer of headers alone: the call is over.
        report.code = code;
        return answer;
    }
    if method.streaming {
        let end = shared.end_streams.clone().cancelled_owned();
        return answer.map(|body| Body::new(StreamBody::new(body, end, report, busy)));
    }
    report.code = Code::Ok;
    answer
}

/// A call with one answer: not more at a time than the limit, and not longer than its deadline.
async fn unary(
    shared: &Shared,
    routes: Routes,
    mut request: Request<Body>,
    method: &Method,
) -> Result<Answer, ApiError> {
    let (patience, permit) = match admit(shared, request.headers(), method) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // Answered before its message has come, a call is reset, and what comes after that counts against its connection, which is
            // closed for too many of them, with all other calls on it.
            let rest = body::skip(request.into_body(), SKIPPED_BYTES_MAX);
            let limit = shared.config.refused_message_timeout;
            let _late = shared.runtime.timeout(limit, rest).await;
            return Err(refusal);
        }
    };
    let deadline = Deadline::after(&shared.runtime, patience);
    request.extensions_mut().insert(deadline);
    let answer = shared
        .runtime
        .timeout(patience, handled(routes, request, method))
        .await
        .map_err(|_| {
            ApiError::deadline(format!(
                "no answer within the deadline of {} ms",
                patience.as_millis()
            ))
            .for_write()
        })?;
    drop(permit);
    answer
}

/// How long a call may take, and its place among the calls in work.
fn admit<'a>(
    shared: &'a Shared,
    headers: &HeaderMap,
    method: &Method,
) -> Result<(Duration, Option<SemaphorePermit<'a>>), ApiError> {
    let patience = patience(&shared.config, headers)?;
    if patience.is_zero() {
        return Err(ApiError::deadline("the deadline had passed on arrival")
            .with_outcome(api::Outcome::NotApplied));
    }
    let limit = match method.lane {
        Lane::Free => None,
        Lane::Cluster => Some(&shared.cluster_calls),
        Lane::Public => Some(&shared.calls),
    };
    let permit = limit
        .map(|limit| limit.admit(&shared.runtime))
        .transpose()?;
    Ok((patience, permit))
}

/// Calls the handler; a panic costs this call and nothing else.
async fn handled(
    mut routes: Routes,
    request: Request<Body>,
    method: &Method,
) -> Result<Answer, ApiError> {
    let call = async move { routes.call(request).await };
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!(method = &*method.name, "a handler panicked");
            Err(ApiError::internal("the handler panicked").for_write())
        }
    }
}

/// How long the caller waits: what it says up to the limit, or the default.
pub(crate) fn patience(config: &ServerConfig, headers: &HeaderMap) -> Result<Duration, ApiError> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else {
        return Ok(config.deadline_default);
    };
    value
        .to_str()
        .ok()
        .and_then(parse_timeout)
        .map(|asked| asked.min(config.deadline_max))
        .ok_or_else(|| {
            ApiError::field(
                Reason::Malformed,
                TIMEOUT_HEADER,
                "must be 1 to 8 digits and one of the units H, M, S, m, u, n",
            )
            .for_write()
        })
}
