//! How long requests wait while snapshots are taken and while replicas move.
//!
//! Two clusters are loaded with the same terms: `autocomplete up`, and four servers with three replicas of each shard as processes. The
//! first is measured undisturbed, and while an operator has a snapshot of one shard after another taken and pulled. The other is
//! measured undisturbed, and while the operator moves a replica of one shard after another to the server that has none and back: the
//! newcomer is sent a snapshot and installs it, unless the log still has everything. What the operator does is the command
//! `coordinator`, as a process, as people do it; it looks once a second whether a move is done. "Undisturbed" means by an operator:
//! replicas take snapshots of their own after so many entries of their logs, as they always do.
//!
//! What always holds: the next deed begins when the one before is done. What is begun is waited for before the next measurement, and
//! a snapshot of each shard is pulled before the first.
//!
//! On failure: a deed that is refused or takes too long is counted and tried again after a pause, as long as it is measured; a map that
//! cannot be read, and a cluster that does not answer, end the run.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use runtime::{Instant, Runtime};
use serde::Serialize;

use crate::asking::{Answers, Asking};
use crate::cluster::{Cluster, Load};
use crate::figures::{Figures, grouped, median_of, millis, table};
use crate::machine::{Circumstances, Machine};
use crate::operator::{Deed, Operator};
use crate::ours::{Form, Shape};
use crate::{publish, say};

const SHARDS: u16 = 3;
/// One more than replicas, so that there is always somewhere to go.
const SERVERS: u8 = 4;
const REPLICAS: u8 = 3;
/// After a deed that was refused: whoever has left may come again only when everybody knows.
const PAUSE: Duration = Duration::from_millis(500);

/// How long shards may take until each has a snapshot after the load.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);

/// Measures how long requests wait while snapshots are taken and replicas move.
#[derive(Debug, Clone, clap::Args)]
pub struct StallsArgs {
    /// Made-up terms to load
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    terms: u32,

    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// How many of a hundred requests record; each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [50, 10], value_parser = clap::value_parser!(u8).range(1..=99))]
    record_percent: Vec<u8>,

    /// How often everything is measured; medians are reported, and the longest of all
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// How long each measurement takes, after a fifth of that to warm up
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// A folder for stalls.md and stalls.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Which cluster is asked, and what happens to it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scene {
    Undisturbed,
    Snapshots,
    ReplicatedUndisturbed,
    Moves,
}

impl Scene {
    /// In the order in which they are measured.
    const ALL: [Self; 4] = [
        Self::Undisturbed,
        Self::Snapshots,
        Self::ReplicatedUndisturbed,
        Self::Moves,
    ];

    fn is_replicated(self) -> bool {
        match self {
            Self::Undisturbed | Self::Snapshots => false,
            Self::ReplicatedUndisturbed | Self::Moves => true,
        }
    }

    fn cluster(self) -> &'static str {
        if self.is_replicated() {
            "four servers, three replicas"
        } else {
            "one process"
        }
    }

    fn meanwhile(self) -> &'static str {
        match self {
            Self::Undisturbed | Self::ReplicatedUndisturbed => "nothing",
            Self::Snapshots => "snapshots pulled",
            Self::Moves => "replicas moved",
        }
    }
}

/// What an operator did meanwhile.
#[derive(Debug, Clone, Default)]
struct Deeds {
    /// Seconds that each took which was done.
    seconds: Vec<f64>,
    /// How often one was refused or failed, and was tried again.
    failed: u64,
    /// Why, the last time.
    failure: Option<String>,
}

/// One measurement.
#[derive(Debug, Clone)]
struct Sample {
    record_percent: u8,
    scene: Scene,
    answers: Answers,
    deeds: Deeds,
}

/// One scene at one share of records: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    record_percent: u8,
    scene: Scene,
    /// Snapshots that were pulled, or replicas that were moved, in all rounds.
    done: usize,
    /// Seconds that one took.
    seconds: f64,
    failed: u64,
    failure: Option<String>,
    get_top_k: Figures,
    record: Figures,
    /// Requests without an answer, of all rounds.
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Stalls {
    #[serde(flatten)]
    circumstances: Circumstances,
    connections: u16,
    loaded: [Load; 2],
    rows: Vec<Row>,
}

