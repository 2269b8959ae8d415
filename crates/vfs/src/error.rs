//! The one error of this crate: what was asked of the disk, of which path, and what the system answered.
//!
//! Questions about it (full, missing, locked) are asked by its methods, so that callers never match on numbers.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// What was asked of the disk. Names the operation in errors, traces and injected faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Create a file that must not exist.
    CreateNew,
    /// Open an existing file to read.
    OpenRead,
    /// Open an existing file to read and write.
    OpenWrite,
    /// Read at an offset.
    Read,
    /// Write at an offset.
    Write,
    /// Make a file's content durable.
    SyncData,
    /// Make a file's content and its metadata durable.
    SyncAll,
    /// Set a file's length.
    Truncate,
    /// Reserve blocks for a file and grow it.
    Allocate,
    /// Ask for a file's length.
    Len,
    /// Give a file or directory another name.
    Rename,
    /// Remove a file's name.
    RemoveFile,
    /// Create a directory and its parents.
    CreateDir,
    /// Remove a directory and all below it.
    RemoveDir,
    /// List a directory.
    List,
    /// Ask whether a name exists.
    Exists,
    /// Make the names in a directory durable.
    SyncDir,
    /// Ask for the free space of a file system.
    FreeSpace,
    /// Take an exclusive lock.
    Lock,
}

impl Op {
    /// Whether the operation changes the disk or makes a change durable: the points where a crash differs.
    #[must_use]
    pub const fn is_mutation(self) -> bool {
        match self {
            Self::CreateNew
            | Self::Write
            | Self::SyncData
            | Self::SyncAll
            | Self::Truncate
            | Self::Allocate
            | Self::Rename
            | Self::RemoveFile
            | Self::CreateDir
            | Self::RemoveDir
            | Self::SyncDir => true,
            Self::OpenRead
            | Self::OpenWrite
            | Self::Read
            | Self::Len
            | Self::List
            | Self::Exists
            | Self::FreeSpace
            | Self::Lock => false,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateNew => "create",
            Self::OpenRead => "open to read",
            Self::OpenWrite => "open to write",
            Self::Read => "read",
            Self::Write => "write",
            Self::SyncData => "sync data of",
            Self::SyncAll => "sync",
            Self::Truncate => "truncate",
            Self::Allocate => "allocate",
            Self::Len => "get length of",
            Self::Rename => "rename",
            Self::RemoveFile => "remove",
            Self::CreateDir => "create directory",
            Self::RemoveDir => "remove directory",
            Self::List => "list",
            Self::Exists => "look for",
            Self::SyncDir => "sync directory",
            Self::FreeSpace => "get free space of",
            Self::Lock => "lock",
        })
    }
}

/// A failed operation on a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}{}: {source}", path.display(), place(*offset))]
pub struct Error {
    /// What was asked.
    pub op: Op,
    /// Of which file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes from its start; known of reads.
    pub offset: Option<u64>,
    /// What the operating system answered.
    pub source: io::Error,
}

/// The result of an operation on files.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an operating system's error.
    #[must_use]
    pub fn new(op: Op, path: &Path, source: io::Error) -> Self {
        Self {
            op,
            path: path.to_owned(),
            offset: None,
            source,
        }
    }

    /// Says where in the file it was.
    #[must_use]
    pub const fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Whether the disk does not give back bytes that are there: the same as damage to them, once another read has failed
    /// ([`crate::VfsFile::read_patiently_at`]). What else can fail is about the process or about names, and says nothing of the bytes.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        let io = rustix::io::Errno::IO.raw_os_error();
        self.op == Op::Read && self.source.raw_os_error() == Some(io)
    }

    /// Whether there was no room: no space, a quota, or the largest file size. The caller may free
    /// space and go on, provided that it undoes what was written in part.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        means_disk_full(self.source.kind())
    }

    /// Whether the file or directory does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the file exists although it should not.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether somebody else holds the lock.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.op == Op::Lock && self.source.kind() == io::ErrorKind::WouldBlock
    }
}

/// As [`Error::is_disk_full`], of an error that has passed through [`io::Error`], which keeps its kind.
#[must_use]
pub fn means_disk_full(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// As [`Error::is_unreadable`], of an error that has passed through [`io::Error`], which keeps it inside.
#[must_use]
pub fn means_unreadable(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.is_some_and(Error::is_unreadable)
}

fn place(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at byte {offset}"))
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.source.kind(), error)
    }
}
