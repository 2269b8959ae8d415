//! How long a connection was asked without a word in return.
//!
//! A connection can die without anybody being told, as when a firewall forgets it: what is sent over it is lost until keepalive
//! notices, seconds later. A new connection may well get through.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::Instant;

/// Stands for "nothing was asked since the last word".
const NOBODY_WAITS: u64 = u64::MAX;

/// When the first call went out that nothing was heard after. Calls race for it, by which it may be off by one call; that costs
/// a connection made for nothing, or one made a try later.
#[derive(Debug)]
pub(super) struct Silence(AtomicU64);

impl Default for Silence {
    fn default() -> Self {
        Self(AtomicU64::new(NOBODY_WAITS))
    }
}

impl Silence {
    /// A call goes out.
    pub(super) fn asked(&self, now: Instant) {
        if self.0.load(Ordering::Relaxed) == NOBODY_WAITS {
            self.0.store(millis(now), Ordering::Relaxed);
        }
    }

    /// Any answer came, be it an error.
    pub(super) fn heard(&self) {
        // Read first: the line stays shared while calls come and go.
        if self.0.load(Ordering::Relaxed) != NOBODY_WAITS {
            self.0.store(NOBODY_WAITS, Ordering::Relaxed);
        }
    }

    /// How long the first of the calls has waited that nothing was heard after.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            NOBODY_WAITS => Duration::ZERO,
            since => Duration::from_millis(millis(now).saturating_sub(since)),
        }
    }
}

fn millis(at: Instant) -> u64 {
    u64::try_from(at.since_origin().as_millis()).unwrap_or(NOBODY_WAITS - 1)
}

#[cfg(test)]
mod tests {
    use runtime::Runtime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_word_ends_it_and_it_counts_from_the_first_call_after() {
        let runtime = Runtime::real();
        let silence = Silence::default();
        runtime.sleep(Duration::from_secs(9)).await;
        assert_eq!(silence.lasts(runtime.now()), Duration::ZERO);
        for _ in 0..3 {
            silence.asked(runtime.now());
            runtime.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(silence.lasts(runtime.now()), Duration::from_millis(300));
        silence.heard();
        assert_eq!(silence.lasts(runtime.now()), Duration::ZERO);
        silence.asked(runtime.now());
        assert_eq!(silence.lasts(runtime.now()), Duration::ZERO);
    }
}
