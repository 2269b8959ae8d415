//! One group's log in memory: its state, and where each entry is.

use std::collections::VecDeque;

use crate::{
    chain,
    format::{GroupMeta, Op},
    types::{EntryMeta, GroupId, GroupState, LogId, Place, Record},
};

/// What is known of an entry in memory. 56 bytes each: at most what lies between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    pub(crate) node: u64,
    /// Names the payload in the cache.
    pub(crate) ticket: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) chain: u32,
    pub(crate) kind: u8,
}

impl Slot {
    /// Where the record is; `None` until it is written.
    pub(crate) fn place(&self) -> Option<Place> {
        (self.segment != 0).then(|| Place {
            segment: self.segment,
            offset: u64::from(self.offset),
        })
    }
}

/// A group's log.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupLog {
    pub(crate) meta: GroupMeta,
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
}

/// Slots that a change took out, from `first` on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removed {
    pub(crate) first: u64,
    pub(crate) slots: VecDeque<Slot>,
}

impl GroupLog {
    /// A group known from a checkpoint, whose entries lie in segments that are gone.
    pub(crate) const fn from_meta(meta: GroupMeta) -> Self {
        Self {
            meta,
            first: 0,
            slots: VecDeque::new(),
        }
    }

    pub(crate) fn state(&self) -> GroupState {
        let next = self.meta.last.map_or(0, |last| last.index + 1);
        let known = self.meta.committed.filter(|id| id.index < next);
        GroupState {
            vote: self.meta.vote,
            committed: known.or(self.meta.purged),
            purged: self.meta.purged,
            last: self.meta.last,
            first_index: if self.slots.is_empty() {
                next
            } else {
                self.first
            },
            chain: self.meta.chain,
            chain_rebased: self.meta.rebased,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Slot> {
        let position = index.checked_sub(self.first)?;
        self.slots.get(usize::try_from(position).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let position = index.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(position).ok()?)
    }

    pub(crate) fn entry_meta(&self, index: u64) -> Option<EntryMeta> {
        let slot = self.get(index)?;
        Some(EntryMeta {
            id: LogId {
                term: slot.term,
                node: slot.node,
                index,
            },
            kind: slot.kind,
            payload_bytes: slot.raw_len,
            chain: slot.chain,
        })
    }

    /// The indexes that have slots.
    pub(crate) fn indexes(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.len()
    }

    /// Checks a record against the state and resolves what the disk must know. `Ok(None)` where it has no effect.
    pub(crate) fn resolve(
        &self,
        group: GroupId,
        record: Record,
        ticket: u64,
    ) -> Result<Option<Op>, &'static str> {
        let next = self.meta.last.map(|last| last.index + 1);
        Ok(match record {
            Record::Entry(entry) => {
                if entry.id.index == u64::MAX {
                    return Err("an index leaves room for the next");
                }
                if next.is_some_and(|next| next != entry.id.index) {
                    return Err("an entry follows the last without a hole");
                }
                if self.meta.last.is_some_and(|last| last.term > entry.id.term) {
                    return Err("terms of entries never fall");
                }
                let chain = self.meta.chain;
                let chain = chain::after(chain, group, entry.id, entry.kind, &entry.payload);
                Some(Op::Entry {
                    id: entry.id,
                    kind: entry.kind,
                    payload: entry.payload,
                    chain,
                    ticket,
                })
            }
            Record::Vote(vote) => {
                if self.meta.vote.is_some_and(|old| old.term > vote.term) {
                    return Err("the term of the vote never falls");
                }
                let number = self.meta.votes + 1;
                if number == u64::MAX {
                    return Err("the count of votes leaves room for the next");
                }
                Some(Op::Vote { vote, number })
            }
            Record::Committed(id) => Some(Op::Committed(id)),
            Record::Truncate { from_index } => self.resolve_truncate(from_index)?,
            Record::Purge { upto, chain } => self.resolve_purge(group, upto, chain)?,
            Record::Remove => Some(Op::Remove),
        })
    }

    fn resolve_truncate(&self, from: u64) -> Result<Option<Op>, &'static str> {
        if self.meta.purged.is_some_and(|purged| from <= purged.index) {
            return Err("a truncation begins above the purge point");
        }
        if self.meta.last.is_none_or(|last| last.index < from) {
            return Ok(None);
        }
        let before = from.checked_sub(1).and_then(|index| self.entry_meta(index));
        let (last, chain) = match (before, self.meta.purged) {
            (Some(before), _) => (Some(before.id), before.chain),
            (None, Some(purged)) => (Some(purged), self.meta.purged_chain),
            (None, None) => (None, chain::LOGICAL_SEED),
        };
        Ok(Some(Op::Truncate { from, last, chain }))
    }

