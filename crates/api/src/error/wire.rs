//! Errors inside of messages: the status of one request of a stream, and the result of one item of a batch.

use std::time::Duration;

use cluster::{Epoch, NodeId};
use tonic::Code;

use super::{ApiError, Outcome, Reason};
use crate::shard::v1 as wire;
use crate::v1::ItemResult;

impl From<ApiError> for wire::RequestError {
    fn from(error: ApiError) -> Self {
        let outcome = match error.outcome {
            None => wire::Outcome::Unspecified,
            Some(Outcome::NotApplied) => wire::Outcome::NotApplied,
            Some(Outcome::Unknown) => wire::Outcome::Unknown,
        };
        let retry_after_ms = error.retry_after.map_or(0, |delay| {
            u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
        });
        Self {
            code: error.code() as i32,
            reason: error.reason.as_str().to_owned(),
            leader_node_id: error.leader().map_or(0, |node| node.0),
            outcome: outcome.into(),
            retry_after_ms,
            epoch: error.epoch().map_or(0, |epoch| epoch.0),
            field: error.field.map(String::from).unwrap_or_default(),
            message: error.message,
        }
    }
}

impl From<wire::RequestError> for ApiError {
    fn from(wire: wire::RequestError) -> Self {
        let code = Code::from_i32(wire.code);
        let reason = Reason::parse(&wire.reason)
            .filter(|known| known.code() == code)
            .or(Reason::of_code(code))
            .unwrap_or(Reason::Internal);
        let mut error = Self::new(reason, wire.message);
        error.outcome = match wire::Outcome::try_from(wire.outcome) {
            Ok(wire::Outcome::NotApplied) => Some(Outcome::NotApplied),
            Ok(wire::Outcome::Unknown) => Some(Outcome::Unknown),
            Ok(wire::Outcome::Unspecified) | Err(_) => None,
        };
        error.retry_after =
            (wire.retry_after_ms > 0).then(|| Duration::from_millis(wire.retry_after_ms));
        error.extra.leader = (wire.leader_node_id > 0).then_some(NodeId(wire.leader_node_id));
        error.extra.epoch = (wire.epoch > 0).then_some(Epoch(wire.epoch));
        error.field = (!wire.field.is_empty()).then(|| wire.field.into_boxed_str());
        error
    }
}

impl From<&ApiError> for ItemResult {
    /// The outcome of an item follows from its reason, so that an outcome which is unknown although the reason would say that nothing was
    /// applied takes another reason: `SHARD_UNAVAILABLE`.
    fn from(error: &ApiError) -> Self {
        item_error(match error.outcome {
            Some(Outcome::Unknown) => error.reason.of_unknown_outcome(),
            Some(Outcome::NotApplied) | None => error.reason,
        })
    }
}

/// The result of an item that failed for this cause. Its outcome follows from the reason, see
/// [`Reason::outcome_of_write`].
#[must_use]
pub fn item_error(reason: Reason) -> ItemResult {
    ItemResult {
        count: 0,
        code: reason.code() as i32,
        reason: reason.as_str().to_owned(),
        repeated: false,
    }
}

impl ItemResult {
    /// Why the item failed; `None` when it was applied.
    #[must_use]
    pub fn error(&self) -> Option<Reason> {
        let code = Code::from_i32(self.code);
        Reason::parse(&self.reason)
            .filter(|known| known.code() == code)
            .or(Reason::of_code(code))
    }
}
