//! What the handles and the writer's thread share, and the loop that turns what waits into group commits.
//!
//! Whatever ends a round, an error or a panic included, everybody who waits for it is told: the batches in flight, those in
//! the queue, and appends that wait for room in it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Condvar, Mutex};
use vfs::{LockGuard, Vfs};

use crate::{
    admit::Admission,
    codec::Dictionaries,
    error::AppendError,
    options::WalOptions,
    reserve::Reserve,
    rounds::{Round, Rounds},
    state::State,
    types::RecoveryReport,
    waiter::Waiter,
    wal::Wake,
    writer::Writer,
};

/// Who does the rounds.
pub(crate) enum Drive {
    Thread,
    /// Whoever appends.
    Inline,
    /// Whoever calls [`crate::Wal::turn`] after it was woken.
    Driven(Wake),
}

impl Drive {
    pub(crate) fn is_thread(&self) -> bool {
        matches!(self, Self::Thread)
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Thread => "Thread",
            Self::Inline => "Inline",
            Self::Driven(_) => "Driven",
        })
    }
}

/// What all handles and the writer's thread share. Locks are taken in the order of the fields, and `state` is never held
/// while the disk is used.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) writer: Mutex<Writer>,
    pub(crate) state: Mutex<State>,
    /// Something to do for the writer's thread.
    pub(crate) work: Condvar,
    /// Room in the queue, or the writer's thread is gone.
    pub(crate) room: Condvar,
    pub(crate) poisoned: AtomicBool,
    pub(crate) admission: Admission,
    pub(crate) reserve: Reserve,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) options: WalOptions,
    pub(crate) dictionaries: Arc<Dictionaries>,
    pub(crate) report: RecoveryReport,
    pub(crate) drive: Drive,
    pub(crate) lock: Mutex<Option<LockGuard>>,
    pub(crate) rounds: Rounds,
}

impl Shared {
    /// Does one group commit with what waits. `false` if nothing does.
    pub(crate) fn drain(&self) -> bool {
        // Declared first, to clean up after a panic when the writer's lock is free again.
        let mut flight = Flight {
            shared: self,
            waiters: Vec::new(),
            ended: false,
        };
        let mut writer = self.writer.lock();
        let taken = self.state.lock().take(self.options.batch_bytes_max);
        let Some(taken) = taken else {
            flight.ended = true;
            return false;
        };
        flight.waiters = taken.waiters();
        self.room.notify_all();
        self.rounds.pass(Round::Begins);
        let calls = writer.round(self, taken);
        self.rounds.pass(Round::Ends);
        drop(writer);
        self.state.lock().in_flight_bytes = 0;
        // The round may have emptied the queue, or ended the log.
        self.room.notify_all();
        let others = calls.iter().map(|(waiter, _)| waiter.clone());
        flight.waiters.extend(others);
        // The newest first: whoever waits for several learns from one that all before it are durable. openraft forwards the first that it is
        // told at once, and a newer one that comes right behind it a timer's tick, a millisecond, later.
        for (waiter, result) in calls.into_iter().rev() {
            waiter.tell(result);
        }
        flight.ended = true;
        true
    }

    /// The writer's thread: ends when the log is stopped and nothing waits.
    pub(crate) fn run(&self) {
        let _leaving = Leaving(self);
        loop {
            {
                let mut state = self.state.lock();
                while state.queue.is_empty() && !state.stopped {
                    self.work.wait(&mut state);
                }
                if state.queue.is_empty() {
                    return;
                }
            }
            self.drain();
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Ends the log after a panic: nothing that waits will be written.
    fn abandon(&self) {
        self.poisoned.store(true, Ordering::Release);
        let waiting = self.state.lock().poison();
        self.room.notify_all();
        for (waiter, error) in waiting {
            waiter.tell(Err(error));
        }
    }

    /// Whether who appends has to wait for the writer's thread.
    pub(crate) fn is_crowded(&self, state: &State) -> bool {
        self.drive.is_thread()
            && state.queued_bytes > self.options.queue_bytes_max
            && self.refusal(state).is_none()
    }

    /// Why nothing can be appended, if that is so.
    pub(crate) fn refusal(&self, state: &State) -> Option<AppendError> {
        if self.is_poisoned() {
            Some(AppendError::Poisoned)
        } else if state.stopped {
            Some(AppendError::Shutdown)
        } else {
            None
        }
    }
}

/// Those who wait for a round. If it does not end, for it or one of their callbacks panicked, the rest is told that the
/// outcome is unknown, and the log has failed.
struct Flight<'a> {
    shared: &'a Shared,
    waiters: Vec<Waiter>,
    ended: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        tracing::error!("the log's writer panicked, the process must exit");
        self.shared.abandon();
        let source = std::io::Error::other("the log's writer panicked");
        let error = vfs::Error::new(vfs::Op::Write, &self.shared.dir, source);
        let error = AppendError::OutcomeUnknown(Arc::new(error));
        for waiter in self.waiters.drain(..) {
            waiter.tell(Err(error.clone()));
        }
    }
}

/// Done when the writer's thread ends, however it ends: nobody may wait for it any more.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        if std::thread::panicking() {
            shared.abandon();
        }
        shared.lock.lock().take();
        shared.state.lock().writer_gone = true;
        shared.room.notify_all();
    }
}
