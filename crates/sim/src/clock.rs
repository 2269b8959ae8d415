//! A machine's clocks, and how long its disk takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

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
}

/// The clock of one boot of a machine: its tokio executor's paused time, counted from the world's beginning.
#[derive(Debug)]
pub(crate) struct MachineClock {
    booted: Duration,
    origin: tokio::time::Instant,
    knobs: Arc<Knobs>,
    /// How many times too slow its monotonic clock is; timers are not.
    slowness: u32,
}

impl MachineClock {
    /// Must be called inside the machine's executor.
    #[expect(clippy::disallowed_methods, reason = "this is an adapter")]
    pub(crate) fn new(booted: Duration, knobs: Arc<Knobs>) -> Self {
        Self {
            booted,
            origin: tokio::time::Instant::now(),
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
        let ran = self.since_start().saturating_sub(self.booted);
        Instant::from_origin(self.booted + ran / self.slowness)
    }

    fn wall_ms(&self) -> i64 {
        let since = i64::try_from(self.since_start().as_millis()).unwrap_or(i64::MAX / 2);
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
