//! What appenders, readers and the writer share: the groups as of the last append, the queue, and
//! which segments hold what. Everything here is done under one lock, without touching the disk.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    cache::Cache,
    error::AppendError,
    format::{GROUPS_MAX, GroupMeta, Op},
    group::{GroupLog, Removed},
    options::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX},
    recover::OpenSegment,
    types::{GroupId, LogId, Place, Record, WalStats},
    waiter::Waiter,
};

/// The shared state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<GroupId, GroupLog>,
    pub(crate) queue: VecDeque<Job>,
    /// Commit hints that no batch carried yet.
    pub(crate) hints: BTreeMap<GroupId, LogId>,
    pub(crate) cache: Cache,
    pub(crate) segments: BTreeMap<u64, SegmentUse>,
    pub(crate) next_ticket: u64,
    pub(crate) poisoned: bool,
    pub(crate) stopped: bool,
    pub(crate) writer_gone: bool,
    pub(crate) queued_bytes: usize,
    /// Taken from the queue by the round that is going on.
    pub(crate) in_flight_bytes: usize,
    pub(crate) stats: WalStats,
}

/// A segment and what keeps it.
#[derive(Debug)]
pub(crate) struct SegmentUse {
    pub(crate) open: OpenSegment,
    /// Entries of each group that are in it.
    pub(crate) live: BTreeMap<GroupId, u64>,
}

/// Something for the writer to do.
pub(crate) enum Job {
    Append(Box<Pending>),
    /// Answer when all before is durable.
    Flush(Waiter),
    /// Move the durable mark to the end.
    Idle,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Append(pending) => write!(f, "Append({})", pending.group),
            Self::Flush(_) => f.write_str("Flush"),
            Self::Idle => f.write_str("Idle"),
        }
    }
}

/// A batch that is applied in memory and not yet on disk.
pub(crate) struct Pending {
    pub(crate) group: GroupId,
    pub(crate) ops: Vec<Op>,
    pub(crate) done: Waiter,
    bytes: usize,
    undo: Undo,
}

impl Pending {
    pub(crate) fn has_entries(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Entry { .. }))
    }
}

/// How to take a batch back.
struct Undo {
    before: Option<GroupMeta>,
    steps: Vec<Step>,
}

enum Step {
    Pushed,
    Removed(Removed),
}

/// What the writer takes from the queue at once.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) appends: Vec<Pending>,
    pub(crate) flushes: Vec<Waiter>,
    pub(crate) idle: bool,
    pub(crate) hints: BTreeMap<GroupId, LogId>,
}

impl Taken {
    /// Everybody who must be told how it ends.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let appends = self.appends.iter().map(|pending| &pending.done);
        appends.chain(&self.flushes).cloned().collect()
    }
}

/// Where an entry was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) ticket: u64,
    pub(crate) place: Place,
    pub(crate) stored_len: u32,
}

impl State {
    /// Checks and applies a batch in memory. On an error nothing is changed.
    pub(crate) fn apply(
        &mut self,
        group: GroupId,
        batch: Vec<Record>,
        done: Waiter,
    ) -> Result<Pending, (Waiter, AppendError)> {
        let invalid = |rule| AppendError::Invalid { group, rule };
        let bytes = match batch_bytes(&batch) {
            Ok(bytes) => bytes,
            Err(rule) => return Err((done, invalid(rule))),
        };
        let known = self.groups.get(&group).map(|log| log.meta);
        if known.is_none() && self.groups.len() >= GROUPS_MAX {
            return Err((done, invalid("a log has at most 1,024 groups")));
        }
        let mut pending = Pending {
            group,
            ops: Vec::with_capacity(batch.len()),
            done,
            bytes,
            undo: Undo {
                before: known,
                steps: Vec::new(),
            },
        };
        for record in batch {
            if record == Record::Remove && self.is_blank(group) {
                continue;
            }
            let log = self.groups.entry(group).or_default();
            let op = match log.resolve(group, record, self.next_ticket) {
                Ok(Some(op)) => op,
                Ok(None) => continue,
                Err(rule) => {
                    self.roll_back(&mut pending);
                    return Err((pending.done, invalid(rule)));
                }
            };
            let removed = log.apply(&op);
            self.note_applied(group, &op);
            pending.undo.steps.push(match &op {
                Op::Entry { .. } => Step::Pushed,
                Op::Vote { .. }
                | Op::Committed(_)
                | Op::Truncate { .. }
                | Op::Purge { .. }
                | Op::Remove
                | Op::State(_) => Step::Removed(removed),
            });
            pending.ops.push(op);
        }
        if pending.ops.is_empty() && self.is_blank(group) {
            self.groups.remove(&group);
        }
        self.queued_bytes += bytes;
        Ok(pending)
    }

    fn is_blank(&self, group: GroupId) -> bool {
        let log = self.groups.get(&group);
        log.is_none_or(|log| log.meta == GroupMeta::default() && log.len() == 0)
    }

