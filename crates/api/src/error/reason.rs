//! The closed set of causes, and what each means to a caller: one table.

use tonic::Code;

use super::Outcome;

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call would fail again.
    Never,
    /// Call again after a pause, with the same request id if it was a write.
    SameRequest,
    /// Call again, not before the delay that the error carries.
    AfterDelay,
    /// Refresh the shard map (or follow the leader that the error names), then call again.
    Reroute,
}

/// Declares [`Reason`] and everything that follows from a reason, so that none can lack a rule.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal, $code:ident, $outcome:ident, $retry:ident;)+) => {
        /// Why a call failed. What is on the wire is the text of [`Reason::as_str`]; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason as it stands in `google.rpc.ErrorInfo`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The status that a call with this cause ends with.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// What became of a write that failed for this cause, where whoever refused it does not know better.
            #[must_use]
            pub const fn outcome_of_write(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)+ }
            }

            /// What a caller should do.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)+ }
            }
        }
    };
}

reasons! {
    /// A term is empty or too long.
    BadTerm = "BAD_TERM", InvalidArgument, NotApplied, Never;
    /// A prefix is too long.
    BadPrefix = "BAD_PREFIX", InvalidArgument, NotApplied, Never;
    /// The name of a namespace is not allowed.
    BadNamespace = "BAD_NAMESPACE", InvalidArgument, NotApplied, Never;
    /// A count is above the limit.
    BadCount = "BAD_COUNT", InvalidArgument, NotApplied, Never;
    /// A request id has the wrong length or comes from the future.
    BadRequestId = "BAD_REQUEST_ID", InvalidArgument, NotApplied, Never;
    /// A session token or a page token is not one of ours.
    BadToken = "BAD_TOKEN", InvalidArgument, NotApplied, Never;
    /// A page size, an enum or another argument is outside its range.
    BadArgument = "BAD_ARGUMENT", InvalidArgument, NotApplied, Never;
    /// More items in one call than are allowed.
    BatchTooLarge = "BATCH_TOO_LARGE", InvalidArgument, NotApplied, Never;
    /// The bytes are no valid message, or a string in it is not UTF-8.
    Malformed = "MALFORMED", InvalidArgument, NotApplied, Never;
    /// The request id was used before for another payload.
    RequestIdReused = "REQUEST_ID_REUSED", InvalidArgument, NotApplied, Never;
    /// A count would pass 2^64 - 1.
    CountOverflow = "COUNT_OVERFLOW", OutOfRange, NotApplied, Never;
    /// The message is above the limit of its interface.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted, NotApplied, Never;
    /// More work is waiting than can be done in time.
    Overloaded = "OVERLOADED", ResourceExhausted, NotApplied, AfterDelay;
    /// The disk has no room for more log.
    DiskFull = "DISK_FULL", ResourceExhausted, NotApplied, AfterDelay;
    /// The dictionary has reached its memory budget.
    MemoryBudget = "MEMORY_BUDGET", ResourceExhausted, NotApplied, AfterDelay;
    /// No further namespace may be created.
    TooManyNamespaces = "TOO_MANY_NAMESPACES", ResourceExhausted, NotApplied, Never;
    /// The caller's map is older (or newer) than the server's.
    StaleEpoch = "STALE_EPOCH", FailedPrecondition, NotApplied, Reroute;
    /// The server does not own what was asked for.
    WrongShard = "WRONG_SHARD", FailedPrecondition, NotApplied, Reroute;
    /// The shard was begun anew since the caller learned of it.
    StaleIncarnation = "STALE_INCARNATION", FailedPrecondition, NotApplied, Reroute;
    /// The namespace was cleared since the caller looked it up.
    StaleGeneration = "STALE_GENERATION", FailedPrecondition, NotApplied, Reroute;
    /// The request id is so old that the shard cannot tell whether it was applied.
    SessionExpired = "SESSION_EXPIRED", FailedPrecondition, Unknown, Never;
    /// A session token names an incarnation that nobody knows.
    UnknownIncarnation = "UNKNOWN_INCARNATION", FailedPrecondition, NotApplied, Never;
    /// The identity of this node was given up.
    NodeLost = "NODE_LOST", FailedPrecondition, NotApplied, Never;
    /// The message was meant for another node.
    WrongNode = "WRONG_NODE", FailedPrecondition, NotApplied, Reroute;
    /// The verb wants to be confirmed by a person.
    ConfirmationRequired = "CONFIRMATION_REQUIRED", FailedPrecondition, NotApplied, Never;
    /// The verb is refused because the shard serves, or the node is healthy.
    NotNeeded = "NOT_NEEDED", FailedPrecondition, NotApplied, Never;
    /// Another replica leads; the error names it when it is known.
    NotLeader = "NOT_LEADER", Unavailable, NotApplied, Reroute;
    /// A majority of the replicas could not be reached.
    NoQuorum = "NO_QUORUM", Unavailable, Unknown, SameRequest;
    /// The server or the replica is still opening its data.
    Starting = "STARTING", Unavailable, NotApplied, SameRequest;
    /// The server is shutting down, or the replica was stopped by a fault.
    Stopped = "STOPPED", Unavailable, Unknown, SameRequest;
    /// A shard gave no answer.
    ShardUnavailable = "SHARD_UNAVAILABLE", Unavailable, Unknown, SameRequest;
    /// A part of the answer is missing, and the caller wanted all of it.
    Incomplete = "INCOMPLETE", Unavailable, NotApplied, SameRequest;
    /// The peer was not reached, or the connection broke.
    Disconnected = "DISCONNECTED", Unavailable, Unknown, SameRequest;
    /// The deadline passed.
    Deadline = "DEADLINE", DeadlineExceeded, Unknown, SameRequest;
    /// The caller went away.
    Cancelled = "CANCELLED", Cancelled, Unknown, SameRequest;
    /// The operation was given up half way and may be tried again.
    Aborted = "ABORTED", Aborted, Unknown, SameRequest;
    /// Damage was found and is not repaired yet.
    DataLoss = "DATA_LOSS", DataLoss, Unknown, Never;
    /// The message comes from another cluster.
    WrongCluster = "WRONG_CLUSTER", PermissionDenied, NotApplied, Never;
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, NotApplied, Never;
    /// The caller did not say who it is.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, NotApplied, Never;
    /// No shard of this id is known here.
    UnknownShard = "UNKNOWN_SHARD", NotFound, NotApplied, Reroute;
    /// There is no snapshot to answer with.
    UnknownSnapshot = "UNKNOWN_SNAPSHOT", NotFound, NotApplied, Never;
    /// What was named does not exist.
    NotFound = "NOT_FOUND", NotFound, NotApplied, Never;
    /// What was to be made exists already.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists, NotApplied, Never;
    /// The server does not have this method.
    Unimplemented = "UNIMPLEMENTED", Unimplemented, NotApplied, Never;
    /// A mistake in the program.
    Internal = "INTERNAL", Internal, Unknown, Never;
}

