//! The last of what was done, for whoever asks what happened lately.
//!
//! What always holds: at most so many different things are kept, the oldest make room; what is done again, the same in all it says, is
//! kept once, with how often and when, so that a step that fails again and again does not drive out the rest. In memory only.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::Runtime;

/// The last things that were noted. Clones share them.
#[derive(Debug)]
pub struct Recent<T> {
    runtime: Runtime,
    limit: usize,
    /// The newest last. Held while one is put in or all are read.
    kept: Arc<Mutex<VecDeque<Noted<T>>>>,
}

/// Something that was noted, once or several times.
#[derive(Debug, Clone)]
struct Noted<T> {
    what: T,
    times: u64,
    first_ms: i64,
    last_ms: i64,
}

impl<T> Clone for Recent<T> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            limit: self.limit,
            kept: Arc::clone(&self.kept),
        }
    }
}

impl<T: Clone + PartialEq> Recent<T> {
    /// Nothing yet, and never more than `limit`.
    #[must_use]
    pub fn new(runtime: &Runtime, limit: usize) -> Self {
        Self {
            runtime: runtime.clone(),
            limit,
            kept: Arc::default(),
        }
    }

    /// It was done just now.
    pub fn note(&self, what: T) {
        let last_ms = self.runtime.wall_ms();
        let mut kept = self.kept.lock();
        let place = kept.iter().position(|noted| noted.what == what);
        let before = place.and_then(|place| kept.remove(place));
        while kept.len() >= self.limit.max(1) {
            kept.pop_front();
        }
        kept.push_back(Noted {
            what,
            times: before.as_ref().map_or(1, |before| before.times + 1),
            first_ms: before.map_or(last_ms, |before| before.first_ms),
            last_ms,
        });
    }

    /// All that is kept, the newest last, in words of whoever asks: `tell` gets what it was, how often, and when first and
    /// last, milliseconds since the Unix epoch by this machine's clock.
    pub fn told<R>(&self, tell: impl Fn(T, u64, i64, i64) -> R) -> Vec<R> {
        let kept = self.kept.lock();
        let noted = kept.iter().cloned();
        noted
            .map(|noted| tell(noted.what, noted.times, noted.first_ms, noted.last_ms))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4;

    fn told(recent: &Recent<u64>) -> Vec<(u64, u64)> {
        recent.told(|what, times, first_ms, last_ms| {
            assert!(first_ms <= last_ms && first_ms > 0);
            (what, times)
        })
    }

    #[test]
    fn what_is_tried_again_and_again_is_kept_once() {
        let recent = Recent::new(&Runtime::real(), LIMIT);
        for _ in 0..LIMIT * 2 {
            recent.note(1);
            recent.note(2);
        }
        recent.note(3);
        assert_eq!(told(&recent), [(1, 8), (2, 8), (3, 1)]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let recent = Recent::new(&Runtime::real(), LIMIT);
        let shared = recent.clone();
        (1..=6).for_each(|number| recent.note(number));
        recent.note(4);
        assert_eq!(told(&shared), [(3, 1), (5, 1), (6, 1), (4, 2)]);
    }
}
