//! Counts what a coordinator does about the cluster, of its own accord or asked to: what, why, and what came of it.
//!
//! All labels are words that stand in the source, so that there are few series; shards and nodes are named in the log, which tells of
//! every action too.

use std::time::Duration;

use telemetry::{CounterFamily, Metrics, MetricsError, RecoveryMetrics};

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

/// `autocomplete_coordinator_actions_total`, and of the recoveries of shards those that are a coordinator's: a replica that is lost or gone
/// is built anew elsewhere. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Actions {
    counters: CounterFamily<3>,
    recoveries: RecoveryMetrics,
}

impl Actions {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let counters = metrics.part("coordinator")?.counters(
            "actions_total",
            "What this coordinator did about the cluster, by why and by what came of it.",
            ["kind", "reason", "outcome"],
        )?;
        Ok(Self {
            counters,
            recoveries: metrics.recovery()?,
        })
    }

    /// Counts an attempt. `reason` is one of a few words.
    pub(crate) fn count<T, E>(&self, action: Action, reason: &'static str, result: &Result<T, E>) {
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let labels = [action.label(), reason, outcome];
        self.counters.with(labels).increment();
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
