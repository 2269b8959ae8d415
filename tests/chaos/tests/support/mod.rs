//! What runs of both kinds share: their queries, and what becomes of one that broke a promise or proved nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests; what was left out is said to whoever runs them"
)]

use std::path::Path;
use std::time::Duration;

use chaos::deployment::Deployment;
use chaos::faults::Fault;
use chaos::history::{History, Outcome};
use chaos::journal::COORDINATORS;
use chaos::processes::RunFolder;
use chaos::report::{Report, save_logs};
use chaos::{queries, scenario};
use runtime::Runtime;

/// Records of one run.
const RECORDS: usize = 12_000;

/// A plan over the real queries where they are at hand; the seed chooses synthetic ones where they are not.
pub(crate) fn plan(name: &str, seed: u64, faults: Vec<Fault>) -> scenario::Plan {
    let real = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/dev/trec-tb05.stream.txt.zst");
    let file = real.exists().then_some(real);
    let queries = match &file {
        Some(file) => queries::from_file(file, RECORDS).unwrap(),
        None => {
            println!("left out: the real query stream is not at hand; synthetic queries instead");
            queries::synthetic(seed, RECORDS)
        }
    };
    scenario::Plan {
        name: name.to_owned(),
        seed,
        queries,
        file,
        lanes: 16,
        faults,
        standstill: Duration::from_secs(12),
    }
}

/// Runs a plan to its end and stops the cluster. Wants no promise broken, and every Record settled but those that only a leader that stands
/// still was asked for. Report and history are left in a folder that is named, whatever came of it, and what the servers have logged and written
/// where something is not proven.
pub(crate) async fn prove(
    runtime: &Runtime,
    deployment: &mut dyn Deployment,
    plan: &scenario::Plan,
) -> Report {
    let never = std::future::pending();
    let (report, history) = scenario::run(runtime, deployment, plan, never).await;
    let open = left_open(&history);
    let is_proven = report.error.is_none() && report.violations.is_empty() && open == 0;
    let saved = leave(&report, &history, deployment, is_proven);
    if is_proven {
        deployment.stop().unwrap();
        println!("{report}\nreport and history: {saved}");
        return report;
    }
    let (logs, stopped) = (deployment.logs(), deployment.stop());
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

/// Says where report and history are, and what else is kept of a cluster that is not proven, or why they are nowhere.
fn leave(
    report: &Report,
    history: &History,
    deployment: &mut dyn Deployment,
    is_proven: bool,
) -> String {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let saved = RunFolder::create(&parent).and_then(|run| {
        let folder = run.as_path();
        report.save(folder, history)?;
        if is_proven {
            return Ok(folder.display().to_string());
        }
        save_logs(folder, &deployment.logs())?;
        let kept = deployment.keep_data(folder)?;
        Ok(format!("{}\n{kept}", folder.display()))
    });
    saved.unwrap_or_else(|error| format!("not saved, {error:#}"))
}
