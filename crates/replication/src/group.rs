//! The handle to one replica of one group.
//!
//! Proposals go to Raft's own queue in the order of the calls and are answered when they are applied here. A caller that
//! goes away takes nothing back: what was submitted finishes. Reads ask for a [`ReadPoint`]; the state itself
//! is read from the state machine, by whoever owns it.
//!
//! What always holds:
//! - A replica that cannot go on (an entry it cannot apply, a failed disk, a task that died) stops for good, says why in
//!   [`Group::status`], and answers everything with `Stopped`; who waits is answered at once.
//! - A leader answers reads only while a majority's last acknowledgement is younger than its lease, and only when it
//!   has applied an entry of its own term.

mod guard;
mod hosted;
mod members;
mod policy;
mod propose;
mod read;
mod release;
mod status;
mod take;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use runtime::{CancellationToken, Instant, Runtime};
use tokio::sync::watch;
use wal::{GroupId, Wal};

pub use propose::{Committed, Done, Pending, Proposed};
pub use read::{GivenUp, ReadPoint};

use crate::config::SnapshotPolicy;
use crate::lease::Grants;
use crate::machine::{Machine, Shared};
use crate::network::Factory;
use crate::raft::{Metrics, MetricsReceiver, TypeConfig};
use crate::stamp::{StampClock, Stamps};
use crate::status::{GroupStatus, StopCause};
use crate::{Peer, StateMachine, convert};

pub(crate) type Raft<S> = openraft::Raft<TypeConfig, Machine<S>>;

/// A replica of a group on this node. Clones share it.
#[derive(Debug)]
pub struct Group<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// What a group is made of when it starts.
pub(crate) struct Parts<S: StateMachine> {
    pub(crate) raft: Raft<S>,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) wal: Wal,
    pub(crate) clock: Arc<StampClock>,
    pub(crate) node: u64,
    pub(crate) network: Factory,
    pub(crate) policy: SnapshotPolicy,
    /// See [`crate::HostOptions::log_bytes_max`].
    pub(crate) log_bytes_max: u64,
    /// See [`crate::GroupConfig::lag_entries_max`].
    pub(crate) lag_entries_max: u64,
    pub(crate) command_bytes_max: usize,
    /// Before this moment the replica neither votes nor stands: a promise from before a restart may still bind it.
    pub(crate) silent_until: Option<Instant>,
    /// Whose turn it is to write a snapshot, of all groups of the node.
    pub(crate) snapshot_turn: Arc<tokio::sync::Mutex<()>>,
}

pub(crate) struct Inner<S: StateMachine> {
    raft: Raft<S>,
    metrics: MetricsReceiver,
    shared: Arc<Shared<S>>,
    wal: Wal,
    stamps: Stamps,
    node: u64,
    grants: Arc<Grants>,
    /// To the other members.
    network: Factory,
    policy: SnapshotPolicy,
    log_bytes_max: u64,
    lag_entries_max: u64,
    command_bytes_max: usize,
    silent_until: Option<Instant>,
    /// The term in which this leader began to hand over the lead; it has no lease in it any more.
    handing_over: AtomicU64,
    reads: read::Queue,
    status: watch::Sender<GroupStatus>,
    taking: tokio::sync::Mutex<take::Attempts>,
    snapshot_turn: Arc<tokio::sync::Mutex<()>>,
    /// Bytes of commands that had been applied since the start when the newest snapshot was taken; 0 for the one that the
    /// start found.
    snapshot_at_bytes: AtomicU64,
    snapshot_wanted: tokio::sync::Notify,
    /// The leader is to write an entry: see [`Inner::move_on`].
    wants_entry: AtomicBool,
    ended: CancellationToken,
}

