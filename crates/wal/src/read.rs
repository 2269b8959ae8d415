//! Reading entries back: from the cache, or from a segment with every checksum verified again.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    codec::Decoder,
    error::{ReadError, RotReason},
    format::{FRAME_BYTES, Frame, FrameKind, payload_crc},
    group::Slot,
    recover::OpenSegment,
    shared::Shared,
    types::{Entry, GroupId, LogId},
};

/// Where an entry's payload is to be had.
enum Source {
    Memory(Bytes),
    Disk(OpenSegment),
}

pub(crate) fn read(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: u64,
) -> Result<Vec<Entry>, ReadError> {
    let found = locate(shared, group, range, bytes_max)?;
    let mut decoder = Decoder::default();
    let mut entries = Vec::with_capacity(found.len());
    for (index, slot, source) in found {
        let payload = match source {
            Source::Memory(payload) => payload,
            Source::Disk(segment) => {
                let wanted = (group, index, &slot);
                from_disk(shared, &segment, wanted, &mut decoder)?
            }
        };
        entries.push(Entry {
            id: LogId {
                term: slot.term,
                node: slot.node,
                index,
            },
            kind: slot.kind,
            payload,
        });
    }
    Ok(entries)
}

fn locate(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: u64,
) -> Result<Vec<(u64, Slot, Source)>, ReadError> {
    let mut state = shared.state.lock();
    let (mut found, mut bytes, mut hits) = (Vec::new(), 0, 0);
    if let Some(log) = state.groups.get(&group) {
        let have = log.indexes();
        for index in range.start.max(have.start)..range.end.min(have.end) {
            let Some(slot) = log.get(index) else { break };
            bytes += u64::from(slot.raw_len);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            let source = if let Some(payload) = state.cache.get(slot.ticket) {
                hits += 1;
                Source::Memory(payload.clone())
            } else {
                let segment = state.segment(slot.segment).ok_or(ReadError::Rotten {
                    place: slot.place().unwrap_or_default(),
                    reason: RotReason::SegmentMissing,
                })?;
                Source::Disk(segment)
            };
            found.push((index, *slot, source));
        }
    }
    state.stats.cache_hits += hits;
    state.stats.cache_misses += found.len() as u64 - hits;
    Ok(found)
}

fn from_disk<'a>(
    shared: &'a Shared,
    segment: &OpenSegment,
    wanted: (GroupId, u64, &Slot),
    decoder: &mut Decoder<'a>,
) -> Result<Bytes, ReadError> {
    let (group, index, slot) = wanted;
    let place = slot.place().unwrap_or_default();
    let rotten = |reason| ReadError::Rotten { place, reason };
    let len = FRAME_BYTES + usize::try_from(slot.stored_len).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    if segment.file.read_full_at(&mut bytes, place.offset)? != len {
        return Err(rotten(RotReason::EndMissing));
    }
    let mut bytes = Bytes::from(bytes);
    let stored = bytes.split_off(FRAME_BYTES);
    let header = bytes.first_chunk::<FRAME_BYTES>();
    let frame = header.and_then(|header| Frame::decode(header, segment.seed, place.offset));
    let frame = frame.ok_or(rotten(RotReason::RecordHeader))?.frame;
    if !is_wanted(&frame, group, index, slot) {
        return Err(rotten(RotReason::Sense));
    }
    if payload_crc(&stored) != frame.payload_crc {
        return Err(rotten(RotReason::Payload));
    }
    let dictionaries = shared.dictionaries.as_ref();
    decoder
        .decode(&frame, stored, segment.dictionary, dictionaries)
        .map_err(rotten)
}

fn is_wanted(frame: &Frame, group: GroupId, index: u64, slot: &Slot) -> bool {
    frame.kind == FrameKind::Entry
        && frame.group == group.0
        && frame.index == index
        && frame.term == slot.term
        && frame.stored_len == slot.stored_len
        && frame.logical_chain == slot.chain
}
