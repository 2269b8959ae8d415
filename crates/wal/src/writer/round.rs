//! One group commit.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use super::{Fault, Writer, files::Prepared};
use crate::{
    error::AppendError,
    format::Op,
    segment,
    shared::Shared,
    state::{Pending, Taken, Written},
    types::{GroupId, LogId},
    waiter::Waiter,
};

/// Callbacks to call when no lock is held.
pub(crate) type Calls = Vec<(Waiter, Result<(), AppendError>)>;

impl Writer {
    /// Writes and syncs what was taken, and says whom to tell what.
    pub(crate) fn round(&mut self, shared: &Shared, taken: Taken) -> Calls {
        let Taken {
            appends,
            flushes,
            idle,
            hints,
        } = taken;
        let hints: Vec<(GroupId, LogId)> = hints.into_iter().collect();
        let mut calls = Calls::new();
        if self.broken {
            let failed = appends.into_iter().map(|pending| pending.done);
            let failed = failed.chain(flushes);
            calls.extend(failed.map(|done| (done, Err(AppendError::Poisoned))));
            return calls;
        }
        // Until the round has ended well: it may panic, and nobody knows then what is on disk.
        self.broken = true;
        let written = self.commit(shared, appends, &hints, &mut calls);
        let marked = written.and_then(|marking| self.settle(shared, marking, idle));
        match marked {
            Ok(waiting) => {
                self.broken = false;
                calls.extend(waiting.into_iter().map(|pending| (pending.done, Ok(()))));
                calls.extend(flushes.into_iter().map(|done| (done, Ok(()))));
            }
            Err((error, waiting)) => {
                let unknown = AppendError::OutcomeUnknown(Self::poison(shared, error, &mut calls));
                let waiting = waiting.into_iter().map(|pending| pending.done);
                let waiting = waiting.chain(flushes);
                calls.extend(waiting.map(|done| (done, Err(unknown.clone()))));
            }
        }
        calls
    }

    /// Writes the batch, with the reserve if need be. What there is no room for is taken back and goes
    /// to `calls`.
    fn commit(
        &mut self,
        shared: &Shared,
        appends: Vec<Pending>,
        hints: &[(GroupId, LogId)],
        calls: &mut Calls,
    ) -> Result<Marking, (vfs::Error, Vec<Pending>)> {
        if shared.reserve.is_votes_only() {
            return self.commit_small(shared, appends, hints, calls);
        }
        match self.attempt(shared, &appends, hints) {
            Ok(written) => return Ok(Marking::new(appends, written)),
            Err(Fault::Full) => {}
            Err(Fault::Fatal(error)) => return Err((error, appends)),
        }
        shared.admission.note_full();
        match shared.reserve.release(self.vfs.as_ref(), 0) {
            Ok(false) => {}
            Ok(true) => match self.attempt(shared, &appends, hints) {
                Ok(written) => return Ok(Marking::new(appends, written)),
                Err(Fault::Full) => {}
                Err(Fault::Fatal(error)) => return Err((error, appends)),
            },
            Err(error) => return Err((error, appends)),
        }
        self.commit_small(shared, appends, hints, calls)
    }

    /// Refuses batches with entries and writes the others, with the half of the reserve that is kept for them. Until
    /// that is filled again entries are not even tried, for they would eat what it gave. Hints wait for another round.
    fn commit_small(
        &mut self,
        shared: &Shared,
        appends: Vec<Pending>,
        hints: &[(GroupId, LogId)],
        calls: &mut Calls,
    ) -> Result<Marking, (vfs::Error, Vec<Pending>)> {
        shared.state.lock().keep_hints(hints);
        let (small, failed) = without_entries(appends);
        if !small.is_empty()
            && let Err(error) = shared.reserve.release(self.vfs.as_ref(), 1)
        {
            return Err((error, small.into_iter().chain(failed).collect()));
        }
        let result = self.attempt(shared, &small, &[]);
        let (small, failed, written) = match result {
            Ok(written) => (small, failed, written),
            Err(Fault::Full) => {
                let all: Vec<Pending> = small.into_iter().chain(failed).collect();
                (Vec::new(), all, Vec::new())
            }
            Err(Fault::Fatal(error)) => {
                return Err((error, small.into_iter().chain(failed).collect()));
            }
        };
        let refused = shared.state.lock().fail_full(failed);
        calls.extend(refused.into_iter().map(|(done, error)| (done, Err(error))));
        Ok(Marking::new(small, written))
    }

