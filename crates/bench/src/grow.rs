//! How the cost of ours grows: with terms, connections, `k`, the length of prefixes, shards and the share of records, one at a time.
//!
//! What always holds: a cluster of its own for each number of terms and of shards, everything else on one cluster; each point is the
//! median of the rounds, and a round goes through all points of a curve before the next begins.
//!
//! On failure: the first point that cannot be measured ends the run with an error that names it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Plan, Popularity, Prefixes};

use crate::asking::{Answers, Asking};
use crate::cluster::{Cluster, Load};
use crate::figures::{float, median_of, millis, ratio, table};
use crate::machine::{Circumstances, Machine};
use crate::ours::{Form, Way};
use crate::plot::Plot;
use crate::{publish, say, write};

/// Connections, unless that is what grows.
const CONNECTIONS: u16 = 16;

/// Measures how the cost of the cluster grows, and draws it.
#[derive(Debug, Clone, clap::Args)]
pub struct GrowArgs {
    /// Numbers of terms; everything but the growth with terms is measured with the last
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    terms: Vec<u32>,

    /// Numbers of shards
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 9], value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Vec<u16>,

    /// Numbers of connections, each with one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,

    /// How often everything is measured; medians are reported
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// How long each measurement takes, after a fifth of that to warm up
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// A folder for growth.md, growth.json and the drawings
    #[arg(long, value_name = "DIR", default_value = "growth")]
    out: PathBuf,
}

/// One measurement, as the median of its rounds.
#[derive(Debug, Clone, Serialize)]
struct Point {
    /// What was chosen on this axis.
    at: String,
    #[serde(skip)]
    place: f64,
    /// Completions a second, and how long they took.
    reads_per_second: f64,
    read_p50_us: f64,
    read_p99_us: f64,
    read_p999_us: f64,
    /// Records a second, where there were any.
    records_per_second: f64,
    record_p99_us: f64,
    /// Of the server, a request.
    cpu_us: f64,
    errors: u64,
}

/// What grew, and what came of it.
#[derive(Debug, Clone, Serialize)]
struct Curve {
    name: &'static str,
    across: &'static str,
    #[serde(skip)]
    axis: Axis,
    points: Vec<Point>,
}

/// Terms of the clusters of different numbers of shards, at most.
const SHARDED_TERMS: u32 = 100_000;

/// How the points of a curve stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Even,
    /// Powers stand equally far apart.
    Powers,
    /// They have no order, so there is nothing to draw.
    Names,
}

#[derive(Debug, Serialize)]
struct Growth {
    #[serde(flatten)]
    circumstances: Circumstances,
    loads: Vec<Load>,
    curves: Vec<Curve>,
}

/// A point to be measured.
#[derive(Debug, Clone)]
struct Setting {
    at: String,
    place: f64,
    connections: u16,
    way: Way,
    k: u32,
    record_percent: u64,
    popularity: Popularity,
    prefixes: Prefixes,
}

impl Setting {
    fn at(place: impl Into<f64>, at: impl ToString) -> Self {
        Self {
            at: at.to_string(),
            place: place.into(),
            connections: CONNECTIONS,
            way: Way::Routed,
            k: 10,
            record_percent: 0,
            popularity: Popularity::Skewed,
            prefixes: Prefixes::Typed,
        }
    }

    fn asking(&self, time: Duration) -> Asking {
        let usual = Asking::over(self.connections, time);
        Asking {
            k: self.k,
            way: self.way,
            plan: Plan {
                record_percent: self.record_percent,
                popularity: self.popularity,
                prefixes: self.prefixes,
                ..usual.plan
            },
            ..usual
        }
    }
}

