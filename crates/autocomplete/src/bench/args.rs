//! The arguments of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use cluster::limits;
use term::NamespaceName;

use crate::target::{TargetArgs, duration};

/// Measures a cluster: requests a second and the latencies that clients see.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to send
    #[arg(value_enum)]
    pub(super) workload: Workload,

    /// Connections to the coordinator
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) connections: u16,

    /// Requests in flight over all connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) in_flight: u16,

    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) time: Duration,

    /// How long to run before that
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,

    /// A file of terms to record and to take prefixes of, as for `load`; at most a million are used
    #[arg(long, value_name = "FILE", conflicts_with = "generated")]
    pub(super) terms: Option<PathBuf>,

    /// Make up this many terms. Without this and --terms, top-k uses what the namespace holds and the others 100,000
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) generated: Option<u32>,

    /// Suggestions to ask for
    #[arg(short, default_value_t = limits::K_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::K_MAX)))]
    pub(super) k: u32,

    /// Terms in a request that records
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) batch: u16,

    /// Of mixed: how many of a hundred requests record
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) record_percent: u8,

    /// Send over streams, one for each request in flight
    #[arg(long)]
    pub(super) stream: bool,

    /// Where the made-up choices begin; the same seed sends the same requests
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// The dictionary to use [default: bench, and for top-k default]
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<NamespaceName>,

    #[command(flatten)]
    pub(super) target: TargetArgs,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Completions of prefixes, as while typing
    TopK,
    /// Records
    Record,
    /// Both
    Mixed,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TopK => "top-k",
            Self::Record => "record",
            Self::Mixed => "mixed",
        }
    }
}

impl BenchArgs {
    pub(super) fn namespace(&self) -> String {
        let default = match self.workload {
            Workload::TopK => term::DEFAULT_NAMESPACE,
            Workload::Record | Workload::Mixed => "bench",
        };
        self.namespace
            .as_ref()
            .map_or_else(|| default.to_owned(), ToString::to_string)
    }

    /// How many of a hundred requests record.
    pub(super) fn record_percent(&self) -> u64 {
        match self.workload {
            Workload::TopK => 0,
            Workload::Record => 100,
            Workload::Mixed => u64::from(self.record_percent),
        }
    }
}
