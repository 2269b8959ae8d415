//! Makes checksums right after bytes were changed, so that what lies behind them is reached.
//!
//! Written from the formats' documents and not with the code that is tried. What always holds: no byte is added or removed, and bytes
//! that are too few or make no sense are left as they are.

use std::collections::BTreeMap;
use std::ops::Range;

/// Nothing to mend.
pub fn nothing(_: &mut [u8]) {}

pub(crate) fn crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn part(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*part(bytes, at, 4)?.first_chunk()?))
}

fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*part(bytes, at, 8)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    let place = bytes.get_mut(at..at.checked_add(value.len())?)?;
    place.copy_from_slice(value);
    Some(())
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(get_u32(bytes, at)?).ok()
}

// --- the log --------------------------------------------------------------------------------------------------------

const SEGMENT_HEADER: usize = 96;
const RECORD_HEADER: usize = 64;
const KIND_ENTRY: u8 = 1;
const KIND_STATE: u8 = 7;

/// The checksums and both chains of a segment of the log.
pub fn segment(bytes: &mut [u8]) {
    let _ = try_segment(bytes);
}

fn try_segment(bytes: &mut [u8]) -> Option<()> {
    let seed = crc(0x5761_6c48, &[part(bytes, 0, 92)?]);
    put(bytes, 92, &seed.to_le_bytes())?;
    let (mut chain, mut at) = (seed, SEGMENT_HEADER);
    let mut logical = BTreeMap::new();
    loop {
        let payload_at = at + RECORD_HEADER;
        let payload = part(bytes, payload_at, length(bytes, at + 12)?)?;
        let (end, payload_crc) = (payload_at + payload.len(), crc(0x5761_6c50, &[payload]));
        put(bytes, at + 20, &payload_crc.to_le_bytes())?;
        logical_chain(bytes, at, end, &mut logical)?;
        chain = crc(chain, &[part(bytes, at + 8, RECORD_HEADER - 8)?]);
        put(bytes, at + 4, &chain.to_le_bytes())?;
        let place = (at as u64).to_le_bytes();
        let header = crc(seed, &[&place, part(bytes, at + 4, RECORD_HEADER - 4)?]);
        put(bytes, at, &header.to_le_bytes())?;
        at = end;
    }
}

/// The chain of a group's entries, as far as their content is at hand.
fn logical_chain(
    bytes: &mut [u8],
    at: usize,
    end: usize,
    chains: &mut BTreeMap<u64, u32>,
) -> Option<()> {
    let (kind, flags) = (*bytes.get(at + 8)?, *bytes.get(at + 9)?);
    let group = get_u64(bytes, at + 32)?;
    let payload = bytes.get(at + RECORD_HEADER..end)?;
    if kind == KIND_STATE {
        chains.insert(group, get_u32(payload, 4).unwrap_or(0));
        return Some(());
    }
    let told = get_u32(bytes, at + 24)?;
    let raw = match (kind, flags & 3) {
        (KIND_ENTRY, 0) => Some(payload.to_vec()),
        (KIND_ENTRY, 1) => zstd::bulk::decompress(payload, 1 << 20).ok(),
        _ => None,
    };
    let Some(raw) = raw else {
        chains.insert(group, told);
        return Some(());
    };
    let before = chains.get(&group).copied().unwrap_or(0x5761_6c4c);
    let chain = crc(
        before,
        &[
            &group.to_le_bytes(),
            part(bytes, at + 40, 8)?,
            part(bytes, at + 56, 8)?,
            part(bytes, at + 10, 1)?,
            &(raw.len() as u64).to_le_bytes(),
            &raw,
        ],
    );
    put(bytes, at + 24, &chain.to_le_bytes())?;
    chains.insert(group, chain);
    Some(())
}

/// The number, the length and the checksum of a dictionary of the log, which is tagged with 0 where it is the first and else is the second.
pub fn log_dictionary(bytes: &mut [u8]) {
    let _ = try_log_dictionary(bytes);
}

