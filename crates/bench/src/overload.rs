//! What a server makes of more requests than it takes on: how many it still answers, how fast it refuses the others, and how much memory
//! that takes.
//!
//! A coordinator with a low limit of calls and one shard server are processes; the limit is the coordinator's. From a quarter of the limit
//! to ten times as many clients each have a request in flight, over a connection of their own or a shared one. One that is refused (`OVERLOADED`) waits before
//! it asks again: for as long as the refusal says, or, where a pause is given, from half of it to one and a half, as clients do that back off
//! without listening. Completions and records are measured apart.
//!
//! What always holds: the loads are measured in turn from the smallest to the largest, and the most memory that the processes hold is taken
//! anew for each. Where the system does not forget the last, it is the most since they began.
//!
//! On failure: a request that is neither answered nor refused is counted by its reason; a process that has ended ends the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Choice, Latencies, Plan, Target};

use crate::asking::Asking;
use crate::cluster::{Cluster, Load};
use crate::figures::{Figures, float, grouped, millis, ratio, table};
use crate::machine::{Circumstances, Machine};
use crate::ours::{Form, Pool, Shape};
use crate::{publish, say};

const SHARDS: u16 = 3;
/// What a refused request is told.
const OVERLOADED: &str = "OVERLOADED";
const MIB: f64 = 1024.0 * 1024.0;

/// Measures what a server makes of more requests than it takes on.
#[derive(Debug, Clone, clap::Args)]
pub struct OverloadArgs {
    /// Made-up terms to load
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    terms: u32,

    /// Calls that the coordinator works on at once; up to ten times as many are sent
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=128))]
    calls_max: u16,

    /// Connections that the clients share; by default each has one of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,

    /// How long a client waits that was refused, give or take a half, whatever the refusal says
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pause: Option<Duration>,

    /// How often everything is measured; medians are reported, and the most memory of all
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// How long each measurement takes, after as long to warm up, in which what is asked of clients finds its measure
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// A folder for overload.md and overload.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Request {
    GetTopK,
    Record,
}

impl Request {
    const ALL: [Self; 2] = [Self::GetTopK, Self::Record];

    fn name(self) -> &'static str {
        match self {
            Self::GetTopK => "GetTopK",
            Self::Record => "Record",
        }
    }

    fn record_percent(self) -> u64 {
        match self {
            Self::GetTopK => 0,
            Self::Record => 100,
        }
    }
}

/// How much is sent, in quarters of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quarters(u16);

impl Quarters {
    const ALL: [Self; 5] = [Self(1), Self(4), Self(8), Self(20), Self(40)];

    /// Requests in flight.
    fn of(self, calls_max: u16) -> u16 {
        calls_max.saturating_mul(self.0) / 4
    }

    /// How many times the limit that is.
    fn times(self) -> f64 {
        f64::from(self.0) / 4.0
    }
}

/// One measurement.
#[derive(Debug, Clone)]
struct Sample {
    request: Request,
    load: Quarters,
    answered: Latencies,
    refused: Latencies,
    /// Neither answered nor refused, by reason.
    failed: BTreeMap<String, u64>,
    peak_bytes: u64,
}

/// One kind of request at one load: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    request: Request,
    /// In flight, as a multiple of the limit.
    times_the_limit: f64,
    in_flight: u16,
    answered: Figures,
    /// Answers a second, divided by the most at any load.
    of_the_best: f64,
    refused: Figures,
    /// Neither answered nor refused, by reason, in all rounds.
    failed: BTreeMap<String, u64>,
    /// The most memory of the coordinator and the shard server together.
    peak_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Overload {
    #[serde(flatten)]
    circumstances: Circumstances,
    calls_max: u16,
    /// That clients share; none where each has its own.
    connections: Option<u16>,
    /// None where clients do as they are told.
    pause_seconds: Option<f64>,
    loaded: Load,
    rows: Vec<Row>,
}

/// A client that waits when it was refused, before it asks again.
#[derive(Debug)]
struct BacksOff<T> {
    target: T,
    runtime: Runtime,
    /// Instead of what the refusal asks for.
    pause: Option<Duration>,
    choice: Choice,
}

impl<T: Target> Target for BacksOff<T> {
    async fn read(&mut self, prefixes: &[&str]) -> Result<(), String> {
        self.target.read(prefixes).await
    }

    async fn record(&mut self, terms: &[&str]) -> Result<(), String> {
        self.target.record(terms).await
    }

    async fn back_off(&mut self, reason: &str) {
        if reason != OVERLOADED {
            return;
        }
        let own = self.pause.map(|pause| spread(&mut self.choice, pause));
        if let Some(pause) = own.or(self.target.retry_after()) {
            self.runtime.sleep(pause).await;
        }
    }
}

/// From half of a pause to one and a half.
fn spread(choice: &mut Choice, pause: Duration) -> Duration {
    let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
    pause / 2 + Duration::from_micros(choice.below(micros))
}