/// Measures all scenes and reports them.
///
/// # Errors
/// When a cluster does not start, load or answer, or the result cannot be written.
pub(crate) async fn run(runtime: &Runtime, arguments: StallsArgs) -> Result<(), anyhow::Error> {
    let machine = Machine::look();
    let shape = Shape {
        shards: SHARDS,
        replicas: REPLICAS,
        servers: SERVERS,
        calls_max: None,
    };
    let mut single = Subject::start(runtime, Form::Up(SHARDS), arguments.terms).await?;
    let mut replicated = Subject::start(runtime, Form::Processes(shape), arguments.terms).await?;
    let rounds = arguments.rounds;
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for percent in arguments.record_percent.iter().copied() {
            for scene in Scene::ALL {
                let (cluster, meanwhile) = (scene.cluster(), scene.meanwhile());
                let what = format!("{percent} % records, {cluster}, {meanwhile}");
                say(&format!("round {round} of {rounds}: {what}"));
                let subject = if scene.is_replicated() {
                    &mut replicated
                } else {
                    &mut single
                };
                let sample = subject.measure(scene, percent, &arguments).await;
                samples.push(sample.with_context(|| format!("measuring: {what}"))?);
            }
        }
    }
    let stalls = Stalls {
        circumstances: Circumstances::after(machine, rounds, arguments.time),
        connections: arguments.connections,
        loaded: [single, replicated].map(|subject| subject.cluster.loaded),
        rows: rows(&samples),
    };
    publish(
        arguments.out.as_deref(),
        "stalls",
        &stalls.markdown(),
        &stalls,
    )
}

/// A cluster, and whoever runs it.
#[derive(Debug)]
struct Subject {
    cluster: Cluster,
    operator: Operator,
}

impl Subject {
    async fn start(runtime: &Runtime, form: Form, terms: u32) -> Result<Self, anyhow::Error> {
        let cluster = Cluster::start(runtime, form, terms).await?;
        let operator = cluster.server.operator(runtime)?;
        let pulls = operator.map().await?.pulls();
        let (shards, end) = (pulls.len(), runtime.now() + SETTLE_PATIENCE);
        let mut done = Deeds::default();
        for deed in pulls {
            done.add(runtime, &operator, deed, end).await;
        }
        anyhow::ensure!(
            done.seconds.len() == shards,
            "there is no snapshot of a shard: {}",
            done.failure.unwrap_or_default()
        );
        Ok(Self { cluster, operator })
    }

    async fn measure(
        &mut self,
        scene: Scene,
        record_percent: u8,
        arguments: &StallsArgs,
    ) -> Result<Sample, anyhow::Error> {
        let mut how = Asking::over(arguments.connections, arguments.time);
        how.plan.record_percent = record_percent.into();
        let runtime = self.cluster.runtime.clone();
        let begin = runtime.now() + how.plan.warm_up;
        let disturbing = disturb(
            &runtime,
            &self.operator,
            scene,
            begin,
            begin + how.plan.time,
        );
        let (answers, deeds) = tokio::join!(self.cluster.ask(how), disturbing);
        Ok(Sample {
            record_percent,
            scene,
            answers: answers?,
            deeds: deeds?,
        })
    }
}

/// Does one deed after another from one moment on until another, and waits for the last.
async fn disturb(
    runtime: &Runtime,
    operator: &Operator,
    scene: Scene,
    begin: Instant,
    end: Instant,
) -> Result<Deeds, anyhow::Error> {
    let mut done = Deeds::default();
    runtime.sleep_until(begin).await;
    for turn in 0_usize.. {
        if runtime.now() >= end {
            break;
        }
        let deeds = match scene {
            Scene::Undisturbed | Scene::ReplicatedUndisturbed => break,
            Scene::Snapshots => operator.map().await?.pulls(),
            Scene::Moves => operator.map().await?.moves(turn),
        };
        anyhow::ensure!(!deeds.is_empty(), "there is nothing that could be done");
        for deed in deeds {
            done.add(runtime, operator, deed, end).await;
        }
    }
    Ok(done)
}

