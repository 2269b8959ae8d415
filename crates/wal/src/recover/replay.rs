//! Applying the records of a log to the groups, with every check that their content allows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    chain,
    codec::{Decoder, Dictionaries},
    error::RotReason,
    format::{Frame, MarkVote, Op},
    group::GroupLog,
    segment::{Batch, Damage, Scanner},
    types::GroupId,
};

/// The groups as replayed so far.
#[derive(Default)]
pub(super) struct Replay<'a> {
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
    pub(super) next_ticket: u64,
    /// For groups known from a checkpoint only: their entries up to here lie in segments that are gone, so that a purge
    /// or truncation of them must follow.
    missing: BTreeMap<GroupId, u64>,
    removed: BTreeSet<GroupId>,
    decoder: Decoder<'a>,
    dictionaries: Option<&'a Dictionaries>,
    segment: u64,
    dictionary: u32,
    oldest: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(dictionaries: &'a Dictionaries) -> Self {
        Self {
            next_ticket: 1,
            dictionaries: Some(dictionaries),
            ..Self::default()
        }
    }

    pub(super) fn begin_segment(&mut self, number: u64, dictionary: u32, oldest: bool) {
        self.segment = number;
        self.dictionary = dictionary;
        self.oldest = oldest;
    }

    /// Applies a batch whose place is where its entries are read from.
    pub(super) fn batch(&mut self, scanner: &Scanner<'_>, batch: &Batch) -> Result<(), Damage> {
        for (offset, frame) in &batch.frames {
            let damage = |reason| Damage {
                offset: *offset,
                batch_start: batch.start,
                reason,
            };
            let (group, op) = self.decode(scanner, *offset, frame).map_err(damage)?;
            self.apply(group, &op).map_err(damage)?;
            let Op::Entry { id, .. } = op else { continue };
            let log = self.groups.get_mut(&group);
            if let Some(slot) = log.and_then(|log| log.get_mut(id.index)) {
                slot.segment = self.segment;
                slot.offset = u32::try_from(*offset).map_err(|_| damage(RotReason::Sense))?;
                slot.stored_len = frame.stored_len;
            }
        }
        Ok(())
    }

    /// Applies a batch that will be written again, and gives its changes.
    pub(super) fn tail(
        &mut self,
        scanner: &Scanner<'_>,
        batch: &Batch,
    ) -> Result<Vec<(GroupId, Op)>, Damage> {
        let mut ops = Vec::new();
        for (offset, frame) in &batch.frames {
            let damage = |reason| Damage {
                offset: *offset,
                batch_start: batch.start,
                reason,
            };
            let (group, mut op) = self.decode(scanner, *offset, frame).map_err(damage)?;
            if let Op::Entry { ticket, .. } = &mut op {
                *ticket = self.next_ticket;
                self.next_ticket += 1;
            }
            self.apply(group, &op).map_err(damage)?;
            ops.push((group, op));
        }
        Ok(ops)
    }

    fn decode(
        &mut self,
        scanner: &Scanner<'_>,
        offset: u64,
        frame: &Frame,
    ) -> Result<(GroupId, Op), RotReason> {
        let stored = scanner.payload(offset, frame).ok_or(RotReason::Payload)?;
        let stored = Bytes::copy_from_slice(stored);
        let dictionaries = self.dictionaries.ok_or(RotReason::Sense)?;
        let payload = self
            .decoder
            .decode(frame, stored, self.dictionary, dictionaries)?;
        let op = Op::from_frame(frame, payload).ok_or(RotReason::Sense)?;
        Ok((GroupId(frame.group), op))
    }

    fn apply(&mut self, group: GroupId, op: &Op) -> Result<(), RotReason> {
        if let Op::State(meta) = op {
            return match self.groups.get(&group) {
                Some(log) if log.meta == *meta => Ok(()),
                None if self.oldest => {
                    let gone = meta.last.filter(|last| meta.purged != Some(*last));
                    self.missing.extend(gone.map(|last| (group, last.index)));
                    self.groups.insert(group, GroupLog::from_meta(*meta));
                    Ok(())
                }
                Some(_) | None => Err(RotReason::Sense),
            };
        }
        if matches!(op, Op::Remove) {
            self.removed.insert(group);
            self.missing.remove(&group);
            let known = self.groups.remove(&group);
            return known.map(|_| ()).ok_or(RotReason::Sense);
        }
        let log = self.groups.entry(group).or_default();
        check(group, log, op, self.missing.contains_key(&group))?;
        log.apply(op);
        let still = self.missing.remove(&group).and_then(|upto| match op {
            Op::Purge { upto: purged, .. } => (purged.index < upto).then_some(upto),
            Op::Truncate { from, last, .. } => {
                let nothing_left = *last == log.meta.purged;
                (!nothing_left).then(|| upto.min(from.saturating_sub(1)))
            }
            Op::Entry { .. } | Op::Vote { .. } | Op::Committed(_) | Op::Remove | Op::State(_) => {
                Some(upto)
            }
        });
        self.missing.extend(still.map(|upto| (group, upto)));
        Ok(())
    }

    /// Votes of the mark that the log does not know.
    pub(super) fn lost_votes(&self, votes: &[MarkVote]) -> Vec<MarkVote> {
        let lost = |marked: &&MarkVote| match self.groups.get(&marked.group) {
            None => !self.removed.contains(&marked.group),
            Some(log) => {
                let removed = self.removed.contains(&marked.group);
                let older = log.meta.votes < marked.number;
                let other = log.meta.votes == marked.number && log.meta.vote != Some(marked.vote);
                !removed && (older || other)
            }
        };
        votes.iter().filter(lost).copied().collect()
    }

    /// Groups whose entries are gone without a purge, each with the truncation that would make that true.
    pub(super) fn holes(&self) -> Vec<(GroupId, Op)> {
        let groups = self.missing.keys();
        groups
            .filter_map(|group| {
                let meta = self.groups.get(group)?.meta;
                let op = Op::Truncate {
                    from: meta.purged.map_or(0, |purged| purged.index + 1),
                    last: meta.purged,
                    chain: meta.purged_chain,
                };
                Some((*group, op))
            })
            .collect()
    }
}

