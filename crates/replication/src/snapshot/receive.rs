//! Taking in a snapshot file piece by piece. It is published only when its hash is right, and discarded otherwise.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use vfs::FileWriter;

use super::{SnapshotFile, SnapshotStore, verify};
use crate::SnapshotError;

/// Takes in a snapshot file piece by piece. Dropped before it is complete, the file is discarded.
#[derive(Debug)]
pub(crate) struct Receiver {
    store: Arc<SnapshotStore>,
    path: PathBuf,
    writer: Option<FileWriter>,
    bytes: u64,
}

impl Receiver {
    /// Expects a file of exactly `bytes`, for which there must be room.
    pub(crate) fn new(store: Arc<SnapshotStore>, bytes: u64) -> Result<Self, SnapshotError> {
        store.require_space(bytes)?;
        let path = store.temporary();
        let file = store.vfs().create_new(&path)?;
        Ok(Self {
            store,
            path,
            writer: Some(FileWriter::new(file)),
            bytes,
        })
    }

    /// Takes the bytes at an offset, which must follow what was taken before.
    pub(crate) fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), SnapshotError> {
        let Some(writer) = &mut self.writer else {
            return Err(self.damaged("it was finished before"));
        };
        let expected = writer.position();
        if offset != expected {
            return Err(self.damaged(&format!("offset {offset} where {expected} was due")));
        }
        if offset + data.len() as u64 > self.bytes {
            return Err(self.damaged("it is longer than announced"));
        }
        writer.write_all(data)?;
        Ok(())
    }

    /// Syncs and verifies the file, which must have the announced hash. It is complete but not published.
    pub(crate) fn finish(mut self, hash: &[u8]) -> Result<SnapshotFile, SnapshotError> {
        let Some(writer) = self.writer.take() else {
            return Err(self.damaged("it was finished before"));
        };
        if writer.position() != self.bytes {
            return Err(self.damaged("it is shorter than announced"));
        }
        writer.finish()?;
        let found = verify(self.store.vfs().as_ref(), &self.path)?;
        if found.info.hash != hash {
            return Err(self.damaged("the hash is not the announced one"));
        }
        let path = std::mem::take(&mut self.path);
        let vfs = Arc::clone(self.store.vfs());
        Ok(SnapshotFile::new(vfs, path, found.header, found.info, true))
    }

    fn damaged(&self, problem: &str) -> SnapshotError {
        SnapshotError::Damaged {
            name: "being received".to_owned(),
            problem: problem.to_owned(),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            self.store.discard(&self.path);
        }
    }
}
