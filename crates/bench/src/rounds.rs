//! The measuring: every server in turn, several times.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Latencies, Plan, Popularity, Prefixes};

use crate::servers::{Asking, Kind, Server};
use crate::{Args, say};

/// One part in so many of a measurement is run before it, uncounted.
pub(crate) const WARM_UP_PARTS: u32 = 5;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Completions of prefixes as typed, one call each.
    Read,
    /// The same over one stream a connection, where there are streams.
    ReadStream,
    /// Records of one term each, as durable as the server makes them.
    Record,
}

impl Work {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadStream => "read, streams",
            Self::Record => "record",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) server: Kind,
    pub(crate) work: Work,
    pub(crate) connections: u16,
    pub(crate) latencies: Latencies,
    pub(crate) errors: u64,
    /// Of the server, in microseconds.
    pub(crate) cpu_us_per_request: f64,
}

/// Measures everything in every round.
pub(crate) async fn measure(
    runtime: &Runtime,
    servers: &mut [Server],
    terms: &Arc<Vec<String>>,
    arguments: &Args,
) -> Result<Vec<Sample>, anyhow::Error> {
    let mut works = vec![Work::Read, Work::ReadStream];
    works.extend((!arguments.no_records).then_some(Work::Record));
    let mut samples = Vec::new();
    for round in 1..=arguments.rounds {
        for work in &works {
            for connections in &arguments.connections {
                say(&format!(
                    "round {round} of {}: {} at {connections}",
                    arguments.rounds,
                    work.name()
                ));
                for server in &mut *servers {
                    if *work == Work::ReadStream && !server.has_streams() {
                        continue;
                    }
                    let name = server.kind.name();
                    let sample = one(runtime, server, terms, arguments, (*work, *connections));
                    samples.push(sample.await.with_context(|| format!("asking {name}"))?);
                }
            }
        }
    }
    Ok(samples)
}

async fn one(
    runtime: &Runtime,
    server: &mut Server,
    terms: &Arc<Vec<String>>,
    arguments: &Args,
    (work, connections): (Work, u16),
) -> Result<Sample, anyhow::Error> {
    let time = arguments.time;
    let plan = Plan {
        seed: arguments.seed,
        record_percent: if work == Work::Record { 100 } else { 0 },
        batch: 1,
        popularity: Popularity::Skewed,
        prefixes: Prefixes::Typed,
        warm_up: time / WARM_UP_PARTS,
        time,
    };
    let how = Asking {
        connections,
        k: arguments.k,
        stream: work == Work::ReadStream,
        plan,
    };
    let (measured, cpu) = server.ask(runtime, terms, how).await?;
    let latencies = match work {
        Work::Read | Work::ReadStream => measured.reads(time),
        Work::Record => measured.records(time),
    };
    let errors: u64 = measured.errors().values().sum();
    anyhow::ensure!(
        latencies.requests > 0,
        "no request was answered: {:?}",
        measured.errors()
    );
    Ok(Sample {
        server: server.kind,
        work,
        connections,
        cpu_us_per_request: cpu_per_request(cpu, time, latencies.requests),
        latencies,
        errors,
    })
}

/// The processor time of a request. The warm-up used some too; it ran at the same rate.
#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people, exact to 53 bits"
)]
pub(crate) fn cpu_per_request(cpu: Duration, time: Duration, requests: u64) -> f64 {
    let whole = time + time / WARM_UP_PARTS;
    let counted = cpu.as_secs_f64() * time.as_secs_f64() / whole.as_secs_f64().max(f64::EPSILON);
    counted * 1e6 / requests.max(1) as f64
}