fn try_log_dictionary(bytes: &mut [u8]) -> Option<()> {
    let (tag, file) = bytes.split_first_mut()?;
    let number: u32 = if *tag == 0 { 1 } else { 2 };
    let len = u32::try_from(file.len().checked_sub(24)?).ok()?;
    put(file, 12, &number.to_le_bytes())?;
    put(file, 16, &len.to_le_bytes())?;
    let (magic, version) = (b"ACWALDIC", part(file, 8, 4)?);
    let rest = file.get(24..)?;
    let sum = if get_u32(file, 8)? <= 1 {
        crc(number, &[magic, rest])
    } else {
        crc(number, &[magic, version, rest])
    };
    put(file, 20, &sum.to_le_bytes())
}

// --- small files ----------------------------------------------------------------------------------------------------

/// The checksum of everything before it, in the last four bytes.
pub fn last_crc(bytes: &mut [u8]) {
    let Some(end) = bytes.len().checked_sub(4) else {
        return;
    };
    let sum = crc(0, &[bytes.get(..end).unwrap_or_default()]);
    let _ = put(bytes, end, &sum.to_le_bytes());
}

/// The length of the name and the checksum of a node's identity.
pub fn node_identity(bytes: &mut [u8]) {
    let name = bytes.len().checked_sub(50 + 4);
    if let Some(len) = name.and_then(|len| u16::try_from(len).ok()) {
        let _ = put(bytes, 48, &len.to_le_bytes());
    }
    last_crc(bytes);
}

/// The lengths of both parts and the checksum of a node's orders.
pub fn orders(bytes: &mut [u8]) {
    let _ = try_orders(bytes);
    last_crc(bytes);
}

fn try_orders(bytes: &mut [u8]) -> Option<()> {
    let both = bytes.len().checked_sub(8 + 4 + 4 + 4)?;
    let begun = (both - length(bytes, 8)?.min(both)) / 16 * 16;
    let orders = both - begun;
    put(bytes, 8, &u32::try_from(orders).ok()?.to_le_bytes())?;
    put(
        bytes,
        12 + orders,
        &u32::try_from(begun).ok()?.to_le_bytes(),
    )
}

/// Two slots, each with its length before it: length (4), then as much of the slot.
pub fn slots(bytes: &mut [u8]) {
    let Some((first, second)) = split_slots(bytes) else {
        return;
    };
    for (at, len) in [first, second] {
        if let Some(bytes) = bytes.get_mut(at..at + len) {
            let _ = try_slot(bytes);
        }
    }
}

/// Where two slots stand in an input, and how long they are: the first begins with its length, the second is the rest.
#[must_use]
pub fn split_slots(bytes: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let first = length(bytes, 0)?.min(bytes.len() - 4);
    Some(((4, first), (4 + first, bytes.len() - 4 - first)))
}

fn try_slot(bytes: &mut [u8]) -> Option<()> {
    let body_bytes = bytes.len().checked_sub(24)?;
    let told = length(bytes, 12)?.min(body_bytes);
    put(bytes, 12, &u32::try_from(told).ok()?.to_le_bytes())?;
    let (magic, sequence) = (part(bytes, 0, 8)?, part(bytes, 16, 8)?);
    let len = (told as u64).to_le_bytes();
    let sum = crc(0, &[magic, sequence, &len, part(bytes, 24, told)?]);
    put(bytes, 8, &sum.to_le_bytes())
}

// --- messages of peers ----------------------------------------------------------------------------------------------

/// The checksum of the block of an append request, which is tagged with 0.
pub fn append_block(bytes: &mut [u8]) {
    let _ = try_append_block(bytes);
}

fn try_append_block(bytes: &mut [u8]) -> Option<()> {
    let message = bytes.split_first_mut().filter(|(tag, _)| **tag == 0)?.1;
    let block = field(message, 0..message.len(), (6 << 3) | 2)?;
    let data = field(message, block.clone(), (1 << 3) | 2)?;
    let size = field(message, block.clone(), 2 << 3)
        .and_then(|place| varint(message, &mut { place.start }))
        .unwrap_or(0);
    let sum = crc(u32::try_from(size).ok()?, &[message.get(data)?]);
    let place = field(message, block, (3 << 3) | 5)?;
    put(message, place.start, &sum.to_le_bytes())
}

