//! What is said of an action.

use cluster::limits::ACTION_TEXT_BYTES_MAX;
use cluster::{NodeId, ShardId};

use crate::admin::v1::ActionReport;

impl ActionReport {
    /// An action of whoever tells of it, and why it failed, if it did. Longer errors are cut to [`ACTION_TEXT_BYTES_MAX`].
    #[must_use]
    pub fn of(
        kind: &str,
        reason: &str,
        about: (Option<ShardId>, Option<NodeId>),
        error: &str,
    ) -> Self {
        let end = error.floor_char_boundary(ACTION_TEXT_BYTES_MAX);
        let (shard, node) = about;
        Self {
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            shard_id: shard.map(|shard| shard.0),
            node_id: node.unwrap_or_default().0,
            error: error.get(..end).unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// The same, done so often, and first and last then (milliseconds since the Unix epoch).
    #[must_use]
    pub fn seen(self, times: u64, first_ms: i64, last_ms: i64) -> Self {
        Self {
            times,
            first_ms,
            last_ms,
            ..self
        }
    }
}
