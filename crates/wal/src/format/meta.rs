//! The state of a group besides its entries, and as the payload of a state record.
//!
//! Applying a change here is all that a vote, hint, truncation or purge does to it, in memory and in recovery alike.

use super::{Fields, Op};
use crate::{
    chain,
    types::{LogId, Vote},
};

/// The length of a group's state in a checkpoint.
pub(crate) const STATE_BYTES: usize = 112;

const STATE_VERSION: u8 = 1;

const VOTE: u8 = 1;
const VOTE_COMMITTED: u8 = 2;
const COMMITTED: u8 = 4;
const PURGED: u8 = 8;
const LAST: u8 = 16;
const REBASED: u8 = 32;

/// What is known of a group besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupMeta {
    pub(crate) vote: Option<Vote>,
    /// How many votes were written; tells an older vote from a newer one.
    pub(crate) votes: u64,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The last entry, or the purge point.
    pub(crate) last: Option<LogId>,
    /// The logical chain at `last`.
    pub(crate) chain: u32,
    /// The logical chain at `purged`.
    pub(crate) purged_chain: u32,
    pub(crate) rebased: bool,
}

impl Default for GroupMeta {
    fn default() -> Self {
        Self {
            vote: None,
            votes: 0,
            committed: None,
            purged: None,
            last: None,
            chain: chain::LOGICAL_SEED,
            purged_chain: chain::LOGICAL_SEED,
            rebased: false,
        }
    }
}

impl GroupMeta {
    /// The state after a record. The record must be valid here. [`Op::Remove`] is the caller's.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Entry { id, chain, .. } => {
                self.last = Some(*id);
                self.chain = *chain;
            }
            Op::Vote { vote, number } => {
                self.vote = Some(*vote);
                self.votes = *number;
            }
            Op::Committed(id) => {
                if self.committed.is_none_or(|old| old.index <= id.index) {
                    self.committed = Some(*id);
                }
            }
            Op::Truncate { last, chain, .. } => {
                self.last = *last;
                self.chain = *chain;
            }
            Op::Purge {
                upto,
                chain,
                rebased,
            } => {
                self.purged = Some(*upto);
                self.purged_chain = *chain;
                if self.last.is_none_or(|last| last.index <= upto.index) {
                    self.last = Some(*upto);
                    self.chain = *chain;
                    self.rebased = *rebased;
                }
            }
            Op::Remove => *self = Self::default(),
            Op::State(meta) => *self = *meta,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.vote.is_some(), VOTE)
            | flag(self.vote.is_some_and(|vote| vote.committed), VOTE_COMMITTED)
            | flag(self.committed.is_some(), COMMITTED)
            | flag(self.purged.is_some(), PURGED)
            | flag(self.last.is_some(), LAST)
            | flag(self.rebased, REBASED);
        let mut out = Vec::with_capacity(STATE_BYTES);
        out.extend_from_slice(&[STATE_VERSION, flags, 0, 0]);
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&self.votes.to_le_bytes());
        let (term, node) = self.vote.map_or((0, 0), |vote| (vote.term, vote.node));
        out.extend_from_slice(&term.to_le_bytes());
        out.extend_from_slice(&node.to_le_bytes());
        for id in [self.committed, self.purged, self.last] {
            let (term, node, index) = id.map_or((0, 0, 0), |id| (id.term, id.node, id.index));
            for value in [term, node, index] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.purged_chain.to_le_bytes());
        out.resize(STATE_BYTES, 0);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != STATE_BYTES {
            return None;
        }
        let mut fields = Fields::new(bytes);
        if fields.u8()? != STATE_VERSION {
            return None;
        }
        let flags = fields.u8()?;
        fields.u16()?;
        let chain = fields.u32()?;
        let votes = fields.u64()?;
        let vote = Vote {
            term: fields.u64()?,
            node: fields.u64()?,
            committed: flags & VOTE_COMMITTED != 0,
        };
        let mut id = |bit: u8| {
            let id = LogId {
                term: fields.u64()?,
                node: fields.u64()?,
                index: fields.u64()?,
            };
            Some((flags & bit != 0).then_some(id))
        };
        let (committed, purged, last) = (id(COMMITTED)?, id(PURGED)?, id(LAST)?);
        // All of them are counted on from.
        let indexes = [committed, purged, last].into_iter().flatten();
        let mut numbers = indexes.map(|id| id.index).chain([votes]);
        if numbers.any(|number| number == u64::MAX) {
            return None;
        }
        Some(Self {
            committed,
            purged,
            last,
            purged_chain: fields.u32()?,
            vote: (flags & VOTE != 0).then_some(vote),
            votes,
            chain,
            rebased: flags & REBASED != 0,
        })
    }
}

const _: () = assert!(STATE_BYTES == 4 + 4 + 8 + 2 * 8 + 3 * 24 + 8);
