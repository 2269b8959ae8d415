//! Why an operation failed.

use std::time::Duration;

use api::{ApiError, Outcome, Reason};

/// Why an operation of the client failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// An option is out of its range or not an address. Nothing was sent.
    #[error("{field}: {problem}")]
    Options {
        /// The option.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The cluster refused, or was not reached in time.
    #[error("{error}")]
    Call {
        /// The last error. Of a write, its outcome covers all tries: `UNKNOWN` as soon as one of them may have been applied.
        error: ApiError,
        /// Tries made.
        attempts: u32,
    },
    /// A server broke the protocol.
    #[error("the server broke the protocol: {problem}")]
    Protocol {
        /// What was wrong with its answer.
        problem: String,
    },
    /// The stream's driver has stopped; its batches' outcome is unknown.
    #[error("the stream is closed")]
    Closed,
}

impl ClientError {
    /// The cause, where the cluster named one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Call { error, attempts: _ } => Some(error.reason()),
            Self::Options { .. } | Self::Protocol { .. } | Self::Closed => None,
        }
    }

    /// How long to wait before the call is made again, where the cluster said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call { error, attempts: _ } => error.retry_after(),
            Self::Options { .. } | Self::Protocol { .. } | Self::Closed => None,
        }
    }

    /// Of a failed write: whether it may have been applied.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Call { error, attempts: _ } => error.outcome().unwrap_or(Outcome::Unknown),
            Self::Options { .. } => Outcome::NotApplied,
            Self::Protocol { .. } | Self::Closed => Outcome::Unknown,
        }
    }
}
