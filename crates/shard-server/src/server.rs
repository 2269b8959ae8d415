//! A shard server from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use replication::{Host, HostDeps, HostOptions, WalOptions};
use rpc::services::NearShard;
use rpc::{Door, Drained, Health, Neighbours};
use runtime::{CancellationToken, Listener, Runtime, Task};
use telemetry::Metrics;
use telemetry::admin::{self, Readiness};
use vfs::{LockGuard, Vfs, durable};

use crate::config::Config;
use crate::error::RunError;
use crate::metrics::NodeMetrics;
use crate::node::{self, IdentityFile, Memory, MemoryError, Node, Parts};
use crate::service::{self, LateRaft};

const LOCK_FILE: &str = "LOCK";
/// What closing the log may take after the disk has failed.
const FAILED_PATIENCE: Duration = Duration::from_millis(50);
/// How long the log may take to close where no disk is ever given up.
const CLOSING_MAX: Duration = Duration::from_secs(3_600);
/// What the last snapshots may take beside that.
const LAST_SNAPSHOTS: Duration = Duration::from_secs(10);

/// What a shard server is given by whoever runs it.
#[derive(Debug)]
pub struct Deps {
    /// The outside world.
    pub runtime: Runtime,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// Where measurements go; several nodes of one process may share it.
    pub metrics: Metrics,
    /// A socket that is bound already; without it [`Config::grpc_addr`] is bound.
    pub listener: Option<Listener>,
    /// Through which coordinators of this process reach the shards without a socket.
    pub neighbours: Neighbours<dyn NearShard>,
}

impl Deps {
    /// The real world, with a registry of metrics of its own.
    ///
    /// # Errors
    /// See [`Metrics::new`].
    pub fn real(runtime: Runtime) -> Result<Self, RunError> {
        Ok(Self {
            metrics: Metrics::new(&runtime)?,
            vfs: Arc::new(vfs::RealDisk::new()),
            listener: None,
            neighbours: Neighbours::default(),
            runtime,
        })
    }
}

/// Runs a shard server until `shutdown` is cancelled: binds, recovers, registers, serves; then hands over what it leads, stops
/// serving, drains, flushes and returns. Nothing of it is left running afterwards, unless the disk has failed: then it returns at once, and connections
/// that are still open are closed a few seconds later.
///
/// # Errors
/// See [`RunError`]. After each of them a new start from the same directory is safe.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), RunError> {
    let Deps {
        runtime,
        vfs,
        metrics,
        listener,
        neighbours,
    } = deps;
    let listener = match listener {
        Some(listener) => listener,
        None => bind(&runtime, config.grpc_addr).await?,
    };
    let http = match config.http_addr {
        Some(address) => Some(bind(&runtime, address).await?),
        None => None,
    };
    let prepared = prepare(&runtime, &vfs, &config).await?;
    let local = listener.local_addr();
    let health = Health::new();
    let node = Node::new(Parts {
        address: config
            .advertise_addr
            .clone()
            .unwrap_or_else(|| local.to_string()),
        metrics: NodeMetrics::new(&runtime, &metrics, &config.node_name)?,
        runtime: runtime.clone(),
        health: health.clone(),
        memory: prepared.memory,
        vfs,
        config,
    });
    tracing::info!(address = %local, name = node.metrics.node(), "listening");
    let raft = LateRaft::default();
    let stop = CancellationToken::new();
    let services = service::Services::new(Arc::clone(&node));
    let serving = service::server(&services, &raft, &health).serve(listener, stop.clone());
    let serving = node.vital.spawn("grpc-server", async move {
        match serving.await {
            Drained::Clean => tracing::info!("all calls have ended"),
            Drained::Forced => tracing::info!("calls that did not end were cut"),
        }
    });
    let door = neighbours.open(&node.address, Arc::new(services));
    if let Some(http) = http {
        serve_http(&node, metrics, http, &stop);
    }
    let life = async {
        bring_up(&node, prepared.identity, prepared.damage, &raft).await?;
        Err(node.fatal().await)
    };
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = life => ended,
        failed = node.vital.failed() => Err(RunError::Task(failed)),
    };
    stop_node(&node, &stop, (serving, door), &ended).await;
    drop(prepared.lock);
    ended
}

async fn bind(runtime: &Runtime, address: std::net::SocketAddr) -> Result<Listener, RunError> {
    let bound = runtime.bind(address).await;
    bound.map_err(|source| RunError::Listen { address, source })
}

/// What is found in a data directory before anything is opened in it.
struct Prepared {
    lock: LockGuard,
    identity: IdentityFile,
    memory: Memory,
    /// Why nothing may be served from it.
    damage: Option<String>,
}

