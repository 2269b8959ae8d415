//! The body of a mark slot: what must exist, and the votes.
//!
//! Its checksum is [`vfs::TwoSlot`]'s, and holds before anything here is asked; a body that verifies and does not decode is not used
//! at all. One of a later version is told apart: the place of the version never changes.

use super::{Fields, FormatError};
use crate::types::{GroupId, Identity, Place, Vote};

/// The name of the mark file.
pub(crate) const MARK_FILE: &str = "mark";
/// Begins each slot of the mark file.
pub(crate) const MARK_MAGIC: [u8; 8] = *b"ACWALMRK";
/// The length of a slot.
pub(crate) const MARK_SLOT_BYTES: u64 = 64 << 10;

const MARK_VERSION: u16 = 1;
const VOTE_BYTES: usize = 40;
const FIXED_BYTES: usize = 56;

/// What the two-slot file knows, so that a loss in the log is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) identity: Identity,
    /// The oldest segment that must exist; older ones are leftovers. 0 before the first exists.
    pub(crate) oldest: u64,
    /// All bytes before this place are durable. Its segment is the newest that may hold acknowledged data.
    pub(crate) durable: Place,
    /// The last vote of each group.
    pub(crate) votes: Vec<MarkVote>,
}

/// A vote as the mark remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkVote {
    pub(crate) group: GroupId,
    pub(crate) number: u64,
    pub(crate) vote: Vote,
}

impl Mark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.votes.len() * VOTE_BYTES);
        out.extend_from_slice(&MARK_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        let count = u32::try_from(self.votes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.identity.cluster_id);
        for value in [
            self.identity.node_id,
            self.oldest,
            self.durable.segment,
            self.durable.offset,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for MarkVote {
            group,
            number,
            vote,
        } in &self.votes
        {
            for value in [
                group.0,
                *number,
                vote.term,
                vote.node,
                u64::from(vote.committed),
            ] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        match fields.u16() {
            Some(MARK_VERSION) => Self::fields(fields).ok_or(FormatError::Damaged),
            Some(version) if version > MARK_VERSION => Err(FormatError::Newer {
                version: version.into(),
                known: MARK_VERSION.into(),
            }),
            Some(_) | None => Err(FormatError::Damaged),
        }
    }

    /// Reads what follows the version.
    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        fields.u16()?;
        let count = fields.u32()?;
        let identity = Identity {
            cluster_id: fields.array()?,
            node_id: fields.u64()?,
        };
        let oldest = fields.u64()?;
        let durable = Place {
            segment: fields.u64()?,
            offset: fields.u64()?,
        };
        let mut votes = Vec::new();
        for _ in 0..count {
            votes.push(MarkVote {
                group: GroupId(fields.u64()?),
                number: fields.u64()?,
                vote: Vote {
                    term: fields.u64()?,
                    node: fields.u64()?,
                    committed: fields.u64()? != 0,
                },
            });
        }
        // All of them are counted on from.
        let mut numbers = votes.iter().map(|vote| vote.number);
        let has_room = [oldest, durable.segment]
            .into_iter()
            .all(|number| number < u64::MAX)
            && numbers.all(|number| number < u64::MAX);
        (has_room && fields.is_empty()).then_some(Self {
            identity,
            oldest,
            durable,
            votes,
        })
    }
}

/// The most groups of a log, so that their votes fit a slot.
pub(crate) const GROUPS_MAX: usize = 1024;

const _: () = assert!(24 + FIXED_BYTES + GROUPS_MAX * VOTE_BYTES <= MARK_SLOT_BYTES as usize);
const _: () = assert!(FIXED_BYTES == 2 + 2 + 4 + 16 + 4 * 8);
