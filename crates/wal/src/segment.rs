//! Segment files: their names, and reading one from its start to its end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use vfs::Vfs;

use crate::{
    error::RotReason,
    format::{
        Claimed, FRAME_BYTES, Frame, FrameKind, HEADER_BYTES, MARKER_BYTES, MARKER_MAGIC,
        payload_crc,
    },
    types::Place,
};

const SUFFIX: &str = ".wal";

/// The file of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}

/// The number of the segment that a file's name is of.
pub(crate) fn number(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The numbers of the segments in a directory, ascending.
pub(crate) fn list(vfs: &dyn Vfs, dir: &Path) -> vfs::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = vfs
        .list_dir(dir)?
        .iter()
        .filter_map(|entry| number(&entry.name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Something that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where, from the start of the file.
    pub(crate) offset: u64,
    /// Where the batch begins in which it lies.
    pub(crate) batch_start: u64,
    pub(crate) reason: RotReason,
}

/// Records that were written and synced together.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where the marker begins that ends it.
    pub(crate) marker: u64,
    /// Each record's offset and header, without the marker.
    pub(crate) frames: Vec<(u64, Frame)>,
    /// The physical chain after the marker.
    pub(crate) chain: u32,
    /// All before this place was durable when the batch was written.
    pub(crate) watermark: Place,
}

/// The least that a disk writes as a whole.
const SECTOR_BYTES: u64 = 512;

/// Reads the batches of one segment that is in memory, in order, and verifies every byte of them.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    number: u64,
    seed: u32,
    chain: u32,
    offset: u64,
    batches: u64,
}

impl<'a> Scanner<'a> {
    /// `bytes` is the file up to where it counts; `seed` comes from its header.
    pub(crate) const fn new(bytes: &'a [u8], number: u64, seed: u32) -> Self {
        Self {
            bytes,
            number,
            seed,
            chain: seed,
            offset: HEADER_BYTES as u64,
            batches: 0,
        }
    }

    /// Goes on behind the given number of batches, where another scanner of the segment came to.
    pub(crate) const fn at(mut self, offset: u64, chain: u32, batches: u64) -> Self {
        (self.offset, self.chain, self.batches) = (offset, chain, batches);
        self
    }

    /// The end of the last batch, and the physical chain there.
    pub(crate) const fn position(&self) -> (u64, u32) {
        (self.offset, self.chain)
    }

    /// The physical chain before the first record.
    pub(crate) const fn initial_chain(&self) -> u32 {
        self.seed
    }

    /// The next batch; `None` at the end, which may be followed by zeros.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch>, Damage> {
        let start = self.offset;
        let rest = self.bytes.get(at(start)..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let damage = |offset, reason| Damage {
            offset,
            batch_start: start,
            reason,
        };
        let (mut offset, mut chain, mut frames) = (start, self.chain, Vec::new());
        loop {
            let claimed = self.claimed(offset);
            let claimed = claimed.ok_or(damage(offset, RotReason::RecordHeader))?;
            if !claimed.follows(chain) {
                return Err(damage(offset, RotReason::Chain));
            }
            let frame = claimed.frame;
            self.payload(offset, &frame)
                .ok_or(damage(offset, RotReason::Payload))?;
            chain = claimed.chain;
            if frame.kind != FrameKind::Marker {
                frames.push((offset, frame));
                offset += frame.total_bytes();
                continue;
            }
            if !self.is_marker(offset, &frame) || frame.group != start {
                return Err(damage(offset, RotReason::Sense));
            }
            if frame.index != self.batches + 1 {
                return Err(damage(offset, RotReason::Sense));
            }
            let marker = offset;
            offset += frame.total_bytes();
            (self.offset, self.chain) = (offset, chain);
            self.batches += 1;
            return Ok(Some(Batch {
                start,
                end: offset,
                marker,
                frames,
                chain,
                watermark: watermark(&frame),
            }));
        }
    }

    /// Looks for markers that verify by themselves after a damaged place.
    pub(crate) fn markers_after(&self, damage: Damage) -> Vec<LaterMarker> {
        let mut found = Vec::new();
        let rest = self.bytes.get(at(damage.offset)..).unwrap_or_default();
        for (position, window) in rest.windows(MARKER_MAGIC.len()).enumerate() {
            if window != MARKER_MAGIC {
                continue;
            }
            let magic_at = damage.offset + position as u64;
            let Some(offset) = magic_at.checked_sub(FRAME_BYTES as u64) else {
                continue;
            };
            let Some(Claimed { frame, .. }) = self.claimed(offset) else {
                continue;
            };
            if self.is_marker(offset, &frame) {
                found.push(LaterMarker {
                    offset,
                    batch_start: frame.group,
                    watermark: watermark(&frame),
                });
            }
        }
        found
    }

    /// Whether a sector of a damaged batch, before its marker, has nothing but zeros. A batch begins where nothing was written before,
    /// and no record is that empty: the sector never reached the disk, and the batch was never synced. The marker is one that verified:
    /// what looks like one may be of a client's making.
    pub(crate) fn lacks_sectors(&self, damage: Damage, marker: LaterMarker) -> bool {
        let first = damage.batch_start.next_multiple_of(SECTOR_BYTES);
        let sectors = (first..marker.offset).step_by(at(SECTOR_BYTES));
        sectors
            .filter_map(|sector| self.bytes.get(at(sector)..at(sector + SECTOR_BYTES)))
            .any(|sector| sector.iter().all(|byte| *byte == 0))
    }

    /// The stored payload of a record that verified.
    pub(crate) fn payload(&self, offset: u64, frame: &Frame) -> Option<&'a [u8]> {
        let start = offset + FRAME_BYTES as u64;
        let end = start + u64::from(frame.stored_len);
        let stored = self.bytes.get(at(start)..at(end))?;
        (payload_crc(stored) == frame.payload_crc).then_some(stored)
    }

    fn claimed(&self, offset: u64) -> Option<Claimed> {
        let rest = self.bytes.get(at(offset)..)?;
        Frame::decode(rest.first_chunk()?, self.seed, offset)
    }

    fn is_marker(&self, offset: u64, frame: &Frame) -> bool {
        let place = Place {
            segment: self.number,
            offset,
        };
        let stored = self.payload(offset, frame).unwrap_or_default();
        let padding = stored.strip_prefix(&MARKER_MAGIC);
        frame.kind == FrameKind::Marker
            && padding.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
            && frame.group <= offset
            && watermark(frame) < place
    }
}

/// A marker found behind a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaterMarker {
    pub(crate) offset: u64,
    pub(crate) batch_start: u64,
    pub(crate) watermark: Place,
}

const fn watermark(marker: &Frame) -> Place {
    Place {
        segment: marker.term,
        offset: marker.node,
    }
}

/// The marker that ends a batch, with its payload: the magic, and zeros up to the next multiple of
/// `align`, so that no sector holds parts of two batches.
pub(crate) fn marker(
    batch_start: u64,
    offset: u64,
    number: u64,
    watermark: Place,
    align: u64,
) -> (Frame, Vec<u8>) {
    let end = (offset + MARKER_BYTES as u64).next_multiple_of(align);
    let mut payload = MARKER_MAGIC.to_vec();
    payload.resize(at(end - offset - FRAME_BYTES as u64), 0);
    let mut frame = Frame::bare(FrameKind::Marker, batch_start);
    frame.term = watermark.segment;
    frame.node = watermark.offset;
    frame.index = number;
    frame.stored_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    frame.raw_len = frame.stored_len;
    frame.payload_crc = payload_crc(&payload);
    (frame, payload)
}

/// An offset in memory. Files are at most a few hundred megabytes.
pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
