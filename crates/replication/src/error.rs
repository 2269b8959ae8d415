//! What can go wrong, and who must act.

use std::io;
use std::path::PathBuf;

use cluster::NodeId;

use crate::{GroupId, Peer};

/// Whether a proposal that failed may still take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did not and never will: the caller may safely send it as new.
    NotApplied,
    /// It may have been applied or may yet be: only a retry with the same request id is safe.
    Unknown,
}

/// A proposal was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead. Nothing was done; ask `leader`, or wait where nobody is known.
    #[error("this replica does not lead its group")]
    NotLeader {
        /// The leader, where one is known.
        leader: Option<Peer>,
    },
    /// This replica leads, and a majority has accepted nothing that was sent to it within the election timeout: it may be gone, or its
    /// disks take that long. Nothing was done.
    #[error("the leader's lease has run out")]
    LeaseExpired,
    /// The disk is full. Nothing was done; service resumes when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The command is larger than the log takes. Nothing was done.
    #[error("command of {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the command.
        bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// This replica lost the lead while the entry was on its way: it may or may not survive.
    #[error("the lead was lost before the entry was committed")]
    LeadLost {
        /// The new leader, where one is known.
        leader: Option<Peer>,
    },
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
        /// Whether the entry may have reached the log before.
        outcome: Outcome,
    },
}

impl ProposeError {
    /// Whether the proposal may still take effect.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::NotLeader { .. }
            | Self::LeaseExpired
            | Self::DiskFull
            | Self::TooLarge { .. } => Outcome::NotApplied,
            Self::LeadLost { .. } => Outcome::Unknown,
            Self::Stopped { outcome, .. } => *outcome,
        }
    }
}

/// A read cannot be answered here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead: ask `leader`, or wait where nobody is known.
    #[error("this replica does not lead its group")]
    NotLeader {
        /// The leader, where one is known.
        leader: Option<Peer>,
    },
    /// The leader has not heard from a majority for longer than its lease.
    #[error("the leader's lease has run out")]
    LeaseExpired,
    /// The leader is new and has not yet applied an entry of its own term.
    #[error("the leader is catching up")]
    NotReady,
    /// A majority did not answer in time.
    #[error("no majority confirmed the leader")]
    NoQuorum,
    /// The position was not applied in time.
    #[error("index {index} is not applied yet")]
    Timeout {
        /// The index that was waited for.
        index: u64,
    },
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log cannot be opened.
    #[error("cannot open the log: {0}")]
    Wal(#[from] wal::OpenError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// A file was written by a newer program. Nothing was changed: start that program.
    #[error("{} has format version {version}, this program knows up to {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
        /// The newest known one.
        known: u32,
    },
    /// Other nodes have said that this log is older than it was: votes and entries are missing that they count on. Nothing may be served
    /// from it.
    #[error("the log in {} was set back to an earlier moment: {problem}", dir.display())]
    SetBack {
        /// Its directory.
        dir: PathBuf,
        /// What they said.
        problem: String,
    },
    /// The options contradict each other.
    #[error("option {option}: {problem}")]
    Options {
        /// The field.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl OpenError {
    /// Whether data that may have been acknowledged is damaged or gone.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::SetBack { .. }
            | Self::Wal(wal::OpenError::Rotten { .. } | wal::OpenError::Ambiguous { .. }) => true,
            Self::Wal(
                wal::OpenError::NewerFormat { .. }
                | wal::OpenError::WrongIdentity { .. }
                | wal::OpenError::Locked { .. }
                | wal::OpenError::Options { .. }
                | wal::OpenError::Io(_)
                | wal::OpenError::Spawn(_),
            )
            | Self::Disk(_)
            | Self::NewerFormat { .. }
            | Self::Options { .. } => false,
        }
    }
}

/// A group cannot be started on this node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is running already.
    #[error("group {group} is running already")]
    Running {
        /// The group.
        group: GroupId,
    },
    /// It exists on disk and would be overwritten: resume it, or remove it first.
    #[error("group {group} exists on this node already")]
    Exists {
        /// The group.
        group: GroupId,
    },
    /// There is nothing on disk to resume.
    #[error("group {group} is not known to this node")]
    NotFound {
        /// The group.
        group: GroupId,
    },
    /// What is on disk is damaged or incomplete. The replica must be repaired from its peers, or its loss accepted.
    #[error("group {group} has lost data: {problem}")]
    DataLoss {
        /// The group.
        group: GroupId,
        /// What is missing or damaged.
        problem: String,
    },
    /// The configuration is refused.
    #[error("option {option}: {problem}")]
    Options {
        /// The field.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// This node is not among the members that a new group is to have.
    #[error("node {node} is not among the members of group {group}")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// This node.
        node: NodeId,
    },
    /// A snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] wal::ReadError),
    /// The log cannot be written.
    #[error(transparent)]
    Append(#[from] wal::AppendError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// The replica stopped while it started.
    #[error("group {group} stopped while it started: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// A snapshot cannot be taken, read or installed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is damaged. It is kept, and not used.
    #[error("damaged snapshot {name}: {problem}")]
    Damaged {
        /// The file's name in its directory.
        name: String,
        /// What does not verify.
        problem: String,
    },
    /// The file was written by a newer program.
    #[error("snapshot {name} has format {version}, this program knows {known}")]
    Version {
        /// The file's name in its directory.
        name: String,
        /// Its format version.
        version: u32,
        /// The newest known one.
        known: u32,
    },
    /// The state machine does not take its content.
    #[error(transparent)]
    Restore(#[from] crate::RestoreError),
    /// It could not be written or read.
    #[error("snapshot file: {0}")]
    Io(#[from] io::Error),
    /// A file or directory could not be used.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// Nothing was applied yet, so there is nothing to keep.
    #[error("nothing was applied yet")]
    Empty,
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl SnapshotError {
    /// Whether there was no room for the snapshot: on the disk, by a quota, or for so large a file. That is no failure of
    /// the disk: older snapshots and the log are kept, and another attempt succeeds once there is room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_disk_full(),
            Self::Io(error) | Self::Restore(crate::RestoreError::Io(error)) => {
                vfs::means_disk_full(error.kind())
            }
            Self::Damaged { .. }
            | Self::Version { .. }
            | Self::Restore(crate::RestoreError::Malformed { .. })
            | Self::Empty
            | Self::Stopped { .. } => false,
        }
    }

    /// Whether the disk does not give back what is there, which is damage once another attempt has failed
    /// ([`vfs::Error::is_unreadable`]).
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_unreadable(),
            Self::Io(error) | Self::Restore(crate::RestoreError::Io(error)) => {
                vfs::means_unreadable(error)
            }
            Self::Damaged { .. }
            | Self::Version { .. }
            | Self::Restore(crate::RestoreError::Malformed { .. })
            | Self::Empty
            | Self::Stopped { .. } => false,
        }
    }
}

/// A change of members or of the leader was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This replica does not lead: ask `leader`, or wait where nobody is known.
    #[error("this replica does not lead its group")]
    NotLeader {
        /// The leader, where one is known.
        leader: Option<Peer>,
    },
    /// Another change is not committed yet.
    #[error("another change of members is in progress")]
    InProgress,
    /// The change makes no sense for the present members.
    #[error("change refused: {problem}")]
    Refused {
        /// Why.
        problem: String,
    },
    /// The lead was lost on the way: look at the members before trying again.
    #[error("the lead was lost before the change was committed")]
    LeadLost,
    /// It did not happen in time.
    #[error("the change did not happen in time")]
    Timeout,
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