    fn note_applied(&mut self, group: GroupId, op: &Op) {
        match op {
            Op::Entry {
                payload, ticket, ..
            } => {
                self.cache.insert(*ticket, payload.clone());
                self.next_ticket += 1;
            }
            Op::Remove => {
                self.groups.remove(&group);
                self.hints.remove(&group);
            }
            Op::Committed(_) => {
                self.hints.remove(&group);
            }
            Op::Vote { .. } | Op::Truncate { .. } | Op::Purge { .. } | Op::State(_) => {}
        }
    }

    /// Takes a batch back; later batches of its group have been taken back before.
    pub(crate) fn roll_back(&mut self, pending: &mut Pending) {
        let log = self.groups.entry(pending.group).or_default();
        while let Some(step) = pending.undo.steps.pop() {
            match step {
                Step::Pushed => {
                    if let Some(slot) = log.unpush() {
                        self.cache.remove(slot.ticket);
                    }
                }
                Step::Removed(removed) => log.put_back(removed),
            }
        }
        match pending.undo.before {
            Some(meta) => log.meta = meta,
            None => {
                self.groups.remove(&pending.group);
            }
        }
    }

    /// Remembers a commit hint. Says whether the group is known.
    pub(crate) fn hint(&mut self, group: GroupId, id: LogId) -> bool {
        let Some(log) = self.groups.get_mut(&group) else {
            return false;
        };
        log.meta.apply(&Op::Committed(id));
        if let Some(committed) = log.meta.committed {
            self.hints.insert(group, committed);
        }
        true
    }

    /// Takes commit hints back that no batch carried.
    pub(crate) fn keep_hints(&mut self, hints: &[(GroupId, LogId)]) {
        for (group, id) in hints {
            if self.groups.contains_key(group) {
                let kept = self.hints.entry(*group).or_insert(*id);
                if kept.index < id.index {
                    *kept = *id;
                }
            }
        }
    }

    /// Bytes that will need room on the disk.
    pub(crate) const fn unwritten_bytes(&self) -> u64 {
        (self.queued_bytes + self.in_flight_bytes) as u64
    }

    /// Takes work for one group commit; `None` if there is none.
    pub(crate) fn take(&mut self, bytes_max: usize) -> Option<Taken> {
        let mut taken = Taken::default();
        let mut bytes = 0;
        let mut any = false;
        while bytes < bytes_max {
            let Some(job) = self.queue.pop_front() else {
                break;
            };
            any = true;
            match job {
                Job::Append(pending) => {
                    bytes += pending.bytes;
                    self.queued_bytes -= pending.bytes;
                    taken.appends.push(*pending);
                }
                Job::Flush(done) => taken.flushes.push(done),
                Job::Idle => taken.idle = true,
            }
        }
        self.in_flight_bytes = bytes;
        // Only when nothing waits is the log on disk what the hints speak of.
        if any && self.queue.is_empty() {
            let hints = std::mem::take(&mut self.hints);
            let (ready, early) = hints.into_iter().partition(|(group, id)| {
                let last = self.groups.get(group).and_then(|log| log.meta.last);
                last.is_some_and(|last| last.index >= id.index)
            });
            (taken.hints, self.hints) = (ready, early);
        }
        any.then_some(taken)
    }

    /// Notes that batches are durable: where their entries are, and that what they removed is gone.
    pub(crate) fn complete(
        &mut self,
        appends: &mut [Pending],
        written: &[Written],
        cache_bytes: usize,
    ) {
        for entry in written {
            if !self.place(appends, entry) {
                continue;
            }
            if let Some(segment) = self.segments.get_mut(&entry.place.segment) {
                *segment.live.entry(entry.group).or_default() += 1;
            }
        }
        for pending in appends {
            for step in pending.undo.steps.drain(..) {
                if let Step::Removed(removed) = step {
                    self.release(pending.group, &removed);
                }
            }
            self.stats.appends += 1;
        }
        if let Some(last) = written.last() {
            self.cache.note_written(last.ticket, cache_bytes);
        }
        self.stats.entries += written.len() as u64;
    }

    /// Finds the slot of a written entry: in its group, or among what a later change has taken out.
    fn place(&mut self, appends: &mut [Pending], entry: &Written) -> bool {
        let fits = |slot: &&mut crate::group::Slot| slot.ticket == entry.ticket;
        let log = self.groups.get_mut(&entry.group);
        let mut slot = log.and_then(|log| log.get_mut(entry.index)).filter(fits);
        if slot.is_none() {
            let queued = self.queue.iter_mut().filter_map(|job| match job {
                Job::Append(pending) => Some(pending.as_mut()),
                Job::Flush(_) | Job::Idle => None,
            });
            slot = appends
                .iter_mut()
                .chain(queued)
                .filter(|pending| pending.group == entry.group)
                .flat_map(|pending| pending.undo.steps.iter_mut())
                .find_map(|step| match step {
                    Step::Pushed => None,
                    Step::Removed(removed) => {
                        let position = entry.index.checked_sub(removed.first)?;
                        let slot = removed.slots.get_mut(usize::try_from(position).ok()?);
                        slot.filter(fits)
                    }
                });
        }
        let Some(slot) = slot else { return false };
        slot.segment = entry.place.segment;
        slot.offset = u32::try_from(entry.place.offset).unwrap_or(u32::MAX);
        slot.stored_len = entry.stored_len;
        true
    }

