//! The handle to an open log, which is all that most users see.
//!
//! Appends change the state in memory under one short lock and queue; the writer does the rest. Nothing here waits
//! for the disk while that lock is held. After a failure every call that would write says so, and reads go on.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::{Condvar, Mutex};
use vfs::{Vfs, durable};

use crate::{
    admit::Admission,
    error::{AppendError, DiskFull, OpenError, ReadError},
    options::WalOptions,
    read,
    recover::{self, Mode},
    reserve::Reserve,
    rounds::{Round, Rounds},
    scrub::{self, ScrubPosition, ScrubStep},
    segment,
    shared::{Drive, Shared},
    state::Job,
    types::{
        Entry, EntryMeta, GroupId, GroupState, Identity, Place, Record, RecoveryReport, WalStats,
    },
    waiter::Waiter,
    writer,
};

/// The file whose lock keeps others out of a log's directory.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// Told when a batch is durable, or why it is not. Called once, on the writer's thread (in
/// [`Writer::Inline`] and [`Writer::Driven`] on the caller's), with no lock held. Must not block. Of batches that one sync made durable,
/// the newest is told first.
pub type Done = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// Starts a named thread. The `runtime` crate has such a function.
pub type Spawner = Box<dyn FnOnce(&str, Box<dyn FnOnce() + Send>) -> std::io::Result<()> + Send>;

/// Where batches are written and synced.
pub enum Writer {
    /// On a thread of its own: appends that wait share one sync.
    Thread(Spawner),
    /// In [`Wal::append`], before it returns: deterministic, for tests.
    Inline,
    /// In [`Wal::turn`], which the owner calls some time after this was called: for simulations, where a disk takes its time
    /// and there are no threads. Calls that wait for the disk do the work themselves.
    Driven(Wake),
}

/// Says that there is something to write. Called with no lock held, often; must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Thread(_) => "Thread",
            Self::Inline => "Inline",
            Self::Driven(_) => "Driven",
        })
    }
}

/// A handle to an open log. Clones share it; when the last one goes without [`Wal::shutdown`], the writer's
/// thread writes what waits and ends on its own.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dir = &self.shared().dir;
        f.debug_struct("Wal")
            .field("dir", dir)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.work.notify_all();
    }
}

