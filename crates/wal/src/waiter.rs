//! Whom to tell how a batch ended.
//!
//! A waiter is told once, whoever comes first: the round that wrote the batch, or the one who cleans up after a round
//! that panicked. The callback runs with no lock held, the waiter's own included.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{error::AppendError, wal::Done};

/// A callback that is called at most once, however many copies of it there are.
#[derive(Clone)]
pub(crate) struct Waiter(Arc<Mutex<Option<Done>>>);

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

impl Waiter {
    pub(crate) fn new(done: Done) -> Self {
        Self(Arc::new(Mutex::new(Some(done))))
    }

    /// Tells the result, unless one was told before.
    pub(crate) fn tell(&self, result: Result<(), AppendError>) {
        let done = self.0.lock().take();
        if let Some(done) = done {
            done(result);
        }
    }
}
