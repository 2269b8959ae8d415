//! When a read is worth a second request, and how many may be. No clock and no randomness: times are handed in.
//!
//! A hedge is a second request for the same read, to another replica, while the first is still on its way. What always holds: of `n`
//! reads that may be hedged at most [`BURST`] plus the configured percentage of `n` are, whatever the replicas do, so that hedges
//! cannot overload replicas that are slow because they have too much to do.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use telemetry::{Counter, Metrics, MetricsError};

use super::TRY_MIN;

/// Hedges that may be sent at once after a quiet time.
const BURST: u32 = 10;
/// Of what is left until the deadline a first replica has one part in so many for itself.
const WAIT_PARTS: u32 = 4;
/// No answer is called slow before this.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// As long as a silent replica may be waited for before another is asked anyway.
const WAIT_MAX: Duration = TRY_MIN;
/// What answers are taken to need before any was seen.
const WAIT_FIRST: Duration = Duration::from_millis(20);

/// Reads whose answers take alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    TopK,
    Count,
}

/// What the reads of one coordinator share.
#[derive(Debug)]
pub(crate) struct Hedges {
    /// `None` where no read is hedged.
    budget: Option<Budget>,
    top_k: Pace,
    count: Pace,
    pub(super) sent: Counter,
    pub(super) won: Counter,
    withheld: Counter,
}

impl Hedges {
    /// Of a hundred reads `percent` may be hedged; none where it is 0.
    ///
    /// # Errors
    /// Never in practice: when the names of its metrics are taken by others.
    pub(crate) fn new(metrics: &Metrics, percent: u32) -> Result<Self, MetricsError> {
        let part = metrics.part("coordinator")?;
        Ok(Self {
            budget: (percent > 0).then(|| Budget::new(percent)),
            top_k: Pace::default(),
            count: Pace::default(),
            sent: part.counter(
                "hedges_sent_total",
                "STALE reads that were sent to a second replica because the first was slow.",
            )?,
            won: part.counter(
                "hedges_won_total",
                "STALE reads that a second replica answered before the first.",
            )?,
            withheld: part.counter(
                "hedges_withheld_total",
                "STALE reads that were slow and not sent to a second replica because too many others were.",
            )?,
        })
    }

    /// A read that may be hedged begins: how long its first replica has for itself. `None` where no read is hedged.
    pub(super) fn begin(&self, read: Read, left: Duration) -> Option<Duration> {
        self.budget.as_ref()?.feed();
        Some(self.pace(read).wait(left))
    }

    /// The right to send one hedge.
    pub(super) fn take(&self) -> bool {
        let may = self.budget.as_ref().is_some_and(Budget::take);
        if may {
            self.sent.increment();
        } else {
            self.withheld.increment();
        }
        may
    }

    pub(super) fn pace(&self, read: Read) -> &Pace {
        match read {
            Read::TopK => &self.top_k,
            Read::Count => &self.count,
        }
    }
}

/// Tokens for hedges, in hundredths: each read that is sent puts some in, each hedge takes a hundred out.
#[derive(Debug)]
struct Budget {
    percent: u32,
    hundredths: AtomicU32,
}

const TOKEN: u32 = 100;
const FULL: u32 = BURST * TOKEN;

impl Budget {
    fn new(percent: u32) -> Self {
        Self {
            percent,
            hundredths: AtomicU32::new(FULL),
        }
    }

    fn feed(&self) {
        let more = |has: u32| (has < FULL).then(|| FULL.min(has.saturating_add(self.percent)));
        // A full one stays as it is.
        let _ = self
            .hundredths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn take(&self) -> bool {
        let less = |has: u32| has.checked_sub(TOKEN);
        let taken = self
            .hundredths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }
}

/// The time within which nineteen of twenty first replicas answer, about.
///
/// One number that every answer moves: a slow one up by [`UP`] parts of [`STEPS`], any other down by one part. It rests where one answer in
/// twenty is slow, since 19 small steps down undo one up. Of two updates at the same moment one may be lost.
///
/// A replica that a hedge overtook counts as slow, one that failed not at all.
#[derive(Debug)]
pub(super) struct Pace(AtomicU64);

const STEPS: u64 = 128;
const UP: u64 = 20;

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU64::new(nanos(WAIT_FIRST)))
    }
}

impl Pace {
    /// A first replica answered, after `took`.
    pub(super) fn answered(&self, took: Duration) {
        let now = self.0.load(Ordering::Relaxed);
        self.set(if nanos(took) > now {
            now + now / STEPS * UP
        } else {
            now - now / STEPS
        });
    }

    /// A first replica did not answer within `waited`, and another did.
    pub(super) fn overtaken(&self, waited: Duration) {
        let now = self.0.load(Ordering::Relaxed);
        // Where the deadline had it waited for less, nobody knows what it would have taken.
        if nanos(waited) >= now {
            self.set(now + now / STEPS * UP);
        }
    }

