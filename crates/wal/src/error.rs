//! What can go wrong, by what the caller must do about it.
//!
//! One enum for each of opening, appending and reading. Damage carries its place; a failed append says whether it
//! is certain that nothing of it will be found later.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::types::{GroupId, Identity, Place};

/// A file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogFile {
    /// The segment of this number.
    Segment(u64),
    /// The mark file.
    Mark,
    /// The compression dictionary of this number.
    Dictionary(u32),
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "segment {number}"),
            Self::Mark => f.write_str("mark file"),
            Self::Dictionary(number) => write!(f, "compression dictionary {number}"),
        }
    }
}

/// Why a log could not be opened. Nothing on the disk was changed, unless it is [`OpenError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Acknowledged data is damaged or missing: the replica must be repaired from its peers, or an
    /// operator must accept the loss. Nothing was cut.
    #[error("log is rotten at {place}: {reason}")]
    Rotten {
        /// The first damaged place that is known.
        place: Place,
        /// What is wrong there.
        reason: RotReason,
    },
    /// The last batch is damaged inside and may have been acknowledged; only under [`crate::Ambiguous::Refuse`].
    /// Opening again gives the same answer; with [`crate::Ambiguous::Drop`] the batch is dropped.
    /// [`crate::inspect::verify`] says which groups the rest of the log knows.
    #[error("last batch is damaged at {place} and may have been acknowledged")]
    Ambiguous {
        /// Where the damage begins.
        place: Place,
    },
    /// The log was written by a newer program. Do not guess: start that program.
    #[error("{file} has format version {version}, this program knows up to {known}")]
    NewerFormat {
        /// Which of its files.
        file: LogFile,
        /// Its version.
        version: u32,
        /// The newest known here.
        known: u32,
    },
    /// The log belongs to another node or cluster.
    #[error("log belongs to another node or cluster: {found:?}, expected {expected:?}")]
    WrongIdentity {
        /// In the header.
        found: Identity,
        /// As given.
        expected: Identity,
    },
    /// Another process, or another handle in this one, has the log open.
    #[error("log in {} is in use", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An option is out of its range.
    #[error("option {option} is out of its range: {reason}")]
    Options {
        /// Its name.
        option: &'static str,
        /// What is allowed.
        reason: &'static str,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] vfs::Error),
    /// The writer's thread did not start.
    #[error("cannot start the log's writer: {0}")]
    Spawn(std::io::Error),
}

/// What is wrong at a rotten place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RotReason {
    /// A segment's header does not verify.
    #[error("segment header does not verify")]
    SegmentHeader,
    /// A record's header does not verify.
    #[error("record header does not verify")]
    RecordHeader,
    /// A record's payload does not verify.
    #[error("record payload does not verify")]
    Payload,
    /// A record verifies but does not follow the one before.
    #[error("physical chain is broken")]
    Chain,
    /// An entry verifies but does not continue its group's chain.
    #[error("logical chain of a group is broken")]
    LogicalChain,
    /// A record verifies and means nothing: a bug, or another program.
    #[error("record makes no sense here")]
    Sense,
    /// A segment is missing between others, or at an end.
    #[error("segment is missing")]
    SegmentMissing,
    /// The segment ends before what is known to be durable.
    #[error("segment ends too early")]
    EndMissing,
    /// The mark file is missing or neither slot verifies, or it is older than the log.
    #[error("mark file is missing, damaged or too old")]
    Mark,
    /// The mark file remembers a vote that the log has lost.
    #[error("log has lost a vote of group {0}")]
    VoteLost(GroupId),
    /// The snapshot of a group does not cover entries that are gone.
    #[error("entries of group {0} are missing")]
    EntriesMissing(GroupId),
    /// A compression dictionary that segments need is missing or damaged.
    #[error("compression dictionary {0} is missing or damaged")]
    Dictionary(u32),
    /// The disk does not give back bytes that must be there, at the place if it is a segment.
    #[error("disk does not give back {0}")]
    Unreadable(LogFile),
    /// A verified payload does not decompress to its declared size.
    #[error("payload does not decompress")]
    Decompress,
}

/// Why an append failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No room, even in the reserve. Nothing of the batch is in the log, nor of later batches of the same
    /// group that were waiting; the log goes on.
    #[error("disk is full")]
    DiskFull,
    /// The write or sync failed: the batch may or may not be durable. The log is poisoned; the process must exit.
    #[error("outcome unknown, the log has failed: {0}")]
    OutcomeUnknown(Arc<vfs::Error>),
    /// The log failed before; nothing of the batch was written.
    #[error("log has failed before")]
    Poisoned,
    /// The log is shut down; nothing of the batch was written.
    #[error("log is shut down")]
    Shutdown,
    /// The batch breaks a rule of [`crate::Record`]; nothing of it was applied. A bug of the caller.
    #[error("batch for group {group} breaks a rule: {rule}")]
    Invalid {
        /// The group.
        group: GroupId,
        /// Which rule.
        rule: &'static str,
    },
}

impl AppendError {
    /// Whether it is certain that nothing of the batch is, or will be found, in the log.
    #[must_use]
    pub const fn not_applied(&self) -> bool {
        match self {
            Self::DiskFull | Self::Poisoned | Self::Shutdown | Self::Invalid { .. } => true,
            Self::OutcomeUnknown(_) => false,
        }
    }
}

/// There is no room for new client writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("disk is full: {free_bytes} bytes free, writes resume at {resume_bytes}")]
pub struct DiskFull {
    /// Free space when it was last looked at.
    pub free_bytes: u64,
    /// Free space at which writes resume: includes the reserve if it must be filled again, and what was admitted
    /// and is not written yet.
    pub resume_bytes: u64,
}

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An entry that was durable does not verify: the replica must stop serving.
    #[error("log is rotten at {place}: {reason}")]
    Rotten {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: RotReason,
    },
    /// The disk failed. Where it does not give back what is there ([`vfs::Error::is_unreadable`]), the next start finds that it is rot.
    #[error(transparent)]
    Io(#[from] vfs::Error),
}
