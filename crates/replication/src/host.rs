//! One node: its log, its snapshots, its groups, and the service that its peers call.

mod drive;
mod maintain;
mod recover;
mod registry;
mod release;
mod scrub;
mod set_back;
mod stall;
mod start;
mod starts;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::raft::v1::raft_service_server::RaftServiceServer;
use cluster::NodeId;
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use runtime::{CancellationToken, Runtime, TaskFailed};
use tokio::sync::{Notify, watch};
use vfs::{Vfs, durable};
use wal::{GroupId, Record, Wal, WalStats, Writer};

pub(crate) use registry::Registry;
pub use scrub::{Rotten, ScrubStats};
pub use start::ReplayWatch;
#[cfg(test)]
pub(crate) use start::tests::deps;
#[cfg(test)]
pub(crate) use starts::open_log;
pub(crate) use starts::{FoundStarts, Starts, number_of};
pub use voters::shared_groups;
pub(crate) use voters::{Found as FoundVoters, VotersNote};

use crate::config::{HostDeps, HostOptions, Identity};
use crate::log::NodeFault;
use crate::network::block::{AppendSize, Packer};
use crate::network::{Channels, Context, Own, SharedContext, Standings};
use crate::snapshot::SnapshotStore;
use crate::stamp::StampClock;
use crate::{OpenError, RaftServer, StartError};

/// How long whoever wants a group waits while it lets go of its log, which is one write.
const RELEASE_LOOK: Duration = Duration::from_millis(20);
const RELEASE_LOOKS: u32 = 100;

/// What opening a data directory found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What opening the log found.
    pub wal: wal::RecoveryReport,
    /// The groups that can be resumed.
    pub groups: Vec<GroupId>,
}

/// A node's replicas, and what they share. Clones share it.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    runtime: Runtime,
    vfs: Arc<dyn Vfs>,
    snapshot_root: std::path::PathBuf,
    log_dir: std::path::PathBuf,
    identity: Identity,
    options: HostOptions,
    wal: Wal,
    clock: Arc<StampClock>,
    context: SharedContext,
    registry: Arc<Registry>,
    fault: NodeFault,
    /// What this node tells others of how far its log reaches.
    own: Arc<Own>,
    /// What each group's members have told it, for longer than a replica runs.
    standings: Mutex<BTreeMap<GroupId, Arc<Standings>>>,
    /// Which groups have other voters, written before the log is.
    voters: Arc<VotersNote>,
    scrub: Mutex<ScrubStats>,
    /// What nobody has asked for yet.
    rotten: Mutex<Vec<Rotten>>,
    ended: CancellationToken,
    /// Groups that are being started or removed.
    busy: Mutex<Vec<GroupId>>,
    /// Groups that are never started again, as far as this process was told.
    retired: Mutex<BTreeSet<GroupId>>,
    /// The group at rest that is letting go of its log, which takes as long as a write.
    releasing: Mutex<Option<GroupId>>,
    /// Snapshots are written one after another: each makes its state machine copy what it changes meanwhile, and they share the disk.
    snapshot_turn: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is to wait for room in the log.
    room_turn: Arc<tokio::sync::Mutex<()>>,
    /// In a world without threads: the log has something to write.
    due: Arc<Notify>,
    /// Ends what drives the log there.
    closed: CancellationToken,
    /// For how long the log's disk has not answered, in milliseconds; see [`stall`].
    stalled_ms: AtomicU64,
}

impl Host {
    /// Opens a data directory and verifies the log in it. Groups are started one by one with
    /// [`Host::start_group`].
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed on the disk where the log is damaged.
    pub async fn open(deps: HostDeps) -> Result<(Self, RecoveryReport), OpenError> {
        let runtime = deps.runtime.clone();
        let opened = runtime
            .spawn_blocking("log-open", move || Inner::open(deps))
            .await
            .map_err(|error| OpenError::Options {
                option: "runtime",
                problem: error.to_string(),
            })?;
        let (inner, report) = opened?;
        let inner = Arc::new(inner);
        let task = maintain::run(Arc::downgrade(&inner), inner.ended.clone());
        inner.guard("host-maintain", task);
        if !inner.runtime.has_threads() {
            let task = drive::run(&inner, Arc::clone(&inner.due));
            inner.guard("log-writer", task);
        }
        let task = stall::run(Arc::downgrade(&inner), inner.ended.clone());
        inner.guard("host-stall", task);
        scrub::spawn(&inner);
        Ok((Self { inner }, report))
    }

