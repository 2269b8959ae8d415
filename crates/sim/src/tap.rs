//! A disk with somebody in between: passes everything on, but what a [`Tap`] does with it.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use vfs::{DirEntry, LockGuard, Result, Vfs, VfsFile};

/// Where a program has its log.
pub(crate) const LOG: &str = "/data/wal";

/// Whether a file is a segment of the log.
pub(crate) fn is_segment(path: &Path) -> bool {
    path.starts_with(LOG) && path.extension() == Some(OsStr::new("wal"))
}

/// What stands between a program and its disk.
pub(crate) trait Tap: Debug + Clone + Send + Sync + 'static {
    /// A file was opened, to write to it.
    fn opened(&self, _path: &Path) {}

    fn write(&self, file: &dyn VfsFile, buf: &[u8], offset: u64) -> Result<usize> {
        file.write_at(buf, offset)
    }

    fn truncate(&self, file: &dyn VfsFile, len: u64) -> Result<()> {
        file.truncate(len)
    }

    /// `sync` is one of the two that a file has.
    fn sync(&self, _file: &dyn VfsFile, sync: &dyn Fn() -> Result<()>) -> Result<()> {
        sync()
    }

    fn sync_dir(&self, disk: &dyn Vfs, path: &Path) -> Result<()> {
        disk.sync_dir(path)
    }
}

/// A disk with a tap.
#[derive(Debug)]
pub(crate) struct Tapped<T> {
    disk: Arc<dyn Vfs>,
    tap: T,
}

impl<T: Tap> Tapped<T> {
    pub(crate) fn new(disk: Arc<dyn Vfs>, tap: T) -> Self {
        Self { disk, tap }
    }

    fn wrap(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        let tap = self.tap.clone();
        Box::new(TappedFile { file, tap })
    }
}

impl<T: Tap> Vfs for Tapped<T> {
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let file = self.disk.create_new(path)?;
        self.tap.opened(path);
        Ok(self.wrap(file))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.disk.open_read(path).map(|file| self.wrap(file))
    }

    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let file = self.disk.open_write(path)?;
        self.tap.opened(path);
        Ok(self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.disk.list_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.tap.sync_dir(self.disk.as_ref(), path)
    }

    fn free_space(&self, path: &Path) -> Result<u64> {
        self.disk.free_space(path)
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard> {
        self.disk.lock_file(path)
    }
}

#[derive(Debug)]
struct TappedFile<T> {
    file: Box<dyn VfsFile>,
    tap: T,
}

impl<T: Tap> VfsFile for TappedFile<T> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.tap.write(self.file.as_ref(), buf, offset)
    }

    fn sync_data(&self) -> Result<()> {
        self.tap.sync(self.file.as_ref(), &|| self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.tap.sync(self.file.as_ref(), &|| self.file.sync_all())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.tap.truncate(self.file.as_ref(), len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.file.allocate(offset, len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }
}