impl Wal {
    /// Opens or creates the log in `dir`, which is created if missing. Reads the whole log, verifies every byte of it, and
    /// begins a fresh segment.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        identity: Identity,
        options: WalOptions,
        writer: Writer,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_noting(vfs, dir, identity, options, writer, |_| Ok(()))
    }

    /// As [`Self::open`]; `note` hears how far the log reaches that was found, before anything is written to it, and an error of it ends
    /// the opening.
    pub fn open_noting(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        identity: Identity,
        options: WalOptions,
        writer: Writer,
        note: impl FnOnce(Place) -> Result<(), vfs::Error>,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        options.validate()?;
        durable::create_dir(vfs.as_ref(), dir)?;
        let lock = vfs.lock_file(&dir.join(LOCK_FILE)).map_err(|error| {
            if error.is_locked() {
                let dir = dir.to_owned();
                OpenError::Locked { dir }
            } else {
                error.into()
            }
        })?;
        let mode = Mode::Strict(options.ambiguous);
        let log = recover::read(vfs.as_ref(), dir, Some(identity), mode)?;
        let report = log.report.clone();
        report_loudly(&report);
        note(report.found)?;
        let dictionaries = Arc::clone(&log.dictionaries);
        let reserve = Reserve::new(dir, options.reserve_bytes);
        let disk = Arc::clone(&vfs);
        let (own, state) = writer::start(disk, dir, identity, options.clone(), &reserve, log)?;
        let admission = Admission::default();
        if reserve.fill(vfs.as_ref())? > 0 {
            admission.note_full();
        }
        let (drive, spawn) = match writer {
            Writer::Thread(spawn) => (Drive::Thread, Some(spawn)),
            Writer::Inline => (Drive::Inline, None),
            Writer::Driven(wake) => (Drive::Driven(wake), None),
        };
        let shared = Arc::new(Shared {
            writer: Mutex::new(own),
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            poisoned: AtomicBool::new(false),
            admission,
            reserve,
            vfs,
            dir: dir.to_owned(),
            options,
            dictionaries,
            report: report.clone(),
            drive,
            lock: Mutex::new(Some(lock)),
            rounds: Rounds::default(),
        });
        if let Some(spawn) = spawn {
            let thread = Arc::clone(&shared);
            spawn("wal-writer", Box::new(move || thread.run())).map_err(OpenError::Spawn)?;
        }
        let handle = Arc::new(Handle { shared });
        let wal = Self { handle };
        wal.note_idle();
        Ok((wal, report))
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Queues a batch of one group. When this returns the batch is readable; when `done` is called with `Ok`
    /// it is durable. Batches are written in the order of the calls. On an error nothing of the batch is readable,
    /// unless the log is poisoned. Blocks only while more than `queue_bytes_max` waits.
    pub fn append(&self, group: GroupId, batch: Vec<Record>, done: Done) {
        self.wait_for_room();
        self.append_now(group, batch, done);
    }

    /// Whether so much waits that [`Wal::append`] would block.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let shared = self.shared();
        shared.is_crowded(&shared.state.lock())
    }

    /// Blocks until [`Wal::append`] would not: for as long as the disk does not answer, unless the log fails or is shut down. Not for an
    /// async thread.
    pub fn wait_for_room(&self) {
        let shared = self.shared();
        let mut state = shared.state.lock();
        while shared.is_crowded(&state) {
            shared.room.wait(&mut state);
        }
    }

    /// As [`Wal::append`], and never blocks: for who has waited for room, or brings next to nothing.
    pub fn append_now(&self, group: GroupId, batch: Vec<Record>, done: Done) {
        let shared = self.shared();
        let hint = match batch.as_slice() {
            [Record::Committed(id)] => Some(*id),
            _ => None,
        };
        let mut state = shared.state.lock();
        if let Some(refusal) = shared.refusal(&state) {
            drop(state);
            return done(Err(refusal));
        }
        if hint.is_some_and(|id| state.hint(group, id)) {
            drop(state);
            return done(Ok(()));
        }
        let payload: usize = batch.iter().map(Record::payload_bytes).sum();
        match state.apply(group, batch, Waiter::new(done)) {
            Ok(pending) => state.queue.push_back(Job::Append(Box::new(pending))),
            Err((waiter, error)) => {
                drop(state);
                return waiter.tell(Err(error));
            }
        }
        drop(state);
        shared.admission.note_appended(payload as u64);
        self.wake();
    }

    /// Lets the writer work: the thread, or in place.
    fn wake(&self) {
        let shared = self.shared();
        match &shared.drive {
            Drive::Thread => {
                shared.work.notify_one();
            }
            Drive::Inline => self.turn(),
            Drive::Driven(wake) => wake(),
        }
    }

    /// Writes all that waits, where that is not the business of a thread. For the owner of a [`Writer::Driven`] log.
    pub fn turn(&self) {
        if !self.shared().drive.is_thread() {
            while self.shared().drain() {}
        }
    }

    /// Appends and waits until it is durable.
    pub fn append_sync(&self, group: GroupId, batch: Vec<Record>) -> Result<(), AppendError> {
        let (done, answer) = answer();
        self.append(group, batch, done);
        self.turn();
        answer.wait()
    }

    /// Whether there is room for about `bytes` more of client payload. Ask before proposing to Raft: what was admitted
    /// can be written later even if the disk fills up meanwhile. Cheap: the disk is asked now and then.
    pub fn admit(&self, bytes: u64) -> Result<(), DiskFull> {
        let shared = self.shared();
        shared.admission.admit(bytes, shared)
    }

    /// Looks at the disk: closes admission below the low-water mark; fills the reserve and opens admission again where
    /// there is room, without a client's write. For a maintenance loop, every few seconds: what was admitted
    /// and never appended is forgotten at the second refresh after it. Takes a few system calls, so not for an
    /// async thread. Does nothing when the log is shut down or has failed.
    pub fn refresh(&self) -> Result<(), DiskFull> {
        let shared = self.shared();
        if shared.refusal(&shared.state.lock()).is_some() {
            return Ok(());
        }
        shared.admission.refresh(shared)
    }

    /// The state of a group; the default state if the log does not know it.
    #[must_use]
    pub fn group(&self, group: GroupId) -> GroupState {
        let state = self.shared().state.lock();
        let log = state.groups.get(&group);
        log.map_or_else(
            || crate::group::GroupLog::default().state(),
            |log| log.state(),
        )
    }

    /// Groups that the log knows, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared().state.lock().groups.keys().copied().collect()
    }

    /// Entries of an index range, as far as they exist, in order, without holes. Stops before `bytes_max` payload bytes
    /// are exceeded, but gives at least one entry where one exists.
    pub fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, ReadError> {
        read::read(self.shared(), group, range, bytes_max)
    }

    /// What is known of an entry without reading it.
    #[must_use]
    pub fn entry_meta(&self, group: GroupId, index: u64) -> Option<EntryMeta> {
        let state = self.shared().state.lock();
        state.groups.get(&group)?.entry_meta(index)
    }

    /// Waits until all that was appended so far, commit hints included, is durable. Whoever waits for one of those appends may be told a
    /// moment later: the newest is told first. After [`Self::shutdown`] all have been told.
    pub fn flush(&self) -> Result<(), AppendError> {
        let (done, answer) = answer();
        {
            let mut state = self.shared().state.lock();
            if let Some(refusal) = self.shared().refusal(&state) {
                return Err(refusal);
            }
            state.queue.push_back(Job::Flush(Waiter::new(done)));
        }
        self.wake();
        self.turn();
        answer.wait()
    }

    /// Says that no append is expected soon: writes waiting hints and moves the durable mark to the end of the log, so that
    /// any damage found later is known to be rot. One sync of a small file, or nothing if nothing changed.
    pub fn note_idle(&self) {
        {
            let mut state = self.shared().state.lock();
            let queued = matches!(state.queue.back(), Some(Job::Idle));
            if queued || self.shared().refusal(&state).is_some() {
                return;
            }
            state.queue.push_back(Job::Idle);
        }
        self.wake();
    }

    /// The number of the oldest segment.
    #[must_use]
    pub fn oldest_segment(&self) -> u64 {
        let state = self.shared().state.lock();
        state.segments.keys().next().copied().unwrap_or(0)
    }

    /// Groups that keep a segment from being deleted, with the number of their entries in it. Snapshot and
    /// purge these to let retention go on.
    #[must_use]
    pub fn groups_holding(&self, segment: u64) -> Vec<(GroupId, u64)> {
        let state = self.shared().state.lock();
        let segment = state.segments.get(&segment);
        segment.map_or(Vec::new(), |segment| {
            let live = segment.live.iter();
            live.map(|(group, count)| (*group, *count)).collect()
        })
    }

    /// Reads a part of the log again and verifies it: from a position, about `bytes_max` bytes. A pass begins at the default
    /// position and goes on at [`ScrubStep::next`] until there is none. Reads files, so not for an async thread.
    ///
    /// # Errors
    /// [`ReadError::Rotten`] where what was durable does not verify any more: the log must not be served from.
    pub fn scrub(&self, from: ScrubPosition, bytes_max: u64) -> Result<ScrubStep, ReadError> {
        scrub::step(self.shared(), from, bytes_max)
    }

    /// The end of what is durable. It only ever rises while the log is open, and the next to open the directory finds it or more
    /// ([`RecoveryReport::found`]).
    #[must_use]
    pub fn durable_end(&self) -> Place {
        self.shared().state.lock().durable_end()
    }

    /// The file of the newest segment, if it is not under its name any more: somebody has removed it, and what is written to it is lost
    /// with this process. `None` also where the disk does not say, and once the log is shut down or has failed. Looks at the
    /// disk, so not for an async thread.
    #[must_use]
    pub fn displaced(&self) -> Option<PathBuf> {
        let shared = self.shared();
        let newest = || {
            let state = shared.state.lock();
            let newest = state.segments.keys().next_back().copied();
            newest.filter(|_| shared.refusal(&state).is_none())
        };
        let number = newest()?;
        let path = segment::path(&shared.dir, number);
        let is_there = shared.vfs.exists(&path).unwrap_or(true);
        // A log that has gone on meanwhile may have deleted it itself.
        (!is_there && newest() == Some(number)).then_some(path)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let shared = self.shared();
        let state = shared.state.lock();
        let queued = state.queue.iter();
        WalStats {
            segments: state.segments.len() as u64,
            log_bytes: state
                .segments
                .values()
                .map(|segment| segment.open.end)
                .sum(),
            torn_bytes: shared.report.torn_bytes,
            cached_bytes: state.cache.bytes() as u64,
            queued_appends: queued.filter(|job| matches!(job, Job::Append(_))).count() as u64,
            queued_bytes: state.queued_bytes as u64,
            disk_full: shared.admission.is_full(),
            ..state.stats
        }
    }

    /// Counts the group commits: odd while one is at the disk, even between two. Who has a clock sees from it whether the disk
    /// answers; the same odd number for long is one that hangs.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.shared().rounds.edges()
    }

    /// Has an observer told when each group commit begins and when it has ended, by the thread that writes and before any append of it is
    /// answered: it must neither block nor call the log. The first observer stays; `false` where there is one.
    pub fn observe_rounds(&self, observer: impl Fn(Round) + Send + Sync + 'static) -> bool {
        self.shared().rounds.observe(Box::new(observer))
    }

    /// Whether a write or sync has failed. Then nothing can be appended any more and the process must exit.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared().is_poisoned()
    }

    /// Writes what waits, moves the durable mark, stops the writer and releases the directory. Later appends fail; reads
    /// go on working.
    pub fn shutdown(&self) -> Result<(), AppendError> {
        let shared = self.shared();
        self.note_idle();
        let result = self.flush();
        let mut state = shared.state.lock();
        state.stopped = true;
        shared.work.notify_all();
        while shared.drive.is_thread() && !state.writer_gone {
            shared.room.wait(&mut state);
        }
        drop(state);
        shared.lock.lock().take();
        match result {
            Err(AppendError::Shutdown) => Ok(()),
            result => result,
        }
    }
}

fn report_loudly(report: &RecoveryReport) {
    if let Some(place) = report.ambiguous {
        tracing::error!(%place, bytes = report.ambiguous_bytes, "dropped a damaged last batch that may have been acknowledged");
    }
    if let Some(place) = report.torn_at {
        tracing::warn!(%place, bytes = report.torn_bytes, "dropped a torn tail that was never acknowledged");
    }
}

/// A result that is waited for.
#[derive(Debug, Default)]
struct Answer {
    result: Mutex<Option<Result<(), AppendError>>>,
    given: Condvar,
}

impl Answer {
    fn wait(&self) -> Result<(), AppendError> {
        let mut result = self.result.lock();
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            self.given.wait(&mut result);
        }
    }
}

fn answer() -> (Done, Arc<Answer>) {
    let answer = Arc::new(Answer::default());
    let given = Arc::clone(&answer);
    let done = Box::new(move |result| {
        *given.result.lock() = Some(result);
        given.given.notify_all();
    });
    (done, answer)
}
