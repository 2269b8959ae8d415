//! A machine's clocks, and how long its disk takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Clock, Instant, Sleep, Turns};

/// What the clocks of all simulated worlds show at their beginning, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// What the harness can turn on a machine while it runs.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    /// How far the wall clock is off, in milliseconds.
    pub(crate) wall_offset_ms: AtomicI64,
    /// How long each piece of blocking work takes, in microseconds.
    pub(crate) disk_us: AtomicU64,
    /// How the monotonic clock runs.
    drift: Mutex<Drift>,
}

/// How far a monotonic clock is behind the world's time.
#[derive(Debug, Clone, Copy)]
struct Drift {
    /// Since when it runs as it does.
    since: Duration,
    /// How far it was behind then.
    behind: Duration,
    /// How many times too slow it is since then.
    slowness: u32,
}

impl Default for Drift {
    fn default() -> Self {
        Self {
            since: Duration::ZERO,
            behind: Duration::ZERO,
            slowness: 1,
        }
    }
}

impl Drift {
    fn behind(self, at: Duration) -> Duration {
        let passed = at.saturating_sub(self.since);
        self.behind + (passed - passed / self.slowness)
    }
}

impl Knobs {
    /// From now on both clocks are so many times too slow, at least 1; timers are not. It is turned in the world's time: a process that
    /// stands still then finds on waking that both paces had their share.
    pub(crate) fn slow_clock(&self, now: Duration, slowness: u32) {
        let mut drift = self.drift.lock();
        *drift = Drift {
            since: now,
            behind: drift.behind(now),
            slowness: slowness.max(1),
        };
    }

    /// What the monotonic clock shows at a time of the world.
    fn shown(&self, at: Duration) -> Duration {
        let drift = *self.drift.lock();
        at.saturating_sub(drift.behind(at))
    }
}

/// The clock of one boot of a machine: its tokio executor's paused time, counted from the world's beginning.
#[derive(Debug)]
pub(crate) struct MachineClock {
    booted: Duration,
    origin: tokio::time::Instant,
    /// What the monotonic clock showed then.
    shown_then: Duration,
    knobs: Arc<Knobs>,
    /// How many times too slow its clocks are, beside what is turned on the knobs: the wall clock too, for a lease goes by both.
    /// Timers are not.
    slowness: u32,
}

impl MachineClock {
    /// Must be called inside the machine's executor.
    #[expect(clippy::disallowed_methods, reason = "this is an adapter")]
    pub(crate) fn new(booted: Duration, knobs: Arc<Knobs>) -> Self {
        Self {
            booted,
            origin: tokio::time::Instant::now(),
            shown_then: knobs.shown(booted),
            knobs,
            slowness: 1,
        }
    }

    /// The same, so many times too slow.
    pub(crate) fn slowed(self, slowness: u32) -> Self {
        Self { slowness, ..self }
    }

    #[expect(clippy::disallowed_methods, reason = "this is an adapter")]
    fn since_start(&self) -> Duration {
        let now = tokio::time::Instant::now();
        self.booted + now.saturating_duration_since(self.origin)
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Instant {
        let shown = self.knobs.shown(self.since_start());
        let ran = shown.saturating_sub(self.shown_then);
        Instant::from_origin(self.shown_then + ran / self.slowness)
    }

    fn wall_ms(&self) -> i64 {
        let since = self.now().since_origin().as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX / 2);
        WALL_START_MS + since + self.knobs.wall_offset_ms.load(Ordering::Relaxed)
    }

    #[expect(clippy::disallowed_methods, reason = "this is an adapter")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Turns for Knobs {
    fn duration(&self, _name: &str) -> Duration {
        Duration::from_micros(self.disk_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clock_falls_behind_and_stays_there_once_it_runs_right() {
        let knobs = Knobs::default();
        let shown = |knobs: &Knobs, seconds| knobs.shown(Duration::from_secs(seconds)).as_secs();
        assert_eq!(shown(&knobs, 10), 10);
        knobs.slow_clock(Duration::from_secs(10), 4);
        assert_eq!(shown(&knobs, 10), 10);
        assert_eq!(shown(&knobs, 18), 12);
        knobs.slow_clock(Duration::from_secs(18), 2);
        assert_eq!(shown(&knobs, 20), 13);
        knobs.slow_clock(Duration::from_secs(20), 1);
        assert_eq!(shown(&knobs, 20), 13);
        assert_eq!(shown(&knobs, 27), 20);
    }
}
