//! What this watchdog did lately beside its turns at recoveries: counted, and kept for the status that the coordinators give.
//!
//! Coordinators are told all of it with every poll: one that was away, or has started anew, knows it after the next. What is kept is bounded, and goes
//! with the process.

use api::admin::v1::ActionReport;
use cluster::limits::ACTIONS_TOLD_MAX;
use cluster::{NodeId, ShardId};
use runtime::Runtime;
use telemetry::{CounterFamily, Metrics, MetricsError, Recent};

use crate::policy::Freeze;
use crate::restart::{Restart, RestartError};

/// Whom a process is restarted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// A shard that is being recovered.
    Shard(ShardId),
    /// Nobody yet: it holds no replica.
    Reserve,
}

/// `autocomplete_watchdog_actions_total`, and the last of it. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Actions {
    counters: CounterFamily<3>,
    kept: Recent<ActionReport>,
}

impl Actions {
    pub(crate) fn new(runtime: &Runtime, metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            counters: metrics.part("watchdog")?.counters(
                "actions_total",
                "What this watchdog did beside its turns at recoveries, by why and by what came of it.",
                ["kind", "reason", "outcome"],
            )?,
            kept: Recent::new(runtime, ACTIONS_TOLD_MAX),
        })
    }

    /// Nothing is begun from now on, or things are begun again.
    pub(crate) fn note_freeze(&self, before: Option<Freeze>, now: Option<Freeze>) {
        let (kind, why) = match (before, now) {
            (_, Some(why)) => ("freeze", why),
            (Some(why), None) => ("end_freeze", why),
            (None, None) => return,
        };
        self.note(kind, why.as_str(), (None, None), "");
    }

    /// A shard should have been recovered, and no coordinator granted the turn. Without the shard, of which there may be more than
    /// actions that are kept; the metric of failed recoveries has it.
    pub(crate) fn note_withheld(&self) {
        self.note("withhold_recovery", "no_turn", (None, None), "");
    }

    /// A process was restarted, or left to whoever else does that, or neither could be done.
    pub(crate) fn note_restart(
        &self,
        node: NodeId,
        why: For,
        result: &Result<Restart, RestartError>,
    ) {
        let kind = match result {
            Ok(Restart::LeftToOthers) => "leave_restart_to_others",
            Ok(Restart::Begun) | Err(_) => "restart",
        };
        let (reason, shard) = match why {
            For::Shard(shard) => ("shard_recovery", Some(shard)),
            For::Reserve => ("silent_without_replicas", None),
        };
        let error = result.as_ref().err().map(ToString::to_string);
        let error = error.unwrap_or_default();
        self.note(kind, reason, (shard, Some(node)), &error);
    }

    /// `kind` and `reason` are each one of a few words, `error` is empty where it was done.
    fn note(
        &self,
        kind: &'static str,
        reason: &'static str,
        about: (Option<ShardId>, Option<NodeId>),
        error: &str,
    ) {
        let outcome = if error.is_empty() { "done" } else { "failed" };
        self.counters.with([kind, reason, outcome]).increment();
        self.kept.note(ActionReport::of(kind, reason, about, error));
    }

    /// All that is kept, the newest last.
    pub(crate) fn told(&self) -> Vec<ActionReport> {
        self.kept.told(ActionReport::seen)
    }
}

#[cfg(test)]
impl Actions {
    /// Those of a watchdog that nobody scrapes.
    pub(crate) fn of_a_test(runtime: &Runtime) -> Self {
        Self::new(runtime, &Metrics::new(runtime).unwrap()).unwrap()
    }
}