    /// The service that peers call, for all groups of this node.
    #[must_use]
    pub fn raft_service(&self) -> RaftServiceServer<RaftServer> {
        rpc::services::raft(RaftServer::new(Arc::clone(&self.inner.registry)))
    }

    /// Says where other nodes are now, for all groups; what was said before is forgotten. It goes before the addresses in the
    /// memberships, which are those of the time when the members were added. Calls under way are not disturbed.
    pub fn know_addresses(&self, nodes: impl IntoIterator<Item = (NodeId, String)>) {
        let nodes = nodes.into_iter();
        let addresses = nodes.map(|(node, address)| (node.0, address)).collect();
        self.inner.context.know(addresses);
    }

    /// Says which identities are lost for good, for all groups; what was said before is forgotten. Nothing that one of them sends is taken:
    /// its process may still run, or its disk turn up again, and it may count on members that have left and come back without what they
    /// had promised. To be said before a group is joined, so that such a member does not hear of them.
    pub fn know_lost(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let lost = nodes.into_iter().map(|node| node.0).collect();
        self.inner.registry.know_lost(lost);
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// The groups that are running.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner.registry.groups()
    }

    /// Whether a group has anything on this node's disk.
    ///
    /// # Errors
    /// When the directory of snapshots cannot be read.
    pub fn exists(&self, group: GroupId) -> Result<bool, vfs::Error> {
        self.inner.exists(group)
    }

