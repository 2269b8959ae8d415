//! The traits through which all files are reached.
//!
//! Both are object safe. Reads and writes name their offset, so that handles carry no cursor and can be
//! shared. Nothing is durable before the sync that its doc names; after a failed sync the handle must not be used.

use std::{
    ffi::OsString,
    fmt::Debug,
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Op, Result};

/// A door to files. Paths are used as they are given.
pub trait Vfs: Debug + Send + Sync + 'static {
    /// Creates a file that must not exist, open to read and write. Its name is durable after
    /// [`Vfs::sync_dir`] of its directory.
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>>;
    /// Opens an existing file to read.
    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>>;
    /// Opens an existing file to read and write.
    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>>;
    /// Renames, replacing what is at `to`. Durable after [`Vfs::sync_dir`] of both directories.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file's name. Open handles go on working.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Creates a directory and the parents that are missing. Not durable: see [`crate::durable::create_dir`].
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Removes a directory and everything below it.
    fn remove_dir_all(&self, path: &Path) -> Result<()>;
    /// The entries of a directory, sorted by name.
    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> Result<bool>;
    /// Makes the names in a directory durable: creations, renames and removals.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Bytes that an unprivileged process may still write to the file system of `path`, which must exist.
    fn free_space(&self, path: &Path) -> Result<u64>;
    /// Takes an exclusive lock on a file, which is created if missing. Fails at once, with an error
    /// for which [`Error::is_locked`] is true, if another process or handle holds it. Dropping the
    /// guard releases the lock; the file stays.
    fn lock_file(&self, path: &Path) -> Result<LockGuard>;
}

/// An open file. All offsets are in bytes from its start; there is no cursor.
pub trait VfsFile: Debug + Send + Sync {
    /// The path it was opened under.
    fn path(&self) -> &Path;
    /// Reads at most `buf.len()` bytes; 0 at or after the end. May read less, may be interrupted.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes at most `buf.len()` bytes. May write less, may be interrupted. Callers want
    /// [`VfsFile::write_all_at`].
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize>;
    /// Makes the content, and what is needed to find it, durable. After an error nobody knows what is
    /// durable, and another call may succeed without having written anything: stop using the file.
    fn sync_data(&self) -> Result<()>;
    /// As [`VfsFile::sync_data`], with all other metadata.
    fn sync_all(&self) -> Result<()>;
    /// Sets the length. Growing fills with zeros.
    fn truncate(&self, len: u64) -> Result<()>;
    /// Reserves space for `len` bytes from `offset`, growing the file with zeros to at least
    /// `offset + len`. Later writes there do not fail for want of space.
    fn allocate(&self, offset: u64, len: u64) -> Result<()>;
    /// The present length.
    fn len(&self) -> Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `buf`, going on after short writes and interruptions. After an error any prefix
    /// may have been written.
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset) {
                Ok(0) => {
                    let source = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(Error::new(Op::Write, self.path(), source));
                }
                Ok(written) => {
                    buf = buf.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.source.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `buf` is full or the file ends, and says how much it read.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.source.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// As [`VfsFile::read_full_at`], but what the disk does not give back ([`Error::is_unreadable`]) it is asked for once more, before
    /// that is taken for damage. Unlike a failed sync a failed read has changed nothing, so asking again is safe; what was read before
    /// comes from the page cache, so it is cheap; and a command that was lost in a reset of its path works the second time.
    fn read_patiently_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        match self.read_full_at(buf, offset) {
            Err(error) if error.is_unreadable() => self.read_full_at(buf, offset),
            read => read,
        }
    }

    /// Fills `buf`, or fails with `UnexpectedEof` where the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.read_full_at(buf, offset)? == buf.len() {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        Err(Error::new(Op::Read, self.path(), source))
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: OsString,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length in bytes; 0 for a directory.
    pub len: u64,
}

/// An exclusive lock, released when it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    path: PathBuf,
    _held: Box<dyn Held>,
}

/// Whatever releases a lock by being dropped.
pub(crate) trait Held: Debug + Send + Sync {}

impl LockGuard {
    pub(crate) fn new(path: &Path, held: Box<dyn Held>) -> Self {
        Self {
            path: path.to_owned(),
            _held: held,
        }
    }

    /// The file that is locked.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
