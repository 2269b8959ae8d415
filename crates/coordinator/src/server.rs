//! A coordinator, put together and running.

use std::sync::Arc;

use api::admin::v1::cluster_admin_service_server::ClusterAdminServiceServer;
use api::raft::v1::raft_service_server::RaftServiceServer;
use api::registry::v1::registry_service_server::RegistryServiceServer;
use api::v1::autocomplete_service_server::AutocompleteServiceServer;
use replication::RaftServer;
use rpc::services::NearShard;
use rpc::{Call, Health, Late, Neighbours, Server, ServerConfig};
use runtime::{CancellationToken, Listener, Runtime, Task, Vital};
use telemetry::Metrics;
use vfs::Vfs;

use crate::actions::Actions;
use crate::admin::{Admin, Watchdogs};
use crate::arrival::{Arrival, Myself};
use crate::config::Config;
use crate::giving_up;
use crate::identity::{self, Membership};
use crate::liveness::Liveness;
use crate::meta::{self, Meta, MetadataDoor};
use crate::nodes::Nodes;
use crate::public::Public;
use crate::recovery::{Balance, Recovery, Repair, RepairSettings};
use crate::registry::Registry;
use crate::routing::{Hedges, Router};
use crate::snapshots::{Puller, Pulls, Store};
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
    /// The shards of this process, which are reached without a socket.
    pub neighbours: Neighbours<dyn NearShard>,
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
    repair: Repair,
    actions: Actions,
}

/// Runs a coordinator until `stop` is cancelled or it cannot go on. It listens at once and says that it is starting until its
/// data are open.
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
        neighbours,
    } = deps;
    let local = grpc.local_addr().to_string();
    let (world, disk, dir) = (runtime.clone(), Arc::clone(&vfs), config.data_dir.clone());
    let id = config.group.id;
    let identity = runtime.spawn_blocking("coordinator-id", move || {
        giving_up::finish(disk.as_ref(), &dir)?;
        identity::open(disk.as_ref(), &world, &dir, id)
    });
    let myself = Arc::new(Myself::new(identity.await??, config.group.ids()));
    // One token for everything in here, so that a failure stops the rest as a caller's stop does.
    let ending = stop.child_token();
    let _stop_with_me = ending.clone().drop_guard();
    let doors = Doors::new(&runtime, &myself);
    let vital = Vital::new(&runtime, ending.clone());
    let serving = doors.serve(&runtime, &config, &metrics, (grpc, http), &vital);

    let arrival = Arrival {
        runtime: runtime.clone(),
        vfs,
        pool: meta::pool(&runtime),
        others: config.group.others(),
    };
    let arrived = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        failed = vital.failed() => Some(Err(failed.into())),
        arrived = Box::pin(arrival.establish(&myself, &config.data_dir)) => Some(arrived),
    };
    let ended = match arrived {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(membership)) => {
            let address = config.group.address().unwrap_or(local);
            let inside = (metrics, neighbours);
            let opened = open(
                &config,
                arrival.clone(),
                &myself,
                &membership,
                &address,
                inside,
            );
            match Box::pin(opened).await {
                Ok(parts) => {
                    let life = live(&config, parts, &doors, &myself, &stop, &vital);
                    Box::pin(life).await
                }
                Err(error) => {
                    let heeded = giving_up::heed(error, &arrival, &myself, &config.data_dir, &stop);
                    Err(Box::pin(heeded).await)
                }
            }
        }
    };
    doors.health.stop_serving();
    ending.cancel();
    for task in serving {
        task.await?;
    }
    ended
}

/// The life of a coordinator whose data are open.
async fn live(
    config: &Config,
    parts: Parts,
    doors: &Doors,
    myself: &Myself,
    stop: &CancellationToken,
    vital: &Vital,
) -> Result<(), Error> {
    let ending = vital.stop();
    doors.open(&parts, config);
    let upkeep = parts.upkeep(config, &doors.health)?;
    let tasks = [
        vital.spawn("upkeep", upkeep.run(ending.clone())),
        vital.spawn("snapshot-puller", parts.puller().run(ending.clone())),
    ];
    if config.cluster.has_a_replica_in_vain() {
        let replicas = config.cluster.replicas;
        tracing::warn!(
            replicas,
            "an even number of replicas stands the loss of no more of them than one fewer does"
        );
    }
    tracing::info!(cluster = %parts.meta.cluster(), coordinator = %myself.id(), "coordinator started");

    let failure = tokio::select! {
        () = stop.cancelled() => None,
        failure = parts.meta.failed() => Some(failure),
        failed = vital.failed() => Some(failed.into()),
        failure = parts.meta.keep(config, myself) => Some(failure),
    };
    doors.health.stop_serving();
    if failure.is_none() {
        // While the others still hear this one.
        parts.meta.hand_over().await;
    }
    ending.cancel();
    for task in tasks {
        task.await?;
    }
    parts.meta.shutdown().await;
    failure.map_or(Ok(()), Err)
}

