//! The metadata group as the rest of the coordinator uses it: read the map, propose a change.
//!
//! It is a Raft group like a shard's, of one member so far. What was proposed here and answered is on the disk of a
//! majority of its members.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Outcome, Reason};
use bytes::Bytes;
use cluster::{ClusterId, NodeId, ShardMap};
use replication::{
    Group, GroupConfig, Host, HostDeps, HostOptions, Identity, METADATA_GROUP, Member,
    ProposeError, SnapshotPolicy, Start, WalOptions,
};
use runtime::Runtime;
use vfs::Vfs;

use crate::Error;
use crate::config::Config;
use crate::identity;
use crate::metadata::{Command, Metadata, Refusal, Response, State};

/// Coordinators have identities of their own, apart from those of shard servers. The first one has this.
const FIRST_COORDINATOR: NodeId = NodeId(1);
/// How long the group of one may take to elect itself at the start before the start fails.
const LEAD_PATIENCE: Duration = Duration::from_secs(30);
const LEAD_POLL: Duration = Duration::from_millis(5);
/// Bytes of a segment of the metadata's log; commands are small and rare.
const SEGMENT_BYTES: u64 = 8 << 20;
const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Entries after which a snapshot of the metadata is taken.
const SNAPSHOT_ENTRIES: u64 = 5_000;

/// The metadata group on this coordinator.
#[derive(Debug)]
pub(crate) struct Meta {
    cluster: ClusterId,
    host: Host,
    group: Group<Metadata>,
}

