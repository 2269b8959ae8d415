//! Whether there is room for more client writes.
//!
//! The disk is asked now and then, and what it has is given out as credit. Room that is spoken for is not given out
//! again: what waits for the writer, and what was admitted and has not been appended yet. The latter is an estimate, for
//! a proposal may never become an append, and appends come that were never admitted; the low-water mark and the
//! first half of the reserve cover the error. If the disk cannot be asked, nothing is admitted.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::{error::DiskFull, shared::Shared};

/// Between two looks at the disk at most this much is admitted.
const CREDIT_BYTES_MAX: u64 = 1 << 20;

/// Admission to the log. Refuses from the low-water mark on, or when the reserve was touched, until the
/// high-water mark is free and the reserve is whole again.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    budget: Mutex<Budget>,
    full: AtomicBool,
    /// Held while the disk is asked; `budget` is not.
    looking: Mutex<()>,
}

/// Bytes that may be admitted, and those that were.
#[derive(Debug, Default)]
struct Budget {
    /// What may be admitted before the disk is looked at again.
    credit: u64,
    /// Admitted since the last refresh and not appended.
    recent: u64,
    /// Admitted between the last two refreshes and not appended. What is older will not come any more.
    older: u64,
}

impl Admission {
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The writer met a full disk.
    pub(crate) fn note_full(&self) {
        self.budget.lock().credit = 0;
        if !self.full.swap(true, Ordering::Relaxed) {
            warn!("disk is full, client writes are refused");
        }
    }

    /// Client payload has come that was perhaps admitted.
    pub(crate) fn note_appended(&self, bytes: u64) {
        let mut budget = self.budget.lock();
        let rest = bytes.saturating_sub(budget.older);
        budget.older = budget.older.saturating_sub(bytes);
        budget.recent = budget.recent.saturating_sub(rest);
    }

    pub(crate) fn admit(&self, bytes: u64, shared: &Shared) -> Result<(), DiskFull> {
        if self.spend(bytes) {
            return Ok(());
        }
        let _one_at_a_time = self.looking.lock();
        if self.spend(bytes) {
            return Ok(());
        }
        self.look(bytes, shared)?;
        self.budget.lock().recent += bytes;
        Ok(())
    }

    /// Looks at the disk, and forgets what was admitted before the last refresh but one.
    pub(crate) fn refresh(&self, shared: &Shared) -> Result<(), DiskFull> {
        let _one_at_a_time = self.looking.lock();
        {
            let mut budget = self.budget.lock();
            budget.older = std::mem::take(&mut budget.recent);
        }
        self.look(0, shared)
    }

    fn spend(&self, bytes: u64) -> bool {
        let mut budget = self.budget.lock();
        let rest = budget.credit.checked_sub(bytes);
        let Some(rest) = rest.filter(|_| !self.is_full()) else {
            return false;
        };
        budget.credit = rest;
        budget.recent += bytes;
        true
    }

    /// Whether there is room for `bytes` more; gives out credit for what is behind them.
    fn look(&self, bytes: u64, shared: &Shared) -> Result<(), DiskFull> {
        // What is written meanwhile is counted twice rather than not at all.
        let unwritten = shared.state.lock().unwritten_bytes();
        // If the disk cannot even be asked there is no ground to promise room on it.
        let free = shared.vfs.free_space(&shared.dir).unwrap_or(0);
        let missing = shared.reserve.missing_bytes();
        let promised = {
            let budget = self.budget.lock();
            let promised = budget.recent.saturating_add(budget.older);
            // No more can be under way, however many proposals came to nothing since the last refresh.
            promised.min(shared.options.queue_bytes_max as u64)
        };
        let spoken_for = unwritten.saturating_add(promised).saturating_add(bytes);
        let floor = shared.options.low_water_bytes.saturating_add(spoken_for);
        let resume = shared.options.high_water_bytes.saturating_add(missing);
        let resume = resume.saturating_add(spoken_for);
        let refused = DiskFull {
            free_bytes: free,
            resume_bytes: resume,
        };
        if self.is_full() || missing > 0 {
            let fill = || shared.reserve.fill(shared.vfs.as_ref());
            if free < resume || !fill().is_ok_and(|left| left == 0) {
                self.note_full();
                return Err(refused);
            }
            if self.full.swap(false, Ordering::Relaxed) {
                info!(
                    free_bytes = free,
                    "disk has room again, client writes resume"
                );
            }
        } else if free < floor {
            self.note_full();
            return Err(refused);
        }
        let left = free.saturating_sub(floor.saturating_add(missing));
        self.budget.lock().credit = (left / 4).min(CREDIT_BYTES_MAX);
        Ok(())
    }
}