    fn attempt(
        &mut self,
        shared: &Shared,
        appends: &[Pending],
        hints: &[(GroupId, LogId)],
    ) -> Result<Vec<Written>, Fault> {
        let mut records: Vec<Prepared> = Vec::new();
        let ops = appends
            .iter()
            .flat_map(|pending| pending.ops.iter().map(|op| (pending.group, op.clone())));
        let hinted = hints.iter().map(|(group, id)| (*group, Op::Committed(*id)));
        let ops: Vec<(GroupId, Op)> = ops.chain(hinted).collect();
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        for (group, op) in &ops {
            records.push(self.prepare(*group, op));
        }
        let before = self.active.number;
        let written = self.write(&records);
        if self.active.number != before {
            let mut state = shared.state.lock();
            state.add_segment(self.active.number, self.open_segment());
        }
        let written = written?;
        for (group, op) in &ops {
            self.apply(*group, op);
        }
        let mut state = shared.state.lock();
        state.stats.fsyncs += 1;
        for record in &records {
            record.count(&mut state.stats);
        }
        if let Some(segment) = state.segments.get_mut(&self.active.number) {
            segment.open.end = self.active.tip.end;
        }
        Ok(written)
    }

    /// Makes the batch known to readers, moves the mark where that is due, and deletes segments that nobody needs.
    fn settle(
        &mut self,
        shared: &Shared,
        marking: Marking,
        idle: bool,
    ) -> Result<Vec<Pending>, (vfs::Error, Vec<Pending>)> {
        let Marking {
            mut appends,
            written,
        } = marking;
        let votes = appends.iter().flat_map(|pending| &pending.ops);
        let votes = votes
            .into_iter()
            .any(|op| matches!(op, Op::Vote { .. } | Op::Remove));
        let retired = {
            let mut state = shared.state.lock();
            state.complete(&mut appends, &written, self.options.cache_bytes);
            state.retired(self.active.number)
        };
        let durable = self.active.place();
        let marked = if let Some(last) = retired.last() {
            self.write_mark_twice(last + 1, durable)
        } else if votes || (idle && self.mark.durable != durable) {
            self.write_mark(self.mark.oldest, durable)
        } else {
            Ok(())
        };
        if let Err(error) = marked {
            return Err((error, appends));
        }
        self.delete(shared, &retired);
        Ok(appends)
    }

    fn delete(&self, shared: &Shared, retired: &[u64]) {
        if retired.is_empty() {
            return;
        }
        for number in retired {
            let path = segment::path(&self.dir, *number);
            if let Err(error) = self.vfs.remove_file(&path) {
                // The mark says that it is void; the next start removes it.
                tracing::warn!(%error, "cannot delete a segment that nobody needs");
            }
        }
        let mut state = shared.state.lock();
        for number in retired {
            state.segments.remove(number);
        }
        state.stats.segments_deleted += retired.len() as u64;
    }

    fn poison(shared: &Shared, error: vfs::Error, calls: &mut Calls) -> Arc<vfs::Error> {
        tracing::error!(%error, "the log has failed, the process must exit");
        shared.poisoned.store(true, Ordering::Release);
        let waiting = shared.state.lock().poison();
        calls.extend(waiting.into_iter().map(|(done, error)| (done, Err(error))));
        Arc::new(error)
    }
}

/// Batches that are durable and not yet acknowledged.
struct Marking {
    appends: Vec<Pending>,
    written: Vec<Written>,
}

impl Marking {
    const fn new(appends: Vec<Pending>, written: Vec<Written>) -> Self {
        Self { appends, written }
    }
}

/// Splits off the batches that may use the last of the reserve: those without entries that do not build on one with.
fn without_entries(appends: Vec<Pending>) -> (Vec<Pending>, Vec<Pending>) {
    let mut refused = BTreeSet::new();
    let (mut small, mut failed) = (Vec::new(), Vec::new());
    for pending in appends {
        if pending.has_entries() || refused.contains(&pending.group) {
            refused.insert(pending.group);
            failed.push(pending);
        } else {
            small.push(pending);
        }
    }
    (small, failed)
}
