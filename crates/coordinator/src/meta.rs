//! The metadata group as the rest of the coordinator uses it: read the map, propose a change.
//!
//! It is a Raft group like a shard's, of one coordinator or of three. What was proposed here and answered is on the disk of a
//! majority of them, and applied here. Any coordinator reads its own applied state; what it wants changed goes to the one that
//! leads (`proposing`).
//!
//! On failure: without a majority the last map stays readable, and nothing can be changed.

mod keeping;
mod proposing;
mod replacing;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::admin::v1::CoordinatorStatus;
use cluster::{ClusterId, NodeId, ShardMap};
use parking_lot::Mutex;
use replication::{
    Group, GroupConfig, Host, HostDeps, HostOptions, Identity, METADATA_GROUP, Member,
    SnapshotPolicy, Start, WalOptions,
};
use rpc::channel::Pool;
use runtime::{Instant, Runtime};

use crate::Error;
use crate::actions::{About, Action, Actions};
use crate::arrival::Arrival;
use crate::identity::Membership;
use crate::metadata::{Metadata, Response, State, is_first, number_of};

pub(crate) use service::{MetadataDoor, known_change, new_instance};

/// Bytes of a segment of the metadata's log; commands are small and rare.
const SEGMENT_BYTES: u64 = 8 << 20;
const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Entries after which a snapshot of the metadata is taken.
const SNAPSHOT_ENTRIES: u64 = 5_000;
/// How long another coordinator may take to take the lead over; it takes some milliseconds.
const HANDOVER_PATIENCE: Duration = Duration::from_millis(700);
/// A majority that was seen at work this long ago still counts as being there.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);

/// The metadata group on this coordinator.
#[derive(Debug)]
pub(crate) struct Meta {
    runtime: Runtime,
    cluster: ClusterId,
    /// This coordinator's identity in the group.
    id: NodeId,
    data_dir: PathBuf,
    host: Host,
    group: Group<Metadata>,
    /// How the other coordinators are reached.
    arrival: Arrival,
    /// When a majority last said that there is a leader.
    confirmed: Mutex<Option<Instant>>,
    actions: Actions,
}

impl Meta {
    /// Opens the metadata of a coordinator that belongs to a cluster. `address` is where the others reach this one.
    pub(crate) async fn open(
        arrival: Arrival,
        id: NodeId,
        membership: &Membership,
        data_dir: PathBuf,
        address: &str,
        actions: Actions,
    ) -> Result<Self, Error> {
        let deps = HostDeps {
            runtime: arrival.runtime.clone(),
            vfs: Arc::clone(&arrival.vfs),
            dir: data_dir.clone(),
            identity: Identity {
                cluster: membership.cluster,
                node: id,
            },
            options: HostOptions {
                wal: WalOptions {
                    segment_bytes: SEGMENT_BYTES,
                    preallocate_bytes: PREALLOCATE_BYTES,
                    ..WalOptions::default()
                },
                ..HostOptions::default()
            },
        };
        let (host, report) = Host::open(deps).await?;
        tracing::info!(cluster = %membership.cluster, coordinator = %id, ?report, "metadata log opened");
        let group_config = GroupConfig {
            snapshots: SnapshotPolicy {
                entries: SNAPSHOT_ENTRIES,
                ..SnapshotPolicy::default()
            },
            ..GroupConfig::new(
                METADATA_GROUP,
                start(&host, &arrival.others, id, membership, address)?,
            )
        };
        let machine = Arc::new(Metadata::default());
        let group = match host.start_group(group_config, machine).await {
            Ok(group) => group,
            Err(error) => {
                close(&host).await;
                return Err(error.into());
            }
        };
        Ok(Self {
            runtime: arrival.runtime.clone(),
            cluster: membership.cluster,
            id,
            data_dir,
            host,
            group,
            arrival,
            confirmed: Mutex::default(),
            actions,
        })
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The newest map known here; `None` until the cluster has begun.
    pub(crate) fn map(&self) -> Option<Arc<ShardMap>> {
        self.group.machine().map()
    }

    /// Looks at the metadata as they are applied here.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.group.machine().read(look)
    }

    /// Whether this coordinator leads the metadata group and holds its lease: the one that does what only one may do.
    pub(crate) fn leads(&self) -> bool {
        self.group.lease_check().is_ok()
    }

    /// Whether the metadata can be changed through this coordinator, as far as was seen lately.
    pub(crate) fn is_available(&self) -> bool {
        let now = self.runtime.now();
        let lately = |at: &Instant| now.saturating_since(*at) < CONFIRMED_FOR;
        let confirmed = self.confirmed.lock().as_ref().is_some_and(lately);
        self.map().is_some() && (confirmed || self.leads())
    }

