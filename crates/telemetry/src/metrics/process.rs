//! The process's own metrics, asked for when they are read.

use prometheus::core::{Collector as PrometheusCollector, Desc};
use prometheus::{Gauge, Opts};
use runtime::{Instant, Runtime};

use super::MetricsError;
use crate::process;

pub(super) struct Collector {
    runtime: Runtime,
    begun: Instant,
    memory: Gauge,
    files: Gauge,
    files_max: Gauge,
    cpu: Gauge,
    uptime: Gauge,
}

fn gauge(name: &str, help: &str) -> Result<Gauge, MetricsError> {
    Gauge::with_opts(Opts::new(name, help)).map_err(|error| MetricsError::Refused {
        name: name.to_owned(),
        problem: error.to_string(),
    })
}

impl Collector {
    pub(super) fn new(runtime: &Runtime) -> Result<Self, MetricsError> {
        Ok(Self {
            runtime: runtime.clone(),
            begun: runtime.now(),
            memory: gauge(
                "autocomplete_process_memory_bytes",
                "Resident memory of the process.",
            )?,
            files: gauge(
                "autocomplete_process_open_files",
                "Open file descriptors, sockets included.",
            )?,
            files_max: gauge(
                "autocomplete_process_open_files_max",
                "Most file descriptors the process may open.",
            )?,
            cpu: gauge(
                "autocomplete_process_cpu_seconds",
                "Processor time used since the start.",
            )?,
            uptime: gauge(
                "autocomplete_process_uptime_seconds",
                "Time since the start.",
            )?,
        })
    }

    fn gauges(&self) -> [&Gauge; 5] {
        [
            &self.memory,
            &self.files,
            &self.files_max,
            &self.cpu,
            &self.uptime,
        ]
    }
}

impl PrometheusCollector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges()
            .into_iter()
            .flat_map(PrometheusCollector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        let count = |number: Option<u64>| number.map(|number| number as f64);
        let read = [
            (&self.memory, count(process::resident_bytes())),
            (&self.files, count(process::open_files())),
            (&self.files_max, count(process::open_files_max())),
            (&self.cpu, process::cpu_seconds()),
            (
                &self.uptime,
                Some(
                    self.runtime
                        .now()
                        .saturating_since(self.begun)
                        .as_secs_f64(),
                ),
            ),
        ];
        // What is not known is left out rather than shown as 0.
        read.into_iter()
            .filter_map(|(gauge, value)| {
                gauge.set(value?);
                Some(gauge.collect())
            })
            .flatten()
            .collect()
    }
}
