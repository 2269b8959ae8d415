//! The metrics of one part of the program.

use super::registry::Registry;
use super::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, MetricsError,
    latency_buckets,
};

/// The metrics of one part of the program, all named `autocomplete_<part>_<noun>_<unit>`. Names are given as
/// `<noun>_<unit>`; counters end in `_total`.
#[derive(Debug, Clone)]
pub struct Part {
    registry: Registry,
    name: String,
}

/// Lower-case letters, digits and single underscores between them, a letter first.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('_').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

impl Part {
    pub(super) fn new(registry: Registry, name: &str) -> Result<Self, MetricsError> {
        if !is_name(name) {
            return Err(MetricsError::Name {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            registry,
            name: name.to_owned(),
        })
    }

    fn full(&self, noun_and_unit: &str) -> Result<String, MetricsError> {
        if !is_name(noun_and_unit) {
            return Err(MetricsError::Name {
                name: noun_and_unit.to_owned(),
            });
        }
        Ok(format!("autocomplete_{}_{noun_and_unit}", self.name))
    }

    /// A counter without labels.
    ///
    /// # Errors
    /// For a bad name, or one that is taken by another kind.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, MetricsError> {
        Ok(self.counters(name, help, [])?.with([]))
    }

    /// Counters with labels.
    ///
    /// # Errors
    /// For a bad name, or one that is taken by another kind or with other labels.
    pub fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Result<CounterFamily<N>, MetricsError> {
        self.registry.counter(&self.full(name)?, help, labels)
    }

    /// A gauge without labels.
    ///
    /// # Errors
    /// For a bad name, or one that is taken by another kind.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        Ok(self.gauges(name, help, [])?.with([]))
    }

    /// Gauges with labels.
    ///
    /// # Errors
    /// For a bad name, or one that is taken by another kind or with other labels.
    pub fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Result<GaugeFamily<N>, MetricsError> {
        self.registry.gauge(&self.full(name)?, help, labels)
    }

    /// A histogram of seconds without labels, with [`latency_buckets`].
    ///
    /// # Errors
    /// For a bad name, or one that is taken by another kind.
    pub fn latency(&self, name: &str, help: &str) -> Result<Histogram, MetricsError> {
        Ok(self.histograms(name, help, [], latency_buckets())?.with([]))
    }

    /// Histograms with labels; `buckets` are ascending upper bounds.
    ///
    /// # Errors
    /// For a bad name, buckets that do not ascend, or a name that is taken by another kind or with other labels.
    pub fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        buckets: Vec<f64>,
    ) -> Result<HistogramFamily<N>, MetricsError> {
        self.registry
            .histogram(&self.full(name)?, help, labels, buckets)
    }
}