/// Measures all loads and reports them.
///
/// # Errors
/// When the cluster does not start or load, when a process of it ends, or the result cannot be written.
pub(crate) async fn run(runtime: &Runtime, arguments: OverloadArgs) -> Result<(), anyhow::Error> {
    let machine = Machine::look();
    let shape = Shape {
        shards: SHARDS,
        replicas: 1,
        servers: 1,
        calls_max: Some(arguments.calls_max),
    };
    let form = Form::Processes(shape);
    let mut cluster = Cluster::start(runtime, form, arguments.terms).await?;
    let rounds = arguments.rounds;
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for request in Request::ALL {
            for load in Quarters::ALL {
                let (name, times) = (request.name(), load.times());
                say(&format!(
                    "round {round} of {rounds}: {name}, {times} times the limit"
                ));
                let sample = measure(&mut cluster, request, load, &arguments).await;
                samples.push(sample.with_context(|| format!("sending {times} times the limit"))?);
            }
        }
    }
    let overload = Overload {
        circumstances: Circumstances::after(machine, rounds, arguments.time),
        calls_max: arguments.calls_max,
        connections: arguments.connections,
        pause_seconds: arguments.pause.map(|pause| pause.as_secs_f64()),
        loaded: cluster.loaded.clone(),
        rows: rows(&samples, arguments.calls_max),
    };
    publish(
        arguments.out.as_deref(),
        "overload",
        &overload.markdown(),
        &overload,
    )
}

async fn measure(
    cluster: &mut Cluster,
    request: Request,
    load: Quarters,
    arguments: &OverloadArgs,
) -> Result<Sample, anyhow::Error> {
    let usual = Asking::over(load.of(arguments.calls_max), arguments.time);
    let plan = Plan {
        record_percent: request.record_percent(),
        warm_up: arguments.time,
        ..usual.plan
    };
    let (world, pause) = (cluster.runtime.clone(), arguments.pause);
    let most = arguments.connections.unwrap_or(u16::MAX);
    let pool = Arc::new(Pool::new(&world, cluster.server.address(), most));
    let clients = Arc::new(AtomicU64::new(0));
    let make = move || {
        // From the end down, and so none of those that choose what is sent.
        let seed = u64::MAX - clients.fetch_add(1, Ordering::Relaxed);
        let target = pool.target(usual.k);
        let target = target.map(|target| BacksOff {
            target,
            runtime: world.clone(),
            pause,
            choice: Choice::new(seed),
        });
        async move { target }
    };
    cluster.server.processes().forget_peak();
    let terms = &cluster.terms.terms;
    let measured = workload::run(&cluster.runtime, usual.connections, make, terms, plan).await?;
    cluster.server.processes().ensure_run()?;
    let mut failed = measured.errors();
    failed.remove(OVERLOADED);
    let answered = match request {
        Request::GetTopK => measured.reads(plan.time),
        Request::Record => measured.records(plan.time),
    };
    Ok(Sample {
        request,
        load,
        answered,
        refused: measured.failures(OVERLOADED, plan.time),
        failed,
        peak_bytes: cluster.server.processes().peak_bytes(),
    })
}

fn rows(samples: &[Sample], calls_max: u16) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for ((request, load), of) in grouped(samples, |at| (at.request, at.load)) {
        let mut failed: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, number) in of.iter().flat_map(|at| &at.failed) {
            *failed.entry(reason.clone()).or_default() += number;
        }
        rows.push(Row {
            request,
            times_the_limit: load.times(),
            in_flight: load.of(calls_max),
            answered: Figures::of(of.iter().map(|at| &at.answered)),
            of_the_best: 0.0,
            refused: Figures::of(of.iter().map(|at| &at.refused)),
            failed,
            peak_bytes: of.iter().map(|at| at.peak_bytes).max().unwrap_or(0),
        });
    }
    for request in Request::ALL {
        let of_it = rows.iter().filter(|row| row.request == request);
        let best = of_it.map(|row| row.answered.per_second).fold(0.0, f64::max);
        for row in rows.iter_mut().filter(|row| row.request == request) {
            row.of_the_best = ratio(row.answered.per_second, best);
        }
    }
    rows
}

