//! Counts what a coordinator does about the cluster, of its own accord or asked to: what, why, and what came of it; and keeps the
//! last of it for the status.
//!
//! All labels are words that stand in the source, so that there are few series; shards and nodes are named in the status, and in
//! the log, which tells of every action too. What is kept for the status goes with the process, and is bounded.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::ActionReport;
use cluster::{NodeId, ShardId};
use parking_lot::Mutex;
use runtime::Runtime;
use telemetry::{CounterFamily, Metrics, MetricsError, RecoveryMetrics};

/// How many actions are kept for the status.
const KEPT: usize = 64;

/// The kinds of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A shard server was given an identity, or has it confirmed.
    AdmitNode,
    /// A coordinator's place went to another directory.
    AdmitCoordinator,
    /// The group of the coordinators came a step closer to what the metadata say.
    ChangeCoordinators,
    /// The lead of the metadata was given away.
    MoveMetadataLead,
    /// Shards got their first places.
    PlaceShards,
    /// A change of a shard's members was begun.
    ChangeMembers,
    /// A newcomer follows.
    AddLearner,
    /// A newcomer votes.
    Promote,
    /// A member left.
    RemoveMember,
    /// The lead of a shard was moved.
    MoveLead,
    /// A node is to hold nothing, or may hold replicas again.
    Drain,
    /// A node set its data aside.
    SetDataAside,
    /// A shard began a new life.
    BeginAnew,
}

impl Action {
    const fn label(self) -> &'static str {
        match self {
            Self::AdmitNode => "admit_node",
            Self::AdmitCoordinator => "admit_coordinator",
            Self::ChangeCoordinators => "change_coordinators",
            Self::MoveMetadataLead => "move_metadata_lead",
            Self::PlaceShards => "place_shards",
            Self::ChangeMembers => "change_members",
            Self::AddLearner => "add_learner",
            Self::Promote => "promote",
            Self::RemoveMember => "remove_member",
            Self::MoveLead => "move_lead",
            Self::Drain => "drain",
            Self::SetDataAside => "set_data_aside",
            Self::BeginAnew => "begin_anew",
        }
    }
}

/// The reason of what an operator asked for.
pub(crate) const ASKED: &str = "asked";
/// The reason of a step of a change that was counted, with its own reason, when it was begun.
pub(crate) const PLANNED: &str = "planned";

/// What an action was about, where that is one shard, one node, or one of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) shard: Option<ShardId>,
    pub(crate) node: Option<NodeId>,
}

impl About {
    pub(crate) fn shard(shard: ShardId) -> Self {
        Self {
            shard: Some(shard),
            node: None,
        }
    }

    pub(crate) fn node(node: NodeId) -> Self {
        Self {
            shard: None,
            node: Some(node),
        }
    }

    pub(crate) fn with_node(self, node: Option<NodeId>) -> Self {
        Self { node, ..self }
    }
}

/// `autocomplete_coordinator_actions_total`, and of the recoveries of shards those that are a coordinator's: a replica that is lost or gone
/// is built anew elsewhere. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Actions {
    counters: CounterFamily<3>,
    recoveries: RecoveryMetrics,
    runtime: Runtime,
    /// The newest last.
    kept: Arc<Mutex<VecDeque<ActionReport>>>,
}

impl Actions {
    pub(crate) fn new(runtime: &Runtime, metrics: &Metrics) -> Result<Self, MetricsError> {
        let counters = metrics.part("coordinator")?.counters(
            "actions_total",
            "What this coordinator did about the cluster, by why and by what came of it.",
            ["kind", "reason", "outcome"],
        )?;
        Ok(Self {
            counters,
            recoveries: metrics.recovery()?,
            runtime: runtime.clone(),
            kept: Arc::default(),
        })
    }