impl Meta {
    /// Opens the metadata, and begins the cluster when the data directory is new.
    pub(crate) async fn open(
        runtime: &Runtime,
        vfs: Arc<dyn Vfs>,
        config: &Config,
        address: &str,
    ) -> Result<Self, Error> {
        let (disk, world, dir) = (Arc::clone(&vfs), runtime.clone(), config.data_dir.clone());
        let opened = runtime.spawn_blocking("cluster-id", move || {
            identity::open(disk.as_ref(), &world, &dir)
        });
        let (cluster, _is_new) = opened.await??;
        let deps = HostDeps {
            runtime: runtime.clone(),
            vfs,
            dir: config.data_dir.clone(),
            identity: Identity {
                cluster,
                node: FIRST_COORDINATOR,
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
        tracing::info!(%cluster, ?report, "metadata log opened");
        // A crash between the identity and the first entry leaves a group that does not exist yet.
        let start = if host.exists(METADATA_GROUP)? {
            Start::Resume
        } else {
            Start::Bootstrap {
                members: vec![Member::voter(FIRST_COORDINATOR, address)],
            }
        };
        let group_config = GroupConfig {
            snapshots: SnapshotPolicy {
                entries: SNAPSHOT_ENTRIES,
                ..SnapshotPolicy::default()
            },
            ..GroupConfig::new(METADATA_GROUP, start)
        };
        let machine = Arc::new(Metadata::default());
        let group = host.start_group(group_config, machine).await?;
        let meta = Self {
            cluster,
            host,
            group,
        };
        meta.wait_for_lead(runtime).await?;
        meta.begin(config).await?;
        Ok(meta)
    }

    async fn wait_for_lead(&self, runtime: &Runtime) -> Result<(), Error> {
        let lead = async {
            loop {
                match self.group.lease_check() {
                    Ok(_) => return Ok(()),
                    Err(replication::ReadError::Stopped { reason }) => {
                        return Err(Error::MetadataStopped { reason });
                    }
                    Err(_) => runtime.sleep(LEAD_POLL).await,
                }
            }
        };
        let waited = runtime.timeout(LEAD_PATIENCE, lead).await;
        waited.unwrap_or_else(|_| {
            Err(Error::MetadataStopped {
                reason: "no leader was elected".into(),
            })
        })
    }

    /// Begins the cluster, unless it has begun.
    async fn begin(&self, config: &Config) -> Result<(), Error> {
        let known = self.read(|state| state.cluster);
        if known.is_none() {
            let init = Command::Init {
                cluster: self.cluster,
                template: config.cluster.template.clone(),
                replicas: u32::try_from(config.cluster.replicas).unwrap_or(u32::MAX),
            };
            let begun = self.propose(&init).await;
            begun.map_err(|error| Error::Init {
                reason: error.to_string(),
            })?;
            tracing::info!(cluster = %self.cluster, "a new cluster has begun");
        }
        match self.read(|state| state.cluster) {
            Some(found) if found != self.cluster => Err(Error::ForeignMetadata {
                expected: self.cluster,
                found,
            }),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The newest map; `None` until the cluster has begun.
    pub(crate) fn map(&self) -> Option<Arc<ShardMap>> {
        self.group.machine().map()
    }

    /// Looks at the metadata as they are applied here.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.group.machine().read(look)
    }

    /// Whether this coordinator can read and change the metadata now.
    pub(crate) fn is_available(&self) -> bool {
        self.group.lease_check().is_ok() && self.map().is_some()
    }

    /// Proposes a change and waits until it is applied. A refusal by the rules is an error.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Response, ApiError> {
        let bytes = Bytes::from(command.encode());
        let committed = self.group.propose(command.kind(), bytes).await;
        let response = committed.map_err(|error| unproposed(&error))?.response;
        match &response {
            Response::Refused(refusal) => Err(refused(refusal)),
            Response::Done
            | Response::Node { .. }
            | Response::Namespace
            | Response::Generation { .. }
            | Response::Incarnation { .. } => Ok(response),
        }
    }

    /// Why the metadata cannot go on; pending as long as they can.
    pub(crate) async fn failed(&self) -> Error {
        let mut poisoned = self.host.poisoned();
        let mut status = self.group.watch_status();
        loop {
            if let Some(reason) = poisoned.borrow_and_update().clone() {
                return Error::MetadataStopped { reason };
            }
            if let Some(stopped) = status.borrow_and_update().stopped.clone() {
                return Error::MetadataStopped {
                    reason: stopped.reason,
                };
            }
            let ended = tokio::select! {
                changed = poisoned.changed() => changed.is_err(),
                changed = status.changed() => changed.is_err(),
            };
            if ended {
                return Error::MetadataStopped {
                    reason: "the metadata group is gone".into(),
                };
            }
        }
    }

    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.host.shutdown().await {
            tracing::warn!(%error, "the metadata log did not close cleanly");
        }
    }
}

/// A response of another kind than the command has.
pub(crate) fn unexpected(response: &Response) -> ApiError {
    ApiError::internal(format!("the metadata answered {response:?}"))
}

fn unproposed(error: &ProposeError) -> ApiError {
    let outcome = match error.outcome() {
        replication::Outcome::NotApplied => Outcome::NotApplied,
        replication::Outcome::Unknown => Outcome::Unknown,
    };
    let reason = match error {
        ProposeError::NotLeader { .. } => Reason::NotLeader,
        ProposeError::DiskFull => Reason::DiskFull,
        ProposeError::TooLarge { .. } => Reason::MessageTooLarge,
        ProposeError::LeadLost { .. } => Reason::NoQuorum,
        ProposeError::Stopped { .. } => Reason::Stopped,
    };
    ApiError::new(reason, format!("the metadata: {error}")).with_outcome(outcome)
}

fn refused(refusal: &Refusal) -> ApiError {
    let reason = match refusal {
        Refusal::NotInitialised => Reason::Starting,
        Refusal::Initialised { .. } => Reason::AlreadyExists,
        Refusal::UnknownNode { .. } => Reason::NotFound,
        Refusal::NodeLost { .. } => Reason::NodeLost,
        Refusal::TooManyNodes => Reason::Overloaded,
        Refusal::UnknownShard { .. } => Reason::UnknownShard,
        Refusal::StaleIncarnation { .. } => Reason::StaleIncarnation,
        Refusal::ForeignSeed => Reason::UnknownSnapshot,
        Refusal::TooManyNamespaces => Reason::TooManyNamespaces,
        Refusal::BadNamespace => Reason::BadNamespace,
        Refusal::SessionExpired => Reason::SessionExpired,
        Refusal::RequestIdReused => Reason::RequestIdReused,
        Refusal::IssuedAhead => Reason::BadRequestId,
    };
    // Whether an expired call was applied long ago, nobody can tell.
    let outcome = if *refusal == Refusal::SessionExpired {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    };
    ApiError::new(reason, refusal.to_string()).with_outcome(outcome)
}