    /// About the leader's time, milliseconds since the Unix epoch; for people, not for decisions.
    pub(crate) fn now_ms(&self) -> i64 {
        self.group.stamp_ms().max(self.runtime.wall_ms())
    }

    /// All coordinators, as far as is known here, by their numbers.
    pub(crate) fn coordinators(&self) -> Vec<CoordinatorStatus> {
        let status = self.group.status();
        let leader = status.leader.map(|peer| peer.node);
        let members = status.members.into_iter().map(|member| {
            let configured = self.arrival.address(member.node).cloned();
            CoordinatorStatus {
                coordinator_id: number_of(member.node).0,
                address: configured.unwrap_or(member.address),
                leads: leader == Some(member.node),
                answers: member.node == self.id,
                reached: member.node == self.id,
                reason: String::new(),
            }
        });
        let mut coordinators: Vec<CoordinatorStatus> = members.collect();
        coordinators.sort_by_key(|at| at.coordinator_id);
        coordinators
    }

    /// How the other coordinators are reached.
    pub(crate) fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Why the metadata cannot go on; pending as long as they can.
    pub(crate) async fn failed(&self) -> Error {
        let mut poisoned = self.host.poisoned();
        let mut damaged = self.host.damaged();
        let mut status = self.group.watch_status();
        let has_others = !self.arrival.others.is_empty();
        loop {
            if let Some(reason) = poisoned.borrow_and_update().clone() {
                return Error::MetadataStopped { reason };
            }
            // What is in memory is sound. But where others have it too, this one begins anew from them, which needs a start.
            let damage = damaged.borrow_and_update().clone();
            if let Some(reason) = damage.filter(|_| has_others) {
                return Error::MetadataStopped { reason };
            }
            if let Some(stopped) = status.borrow_and_update().stopped.clone() {
                return Error::MetadataStopped {
                    reason: stopped.reason,
                };
            }
            let ended = tokio::select! {
                changed = poisoned.changed() => changed.is_err(),
                changed = damaged.changed() => changed.is_err(),
                changed = status.changed() => changed.is_err(),
            };
            if ended {
                return Error::MetadataStopped {
                    reason: "the metadata group is gone".into(),
                };
            }
        }
    }

    /// Hands the lead of the metadata to another coordinator, if there is one that can take it.
    pub(crate) async fn hand_over(&self) {
        let Some(to) = self.group.successors().first().copied() else {
            return;
        };
        let handed = self.group.transfer_leader(to, HANDOVER_PATIENCE).await;
        self.actions.count(
            Action::MoveMetadataLead,
            "stopping",
            About::default(),
            &handed,
        );
        match handed {
            Ok(()) => tracing::info!(%to, "the lead of the metadata is handed over"),
            Err(error) => tracing::warn!(%to, %error, "the lead is not handed over"),
        }
    }

    pub(crate) async fn shutdown(&self) {
        close(&self.host).await;
    }
}

async fn close(host: &Host) {
    if let Err(error) = host.shutdown().await {
        tracing::warn!(%error, "the metadata log did not close cleanly");
    }
}

/// What the others are reached with, for whoever has not arrived yet.
pub(crate) fn pool(runtime: &Runtime) -> Pool {
    let config = rpc::channel::PoolConfig {
        connections_per_peer: 1,
        connect_timeout: Duration::from_secs(1),
        keepalive_interval: Duration::from_secs(2),
        keepalive_timeout: Duration::from_secs(2),
        ..rpc::channel::PoolConfig::default()
    };
    Pool::new(runtime, config)
}

/// How the group begins here. A crash between the identity and the first entry leaves a group that does not exist yet.
fn start(
    host: &Host,
    others: &BTreeMap<NodeId, String>,
    id: NodeId,
    membership: &Membership,
    address: &str,
) -> Result<Start, Error> {
    if host.exists(METADATA_GROUP)? {
        return Ok(Start::Resume);
    }
    // Whoever was taken in later joins, and so does everybody else from then on: the group has long begun.
    let is_founder = membership.members.keys().next() == Some(&id);
    if !is_founder || !membership.members.keys().copied().all(is_first) {
        return Ok(Start::Join);
    }
    let others = others.iter().map(|(id, at)| Member::voter(*id, at));
    let members = others.chain([Member::voter(id, address)]).collect();
    Ok(Start::Bootstrap { members })
}

/// A response of another kind than the command has.
pub(crate) fn unexpected(response: &Response) -> ApiError {
    ApiError::internal(format!("the metadata answered {response:?}"))
}
