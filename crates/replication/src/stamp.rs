//! The leader's stamp: the time that entries carry.
//!
//! A stamp follows the monotonic clock from where the wall clock stood when the process started, and is drawn towards the
//! wall clock by at most one part in a thousand of the time that passes. So a wall clock that is set an hour ahead for a moment
//! is ignored, while the drift of a machine's oscillator is made good.
//!
//! One that stays far ahead is right, and it is the stamp that is behind: the machine slept, which the monotonic clock does not
//! count, or its time was wrong when the process started. Callers with right clocks would be refused for days, for what they issue lies
//! too far ahead of the stamp. So the stamp is set after a minute.
//!
//! What [`Stamps::next`] gives never goes back, neither while a replica runs nor behind what was applied before. Nor does it stand still
//! where this clock is behind that, as after a start of a machine whose time was set back: what ends by stamps, such as a lease of
//! somebody who has died, would not end for hours. It goes on at half the pace then, so that a stamp that was wrongly ahead is met again.
//!
//! The clock is the node's and what was given out is the group's: a group that somebody with a wrong clock has led takes no other with it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Instant, Runtime};

/// How much of the passed time the stamp may be drawn towards the wall clock: one part in this many.
const SLEW_PARTS: i64 = 1000;
/// A wall clock that is further ahead is followed once it has been so for [`STEADY_FOR`].
const FAR_AHEAD: Duration = Duration::from_secs(60);
/// See [`FAR_AHEAD`].
const STEADY_FOR: Duration = Duration::from_secs(60);
/// What of the passed time a stamp goes on by that is ahead of this clock: one part in this many.
const CREEP_PARTS: i64 = 2;

/// What the entries of one group are stamped with.
#[derive(Debug)]
pub(crate) struct Stamps {
    clock: Arc<StampClock>,
    newest: Mutex<Option<Given>>,
}

/// The clock of a node.
#[derive(Debug)]
pub(crate) struct StampClock {
    runtime: Runtime,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    at: Instant,
    micros: i64,
    /// Since when the wall clock was found far ahead each time.
    ahead_since: Option<Instant>,
}

/// A stamp that was given out, and when.
#[derive(Debug, Clone, Copy)]
struct Given {
    micros: i64,
    at: Instant,
}

impl Given {
    /// Where stamps are that have gone on from it without a clock that is further.
    fn crept(self, now: Instant) -> i64 {
        let passed = micros_between(self.at, now);
        self.micros.saturating_add(passed / CREEP_PARTS)
    }
}

fn micros_between(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_since(from).as_micros()).unwrap_or(i64::MAX)
}

impl State {
    /// Where the clock stands without the wall clock, and how long it has gone there.
    fn straight(&self, now: Instant) -> (i64, i64) {
        let passed = micros_between(self.at, now);
        (self.micros.saturating_add(passed), passed)
    }

    /// Sets the clock where the wall clock has been far ahead for long.
    fn follow_steady(&mut self, now: Instant, wall_micros: i64) {
        let ahead = wall_micros.saturating_sub(self.straight(now).0);
        if i128::from(ahead) <= FAR_AHEAD.as_micros().cast_signed() {
            self.ahead_since = None;
            return;
        }
        let since = *self.ahead_since.get_or_insert(now);
        if now.saturating_since(since) >= STEADY_FOR {
            tracing::warn!(
                ahead_ms = ahead / 1000,
                "the wall clock stays ahead of what entries are stamped with and is followed"
            );
            (self.at, self.micros, self.ahead_since) = (now, wall_micros, None);
        }
    }
}

impl StampClock {
    pub(crate) fn new(runtime: Runtime) -> Self {
        let state = State {
            at: runtime.now(),
            micros: runtime.wall_ms().saturating_mul(1000),
            ahead_since: None,
        };
        Self {
            runtime,
            state: Mutex::new(state),
        }
    }

    /// The present moment, and what the clock shows then.
    fn present(&self) -> (Instant, i64) {
        // Read under the lock: whoever comes later has not read them earlier, and no time counts twice.
        let mut state = self.state.lock();
        let now = self.runtime.now();
        let wall_micros = self.runtime.wall_ms().saturating_mul(1000);
        state.follow_steady(now, wall_micros);
        let (straight, passed) = state.straight(now);
        let slew = passed / SLEW_PARTS;
        let drift = wall_micros.saturating_sub(straight).clamp(-slew, slew);
        let micros = straight.saturating_add(drift);
        // Keeping the remainder of short intervals: the clock only moves when the slew is at least a microsecond.
        if passed >= SLEW_PARTS {
            (state.at, state.micros) = (now, micros);
        }
        (now, micros)
    }
}

impl Stamps {
    /// Of a group for which nothing was given out yet.
    pub(crate) fn new(clock: Arc<StampClock>) -> Self {
        Self {
            clock,
            newest: Mutex::default(),
        }
    }

