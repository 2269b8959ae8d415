//! The result of a run, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use workload::{Measured, per_second};

use super::args::BenchArgs;
use crate::output::grouped;

pub(super) fn text(arguments: &BenchArgs, measured: &Measured) -> String {
    let time = arguments.time;
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
        humantime::format_duration(time)
    );
    let (reads, records) = (measured.reads(time), measured.records(time));
    // Writing to a string does not fail.
    for (name, latencies) in [("top-k", &reads), ("record", &records)] {
        if latencies.requests == 0 {
            continue;
        }
        let _ = write!(
            text,
            "\n{name:<7} {:>9}/s   p50 {}   p99 {}   p99.9 {}   max {}",
            grouped(latencies.requests_per_second),
            millis(latencies.p50_us),
            millis(latencies.p99_us),
            millis(latencies.p999_us),
            millis(latencies.max_us),
        );
    }
    if measured.terms() > records.requests {
        let rate = grouped(per_second(measured.terms(), time));
        let _ = write!(text, "\nterms   {rate:>9}/s");
    }
    for (reason, number) in measured.errors() {
        let _ = write!(text, "\nerror   {:>9}     {reason}", grouped(number));
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
        "top_k": measured.reads(arguments.time),
        "record": measured.records(arguments.time),
        "terms_per_second": per_second(measured.terms(), arguments.time),
        "errors": measured.errors(),
    })
}
