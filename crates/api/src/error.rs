//! The one place where an error for the wire is built.
//!
//! A server's handler makes an [`ApiError`] from a [`Reason`] and a message; the status code, the advice on retrying and
//! what became of a write follow from the reason alone, by the table in `reason.rs`. A client makes an `ApiError` of
//! whatever status it got, so that both sides speak of the same set.
//!
//! What always holds: every status made here carries `google.rpc.ErrorInfo` with the domain [`DOMAIN`] and one
//! of the closed set of reasons; a reason never travels with another code than its own. Texts are cut at
//! [`MESSAGE_BYTES_MAX`], because they travel in a header.

mod reason;
mod status;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cluster::{Epoch, NodeId};
use tonic::Code;

use crate::admin::v1::ShardMap;

pub use reason::{Reason, Retry};
pub use wire::item_error;

/// The domain of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "autocomplete";

/// Longer messages are cut to this many bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A map above this size when encoded is not attached to an error: details travel in a header, whose list is
/// limited to 16 KiB.
pub const ATTACHED_MAP_BYTES_MAX: usize = 4096;

/// What became of a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing happened.
    NotApplied,
    /// It may have happened; a retry with the same request id is safe and tells.
    Unknown,
}

impl Outcome {
    /// As it stands in the metadata of `ErrorInfo`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotApplied => "NOT_APPLIED",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::NotApplied, Self::Unknown]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// An error as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    reason: Reason,
    outcome: Option<Outcome>,
    message: String,
    field: Option<Box<str>>,
    retry_after: Option<Duration>,
    extra: Box<Extra>,
}

/// What few errors carry.
#[derive(Debug, Clone, PartialEq, Default)]
struct Extra {
    leader: Option<NodeId>,
    epoch: Option<Epoch>,
    map: Option<ShardMap>,
    metadata: BTreeMap<String, String>,
}

impl ApiError {
    /// An error of this cause; the message is for people and names what is wrong and the limit.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self {
            reason,
            outcome: None,
            message,
            field: None,
            retry_after: None,
            extra: Box::default(),
        }
    }

    /// A field of the request is at fault; `problem` follows its name: `must not be empty`.
    #[must_use]
    pub fn field(reason: Reason, field: impl Into<String>, problem: impl fmt::Display) -> Self {
        let field = field.into();
        let mut error = Self::new(reason, format!("{field}: {problem}"));
        error.field = Some(field.into_boxed_str());
        error
    }

    /// Bytes that are no valid message.
    #[must_use]
    pub fn malformed(problem: impl fmt::Display) -> Self {
        Self::new(Reason::Malformed, format!("malformed message: {problem}"))
    }

    /// A message above the limit of the interface; `found` where the size is known.
    #[must_use]
    pub fn message_too_large(found: Option<usize>, limit: usize) -> Self {
        let message = match found {
            Some(found) => format!("the message has {found} bytes, more than the limit of {limit}"),
            None => format!("the message has more than the limit of {limit} bytes"),
        };
        Self::new(Reason::MessageTooLarge, message)
    }

    /// Too much is waiting; come back after `retry_after`.
    #[must_use]
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Reason::Overloaded, message).with_retry_after(retry_after)
    }

    /// The deadline passed.
    #[must_use]
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(Reason::Deadline, message)
    }

    /// Another replica leads.
    #[must_use]
    pub fn not_leader(leader: Option<NodeId>) -> Self {
        let message = match leader {
            Some(node) => format!("this replica does not lead, node {node} does"),
            None => "this replica does not lead, and the leader is not known".to_owned(),
        };
        Self::new(Reason::NotLeader, message).with_leader(leader)
    }

    /// The caller's map is of another epoch than the server's.
    #[must_use]
    pub fn stale_epoch(theirs: Epoch, ours: Epoch) -> Self {
        Self::new(
            Reason::StaleEpoch,
            format!("routed by epoch {theirs} of the shard map, epoch {ours} is known here"),
        )
        .with_epoch(ours)
    }

    /// A mistake in the program; the message must not hold what a caller may not see.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// Says what became of the write.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Says what became of the write by the reason, unless that was said before. Every error of a write passes here.
    #[must_use]
    pub fn for_write(mut self) -> Self {
        self.outcome.get_or_insert(self.reason.outcome_of_write());
        self
    }

    /// Says that an earlier try of the same write may have been applied: even if this one was not, the outcome of both is unknown.
    #[must_use]
    pub fn after_unknown(self) -> Self {
        let mut error = self.for_write();
        if error.outcome == Some(Outcome::NotApplied) {
            let message = format!(
                "{}, and an earlier try may have been applied",
                error.message
            );
            error.message = message;
            let end = error.message.floor_char_boundary(MESSAGE_BYTES_MAX);
            error.message.truncate(end);
            error.outcome = Some(Outcome::Unknown);
        }
        error
    }

    /// Advises when to come back.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Names the leader.
    #[must_use]
    pub fn with_leader(mut self, leader: Option<NodeId>) -> Self {
        self.extra.leader = leader;
        self
    }

    /// Names the epoch of the server's map.
    #[must_use]
    pub fn with_epoch(mut self, epoch: Epoch) -> Self {
        self.extra.epoch = Some(epoch);
        self
    }

    /// Attaches the server's map and its epoch. A map above [`ATTACHED_MAP_BYTES_MAX`] is left out of the status; the
    /// epoch still tells the caller to fetch it.
    #[must_use]
    pub fn with_map(mut self, map: ShardMap) -> Self {
        self.extra.epoch = Some(Epoch(map.epoch));
        self.extra.map = Some(map);
        self
    }

    /// Adds a fact for machines to `ErrorInfo`'s metadata.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.metadata.insert(key.into(), value.into());
        self
    }

    /// Puts `place` in front of the field's name and the message, as in `items[3].term: must not be empty`.
    #[must_use]
    pub fn inside(mut self, place: &str) -> Self {
        let field = match &self.field {
            Some(field) => format!("{place}.{field}"),
            None => place.to_owned(),
        };
        let joint = if self.field.is_some() { "." } else { ": " };
        let mut message = format!("{place}{joint}{}", self.message);
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        self.message = message;
        self.field = Some(field.into_boxed_str());
        self
    }

    /// The cause.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The status code, which follows from the cause.
    #[must_use]
    pub fn code(&self) -> Code {
        self.reason.code()
    }

    /// What a caller should do.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.reason.retry()
    }

    /// What became of the write; `None` for reads and where nobody said.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field at fault.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// When to come back.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The leader, with [`Reason::NotLeader`] where it is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.extra.leader
    }

    /// The epoch of the server's map, where that is what the caller lacks.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.extra.epoch
    }

    /// The server's map, where it was attached.
    #[must_use]
    pub fn map(&self) -> Option<&ShardMap> {
        self.extra.map.as_ref()
    }

    /// Further facts for machines.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.extra.metadata
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests;
