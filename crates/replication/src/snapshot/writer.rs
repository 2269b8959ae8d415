//! Writing a snapshot file as a stream, hashed while it is written; a failed write leaves nothing behind.

use std::io::{self, Read, Write};
use std::path::Path;

use vfs::{FileWriter, Vfs};

use super::SnapshotInfo;
use super::format::{FOOTER_MAGIC, Header};
use crate::{SnapshotError, SnapshotView};

/// Writes a snapshot to a new file and syncs it. The name is not durable yet and the file not published.
pub(crate) fn write(
    vfs: &dyn Vfs,
    path: &Path,
    header: &Header,
    view: impl SnapshotView,
) -> Result<SnapshotInfo, SnapshotError> {
    write_body(vfs, path, header, |out| view.encode(out))
}

/// Writes a snapshot with another header around a body that was verified.
pub(crate) fn copy(
    vfs: &dyn Vfs,
    path: &Path,
    header: &Header,
    body: &mut dyn Read,
) -> Result<SnapshotInfo, SnapshotError> {
    write_body(vfs, path, header, |out| io::copy(body, out).map(drop))
}

fn write_body(
    vfs: &dyn Vfs,
    path: &Path,
    header: &Header,
    body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<SnapshotInfo, SnapshotError> {
    match vfs.remove_file(path) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let mut out = Hashing {
        file: FileWriter::new(vfs.create_new(path)?),
        hasher: blake3::Hasher::new(),
    };
    let start = header.encode();
    out.write_all(&start)?;
    body(&mut out)?;
    let body_bytes = out.file.position() - start.len() as u64;
    out.write_all(&body_bytes.to_le_bytes())?;
    let Hashing { mut file, hasher } = out;
    let hash = *hasher.finalize().as_bytes();
    file.write_all(&hash)?;
    file.write_all(&FOOTER_MAGIC)?;
    let bytes = file.position();
    file.finish()?;
    Ok(header.info(bytes, hash))
}

struct Hashing {
    file: FileWriter,
    hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