    fn set(&self, to: u64) {
        let to = to.clamp(nanos(WAIT_MIN), nanos(WAIT_MAX));
        self.0.store(to, Ordering::Relaxed);
    }

    /// How long a first replica has for itself when `left` is left of the time for the whole request.
    fn wait(&self, left: Duration) -> Duration {
        let usual = Duration::from_nanos(self.0.load(Ordering::Relaxed));
        usual.min(left / WAIT_PARTS).max(WAIT_MIN)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runtime::{Random as _, SeededRandom};

    use super::*;

    const AMPLE: Duration = Duration::from_secs(10);

    proptest! {
        #[test]
        fn hedges_are_never_more_than_the_burst_and_the_share(
            percent in 1u32..=100,
            reads in proptest::collection::vec((1u32..200, 0u32..200), 0..60),
        ) {
            let budget = Budget::new(percent);
            let (mut begun, mut sent) = (0_u64, 0_u64);
            for (begin, want) in reads {
                for _ in 0..begin {
                    budget.feed();
                    begun += 1;
                }
                sent += (0..want).map(|_| u64::from(budget.take())).sum::<u64>();
                prop_assert!(sent * 100 <= u64::from(BURST) * 100 + begun * u64::from(percent));
            }
        }
    }

    #[test]
    fn the_share_is_not_less_than_what_was_asked_for_either() {
        let budget = Budget::new(5);
        assert_eq!((0..50).filter(|_| budget.take()).count(), 10);
        let sent = (0..1_000).filter(|_| {
            budget.feed();
            budget.take()
        });
        assert_eq!(sent.count(), 50);
        (0..100_000).for_each(|_| budget.feed());
        assert_eq!((0..50).filter(|_| budget.take()).count(), 10);
    }

    #[test]
    fn nothing_is_hedged_at_zero_percent_and_what_is_withheld_is_counted() {
        let metrics = Metrics::new(&runtime::Runtime::real()).unwrap();
        let hedges = Hedges::new(&metrics, 0).unwrap();
        assert_eq!(hedges.begin(Read::TopK, AMPLE), None);
        assert!(!hedges.take());
        let hedges = Hedges::new(&metrics, 5).unwrap();
        assert_eq!(hedges.begin(Read::Count, AMPLE), Some(WAIT_FIRST));
        let sent = (0..15).filter(|_| hedges.take()).count();
        assert_eq!((sent, hedges.sent.value()), (10, 10));
        assert_eq!(hedges.withheld.value(), 1 + 5);
    }

    /// Where the pace comes to rest, and the part of the answers that were slower than it was.
    fn settled(pace: &Pace, takes: impl Fn(u64) -> u64) -> (Duration, f64) {
        let random = SeededRandom::new(7);
        let mut slow = 0_u32;
        for round in 0..40_000 {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            let took = Duration::from_micros(takes(u64::from_le_bytes(bytes) % 1_000));
            slow += u32::from(round >= 20_000 && took > pace.wait(AMPLE));
            pace.answered(took);
        }
        (pace.wait(AMPLE), f64::from(slow) / 20_000.0)
    }

    #[test]
    fn it_rests_where_one_answer_in_twenty_is_slow_and_follows_when_they_change() {
        let pace = Pace::default();
        // Evenly from 2 to 12 ms, then ten times as long, then as before.
        for times in [1_u32, 10, 1] {
            let takes = |draw: u64| u64::from(times) * (2_000 + draw * 10);
            let (wait, slow) = settled(&pace, takes);
            assert!((0.04..0.06).contains(&slow), "{slow}");
            let usual = Duration::from_millis(9)..Duration::from_millis(15);
            assert!(usual.contains(&(wait / times)), "{wait:?}");
        }
    }

    #[test]
    fn a_wait_is_neither_next_to_nothing_nor_most_of_the_time() {
        let pace = Pace::default();
        (0..5_000).for_each(|_| pace.answered(Duration::from_micros(30)));
        assert_eq!(pace.wait(AMPLE), WAIT_MIN);
        (0..500).for_each(|_| pace.answered(Duration::from_secs(30)));
        assert_eq!(pace.wait(AMPLE), WAIT_MAX);
        assert_eq!(
            pace.wait(Duration::from_millis(200)),
            Duration::from_millis(50)
        );
    }

    #[test]
    fn who_was_overtaken_was_slow_unless_time_was_short() {
        let pace = Pace::default();
        pace.overtaken(Duration::from_millis(5));
        assert_eq!(pace.wait(AMPLE), WAIT_FIRST);
        pace.overtaken(WAIT_FIRST);
        assert!(pace.wait(AMPLE) > WAIT_FIRST);
    }
}
