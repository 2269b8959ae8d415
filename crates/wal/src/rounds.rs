//! Group commits as those see them who have a clock: how many have begun and ended, and when.
//!
//! The log itself knows no time. What always holds: both edges of a commit are told by the thread that writes, one commit after another;
//! of a commit that panics only the first is.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// An edge of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// What waited is about to be written.
    Begins,
    /// It is written and synced, or has failed.
    Ends,
}

type Observer = Box<dyn Fn(Round) + Send + Sync>;

/// The commits of one log.
#[derive(Default)]
pub(crate) struct Rounds {
    edges: AtomicU64,
    observer: OnceLock<Observer>,
}

impl Rounds {
    /// Edges so far: odd within a commit.
    pub(crate) fn edges(&self) -> u64 {
        self.edges.load(Ordering::Acquire)
    }

    /// Tells of each edge from now on. Says whether nobody was told before.
    pub(crate) fn observe(&self, observer: Observer) -> bool {
        self.observer.set(observer).is_ok()
    }

    pub(crate) fn pass(&self, edge: Round) {
        self.edges.fetch_add(1, Ordering::AcqRel);
        if let Some(observer) = self.observer.get() {
            observer(edge);
        }
    }
}

impl fmt::Debug for Rounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rounds")
            .field("edges", &self.edges())
            .finish_non_exhaustive()
    }
}