impl<S: StateMachine> std::fmt::Debug for Inner<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inner")
            .field("group", &self.shared.group)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl<S: StateMachine> Group<S> {
    /// Puts the parts together and starts the tasks that go with a replica.
    pub(crate) fn new(parts: Parts<S>) -> Self {
        let metrics = parts.raft.metrics();
        let (reads, waiting) = read::Queue::new();
        let first = status::build(
            &parts.shared,
            parts.node,
            &parts.network.grants,
            &metrics.borrow_watched(),
        );
        let inner = Arc::new(Inner {
            metrics,
            raft: parts.raft,
            shared: parts.shared,
            wal: parts.wal,
            stamps: Stamps::new(parts.clock),
            node: parts.node,
            grants: Arc::clone(&parts.network.grants),
            network: parts.network,
            policy: parts.policy,
            log_bytes_max: parts.log_bytes_max,
            lag_entries_max: parts.lag_entries_max,
            command_bytes_max: parts.command_bytes_max,
            silent_until: parts.silent_until,
            handing_over: AtomicU64::new(0),
            reads,
            status: watch::channel(first).0,
            taking: tokio::sync::Mutex::default(),
            snapshot_turn: parts.snapshot_turn,
            snapshot_at_bytes: AtomicU64::new(0),
            snapshot_wanted: tokio::sync::Notify::new(),
            wants_entry: AtomicBool::new(false),
            ended: CancellationToken::new(),
        });
        let shared = || Arc::clone(&inner);
        drop(inner.guard("group-status", status::follow(shared())));
        drop(inner.guard("group-snapshots", policy::run(shared())));
        drop(inner.guard("group-reads", read::run(shared(), waiting)));
        if let Some(until) = inner.silent_until {
            drop(inner.guard("group-silence", hosted::be_silent(shared(), until)));
        }
        Self { inner }
    }

    /// The group's name.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.shared.group
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &Arc<S> {
        &self.inner.shared.machine
    }

    /// The newest stamp that was applied: what `apply` takes for the time, milliseconds since the Unix epoch.
    #[must_use]
    pub fn stamp_ms(&self) -> i64 {
        self.inner.shared.progress.stamp_ms()
    }

    /// The present status.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        self.inner.status_now()
    }

    /// Follows the status: a new one for every change of role, term, leader, members, `joint` or of `stopped`. Numbers that
    /// rise with every entry are as of then; ask [`Group::status`] for the present ones.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<GroupStatus> {
        self.inner.status.subscribe()
    }

    /// Waits until the replica stops, for whatever cause.
    pub async fn ended(&self) {
        self.inner.ended.cancelled().await;
    }

    /// Stops the replica. What was proposed and not answered yet has an unknown outcome.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }

    /// Stops the replica because somebody has found that its state is not what it must be: with [`StopCause::DataLoss`], so that
    /// it is rebuilt from its peers and not just restarted.
    pub async fn condemn(&self, reason: &str) {
        self.inner.halt_for(StopCause::DataLoss, reason).await;
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<S>> {
        &self.inner
    }
}

impl<S: StateMachine> Inner<S> {
    fn runtime(&self) -> &Runtime {
        &self.shared.runtime
    }

    /// Stops the replica for good.
    pub(crate) async fn halt_for(&self, cause: StopCause, reason: &str) {
        self.shared.halt.set(cause, reason);
        self.shutdown().await;
    }

    pub(crate) async fn shutdown(&self) {
        self.shared.halt.set(StopCause::Shutdown, "shut down");
        self.ended.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.shared.group, %error, "a replica did not stop cleanly");
        }
        self.shared.snapshots.end_intake();
        self.status.send_replace(self.status_now());
    }

    pub(crate) fn request_snapshot(&self) {
        self.snapshot_wanted.notify_one();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Cancelled when nothing may be heard of this replica any more.
    pub(crate) fn silence(&self) -> &CancellationToken {
        self.shared.halt.silence()
    }

    fn status_now(&self) -> GroupStatus {
        status::build(
            &self.shared,
            self.node,
            &self.grants,
            &self.metrics.borrow_watched(),
        )
    }

    fn leader_in(&self, metrics: &Metrics) -> Option<Peer> {
        let leader = metrics.current_leader?;
        if leader == self.node && metrics.state != ServerState::Leader {
            return None;
        }
        let address = metrics.membership_config.get_node(&leader);
        convert::peer(Some(leader), address)
    }
}
