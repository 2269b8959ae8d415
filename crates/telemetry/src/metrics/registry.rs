//! Families by name.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, Opts};

use super::MetricsError;
use super::family::{Bounded, CounterFamily, GaugeFamily, HistogramFamily};

/// Families by name; clones share them.
#[derive(Clone, Default)]
pub(super) struct Registry {
    inner: prometheus::Registry,
    families: Arc<Mutex<HashMap<String, Family>>>,
}

struct Family {
    kind: &'static str,
    labels: Vec<&'static str>,
    handle: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("families", &self.families.lock().len())
            .finish_non_exhaustive()
    }
}

fn refused(name: &str) -> impl FnOnce(prometheus::Error) -> MetricsError + '_ {
    move |error| MetricsError::Refused {
        name: name.to_owned(),
        problem: error.to_string(),
    }
}

impl Registry {
    pub(super) fn collect(&self, collector: Box<dyn Collector>) -> Result<(), MetricsError> {
        self.inner
            .register(collector)
            .map_err(refused("a collector"))
    }

    pub(super) fn counter<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Result<CounterFamily<N>, MetricsError> {
        self.find_or_make("counter", name, labels, || {
            let made = prometheus::IntCounterVec::new(Opts::new(name, help), &labels)?;
            self.inner.register(Box::new(made.clone()))?;
            Ok(CounterFamily(Bounded::new(made)))
        })
    }

    pub(super) fn gauge<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Result<GaugeFamily<N>, MetricsError> {
        self.find_or_make("gauge", name, labels, || {
            let made = prometheus::GaugeVec::new(Opts::new(name, help), &labels)?;
            self.inner.register(Box::new(made.clone()))?;
            Ok(GaugeFamily(Bounded::new(made)))
        })
    }

    pub(super) fn histogram<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        buckets: Vec<f64>,
    ) -> Result<HistogramFamily<N>, MetricsError> {
        self.find_or_make("histogram", name, labels, || {
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let made = prometheus::HistogramVec::new(options, &labels)?;
            self.inner.register(Box::new(made.clone()))?;
            Ok(HistogramFamily(Bounded::new(made)))
        })
    }

    fn find_or_make<F: Clone + Send + Sync + 'static, const N: usize>(
        &self,
        kind: &'static str,
        name: &str,
        labels: [&'static str; N],
        make: impl FnOnce() -> Result<F, prometheus::Error>,
    ) -> Result<F, MetricsError> {
        let mut families = self.families.lock();
        if let Some(family) = families.get(name) {
            return family
                .handle
                .downcast_ref::<F>()
                .filter(|_| family.labels == labels)
                .cloned()
                .ok_or_else(|| MetricsError::Mismatch {
                    name: name.to_owned(),
                    exists: family.kind,
                });
        }
        let made = make().map_err(refused(name))?;
        let family = Family {
            kind,
            labels: labels.to_vec(),
            handle: Box::new(made.clone()),
        };
        families.insert(name.to_owned(), family);
        Ok(made)
    }

    pub(super) fn encode(&self) -> Result<String, MetricsError> {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.inner.gather())
            .map_err(refused("the registry"))
    }
}
