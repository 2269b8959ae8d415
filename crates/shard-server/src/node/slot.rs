//! What a node holds of a shard.

use std::sync::Arc;

use api::{ApiError, Reason};
use cluster::{Incarnation, ShardId};
use replication::ReplayWatch;
use runtime::Instant;

use super::replica::Replica;

/// The place of a shard on this node.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) incarnation: Incarnation,
    pub(crate) state: SlotState,
}

/// What is in the place.
#[derive(Debug, Clone)]
pub(crate) enum SlotState {
    /// It is being brought back, or begun.
    Starting(Option<ReplayWatch>),
    /// It cannot begin yet; tried again when something changes.
    Waiting {
        /// For what.
        reason: String,
    },
    /// It runs (or has stopped, as its group says).
    Running(Arc<Replica>),
    /// It could not be started.
    Failed(Failure),
}

/// Why a replica could not be started.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Its data is damaged or gone: nothing helps but a repair.
    pub(crate) data_loss: bool,
    /// When it is tried again, where that may help.
    pub(crate) retry_at: Option<Instant>,
}

impl Slot {
    /// The replica, or why there is none.
    pub(crate) fn replica(&self, shard: ShardId) -> Result<&Arc<Replica>, ApiError> {
        let error = match &self.state {
            SlotState::Running(replica) => return Ok(replica),
            SlotState::Starting(_) => ApiError::new(
                Reason::Starting,
                format!("shard {shard} is being recovered"),
            ),
            SlotState::Waiting { reason } => {
                ApiError::new(Reason::Starting, format!("shard {shard} waits: {reason}"))
            }
            SlotState::Failed(failure) if failure.data_loss => ApiError::new(
                Reason::DataLoss,
                format!("shard {shard} is damaged: {}", failure.reason),
            ),
            SlotState::Failed(failure) => ApiError::new(
                Reason::Stopped,
                format!("shard {shard} did not start: {}", failure.reason),
            ),
        };
        // Nothing was ever tried.
        Err(error)
    }

    /// Whether it waits for something before it can start.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.state {
            SlotState::Waiting { .. } => true,
            SlotState::Starting(_) | SlotState::Running(_) | SlotState::Failed(_) => false,
        }
    }

    /// Whether a task is at work on it.
    pub(crate) fn is_starting(&self) -> bool {
        match &self.state {
            SlotState::Starting(_) => true,
            SlotState::Waiting { .. } | SlotState::Running(_) | SlotState::Failed(_) => false,
        }
    }

    /// The running replica.
    pub(crate) fn running(&self) -> Option<&Arc<Replica>> {
        match &self.state {
            SlotState::Running(replica) => Some(replica),
            SlotState::Starting(_) | SlotState::Waiting { .. } | SlotState::Failed(_) => None,
        }
    }
}
