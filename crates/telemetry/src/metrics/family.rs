//! Families of metrics: a name, its labels, and a bounded number of series.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

/// Most series of one family. Room for each of the largest number of shards under a few operations; callers beyond it
/// share the series whose labels are all `other`.
pub const SERIES_MAX: usize = 8_192;

const OTHER: &str = "other";

/// Goes up.
#[derive(Debug, Clone)]
pub struct Counter(prometheus::IntCounter);

impl Counter {
    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.inc_by(number);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.inc();
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// Goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(prometheus::Gauge);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Sets it to a whole number; above 2^53 to the nearest that a double can hold.
    pub fn set_count(&self, value: u64) {
        self.0.set(value as f64);
    }

    /// Adds to it, or takes away.
    pub fn add(&self, difference: f64) {
        self.0.add(difference);
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.0.get()
    }
}

/// Counts values by size.
#[derive(Debug, Clone)]
pub struct Histogram(prometheus::Histogram);

impl Histogram {
    /// Counts a value, in the unit of the metric's name.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// How many values it has counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.0.get_sample_sum()
    }
}

/// What the library calls a vector: metrics of one name by the values of their labels.
pub(super) trait Vector {
    type Metric: Clone;
    fn series(&self, labels: &[&str]) -> Self::Metric;
    fn forget(&self, labels: &[&str]);
}

macro_rules! vector {
    ($vector:ty, $metric:ty) => {
        impl Vector for $vector {
            type Metric = $metric;

            fn series(&self, labels: &[&str]) -> $metric {
                self.with_label_values(labels)
            }

            fn forget(&self, labels: &[&str]) {
                // Fails only for a series that is not there.
                let _gone = self.remove_label_values(labels);
            }
        }
    };
}

vector!(prometheus::IntCounterVec, prometheus::IntCounter);
vector!(prometheus::GaugeVec, prometheus::Gauge);
vector!(prometheus::HistogramVec, prometheus::Histogram);

/// The series of a family that were asked for, by their labels.
type Seen<M, const N: usize> = HashMap<[Box<str>; N], M>;

/// A family of one kind, with a bound on its series. `N` is the number of its labels.
pub(super) struct Bounded<V: Vector, const N: usize> {
    vector: V,
    seen: Arc<RwLock<Seen<V::Metric, N>>>,
}

impl<V: Vector + Clone, const N: usize> Clone for Bounded<V, N> {
    fn clone(&self) -> Self {
        Self {
            vector: self.vector.clone(),
            seen: Arc::clone(&self.seen),
        }
    }
}

impl<V: Vector, const N: usize> fmt::Debug for Bounded<V, N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bounded")
            .field("series", &self.seen.read().len())
            .finish_non_exhaustive()
    }
}

impl<V: Vector, const N: usize> Bounded<V, N> {
    pub(super) fn new(vector: V) -> Self {
        Self {
            vector,
            seen: Arc::default(),
        }
    }

    fn with(&self, labels: [&str; N]) -> V::Metric {
        let mut key = labels.map(Box::from);
        if let Some(found) = self.seen.read().get(&key) {
            return found.clone();
        }
        let mut seen = self.seen.write();
        if seen.len() >= SERIES_MAX && !seen.contains_key(&key) {
            key = [OTHER; N].map(Box::from);
        }
        let values: Vec<&str> = key.iter().map(AsRef::as_ref).collect();
        let metric = self.vector.series(&values);
        seen.insert(key, metric.clone());
        metric
    }

    fn remove(&self, labels: [&str; N]) {
        let mut seen = self.seen.write();
        if seen.remove(&labels.map(Box::from)).is_some() {
            self.vector.forget(&labels);
        }
    }
}

macro_rules! family {
    ($(#[$doc:meta])* $family:ident, $metric:ident, $vector:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $family<const N: usize>(pub(super) Bounded<$vector, N>);

        impl<const N: usize> $family<N> {
            /// The series of these label values. Costs a look-up and a copy of the values: keep the handle where it
            /// is used often.
            #[must_use]
            pub fn with(&self, labels: [&str; N]) -> $metric {
                $metric(self.0.with(labels))
            }

            /// Forgets a series, as of a shard that is no longer hosted here.
            pub fn remove(&self, labels: [&str; N]) {
                self.0.remove(labels);
            }
        }
    };
}

family! {
    /// Counters that differ in their labels.
    CounterFamily, Counter, prometheus::IntCounterVec
}
family! {
    /// Gauges that differ in their labels.
    GaugeFamily, Gauge, prometheus::GaugeVec
}
family! {
    /// Histograms that differ in their labels.
    HistogramFamily, Histogram, prometheus::HistogramVec
}
