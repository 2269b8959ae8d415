//! Calls, by method and by how they ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::registry::Registry;
use super::{Counter, CounterFamily, Histogram, HistogramFamily, MetricsError, SERIES_MAX};

/// There are seventeen status codes.
const CODES_MAX: usize = 17;

/// What is counted of every call. Series that were used before are found without copying their labels, because this is
/// on the path of every call.
#[derive(Debug, Clone)]
pub(super) struct RpcMetrics {
    latency: HistogramFamily<1>,
    calls: CounterFamily<2>,
    used: Arc<RwLock<HashMap<Box<str>, Used>>>,
}

/// The series of one method that were used before.
#[derive(Debug, Default)]
struct Used {
    latency: Option<Histogram>,
    calls: Vec<(Box<str>, Counter)>,
}

impl Used {
    fn calls(&self, code: &str) -> Option<&Counter> {
        self.calls
            .iter()
            .find(|(known, _)| &**known == code)
            .map(|(_, counter)| counter)
    }
}

impl RpcMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            latency: registry.histogram(
                "grpc_latency_seconds",
                "Time from the headers of a unary call to the end of its answer.",
                ["method"],
                super::latency_buckets(),
            )?,
            calls: registry.counter(
                "autocomplete_rpc_calls_total",
                "Calls that ended, by method and gRPC status code.",
                ["method", "code"],
            )?,
            used: Arc::default(),
        })
    }

    /// Counts a call, and its latency where it has one.
    pub(super) fn ended(&self, method: &str, code: &str, took: Option<Duration>) {
        if !self.count_used(method, code, took) {
            self.use_first(method, code, took);
        }
    }

    /// Counts the call if all series that it needs were used before; says whether they were.
    fn count_used(&self, method: &str, code: &str, took: Option<Duration>) -> bool {
        let used = self.used.read();
        let Some(series) = used.get(method) else {
            return false;
        };
        let Some(calls) = series.calls(code) else {
            return false;
        };
        match (took, &series.latency) {
            (Some(took), Some(latency)) => latency.observe(took.as_secs_f64()),
            (Some(_), None) => return false,
            (None, _) => {}
        }
        calls.increment();
        true
    }

    fn use_first(&self, method: &str, code: &str, took: Option<Duration>) {
        let calls = self.calls.with([method, code]);
        calls.increment();
        let latency = took.map(|took| {
            let latency = self.latency.with([method]);
            latency.observe(took.as_secs_f64());
            latency
        });
        let mut used = self.used.write();
        // Names come from a server's own table, but the bound does not depend on that.
        if used.len() >= SERIES_MAX && !used.contains_key(method) {
            return;
        }
        let series = used.entry(method.into()).or_default();
        if latency.is_some() {
            series.latency = latency;
        }
        if series.calls(code).is_none() && series.calls.len() < CODES_MAX {
            series.calls.push((code.into(), calls));
        }
    }
}