    fn release(&mut self, group: GroupId, removed: &Removed) {
        for slot in &removed.slots {
            self.cache.remove(slot.ticket);
            let Some(segment) = self.segments.get_mut(&slot.segment) else {
                continue;
            };
            if let Some(count) = segment.live.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    segment.live.remove(&group);
                }
            }
        }
    }

    /// Fails batches for want of room: these, and all waiting ones of the same groups, which build on them.
    pub(crate) fn fail_full(&mut self, mut failed: Vec<Pending>) -> Vec<(Waiter, AppendError)> {
        let groups: BTreeSet<GroupId> = failed.iter().map(|pending| pending.group).collect();
        let mut kept = VecDeque::new();
        for job in std::mem::take(&mut self.queue) {
            match job {
                Job::Append(pending) if groups.contains(&pending.group) => {
                    self.queued_bytes -= pending.bytes;
                    failed.push(*pending);
                }
                Job::Append(_) | Job::Flush(_) | Job::Idle => kept.push_back(job),
            }
        }
        self.queue = kept;
        for pending in failed.iter_mut().rev() {
            self.roll_back(pending);
        }
        self.stats.disk_full_refusals += failed.len() as u64;
        let calls = failed.into_iter();
        calls
            .map(|pending| (pending.done, AppendError::DiskFull))
            .collect()
    }

    /// The oldest segments that nothing needs, up to the active one.
    pub(crate) fn retired(&self, active: u64) -> Vec<u64> {
        let old = self.segments.range(..active);
        old.take_while(|(_, segment)| segment.live.is_empty())
            .map(|(number, _)| *number)
            .collect()
    }

    /// Fails everything that waits.
    pub(crate) fn poison(&mut self) -> Vec<(Waiter, AppendError)> {
        self.poisoned = true;
        self.queued_bytes = 0;
        let queue = std::mem::take(&mut self.queue);
        let calls = queue.into_iter().filter_map(|job| match job {
            Job::Append(pending) => Some((pending.done, AppendError::Poisoned)),
            Job::Flush(done) => Some((done, AppendError::Poisoned)),
            Job::Idle => None,
        });
        calls.collect()
    }

    /// Adds a segment. Entries are counted as they are placed.
    pub(crate) fn add_segment(&mut self, number: u64, open: OpenSegment) {
        let live = BTreeMap::new();
        self.segments.insert(number, SegmentUse { open, live });
    }

    /// Counts the entries that recovery placed.
    pub(crate) fn count_live(&mut self) {
        for (group, log) in &self.groups {
            for index in log.indexes() {
                let Some(slot) = log.get(index) else { continue };
                if let Some(segment) = self.segments.get_mut(&slot.segment) {
                    *segment.live.entry(*group).or_default() += 1;
                }
            }
        }
    }

    /// See [`crate::Wal::durable_end`].
    pub(crate) fn durable_end(&self) -> Place {
        let active = self.segments.last_key_value();
        active.map_or(Place::default(), |(segment, used)| Place {
            segment: *segment,
            offset: used.open.end,
        })
    }

    /// Segments, shared with readers.
    pub(crate) fn segment(&self, number: u64) -> Option<OpenSegment> {
        let segment = self.segments.get(&number)?;
        Some(OpenSegment {
            file: Arc::clone(&segment.open.file),
            ..segment.open.clone()
        })
    }
}

fn batch_bytes(batch: &[Record]) -> Result<usize, &'static str> {
    let mut bytes = 0_usize;
    for (position, record) in batch.iter().enumerate() {
        match record {
            Record::Entry(entry) => {
                if entry.payload.len() > PAYLOAD_BYTES_MAX {
                    return Err("a payload has at most 32 MiB");
                }
                bytes += entry.payload.len() + crate::format::FRAME_BYTES;
            }
            Record::Remove if position + 1 != batch.len() => {
                return Err("a removal is the last record of its batch");
            }
            Record::Vote(_)
            | Record::Committed(_)
            | Record::Truncate { .. }
            | Record::Purge { .. }
            | Record::Remove => bytes += crate::format::FRAME_BYTES,
        }
    }
    if bytes > BATCH_BYTES_MAX {
        return Err("a batch has at most 64 MiB");
    }
    Ok(bytes)
}
