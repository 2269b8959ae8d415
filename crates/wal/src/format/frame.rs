//! The header of a record, 64 bytes, with its checksums and its place in the physical chain.
//!
//! Decoding gives nothing unless the checksum fits segment and offset; whether the record follows the one before is the
//! reader's question.

use super::Fields;

/// The length of a record's header.
pub(crate) const FRAME_BYTES: usize = 64;

/// The payload of every marker, by which a scan finds it.
pub(crate) const MARKER_MAGIC: [u8; 8] = *b"\xa7mark\x0d\x0a\x1a";

/// The length of a marker, header and payload.
pub(crate) const MARKER_BYTES: usize = FRAME_BYTES + MARKER_MAGIC.len();

const PAYLOAD_SEED: u32 = 0x5761_6c50;

/// Bits of the flags field.
pub(crate) mod flag {
    /// The payload is a zstd frame.
    pub(crate) const ZSTD: u8 = 1;
    /// The zstd frame needs the segment's dictionary.
    pub(crate) const DICTIONARY: u8 = 2;
    /// Vote: granted by a quorum.
    pub(crate) const VOTE_COMMITTED: u8 = 4;
    /// Truncate: an entry or a purge point remains, with the term and node of the record.
    pub(crate) const HAS_LAST: u8 = 8;
    /// Purge: the logical chain begins anew.
    pub(crate) const REBASED: u8 = 16;
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Entry = 1,
    Vote = 2,
    Committed = 3,
    Truncate = 4,
    Purge = 5,
    Remove = 6,
    State = 7,
    Marker = 8,
}

impl FrameKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Committed,
            4 => Self::Truncate,
            5 => Self::Purge,
            6 => Self::Remove,
            7 => Self::State,
            8 => Self::Marker,
            0 | 9.. => return None,
        })
    }
}

/// A record's header, without the checksums that depend on its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) flags: u8,
    pub(crate) entry_kind: u8,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) logical_chain: u32,
    pub(crate) group: u64,
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

impl Frame {
    /// A record without payload.
    pub(crate) fn bare(kind: FrameKind, group: u64) -> Self {
        Self {
            kind,
            flags: 0,
            entry_kind: 0,
            stored_len: 0,
            raw_len: 0,
            payload_crc: payload_crc(&[]),
            logical_chain: 0,
            group,
            term: 0,
            node: 0,
            index: 0,
        }
    }

    /// Header and payload together, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        FRAME_BYTES as u64 + u64::from(self.stored_len)
    }

    /// Appends the header to `out` for a place in a segment, and returns the physical chain after it.
    pub(crate) fn encode(&self, seed: u32, offset: u64, chain: u32, out: &mut Vec<u8>) -> u32 {
        let mut body = [0; FRAME_BYTES - 8];
        self.encode_body(&mut body);
        let chain = chain_after(chain, &body);
        let crc = header_crc(seed, offset, chain, &body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&chain.to_le_bytes());
        out.extend_from_slice(&body);
        chain
    }

    fn encode_body(&self, body: &mut [u8; FRAME_BYTES - 8]) {
        let [kind, flags, entry_kind, reserved, rest @ ..] = body;
        (*kind, *flags, *entry_kind, *reserved) = (self.kind as u8, self.flags, self.entry_kind, 0);
        let shorts = [
            self.stored_len,
            self.raw_len,
            self.payload_crc,
            self.logical_chain,
            0,
        ];
        let longs = [self.group, self.term, self.node, self.index];
        let bytes = shorts
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .chain(longs.iter().flat_map(|value| value.to_le_bytes()));
        for (to, from) in rest.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    /// Decodes a header found at a place, and the physical chain it claims. `None` if it does not
    /// verify there.
    pub(crate) fn decode(bytes: &[u8; FRAME_BYTES], seed: u32, offset: u64) -> Option<Claimed> {
        let mut fields = Fields::new(bytes);
        let crc = fields.u32()?;
        let chain = fields.u32()?;
        let body = bytes.last_chunk::<{ FRAME_BYTES - 8 }>()?;
        if crc != header_crc(seed, offset, chain, body) {
            return None;
        }
        let frame = Self {
            kind: FrameKind::from_byte(fields.u8()?)?,
            flags: fields.u8()?,
            entry_kind: fields.u8()?,
            stored_len: (fields.u8()? == 0).then(|| fields.u32())??,
            raw_len: fields.u32()?,
            payload_crc: fields.u32()?,
            logical_chain: fields.u32()?,
            group: (fields.u32()? == 0).then(|| fields.u64())??,
            term: fields.u64()?,
            node: fields.u64()?,
            index: fields.u64()?,
        };
        let body = *body;
        Some(Claimed { frame, chain, body })
    }
}

/// A header that verifies by itself; whether it follows the one before is another question.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) frame: Frame,
    pub(crate) chain: u32,
    body: [u8; FRAME_BYTES - 8],
}

impl Claimed {
    /// Whether the record follows one that left this chain.
    pub(crate) fn follows(&self, chain: u32) -> bool {
        self.chain == chain_after(chain, &self.body)
    }
}

fn chain_after(chain: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(chain);
    crc.update(body);
    crc.finalize()
}

fn header_crc(seed: u32, offset: u64, chain: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(seed);
    crc.update(&offset.to_le_bytes());
    crc.update(&chain.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// The checksum of a payload as stored.
pub(crate) fn payload_crc(stored: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(PAYLOAD_SEED);
    crc.update(stored);
    crc.finalize()
}

const _: () = assert!(FRAME_BYTES == 8 + 4 + 5 * 4 + 4 * 8);