    fn resolve_purge(
        &self,
        group: GroupId,
        upto: LogId,
        known: Option<u32>,
    ) -> Result<Option<Op>, &'static str> {
        if upto.index == u64::MAX {
            return Err("an index leaves room for the next");
        }
        if self.meta.purged.is_some_and(|old| upto.index <= old.index) {
            return Ok(None);
        }
        if let Some(entry) = self.entry_meta(upto.index) {
            if entry.id != upto {
                return Err("a purge names the entry that is there");
            }
            let (chain, rebased) = (entry.chain, self.meta.rebased);
            return Ok(Some(Op::Purge {
                upto,
                chain,
                rebased,
            }));
        }
        let chain = known.unwrap_or_else(|| chain::rebased(group, upto));
        let rebased = known.is_none();
        Ok(Some(Op::Purge {
            upto,
            chain,
            rebased,
        }))
    }

    /// Applies a change and gives back what it took out.
    pub(crate) fn apply(&mut self, op: &Op) -> Removed {
        let removed = match op {
            Op::Entry {
                id,
                kind,
                payload,
                chain,
                ticket,
            } => {
                if self.slots.is_empty() {
                    self.first = id.index;
                }
                self.slots.push_back(Slot {
                    term: id.term,
                    node: id.node,
                    ticket: *ticket,
                    segment: 0,
                    offset: 0,
                    stored_len: 0,
                    raw_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                    chain: *chain,
                    kind: *kind,
                });
                Removed::default()
            }
            Op::Truncate { from, .. } => self.cut_back(*from),
            Op::Purge { upto, .. } => self.cut_front(upto.index),
            Op::Remove => self.cut_back(0),
            Op::Vote { .. } | Op::Committed(_) | Op::State(_) => Removed::default(),
        };
        self.meta.apply(op);
        removed
    }

    fn cut_back(&mut self, from: u64) -> Removed {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let keep = keep.min(self.slots.len());
        Removed {
            first: self.first + keep as u64,
            slots: self.slots.split_off(keep),
        }
    }

    fn cut_front(&mut self, upto: u64) -> Removed {
        let count = (upto + 1).saturating_sub(self.first);
        let count = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        let kept = self.slots.split_off(count);
        let removed = Removed {
            first: self.first,
            slots: std::mem::replace(&mut self.slots, kept),
        };
        self.first += count as u64;
        removed
    }

    /// Undoes an applied entry.
    pub(crate) fn unpush(&mut self) -> Option<Slot> {
        self.slots.pop_back()
    }

    /// Puts back what [`GroupLog::apply`] took out, the changes since having been undone.
    pub(crate) fn put_back(&mut self, removed: Removed) {
        if removed.slots.is_empty() {
            return;
        }
        if self.slots.is_empty() {
            self.first = removed.first;
            self.slots = removed.slots;
        } else if removed.first < self.first {
            self.first = removed.first;
            let mut slots = removed.slots;
            slots.append(&mut self.slots);
            self.slots = slots;
        } else {
            let mut slots = removed.slots;
            self.slots.append(&mut slots);
        }
    }
}
