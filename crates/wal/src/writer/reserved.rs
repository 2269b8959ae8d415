//! Space for a segment, taken from the file system in steps, so that a sync seldom has to make a file longer.

use vfs::VfsFile;

use crate::reserve;

/// What was taken for one file. It outlives the batches that are written into it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserved {
    end: u64,
    /// The file system cannot do it.
    is_impossible: bool,
}

impl Reserved {
    /// Nothing, for another file of the same file system.
    pub(super) const fn anew(self) -> Self {
        Self { end: 0, ..self }
    }

    /// Whether there is space behind `end`.
    pub(super) const fn reaches_beyond(self, end: u64) -> bool {
        self.end > end
    }

    /// The file was cut there.
    pub(super) const fn cut(&mut self, end: u64) {
        self.end = end;
    }

    /// Writes at `at`, with space for it and what follows, where the file system can give some.
    pub(super) fn write(
        &mut self,
        file: &dyn VfsFile,
        bytes: &[u8],
        at: u64,
        step: u64,
    ) -> vfs::Result<()> {
        self.take(file, at, bytes.len() as u64, step)?;
        file.write_all_at(bytes, at)
    }

    fn take(&mut self, file: &dyn VfsFile, at: u64, bytes: u64, step: u64) -> vfs::Result<()> {
        let end = at + bytes;
        if step == 0 || self.is_impossible || end <= self.end {
            return Ok(());
        }
        let from = self.end.max(at);
        match file.allocate(from, (end - from).max(step)) {
            Ok(()) => {
                self.end = from + (end - from).max(step);
                Ok(())
            }
            Err(error) if reserve::is_unsupported(&error) => {
                self.is_impossible = true;
                Ok(())
            }
            // A step may be too much where the batch itself still fits.
            Err(error) if error.is_disk_full() => {
                file.allocate(from, end - from)?;
                self.end = end;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
