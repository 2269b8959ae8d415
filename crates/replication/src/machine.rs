//! What a replicated state machine must offer, and how this crate drives it.
//!
//! The machine holds its state behind locks of its own, so that readers go on while one task applies the log. It knows
//! no clock and no randomness: everything that `apply` may depend on is in its arguments, which are equal on
//! all replicas.

mod adapter;
mod progress;

use std::fmt::Debug;
use std::io::{self, Read, Write};

#[cfg(test)]
pub(crate) use adapter::Builder;
pub(crate) use adapter::{Capture, Machine, Shared};
pub(crate) use progress::Progress;

/// The position of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Applied {
    /// The index of the entry in its group's log.
    pub index: u64,
    /// The Raft term of the leader that wrote it.
    pub term: u64,
}

/// A deterministic state machine, replicated by a [`crate::Group`].
pub trait StateMachine: Debug + Send + Sync + 'static {
    /// What a command answers to whoever proposed it.
    type Response: Send + Sync + 'static;
    /// A consistent view of the whole state.
    type View: SnapshotView;

    /// Applies one committed command. Called for every command in log order, by one caller at a time; `stamp_ms` never goes
    /// back from call to call. A command that is refused by the rules of the machine is a [`StateMachine::Response`],
    /// not an error.
    ///
    /// # Errors
    /// Only what makes going on wrong: an unknown kind, an undecodable command, a broken invariant. The
    /// replica stops for good.
    fn apply(
        &self,
        at: Applied,
        stamp_ms: i64,
        kind: u16,
        command: &[u8],
    ) -> Result<Self::Response, ApplyError>;

    /// A view of the present state that later applies do not change. Called between two applies: must be cheap (shared
    /// or copy-on-write).
    fn view(&self) -> Self::View;

    /// Replaces the whole state by what a view encoded once everything up to `at` was applied. On an error the old state may be gone and
    /// the replica stops; on success the new state must appear at once to readers, who may see it before anybody else says how far it
    /// reaches.
    ///
    /// # Errors
    /// [`RestoreError`] when the input is not what a view of this machine encodes.
    fn restore(&self, at: Applied, input: &mut dyn Read) -> Result<(), RestoreError>;
}

/// A frozen view of a state machine. It is encoded on a thread of its own while applies go on.
pub trait SnapshotView: Send + 'static {
    /// Writes the whole view, streaming. It is given up as it is written, so that the machine need not go on copying what it changes.
    ///
    /// # Errors
    /// Those of the writer, passed on.
    fn encode(self, out: &mut dyn Write) -> io::Result<()>;
}

/// Going on would let this replica differ from the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The command is of a kind this program does not know: a newer program wrote it.
    #[error("command of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u16,
    },
    /// The command's bytes are not a command of its kind.
    #[error("malformed command of kind {kind}: {problem}")]
    Malformed {
        /// The kind.
        kind: u16,
        /// What is wrong with it.
        problem: String,
    },
    /// The state contradicts itself.
    #[error("broken invariant: {problem}")]
    Invariant {
        /// What does not hold.
        problem: String,
    },
}

/// A snapshot's content cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It could not be read.
    #[error("cannot read the snapshot: {0}")]
    Io(#[from] io::Error),
    /// It is no snapshot of this machine.
    #[error("malformed snapshot: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
}
