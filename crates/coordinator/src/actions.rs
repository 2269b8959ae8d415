//! Counts what a coordinator does about the cluster, of its own accord or asked to: what, why, and what came of it; and keeps the
//! last of it for the status.
//!
//! All labels are words that stand in the source, so that there are few series; shards and nodes are named in the status, and in
//! the log. What is kept for the status goes with the process, and is bounded.

use std::fmt::Display;
use std::time::Duration;

use api::admin::v1::ActionReport;
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId, limits};
use runtime::Runtime;
use telemetry::{CounterFamily, Metrics, MetricsError, Recent, RecoveryMetrics};

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
    /// A snapshot was fetched from a shard.
    PullSnapshot,
    /// A held snapshot was sent to a shard's node.
    PushSnapshot,
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
            Self::PullSnapshot => "pull_snapshot",
            Self::PushSnapshot => "push_snapshot",
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

/// `autocomplete_coordinator_actions_total`, and of the recoveries of shards those that are a coordinator's: a replica that is away, or a vote
/// that is missing, is made up for by another one, or a shard begins anew. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Actions {
    counters: CounterFamily<3>,
    recoveries: RecoveryMetrics,
    kept: Recent<ActionReport>,
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
            kept: Recent::new(runtime, KEPT),
        })
    }

    /// Counts an attempt, logs it, and keeps it. `reason` is one of a few words.
    pub(crate) fn count<T, E: Display>(
        &self,
        action: Action,
        reason: &'static str,
        about: About,
        result: &Result<T, E>,
    ) {
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let kind = action.label();
        let labels = [kind, reason, outcome];
        self.counters.with(labels).increment();
        let error = result.as_ref().err().map(E::to_string);
        let error = error.unwrap_or_default();
        let About { shard, node } = about;
        tracing::info!(kind, reason, ?shard, ?node, outcome, error, "action");
        let report = ActionReport::of(kind, reason, (shard, node), &error);
        self.kept.note(report);
    }

    /// The last of what was done, the newest last, as the coordinator of this number.
    pub(crate) fn told(&self, coordinator_id: u64) -> Vec<ActionReport> {
        let mut told = self.kept.told(ActionReport::seen);
        for report in &mut told {
            report.coordinator_id = coordinator_id;
        }
        told
    }

    /// A shard is to be made whole again, or to begin anew.
    pub(crate) fn recovery_begun(&self, shard_key: &str) {
        self.recoveries.begun(shard_key);
    }

    /// It is, or it serves in its new life.
    pub(crate) fn recovered(&self, shard_key: &str, took: Duration) {
        self.recoveries.ended(shard_key, took);
    }
}

/// Whether what somebody else did is told as the limits want it, since it is kept.
pub(crate) fn check_actions(field: &'static str, actions: &[ActionReport]) -> Result<(), ApiError> {
    let is_short = |action: &ActionReport| {
        let texts = [&action.kind, &action.reason, &action.error];
        texts
            .iter()
            .all(|text| text.len() <= limits::ACTION_TEXT_BYTES_MAX)
    };
    if actions.len() <= limits::ACTIONS_TOLD_MAX && actions.iter().all(is_short) {
        return Ok(());
    }
    let (count, bytes) = (limits::ACTIONS_TOLD_MAX, limits::ACTION_TEXT_BYTES_MAX);
    let problem = format!("must be at most {count}, with texts of {bytes} bytes each");
    Err(ApiError::field(Reason::BadArgument, field, problem))
}
