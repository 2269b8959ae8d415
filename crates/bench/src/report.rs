//! The result: medians and ratios, as Markdown and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::Args;
use crate::figures::{float, grouped, median, median_of, millis, ratio, sorted, table};
use crate::machine::{Circumstances, Machine};
use crate::rounds::{BATCH, QUESTIONS, Sample, Work};
use crate::servers::Kind;

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(flatten)]
    circumstances: Circumstances,
    k: u32,
    /// Servers that were left out, and why.
    pub absent: Vec<String>,
    /// What loading took.
    pub loaded: Vec<Loaded>,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// What loading a server took.
#[derive(Debug, Clone, Serialize)]
pub struct Loaded {
    /// The server.
    pub server: Kind,
    /// What it says of its version.
    pub version: String,
    /// Terms that it was given.
    pub terms: usize,
    /// How long that took.
    pub seconds: f64,
    /// Processor time of the server.
    pub cpu_seconds: f64,
    /// Its memory afterwards.
    pub resident_bytes: u64,
    /// Its memory before.
    pub resident_bytes_empty: u64,
}

/// One kind of work at one number of connections at one server: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was asked.
    pub work: Work,
    /// Over how many connections.
    pub connections: u16,
    /// Of whom.
    pub server: Kind,
    /// Answers a second; of batches, their terms or prefixes.
    pub per_second: f64,
    /// The slowest and the fastest round.
    pub per_second_range: (f64, f64),
    /// Latency, in microseconds.
    pub p50_us: f64,
    /// Latency, in microseconds.
    pub p99_us: f64,
    /// Latency, in microseconds.
    pub p999_us: f64,
    /// Processor time of the server for one of those, in microseconds.
    pub cpu_us_per_request: f64,
    /// Requests without an answer, of all rounds.
    pub errors: u64,
    /// Our rate divided by this one.
    pub ours_rate_ratio: Option<f64>,
    /// Our p99 divided by this one.
    pub ours_p99_ratio: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        arguments: &Args,
        machine: Machine,
        absent: Vec<String>,
        loaded: Vec<Loaded>,
        samples: &[Sample],
    ) -> Self {
        Self {
            circumstances: Circumstances::after(machine, arguments.rounds, arguments.time),
            k: arguments.k,
            absent,
            loaded,
            rows: rows(samples),
        }
    }

    /// The run as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = self.circumstances.machine();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "Medians of {} rounds of {} s each, all servers and the clients on this machine, k = {}. A batch has {BATCH} terms, and {QUESTIONS} prefixes are asked for at once where several are; rates and processor times are of terms and prefixes, latencies of all of them together.",
            self.circumstances.rounds, self.circumstances.seconds, self.k,
        );
        for absent in &self.absent {
            let _ = writeln!(text, "Left out: {absent}.");
        }
        let header = [
            "server",
            "version",
            "terms",
            "loaded in",
            "terms a second",
            "server CPU a term",
            "memory a term",
        ];
        let loaded = table(&header, self.loaded.iter().map(Loaded::cells));
        let header = [
            "work",
            "connections",
            "server",
            "a second",
            "slowest to fastest round",
            "p50",
            "p99",
            "p99.9",
            "server CPU",
            "our rate / its",
            "our p99 / its",
        ];
        let rows = table(&header, self.rows.iter().map(Row::cells));
        let _ = write!(text, "\n{loaded}\n{rows}");
        text
    }
}

impl Loaded {
    fn cells(&self) -> Vec<String> {
        let grown = self
            .resident_bytes
            .saturating_sub(self.resident_bytes_empty);
        let terms = float(self.terms as u64);
        vec![
            self.server.name().to_owned(),
            self.version.clone(),
            self.terms.to_string(),
            format!("{:.1} s", self.seconds),
            format!("{:.0}", ratio(terms, self.seconds)),
            format!("{:.2} us", ratio(self.cpu_seconds * 1e6, terms)),
            format!("{:.1} bytes", ratio(float(grown), terms)),
        ]
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let compared = |ratio: Option<f64>| {
            let text = |ratio: f64| format!("{ratio:.2}");
            ratio.map_or_else(String::new, text)
        };
        let (slowest, fastest) = self.per_second_range;
        let mut cells = vec![
            self.work.name().to_owned(),
            self.connections.to_string(),
            self.server.name().to_owned(),
            format!("{:.0}", self.per_second),
            format!("{slowest:.0} to {fastest:.0}"),
            millis(self.p50_us),
            millis(self.p99_us),
            millis(self.p999_us),
            format!("{:.1} us", self.cpu_us_per_request),
            compared(self.ours_rate_ratio),
            compared(self.ours_p99_ratio),
        ];
        if self.errors > 0 {
            cells.push(format!("{} without an answer", self.errors));
        }
        cells
    }
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let place = |at: &Sample| (at.work, at.connections, at.server);
    let mut places = grouped(samples, place);
    places.sort_unstable_by_key(|(place, _)| *place);
    let mut rows: Vec<Row> = Vec::new();
    for ((work, connections, server), of) in places {
        let rates = sorted(&of, |at| float(at.per_second));
        let range = (
            rates.first().copied().unwrap_or(0.0),
            rates.last().copied().unwrap_or(0.0),
        );
        let (per_second, p99_us) = (
            median(&rates),
            median_of(&of, |at| float(at.latencies.p99_us)),
        );
        let ours = rows.iter().find(|row| {
            row.server == Kind::Ours && (row.work, row.connections) == (work, connections)
        });
        rows.push(Row {
            ours_rate_ratio: ours.map(|ours| ratio(ours.per_second, per_second)),
            ours_p99_ratio: ours.map(|ours| ratio(ours.p99_us, p99_us)),
            work,
            connections,
            server,
            per_second,
            per_second_range: range,
            p50_us: median_of(&of, |at| float(at.latencies.p50_us)),
            p99_us,
            p999_us: median_of(&of, |at| float(at.latencies.p999_us)),
            cpu_us_per_request: median_of(&of, |at| at.cpu_us_per_request),
            errors: of.iter().map(|at| at.errors).sum(),
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use workload::Latencies;

    use super::*;

    fn sample(server: Kind, rate: u64, p99_us: u64) -> Sample {
        Sample {
            server,
            work: Work::Read,
            connections: 16,
            per_second: rate,
            latencies: Latencies {
                requests: rate,
                requests_per_second: 0,
                p50_us: 1,
                p99_us,
                p999_us: 1,
                max_us: 1,
            },
            errors: 1,
            cpu_us_per_request: 2.0,
        }
    }

    #[test]
    fn medians_are_compared_with_ours() {
        let samples = [
            sample(Kind::Dictionary, 10, 900),
            sample(Kind::Ours, 70, 80),
            sample(Kind::Ours, 90, 90),
            sample(Kind::Dictionary, 30, 900),
            sample(Kind::Ours, 80, 70),
        ];
        let rows = rows(&samples);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].server, rows[0].errors), (Kind::Ours, 3));
        assert!((rows[0].per_second - 80.0).abs() < 1e-9);
        let theirs = &rows[1];
        assert!((theirs.per_second - 20.0).abs() < 1e-9);
        assert!((theirs.ours_rate_ratio.unwrap() - 4.0).abs() < 1e-9);
        assert!((theirs.ours_p99_ratio.unwrap() - 80.0 / 900.0).abs() < 1e-9);
    }
}
