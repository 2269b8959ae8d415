//! Changes of names and of small files that survive a crash, each as a whole or not at all.
//!
//! After an error the old state is still there, or the new one; what is durable is unknown. A failed
//! sync must not be retried on the same file: [`replace`] may be called again, for it begins with a
//! new temporary file.
//!
//! What a process finds may be in the page cache only: an earlier one may have ended between a change of a name and the sync of its
//! directory, or because of that sync. So [`create_dir`], [`remove`] and [`read_settled`] sync names also where they change none.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Op, Result, Vfs, VfsFile};

/// The suffix of temporary files; [`remove_temporaries`] clears what a crash left.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// The directory of a path, "." where it has none.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// The temporary name next to `path` that [`replace`] writes first.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path
        .file_name()
        .map_or_else(OsString::new, std::ffi::OsStr::to_owned);
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

/// Replaces or creates a file: temporary file, sync, rename, sync of the directory. Returns when the
/// new content is durable; a crash before leaves the old content or the new, never a mixture.
pub fn replace(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = create_temporary(vfs, path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    publish(vfs, file.path(), path)
}

/// An empty file under the temporary name next to `path`, to be written, synced and given to
/// [`publish`]. What was there before is removed.
pub fn create_temporary(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn VfsFile>> {
    let temp = temporary(path);
    match vfs.remove_file(&temp) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    vfs.create_new(&temp)
}

/// Gives a file that is written and synced its final name, durably. Both names are in one directory.
pub fn publish(vfs: &dyn Vfs, temp: &Path, path: &Path) -> Result<()> {
    vfs.rename(temp, path)?;
    vfs.sync_dir(parent(path))
}

/// Refuses with an error for which [`Error::is_disk_full`] is true where less than `bytes` are free beside the files of
/// `dir`, before anything is written in vain.
pub fn require_space(vfs: &dyn Vfs, dir: &Path, bytes: u64) -> Result<()> {
    let free = vfs.free_space(dir)?;
    if free >= bytes {
        return Ok(());
    }
    let text = format!("{bytes} bytes are needed, {free} are free");
    let source = io::Error::new(io::ErrorKind::StorageFull, text);
    Err(Error::new(Op::FreeSpace, dir, source))
}

/// Removes a file durably. No error if it does not exist; its directory must.
pub fn remove(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove_file(path) {
        Ok(()) => {}
        // An earlier call may have failed after the removal.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    vfs.sync_dir(parent(path))
}

/// Takes the name of a file of about `bytes`, which nobody may read any more: unlike [`Vfs::remove_file`] it takes the content from open
/// handles, too. Its space is free when what is returned is dropped, at the latest.
pub fn unname(vfs: &dyn Vfs, path: &Path, bytes: u64) -> Result<Nameless> {
    // One that cannot be opened is freed at once.
    let file = (bytes > FREED_BYTES)
        .then(|| vfs.open_write(path).ok())
        .flatten();
    vfs.remove_file(path)?;
    Ok(Nameless { file })
}

/// How much of a file is freed at a time.
const FREED_BYTES: u64 = 1 << 20;

/// A file without a name ([`unname`]), which still takes up space.
#[derive(Debug)]
#[must_use]
pub struct Nameless {
    /// `None` for a small one, which is gone.
    file: Option<Box<dyn VfsFile>>,
}

impl Nameless {
    /// Frees a large file from its end in steps of a MiB, each synced. Where a file system discards what is freed, a log
    /// on the same disk waits for all that one step freed: 16 to 80 ms for 25 MB at once, 2 to 4 ms in steps
    /// (docs/performance-history.md). What cannot be freed so is freed at once. May block.
    pub fn free(self, vfs: &dyn Vfs) {
        if let Some(file) = self.file {
            // What fails leaves the rest to be freed at once, and no name stands for it.
            drop(shrink(vfs, file.as_ref()));
        }
    }
}

fn shrink(vfs: &dyn Vfs, file: &dyn VfsFile) -> Result<()> {
    // Should the name come back after a loss of power, it must stand for the whole file.
    vfs.sync_dir(parent(file.path()))?;
    let mut len = file.len()?;
    while len > FREED_BYTES {
        len -= FREED_BYTES;
        file.truncate(len)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Creates a directory and its missing parents, durably. One that exists is made durable too.
pub fn create_dir(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !vfs.exists(at)? {
        missing.push(at);
        at = parent(at);
    }
    settle_dir(vfs, at)?;
    if missing.is_empty() {
        return vfs.create_dir_all(path);
    }
    // Each is durable before there is anything in it, so that only the last that exists can be in doubt.
    for dir in missing.into_iter().rev() {
        vfs.create_dir_all(dir)?;
        vfs.sync_dir(parent(dir))?;
    }
    Ok(())
}

/// Makes the name of a directory durable that somebody created before.
fn settle_dir(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    if dir.parent().is_none() {
        return Ok(());
    }
    match vfs.sync_dir(parent(dir)) {
        // Who may not open it has not created the directory either: that was an operator's doing.
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// As [`read`], of a file that [`replace`] writes: its name is made durable first, so that what is found is not less after a
/// crash. An absent file is an error.
pub fn read_settled(vfs: &dyn Vfs, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    if vfs.exists(path)? {
        vfs.sync_dir(parent(path))?;
    }
    read(vfs, path, bytes_max)
}

/// Removes temporary files that a crash left in a directory, and says how many there were.
pub fn remove_temporaries(vfs: &dyn Vfs, dir: &Path) -> Result<usize> {
    let mut removed = 0;
    for entry in vfs.list_dir(dir)? {
        let temporary = entry.name.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        if temporary && !entry.is_dir {
            vfs.remove_file(&dir.join(&entry.name))?;
            removed += 1;
        }
    }
    if removed > 0 {
        vfs.sync_dir(dir)?;
    }
    Ok(removed)
}

/// Reads a whole file of at most `bytes_max` bytes; a larger one is an error, before anything is
/// allocated for it.
pub fn read(vfs: &dyn Vfs, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = vfs.open_read(path)?;
    let len = file.len()?;
    if len > bytes_max {
        let source = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{len} bytes, at most {bytes_max} expected"),
        );
        return Err(Error::new(Op::Read, path, source));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    if file.read_patiently_at(&mut bytes, 0)? < bytes.len() {
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        return Err(Error::new(Op::Read, path, source));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;
    use crate::sim::every_mishap;

    #[test]
    fn a_large_file_is_freed_in_steps_and_is_there_whole_or_not_at_all() {
        let (disk, path) = (SimDisk::new(), Path::new("/dir/large"));
        create_dir(&disk, parent(path)).unwrap();
        let content = vec![7; 3 << 20];
        replace(&disk, path, &content).unwrap();
        let bytes = content.len() as u64;
        let remove = |disk: &SimDisk| unname(disk, path, bytes).map(|nameless| nameless.free(disk));
        for (number, run) in every_mishap(&disk, remove).enumerate() {
            if number == 0 {
                assert_eq!(run.disk.count(Op::Truncate), 2);
            }
            for image in run.images() {
                let found = image.contents(path);
                let is_whole = found.map_or(true, |found| found == content);
                assert!(is_whole, "{:?}", run.mishap);
            }
            let is_there = run.disk.contents(path).is_ok();
            assert!(run.outcome.is_err() || !is_there, "{:?}", run.mishap);
        }
    }
}