    /// Follows the health of the node's log: `Some` with a reason once a write or sync has failed, or a task is missing that the log
    /// needs. The process must then end: what is on the disk is unknown, and only a start from the disk finds out.
    #[must_use]
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.inner.fault.subscribe()
    }

    /// Follows whether the log is sound: `Some` with a reason once something that was durable no longer verifies, or is not there while
    /// other nodes remember it. All groups
    /// have stopped or are about to, with [`crate::StopCause::DataLoss`], and none can be started. The data directory must
    /// be put aside, and the node be rebuilt from its peers under a new identity. [`Host::poisoned`] follows, so that whoever
    /// only restarts finds the rot at the start.
    #[must_use]
    pub fn damaged(&self) -> watch::Receiver<Option<String>> {
        self.inner.fault.subscribe_damage()
    }

    /// What the background scrub has done.
    #[must_use]
    pub fn scrub_stats(&self) -> ScrubStats {
        self.inner.scrub_stats()
    }

    /// Snapshots that were found rotten since this was asked last, the first 64.
    #[must_use]
    pub fn take_rotten(&self) -> Vec<Rotten> {
        self.inner.take_rotten()
    }

    /// For how long the disk has been at one write of the log; zero while it answers. Rises in steps of a tenth of a second.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        Duration::from_millis(self.inner.stalled_ms.load(Ordering::Relaxed))
    }

    /// Bytes of snapshots that peers did not send again after a transfer had broken off, since the start.
    #[must_use]
    pub fn resumed_snapshot_bytes(&self) -> u64 {
        self.inner.registry.resumed_bytes()
    }

    /// Counters and sizes of the log.
    #[must_use]
    pub fn wal_stats(&self) -> WalStats {
        self.inner.wal.stats()
    }

    /// The log itself, for inspection.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.inner.wal
    }

    /// Lets go of the state of a group that has been shut down. What it has on the disk stays.
    pub fn forget_group(&self, group: GroupId) {
        self.inner.registry.forget(group);
    }

    /// Says that a group is not started again. Where its log holds back a log of the node that is too long, it goes as far as the newest
    /// snapshot stands for it, which stays. Forgotten with the process, and where the group is started all the same. See [`Group::retire`].
    ///
    /// [`Group::retire`]: crate::Group::retire
    pub fn retire_group(&self, group: GroupId) {
        self.inner.retired.lock().insert(group);
    }

    /// Removes a group that is not running, its log and its snapshots, for good.
    ///
    /// # Errors
    /// [`StartError::Running`] where it must be shut down first, and those of the disk.
    pub async fn remove_group(&self, group: GroupId) -> Result<(), StartError> {
        let _busy = self.inner.claim_soon(group).await?;
        let inner = Arc::clone(&self.inner);
        let remove = move || -> Result<(), StartError> {
            // The snapshots first: without them but with its vote a group is refused, never taken for new.
            SnapshotStore::remove(inner.vfs.as_ref(), &inner.snapshot_root, group)?;
            if inner.wal.groups().contains(&group) {
                inner.wal.append_sync(group, vec![Record::Remove])?;
            }
            inner.voters.unshare(group)?;
            inner.registry.forget(group);
            inner.standings.lock().remove(&group);
            inner.retired.lock().remove(&group);
            Ok(())
        };
        self.inner
            .runtime
            .spawn_blocking("group-remove", remove)
            .await
            .map_err(|error| StartError::Stopped {
                group,
                reason: error.to_string(),
            })?
    }

    /// Has `tell` told how long each group commit of the log took, from the first byte to the end of its sync; by the thread that writes
    /// the log, so that it must not block. Only the first call has an effect.
    pub fn observe_commits(&self, tell: impl Fn(Duration) + Send + Sync + 'static) {
        let runtime = self.inner.runtime.clone();
        let begun = Mutex::new(None);
        self.inner.wal.observe_rounds(move |round| match round {
            wal::Round::Begins => *begun.lock() = Some(runtime.now()),
            wal::Round::Ends => {
                if let Some(begun) = begun.lock().take() {
                    tell(runtime.now().saturating_since(begun));
                }
            }
        });
    }

    /// Has `tell` told how large each request to append is that goes to a peer, before and after it was compressed; by the task that
    /// sends it, so that it must not block. Only the first call has an effect.
    pub fn observe_appends(&self, tell: impl Fn(AppendSize) + Send + Sync + 'static) {
        self.inner.context.packer.observe(Box::new(tell));
    }

    /// Stops all groups at the same time, writes what waits and closes the log. Groups that would have much to replay at the next
    /// start take a snapshot first, for some seconds at most, unless the disk has failed. After that, or as soon as the
    /// caller does not wait any longer, nothing is heard of the groups any more.
    ///
    /// # Errors
    /// When the log could not be written to its end; what was acknowledged is safe all the same.
    pub async fn shutdown(&self) -> Result<(), wal::AppendError> {
        self.inner.ended.cancel();
        let silenced = self.inner.fault.silence().clone().drop_guard();
        if !self.inner.fault.is_told() {
            let groups = self.inner.registry.all();
            join_all(groups.iter().map(|running| running.settle())).await;
        }
        drop(silenced);
        let groups = self.inner.registry.take_all();
        join_all(groups.iter().map(|running| running.stop())).await;
        let wal = self.inner.wal.clone();
        self.inner
            .runtime
            .spawn_blocking("log-close", move || wal.shutdown())
            .await
            .unwrap_or(Err(wal::AppendError::Shutdown))
    }
}

