//! What is being received of a group's snapshots, and what is left of a transfer that broke off.
//!
//! What always holds: one file at a time is received, and at most one incomplete file is kept, so that a peer that comes again need not
//! send all of it. Kept bytes were taken in by this process, in order, and are believed only when the hash of the whole file is right.
//! A restart finds a temporary file like any other and removes it: an incomplete file cannot be verified, and a transfer is broken
//! off by its connection far more often than by the end of the process.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use vfs::{FileWriter, Vfs};

use super::file::discard;
use super::reader::Verified;
use super::verify;
use crate::SnapshotError;

/// What a sender says of the file that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// BLAKE3-256 of the content: equal for equal files, whoever sends them.
    pub(crate) hash: [u8; 32],
    /// The last entry that is part of it.
    pub(crate) index: u64,
}

/// A file that is not complete. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Part {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    announced: Announced,
    /// `None` when all is written and synced.
    writer: Option<FileWriter>,
}

impl Part {
    /// Begins a file, which must not exist.
    pub(super) fn create(
        vfs: &Arc<dyn Vfs>,
        path: PathBuf,
        announced: Announced,
    ) -> Result<Self, SnapshotError> {
        let file = vfs.create_new(&path)?;
        Ok(Self {
            vfs: Arc::clone(vfs),
            path,
            announced,
            writer: Some(FileWriter::new(file)),
        })
    }

    pub(super) fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Bytes taken so far.
    pub(super) fn position(&self) -> u64 {
        let written = self.writer.as_ref().map(FileWriter::position);
        written.unwrap_or(self.announced.bytes)
    }

    /// How much of a file this is.
    pub(super) fn kept_of(&self, announced: &Announced) -> u64 {
        if self.announced == *announced {
            self.position()
        } else {
            0
        }
    }

    /// Takes the bytes at an offset, which must follow what was taken before.
    pub(super) fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), SnapshotError> {
        let expected = self.position();
        if offset != expected {
            return Err(damaged(&format!(
                "offset {offset} where {expected} was due"
            )));
        }
        if data.len() as u64 > self.announced.bytes - expected {
            return Err(damaged("it is longer than announced"));
        }
        if let Some(writer) = &mut self.writer {
            writer.write_all(data)?;
        }
        Ok(())
    }

    /// Syncs and verifies the file, which must have been taken to its end.
    pub(super) fn complete(&mut self) -> Result<Verified, SnapshotError> {
        if let Some(writer) = self.writer.take() {
            writer.finish()?;
        }
        let found = verify(self.vfs.as_ref(), &self.path)?;
        if found.info.hash != self.announced.hash {
            return Err(damaged("the hash is not the announced one"));
        }
        Ok(found)
    }

    /// Leaves the file to somebody else.
    pub(super) fn into_file(mut self) -> (Arc<dyn Vfs>, PathBuf) {
        (Arc::clone(&self.vfs), std::mem::take(&mut self.path))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            discard(self.vfs.as_ref(), &self.path);
        }
    }
}

pub(super) fn damaged(problem: &str) -> SnapshotError {
    SnapshotError::Damaged {
        name: "being received".to_owned(),
        problem: problem.to_owned(),
    }
}

/// Whose turn it is to be received, and what was kept; one for each group.
#[derive(Debug, Default)]
pub(super) struct Intake(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    busy: bool,
    /// Nothing is kept any more.
    ended: bool,
    part: Option<Part>,
}

impl Intake {
    /// Begins a turn and hands out what was kept; `None` while it is another's turn.
    pub(super) fn begin(self: &Arc<Self>) -> Option<(Turn, Option<Part>)> {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.busy, true) {
            return None;
        }
        let turn = Turn {
            intake: Arc::clone(self),
        };
        Some((turn, state.part.take()))
    }

    /// How much of a file was kept; `None` while one is being received.
    pub(super) fn kept(&self, announced: &Announced) -> Option<u64> {
        let state = self.0.lock();
        if state.busy {
            return None;
        }
        let part = state.part.as_ref();
        Some(part.map_or(0, |part| part.kept_of(announced)))
    }

    /// Lets go of what was kept of a snapshot up to an index: nobody needs it any more.
    pub(super) fn forget(&self, up_to: u64) {
        let mut state = self.0.lock();
        let useless = state.part.take_if(|part| part.announced().index <= up_to);
        drop(state);
        drop(useless);
    }

    /// Lets go of what was kept, and keeps nothing from now on.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        let useless = state.part.take();
        drop(state);
        drop(useless);
    }
}

/// The turn to receive a snapshot; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    intake: Arc<Intake>,
}

impl Turn {
    /// Ends the turn and keeps what came, for who comes next.
    pub(super) fn keep(self, part: Part) {
        let mut state = self.intake.0.lock();
        let useless = state.ended || part.position() == 0;
        let useless = if useless {
            Some(part)
        } else {
            state.part.replace(part)
        };
        drop(state);
        drop(useless);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.intake.0.lock().busy = false;
    }
}
