//! What becomes of the data of servers, behind their backs.

#![expect(
    clippy::disallowed_methods,
    reason = "spoils the data of servers behind their backs; the vfs crate is for data that must survive"
)]

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Removes the data of a server that is down.
pub(crate) fn wipe(data: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(data).with_context(|| format!("removing {}", data.display()))
}

/// Removes the data of a server that runs, and so may write beside it. Whether all of it is gone.
pub(crate) fn wipe_live(data: &Path) -> anyhow::Result<bool> {
    let Err(error) = std::fs::remove_dir_all(data) else {
        return Ok(true);
    };
    // Something came just now, or went.
    let kind = error.kind();
    if kind == ErrorKind::DirectoryNotEmpty || kind == ErrorKind::NotFound {
        return Ok(!data.exists());
    }
    Err(error).with_context(|| format!("removing {}", data.display()))
}

/// Flips a bit of the newest segment of a log, of its last written byte, or of the one in the middle of what is written, and says which segment that
/// is. Nothing else of it changes, so that a server may go on writing to it meanwhile.
pub(crate) fn flip(log: &Path, at_the_end: bool) -> anyhow::Result<PathBuf> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(log).with_context(|| format!("listing {}", log.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "wal") {
            segments.push(path);
        }
    }
    segments.sort();
    let segment = segments.pop().context("the log has no segment")?;
    let bytes = std::fs::read(&segment)?;
    // Room is allocated ahead, and is zero.
    let end = bytes.iter().rposition(|byte| *byte != 0);
    let end = end.context("the newest segment is empty")?;
    let at = if at_the_end { end } else { end / 2 };
    let byte = bytes.get(at).context("inside of what was read")? ^ 0x10;
    let file = std::fs::OpenOptions::new().write(true).open(&segment);
    file.and_then(|file| file.write_all_at(&[byte], at as u64))
        .with_context(|| format!("writing {}", segment.display()))?;
    Ok(segment)
}

/// Fills the disk of a folder with a file, and says which.
pub(crate) fn fill(folder: &Path) -> anyhow::Result<PathBuf> {
    const CHUNK_BYTES: usize = 1 << 20;
    /// More than any disk that is given to a shard server here: a mistake must not fill the machine.
    const DISK_BYTES_MAX: usize = 1 << 30;
    let path = folder.join("filler");
    let mut file = std::fs::File::create(&path)?;
    let zeros = vec![0; CHUNK_BYTES];
    for _ in 0..DISK_BYTES_MAX / CHUNK_BYTES {
        match file.write_all(&zeros) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
            Err(error) => return Err(error).context("filling a disk"),
        }
    }
    unfill(&path)?;
    anyhow::bail!("the disk of {} is too large to be filled", folder.display())
}

/// Removes what filled a disk.
pub(crate) fn unfill(filler: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(filler).with_context(|| format!("removing {}", filler.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_what_was_written_is_flipped() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("1.wal"), folder.path().join("2.wal"));
        let written = [1, 2, 3, 4, 5, 0, 0, 0];
        std::fs::write(&old, written).unwrap();
        std::fs::write(&new, written).unwrap();
        std::fs::write(folder.path().join("mark"), written).unwrap();
        assert_eq!(flip(folder.path(), false).unwrap(), new);
        assert_eq!(std::fs::read(&new).unwrap(), [1, 2, 0x13, 4, 5, 0, 0, 0]);
        assert_eq!(flip(folder.path(), true).unwrap(), new);
        assert_eq!(std::fs::read(&new).unwrap(), [1, 2, 0x13, 4, 0x15, 0, 0, 0]);
        assert_eq!(std::fs::read(&old).unwrap(), written);
    }

    #[test]
    fn what_a_server_runs_on_is_gone_when_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("wal")).unwrap();
        std::fs::write(data.join("wal/1.wal"), [1]).unwrap();
        assert!(wipe_live(&data).unwrap());
        assert!(!data.exists() && folder.path().exists());
        // Whoever looks again finds the same.
        assert!(wipe_live(&data).unwrap());
        assert!(wipe(&data).is_err(), "a server that is down has data");
    }
}
