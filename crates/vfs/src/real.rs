//! The operating system's files. No policy: every call is one system call, made again where a signal interrupts one that did
//! nothing yet, and its error is passed on.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the door that the others must use"
)]

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::{fs::FallocateFlags, io::retry_on_intr};

use crate::{
    Error, Op, Result,
    file::{DirEntry, Held, LockGuard, Vfs, VfsFile},
};

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// A door to the real file system.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

fn at<T>(op: Op, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::new(op, path, source))
}

fn open(op: Op, path: &Path, options: &OpenOptions) -> Result<Box<dyn VfsFile>> {
    let file = at(op, path, options.open(path))?;
    let path = path.to_owned();
    Ok(Box::new(RealFile { file, path }))
}

impl Vfs for RealDisk {
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        open(
            Op::CreateNew,
            path,
            options.read(true).write(true).create_new(true),
        )
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        open(Op::OpenRead, path, OpenOptions::new().read(true))
    }

    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        open(
            Op::OpenWrite,
            path,
            OpenOptions::new().read(true).write(true),
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        at(Op::Rename, to, fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        at(Op::RemoveFile, path, fs::remove_file(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        at(Op::CreateDir, path, fs::create_dir_all(path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        at(Op::RemoveDir, path, fs::remove_dir_all(path))
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in at(Op::List, path, fs::read_dir(path))? {
            let entry = at(Op::List, path, entry)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the listing began.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::new(Op::List, path, error)),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name: entry.file_name(),
                is_dir,
                len: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        at(Op::Exists, path, path.try_exists())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let dir = at(Op::SyncDir, path, File::open(path))?;
        at(Op::SyncDir, path, dir.sync_all())
    }

    fn free_space(&self, path: &Path) -> Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::statvfs(path));
        let stat = at(Op::FreeSpace, path, stat.map_err(io::Error::from))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = at(Op::Lock, path, options.open(path))?;
        match file.try_lock() {
            Ok(()) => Ok(LockGuard::new(path, Box::new(HeldFile(file)))),
            Err(TryLockError::WouldBlock) => {
                let source = io::Error::from(io::ErrorKind::WouldBlock);
                Err(Error::new(Op::Lock, path, source))
            }
            Err(TryLockError::Error(source)) => Err(Error::new(Op::Lock, path, source)),
        }
    }
}

/// The lock goes with the file descriptor.
#[derive(Debug)]
struct HeldFile(#[expect(dead_code, reason = "held for its drop")] File);

impl Held for HeldFile {}

impl VfsFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let read = at(Op::Read, &self.path, self.file.read_at(buf, offset));
        read.map_err(|error| error.at(offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        at(Op::Write, &self.path, self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> Result<()> {
        at(Op::SyncData, &self.path, self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        at(Op::SyncAll, &self.path, self.file.sync_all())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        at(Op::Truncate, &self.path, self.file.set_len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let none = FallocateFlags::empty();
        let done = retry_on_intr(|| rustix::fs::fallocate(&self.file, none, offset, len));
        at(Op::Allocate, &self.path, done.map_err(io::Error::from))
    }

    fn len(&self) -> Result<u64> {
        let metadata = at(Op::Len, &self.path, self.file.metadata())?;
        Ok(metadata.len())
    }
}
