//! The kept inputs: a folder a target, named by the hash of what is in each file.

use std::path::{Path, PathBuf};

use vfs::{RealDisk, Vfs as _, durable};

use crate::Target;

/// The largest kept input, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Where a target's inputs are kept.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// A target's kept inputs, in the order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn read(target: &Target) -> vfs::Result<Vec<Vec<u8>>> {
    let (disk, folder) = (RealDisk::new(), folder(target));
    let mut names: Vec<_> = disk
        .list_dir(&folder)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort_unstable();
    let read = |name| durable::read(&disk, &folder.join(name), FILE_BYTES_MAX);
    names.into_iter().map(read).collect()
}

/// Writes an input into a folder, under the hash of its content; says where.
///
/// # Errors
/// When the disk fails.
pub fn keep(folder: &Path, input: &[u8]) -> vfs::Result<PathBuf> {
    let disk = RealDisk::new();
    disk.create_dir_all(folder)?;
    let hash = blake3::hash(input).to_hex();
    let path = folder.join(hash.as_str().split_at(16).0);
    durable::replace(&disk, &path, input)?;
    Ok(path)
}