    /// Counts an attempt, and keeps it. `reason` is one of a few words.
    pub(crate) fn count<T, E: Display>(
        &self,
        action: Action,
        reason: &'static str,
        about: About,
        result: &Result<T, E>,
    ) {
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let labels = [action.label(), reason, outcome];
        self.counters.with(labels).increment();
        let error = result.as_ref().err().map(E::to_string);
        self.keep(ActionReport {
            coordinator_id: 0,
            kind: action.label().to_owned(),
            reason: reason.to_owned(),
            shard_id: about.shard.map(|shard| shard.0),
            node_id: about.node.unwrap_or_default().0,
            error: error.unwrap_or_default(),
            times: 1,
            first_ms: 0,
            last_ms: 0,
        });
    }

    /// What is tried again and again is kept once, so that it does not drive out the rest.
    fn keep(&self, mut new: ActionReport) {
        let now_ms = self.runtime.wall_ms();
        let mut kept = self.kept.lock();
        let same = |old: &ActionReport| {
            let of = |at: &ActionReport| (at.shard_id, at.node_id);
            of(old) == of(&new)
                && old.kind == new.kind
                && old.reason == new.reason
                && old.error == new.error
        };
        let before = kept.iter().position(same).and_then(|at| kept.remove(at));
        new.times += before.as_ref().map_or(0, |before| before.times);
        new.first_ms = before.map_or(now_ms, |before| before.first_ms);
        new.last_ms = now_ms;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(new);
    }

    /// The last of what was done, the newest last, as the coordinator of this number.
    pub(crate) fn told(&self, coordinator_id: u64) -> Vec<ActionReport> {
        let kept = self.kept.lock();
        let reports = kept.iter().map(|kept| ActionReport {
            coordinator_id,
            ..kept.clone()
        });
        reports.collect()
    }

    /// Another replica is to take the place of one that is lost or gone.
    pub(crate) fn recovery_begun(&self, shard_key: &str) {
        self.recoveries.begun(shard_key);
    }

    /// It has, and votes.
    pub(crate) fn recovered(&self, shard_key: &str, took: Duration) {
        self.recoveries.ended(shard_key, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions() -> Actions {
        let runtime = Runtime::real();
        let metrics = Metrics::new(&runtime).unwrap();
        Actions::new(&runtime, &metrics).unwrap()
    }

    #[test]
    fn what_is_tried_again_and_again_is_kept_once() {
        let actions = actions();
        let shard = |number| About::shard(ShardId(number)).with_node(Some(NodeId(7)));
        for _ in 0..KEPT * 2 {
            for number in [1, 2] {
                let failed: Result<(), &str> = Err("nobody is there");
                actions.count(Action::MoveLead, "uneven", shard(number), &failed);
            }
        }
        let done: Result<(), &str> = Ok(());
        actions.count(Action::MoveLead, "uneven", shard(1), &done);
        let told = actions.told(3);
        let words: Vec<_> = told
            .iter()
            .map(|at| {
                (
                    at.coordinator_id,
                    at.shard_id,
                    at.node_id,
                    at.times,
                    at.error.as_str(),
                )
            })
            .collect();
        let often = KEPT as u64 * 2;
        assert_eq!(
            words,
            [
                (3, Some(1), 7, often, "nobody is there"),
                (3, Some(2), 7, often, "nobody is there"),
                (3, Some(1), 7, 1, ""),
            ]
        );
        assert!(
            told.iter()
                .all(|at| at.first_ms <= at.last_ms && at.first_ms > 0)
        );
    }

    #[test]
    fn the_oldest_makes_room() {
        let actions = actions();
        let done: Result<(), &str> = Ok(());
        for node in 1..=KEPT as u64 + 5 {
            actions.count(Action::AdmitNode, "new", About::node(NodeId(node)), &done);
        }
        let nodes: Vec<u64> = actions.told(1).iter().map(|at| at.node_id).collect();
        assert_eq!(nodes, (6..=KEPT as u64 + 5).collect::<Vec<_>>());
    }
}
