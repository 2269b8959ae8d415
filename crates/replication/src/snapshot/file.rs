//! A complete snapshot on disk and what is known of it. Its file stays while anybody holds it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vfs::{FileReader, Vfs};

use super::format::Header;
use super::intake::Turn;
use crate::{Applied, GroupId, Member, SnapshotError};

/// What a snapshot holds, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The group it was taken of.
    pub group: GroupId,
    /// The last entry that is part of it.
    pub applied: Applied,
    /// The members of the group at that entry.
    pub members: Vec<Member>,
    /// The newest leader's stamp in it, milliseconds since the Unix epoch.
    pub stamp_ms: i64,
    /// When it was taken, by the clock of the machine that took it.
    pub taken_at_ms: i64,
    /// Length of the file.
    pub bytes: u64,
    /// BLAKE3-256 of the content: equal for equal files, and verified before every use.
    pub hash: [u8; 32],
}

/// A complete snapshot on disk. As long as one is held, its file is not removed.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    header: Header,
    info: SnapshotInfo,
    /// It was received and waits to be given its final name; until then no other is received.
    received: Option<Turn>,
    /// It was read again and is not what it was.
    rotten: AtomicBool,
}

impl SnapshotFile {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        header: Header,
        info: SnapshotInfo,
    ) -> Self {
        Self::with(vfs, path, header, info, None)
    }

    /// One that was received and has no final name yet.
    pub(super) fn received(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        header: Header,
        info: SnapshotInfo,
        turn: Turn,
    ) -> Self {
        Self::with(vfs, path, header, info, Some(turn))
    }

    fn with(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        header: Header,
        info: SnapshotInfo,
        received: Option<Turn>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                vfs,
                path,
                header,
                info,
                received,
                rotten: AtomicBool::new(false),
            }),
        }
    }

    /// Reads and verifies a snapshot file anywhere, such as one that an operator brings.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] or [`SnapshotError::Version`] when it must not be used.
    pub fn open(vfs: Arc<dyn Vfs>, path: &Path) -> Result<Self, SnapshotError> {
        let found = super::judge(vfs.as_ref(), path)?;
        Ok(Self::new(vfs, path.to_owned(), found.header, found.info))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it holds.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.inner.info
    }

    /// Reads the whole file, start and footer included, as it is to be sent or copied.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn read(&self) -> Result<impl Read + Send + use<>, SnapshotError> {
        self.read_from(0)
    }

    /// As [`SnapshotFile::read`], from an offset on.
    pub(crate) fn read_from(&self, offset: u64) -> Result<impl Read + Send + use<>, SnapshotError> {
        let file = self.inner.vfs.open_read(&self.inner.path)?;
        Ok(Reading {
            reader: FileReader::starting_at(file, offset),
            _held: self.clone(),
        })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.inner.header
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.inner.vfs
    }

    /// Whether it was received and waits to be given its final name.
    pub(crate) fn is_temporary(&self) -> bool {
        self.inner.received.is_some()
    }

    /// Whether it was found to be no longer what was written.
    pub(crate) fn is_rotten(&self) -> bool {
        self.inner.rotten.load(Ordering::Acquire)
    }

    /// Keeps it from being used or sent again. A new one takes its place; until then the file stays as it is.
    pub(crate) fn mark_rotten(&self, problem: &str) {
        if !self.inner.rotten.swap(true, Ordering::AcqRel) {
            let (group, path) = (self.inner.info.group, self.inner.path.display());
            tracing::error!(%group, %path, problem, "a snapshot is rotten, another one is taken");
        }
    }

    /// Reads the file again because somebody doubts it. May block for as long as it takes to read.
    pub(crate) fn reconsider(&self) {
        match super::judge(self.inner.vfs.as_ref(), &self.inner.path) {
            Ok(found) if found.info.hash == self.inner.info.hash => {}
            Ok(_) => self.mark_rotten("it is another snapshot"),
            Err(error @ (SnapshotError::Damaged { .. } | SnapshotError::Version { .. })) => {
                self.mark_rotten(&error.to_string());
            }
            Err(SnapshotError::Disk(error)) if error.is_not_found() => {
                self.mark_rotten(&error.to_string());
            }
            // That it cannot be opened now does not say that it is damaged.
            Err(error) => tracing::warn!(%error, "a doubted snapshot could not be read"),
        }
    }

    /// Whether nobody but the store holds it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }
}

/// Reads a file and holds it: what nobody holds is freed, and open handles do not keep that.
struct Reading {
    reader: FileReader,
    _held: SnapshotFile,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A received file that was not installed is of no use; an installed one has another name by now.
        if self.received.is_some() {
            discard(self.vfs.as_ref(), &self.path);
        }
    }
}

/// Discards a temporary file; what cannot be removed now is removed at the next start.
pub(super) fn discard(vfs: &dyn Vfs, temporary: &Path) {
    match vfs.remove_file(temporary) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%error, "a temporary snapshot stays until the next start"),
    }
}