impl Deeds {
    /// Does it, as often as it takes until a moment.
    async fn add(&mut self, runtime: &Runtime, operator: &Operator, deed: Deed, end: Instant) {
        loop {
            let begun = runtime.now();
            if begun >= end {
                return;
            }
            match operator.carry_out(deed).await {
                Ok(()) => {
                    let took = runtime.now().saturating_since(begun);
                    self.seconds.push(took.as_secs_f64());
                    return;
                }
                Err(error) => {
                    self.failed += 1;
                    self.failure = Some(format!("{error:#}"));
                    runtime.sleep(PAUSE).await;
                }
            }
        }
    }
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let places = grouped(samples, |at| (at.record_percent, at.scene));
    let row = |((record_percent, scene), of): ((u8, Scene), Vec<&Sample>)| {
        let deeds = || of.iter().map(|at| &at.deeds);
        let seconds: Vec<f64> = deeds().flat_map(|at| at.seconds.clone()).collect();
        Row {
            record_percent,
            scene,
            done: seconds.len(),
            seconds: median_of(&seconds, |at| *at),
            failed: deeds().map(|at| at.failed).sum(),
            failure: deeds().filter_map(|at| at.failure.clone()).next_back(),
            get_top_k: Figures::of(of.iter().map(|at| &at.answers.reads)),
            record: Figures::of(of.iter().map(|at| &at.answers.records)),
            errors: of.iter().map(|at| at.answers.errors).sum(),
        }
    };
    places.into_iter().map(row).collect()
}

impl Stalls {
    fn markdown(&self) -> String {
        let mut text = self.circumstances.describe();
        let header = [
            "records of 100",
            "cluster",
            "meanwhile",
            "how often",
            "each took",
            "tried in vain",
            "request",
            "a second",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "without an answer, of both",
        ];
        let rows = table(&header, self.rows.iter().flat_map(Row::cells));
        let [single, replicated] = &self.loaded;
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; {} connections, {SHARDS} shards, {} terms in one process and {} with {REPLICAS} replicas on {SERVERS} servers.\n\n{rows}",
            self.connections, single.terms, replicated.terms
        );
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                let (percent, scene) = (row.record_percent, row.scene.meanwhile());
                let _ = writeln!(text, "\nTried in vain at {percent} %, {scene}: {failure}.");
            }
        }
        text
    }
}

impl Row {
    /// A line for each kind of request.
    fn cells(&self) -> [Vec<String>; 2] {
        [("GetTopK", &self.get_top_k), ("Record", &self.record)].map(|(request, figures)| {
            vec![
                self.record_percent.to_string(),
                self.scene.cluster().to_owned(),
                self.scene.meanwhile().to_owned(),
                self.done.to_string(),
                format!("{:.1} s", self.seconds),
                self.failed.to_string(),
                request.to_owned(),
                format!("{:.0}", figures.per_second),
                millis(figures.p50_us),
                millis(figures.p99_us),
                millis(figures.p999_us),
                millis(figures.max_us),
                self.errors.to_string(),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use workload::Latencies;

    use super::*;

    fn sample(scene: Scene, max_us: u64, deeds: Deeds) -> Sample {
        let reads = Latencies {
            requests: 1,
            max_us,
            ..Latencies::default()
        };
        Sample {
            record_percent: 50,
            scene,
            answers: Answers {
                records: reads.clone(),
                reads,
                errors: 0,
                cpu_us: 0.0,
            },
            deeds,
        }
    }

    #[test]
    fn what_was_done_in_all_rounds_counts() {
        let deeds = |seconds: &[f64], failure: Option<&str>| Deeds {
            seconds: seconds.to_vec(),
            failed: u64::from(failure.is_some()),
            failure: failure.map(str::to_owned),
        };
        let samples = [
            sample(Scene::Undisturbed, 10, deeds(&[], None)),
            sample(Scene::Moves, 70, deeds(&[4.0, 2.0], Some("full"))),
            sample(Scene::Undisturbed, 30, deeds(&[], None)),
            sample(Scene::Moves, 50, deeds(&[3.0], None)),
        ];
        let rows = rows(&samples);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].done, rows[0].failed), (0, 0));
        assert!((rows[0].get_top_k.max_us - 30.0).abs() < 1e-9);
        assert_eq!((rows[1].done, rows[1].failed), (3, 1));
        assert_eq!(rows[1].failure.as_deref(), Some("full"));
        assert!((rows[1].seconds - 3.0).abs() < 1e-9);
        assert!((rows[1].record.max_us - 70.0).abs() < 1e-9);
        let [reads, records] = rows[1].cells();
        assert_eq!(reads[2..5], ["replicas moved", "3", "3.0 s"]);
        assert_eq!((reads.len(), records[6].as_str()), (13, "Record"));
    }
}
