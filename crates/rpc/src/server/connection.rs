//! One connection from its first byte to its close.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use runtime::{CancellationToken, Connection, Runtime};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::config::ServerConfig;
use super::lifecycle::{Heard, Usage, judge};

pub(super) type Handler = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a connection that was asked to go for no fault of its own calls has to finish.
const POLITE_CLOSE: Duration = Duration::from_secs(1);

/// The caller may open, and cancel at once, this many streams before the connection is closed ("rapid reset").
const PENDING_RESETS_MAX: usize = 20;
/// Streams reset for the caller's errors before the connection is closed.
const ERROR_RESETS_MAX: usize = 100;
/// What a caller may send before we read it: of one stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What one call's answer may hold that the caller does not read.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Runs hyper's tasks on our runtime.
#[derive(Debug, Clone)]
pub(super) struct Executor(pub(super) Runtime);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // Detached: hyper ends it with its connection.
        drop(self.0.spawn("rpc stream", future));
    }
}

/// The HTTP side of the bounds.
pub(super) fn http(runtime: &Runtime, config: &ServerConfig, http1: bool) -> Builder<Executor> {
    let mut builder = Builder::new(Executor(runtime.clone()));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams_per_connection_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .max_header_list_size(config.header_bytes_max)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.first_call_timeout);
    if http1 { builder } else { builder.http2_only() }
}

/// What a connection is run with.
pub(super) struct Context {
    pub(super) runtime: Runtime,
    pub(super) config: ServerConfig,
    pub(super) http: Builder<Executor>,
    pub(super) handler: Handler,
    /// The server stops: no new calls, open ones may end.
    pub(super) stop: CancellationToken,
    /// The server has waited long enough.
    pub(super) cut: CancellationToken,
}

/// Serves a connection until it ends.
pub(super) async fn run(context: Arc<Context>, connection: Connection) {
    let usage = Usage::new(&context.runtime);
    let peer = connection.peer();
    let service = {
        let usage = Arc::clone(&usage);
        let handler = context.handler.clone();
        service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(TcpConnectInfo {
                local_addr: None,
                remote_addr: peer,
            });
            let busy = usage.begin_call();
            request.extensions_mut().insert(busy.clone());
            let call = handler.clone().oneshot(request);
            async move {
                let answer = call.await;
                drop(busy);
                answer
            }
        })
    };
    let io = TokioIo::new(Heard {
        connection,
        usage: Arc::clone(&usage),
    });
    let mut connection = std::pin::pin!(context.http.serve_connection(io, service));

    let grace = tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = context.stop.cancelled() => None,
        verdict = judge(&usage, &context.config) => {
            tracing::debug!(?peer, ?verdict, "asking a connection to go");
            Some(match verdict {
                super::lifecycle::Verdict::Old => context.config.age_grace,
                super::lifecycle::Verdict::Silent
                | super::lifecycle::Verdict::Useless
                | super::lifecycle::Verdict::Idle => POLITE_CLOSE,
            })
        }
    };
    connection.as_mut().graceful_shutdown();
    let patience = async {
        match grace {
            Some(grace) => context.runtime.sleep(grace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection.as_mut() => log_end(ended),
        () = context.cut.cancelled() => {}
        () = patience => {}
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
