//! What a group says of itself, kept up to date from what openraft reports.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;

use super::Inner;
use crate::lease::Grants;
use crate::machine::Shared;
use crate::raft::{Metrics, ServerMetrics};
use crate::status::{GroupStatus, Replay, Role, StopCause};
use crate::{NodeId, StateMachine, convert};

/// The status of a replica by what openraft last reported.
pub(super) fn build<S: StateMachine>(
    shared: &Shared<S>,
    node: u64,
    grants: &Grants,
    metrics: &Metrics,
) -> GroupStatus {
    let stopped = shared.halt.get();
    let role = match metrics.state {
        _ if stopped.is_some() => Role::Stopped,
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    };
    let leader = metrics
        .current_leader
        .filter(|leader| *leader != node || role == Role::Leader);
    let address = leader.and_then(|leader| metrics.membership_config.get_node(&leader));
    let (done, target) = shared.progress.replay();
    let applied = shared.progress.applied();
    let committed = metrics.local_committed.map(|id| id.index());
    let configs = metrics.membership_config.membership().get_joint_config();
    let followed_at = (role == Role::Leader)
        .then(|| grants.majority_at(configs, node, metrics.current_term))
        .flatten();
    GroupStatus {
        group: shared.group,
        node: NodeId(node),
        role,
        term: metrics.current_term,
        leader: convert::peer(leader, address),
        members: convert::members(metrics.membership_config.membership()),
        joint: configs.len() > 1,
        last_log: metrics.last_log_index,
        committed: committed.max(applied.map(|at| at.index)),
        applied,
        snapshot: shared
            .snapshots
            .newest()
            .map(|file| file.info().applied.index),
        purged: metrics.purged.map(|id| id.index()),
        replay: Replay { done, target },
        quorum_ack_age: followed_at.map(|at| shared.runtime.now().saturating_since(at)),
        leader_silence: shared.leader_silence(),
        matched: metrics
            .replication
            .iter()
            .flatten()
            .map(|(node, matched)| (NodeId(*node), matched.as_ref().map(|id| id.index())))
            .collect(),
        stopped,
    }
}

/// Publishes a status whenever something changes that is not just a number. Once there is a reason to stop, whoever found it, all of the
/// replica stops.
pub(super) async fn follow<S: StateMachine>(inner: Arc<Inner<S>>) {
    // Openraft reports all it has several times for each entry, and this part of it when it is another one.
    let mut server = inner.raft.server_metrics();
    let mut metrics = inner.raft.metrics();
    loop {
        let changed = tokio::select! {
            () = inner.ended.cancelled() => return,
            () = inner.shared.halt.told() => Ok(()),
            changed = server.changed() => changed,
        };
        // The part is reported first, and the whole right after it.
        while changed.is_ok() && !has_all_of(&metrics.borrow_watched(), &server.borrow_watched()) {
            let reported = tokio::select! {
                () = inner.ended.cancelled() => return,
                () = inner.shared.halt.told() => break,
                reported = metrics.changed() => reported,
            };
            if reported.is_err() {
                break;
            }
        }
        let fatal = metrics.borrow_watched().running_state.clone().err();
        if let Some(fatal) = fatal {
            inner.stopped_by(&fatal);
        } else if changed.is_err() {
            inner.stopped_by(&Fatal::Stopped);
        }
        let now = inner.status_now();
        inner.status.send_if_modified(|before| {
            let differs = before.role != now.role
                || before.term != now.term
                || before.leader != now.leader
                || before.members != now.members
                || before.joint != now.joint
                || before.stopped != now.stopped;
            if differs {
                *before = now;
            }
            differs
        });
        if inner.shared.halt.is_set() {
            inner.tell_stop();
            inner.shutdown().await;
            return;
        }
    }
}

/// Whether what openraft reports as a whole is as new as the part of it that does not change with every entry.
fn has_all_of(whole: &Metrics, part: &ServerMetrics) -> bool {
    let of_part = (
        part.state,
        part.current_leader,
        part.vote,
        part.membership_config.log_id(),
    );
    let of_whole = (
        whole.state,
        whole.current_leader,
        whole.vote,
        whole.membership_config.log_id(),
    );
    of_part == of_whole
}

impl<S: StateMachine> Inner<S> {
    /// Openraft has stopped; whoever knew the reason better has said so before.
    fn stopped_by(&self, fatal: &Fatal<crate::raft::TypeConfig>) {
        let cause = if self.wal.is_poisoned() {
            StopCause::Disk
        } else {
            StopCause::Internal
        };
        self.shared.halt.set(cause, &fatal.to_string());
    }

    fn tell_stop(&self) {
        let stopped = self.shared.halt.get();
        if let Some(stopped) = stopped.filter(|stopped| stopped.cause != StopCause::Shutdown) {
            tracing::error!(
                group = %self.shared.group,
                cause = ?stopped.cause,
                reason = %stopped.reason,
                "a replica has stopped"
            );
        }
    }
}