impl Reason {
    /// The reason to give in place of this one for a write whose outcome is unknown, where a reason is all that can be given: one that
    /// does not say that nothing was applied.
    #[must_use]
    pub const fn of_unknown_outcome(self) -> Self {
        match self.outcome_of_write() {
            Outcome::NotApplied => Self::ShardUnavailable,
            Outcome::Unknown => self,
        }
    }

    /// The reason of this text, if it is one of the set.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
    }

    /// The reason for a status that came without one of ours: from a proxy, the transport, or a newer server.
    /// `None` for `OK`.
    #[must_use]
    pub const fn of_code(code: Code) -> Option<Self> {
        Some(match code {
            Code::Ok => return None,
            Code::Cancelled => Self::Cancelled,
            // What the transport reports when a connection breaks under a call.
            Code::Unknown | Code::Unavailable => Self::Disconnected,
            Code::InvalidArgument => Self::BadArgument,
            Code::DeadlineExceeded => Self::Deadline,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::Overloaded,
            Code::FailedPrecondition => Self::NotNeeded,
            Code::Aborted => Self::Aborted,
            Code::OutOfRange => Self::CountOverflow,
            Code::Unimplemented => Self::Unimplemented,
            Code::Internal => Self::Internal,
            Code::DataLoss => Self::DataLoss,
            Code::Unauthenticated => Self::Unauthenticated,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_text_is_upper_snake_case_unique_and_parses_back() {
        let mut seen = HashSet::new();
        for &reason in Reason::ALL {
            let text = reason.as_str();
            assert!(
                text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
                "{text}"
            );
            assert!(seen.insert(text), "{text} twice");
            assert_eq!(Reason::parse(text), Some(reason));
        }
        assert_eq!(Reason::parse("bad_term"), None);
        assert_eq!(Reason::parse(""), None);
    }

    #[test]
    fn no_reason_means_success() {
        for &reason in Reason::ALL {
            assert_ne!(reason.code(), Code::Ok, "{reason:?}");
        }
    }

    #[test]
    fn what_is_refused_for_its_form_was_never_applied() {
        for &reason in Reason::ALL {
            if matches!(
                reason.code(),
                Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted
            ) {
                assert_eq!(reason.outcome_of_write(), Outcome::NotApplied, "{reason:?}");
            }
        }
    }

    #[test]
    fn a_code_without_a_reason_keeps_its_code() {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let reason = Reason::of_code(code).unwrap();
            if code == Code::Unknown {
                assert_eq!(reason, Reason::Disconnected);
            } else {
                assert_eq!(reason.code(), code);
            }
        }
        assert_eq!(Reason::of_code(Code::Ok), None);
    }
}
