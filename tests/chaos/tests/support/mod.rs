//! What runs of both kinds share: their queries, and what becomes of one that broke a promise or proved nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests; what was left out is said to whoever runs them"
)]

use std::path::Path;

use chaos::deployment::Deployment;
use chaos::history::{History, Outcome};
use chaos::journal::COORDINATORS;
use chaos::processes::RunFolder;
use chaos::report::Report;
use chaos::{queries, scenario};
use runtime::Runtime;

/// Records of one run.
const RECORDS: usize = 12_000;

/// The real queries where they are at hand; the seed chooses synthetic ones where they are not.
pub(crate) fn chaos_queries(seed: u64) -> Vec<String> {
    let real = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/dev/trec-tb05.stream.txt.zst");
    if real.exists() {
        return queries::from_file(&real, RECORDS).unwrap();
    }
    println!("left out: the real query stream is not at hand; synthetic queries instead");
    queries::synthetic(seed, RECORDS)
}

/// Runs a plan to its end and stops the cluster. Wants no promise broken, and every Record settled but those that only a leader that stands
/// still was asked for. Report and history are left in a folder that is named, whatever came of it.
pub(crate) async fn prove(
    runtime: &Runtime,
    deployment: &mut dyn Deployment,
    plan: &scenario::Plan,
) -> Report {
    let never = std::future::pending();
    let (report, history) = scenario::run(runtime, deployment, plan, never).await;
    let open = left_open(&history);
    let saved = leave(&report, &history);
    if report.error.is_none() && report.violations.is_empty() && open == 0 {
        deployment.stop().unwrap();
        println!("{report}\nreport and history: {saved}");
        return report;
    }
    let logs = deployment.logs();
    let stopped = deployment.stop();
    panic!(
        "{logs}\n{report}\n{open} Records were never settled\nreport and history: {saved}\nthe end of the cluster: {stopped:?}"
    );
}

fn left_open(history: &History) -> usize {
    let operations = history.operations().iter();
    let asked_again = operations.filter(|at| at.via == COORDINATORS);
    let open = asked_again.filter(|at| at.outcome == Outcome::Open);
    open.count()
}

/// Says where report and history are, or why they are nowhere.
fn leave(report: &Report, history: &History) -> String {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let saved = RunFolder::create(&parent).and_then(|folder| {
        report.save(folder.as_path(), history)?;
        Ok(folder.as_path().display().to_string())
    });
    saved.unwrap_or_else(|error| format!("not saved, {error:#}"))
}
