//! Small disks, which a run may fill.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The size of a small disk: what a shard server keeps back, and as much again to work with.
const SMALL_DISK: &str = "size=192m";

/// A small file system in memory, which everybody may write to. Unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts one at a folder, which is made where it does not exist.
    ///
    /// # Errors
    /// Without the right to mount.
    #[expect(
        clippy::disallowed_methods,
        reason = "scratch space; the vfs crate is for data that must survive"
    )]
    pub(crate) fn mount(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]);
        let status = mount.arg(&folder).status().context("running mount")?;
        anyhow::ensure!(status.success(), "a small disk cannot be mounted: {status}");
        Ok(Self(folder))
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that was just killed may still have files open: the mount goes when it is gone.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
