//! Files as streams, for encoders and decoders that know only [`Read`] and [`Write`].
//!
//! The position is the stream's, not the file's. An error leaves the file as far as it was written; who writes to
//! a temporary name and publishes it last loses nothing.

use std::io::{self, Read, Write};

use crate::{Result, VfsFile};

const BUFFER_BYTES: usize = 128 * 1024;
/// How much is written before it is synced. A log that syncs its own few bytes on the same disk meanwhile may have to wait until all
/// of it is written: 20 to 45 ms (p99.9) beside files of 50 MB that are synced once, 3 to 6 ms beside these (docs/performance-history.md).
const UNSYNCED_BYTES: u64 = 256 * 1024;

/// Writes a file from its start to its end through a buffer, for encoders that want [`Write`].
///
/// `flush` hands the buffer to the file but does not make it durable: [`FileWriter::finish`] does. Large files are synced as they grow,
/// so that others who sync on the same disk never wait for long.
/// Dropped without `finish`, what is in the buffer is lost, which is right for a file that has not
/// been published.
#[derive(Debug)]
pub struct FileWriter {
    file: Box<dyn VfsFile>,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
}

impl FileWriter {
    /// Writes from the start of `file`.
    #[must_use]
    pub fn new(file: Box<dyn VfsFile>) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            synced: 0,
        }
    }

    /// Bytes taken so far, the buffer included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes what is in the buffer, makes all durable, and gives the file back.
    pub fn finish(mut self) -> Result<Box<dyn VfsFile>> {
        self.write_buffer()?;
        self.file.sync_all()?;
        Ok(self.file)
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.file.write_all_at(bytes, self.written)?;
            self.written += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        if self.written - self.synced >= UNSYNCED_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.write_buffer()?)
    }
}

/// Reads a file through a buffer, for decoders that want [`Read`].
#[derive(Debug)]
pub struct FileReader {
    file: Box<dyn VfsFile>,
    buffer: Vec<u8>,
    taken: usize,
    offset: u64,
}

impl FileReader {
    /// Reads from the start of `file`.
    #[must_use]
    pub fn new(file: Box<dyn VfsFile>) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            taken: 0,
            offset: 0,
        }
    }

    /// Reads from a place in `file` on.
    #[must_use]
    pub fn starting_at(file: Box<dyn VfsFile>, offset: u64) -> Self {
        Self {
            offset,
            ..Self::new(file)
        }
    }

    /// Where in the file the next byte lies.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.offset - (self.buffer.len() - self.taken) as u64
    }

    fn fill(&mut self) -> Result<()> {
        self.taken = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let read = self.file.read_full_at(&mut self.buffer, self.offset);
        // After an error nothing of the buffer is the file's.
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        self.offset += read? as u64;
        Ok(())
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            self.fill()?;
        }
        let ready = self.buffer.get(self.taken..).unwrap_or_default();
        let count = ready.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), ready.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{SimDisk, Vfs as _};

    #[test]
    fn little_of_a_file_that_is_being_written_waits_to_be_synced() {
        let (disk, path) = (SimDisk::new(), Path::new("/large"));
        let mut writer = FileWriter::new(disk.create_new(path).unwrap());
        disk.sync_dir(Path::new("/")).unwrap();
        for len in [1, 70_001, 300_000].into_iter().cycle().take(30) {
            writer.write_all(&vec![7; len]).unwrap();
            let durable = disk.crash_losing_all().contents(path).unwrap();
            let waiting = writer.position() - durable.len() as u64;
            assert!(
                waiting < UNSYNCED_BYTES + BUFFER_BYTES as u64,
                "{waiting} bytes"
            );
        }
    }
}
