//! Logging, the metrics registry and the admin HTTP endpoint.
//!
//! - [`logging`]: one line an event on standard error, as text or JSON.
//! - [`Metrics`]: a registry that `main` makes and hands down. There is no global one, so tests and the nodes of a cluster
//!   in one process do not mix.
//! - [`Recent`]: the last of what was done, for a status.
//! - [`process`]: what the operating system says of this process.
//! - [`admin`]: `/metrics`, `/healthz` and `/readyz`.
//!
//! What always holds: labels never hold terms or prefixes, and every family of metrics has a bound on its series; beyond
//! it the labels become `other`, so that no caller can fill the memory by making names up. This crate is the
//! only one that knows Prometheus, and knows neither gRPC nor shards.

pub mod admin;
pub mod logging;
mod metrics;
pub mod process;
mod recent;

pub use metrics::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, Metrics, MetricsError,
    Part, RecoveryMetrics, SERIES_MAX, latency_buckets,
};
pub use recent::Recent;
