//! The registry, and the metrics that users of such a system look for.
//!
//! Four names are fixed: `shard_recovery_attempts_total`, `shard_recovery_duration_seconds`, `trie_operations_total` and
//! `grpc_latency_seconds`. Every other is `autocomplete_<part>_<noun>_<unit>` and made through a [`Part`]. Asking for a
//! family that exists returns it, so that several nodes in one process share it; they tell themselves apart by a label.

mod error;
mod family;
mod part;
mod process;
mod recovery;
mod registry;
mod rpc;

use std::time::Duration;

pub use error::MetricsError;
pub use family::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, SERIES_MAX,
};
pub use part::Part;
pub use recovery::RecoveryMetrics;
use registry::Registry;

/// Upper bounds for latencies, in seconds: from what a cached list takes to the longest deadline.
#[must_use]
pub fn latency_buckets() -> Vec<f64> {
    vec![
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
        0.5, 1.0, 2.5, 5.0, 10.0,
    ]
}

/// The metrics of a process; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    rpc: rpc::RpcMetrics,
    trie_operations: CounterFamily<2>,
}

impl Metrics {
    /// A registry with the fixed names and the process's own metrics.
    ///
    /// # Errors
    /// Never in practice: only when the names compiled in here were no names.
    pub fn new(runtime: &runtime::Runtime) -> Result<Self, MetricsError> {
        let registry = Registry::default();
        registry.collect(Box::new(process::Collector::new(runtime)?))?;
        Ok(Self {
            rpc: rpc::RpcMetrics::new(&registry)?,
            trie_operations: registry.counter(
                "trie_operations_total",
                "Operations on a shard's dictionary.",
                ["operation", "shard_key"],
            )?,
            registry,
        })
    }

    /// A namespace for the metrics of one part of the program: `part("wal").counter("appended_bytes_total", ..)` is
    /// `autocomplete_wal_appended_bytes_total`.
    ///
    /// # Errors
    /// When `name` is not `[a-z][a-z0-9_]*`.
    pub fn part(&self, name: &str) -> Result<Part, MetricsError> {
        Part::new(self.registry.clone(), name)
    }

    /// Counts a unary call in `grpc_latency_seconds{method}` and `autocomplete_rpc_calls_total`; `code` is the name of
    /// its gRPC status. Also for a message of a stream, where a handler times each.
    pub fn rpc_ended(&self, method: &str, code: &str, took: Duration) {
        self.rpc.ended(method, code, Some(took));
    }

    /// Counts a streaming call, whose length says nothing of latency, in `autocomplete_rpc_calls_total` alone.
    pub fn rpc_stream_ended(&self, method: &str, code: &str) {
        self.rpc.ended(method, code, None);
    }

    /// `trie_operations_total` of one operation (`record`, `top_k`, `count`, `delete`, `list`, `clear`) on one
    /// shard. Keep the handle: asking for it costs more than adding to it.
    #[must_use]
    pub fn trie_operations(&self, operation: &str, shard_key: &str) -> Counter {
        self.trie_operations.with([operation, shard_key])
    }

    /// `shard_recovery_attempts_total{shard_key}` and `shard_recovery_duration_seconds{shard_key}`.
    ///
    /// # Errors
    /// Never in practice, as [`Metrics::new`].
    pub fn recovery(&self) -> Result<RecoveryMetrics, MetricsError> {
        RecoveryMetrics::new(&self.registry)
    }

    /// Everything in the text format of Prometheus.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a mistake in a collector.
    pub fn encode(&self) -> Result<String, MetricsError> {
        self.registry.encode()
    }
}

#[cfg(test)]
mod tests;