impl Overload {
    fn markdown(&self) -> String {
        let mut text = self.circumstances.describe();
        let header = [
            "request",
            "times the limit",
            "in flight",
            "answered a second",
            "of the best",
            "p50",
            "p99",
            "refused a second",
            "p50",
            "p99",
            "most memory",
            "failed otherwise",
        ];
        let rows = table(&header, self.rows.iter().map(Row::cells));
        let pause = self.pause_seconds.map_or_else(
            || "as long a pause after a refusal as it asks for".to_owned(),
            |pause| {
                let millis = pause * 1_000.0;
                format!("{millis:.0} ms of pause after a refusal, give or take a half")
            },
        );
        let connections = self.connections.map_or_else(
            || "each client with a connection of its own".to_owned(),
            |connections| format!("clients that share {connections} connections"),
        );
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; a coordinator that works on {} calls at once and a shard server as processes, {SHARDS} shards of {} terms, {connections}, \
             {pause}.\n\n{rows}",
            self.calls_max, self.loaded.terms
        );
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let failed = self.failed.iter();
        let failed: Vec<String> = failed
            .map(|(why, number)| format!("{number} {why}"))
            .collect();
        vec![
            self.request.name().to_owned(),
            self.times_the_limit.to_string(),
            self.in_flight.to_string(),
            format!("{:.0}", self.answered.per_second),
            format!("{:.2}", self.of_the_best),
            millis(self.answered.p50_us),
            millis(self.answered.p99_us),
            format!("{:.0}", self.refused.per_second),
            millis(self.refused.p50_us),
            millis(self.refused.p99_us),
            format!("{:.0} MiB", float(self.peak_bytes) / MIB),
            failed.join(", "),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(request: Request, load: u16, rate: u64, failed: u64) -> Sample {
        let latencies = |rate| Latencies {
            requests: rate,
            requests_per_second: rate,
            ..Latencies::default()
        };
        Sample {
            request,
            load: Quarters(load),
            answered: latencies(rate),
            refused: latencies(1_000 - rate),
            failed: [("DEADLINE".to_owned(), failed)].into(),
            peak_bytes: rate,
        }
    }

    #[test]
    fn each_kind_of_request_is_compared_with_its_best() {
        let samples = [
            sample(Request::GetTopK, 1, 500, 0),
            sample(Request::GetTopK, 40, 450, 1),
            sample(Request::Record, 1, 100, 0),
            sample(Request::GetTopK, 1, 520, 0),
            sample(Request::GetTopK, 40, 360, 2),
        ];
        let rows = rows(&samples, 64);
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].in_flight, rows[1].in_flight), (16, 640));
        assert!((rows[0].of_the_best - 1.0).abs() < 1e-9);
        assert!((rows[1].of_the_best - 405.0 / 510.0).abs() < 1e-9);
        assert!((rows[1].refused.per_second - 595.0).abs() < 1e-9);
        assert!((rows[2].of_the_best - 1.0).abs() < 1e-9);
        assert_eq!((rows[1].failed["DEADLINE"], rows[1].peak_bytes), (3, 450));
        let cells = rows[1].cells();
        assert_eq!(cells[..3], ["GetTopK", "10", "640"]);
        assert_eq!(cells.last().unwrap(), "3 DEADLINE");
    }

    struct Refuses(&'static str, Option<Duration>);

    impl Target for Refuses {
        async fn read(&mut self, _prefixes: &[&str]) -> Result<(), String> {
            Err(self.0.to_owned())
        }

        async fn record(&mut self, _terms: &[&str]) -> Result<(), String> {
            Err(self.0.to_owned())
        }

        fn retry_after(&self) -> Option<Duration> {
            self.1
        }
    }

    /// How long a client waits after a refusal for a reason, where it has a pause of its own or is asked for one.
    async fn waits(reason: &'static str, pause: Option<u64>, asked: Option<u64>) -> Duration {
        let runtime = Runtime::real();
        let mut client = BacksOff {
            target: Refuses(reason, asked.map(Duration::from_millis)),
            runtime: runtime.clone(),
            pause: pause.map(Duration::from_millis),
            choice: Choice::new(1),
        };
        assert_eq!(client.read(&["a"]).await, Err(reason.to_owned()));
        let before = runtime.now();
        client.back_off(reason).await;
        runtime.now().saturating_since(before)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_waits_and_whoever_fails_does_not() {
        let own = Duration::from_millis(25)..Duration::from_millis(77);
        let asked = Duration::from_millis(300)..Duration::from_millis(302);
        for (pause, told, bounds) in [
            (Some(50), None, &own),
            (Some(50), Some(300), &own),
            (None, Some(300), &asked),
        ] {
            let waited = waits(OVERLOADED, pause, told).await;
            assert!(bounds.contains(&waited), "{pause:?} {told:?}: {waited:?}");
        }
        assert_eq!(waits(OVERLOADED, None, None).await, Duration::ZERO);
        assert_eq!(waits("DEADLINE", Some(50), Some(300)).await, Duration::ZERO);
    }

    #[test]
    fn pauses_are_spread_around_what_was_asked_for() {
        let (mut choice, pause) = (Choice::new(7), Duration::from_millis(50));
        let pauses: Vec<Duration> = (0..1_000).map(|_| spread(&mut choice, pause)).collect();
        let bounds = Duration::from_millis(25)..Duration::from_millis(75);
        assert!(pauses.iter().all(|pause| bounds.contains(pause)));
        let mean = pauses.iter().sum::<Duration>() / 1_000;
        let middle = Duration::from_millis(48)..Duration::from_millis(52);
        assert!(middle.contains(&mean), "{mean:?}");
        assert_eq!(spread(&mut choice, Duration::ZERO), Duration::ZERO);
    }
}