/// Who writes the log.
fn writer(runtime: &Runtime, options: &HostOptions, due: &Arc<Notify>) -> Writer {
    if !options.writer_thread {
        Writer::Inline
    } else if runtime.has_threads() {
        let runtime = runtime.clone();
        Writer::Thread(Box::new(move |name, work| runtime.spawn_thread(name, work)))
    } else {
        let due = Arc::clone(due);
        Writer::Driven(Box::new(move || due.notify_one()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Inner {
    fn open(deps: HostDeps) -> Result<(Self, RecoveryReport), OpenError> {
        let HostDeps {
            runtime,
            vfs,
            dir,
            identity,
            options,
        } = deps;
        let snapshot_root = dir.join("snapshots");
        durable::create_dir(vfs.as_ref(), &snapshot_root)?;
        let due = Arc::new(Notify::new());
        let writer = writer(&runtime, &options, &due);
        let owner = wal::Identity {
            cluster_id: identity.cluster.0,
            node_id: identity.node.0,
        };
        let log_dir = dir.join("wal");
        durable::create_dir(vfs.as_ref(), &log_dir)?;
        set_back::check(vfs.as_ref(), &log_dir)?;
        let noted = voters::Found::read(vfs.as_ref(), &log_dir)?;
        let wal_options = wal::WalOptions {
            ambiguous: noted.judge(options.wal.ambiguous),
            ..options.wal.clone()
        };
        // The lower half: 32 bits are enough to tell two copies of a log apart.
        let drawn = runtime.random_u64() as u32;
        let (wal, found, starts) =
            starts::open_log(&vfs, &log_dir, owner, wal_options, writer, drawn)?;
        let fault = NodeFault::new();
        let voters = VotersNote::open(vfs.as_ref(), noted, &wal.groups(), fault.clone())?;
        let own = Own::new(identity.node.0, starts, wal.clone(), fault.clone());
        let context = Arc::new(Context {
            runtime: runtime.clone(),
            cluster: identity.cluster,
            node: identity.node,
            channels: Channels::new(&runtime),
            packer: Packer::default(),
            addresses: RwLock::default(),
        });
        let report = RecoveryReport {
            wal: found,
            groups: wal.groups(),
        };
        let inner = Self {
            clock: Arc::new(StampClock::new(runtime.clone())),
            registry: Arc::new(Registry::new(identity, &options, runtime.clone())),
            fault,
            own: Arc::new(own),
            standings: Mutex::default(),
            voters: Arc::new(voters),
            scrub: Mutex::default(),
            rotten: Mutex::default(),
            ended: CancellationToken::new(),
            busy: Mutex::default(),
            retired: Mutex::default(),
            releasing: Mutex::default(),
            snapshot_turn: Arc::default(),
            room_turn: Arc::default(),
            due,
            closed: CancellationToken::new(),
            stalled_ms: AtomicU64::new(0),
            runtime,
            vfs,
            snapshot_root,
            log_dir,
            identity,
            options,
            wal,
            context,
        };
        Ok((inner, report))
    }

    /// Runs a task that no group of this node can do without. Should it panic, or end while the node lives, the node ends as after a
    /// failed sync.
    fn guard<F>(self: &Arc<Self>, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let host = Arc::downgrade(self);
        let ended = move |end| async move {
            let lives = |host: &Arc<Self>| !host.ended.is_cancelled() && !host.fault.is_told();
            if let Some(host) = host.upgrade().filter(lives) {
                let failed = TaskFailed::before_its_time(name, end);
                host.fault.report(&failed.to_string());
            }
        };
        drop(self.runtime.spawn_guarded(name, task, ended));
    }

    fn node(&self) -> NodeId {
        self.identity.node
    }

    fn exists(&self, group: GroupId) -> Result<bool, vfs::Error> {
        let known = self.wal.groups().contains(&group);
        Ok(known || SnapshotStore::any(self.vfs.as_ref(), &self.snapshot_root, group)?)
    }

    /// Keeps others from starting or removing a group until the claim is dropped.
    fn claim(&self, group: GroupId) -> Result<Claim<'_>, StartError> {
        let mut busy = self.busy.lock();
        if busy.contains(&group) || self.registry.is_running(group) {
            return Err(StartError::Running { group });
        }
        busy.push(group);
        Ok(Claim { inner: self, group })
    }

    /// As [`Inner::claim`], and waits for a moment where the group only lets go of its log.
    async fn claim_soon(&self, group: GroupId) -> Result<Claim<'_>, StartError> {
        for _ in 0..RELEASE_LOOKS {
            let claimed = self.claim(group);
            let is_over_soon = claimed.is_err() && *self.releasing.lock() == Some(group);
            if !is_over_soon {
                return claimed;
            }
            self.runtime.sleep(RELEASE_LOOK).await;
        }
        self.claim(group)
    }
}

struct Claim<'a> {
    inner: &'a Inner,
    group: GroupId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let group = self.group;
        self.inner.busy.lock().retain(|busy| *busy != group);
    }
}
