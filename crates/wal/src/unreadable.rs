//! Which bytes of a log the disk does not give back, for people who look at it or repair it.
//!
//! Everything is read, and each part that fails is asked for twice; nothing is changed. Errors of another kind are passed on.

use std::{ops::Range, path::Path};

use vfs::Vfs;

use crate::{codec, error::LogFile, format::MARK_FILE, segment};

/// Bytes of a file that the disk does not give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBytes {
    /// Which file.
    pub file: LogFile,
    /// Which bytes, from its start.
    pub bytes: Range<u64>,
}

/// Looks for them in the segments, the mark and the dictionaries of a directory.
pub(crate) fn find(vfs: &dyn Vfs, dir: &Path) -> vfs::Result<Vec<UnreadableBytes>> {
    let mut files = Vec::new();
    for number in segment::list(vfs, dir)? {
        files.push((LogFile::Segment(number), segment::path(dir, number)));
    }
    files.push((LogFile::Mark, dir.join(MARK_FILE)));
    for (number, path, _) in codec::list_dictionaries(vfs, dir)? {
        files.push((LogFile::Dictionary(number), path));
    }
    let mut found = Vec::new();
    for (file, path) in files {
        if vfs.exists(&path)? {
            let salvaged = vfs::salvage(vfs.open_read(&path)?.as_ref())?;
            found.extend(of(file, salvaged.unreadable));
        }
    }
    Ok(found)
}

/// Names the file of ranges.
pub(crate) fn of(file: LogFile, ranges: Vec<Range<u64>>) -> impl Iterator<Item = UnreadableBytes> {
    let ranges = ranges.into_iter();
    ranges.map(move |bytes| UnreadableBytes { file, bytes })
}
