//! Reading the log again while it runs, so that rot is found while the peers still have what was lost.
//!
//! A pass goes through all segments, oldest first, in steps whose size the caller chooses and whose pace it keeps. Every
//! byte that counts is verified as a start would: headers, chains, payloads, and that each segment ends where its successor
//! says. What is not durable yet when the pass begins is not looked at, so that a pass ends however much is written meanwhile. Only as much as one record or one window is in memory. Segments that
//! retention deletes meanwhile are passed over. What the page cache holds is read from there, so that rot below it shows when
//! it is evicted.

use crate::{
    error::{ReadError, RotReason},
    format::{FRAME_BYTES, Frame, HEADER_BYTES, SegmentHeader, payload_crc},
    recover::OpenSegment,
    segment::at,
    shared::Shared,
    types::Place,
};

/// Bytes read at once, unless a record is larger.
const WINDOW_BYTES: u64 = 256 << 10;

/// How far a pass has come; the default is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubPosition {
    segment: u64,
    /// 0 before the segment's header.
    offset: u64,
    chain: u32,
    /// The segment before, where it ends and the chain there, if this pass has read it.
    previous: Option<(Place, u32)>,
    /// Where the log ended when the pass began.
    until: Option<Place>,
}

/// What a step of a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes that were read and are sound.
    pub bytes: u64,
    /// Where to go on; `None` at the end of the log.
    pub next: Option<ScrubPosition>,
}

/// Reads on from a position, about `bytes_max` bytes, at least one record where there is one.
pub(crate) fn step(
    shared: &Shared,
    from: ScrubPosition,
    bytes_max: u64,
) -> Result<ScrubStep, ReadError> {
    let over = ScrubStep {
        bytes: 0,
        next: None,
    };
    let until = from
        .until
        .unwrap_or_else(|| shared.state.lock().durable_end());
    let Some((segment, successor)) = locate(shared, from.segment) else {
        return Ok(over);
    };
    let mut at = if segment.0 == from.segment {
        from
    } else {
        // The one that was being read is gone.
        ScrubPosition {
            segment: segment.0,
            ..ScrubPosition::default()
        }
    };
    at.until = Some(until);
    let (number, mut open) = segment;
    if number > until.segment {
        return Ok(over);
    }
    let is_last = number == until.segment;
    if is_last {
        open.end = open.end.min(until.offset);
    }
    let successor = successor.filter(|_| !is_last);
    let mut bytes = 0;
    if at.offset == 0 {
        begin(&open, number, &mut at)?;
        bytes += HEADER_BYTES as u64;
    }
    while at.offset < open.end && bytes < bytes_max {
        bytes += window(&open, &mut at)?;
    }
    let next = if at.offset < open.end {
        Some(at)
    } else {
        successor.map(|successor| {
            let end = Place {
                segment: number,
                offset: at.offset,
            };
            ScrubPosition {
                segment: successor,
                previous: Some((end, at.chain)),
                until: at.until,
                ..ScrubPosition::default()
            }
        })
    };
    Ok(ScrubStep { bytes, next })
}

type Numbered = (u64, OpenSegment);

/// The segment of a number, or the next that exists, and the number of its successor.
fn locate(shared: &Shared, number: u64) -> Option<(Numbered, Option<u64>)> {
    let state = shared.state.lock();
    let mut from = state.segments.range(number..).map(|(number, _)| *number);
    let found = from.next()?;
    Some(((found, state.segment(found)?), from.next()))
}

fn rotten(at: &ScrubPosition, offset: u64, reason: RotReason) -> ReadError {
    let place = Place {
        segment: at.segment,
        offset,
    };
    ReadError::Rotten { place, reason }
}

/// Verifies a segment's header, and that it follows the segment before.
fn begin(open: &OpenSegment, number: u64, at: &mut ScrubPosition) -> Result<(), ReadError> {
    let damaged = |at: &ScrubPosition| rotten(at, 0, RotReason::SegmentHeader);
    let mut bytes = [0; HEADER_BYTES];
    if open.file.read_full_at(&mut bytes, 0)? < HEADER_BYTES {
        return Err(damaged(at));
    }
    let (header, seed) = SegmentHeader::decode(&bytes).map_err(|_| damaged(at))?;
    if header.number != number || seed != open.seed {
        return Err(damaged(at));
    }
    if let Some((end, chain)) = at.previous
        && end.segment + 1 == number
        && (header.previous_end, header.previous_chain) != (end.offset, chain)
    {
        return Err(rotten(at, 0, RotReason::Chain));
    }
    at.offset = HEADER_BYTES as u64;
    at.chain = seed;
    Ok(())
}

/// Verifies the records of one window, and says how many bytes they have.
fn window(open: &OpenSegment, position: &mut ScrubPosition) -> Result<u64, ReadError> {
    let start = position.offset;
    let bytes = read(open, start, WINDOW_BYTES)?;
    let mut rest = bytes.as_slice();
    while let Some(frame) = verify(open, position, rest)? {
        rest = rest.get(at(frame.total_bytes())..).unwrap_or_default();
    }
    if position.offset > start {
        return Ok(position.offset - start);
    }
    // A record that is larger than the window, or one that the segment's end cuts off.
    let ended = |position: &ScrubPosition| rotten(position, start, RotReason::EndMissing);
    let header = bytes.first_chunk().ok_or_else(|| ended(position))?;
    let claimed = Frame::decode(header, open.seed, start)
        .ok_or_else(|| rotten(position, start, RotReason::RecordHeader))?;
    let bytes = read(open, start, claimed.frame.total_bytes())?;
    match verify(open, position, &bytes)? {
        Some(frame) => Ok(frame.total_bytes()),
        None => Err(ended(position)),
    }
}

/// At most `limit` bytes from an offset, none behind the segment's end.
fn read(open: &OpenSegment, offset: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; at(limit.min(open.end - offset))];
    let read = open.file.read_full_at(&mut bytes, offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Verifies the record that begins at the position and moves on behind it; `None` if `bytes` do not hold it whole.
fn verify(
    open: &OpenSegment,
    position: &mut ScrubPosition,
    bytes: &[u8],
) -> Result<Option<Frame>, ReadError> {
    let Some(header) = bytes.first_chunk::<FRAME_BYTES>() else {
        return Ok(None);
    };
    let offset = position.offset;
    let claimed = Frame::decode(header, open.seed, offset)
        .ok_or_else(|| rotten(position, offset, RotReason::RecordHeader))?;
    if !claimed.follows(position.chain) {
        return Err(rotten(position, offset, RotReason::Chain));
    }
    let frame = claimed.frame;
    let Some(stored) = bytes.get(FRAME_BYTES..at(frame.total_bytes())) else {
        return Ok(None);
    };
    if payload_crc(stored) != frame.payload_crc {
        return Err(rotten(position, offset, RotReason::Payload));
    }
    position.offset += frame.total_bytes();
    position.chain = claimed.chain;
    Ok(Some(frame))
}
