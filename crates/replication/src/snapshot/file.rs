//! A complete snapshot on disk and what is known of it. Its file stays while anybody holds it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::{FileReader, Vfs};

use super::format::Header;
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
    temporary: bool,
}

impl SnapshotFile {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        header: Header,
        info: SnapshotInfo,
        temporary: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                vfs,
                path,
                header,
                info,
                temporary,
            }),
        }
    }

    /// Reads and verifies a snapshot file anywhere, such as one that an operator brings.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] or [`SnapshotError::Version`] when it must not be used.
    pub fn open(vfs: Arc<dyn Vfs>, path: &Path) -> Result<Self, SnapshotError> {
        let found = super::verify(vfs.as_ref(), path)?;
        Ok(Self::new(
            vfs,
            path.to_owned(),
            found.header,
            found.info,
            false,
        ))
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
        let file = self.inner.vfs.open_read(&self.inner.path)?;
        Ok(FileReader::new(file))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.inner.header
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.inner.vfs
    }

    /// Whether it was received and waits to be given its final name.
    pub(crate) fn is_temporary(&self) -> bool {
        self.inner.temporary
    }

    /// Whether nobody but the store holds it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A received file that was not installed is of no use; an installed one has another name by now.
        if self.temporary
            && let Err(error) = self.vfs.remove_file(&self.path)
            && !error.is_not_found()
        {
            tracing::warn!(%error, "a received snapshot stays until the next start");
        }
    }
}