/// Measures everything and writes it.
///
/// # Errors
/// When a cluster does not start, load or answer, or the result cannot be written.
pub(crate) async fn run(runtime: &Runtime, arguments: GrowArgs) -> Result<(), anyhow::Error> {
    let machine = Machine::look();
    let (mut loads, mut curves) = (Vec::new(), Vec::new());
    let mut by_terms = Curve::new("terms", "terms", Axis::Powers);
    for (index, number) in arguments.terms.iter().enumerate() {
        let mut cluster = Cluster::start(runtime, Form::Up(3), *number).await?;
        loads.push(cluster.loaded.clone());
        let setting = Setting::at(*number, number);
        by_terms
            .points
            .extend(measure(&mut cluster, &arguments, &[setting]).await?);
        if index + 1 == arguments.terms.len() {
            for (curve, settings) in curves_of_one(&arguments) {
                say(curve.name);
                let points = measure(&mut cluster, &arguments, &settings).await?;
                curves.push(Curve { points, ..curve });
            }
        }
    }
    let mut by_shards = Curve::new(
        "shards",
        "shards (of at most 100,000 made-up terms)",
        Axis::Even,
    );
    let most = arguments.terms.iter().copied().max().unwrap_or(1);
    for shards in &arguments.shards {
        let terms = most.min(SHARDED_TERMS);
        let mut cluster = Cluster::start(runtime, Form::Up(*shards), terms).await?;
        let setting = Setting::at(*shards, shards);
        by_shards
            .points
            .extend(measure(&mut cluster, &arguments, &[setting]).await?);
    }
    curves.splice(0..0, [by_terms, by_shards]);
    let growth = Growth {
        circumstances: Circumstances::after(machine, arguments.rounds, arguments.time),
        loads,
        curves,
    };
    growth.write(&arguments.out)
}

/// The curves that need no cluster of their own.
fn curves_of_one(arguments: &GrowArgs) -> Vec<(Curve, Vec<Setting>)> {
    let connections = |way| {
        let all = arguments.connections.iter();
        let setting = move |number: &u16| Setting {
            connections: *number,
            way,
            ..Setting::at(*number, number)
        };
        all.map(setting).collect()
    };
    let k = [1_u32, 10, 100, 1000].map(|k| Setting {
        k,
        ..Setting::at(k, k)
    });
    let lengths = [0_u8, 1, 2, 3, 4, 6, 8, 12, 16, 20].map(|bytes| Setting {
        prefixes: Prefixes::Bytes(bytes),
        ..Setting::at(bytes, bytes)
    });
    let shares = [0_u8, 5, 50].map(|percent| Setting {
        record_percent: percent.into(),
        ..Setting::at(percent, percent)
    });
    let popularity = [
        (0_u8, "skewed", Popularity::Skewed),
        (1, "uniform", Popularity::Uniform),
    ];
    let popularity = popularity.map(|(place, name, popularity)| Setting {
        popularity,
        ..Setting::at(place, name)
    });
    vec![
        (
            Curve::new("connections", "connections", Axis::Powers),
            connections(Way::Routed),
        ),
        (
            Curve::new("connections, streams", "connections", Axis::Powers),
            connections(Way::Stream),
        ),
        (Curve::new("k", "k", Axis::Powers), k.to_vec()),
        (
            Curve::new("prefix length", "bytes of the prefix", Axis::Even),
            lengths.to_vec(),
        ),
        (
            Curve::new("share of records", "% of requests", Axis::Even),
            shares.to_vec(),
        ),
        (
            Curve::new("popularity", "popularity of terms", Axis::Names),
            popularity.to_vec(),
        ),
    ]
}

/// Goes through all points of a curve, once a round.
async fn measure(
    cluster: &mut Cluster,
    arguments: &GrowArgs,
    settings: &[Setting],
) -> Result<Vec<Point>, anyhow::Error> {
    let mut rounds: Vec<Vec<Point>> = vec![Vec::new(); settings.len()];
    for _ in 0..arguments.rounds {
        for (setting, points) in settings.iter().zip(&mut rounds) {
            let answers = cluster.ask(setting.asking(arguments.time)).await;
            let answers = answers.with_context(|| format!("measuring at {}", setting.at))?;
            points.push(Point::new(setting, &answers));
        }
    }
    Ok(rounds.iter().filter_map(|points| middle(points)).collect())
}

