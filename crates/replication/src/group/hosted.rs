//! The side of a group that its peers see.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::raft::v1 as wire;
use api::{ApiError, Reason};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use openraft::EntryPayload;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use runtime::Instant;
use tonic::Status;

use super::Inner;
use crate::convert;
use crate::network::Behind;
use crate::network::service::Hosted;
use crate::raft::{AppendRequest, AppendResult, Entry, Snapshot, TypeConfig, Vote};
use crate::snapshot::{SnapshotFile, SnapshotStore};
use crate::{NodeId, StateMachine};

/// Lets the replica stand for election once its silence is over.
pub(super) async fn be_silent<S: StateMachine>(inner: Arc<Inner<S>>, until: Instant) {
    tokio::select! {
        () = inner.ended.cancelled() => return,
        () = inner.runtime().sleep_until(until) => inner.raft.runtime_config().elect(true),
    }
    inner.ended.cancelled().await;
}

impl<S: StateMachine> Inner<S> {
    fn unavailable(&self) -> Status {
        ApiError::new(Reason::Stopped, self.shared.halt.why()).into()
    }

    /// An answer that was worked out is worth nothing once the replica has fallen silent.
    fn unless_silent<T>(&self, answer: T) -> Result<T, Status> {
        if self.silence().is_cancelled() {
            return Err(self.unavailable());
        }
        Ok(answer)
    }
}

/// Bytes of a client's command in an entry.
fn command_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

#[async_trait]
impl<S: StateMachine> Hosted for Inner<S> {
    fn granted_lease_ms(&self) -> u32 {
        self.grants.own_ms()
    }

    fn wants_entry(&self) -> bool {
        self.wants_entry.load(Ordering::Relaxed) && self.wants_entry.swap(false, Ordering::Relaxed)
    }

    fn standing(&self) -> wire::Standing {
        self.network.standings.own()
    }

    fn hear(&self, from: u64, told: &[wire::Standing]) -> Result<(), Status> {
        self.network.standings.hear(from, told).map_err(|behind| {
            let reason = match behind {
                Behind::Own { .. } | Behind::Damaged { .. } => Reason::DataLoss,
                Behind::Peer { .. } => Reason::StaleIncarnation,
                Behind::TooMany { .. } => Reason::Malformed,
            };
            tracing::warn!(group = %self.shared.group, from, %behind, "a message is refused");
            ApiError::new(reason, behind.to_string()).into()
        })
    }

    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, Status> {
        // Before the restart this replica may have granted a leader its loyalty, and does not remember it.
        let silent = self
            .silent_until
            .is_some_and(|until| self.runtime().now() < until);
        if silent {
            let message = "this replica has just started and does not vote yet";
            return Err(ApiError::new(Reason::Starting, message).into());
        }
        let answer = if pre_vote {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        };
        let answer = answer.map_err(|_| self.unavailable())?;
        self.unless_silent(answer)
    }

    fn admit(&self, request: &AppendRequest) -> Result<(), Status> {
        // Elections and changes of members go on when the disk is full: the log keeps room for them.
        let bytes: usize = request.entries.iter().map(command_bytes).sum();
        if bytes == 0 {
            return Ok(());
        }
        self.wal
            .admit(bytes as u64)
            .map_err(|full| ApiError::new(Reason::DiskFull, full.to_string()).into())
    }

    fn append(
        &self,
        requests: BoxStream<'static, AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResult, Status>> {
        let silence = self.silence();
        let shared = Arc::clone(&self.shared);
        let requests = requests
            .take_until(silence.clone().cancelled_owned())
            .inspect(move |_| shared.hear_leader());
        self.raft
            .stream_append(requests.boxed())
            .take_until(silence.clone().cancelled_owned())
            .map(|answer| {
                answer.map_err(|fatal| ApiError::new(Reason::Stopped, fatal.to_string()).into())
            })
            .boxed()
    }

    fn higher_vote(&self, vote: &Vote) -> Option<Vote> {
        let known = self.metrics.borrow_watched().vote;
        (known > *vote).then_some(known)
    }

    fn snapshots(&self) -> Arc<SnapshotStore> {
        Arc::clone(&self.shared.snapshots)
    }

    async fn install(&self, vote: Vote, file: SnapshotFile) -> Result<Vote, Status> {
        if file.info().group != self.shared.group {
            return Err(ApiError::malformed("a snapshot of another group").into());
        }
        convert::check_not_later("snapshot", Some(&file.header().last), &vote)
            .map_err(|error| ApiError::malformed(error.to_string()))?;
        let snapshot = Snapshot {
            meta: file.header().meta(),
            snapshot: file,
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let answer = installed.map_err(|_| self.unavailable())?;
        self.unless_silent(answer.vote)
    }

    async fn take_lead(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<(), Status> {
        self.raft
            .handle_transfer_leader(request)
            .await
            .map_err(|_| self.unavailable())?
            .map_err(|refused| ApiError::new(Reason::NotNeeded, refused.to_string()).into())
    }

    async fn yield_lead(&self, to: NodeId) -> Result<(), Status> {
        if !self.successors().contains(&to) {
            let message = format!("there is no lead here that node {to} could take");
            return Err(ApiError::new(Reason::Aborted, message).into());
        }
        tracing::info!(group = %self.shared.group, %to, "the lead is asked for, and handed over");
        let begun = self.begin_hand_over(to).await;
        begun.map_err(|error| ApiError::new(Reason::Aborted, error.to_string()).into())
    }
}
