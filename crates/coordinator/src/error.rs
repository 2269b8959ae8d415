//! Why a coordinator cannot run.

use std::io;
use std::path::PathBuf;

use cluster::{ClusterId, NodeId};

use crate::config::Problems;

/// Why a coordinator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused. Exit code 64.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The file that says which coordinator the data directory belongs to cannot be used.
    #[error("{} {problem}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another data directory has this coordinator's place now.
    #[error(
        "cluster {cluster} has given the place of coordinator {id} to another data directory, and goes on with that one: this one \
         must not come back. Move it aside, and start with an empty one"
    )]
    DirectoryReplaced {
        /// The coordinator.
        id: NodeId,
        /// The cluster that the others belong to.
        cluster: ClusterId,
    },
    /// The metadata in the data directory were damaged and are aside now. The next start joins the others as a new coordinator.
    #[error(
        "{damage}; the data were moved to {moved_to}, and the next start joins the others as a new coordinator"
    )]
    GaveUpData {
        /// The directory inside the data directory that has them now.
        moved_to: String,
        /// What was wrong with them.
        damage: String,
    },
    /// The configuration names other coordinators than the cluster was begun with.
    #[error(
        "the cluster was begun with the coordinators {}, the configuration names {}",
        listed(begun),
        listed(configured)
    )]
    OtherMembers {
        /// By the configuration.
        configured: Vec<NodeId>,
        /// By the data directory.
        begun: Vec<NodeId>,
    },
    /// The metadata in the data directory belong to another cluster than its identity says.
    #[error("the data directory belongs to cluster {expected}, its metadata to {found}")]
    ForeignMetadata {
        /// What the identity says.
        expected: ClusterId,
        /// What the metadata say.
        found: ClusterId,
    },
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// The log of the metadata cannot be opened.
    #[error(transparent)]
    Open(#[from] replication::OpenError),
    /// The metadata group cannot be started.
    #[error(transparent)]
    Start(#[from] replication::StartError),
    /// The metadata group has stopped for good. What was acknowledged is on the disk.
    #[error("the metadata stopped: {reason}")]
    MetadataStopped {
        /// Why.
        reason: String,
    },
    /// The first command of the cluster was refused.
    #[error("the cluster could not be begun: {reason}")]
    Init {
        /// Why.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Logging or the metrics cannot be set up.
    #[error("telemetry: {reason}")]
    Telemetry {
        /// Why.
        reason: String,
    },
    /// A part of the coordinator ended that must not.
    #[error(transparent)]
    Task(#[from] runtime::TaskFailed),
}

impl From<telemetry::MetricsError> for Error {
    fn from(error: telemetry::MetricsError) -> Self {
        Self::Telemetry {
            reason: error.to_string(),
        }
    }
}

impl Error {
    /// Whether the metadata on disk are damaged or incomplete, so that this directory can take part in nothing any more.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Open(error) => error.is_damage(),
            Self::Start(replication::StartError::DataLoss { .. }) => true,
            Self::Start(_)
            | Self::Config(_)
            | Self::Identity { .. }
            | Self::DirectoryReplaced { .. }
            | Self::GaveUpData { .. }
            | Self::OtherMembers { .. }
            | Self::ForeignMetadata { .. }
            | Self::Disk(_)
            | Self::MetadataStopped { .. }
            | Self::Init { .. }
            | Self::Bind { .. }
            | Self::Telemetry { .. }
            | Self::Task(_) => false,
        }
    }
}

fn listed(ids: &[NodeId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}
