//! Small disks, which a run may fill, and what is kept of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The size of a small disk: what a shard server keeps back, and what its log comes to before anything of it goes. That is twice the entries after
/// which a shard takes a snapshot, of three shards, and at worst each of them in a sector of its own. A log that fills the disk by itself would
/// stand still for good.
const SMALL_DISK: &str = "size=768m";

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

/// Copies what is in a folder to another one, which is made, for whoever looks at it once the first is gone.
///
/// # Errors
/// When it cannot be copied, or not all of it.
#[expect(
    clippy::disallowed_methods,
    reason = "scratch space; the vfs crate is for data that must survive"
)]
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let mut copy = Command::new("cp");
    let status = copy.arg("-a").arg(from.join(".")).arg(to).status();
    let status = status.context("running cp")?;
    anyhow::ensure!(
        status.success(),
        "{} cannot be copied: {status}",
        from.display()
    );
    Ok(())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that was just killed may still have files open: the mount goes when it is gone.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
