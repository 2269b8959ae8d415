//! Talking to the coordinators: registering once with any of them, then reporting to all of them each second and taking orders.
//!
//! Everybody hears every node, so that each coordinator knows by itself who is alive, and the loss of one changes nothing here. Orders
//! carry the epoch of the map they were made by: those of a coordinator that lags behind are left alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::registry::v1::{RegisterRequest, RegisterResponse, SyncRequest, SyncResponse};
use api::{ApiError, Reason};
use cluster::{ClusterId, Epoch, NodeId, ShardMap};
use futures::StreamExt as _;
use rpc::Deadline;

use super::memory;
use super::view::View;
use super::{IdentityFile, Node, store_identity};
use crate::error::RunError;

/// How often a node reports.
const EVERY: Duration = Duration::from_secs(1);
/// Pauses after failures: doubled from the first to the last, each with as much again at random.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long a registration may take, with all coordinators together.
const REGISTER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a coordinator may take to answer a report; one that hangs must not keep the next report from the others.
const REPORT_PATIENCE: Duration = Duration::from_millis(700);

/// Registers this node with any coordinator, as often as it takes, and stores the identity. `None` when the node is told to stop first.
pub(crate) async fn register(node: &Arc<Node>, mut file: IdentityFile) -> Option<IdentityFile> {
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = register_once(node, &mut file);
        let outcome = tokio::select! {
            () = node.closing.cancelled() => return None,
            outcome = attempt => outcome,
        };
        match outcome {
            Ok(()) => return Some(file),
            // Whoever starts together waits for each other; that is no news.
            Err(error) if error.reason() == Reason::Starting => {
                tracing::info!(%error, ?pause, "not registered yet");
            }
            Err(error) => tracing::warn!(%error, ?pause, "not registered yet"),
        }
        tokio::select! {
            () = node.closing.cancelled() => return None,
            () = node.runtime.sleep(pause + node.runtime.jitter(pause)) => {}
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn register_once(node: &Arc<Node>, file: &mut IdentityFile) -> Result<(), ApiError> {
    let message = RegisterRequest {
        node_name: file.name.clone(),
        address: node.address.clone(),
        region: node.config.region.clone(),
        instance_id: file.instance.to_vec().into(),
    };
    let deadline = Deadline::after(&node.runtime, REGISTER_PATIENCE);
    let answer: RegisterResponse = node
        .registry
        .call(deadline, message, |mut client, request| async move {
            client.register(request).await
        })
        .await?;
    let issued = issued(&answer)?;
    let registered = IdentityFile {
        registered: Some(issued),
        ..file.clone()
    };
    let (vfs, dir) = (Arc::clone(&node.vfs), node.data_dir().to_owned());
    let stored = registered.clone();
    node.runtime
        .spawn_blocking("identity-store", move || {
            store_identity(vfs.as_ref(), &dir, &stored)
        })
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::internal(error.to_string()))?;
    tracing::info!(node = %issued.node, cluster = %issued.cluster, "registered");
    *file = registered;
    Ok(())
}

/// The identity that a coordinator issued.
pub(crate) fn issued(answer: &RegisterResponse) -> Result<replication::Identity, ApiError> {
    let cluster: [u8; 16] = answer
        .cluster_id
        .as_ref()
        .try_into()
        .map_err(|_| ApiError::internal("the coordinator's cluster id has not 16 bytes"))?;
    if answer.node_id == 0 {
        return Err(ApiError::internal("the coordinator issued node 0"));
    }
    Ok(replication::Identity {
        cluster: ClusterId(cluster),
        node: NodeId(answer.node_id),
    })
}

/// The task that reports and takes orders until the node stops.
pub(super) async fn run(node: Arc<Node>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = node.runtime.now();
        let wait = match sync_once(&node).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                let next = begun + (EVERY - EVERY / 10) + node.runtime.jitter(EVERY / 5);
                next.saturating_since(node.runtime.now())
            }
            Err(error) if error.reason() == Reason::NodeLost => {
                let reason = error.message().to_owned();
                node.end(RunError::NodeLost { reason });
                return node.closing.cancelled().await;
            }
            Err(error) => {
                tracing::debug!(%error, ?pause, "no coordinator answered the report");
                pause = (pause * 2).min(LAST_PAUSE);
                pause + node.runtime.jitter(pause)
            }
        };
        tokio::select! {
            () = node.closing.cancelled() => return,
            () = node.sync_now.notified() => {}
            () = node.runtime.sleep(wait) => {}
        }
    }
}

