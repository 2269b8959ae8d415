//! Why a shard server ends.

use std::path::PathBuf;

use crate::node::{IdentityError, MemoryError};

/// Why [`crate::run`] ended otherwise than it was told to. Each says who must act; [`RunError::exit_code`] is for the process.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory has no usable identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the node remembers of its orders cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// The log cannot be opened, for another reason than damage.
    #[error(transparent)]
    Open(replication::OpenError),
    /// A write or sync failed, or a task of the log died. What is on the disk is unknown until the process starts from it again.
    #[error("the log or its disk failed: {reason}")]
    DiskFailed {
        /// What failed.
        reason: String,
    },
    /// The coordinator, or an operator, had the damaged data given up; the next start begins with a new identity.
    #[error("the data was given up and moved to {moved_to}")]
    GaveUpData {
        /// The folder inside the data directory.
        moved_to: String,
    },
    /// The cluster has given this identity up: another directory registered under the same name. The data is left as it is.
    #[error("the cluster has given this identity up: {reason}")]
    NodeLost {
        /// The coordinator's words.
        reason: String,
    },
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] telemetry::MetricsError),
    /// A task died without which the server is of no use. Another start cures it.
    #[error(transparent)]
    Task(#[from] runtime::TaskFailed),
}

impl RunError {
    /// The exit code of the process, after the BSD list: 65 for data that must be looked at, 71 for the machine's faults, 75 for what
    /// another start cures.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Identity(_) | Self::Memory(_) | Self::Open(_) | Self::NodeLost { .. } => 65,
            Self::Listen { .. } | Self::Locked { .. } | Self::Disk(_) => 71,
            Self::DiskFailed { .. } | Self::GaveUpData { .. } | Self::Task(_) => 75,
            Self::Metrics(_) => 70,
        }
    }
}
