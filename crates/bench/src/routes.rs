//! What the way of a completion costs: the hop from a coordinator to the server of a shard, and the merge of what all shards answer.
//!
//! A coordinator and a server for each of three shards, with one replica of each, are processes of their own. The same prefixes of three
//! bytes are asked for straight at the server of their shard and through the coordinator: the difference is the hop. The few that lie
//! in two shards go through the coordinator either way.
//!
//! The empty prefix is asked for through the coordinator only, for nobody else has an answer: it asks all shards at once, waits for the
//! slowest and merges what they say. Compared with prefixes of three bytes through the coordinator, which nearly always one shard answers, it
//! costs two further searches, four further messages and the merge, all of them on the processors of one machine. Where the shards have
//! processors of their own, what is left is the wait for the slowest. The prefix itself is hardly what costs: no list is longer than
//! those that shards keep ready for short prefixes.
//!
//! What always holds: the three ways are asked in turn, so that a busy minute of the machine falls on all of them.
//!
//! On failure: the first that is not answered ends the run with an error that names it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Plan, Prefixes};

use crate::asking::{Answers, Asking};
use crate::cluster::{Cluster, Load};
use crate::figures::{Figures, grouped, millis, ratio, table};
use crate::machine::{Circumstances, Machine};
use crate::ours::{Form, Shape, Way};
use crate::{publish, say};

/// One of them on each server.
const SHARDS: u16 = 3;
const SERVERS: u8 = 3;
/// Bytes of the prefixes that one shard answers.
const PREFIX_BYTES: u8 = 3;

/// Measures what the hop to a shard and the merge of all shards add to a completion.
#[derive(Debug, Clone, clap::Args)]
pub struct RoutesArgs {
    /// Made-up terms to load
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    terms: u32,

    /// Numbers of connections, each with one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64], value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,

    /// How often everything is measured; medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// How long each measurement takes, after a fifth of that to warm up
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// A folder for routes.md and routes.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// How a completion gets to where it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Route {
    /// Straight to the server of the shard.
    Direct,
    /// Through the coordinator, to the server of the shard.
    Routed,
    /// Through the coordinator, to the servers of all shards.
    Merged,
}