async fn sync_once(node: &Arc<Node>) -> Result<(), ApiError> {
    let Some(identity) = node.identity() else {
        return Ok(());
    };
    let message = SyncRequest {
        node_id: identity.node.0,
        cluster_id: identity.cluster.0.to_vec().into(),
        address: node.address.clone(),
        known_epoch: node.view().epoch().0,
        ..node.report()
    };
    let mut answers = node.registry.call_each(
        REPORT_PATIENCE,
        &message,
        |mut client, request| async move { client.sync(request).await },
    );
    let mut outcome = Err(ApiError::new(
        Reason::Disconnected,
        "no coordinator is known",
    ));
    while let Some(answer) = answers.next().await {
        let taken = match answer {
            Ok(orders) => node.take_orders(orders).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => outcome = Ok(()),
            Err(error) if error.reason() == Reason::NodeLost => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a coordinator did not take the report");
                outcome = outcome.or(Err(error));
            }
        }
    }
    outcome
}

/// The map of remembered orders.
pub(crate) fn view_of(orders: &SyncResponse) -> Option<View> {
    let map = ShardMap::try_from(orders.map.clone()?);
    match map {
        Ok(map) => Some(View::new(Arc::new(map))),
        Err(error) => {
            tracing::error!(%error, "the map that was remembered makes no sense");
            None
        }
    }
}

impl Node {
    /// Takes over a newer map and the assignments, remembers them, and acts on them.
    async fn take_orders(self: &Arc<Self>, mut orders: SyncResponse) -> Result<(), ApiError> {
        let (theirs, ours) = (Epoch(orders.epoch), self.view().epoch());
        if theirs < ours {
            tracing::debug!(%theirs, %ours, "a coordinator lags behind, its orders are left alone");
            return Ok(());
        }
        // Of the moment, and not to be remembered.
        self.judge(std::mem::take(&mut orders.audits)).await;
        if let Some(map) = orders.map.clone() {
            let map = ShardMap::try_from(map)
                .map_err(|error| ApiError::internal(format!("the coordinator's map: {error}")))?;
            let view = View::new(Arc::new(map));
            self.names.caught_up(&view);
            tracing::info!(epoch = %view.epoch(), "a new map");
            self.view.store(Arc::new(view));
            self.tell_peers();
            self.upkeep_now.notify_one();
        }
        {
            let mut memory = self.memory.lock();
            // An answer without a map means that the one known is the newest.
            orders.map = orders.map.or_else(|| memory.orders.map.clone());
            if memory.orders != orders {
                self.is_unwritten.store(true, Ordering::Release);
            }
            memory.orders = orders;
        }
        if self.is_unwritten.load(Ordering::Acquire) {
            self.remember().await?;
        }
        self.reconcile();
        Ok(())
    }

    /// Writes the memory to the disk.
    pub(super) async fn remember(&self) -> Result<(), ApiError> {
        let remembers = self.remembering.lock().await;
        if !*remembers {
            return Err(ApiError::new(Reason::Stopped, "the data is given up"));
        }
        // A node whose data were damaged at its start begins nothing. What it would write may stand for a file that it could not
        // read, and have the next start believe that nothing was begun here.
        if self.host().is_none() && self.damage().is_some() {
            return Ok(());
        }
        let memory = {
            let memory = self.memory.lock();
            self.is_unwritten.store(false, Ordering::Release);
            memory.clone()
        };
        let (vfs, dir) = (Arc::clone(&self.vfs), self.data_dir().to_owned());
        let stored = self.runtime.spawn_blocking("orders-store", move || {
            memory::store(vfs.as_ref(), &dir, &memory)
        });
        let stored = match stored.await {
            Ok(stored) => stored.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        stored.map_err(|error| {
            self.is_unwritten.store(true, Ordering::Release);
            ApiError::internal(error)
        })
    }
}
