//! Verifying a snapshot file: every byte is read and checked before any of it is believed.

use std::cmp::Ordering;
use std::io::{self, Read};
use std::path::Path;

use vfs::{FileReader, Vfs};

use super::SnapshotInfo;
use super::format::{self, FIXED_BYTES, FOOTER_BYTES, Footer, Header, Start};
use crate::SnapshotError;

/// A snapshot file whose every byte was read and found right.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) header: Header,
    pub(crate) info: SnapshotInfo,
    header_bytes: u64,
    body_bytes: u64,
}

impl Verified {
    /// The body alone, for [`crate::StateMachine::restore`].
    pub(crate) fn body(
        &self,
        vfs: &dyn Vfs,
        path: &Path,
    ) -> Result<impl Read + use<>, SnapshotError> {
        let reader = FileReader::starting_at(vfs.open_read(path)?, self.header_bytes);
        Ok(reader.take(self.body_bytes))
    }
}

/// As [`verify`], for a verdict: a file that the disk does not give back is read once more, for a failed read costs nothing and may be a
/// command lost in a reset, and is damaged then.
pub(crate) fn judge(vfs: &dyn Vfs, path: &Path) -> Result<Verified, SnapshotError> {
    match verify(vfs, path) {
        Err(error) if error.is_unreadable() => verify(vfs, path).map_err(|error| {
            if !error.is_unreadable() {
                return error;
            }
            SnapshotError::Damaged {
                name: name_of(path),
                problem: error.to_string(),
            }
        }),
        found => found,
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Reads a whole file and checks its structure and its hash; nothing of the body is decoded.
pub(crate) fn verify(vfs: &dyn Vfs, path: &Path) -> Result<Verified, SnapshotError> {
    let name = || name_of(path);
    let damaged = |problem: &str| SnapshotError::Damaged {
        name: name(),
        problem: problem.to_owned(),
    };
    let file = vfs.open_read(path)?;
    let file_bytes = file.len()?;
    let smallest = (FIXED_BYTES + FOOTER_BYTES) as u64;
    if file_bytes < smallest {
        return Err(damaged("the file is too short"));
    }

    let mut start = [0; FIXED_BYTES];
    file.read_exact_at(&mut start, 0)?;
    let (version, length) = match format::judge_start(&start) {
        Start::Header(version, length) => (version, length),
        Start::Damaged(problem) => return Err(damaged(problem)),
    };
    let header_bytes = (FIXED_BYTES + length + 4) as u64;
    if file_bytes < header_bytes + FOOTER_BYTES as u64 {
        return Err(damaged("the file ends within its header"));
    }
    let mut header = vec![0; FIXED_BYTES + length + 4];
    file.read_exact_at(&mut header, 0)?;
    let (content, checksum) = header.split_at(FIXED_BYTES + length);
    if crc32fast::hash(content).to_le_bytes() != checksum {
        return Err(damaged("the header's checksum is wrong"));
    }
    match version.cmp(&format::VERSION) {
        Ordering::Equal => {}
        Ordering::Less => return Err(damaged("the format version is none")),
        Ordering::Greater => {
            return Err(SnapshotError::Version {
                name: name(),
                version,
                known: format::VERSION,
            });
        }
    }
    let header = Header::decode_body(content.get(FIXED_BYTES..).unwrap_or_default())
        .map_err(|problem| damaged(&problem))?;

    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, file_bytes - FOOTER_BYTES as u64)?;
    let footer = Footer::decode(&footer).ok_or_else(|| damaged("there is no footer"))?;
    let body_bytes = file_bytes - header_bytes - FOOTER_BYTES as u64;
    if footer.body_bytes != body_bytes {
        return Err(damaged("the length of the body is wrong"));
    }
    // The hash covers everything before it, the length of the body included.
    let hashed = header_bytes + body_bytes + 8;
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut FileReader::new(file).take(hashed), &mut hasher)?;
    if *hasher.finalize().as_bytes() != footer.hash {
        return Err(damaged("the hash is wrong"));
    }
    let info = header.info(file_bytes, footer.hash);
    Ok(Verified {
        header,
        info,
        header_bytes,
        body_bytes,
    })
}