impl Route {
    const ALL: [Self; 3] = [Self::Direct, Self::Routed, Self::Merged];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "3 bytes, straight to the shard",
            Self::Routed => "3 bytes, through the coordinator",
            Self::Merged => "empty, through the coordinator",
        }
    }

    fn asking(self, connections: u16, time: Duration) -> Asking {
        let (way, bytes) = match self {
            Self::Direct => (Way::Direct, PREFIX_BYTES),
            Self::Routed => (Way::Routed, PREFIX_BYTES),
            Self::Merged => (Way::Routed, 0),
        };
        let usual = Asking::over(connections, time);
        Asking {
            way,
            plan: Plan {
                prefixes: Prefixes::Bytes(bytes),
                ..usual.plan
            },
            ..usual
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
struct Sample {
    connections: u16,
    route: Route,
    answers: Answers,
}

/// One way at one number of connections: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    connections: u16,
    route: Route,
    figures: Figures,
    /// Requests without an answer, of all rounds.
    errors: u64,
}

/// What one way takes more than another at p50, at one number of connections.
#[derive(Debug, Clone, Copy, Serialize)]
struct Added {
    connections: u16,
    hop_us: f64,
    /// Through the coordinator divided by straight to the shard.
    hop_ratio: f64,
    merge_us: f64,
    /// The empty prefix divided by prefixes of three bytes, both through the coordinator.
    merge_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Routes {
    #[serde(flatten)]
    circumstances: Circumstances,
    loaded: Load,
    rows: Vec<Row>,
    added: Vec<Added>,
}

/// Measures all ways and reports them.
///
/// # Errors
/// When the cluster does not start, load or answer, or the result cannot be written.
pub(crate) async fn run(runtime: &Runtime, arguments: RoutesArgs) -> Result<(), anyhow::Error> {
    let machine = Machine::look();
    let shape = Shape {
        shards: SHARDS,
        replicas: 1,
        servers: SERVERS,
        calls_max: None,
    };
    let form = Form::Processes(shape);
    let mut cluster = Cluster::start(runtime, form, arguments.terms).await?;
    let (rounds, time) = (arguments.rounds, arguments.time);
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for connections in arguments.connections.iter().copied() {
            say(&format!("round {round} of {rounds}: at {connections}"));
            for route in Route::ALL {
                let answers = cluster.ask(route.asking(connections, time)).await;
                let answers = answers.with_context(|| format!("asking: {}", route.name()))?;
                samples.push(Sample {
                    connections,
                    route,
                    answers,
                });
            }
        }
    }
    let rows = rows(&samples);
    let routes = Routes {
        circumstances: Circumstances::after(machine, rounds, time),
        loaded: cluster.loaded.clone(),
        added: added(&rows),
        rows,
    };
    publish(
        arguments.out.as_deref(),
        "routes",
        &routes.markdown(),
        &routes,
    )
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let places = grouped(samples, |at| (at.connections, at.route));
    let row = |((connections, route), of): ((u16, Route), Vec<&Sample>)| Row {
        connections,
        route,
        figures: Figures::of(of.iter().map(|at| &at.answers.reads)),
        errors: of.iter().map(|at| at.answers.errors).sum(),
    };
    places.into_iter().map(row).collect()
}

fn added(rows: &[Row]) -> Vec<Added> {
    let places = grouped(rows, |at| at.connections);
    let of_one = |(connections, of): (u16, Vec<&Row>)| {
        let p50 = |route: Route| {
            let row = of.iter().find(|at| at.route == route);
            row.map(|at| at.figures.p50_us)
        };
        let (direct, routed) = (p50(Route::Direct)?, p50(Route::Routed)?);
        let merged = p50(Route::Merged)?;
        Some(Added {
            connections,
            hop_us: routed - direct,
            hop_ratio: ratio(routed, direct),
            merge_us: merged - routed,
            merge_ratio: ratio(merged, routed),
        })
    };
    places.into_iter().filter_map(of_one).collect()
}

impl Routes {
    fn markdown(&self) -> String {
        let mut text = self.circumstances.describe();
        let header = [
            "connections",
            "prefixes",
            "a second",
            "p50",
            "p99",
            "without an answer",
        ];
        let rows = table(&header, self.rows.iter().map(Row::cells));
        let header = [
            "connections",
            "the hop adds at p50",
            "routed / direct",
            "the merge adds at p50",
            "empty / 3 bytes",
        ];
        let added = table(&header, self.added.iter().map(Added::cells));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; a coordinator and {SERVERS} shard servers as processes, {SHARDS} shards of {} terms with one replica each, k = 10. The empty prefix is answered \
             by all shards and merged, the others by one shard.\n\n{rows}\n{added}",
            self.loaded.terms
        );
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        vec![
            self.connections.to_string(),
            self.route.name().to_owned(),
            format!("{:.0}", self.figures.per_second),
            millis(self.figures.p50_us),
            millis(self.figures.p99_us),
            self.errors.to_string(),
        ]
    }
}

impl Added {
    fn cells(&self) -> Vec<String> {
        vec![
            self.connections.to_string(),
            millis(self.hop_us),
            format!("{:.2}", self.hop_ratio),
            millis(self.merge_us),
            format!("{:.2}", self.merge_ratio),
        ]
    }
}

#[cfg(test)]
mod tests {
    use workload::Latencies;

    use super::*;

    fn sample(connections: u16, route: Route, p50_us: u64) -> Sample {
        let reads = Latencies {
            requests: 1,
            p50_us,
            ..Latencies::default()
        };
        Sample {
            connections,
            route,
            answers: Answers {
                reads,
                records: Latencies::default(),
                errors: 1,
                cpu_us: 0.0,
            },
        }
    }

    #[test]
    fn the_hop_and_the_merge_are_what_is_added_to_the_way_before() {
        let samples = [
            sample(1, Route::Direct, 200),
            sample(1, Route::Routed, 300),
            sample(1, Route::Merged, 450),
            sample(16, Route::Direct, 500),
            sample(1, Route::Direct, 220),
            sample(1, Route::Routed, 330),
            sample(1, Route::Merged, 450),
        ];
        let rows = rows(&samples);
        assert_eq!(rows.len(), 4);
        assert_eq!((rows[0].route, rows[0].errors), (Route::Direct, 2));
        let added = added(&rows);
        assert_eq!(added.len(), 1, "of 16 there is nothing to compare");
        assert_eq!(added[0].connections, 1);
        assert!((added[0].hop_us - 105.0).abs() < 1e-9);
        assert!((added[0].hop_ratio - 1.5).abs() < 1e-9);
        assert!((added[0].merge_us - 135.0).abs() < 1e-9);
    }

    #[test]
    fn only_the_direct_way_leaves_the_coordinator_out() {
        for route in Route::ALL {
            let asking = route.asking(16, Duration::from_secs(1));
            assert_eq!(asking.way == Way::Direct, route == Route::Direct);
            let is_empty = asking.plan.prefixes == Prefixes::Bytes(0);
            assert_eq!(is_empty, route == Route::Merged);
        }
    }
}