/// Whether a change makes sense for a group as it is, of which some entries may lie in segments that are gone.
fn check(group: GroupId, log: &GroupLog, op: &Op, is_missing: bool) -> Result<(), RotReason> {
    let meta = &log.meta;
    let sane = match op {
        Op::Entry {
            id,
            kind,
            payload,
            chain,
            ..
        } => {
            if *chain != chain::after(meta.chain, group, *id, *kind, payload) {
                return Err(RotReason::LogicalChain);
            }
            meta.last.is_none_or(|last| last.index + 1 == id.index)
        }
        Op::Vote { vote, number } => {
            *number > meta.votes && meta.vote.is_none_or(|old| old.term <= vote.term)
        }
        Op::Truncate { from, last, chain } => {
            let before = from.checked_sub(1).and_then(|index| log.entry_meta(index));
            let agrees = match before {
                Some(entry) => *last == Some(entry.id) && *chain == entry.chain,
                None => is_missing || *last == meta.purged,
            };
            let removes = meta.last.is_some_and(|known| *from <= known.index);
            agrees && removes && meta.purged.is_none_or(|purged| *from > purged.index)
        }
        Op::Purge { upto, .. } => {
            let entry = log.entry_meta(upto.index);
            let agrees = entry.is_none_or(|entry| entry.id == *upto);
            agrees && meta.purged.is_none_or(|old| old.index < upto.index)
        }
        Op::Committed(_) | Op::Remove | Op::State(_) => true,
    };
    if sane { Ok(()) } else { Err(RotReason::Sense) }
}
