//! Disk space kept back in two files that hold nothing: when the disk is full the first gives way to
//! what was admitted, the second to votes, truncations and the like.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::warn;
use vfs::{Op, Vfs};

const FILES: [&str; 2] = ["reserve.0", "reserve.1"];

/// The reserve of one log.
#[derive(Debug)]
pub(crate) struct Reserve {
    paths: [PathBuf; 2],
    half_bytes: u64,
    held: Mutex<[bool; 2]>,
}

impl Reserve {
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self {
            paths: FILES.map(|name| dir.join(name)),
            half_bytes: bytes / 2,
            held: Mutex::new([false; 2]),
        }
    }

    /// Fills what is missing of the reserve, as far as there is room, and says how many bytes are
    /// missing still.
    pub(crate) fn fill(&self, vfs: &dyn Vfs) -> vfs::Result<u64> {
        if self.half_bytes == 0 {
            return Ok(0);
        }
        let mut held = self.held.lock();
        let mut missing = 0;
        // The second half first: it is for what matters more.
        for (path, held) in self.paths.iter().zip(held.iter_mut()).rev() {
            if !*held {
                *held = allocate(vfs, path, self.half_bytes)?;
            }
            missing += if *held { 0 } else { self.half_bytes };
        }
        Ok(missing)
    }

    /// Bytes that are missing of the reserve.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let missing = self.held.lock().iter().filter(|held| !**held).count();
        missing as u64 * self.half_bytes
    }

    /// Whether the half for votes and the like is given up, so that what room there is belongs to them.
    pub(crate) fn is_votes_only(&self) -> bool {
        let [_, votes] = *self.held.lock();
        self.half_bytes > 0 && !votes
    }

    /// Gives up a half, also one that an earlier process left. `false` if it was gone already.
    pub(crate) fn release(&self, vfs: &dyn Vfs, half: usize) -> vfs::Result<bool> {
        let mut held = self.held.lock();
        let (Some(held), Some(path)) = (held.get_mut(half), self.paths.get(half)) else {
            return Ok(false);
        };
        match vfs.remove_file(path) {
            Ok(()) => {
                *held = false;
                Ok(true)
            }
            Err(error) if error.is_not_found() => {
                *held = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Does a step of a start, which leaves nothing where there is no room for it; then again with half of the reserve, and
    /// with all of it.
    pub(crate) fn making_room<T>(
        &self,
        vfs: &dyn Vfs,
        mut step: impl FnMut() -> vfs::Result<T>,
    ) -> vfs::Result<T> {
        for half in 0..FILES.len() {
            match step() {
                Err(error) if error.is_disk_full() => {
                    if self.release(vfs, half)? {
                        warn!(%error, half, "no room to start, giving up a part of the reserve");
                    }
                }
                result => return result,
            }
        }
        step()
    }
}

fn allocate(vfs: &dyn Vfs, path: &Path, bytes: u64) -> vfs::Result<bool> {
    let file = if vfs.exists(path)? {
        vfs.open_write(path)?
    } else {
        match vfs.create_new(path) {
            Ok(file) => file,
            Err(error) if error.is_disk_full() => return Ok(false),
            Err(error) => return Err(error),
        }
    };
    match file.allocate(0, bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.is_disk_full() => {
            vfs.remove_file(path)?;
            Ok(false)
        }
        // A file system that cannot reserve: the free space is all there is to go by.
        Err(error) if is_unsupported(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the file system does not know how to reserve space.
pub(crate) fn is_unsupported(error: &vfs::Error) -> bool {
    error.op == Op::Allocate && error.source.kind() == std::io::ErrorKind::Unsupported
}
