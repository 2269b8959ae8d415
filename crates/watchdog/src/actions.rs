//! What this watchdog did lately beside its turns at recoveries, for the status that the coordinators give.
//!
//! Coordinators are told all of it with every poll: one that was away, or has started anew, knows it after the next. What is kept is bounded, and goes
//! with the process.

use api::admin::v1::ActionReport;
use cluster::limits::ACTIONS_TOLD_MAX;
use cluster::{NodeId, ShardId};
use runtime::Runtime;
use telemetry::Recent;

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

/// The last of it. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Actions {
    kept: Recent<ActionReport>,
}

impl Actions {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        Self {
            kept: Recent::new(runtime, ACTIONS_TOLD_MAX),
        }
    }

    /// Nothing is begun from now on, or things are begun again.
    pub(crate) fn note_freeze(&self, before: Option<Freeze>, now: Option<Freeze>) {
        let (kind, why) = match (before, now) {
            (_, Some(why)) => ("freeze", why),
            (Some(why), None) => ("end_freeze", why),
            (None, None) => return,
        };
        let reason = why.as_str();
        self.kept
            .note(ActionReport::of(kind, reason, (None, None), ""));
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
        self.kept
            .note(ActionReport::of(kind, reason, (shard, Some(node)), &error));
    }

    /// All that is kept, the newest last.
    pub(crate) fn told(&self) -> Vec<ActionReport> {
        self.kept.told(ActionReport::seen)
    }
}
