//! Taking in a snapshot file piece by piece. It is published only when its hash is right, and discarded otherwise; one that is given up
//! before its end is kept, so that the next attempt goes on from there.

use super::intake::{Announced, Part, Turn, damaged};
use super::reader::Verified;
use super::{SnapshotFile, SnapshotStore};
use crate::SnapshotError;

/// Why a snapshot is not received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// One at a time is enough: each takes disk and time.
    #[error("a snapshot of this group is being received already")]
    Busy,
    /// The sender wants to go on where nothing ends. It must ask, or begin anew.
    #[error("byte {offset} does not follow: {here} bytes of this snapshot are here")]
    Elsewhere {
        /// Where the sender wants to begin.
        offset: u64,
        /// Bytes that are here.
        here: u64,
    },
    /// The file cannot be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Takes in a snapshot file piece by piece. Dropped before it is complete, what came is kept for the next attempt; after an error it is
/// discarded.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// `None` after an error.
    part: Option<Part>,
    turn: Option<Turn>,
    found: Option<Verified>,
}

impl Receiver {
    /// Begins a file, or goes on at `offset` where the same one was broken off. What is missing must find room; what was kept of
    /// another file is removed. `number` was never used before for this directory.
    pub(crate) fn begin(
        store: &SnapshotStore,
        announced: Announced,
        offset: u64,
        number: u64,
    ) -> Result<Self, ReceiveError> {
        let (turn, kept) = store.intake().begin().ok_or(ReceiveError::Busy)?;
        let kept = if offset == 0 {
            // Its room counts for the new one.
            drop(kept);
            None
        } else {
            let here = kept.as_ref().map_or(0, |part| part.kept_of(&announced));
            if here != offset {
                if let Some(other) = kept {
                    turn.keep(other);
                }
                return Err(ReceiveError::Elsewhere { offset, here });
            }
            kept
        };
        store.require_space(announced.bytes - offset)?;
        let part = match kept {
            Some(part) => part,
            None => Part::create(store.vfs(), store.received(number), announced)?,
        };
        Ok(Self {
            part: Some(part),
            turn: Some(turn),
            found: None,
        })
    }

    /// Takes the bytes at an offset, which must follow what was taken before.
    pub(crate) fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), SnapshotError> {
        let part = self.part.as_mut().ok_or_else(given_up)?;
        let taken = part.take(offset, data);
        if taken.is_err() {
            self.part = None;
        }
        taken
    }

    /// Syncs and verifies the file, which must have the announced hash. May block.
    pub(crate) fn verify(&mut self) -> Result<(), SnapshotError> {
        let part = self.part.as_mut().ok_or_else(given_up)?;
        if part.position() < part.announced().bytes {
            // The sender could not go on. What came is in order, and kept.
            return Err(damaged("it is shorter than announced"));
        }
        match part.complete() {
            Ok(found) => self.found = Some(found),
            Err(error) => {
                self.part = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The verified file. It is complete but not published; no other is received while it is held.
    pub(crate) fn into_file(mut self) -> Result<SnapshotFile, SnapshotError> {
        let taken = (self.part.take(), self.turn.take(), self.found.take());
        let (Some(part), Some(turn), Some(found)) = taken else {
            return Err(given_up());
        };
        let (vfs, path) = part.into_file();
        Ok(SnapshotFile::received(
            vfs,
            path,
            found.header,
            found.info,
            turn,
        ))
    }
}

fn given_up() -> SnapshotError {
    damaged("it was given up before")
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let (Some(part), Some(turn)) = (self.part.take(), self.turn.take()) {
            turn.keep(part);
        }
    }
}
