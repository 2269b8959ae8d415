//! The measuring: every server in turn, several times.

use std::sync::Arc;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Latencies, Plan, per_second};

use crate::asking::Asking;
use crate::ours::Way;
use crate::servers::{Kind, Server};
use crate::{Args, say};

/// Terms of a request that records several.
pub(crate) const BATCH: u16 = 100;
/// Prefixes that are asked for at once where several are.
pub(crate) const QUESTIONS: u16 = 32;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Completions of prefixes as typed, one call each.
    Read,
    /// The same sent straight to the shard server, where a coordinator is a process of its own.
    ReadDirect,
    /// The same over one stream a connection, where there are streams.
    ReadStream,
    /// Completions of 32 prefixes at once, over one stream or in one pipeline. What is counted are prefixes.
    ReadBatch,
    /// Records of one term each, as durable as the server makes them.
    Record,
    /// Records of a hundred terms each, in one call or one pipeline. What is counted are terms.
    RecordBatch,
    /// The same as messages of one stream a connection, where there are streams.
    RecordStream,
}

impl Work {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadDirect => "read, direct",
            Self::ReadStream => "read, streams",
            Self::ReadBatch => "read, 32 at once",
            Self::Record => "record",
            Self::RecordBatch => "record, terms in batches",
            Self::RecordStream => "record, batches over streams",
        }
    }

    /// Whether a server has it.
    fn suits(self, server: Kind) -> bool {
        match self {
            Self::Read | Self::ReadBatch => true,
            Self::Record | Self::RecordBatch => server != Kind::Lucene,
            Self::ReadDirect => server == Kind::Replicated,
            Self::ReadStream | Self::RecordStream => {
                matches!(server, Kind::Ours | Kind::Baseline | Kind::Replicated)
            }
        }
    }

    fn way(self) -> Way {
        match self {
            Self::Read | Self::Record | Self::RecordBatch => Way::Routed,
            Self::ReadDirect => Way::Direct,
            Self::ReadStream | Self::ReadBatch | Self::RecordStream => Way::Stream,
        }
    }

    /// What is counted of a request.
    fn batch(self) -> u16 {
        match self {
            Self::Read | Self::ReadDirect | Self::ReadStream | Self::Record => 1,
            Self::ReadBatch => QUESTIONS,
            Self::RecordBatch | Self::RecordStream => BATCH,
        }
    }

    fn is_record(self) -> bool {
        matches!(self, Self::Record | Self::RecordBatch | Self::RecordStream)
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) server: Kind,
    pub(crate) work: Work,
    pub(crate) connections: u16,
    /// Requests, or terms of them, a second.
    pub(crate) per_second: u64,
    pub(crate) latencies: Latencies,
    pub(crate) errors: u64,
    /// Of the server, in microseconds, for what is counted.
    pub(crate) cpu_us_per_request: f64,
}

/// Measures everything in every round.
pub(crate) async fn measure(
    runtime: &Runtime,
    servers: &mut [Server],
    terms: &Arc<Vec<String>>,
    arguments: &Args,
) -> Result<Vec<Sample>, anyhow::Error> {
    let mut works = vec![
        Work::Read,
        Work::ReadDirect,
        Work::ReadStream,
        Work::ReadBatch,
    ];
    if !arguments.no_records {
        works.extend([Work::Record, Work::RecordBatch, Work::RecordStream]);
    }
    works.retain(|work| servers.iter().any(|server| work.suits(server.kind)));
    let mut samples = Vec::new();
    for round in 1..=arguments.rounds {
        for work in &works {
            for connections in &arguments.connections {
                say(&format!(
                    "round {round} of {}: {} at {connections}",
                    arguments.rounds,
                    work.name()
                ));
                let suited = servers.iter_mut().filter(|server| work.suits(server.kind));
                for server in suited {
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
    let usual = Asking::over(connections, arguments.time);
    let how = Asking {
        k: arguments.k,
        way: work.way(),
        plan: Plan {
            seed: arguments.seed,
            record_percent: if work.is_record() { 100 } else { 0 },
            batch: work.batch(),
            questions: work.batch(),
            ..usual.plan
        },
        ..usual
    };
    let answers = server.ask(runtime, terms, how).await?;
    let latencies = if work.is_record() {
        answers.records
    } else {
        answers.reads
    };
    let counted = latencies.requests * u64::from(work.batch());
    Ok(Sample {
        server: server.kind,
        work,
        connections,
        per_second: per_second(counted, arguments.time),
        cpu_us_per_request: answers.cpu_us / f64::from(work.batch()),
        latencies,
        errors: answers.errors,
    })
}
