//! Counting the bytes that go through a door: whoever waits for long work on files sees by them that it moves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DirEntry, LockGuard, Result, Vfs, VfsFile};

/// The most that is read in one go, so that a large read of a slow disk is seen to move, too.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes that were read and written. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<AtomicU64>);

impl Traffic {
    /// All of them so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A door to the same files by which they are counted, also those of files that stay open.
    #[must_use]
    pub fn through(&self, vfs: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
        Arc::new(Counting {
            vfs,
            traffic: self.clone(),
        })
    }

    fn count(&self, moved: Result<usize>) -> Result<usize> {
        moved.inspect(|bytes| {
            self.0.fetch_add(*bytes as u64, Ordering::Relaxed);
        })
    }
}

#[derive(Debug)]
struct Counting {
    vfs: Arc<dyn Vfs>,
    traffic: Traffic,
}

impl Counting {
    fn counted(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(CountingFile {
            file,
            traffic: self.traffic.clone(),
        })
    }
}

impl Vfs for Counting {
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        Ok(self.counted(self.vfs.create_new(path)?))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        Ok(self.counted(self.vfs.open_read(path)?))
    }

    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        Ok(self.counted(self.vfs.open_write(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.vfs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.vfs.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.vfs.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.vfs.remove_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.vfs.list_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.vfs.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.vfs.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> Result<u64> {
        self.vfs.free_space(path)
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard> {
        self.vfs.lock_file(path)
    }
}

#[derive(Debug)]
struct CountingFile {
    file: Box<dyn VfsFile>,
    traffic: Traffic,
}

impl VfsFile for CountingFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let most = buf.len().min(PIECE_BYTES);
        let piece = buf.get_mut(..most).unwrap_or_default();
        self.traffic.count(self.file.read_at(piece, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.traffic.count(self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.truncate(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.file.allocate(offset, len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;

    #[test]
    fn what_is_read_and_written_through_a_door_is_counted_and_nothing_else() {
        let disk = SimDisk::new();
        let traffic = Traffic::default();
        let door = traffic.through(Arc::new(disk.clone()));
        let path = Path::new("/file");
        let length = PIECE_BYTES + 5;
        let content: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let file = door.create_new(path).unwrap();
        file.write_all_at(&content, 0).unwrap();
        assert_eq!(traffic.bytes(), length as u64);
        let mut read = vec![0; length];
        let file = door.open_read(path).unwrap();
        // A part of it is seen before it is there as a whole.
        assert_eq!(file.read_at(&mut read, 0).unwrap(), PIECE_BYTES);
        assert_eq!(traffic.bytes(), (length + PIECE_BYTES) as u64);
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, content);
        let counted = (2 * length + PIECE_BYTES) as u64;
        assert_eq!(traffic.bytes(), counted);
        let past = disk.open_read(path).unwrap();
        past.read_exact_at(&mut read, 0).unwrap();
        file.read_exact_at(&mut read, 1).unwrap_err();
        assert_eq!(traffic.bytes(), counted + length as u64 - 1);
    }
}
