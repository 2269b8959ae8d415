//! Reading a snapshot file again in steps, to see whether it is still what was written.

use std::io::{self, Read as _, Write as _};

use vfs::FileReader;

use super::SnapshotFile;
use super::format::FOOTER_MAGIC;
use crate::SnapshotError;

/// Hash and magic, which the hash does not cover.
const TRAILER_BYTES: u64 = 32 + 8;

/// A snapshot file that is being read again. Only as much as a buffer is in memory.
#[derive(Debug)]
pub(crate) struct Reread {
    file: SnapshotFile,
    reader: FileReader,
    hasher: blake3::Hasher,
    /// Bytes that are still to be hashed.
    left: u64,
}

impl Reread {
    /// Begins at the start of the file.
    pub(crate) fn new(file: &SnapshotFile) -> Result<Self, SnapshotError> {
        let opened = file.vfs().open_read(file.path())?;
        let found = Self {
            left: file.info().bytes.saturating_sub(TRAILER_BYTES),
            reader: FileReader::new(opened),
            hasher: blake3::Hasher::new(),
            file: file.clone(),
        };
        Ok(found)
    }

    /// Reads on, at most so many bytes; how many, or `None` when the file was read to its end and is sound. May block.
    pub(crate) fn step(&mut self, bytes_max: u64) -> Result<Option<u64>, SnapshotError> {
        let wanted = self.left.min(bytes_max);
        if wanted > 0 {
            let mut piece = (&mut self.reader).take(wanted);
            let read = io::copy(&mut piece, &mut self.hasher)?;
            if read < wanted {
                return Err(self.damaged("the file is shorter than it was"));
            }
            self.left -= read;
            return Ok(Some(read));
        }
        let mut trailer = Vec::new();
        (&mut self.reader)
            .take(TRAILER_BYTES + 1)
            .read_to_end(&mut trailer)?;
        let mut expected = self.file.info().hash.to_vec();
        expected.write_all(&FOOTER_MAGIC)?;
        let sound = *self.hasher.finalize().as_bytes() == self.file.info().hash;
        if sound && trailer == expected {
            Ok(None)
        } else {
            Err(self.damaged("the file is not what was written"))
        }
    }

    fn damaged(&self, problem: &str) -> SnapshotError {
        let name = self.file.path().file_name();
        SnapshotError::Damaged {
            name: name.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            problem: problem.to_owned(),
        }
    }
}