impl Point {
    fn new(setting: &Setting, answers: &Answers) -> Self {
        let (reads, records) = (&answers.reads, &answers.records);
        Self {
            at: setting.at.clone(),
            place: setting.place,
            reads_per_second: float(reads.requests_per_second),
            read_p50_us: float(reads.p50_us),
            read_p99_us: float(reads.p99_us),
            read_p999_us: float(reads.p999_us),
            records_per_second: float(records.requests_per_second),
            record_p99_us: float(records.p99_us),
            cpu_us: answers.cpu_us,
            errors: answers.errors,
        }
    }

    fn cells(&self) -> Vec<String> {
        let has_records = self.records_per_second > 0.0;
        let of_records = |text: String| if has_records { text } else { String::new() };
        vec![
            self.at.clone(),
            format!("{:.0}", self.reads_per_second),
            millis(self.read_p50_us),
            millis(self.read_p99_us),
            millis(self.read_p999_us),
            of_records(format!("{:.0}", self.records_per_second)),
            of_records(millis(self.record_p99_us)),
            format!("{:.1} us", self.cpu_us),
            self.errors.to_string(),
        ]
    }
}

/// The medians of a point's rounds.
fn middle(rounds: &[Point]) -> Option<Point> {
    let of = |value: fn(&Point) -> f64| median_of(rounds, value);
    let first = rounds.first()?;
    Some(Point {
        at: first.at.clone(),
        place: first.place,
        reads_per_second: of(|at| at.reads_per_second),
        read_p50_us: of(|at| at.read_p50_us),
        read_p99_us: of(|at| at.read_p99_us),
        read_p999_us: of(|at| at.read_p999_us),
        records_per_second: of(|at| at.records_per_second),
        record_p99_us: of(|at| at.record_p99_us),
        cpu_us: of(|at| at.cpu_us),
        errors: rounds.iter().map(|at| at.errors).sum(),
    })
}

impl Curve {
    fn new(name: &'static str, across: &'static str, axis: Axis) -> Self {
        Self {
            name,
            across,
            axis,
            points: Vec::new(),
        }
    }

    fn markdown(&self) -> String {
        let header = [
            self.across,
            "reads a second",
            "p50",
            "p99",
            "p99.9",
            "records a second",
            "p99",
            "server CPU a request",
            "refused",
        ];
        let points = table(&header, self.points.iter().map(Point::cells));
        format!("\n**{}**\n\n{points}", self.name)
    }

    fn plots(&self) -> [(&'static str, Plot<'_>); 2] {
        let plot = |title, up, value: fn(&Point) -> f64| Plot {
            title,
            across: self.across,
            up,
            logarithmic: self.axis == Axis::Powers,
            points: self.points.iter().map(|at| (at.place, value(at))).collect(),
        };
        [
            (
                "rate",
                plot("completions a second", "a second", |at| at.reads_per_second),
            ),
            (
                "p99",
                plot("99 of 100 completions take", "microseconds", |at| {
                    at.read_p99_us
                }),
            ),
        ]
    }
}

impl Growth {
    fn write(&self, dir: &Path) -> Result<(), anyhow::Error> {
        let drawn = self.curves.iter().filter(|at| at.axis != Axis::Names);
        for curve in drawn {
            for (what, plot) in curve.plots() {
                let name = curve.name.replace([',', ' '], "-").replace("--", "-");
                write(dir, &format!("{name}-{what}.svg"), plot.svg()?.as_bytes())?;
            }
        }
        publish(Some(dir), "growth", &self.markdown(), self)
    }

    fn markdown(&self) -> String {
        let mut text = self.circumstances.describe();
        let header = [
            "terms",
            "loaded in",
            "terms a second",
            "server CPU a term",
            "memory a term",
        ];
        let loads = self.loads.iter().map(|at| {
            vec![
                at.terms.to_string(),
                format!("{:.1} s", at.seconds),
                format!("{:.0}", ratio(float(at.terms as u64), at.seconds)),
                format!("{:.2} us", at.cpu_us_per_term),
                format!("{:.1} bytes", at.bytes_per_term),
            ]
        });
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; {CONNECTIONS} connections, k = 10, three shards and {} terms where nothing else is said.\n\n{}",
            self.loads.last().map_or(0, |at| at.terms),
            table(&header, loads)
        );
        for curve in &self.curves {
            text.push_str(&curve.markdown());
        }
        text
    }
}
