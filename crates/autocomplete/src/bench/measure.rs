//! What was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A longer answer counts as this long: far above any deadline.
const LONGEST_MICROS: u64 = 60_000_000;

/// Latencies of answers, and how often there was none.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) reads: Histogram<u64>,
    pub(super) records: Histogram<u64>,
    pub(super) terms: u64,
    /// By reason; the reasons are a closed set.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Measured {
    pub(super) fn new() -> Result<Self, anyhow::Error> {
        Ok(Self {
            reads: Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?,
            records: Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?,
            terms: 0,
            errors: BTreeMap::new(),
        })
    }

    pub(super) fn read(&mut self, time: Duration) {
        self.reads.saturating_record(micros(time));
    }

    pub(super) fn record(&mut self, time: Duration, terms: u64) {
        self.records.saturating_record(micros(time));
        self.terms += terms;
    }

    pub(super) fn error(&mut self, reason: &str) {
        *self.errors.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), anyhow::Error> {
        self.reads.add(&other.reads)?;
        self.records.add(&other.records)?;
        self.terms += other.terms;
        for (reason, number) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += number;
        }
        Ok(())
    }

    pub(super) fn answers(&self) -> u64 {
        self.reads.len() + self.records.len()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