async fn prepare(
    runtime: &Runtime,
    vfs: &Arc<dyn Vfs>,
    config: &Config,
) -> Result<Prepared, RunError> {
    let mut instance = [0; 16];
    for half in instance.chunks_exact_mut(8) {
        half.copy_from_slice(&runtime.random_u64().to_le_bytes());
    }
    let vfs = Arc::clone(vfs);
    let (dir, name) = (config.data_dir.clone(), config.node_name.clone());
    let prepare = move || -> Result<Prepared, RunError> {
        durable::create_dir(vfs.as_ref(), &dir)?;
        let lock = match vfs.lock_file(&dir.join(LOCK_FILE)) {
            Ok(lock) => lock,
            Err(error) if error.is_locked() => return Err(RunError::Locked { dir }),
            Err(error) => return Err(error.into()),
        };
        durable::remove_temporaries(vfs.as_ref(), &dir)?;
        if let Some(moved_to) = node::finish_giving_up(vfs.as_ref(), &dir)? {
            tracing::warn!(moved_to, "data that was being given up is moved aside");
        }
        let identity = node::load_or_begin(vfs.as_ref(), &dir, &name, instance)?;
        node::Seeds::new(Arc::clone(&vfs), &dir).open()?;
        let (memory, damage) = match node::load_memory(vfs.as_ref(), &dir) {
            Ok(memory) => (memory, None),
            // Without it nobody knows which groups were begun here.
            Err(error @ MemoryError::Damaged { .. }) => {
                (Memory::default(), Some(error.to_string()))
            }
            Err(error @ (MemoryError::NewerFormat { .. } | MemoryError::Disk(_))) => {
                return Err(error.into());
            }
        };
        Ok(Prepared {
            lock,
            identity,
            memory,
            damage,
        })
    };
    runtime.spawn_blocking("data-dir", prepare).await?
}

/// Registers, opens the log and starts the node's tasks. A damaged log is no error: the node stays up and says so.
async fn bring_up(
    node: &Arc<Node>,
    file: IdentityFile,
    damage: Option<String>,
    raft: &LateRaft,
) -> Result<(), RunError> {
    let registered = match file.registered {
        Some(_) => Some(file),
        None => node::register(node, file).await,
    };
    let Some(identity) = registered.and_then(|file| file.registered) else {
        // Told to stop before a coordinator was found.
        return Ok(());
    };
    node.set_identity(identity);
    if let Some(damage) = damage {
        node.set_damage(damage);
        node.start(None);
        return Ok(());
    }
    let log = node.config.log;
    let deps = HostDeps {
        runtime: node.runtime.clone(),
        vfs: node.begin_opening(),
        dir: node.data_dir().to_owned(),
        identity,
        options: HostOptions {
            wal: WalOptions {
                segment_bytes: log.segment_bytes,
                compress_above_bytes: log.compress_above_bytes,
                reserve_bytes: log.reserve_bytes,
                ..WalOptions::default()
            },
            stall_max: log.stall_abort,
            ..HostOptions::default()
        },
    };
    match Host::open(deps).await {
        Ok((host, report)) => {
            let found = &report.wal;
            node.metrics.dropped(found);
            tracing::info!(
                segments = found.segments,
                entries = found.entries,
                torn_bytes = found.torn_bytes,
                groups = report.groups.len(),
                "the log is open"
            );
            if let Some(place) = found.ambiguous {
                tracing::error!(%place, bytes = found.ambiguous_bytes, "the last batch of the log was damaged and is dropped; acknowledged writes may be missing");
            }
            node.metrics.observe(&host);
            raft.set(host.raft_service());
            node.start(Some(host));
        }
        Err(error) if error.is_damage() => {
            node.set_damage(error.to_string());
            node.start(None);
        }
        Err(error) => return Err(RunError::Open(error)),
    }
    Ok(())
}

fn serve_http(node: &Arc<Node>, metrics: Metrics, listener: Listener, stop: &CancellationToken) {
    let asked = Arc::clone(node);
    let readiness = Readiness::new(move || asked.not_ready().map_or(Ok(()), Err));
    let router = admin::router(metrics, readiness);
    let (runtime, stop) = (node.runtime.clone(), stop.clone());
    let serve = async move { admin::serve(&runtime, listener, router, stop).await };
    drop(node.vital.spawn("http-server", serve));
}

/// Not serving, hand over, drain, flush; in a hurry when the disk has failed.
async fn stop_node(
    node: &Arc<Node>,
    stop: &CancellationToken,
    (serving, door): (Task<()>, Door<dyn NearShard>),
    ended: &Result<(), RunError>,
) {
    node.stop_serving();
    let has_failed = matches!(ended, Err(RunError::DiskFailed { .. }));
    if ended.is_ok() {
        // While this node is still heard by its peers, and before it refuses anything.
        node.hand_over_leads("stopping").await;
    }
    node.closing.cancel();
    // The page may outlive this node, where its process has others.
    for replica in node.replicas() {
        node.metrics.forget(replica.metrics());
    }
    drop(door);
    stop.cancel();
    if !has_failed && let Err(error) = serving.await {
        tracing::error!(%error, "the server did not end well");
    }
    let Some(host) = node.host() else {
        return;
    };
    if has_failed {
        let closed = node.runtime.timeout(FAILED_PATIENCE, host.shutdown()).await;
        tracing::info!(
            in_time = closed.is_ok(),
            "the log is closed after a failure"
        );
        return;
    }
    // Nobody watches the disk any more. What was acknowledged is on it, so that ending without it loses nothing.
    let stall_abort = node.config.log.stall_abort.unwrap_or(CLOSING_MAX);
    let patience = stall_abort + LAST_SNAPSHOTS;
    match node.runtime.timeout(patience, host.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the log could not be closed"),
        Err(_) => tracing::error!(?patience, "the log was not closed in time"),
    }
}