/// Where the first field with a key stands within a part of a message of protobuf, without the key and the length.
fn field(bytes: &[u8], within: Range<usize>, key: u64) -> Option<Range<usize>> {
    let (bytes, mut at) = (bytes.get(..within.end)?, within.start);
    loop {
        let found = varint(bytes, &mut at)?;
        let length = match found & 7 {
            0 => {
                let mut end = at;
                varint(bytes, &mut end)?;
                end - at
            }
            1 => 8,
            2 => usize::try_from(varint(bytes, &mut at)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let place = at..at.checked_add(length)?;
        bytes.get(place.clone())?;
        if found == key {
            return Some(place);
        }
        at = place.end;
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

// --- snapshots ------------------------------------------------------------------------------------------------------

/// The checksum of the header, the length of the body and the hash of a snapshot file.
pub fn snapshot_file(bytes: &mut [u8]) {
    let _ = try_snapshot_file(bytes);
}

fn try_snapshot_file(bytes: &mut [u8]) -> Option<()> {
    let header = 16 + length(bytes, 12)?;
    let sum = crc(0, &[part(bytes, 0, header)?]);
    put(bytes, header, &sum.to_le_bytes())?;
    let footer = bytes.len().checked_sub(48)?;
    let body = footer.checked_sub(header + 4)? as u64;
    put(bytes, footer, &body.to_le_bytes())?;
    let hash = *blake3::hash(part(bytes, 0, footer + 8)?).as_bytes();
    put(bytes, footer + 8, &hash)
}

const TRIE_SEED: u32 = 0x7472_6965;

/// The checksums of a dictionary's snapshot.
pub fn dictionary(bytes: &mut [u8]) {
    let _ = try_dictionary(bytes);
}

fn try_dictionary(bytes: &mut [u8]) -> Option<()> {
    let mut chain = crc(TRIE_SEED, &[part(bytes, 0, 12)?]);
    put(bytes, 12, &chain.to_le_bytes())?;
    let mut at = 16;
    loop {
        let stored = part(bytes, at + 28, length(bytes, at + 16)?)?;
        let (end, sum) = (at + 28 + stored.len(), crc(TRIE_SEED, &[stored]));
        put(bytes, at + 20, &sum.to_le_bytes())?;
        chain = crc(chain, &[part(bytes, at, 24)?]);
        put(bytes, at + 24, &chain.to_le_bytes())?;
        at = end;
    }
}

/// The checksums of a shard's state, and of the dictionaries in it.
pub fn state(bytes: &mut [u8]) {
    let _ = try_state(bytes);
}

fn try_state(bytes: &mut [u8]) -> Option<()> {
    let mut chain = crc(0, &[part(bytes, 0, 12)?]);
    put(bytes, 12, &chain.to_le_bytes())?;
    let mut at = 16;
    loop {
        let end = at + 12 + length(bytes, at + 4)?;
        let content = bytes.get_mut(at + 12..end)?;
        if let Some(inner) = content.get_mut(12..) {
            dictionary(inner);
        }
        chain = crc(chain, &[part(bytes, at, 8)?, bytes.get(at + 12..end)?]);
        put(bytes, at + 8, &chain.to_le_bytes())?;
        at = end;
    }
}

/// The length and the checksums of the metadata's snapshot.
pub fn metadata(bytes: &mut [u8]) {
    let _ = try_metadata(bytes);
}

fn try_metadata(bytes: &mut [u8]) -> Option<()> {
    let body = bytes.get(24..)?;
    let (len, sum) = ((body.len() as u64).to_le_bytes(), crc(0, &[body]));
    put(bytes, 8, &len)?;
    put(bytes, 16, &sum.to_le_bytes())?;
    let header = crc(0, &[part(bytes, 0, 20)?]);
    put(bytes, 20, &header.to_le_bytes())
}
