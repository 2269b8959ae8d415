//! Reading around what the disk does not give back.
//!
//! Nothing is made up: where bytes are missing there are zeros, and the ranges are told. Any other error ends it.

use std::ops::Range;

use crate::{Result, VfsFile};

/// What is passed over at a time: what a page cache reads, or fails to read, at once.
const UNIT_BYTES: u64 = 4096;

/// A file as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// The bytes, zeros where the disk gives none back.
    pub bytes: Vec<u8>,
    /// The ranges that it does not give back, in bytes from the start of the file, ascending, none touching another.
    pub unreadable: Vec<Range<u64>>,
}

/// Reads a whole file. Each part that cannot be read is asked for twice, which may take seconds for each on a real disk.
pub fn salvage(file: &dyn VfsFile) -> Result<Salvaged> {
    let len = file.len()?;
    let mut bytes = vec![0; index(len)];
    let mut unreadable: Vec<Range<u64>> = Vec::new();
    let mut offset = 0;
    while let Some(rest) = bytes
        .get_mut(index(offset)..)
        .filter(|rest| !rest.is_empty())
    {
        match file.read_patiently_at(rest, offset) {
            Ok(read) => {
                bytes.truncate(index(offset) + read);
                break;
            }
            Err(error) if error.is_unreadable() => {
                let from = error.offset.unwrap_or(offset).max(offset);
                let to = ((from / UNIT_BYTES + 1) * UNIT_BYTES).min(len);
                if let Some(lost) = bytes.get_mut(index(from)..index(to)) {
                    lost.fill(0);
                }
                match unreadable.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    Some(_) | None => unreadable.push(from..to),
                }
                offset = to;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Salvaged { bytes, unreadable })
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
