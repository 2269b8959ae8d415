//! The result of a run, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::args::BenchArgs;
use super::measure::Measured;
use crate::output::{grouped, per_second};

pub(super) fn text(arguments: &BenchArgs, measured: &Measured) -> String {
    let mut text = format!(
        "{}{}: {} connections, {} in flight, {}",
        arguments.workload.name(),
        if arguments.stream {
            " over streams"
        } else {
            ""
        },
        arguments.connections,
        arguments.in_flight,
        humantime::format_duration(arguments.time)
    );
    // Writing to a string does not fail.
    for (name, histogram) in [("top-k", &measured.reads), ("record", &measured.records)] {
        if histogram.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n{name:<7} {:>9}/s   p50 {}   p99 {}   p99.9 {}   max {}",
            grouped(per_second(histogram.len(), arguments.time)),
            millis(histogram.value_at_quantile(0.5)),
            millis(histogram.value_at_quantile(0.99)),
            millis(histogram.value_at_quantile(0.999)),
            millis(histogram.max()),
        );
    }
    if measured.terms > measured.records.len() {
        let rate = grouped(per_second(measured.terms, arguments.time));
        let _ = write!(text, "\nterms   {rate:>9}/s");
    }
    for (reason, number) in &measured.errors {
        let _ = write!(text, "\nerror   {:>9}     {reason}", grouped(*number));
    }
    text
}

fn millis(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

pub(super) fn json(arguments: &BenchArgs, measured: &Measured) -> Value {
    json!({
        "workload": arguments.workload.name(),
        "stream": arguments.stream,
        "connections": arguments.connections,
        "in_flight": arguments.in_flight,
        "seconds": arguments.time.as_secs_f64(),
        "top_k": latencies(&measured.reads, arguments.time),
        "record": latencies(&measured.records, arguments.time),
        "terms_per_second": per_second(measured.terms, arguments.time),
        "errors": measured.errors,
    })
}

fn latencies(histogram: &Histogram<u64>, time: Duration) -> Value {
    json!({
        "requests": histogram.len(),
        "requests_per_second": per_second(histogram.len(), time),
        "p50_us": histogram.value_at_quantile(0.5),
        "p99_us": histogram.value_at_quantile(0.99),
        "p999_us": histogram.value_at_quantile(0.999),
        "max_us": histogram.max(),
    })
}