    /// The present stamp, at least `floor_ms`, which is the newest stamp known to be applied.
    pub(crate) fn next(&self, floor_ms: i64) -> i64 {
        // As in the clock, which is read under this lock.
        let mut newest = self.newest.lock();
        let (now, present) = self.clock.present();
        let floor = floor_ms.saturating_mul(1000);
        let crept = newest.map_or(floor, |given| given.crept(now));
        let micros = present.max(floor).max(crept);
        *newest = Some(Given { micros, at: now });
        micros / 1000
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use runtime::{Adapters, Clock, OsRandom, TcpNetwork};

    use super::*;

    #[derive(Debug, Default)]
    struct TestClock {
        micros: AtomicU64,
        wall_ms: AtomicI64,
    }

    impl Clock for TestClock {
        fn now(&self) -> Instant {
            Instant::from_origin(Duration::from_micros(self.micros.load(Ordering::Relaxed)))
        }

        fn wall_ms(&self) -> i64 {
            self.wall_ms.load(Ordering::Relaxed)
        }

        fn sleep(&self, _: Duration) -> runtime::Sleep {
            Box::pin(std::future::pending())
        }
    }

    fn clock() -> (Arc<TestClock>, Stamps) {
        let clock = Arc::new(TestClock::default());
        clock.wall_ms.store(1_000_000, Ordering::Relaxed);
        let runtime = Runtime::with(Adapters {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::new(OsRandom),
            network: Arc::new(TcpNetwork),
        });
        (clock, Stamps::new(Arc::new(StampClock::new(runtime))))
    }

    fn pass(clock: &TestClock, wall_ms: i64, micros: u64) {
        clock.micros.fetch_add(micros, Ordering::Relaxed);
        clock.wall_ms.fetch_add(wall_ms, Ordering::Relaxed);
    }

    #[test]
    fn a_wall_clock_that_jumps_is_not_followed() {
        let (clock, stamps) = clock();
        pass(&clock, 3_600_000, 10_000);
        assert_eq!(stamps.next(0), 1_000_010);
        pass(&clock, -7_200_000, 1_000_000);
        let stamp = stamps.next(0);
        assert!((1_001_008..=1_001_012).contains(&stamp), "{stamp}");
    }

    #[test]
    fn a_wall_clock_that_stays_ahead_is_followed_after_a_minute() {
        let (clock, stamps) = clock();
        // The machine has slept for six minutes.
        pass(&clock, 360_000, 0);
        let behind = |stamps: &Stamps| clock.wall_ms() - stamps.next(0);
        for _ in 0..59 {
            assert!(behind(&stamps) > 359_000);
            pass(&clock, 1000, 1_000_000);
        }
        pass(&clock, 1000, 1_000_000);
        assert_eq!(behind(&stamps), 0);
        // Twice within a minute a clock is set and set back.
        for _ in 0..2 {
            pass(&clock, 3_600_000 + 40_000, 40_000_000);
            assert!(behind(&stamps) > 3_500_000);
            pass(&clock, -3_600_000, 0);
            assert!(behind(&stamps).abs() < 100);
        }
        // Less than a minute is made good slowly, however long it lasts.
        pass(&clock, 59_000, 0);
        for _ in 0..100 {
            pass(&clock, 1000, 1_000_000);
            assert!(behind(&stamps) > 58_000);
        }
    }

    #[test]
    fn drift_is_made_good_slowly() {
        let (clock, stamps) = clock();
        // The oscillator is 100 parts in a million slow: the wall clock gains 100 ms in 1,000 s.
        for _ in 0..1000 {
            pass(&clock, 1000, 999_900);
            stamps.next(0);
        }
        assert!((stamps.next(0) - clock.wall_ms()).abs() <= 2);
    }

    #[test]
    fn what_ends_by_stamps_ends_where_the_clock_was_set_back_before_the_start() {
        let (clock, stamps) = clock();
        let applied = 1_000_000 + 3_000_000;
        assert_eq!(stamps.next(applied), applied);
        for second in 1..=60 {
            pass(&clock, 1000, 1_000_000);
            assert_eq!(stamps.next(applied), applied + second * 500);
        }
        // Asked often, the halves of single microseconds would be lost, and no more than those.
        for _ in 0..1000 {
            pass(&clock, 1, 1001);
            stamps.next(applied);
        }
        assert_eq!(stamps.next(0), applied + 30_500);
        // Once the clock is further, it is followed.
        pass(&clock, 7_200_000, 7_200_000_000);
        assert_eq!(stamps.next(0), clock.wall_ms());
    }

    #[test]
    fn a_group_whose_stamps_are_ahead_takes_no_other_with_it() {
        let (clock, ahead) = clock();
        let sound = Stamps::new(Arc::clone(&ahead.clock));
        // Whoever led it before had a clock that was an hour ahead.
        let applied = 1_000_000 + 3_600_000;
        assert_eq!(ahead.next(applied), applied);
        for second in 1..=60 {
            pass(&clock, 1000, 1_000_000);
            assert_eq!(sound.next(1_000_000), clock.wall_ms());
            assert_eq!(ahead.next(applied), applied + second * 500);
        }
    }

    #[test]
    fn it_never_goes_behind_what_was_applied_or_given_out() {
        let (clock, stamps) = clock();
        assert_eq!(stamps.next(5_000_000), 5_000_000);
        pass(&clock, 10, 10_000);
        assert_eq!(stamps.next(0), 5_000_005);
        let mut before = 0;
        for step in 0..10_000 {
            pass(&clock, -1, 100 + step % 1000);
            let stamp = stamps.next(0);
            assert!(stamp >= before);
            before = stamp;
        }
    }
}
