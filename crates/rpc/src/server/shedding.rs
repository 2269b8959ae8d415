//! Load shedding: so many calls are in work at a time, and the others are refused, as soon as their message has come, and told when to come
//! back.
//!
//! A refusal costs a server nearly as much as an answer, and whoever is refused comes back. What always holds: callers who heed the advice
//! make few refusals beside the calls that are taken on ([`REFUSED_SHARE`]), however many they are, as the advice grows with them up to
//! [`ServerConfig::overload_delay_max`]. All callers get the same
//! advice: those who do not heed it take what refusing them costs, and have those who do wait longer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::ApiError;
use parking_lot::Mutex;
use runtime::{Instant, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::ServerConfig;

/// So many refusals for each call that is taken on are aimed at.
const REFUSED_SHARE: f64 = 0.05;
/// The advice changes by this factor at most in one window, so that a burst does not send everybody away for long.
const STEP: f64 = 2.0;
/// After so many windows without a refusal that ends one, overload begins anew.
const FORGOTTEN_WINDOWS: u32 = 4;

/// The limit of one lane of calls, and what it tells those who are above it.
pub(super) struct Shedding {
    calls_max: usize,
    permits: Semaphore,
    taken_on: AtomicU64,
    advice: Mutex<Advice>,
}

/// A window begins with a change of the delay and lasts until everybody who was told the new one can have come back. The refusal that is told
/// the new delay is its first: one that comes after a quiet window says nothing of that one.
struct Advice {
    bounds: (Duration, Duration),
    delay: Duration,
    since: Instant,
    /// Taken on before the window.
    taken_on: u64,
    refused: u64,
}

impl Shedding {
    pub(super) fn new(config: &ServerConfig, now: Instant) -> Self {
        Self {
            calls_max: config.calls_max,
            permits: Semaphore::new(config.calls_max),
            taken_on: AtomicU64::new(0),
            advice: Mutex::new(Advice {
                bounds: (config.overload_delay, config.overload_delay_max),
                delay: config.overload_delay,
                since: now,
                taken_on: 0,
                refused: 0,
            }),
        }
    }

    /// A place among the calls in work, for as long as it is held; or `OVERLOADED`.
    pub(super) fn admit(&self, runtime: &Runtime) -> Result<SemaphorePermit<'_>, ApiError> {
        if let Ok(permit) = self.permits.try_acquire() {
            self.taken_on.fetch_add(1, Ordering::Relaxed);
            return Ok(permit);
        }
        let taken_on = self.taken_on.load(Ordering::Relaxed);
        let delay = self.advice.lock().refuse(runtime.now(), taken_on);
        let refusal = ApiError::overloaded(
            format!(
                "the server has {} calls in work, which is its limit",
                self.calls_max
            ),
            delay + runtime.jitter(delay),
        );
        Err(refusal.for_write())
    }
}

impl Advice {
    /// Counts a refusal; the least delay that it advises.
    fn refuse(&mut self, now: Instant, taken_on: u64) -> Duration {
        let window = 2 * self.delay;
        let passed = now.saturating_since(self.since);
        if passed >= window {
            let (least, most) = self.bounds;
            let delay = if passed > FORGOTTEN_WINDOWS * window {
                least
            } else {
                self.delay.mul_f64(self.factor(taken_on))
            };
            self.delay = delay.max(least).min(most);
            self.since = now;
            self.taken_on = taken_on;
            self.refused = 0;
        }
        self.refused += 1;
        self.delay
    }

    /// So many callers come back in proportion to how soon they are told to.
    fn factor(&self, taken_on: u64) -> f64 {
        let taken_on = taken_on.saturating_sub(self.taken_on).max(1);
        #[expect(clippy::cast_precision_loss, reason = "numbers of calls in seconds")]
        let share = self.refused as f64 / taken_on as f64;
        (share / REFUSED_SHARE).clamp(1.0 / STEP, STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(2);

    fn shedding(runtime: &Runtime, calls_max: usize) -> Shedding {
        let config = ServerConfig {
            calls_max,
            overload_delay: LEAST,
            overload_delay_max: MOST,
            ..ServerConfig::default()
        };
        Shedding::new(&config, runtime.now())
    }

    fn delay_of(refusal: &ApiError) -> Duration {
        refusal.retry_after().unwrap()
    }

    /// Callers who heed the advice, and a server that answers one call each millisecond. What share of the last half was refused, and the
    /// last advice.
    async fn overload(callers: u32, seconds: u64) -> (f64, Duration) {
        let runtime = Runtime::real();
        let shedding = shedding(&runtime, 1);
        let mut next = vec![runtime.now(); callers as usize];
        let (mut taken_on, mut refused, mut last) = (0_u32, 0_u32, Duration::ZERO);
        for millis in 0..seconds * 1_000 {
            let now = runtime.now();
            let mut permit = None;
            for at in next.iter_mut().filter(|at| **at <= now) {
                let counts = u32::from(millis >= seconds * 500);
                match shedding.admit(&runtime) {
                    Ok(one) => {
                        taken_on += counts;
                        permit = Some(one);
                        *at = now + Duration::from_millis(1);
                    }
                    Err(refusal) => {
                        refused += counts;
                        last = delay_of(&refusal);
                        *at = now + last;
                    }
                }
            }
            runtime.sleep(Duration::from_millis(1)).await;
            drop(permit);
        }
        (f64::from(refused) / f64::from(taken_on), last)
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_callers_heed_the_advice_few_calls_are_refused() {
        for callers in [10, 30, 60] {
            let (share, delay) = overload(callers, 20).await;
            assert!((0.02..0.10).contains(&share), "{callers}: {share}");
            assert!(delay > 2 * LEAST || callers == 10, "{callers}: {delay:?}");
        }
        let (share, delay) = overload(1_000, 40).await;
        assert!(share < 0.5, "{share}");
        assert!((MOST..=2 * MOST).contains(&delay), "{delay:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_the_least_is_advised() {
        let runtime = Runtime::real();
        let shedding = shedding(&runtime, 1);
        let _in_work = shedding.admit(&runtime).unwrap();
        let mut last = Duration::ZERO;
        for _ in 0..50 {
            last = delay_of(&shedding.admit(&runtime).unwrap_err());
            runtime.sleep(LEAST).await;
        }
        assert!(last > 2 * LEAST, "{last:?}");
        runtime.sleep(10 * FORGOTTEN_WINDOWS * MOST).await;
        let first = delay_of(&shedding.admit(&runtime).unwrap_err());
        assert!((LEAST..=2 * LEAST).contains(&first), "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_refusal_advises_the_least_and_those_after_it_make_it_more() {
        let runtime = Runtime::real();
        let shedding = shedding(&runtime, 1);
        let _in_work = shedding.admit(&runtime).unwrap();
        let taken_on = shedding.taken_on.load(Ordering::Relaxed);
        let refuse = || shedding.advice.lock().refuse(runtime.now(), taken_on);
        runtime.sleep(3 * LEAST).await;
        assert_eq!(refuse(), LEAST, "the first ever");
        runtime.sleep(2 * LEAST).await;
        assert_eq!(refuse(), 2 * LEAST, "one was refused, and none taken on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_when_its_call_has_ended() {
        let runtime = Runtime::real();
        let shedding = shedding(&runtime, 2);
        let (first, _second) = (
            shedding.admit(&runtime).unwrap(),
            shedding.admit(&runtime).unwrap(),
        );
        let refusal = shedding.admit(&runtime).unwrap_err();
        assert!(refusal.message().contains("2 calls"), "{refusal}");
        drop(first);
        drop(shedding.admit(&runtime).unwrap());
    }
}
