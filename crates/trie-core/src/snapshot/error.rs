//! Why a snapshot could not be written or read.

use crate::error::RecordError;

/// A snapshot that could not be written or read. After a failed read there is no dictionary.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The reader or the writer below failed.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
    /// These bytes are not a snapshot.
    #[error("not a dictionary snapshot")]
    NotASnapshot,
    /// Written by a later program. Upgrade this one.
    #[error("snapshot has format version {found}; this program reads up to {supported}")]
    Version {
        /// The version that was found.
        found: u16,
        /// The newest that can be read.
        supported: u16,
    },
    /// The stream ended before the footer. Fetch the snapshot again.
    #[error("snapshot ends in frame {frame}, before its footer")]
    Truncated {
        /// Sequence of the frame that was being read.
        frame: u32,
    },
    /// The bytes are not what was written. Fetch the snapshot from elsewhere.
    #[error("snapshot is damaged in frame {frame}: {reason}")]
    Corrupt {
        /// Sequence of the frame that was being read.
        frame: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A term was refused: by the encoder when it is pushed out of order, by the decoder when a valid checksum
    /// covers a term that no dictionary holds.
    #[error("a term of the snapshot was refused")]
    Term(#[from] RecordError),
}
