//! What is counted of the recoveries of shards: by watchdogs, which bring processes back, and by coordinators, which have lost replicas
//! built anew and shards begun anew.

use std::time::Duration;

use super::registry::Registry;
use super::{CounterFamily, HistogramFamily, MetricsError};

/// Recoveries of shards, by the shard's first term in the template.
#[derive(Debug, Clone)]
pub struct RecoveryMetrics {
    attempts: CounterFamily<1>,
    duration: HistogramFamily<1>,
}

impl RecoveryMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            attempts: registry.counter(
                "shard_recovery_attempts_total",
                "Recoveries of a shard that were begun.",
                ["shard_key"],
            )?,
            duration: registry.histogram(
                "shard_recovery_duration_seconds",
                "Time from the beginning of a recovery until the shard served again, or was whole again.",
                ["shard_key"],
                vec![
                    0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0,
                ],
            )?,
        })
    }

    /// Makes a shard's series appear with 0, so that the first recovery shows as a change.
    pub fn announce(&self, shard_key: &str) {
        self.attempts.with([shard_key]).add(0);
        drop(self.duration.with([shard_key]));
    }

    /// A recovery begins.
    pub fn begun(&self, shard_key: &str) {
        self.attempts.with([shard_key]).increment();
    }

    /// A recovery has ended: the shard serves again, or is whole.
    pub fn ended(&self, shard_key: &str, took: Duration) {
        self.duration.with([shard_key]).observe(took.as_secs_f64());
    }

    /// How many recoveries of a shard were begun.
    #[must_use]
    pub fn attempts(&self, shard_key: &str) -> u64 {
        self.attempts.with([shard_key]).value()
    }
}
