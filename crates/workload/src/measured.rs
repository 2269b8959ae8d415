//! What was measured.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A longer answer counts as this long: far above any deadline.
const LONGEST_MICROS: u64 = 60_000_000;

/// Latencies of answers, and how often there was none.
#[derive(Debug)]
pub struct Measured {
    reads: Histogram<u64>,
    records: Histogram<u64>,
    terms: u64,
    /// How long it took until there was no answer, by reason.
    failures: BTreeMap<String, Histogram<u64>>,
}

/// The latencies of one kind of request. Times are in microseconds, to three digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Requests that were answered; of failures, those that were not.
    pub requests: u64,
    /// How many that were a second.
    pub requests_per_second: u64,
    /// Half of the answers took at most this long.
    pub p50_us: u64,
    /// 99 of 100 did.
    pub p99_us: u64,
    /// 999 of 1,000 did.
    pub p999_us: u64,
    /// All did.
    pub max_us: u64,
}

impl Measured {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the histograms cannot be made, which their fixed bounds rule out.
    pub fn new() -> Result<Self, anyhow::Error> {
        Ok(Self {
            reads: histogram()?,
            records: histogram()?,
            terms: 0,
            failures: BTreeMap::new(),
        })
    }

    pub(crate) fn read(&mut self, time: Duration) {
        self.reads.saturating_record(micros(time));
    }

    pub(crate) fn record(&mut self, time: Duration, terms: u64) {
        self.records.saturating_record(micros(time));
        self.terms += terms;
    }

    pub(crate) fn error(&mut self, reason: &str, time: Duration) -> Result<(), anyhow::Error> {
        self.failed(reason)?.saturating_record(micros(time));
        Ok(())
    }

    fn failed(&mut self, reason: &str) -> Result<&mut Histogram<u64>, anyhow::Error> {
        match self.failures.entry(reason.to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(histogram()?)),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<(), anyhow::Error> {
        self.reads.add(&other.reads)?;
        self.records.add(&other.records)?;
        self.terms += other.terms;
        for (reason, times) in &other.failures {
            self.failed(reason)?.add(times)?;
        }
        Ok(())
    }

    /// Requests that were answered, of both kinds.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.reads.len() + self.records.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers() == 0 && self.failures.is_empty()
    }

    /// Terms that were recorded.
    #[must_use]
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// How often there was no answer, by reason. Of our servers the reasons are a closed set.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let failures = self.failures.iter();
        failures
            .map(|(reason, times)| (reason.clone(), times.len()))
            .collect()
    }

    /// The requests of both kinds that got no answer for this reason, over a time.
    #[must_use]
    pub fn failures(&self, reason: &str, time: Duration) -> Latencies {
        let failures = self.failures.get(reason);
        failures.map_or_else(Latencies::default, |failures| latencies(failures, time))
    }

    /// The answers to reads, over a time.
    #[must_use]
    pub fn reads(&self, time: Duration) -> Latencies {
        latencies(&self.reads, time)
    }

    /// The answers to records, over a time.
    #[must_use]
    pub fn records(&self, time: Duration) -> Latencies {
        latencies(&self.records, time)
    }
}

fn histogram() -> Result<Histogram<u64>, anyhow::Error> {
    Ok(Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?)
}

fn latencies(histogram: &Histogram<u64>, time: Duration) -> Latencies {
    Latencies {
        requests: histogram.len(),
        requests_per_second: per_second(histogram.len(), time),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// How many a second; the whole number when no time has passed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people, exact to 53 bits"
)]
#[must_use]
pub fn per_second(number: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return number;
    }
    (number as f64 / seconds).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rounded() {
        assert_eq!(per_second(10, Duration::from_secs(4)), 3);
        assert_eq!(per_second(10, Duration::ZERO), 10);
    }
}
