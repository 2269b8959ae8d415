//! One way to serve gRPC.
//!
//! Builds on `hyper` itself rather than on the gRPC library's server, which answers a passed deadline with `CANCELLED`,
//! waits for ever for open streams when it stops, and leaves connections behind when it is dropped. What always
//! holds here:
//! - *Everything a caller can make grow has a bound*, see [`ServerConfig`].
//! - *A unary call ends by its deadline*, with `DEADLINE_EXCEEDED`; one whose deadline has passed is not begun.
//! - *A panic costs one call*, which is answered with `INTERNAL`.
//! - *A stop ends*: at most [`ServerConfig::drain`] and two seconds after the token is cancelled, no task of the server
//!   is left. Until `drain` is over open calls go on; then streams end with `STOPPED`, then connections are closed.
//!
//! The handlers' side of a stop is theirs: set [`Health`] to not serving first, and end long streams on
//! the same token.

mod body;
mod config;
mod connection;
pub(crate) mod edge;
mod lifecycle;
mod shedding;
mod verdict;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use runtime::{CancellationToken, Listener, Runtime};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tower::{Layer as _, Service};

pub use config::ServerConfig;

use crate::Health;
use crate::methods::Methods;
use crate::observer::RpcObserver;
use connection::{Context, Handler};
use edge::{Edge, Shared};
use shedding::Shedding;

/// How long to wait after a failed accept, so that a full table of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What ended streams and cut connections have to be gone.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every call ended by itself.
    Clean,
    /// Streams or calls were still open when [`ServerConfig::drain`] was over, and were ended.
    Forced,
}

/// A server being put together; [`Server::serve`] runs it.
pub struct Server {
    runtime: Runtime,
    config: ServerConfig,
    routes: RoutesBuilder,
    observer: Option<Arc<dyn RpcObserver>>,
    grpc_web: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("config", &self.config)
            .field("grpc_web", &self.grpc_web)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without services.
    #[must_use]
    pub fn new(runtime: &Runtime, config: ServerConfig) -> Self {
        Self {
            runtime: runtime.clone(),
            config,
            routes: RoutesBuilder::default(),
            observer: None,
            grpc_web: false,
        }
    }

    /// Adds a service; those of this workspace come from [`crate::services`], with their message limits.
    #[must_use]
    pub fn with_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Answers health checks from this table.
    #[must_use]
    pub fn with_health(self, health: &Health) -> Self {
        self.with_service(health.service())
    }

    /// Answers reflection, in both versions that tools ask for.
    #[must_use]
    pub fn with_reflection(mut self) -> Self {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Fails only for descriptors that do not decode; ours are compiled in, and a test asks for them.
        match (builder().build_v1(), builder().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => {
                self.routes.add_service(v1);
                self.routes.add_service(v1alpha);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "no reflection: the descriptors do not decode");
            }
        }
        self
    }

    /// Also speaks gRPC-Web, over HTTP/1.1 and HTTP/2. Pages of other origins are not let in: no answer allows them.
    #[must_use]
    pub fn with_grpc_web(mut self) -> Self {
        self.grpc_web = true;
        self
    }

    /// Tells the observer of every call that ends.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn RpcObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Serves until `stop` is cancelled, then drains.
    pub async fn serve(self, listener: Listener, stop: CancellationToken) -> Drained {
        let end_streams = CancellationToken::new();
        let cut = CancellationToken::new();
        let runtime = self.runtime.clone();
        let drain = self.config.drain;
        let connections = TaskTracker::new();
        let context = self.into_context(&stop, &end_streams, &cut);
        accept(&context, listener, &connections).await;
        connections.close();

        let ended = runtime.timeout(drain, connections.wait()).await;
        if ended.is_ok() {
            return Drained::Clean;
        }
        tracing::info!(
            connections = connections.len(),
            "ending streams that are open after the drain time"
        );
        end_streams.cancel();
        if runtime
            .timeout(CUT_PATIENCE, connections.wait())
            .await
            .is_err()
        {
            cut.cancel();
            if runtime
                .timeout(CUT_PATIENCE, connections.wait())
                .await
                .is_err()
            {
                tracing::warn!(connections = connections.len(), "connections do not end");
            }
        }
        Drained::Forced
    }

    fn into_context(
        self,
        stop: &CancellationToken,
        end_streams: &CancellationToken,
        cut: &CancellationToken,
    ) -> Arc<Context> {
        let http = connection::http(&self.runtime, &self.config, self.grpc_web);
        let limit = || Shedding::new(&self.config, self.runtime.now());
        let edge = Edge {
            shared: Arc::new(Shared {
                runtime: self.runtime.clone(),
                methods: Methods::new(),
                calls: limit(),
                cluster_calls: limit(),
                config: self.config.clone(),
                observer: self.observer,
                end_streams: end_streams.clone(),
            }),
            routes: self.routes.routes().prepare(),
        };
        let handler = if self.grpc_web {
            Handler::new(tonic_web::GrpcWebLayer::new().layer(edge))
        } else {
            Handler::new(edge)
        };
        Arc::new(Context {
            runtime: self.runtime,
            config: self.config,
            http,
            handler,
            stop: stop.clone(),
            cut: cut.clone(),
        })
    }
}

/// Accepts connections until the server stops. The listening socket is closed on return.
async fn accept(context: &Arc<Context>, mut listener: Listener, connections: &TaskTracker) {
    // The rest is for the process's HTTP port.
    let most = context.runtime.connections_max();
    let most = most - most / 4;
    let most = most.min(context.config.connections_max);
    let slots = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    let serving = Arc::clone(context);
                    let served = connections.track_future(async move {
                        connection::run(serving, connection).await;
                        drop(slot);
                    });
                    // Detached: the tracker knows when it ends.
                    drop(context.runtime.spawn_apart("rpc connection", served));
                }
                Err(_) => {
                    tracing::debug!(peer = ?connection.peer(), "too many connections, closing one");
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = context.stop.cancelled() => return,
                    () = context.runtime.sleep(ACCEPT_BACKOFF) => {}
                }
            }
        }
    }
}
