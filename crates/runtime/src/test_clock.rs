//! A clock for tests of what must hold when clocks are wrong.

use std::time::Duration;

use parking_lot::Mutex;

use crate::{Clock, Instant, Sleep, TokioClock};

/// The real clock, but that a test stops it, or sets its wall clock. Timers go on.
#[derive(Debug, Default)]
pub struct TestClock {
    real: TokioClock,
    /// By how much the monotonic clock is ahead of the real one.
    ahead: Mutex<Duration>,
    stopped_at: Mutex<Option<Instant>>,
    wall: Mutex<Wall>,
}

/// What a wall clock shows.
#[derive(Debug, Default)]
struct Wall {
    stands_at_ms: Option<i64>,
    /// Of the real one, while it goes.
    ahead_ms: i64,
}

impl Wall {
    fn ms(&self, real_ms: i64) -> i64 {
        self.stands_at_ms
            .unwrap_or_else(|| real_ms.saturating_add(self.ahead_ms))
    }
}

impl TestClock {
    /// Stops the wall clock as well: a lease ends by whichever has gone further.
    pub fn stop(&self) {
        self.set_wall_ms(self.wall_ms());
        let now = self.real.now() + *self.ahead.lock();
        *self.stopped_at.lock() = Some(now);
    }

    /// The monotonic clock goes on from a later moment. The wall clock does not.
    pub fn leap(&self, by: Duration) {
        *self.ahead.lock() += by;
    }

    /// Both clocks go on, as if they had never stood still.
    pub fn go_on(&self) {
        *self.stopped_at.lock() = None;
        self.wall.lock().stands_at_ms = None;
    }

    /// The wall clock shows this many milliseconds since the Unix epoch, and stands still.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.wall.lock().stands_at_ms = Some(wall_ms);
    }

    /// The wall clock jumps by so many milliseconds, ahead or back, and goes on from there.
    pub fn move_wall(&self, by_ms: i64) {
        let mut wall = self.wall.lock();
        wall.ahead_ms = wall.ahead_ms.saturating_add(by_ms);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        // Held meanwhile, so that nobody has read a later moment than the one at which it stops.
        let stopped_at = self.stopped_at.lock();
        stopped_at.unwrap_or_else(|| self.real.now() + *self.ahead.lock())
    }

    fn wall_ms(&self) -> i64 {
        self.wall.lock().ms(self.real.wall_ms())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.real.sleep(duration)
    }
}
