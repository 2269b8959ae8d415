//! The header of a segment, 96 bytes.
//!
//! A header of a later version is told apart from a damaged one: the place of version and checksum never changes.

use super::{FORMAT_VERSION, Fields, FormatError};
use crate::types::Identity;

/// The length of a segment's header.
pub(crate) const HEADER_BYTES: usize = 96;

/// The chain before the first segment.
pub(crate) const INITIAL_CHAIN: u32 = 0x5761_6c30;

const MAGIC: [u8; 8] = *b"ACWALSEG";
const SEED: u32 = 0x5761_6c48;
/// After the fields, before the checksum.
const RESERVED_BYTES: usize = 20;

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
    /// Where the segment before ends; bytes of it after that place are void.
    pub(crate) previous_end: u64,
    /// The physical chain at that place.
    pub(crate) previous_chain: u32,
    /// The compression dictionary that the segment's records may need; 0 for none.
    pub(crate) dictionary: u32,
}

impl SegmentHeader {
    /// The bytes, and the seed for the records' checksums and chain in this segment.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.identity.cluster_id);
        out.extend_from_slice(&self.identity.node_id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&(self.number - 1).to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.previous_chain.to_le_bytes());
        out.extend_from_slice(&self.dictionary.to_le_bytes());
        out.extend_from_slice(&[0; RESERVED_BYTES]);
        let crc = checksum(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Decodes a header, and the seed for the records.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), FormatError> {
        Self::verified(bytes).ok_or(FormatError::Damaged)?
    }

    fn verified(bytes: &[u8]) -> Option<Result<(Self, u32), FormatError>> {
        let (covered, crc) = bytes
            .get(..HEADER_BYTES)?
            .split_last_chunk::<4>()
            .map(|(covered, crc)| (covered, u32::from_le_bytes(*crc)))?;
        if crc != checksum(covered) {
            return None;
        }
        let mut fields = Fields::new(covered);
        if fields.array::<8>()? != MAGIC {
            return None;
        }
        // Later versions keep this prefix, this length and this checksum, so that they are told from damage.
        let version = fields.u16()?;
        if version > FORMAT_VERSION {
            return Some(Err(FormatError::Newer {
                version: version.into(),
                known: FORMAT_VERSION.into(),
            }));
        }
        let known = version == FORMAT_VERSION
            && usize::from(fields.u16()?) == HEADER_BYTES
            && fields.u32()? == 0;
        let identity = Identity {
            cluster_id: fields.array()?,
            node_id: fields.u64()?,
        };
        let number = fields.u64()?;
        let previous = fields.u64()?;
        let header = Self {
            identity,
            number,
            previous_end: fields.u64()?,
            previous_chain: fields.u32()?,
            dictionary: fields.u32()?,
        };
        let rest = fields.array::<RESERVED_BYTES>()?;
        let sane = known && number > 0 && previous == number - 1 && rest == [0; RESERVED_BYTES];
        sane.then_some(Ok((header, crc)))
    }
}

fn checksum(covered: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(SEED);
    crc.update(covered);
    crc.finalize()
}

const _: () = assert!(HEADER_BYTES == 16 + 16 + 4 * 8 + 2 * 4 + RESERVED_BYTES + 4);
