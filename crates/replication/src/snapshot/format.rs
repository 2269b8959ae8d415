//! The header and footer of a snapshot file; the table is in the module above.

use api::raft::v1 as wire;
use prost::Message as _;

use super::SnapshotInfo;
use crate::raft::{LogId, SnapshotMeta, StoredMembership, log_id, term_of};
use crate::{Applied, GroupId, convert};

pub(super) const MAGIC: [u8; 8] = *b"ACSNAPSH";
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"ACSNAPOK";
/// The newest format that this program reads and the one that it writes.
pub(super) const VERSION: u32 = 1;
/// Magic, version and length of the header's body.
pub(super) const FIXED_BYTES: usize = 16;
/// A header larger than this is damaged: a membership of hundreds of nodes fits easily.
pub(super) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Length of the body, hash, magic.
pub(super) const FOOTER_BYTES: usize = 8 + 32 + 8;
const NUMBERS_BYTES: usize = 7 * 8 + 1;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) group: GroupId,
    pub(crate) last: LogId,
    pub(crate) membership: StoredMembership,
    pub(crate) stamp_ms: i64,
    pub(crate) taken_at_ms: i64,
}

impl Header {
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(self.last),
            last_membership: self.membership.clone(),
        }
    }

    pub(super) fn info(&self, bytes: u64, hash: [u8; 32]) -> SnapshotInfo {
        SnapshotInfo {
            group: self.group,
            applied: Applied {
                index: self.last.index(),
                term: term_of(&self.last),
            },
            members: convert::members(self.membership.membership()),
            stamp_ms: self.stamp_ms,
            taken_at_ms: self.taken_at_ms,
            bytes,
            hash,
        }
    }

    /// The header as it stands in the file, its checksum included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let membership = convert::membership_to_wire(self.membership.membership()).encode_to_vec();
        let membership_at = *self.membership.log_id();
        let mut body = Vec::with_capacity(NUMBERS_BYTES + membership.len());
        body.extend(self.group.0.to_le_bytes());
        body.extend(term_of(&self.last).to_le_bytes());
        body.extend(self.last.index().to_le_bytes());
        body.push(u8::from(membership_at.is_some()));
        let at = membership_at.unwrap_or_else(|| log_id(0, 0));
        body.extend(term_of(&at).to_le_bytes());
        body.extend(at.index().to_le_bytes());
        body.extend(self.stamp_ms.to_le_bytes());
        body.extend(self.taken_at_ms.to_le_bytes());
        body.extend(membership);

        let mut bytes = Vec::with_capacity(FIXED_BYTES + body.len() + 4);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(body);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what follows the numbers that [`judge_start`] judged.
    pub(super) fn decode_body(body: &[u8]) -> Result<Self, String> {
        let (numbers, membership) = body
            .split_first_chunk::<NUMBERS_BYTES>()
            .ok_or("the header is too short")?;
        let [group, term, index] = take_numbers(&numbers[..24]);
        let has_membership_id = numbers[24] == 1;
        let [at_term, at_index, stamp, taken] = take_numbers(&numbers[25..]);
        let membership = wire::Membership::decode(membership)
            .map_err(|error| format!("membership: {error}"))
            .and_then(|found| convert::membership_from_wire(found).map_err(|e| e.to_string()))?;
        if [term, index, at_term, at_index].contains(&u64::MAX) {
            return Err("a term or an index leaves no room for another".to_owned());
        }
        let membership_at = has_membership_id.then(|| log_id(at_term, at_index));
        Ok(Self {
            group: GroupId(group),
            last: log_id(term, index),
            membership: StoredMembership::new(membership_at, membership),
            stamp_ms: stamp.cast_signed(),
            taken_at_ms: taken.cast_signed(),
        })
    }
}

fn take_numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*chunk);
    }
    numbers
}

/// What the first bytes of a file say.
pub(super) enum Start {
    /// Not a snapshot, or damaged.
    Damaged(&'static str),
    /// The format version, and the length of the header's body, neither of which is verified yet.
    Header(u32, usize),
}

pub(super) fn judge_start(bytes: &[u8; FIXED_BYTES]) -> Start {
    let (magic, rest) = bytes.split_at(8);
    let [version, length] = take_u32s(rest);
    if magic != MAGIC {
        return Start::Damaged("the magic number is wrong");
    }
    let length = length as usize;
    if length <= HEADER_BYTES_MAX {
        Start::Header(version, length)
    } else {
        Start::Damaged("the header's length is out of bounds")
    }
}

fn take_u32s<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *number = u32::from_le_bytes(*chunk);
    }
    numbers
}

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) body_bytes: u64,
    pub(super) hash: [u8; 32],
}

impl Footer {
    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (hash, magic) = rest.split_first_chunk::<32>()?;
        (magic == FOOTER_MAGIC).then_some(Self {
            body_bytes: u64::from_le_bytes(*length),
            hash: *hash,
        })
    }
}
