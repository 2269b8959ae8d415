//! Strikes at a cluster of processes on loopback, under a stream of queries, and judges every count.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of a test; what was left out is said to whoever runs it"
)]

use std::path::Path;
use std::time::Duration;

use chaos::deployment::{Deployment as _, Shape};
use chaos::faults::{Fault, Needs};
use chaos::history::Outcome;
use chaos::journal::COORDINATORS;
use chaos::processes::{Processes, Programs, RunFolder};
use chaos::report::Report;
use chaos::{queries, scenario};
use runtime::Runtime;

/// Two clusters at once would take each other's ports, and time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs a plan and wants no promise broken, and every Record settled but those that only a leader that stands still was asked for.
async fn run(shape: Shape, seed: u64, faults: Vec<Fault>) -> Report {
    let _turn = ONE_AT_A_TIME.lock().await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(scratch.path()).unwrap();
    let (runtime, programs) = (Runtime::real(), Programs::build().unwrap());
    let needs = Needs::of(&faults);
    let started = Processes::start(&runtime, folder, &programs, shape, needs).await;
    let mut processes = started.unwrap();
    let plan = scenario::Plan {
        name: "processes".to_owned(),
        seed,
        queries: chaos_queries(),
        lanes: 16,
        faults,
        standstill: Duration::from_secs(12),
    };
    let outcome = scenario::run(&runtime, &processes, &plan).await;
    let logs = processes.logs();
    processes.stop().unwrap();
    let (report, history) = outcome.unwrap_or_else(|error| panic!("{error:#}\n{logs}"));
    println!("{report}");
    assert_eq!(report.violations, vec![]);
    let asked_again = history
        .operations()
        .iter()
        .filter(|at| at.via == COORDINATORS);
    let open = asked_again.filter(|at| at.outcome == Outcome::Open);
    assert_eq!(open.count(), 0, "every Record was settled in the end");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_count_is_lost_or_doubled_when_shard_servers_are_killed() {
    let report = run(Shape::SINGLE, 1, vec![Fault::Kill, Fault::Kill]).await;
    assert_eq!(report.blows.len(), 2);
    assert!(report.recoveries_counted >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_lose_nothing_to_any_fault() {
    let faults = vec![
        Fault::Kill,
        Fault::Coordinator,
        Fault::Pause,
        Fault::Wipe,
        Fault::FlipMiddle,
        Fault::FlipEnd,
        Fault::KillAll,
    ];
    let report = run(Shape::REPLICATED, 2, faults.clone()).await;
    assert_eq!(report.blows.len(), faults.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing_and_a_leader_that_stood_still_says_nothing_of_the_past() {
    let faults = vec![Fault::Roll, Fault::StopLeader];
    let report = run(Shape::REPLICATED, 5, faults).await;
    assert_eq!(report.blows.len(), 3 + 1, "each server is restarted");
    let standstills = report.blows.iter().filter_map(|at| at.standstill.as_ref());
    assert_eq!(standstills.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_lose_nothing_when_links_are_cut_and_everything_happens_at_once() {
    let faults = vec![
        Fault::OneWay,
        Fault::HalfOpen,
        Fault::Cut,
        Fault::Everything,
    ];
    let report = run(Shape::REPLICATED, 3, faults.clone()).await;
    assert_eq!(report.blows.len(), faults.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_go_on_beside_a_full_disk() {
    let required = std::env::var_os("REQUIRE_ALL").is_some();
    if !required && !Processes::can_mount() {
        println!("left out: small disks need the right to mount file systems in memory");
        return;
    }
    let report = run(Shape::REPLICATED, 4, vec![Fault::FullDisk]).await;
    assert_eq!(report.blows.len(), 1);
}

fn chaos_queries() -> Vec<String> {
    let real = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/dev/trec-tb05.stream.txt.zst");
    if real.exists() {
        return queries::from_file(&real, 12_000).unwrap();
    }
    println!("left out: the real query stream is not at hand; synthetic queries instead");
    queries::synthetic(1, 12_000)
}