async fn open(
    config: &Config,
    arrival: Arrival,
    myself: &Myself,
    membership: &Membership,
    address: &str,
    (metrics, neighbours): (Metrics, Neighbours<dyn NearShard>),
) -> Result<Parts, Error> {
    let (runtime, vfs) = (arrival.runtime.clone(), Arc::clone(&arrival.vfs));
    let dir = config.data_dir.clone();
    let id = membership.of(&myself.identity().instance);
    let id = id.ok_or_else(|| myself.replaced_in(membership.cluster))?;
    let actions = Actions::new(&runtime, &metrics)?;
    let begun = Meta::open(arrival, id, membership, dir, address, actions.clone());
    let meta = begun.await?;
    meta.begin_alone(config, myself).await?;
    let meta = Arc::new(meta);
    let dir = config.data_dir.join("held-snapshots");
    let (world, kept) = (runtime.clone(), config.snapshots_kept);
    let store =
        runtime.spawn_blocking("snapshot-store", move || Store::open(world, vfs, dir, kept));
    let store = Arc::new(store.await??);
    let liveness = Arc::new(Liveness::new(&runtime, config.silent_after));
    let hedges = Hedges::new(&metrics, config.limits.hedge_percent)?;
    let router = Arc::new(Router::new(
        &runtime,
        Arc::clone(&meta),
        Nodes::new(&runtime, config.limits, neighbours),
        hedges,
    ));
    let recovery = Recovery::new(
        &runtime,
        Arc::clone(&meta),
        Arc::clone(&liveness),
        Arc::clone(&router),
        Arc::clone(&store),
        actions.clone(),
    );
    let repair = Repair::new(
        &runtime,
        Arc::clone(&meta),
        Arc::clone(&liveness),
        Arc::clone(&router),
        RepairSettings {
            replace_after: config.replace_after,
            home_region: config.home_region.clone(),
        },
        actions.clone(),
    );
    Ok(Parts {
        actions,
        repair,
        runtime,
        metrics,
        meta,
        liveness,
        router,
        store,
        recovery,
    })
}

/// The services, which are there before what they serve.
struct Doors {
    public: Late<AutocompleteServiceServer<Public>>,
    registry: Late<RegistryServiceServer<Registry>>,
    admin: Late<ClusterAdminServiceServer<Admin>>,
    raft: Late<RaftServiceServer<RaftServer>>,
    metadata: MetadataDoor,
    entrance: http::Entrance,
    health: Health,
}

impl Doors {
    fn new(runtime: &Runtime, myself: &Arc<Myself>) -> Self {
        Self {
            public: Late::default(),
            registry: Late::default(),
            admin: Late::default(),
            raft: Late::default(),
            metadata: MetadataDoor::new(runtime, Arc::clone(myself)),
            entrance: http::Entrance::default(),
            health: Health::new(),
        }
    }

    /// Answers everybody, until the stop of what is vital.
    fn serve(
        &self,
        runtime: &Runtime,
        config: &Config,
        metrics: &Metrics,
        (grpc, http): (Listener, Option<Listener>),
        vital: &Vital,
    ) -> Vec<Task<()>> {
        let server = self.server(runtime, config, metrics);
        let draining = vital.stop().clone();
        let mut tasks = vec![vital.spawn("grpc", async move {
            server.serve(grpc, draining).await;
        })];
        if let Some(listener) = http {
            let routes = self.entrance.routes(runtime, metrics, &self.health);
            let (world, stop) = (runtime.clone(), vital.stop().clone());
            tasks.push(vital.spawn("http", async move {
                telemetry::admin::serve(&world, listener, routes, stop).await;
            }));
        }
        tasks
    }

    fn server(&self, runtime: &Runtime, config: &Config, metrics: &Metrics) -> Server {
        let server_config = ServerConfig {
            calls_max: config.limits.calls_max,
            ..ServerConfig::default()
        };
        let metrics = metrics.clone();
        let observer = move |call: Call<'_>| {
            if call.streaming {
                metrics.rpc_stream_ended(call.method, call.code_name());
            } else {
                metrics.rpc_ended(call.method, call.code_name(), call.took);
            }
        };
        Server::new(runtime, server_config)
            .with_service(self.public.clone())
            .with_service(self.registry.clone())
            .with_service(self.admin.clone())
            .with_service(self.raft.clone())
            .with_service(rpc::services::metadata(self.metadata.clone()))
            .with_health(&self.health)
            .with_reflection()
            .with_grpc_web()
            .with_observer(Arc::new(observer))
    }

    /// The data are open.
    fn open(&self, parts: &Parts, config: &Config) {
        self.raft.set(parts.meta.host().raft_service());
        self.metadata.open(&parts.meta);
        let (public, registry, admin) = parts.services(config);
        self.admin.set(rpc::services::admin(admin));
        self.registry.set(rpc::services::registry(registry));
        self.public.set(rpc::services::autocomplete(public));
        self.entrance.open(parts.site(config));
    }
}

impl Parts {
    fn services(&self, config: &Config) -> (Public, Registry, Admin) {
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
            actions: self.actions.clone(),
        };
        let admin = Admin {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
            store: Arc::clone(&self.store),
            pulls: Pulls::new(&self.runtime, &self.store, &self.actions),
            recovery: self.recovery.clone(),
            repair: self.repair.clone(),
            actions: self.actions.clone(),
            watchdogs: Watchdogs::default(),
        };
        (public, registry, admin)
    }

    fn upkeep(&self, config: &Config, health: &Health) -> Result<Upkeep, Error> {
        let gauges = Gauges::new(&self.metrics)?;
        Ok(Upkeep {
            runtime: self.runtime.clone(),
            meta: Arc::clone(&self.meta),
            liveness: Arc::clone(&self.liveness),
            router: Arc::clone(&self.router),
            recovery: self.recovery.clone(),
            repair: self.repair.clone(),
            balance: Balance::new(
                &self.runtime,
                Arc::clone(&self.router),
                config.balance_after,
                self.actions.clone(),
            ),
            actions: self.actions.clone(),
            health: health.clone(),
            expect_nodes: config.cluster.expect_nodes,
            home_region: config.home_region.clone(),
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
            allowed_origins: config.allowed_origins.clone(),
        }
    }
}
