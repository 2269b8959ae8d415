//! A coordinator, put together and running.

use std::sync::Arc;

use rpc::{Call, Health, Server, ServerConfig};
use runtime::{CancellationToken, Listener, Runtime};
use telemetry::Metrics;
use vfs::Vfs;

use crate::admin::Admin;
use crate::config::Config;
use crate::liveness::Liveness;
use crate::meta::Meta;
use crate::public::Public;
use crate::recovery::Recovery;
use crate::registry::Registry;
use crate::routing::Router;
use crate::snapshots::{Puller, Store};
use crate::upkeep::{Gauges, Upkeep};
use crate::{Error, http};

/// The outside world of one coordinator.
#[derive(Debug)]
pub struct Deps {
    /// Time, tasks, randomness and sockets.
    pub runtime: Runtime,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where gRPC is served; the configuration's address is not looked at.
    pub grpc: Listener,
    /// Where the page and the JSON interface are served; nowhere if there is none.
    pub http: Option<Listener>,
}

/// Everything that the services share.
struct Parts {
    runtime: Runtime,
    metrics: Metrics,
    meta: Arc<Meta>,
    liveness: Arc<Liveness>,
    router: Arc<Router>,
    store: Arc<Store>,
    recovery: Recovery,
    health: Health,
}

/// Runs a coordinator until `stop` is cancelled or it cannot go on.
///
/// # Errors
/// When the data directory cannot be used, or the metadata's disk fails; the process must then exit with a code other than 0.
pub async fn run(config: Config, deps: Deps, stop: CancellationToken) -> Result<(), Error> {
    let Deps {
        runtime,
        vfs,
        metrics,
        grpc,
        http,
    } = deps;
    let parts = open(
        &config,
        &runtime,
        vfs,
        metrics,
        &grpc.local_addr().to_string(),
    )
    .await?;
    // One token for everything in here, so that a failure stops the rest as a caller's stop does.
    let ending = stop.child_token();
    let _stop_with_me = ending.clone().drop_guard();
    let upkeep = runtime.spawn("upkeep", parts.upkeep(&config)?.run(ending.clone()));
    let puller = runtime.spawn("snapshot-puller", parts.puller().run(ending.clone()));
    let mut tasks = vec![upkeep, puller];
    if let Some(listener) = http {
        let site = parts.site(&config);
        let (world, stop) = (runtime.clone(), ending.clone());
        tasks.push(runtime.spawn("http", async move {
            telemetry::admin::serve(&world, listener, http::routes(site), stop).await;
        }));
    }
    let server = parts.server(&config);
    let health = parts.health.clone();
    let draining = ending.clone();
    let serving = runtime.spawn("grpc", async move {
        server.serve(grpc, draining).await;
    });
    tracing::info!(cluster = %parts.meta.cluster(), "coordinator started");

    let failure = tokio::select! {
        () = stop.cancelled() => None,
        failure = parts.meta.failed() => Some(failure),
    };
    health.stop_serving();
    ending.cancel();
    serving.await?;
    for task in tasks {
        task.await?;
    }
    parts.meta.shutdown().await;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

async fn open(
    config: &Config,
    runtime: &Runtime,
    vfs: Arc<dyn Vfs>,
    metrics: Metrics,
    address: &str,
) -> Result<Parts, Error> {
    let meta = Arc::new(Meta::open(runtime, Arc::clone(&vfs), config, address).await?);
    let dir = config.data_dir.join("held-snapshots");
    let (world, kept) = (runtime.clone(), config.snapshots_kept);
    let store =
        runtime.spawn_blocking("snapshot-store", move || Store::open(world, vfs, dir, kept));
    let store = Arc::new(store.await??);
    let liveness = Arc::new(Liveness::new(runtime, config.silent_after));
    let router = Arc::new(Router::new(runtime, Arc::clone(&meta), config.limits));
    let recovery = Recovery::new(
        runtime,
        Arc::clone(&meta),
        Arc::clone(&liveness),
        Arc::clone(&router),
        Arc::clone(&store),
    );
    Ok(Parts {
        runtime: runtime.clone(),
        metrics,
        meta,
        liveness,
        router,
        store,
        recovery,
        health: Health::new(),
    })
}

impl Parts {
    fn server(&self, config: &Config) -> Server {
        let public = Public {
            runtime: self.runtime.clone(),
            router: Arc::clone(&self.router),
            metrics: self.metrics.clone(),
            stream_window: config.limits.stream_window,
        };
        let registry = Registry {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
        };
        let admin = Admin {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
            store: Arc::clone(&self.store),
            recovery: self.recovery.clone(),
        };
        let server_config = ServerConfig {
            calls_max: config.limits.calls_max,
            ..ServerConfig::default()
        };
        let metrics = self.metrics.clone();
        let observer = move |call: Call<'_>| {
            if call.streaming {
                metrics.rpc_stream_ended(call.method, call.code_name());
            } else {
                metrics.rpc_ended(call.method, call.code_name(), call.took);
            }
        };
        Server::new(&self.runtime, server_config)
            .with_service(rpc::services::autocomplete(public))
            .with_service(rpc::services::registry(registry))
            .with_service(rpc::services::admin(admin))
            .with_service(self.meta.host().raft_service())
            .with_health(&self.health)
            .with_reflection()
            .with_grpc_web()
            .with_observer(Arc::new(observer))
    }

    fn upkeep(&self, config: &Config) -> Result<Upkeep, Error> {
        let gauges = Gauges::new(&self.metrics).map_err(|error| Error::Telemetry {
            reason: error.to_string(),
        })?;
        Ok(Upkeep {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
            recovery: self.recovery.clone(),
            health: self.health.clone(),
            expect_nodes: config.cluster.expect_nodes,
            gauges,
        })
    }

    fn puller(&self) -> Puller {
        Puller {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
            store: Arc::clone(&self.store),
        }
    }

    fn site(&self, config: &Config) -> http::Site {
        http::Site {
            runtime: self.runtime.clone(),
            router: Arc::clone(&self.router),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            allowed_origins: config.allowed_origins.clone(),
        }
    }
}
