//! A small file rewritten in place, whose older copy survives a torn write of the newer.
//!
//! Both slots take their space when the file is created, so that rewriting needs none. An error of a write leaves the older slot
//! valid, and the handle unusable.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Op, Result, Vfs, VfsFile, durable};

/// A small file that is rewritten in place: two slots, written in turn, each with a sequence number
/// and a CRC32. The older slot is intact while the newer is being written, so a crash leaves the one
/// or the other. Cheaper than [`durable::replace`] (one sync, no rename), and its loss is detectable,
/// for the file exists from its creation on.
///
/// Each slot, at offsets 0 and `slot_bytes`; integers are little endian:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic given by the caller |
/// | 8 | 4 | CRC32 of magic, sequence, length and body |
/// | 12 | 4 | length of the body |
/// | 16 | 8 | sequence, from 1 to 2^64 - 2; sequence modulo 2 is the slot's number |
/// | 24 | | body |
///
/// After an error of [`TwoSlot::write`] the file must not be written again through this handle.
#[derive(Debug)]
pub struct TwoSlot {
    file: Box<dyn VfsFile>,
    magic: [u8; 8],
    slot_bytes: u64,
    sequence: u64,
}

/// What was found in a two-slot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotReport {
    /// The body of the newest valid slot, `None` if neither is valid.
    pub body: Option<Vec<u8>>,
    /// Its sequence number, 0 if neither is valid.
    pub sequence: u64,
    /// Slots that were written once but do not verify: a write torn by a crash, or rot.
    pub damaged: usize,
    /// Slots that the disk does not give back whole. What follows the body may be lost without harm; else they are damaged, too.
    pub unreadable: usize,
}

const HEADER_BYTES: usize = 24;

/// The last sequence number that a slot may have, so that counting on never overflows. Nobody gets there by writing.
const SEQUENCE_MAX: u64 = u64::MAX - 1;

impl TwoSlot {
    /// Creates or replaces the file with one valid slot, durably. The other slot is zeros, written at full length like the
    /// first, so that no later [`TwoSlot::write`] needs room on the disk. `sequence` must be above that of any earlier
    /// content whose copies may still be found; 1 for a new file.
    pub fn create(
        vfs: &dyn Vfs,
        path: &Path,
        magic: [u8; 8],
        slot_bytes: u64,
        sequence: u64,
        body: &[u8],
    ) -> Result<Self> {
        check_sequence(path, sequence)?;
        let slot = encode(magic, sequence, body);
        if slot.len() as u64 > slot_bytes {
            return Err(too_large(path, body.len()));
        }
        let mut both = vec![0; usize_of(2 * slot_bytes)];
        let start = usize_of((sequence % 2) * slot_bytes);
        if let Some(place) = both.get_mut(start..start + slot.len()) {
            place.copy_from_slice(&slot);
        }
        let temp = durable::create_temporary(vfs, path)?;
        temp.write_all_at(&both, 0)?;
        temp.sync_all()?;
        durable::publish(vfs, temp.path(), path)?;
        Ok(Self {
            file: vfs.open_write(path)?,
            magic,
            slot_bytes,
            sequence,
        })
    }

    /// Reads a file without opening it to write. An absent file is an error; a slot that the disk does not give back is none. Such a
    /// file is to be created anew: a write into a part that cannot be read fails.
    pub fn read(vfs: &dyn Vfs, path: &Path, magic: [u8; 8], slot_bytes: u64) -> Result<SlotReport> {
        let file = vfs.open_read(path)?;
        let mut report = SlotReport {
            body: None,
            sequence: 0,
            damaged: 0,
            unreadable: 0,
        };
        for number in 0..2 {
            let start = number * slot_bytes;
            let mut bytes = vec![0; usize_of(slot_bytes)];
            let (read, whole) = match file.read_patiently_at(&mut bytes, start) {
                Err(error) if error.is_unreadable() => {
                    let sound = error.offset.map_or(0, |at| at.saturating_sub(start));
                    (usize_of(sound), false)
                }
                read => (read?, true),
            };
            report.unreadable += usize::from(!whole);
            bytes.truncate(read);
            match decode(magic, number, &bytes) {
                Some((sequence, body)) if sequence > report.sequence => {
                    report.sequence = sequence;
                    report.body = Some(body);
                }
                Some(_) => {}
                None => {
                    let written = bytes.iter().any(|byte| *byte != 0);
                    report.damaged += usize::from(written || !whole);
                }
            }
        }
        Ok(report)
    }

    /// Opens an existing file to write on, and says what it holds. After a failed sync of an earlier process the newest slot
    /// may be in the page cache only: who relies on it writes it again first. An absent file is an error.
    pub fn open(
        vfs: &dyn Vfs,
        path: &Path,
        magic: [u8; 8],
        slot_bytes: u64,
    ) -> Result<(Self, SlotReport)> {
        let report = Self::read(vfs, path, magic, slot_bytes)?;
        let slots = Self {
            file: vfs.open_write(path)?,
            magic,
            slot_bytes,
            sequence: report.sequence,
        };
        Ok((slots, report))
    }

    /// Writes a new body into the older slot and syncs it.
    pub fn write(&mut self, body: &[u8]) -> Result<()> {
        let sequence = self.sequence + 1;
        check_sequence(self.file.path(), sequence)?;
        let slot = encode(self.magic, sequence, body);
        if slot.len() as u64 > self.slot_bytes {
            return Err(too_large(self.file.path(), body.len()));
        }
        self.file
            .write_all_at(&slot, (sequence % 2) * self.slot_bytes)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }

    /// The sequence number of the newest slot.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX / 2)
}

fn check_sequence(path: &Path, sequence: u64) -> Result<()> {
    if sequence <= SEQUENCE_MAX {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "the sequence is at its end");
    Err(Error::new(Op::Write, path, source))
}

fn too_large(path: &Path, len: usize) -> Error {
    let text = format!("{len} bytes do not fit a slot");
    Error::new(
        Op::Write,
        path,
        io::Error::new(io::ErrorKind::InvalidInput, text),
    )
}

fn checksum(magic: [u8; 8], sequence: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&magic);
    crc.update(&sequence.to_le_bytes());
    crc.update(&(body.len() as u64).to_le_bytes());
    crc.update(body);
    crc.finalize()
}

fn encode(magic: [u8; 8], sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(HEADER_BYTES + body.len());
    slot.extend_from_slice(&magic);
    slot.extend_from_slice(&checksum(magic, sequence, body).to_le_bytes());
    slot.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    slot.extend_from_slice(&sequence.to_le_bytes());
    slot.extend_from_slice(body);
    slot
}

fn decode(magic: [u8; 8], number: u64, bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (found, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    let valid = *found == magic
        && sequence != 0
        // Nothing could be newer.
        && sequence <= SEQUENCE_MAX
        && sequence % 2 == number
        && u32::from_le_bytes(*crc) == checksum(magic, sequence, body);
    valid.then(|| (sequence, body.to_vec()))
}
