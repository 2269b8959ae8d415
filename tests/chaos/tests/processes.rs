//! Strikes at a cluster of processes on loopback, under a stream of queries, and judges every count.

#![expect(clippy::unwrap_used, reason = "a helper of tests")]

mod support;

use std::time::Duration;

use chaos::deployment::Shape;
use chaos::faults::{Fault, Needs};
use chaos::processes::{Processes, Programs, RunFolder};
use chaos::report::Report;
use chaos::scenario;
use runtime::Runtime;
use support::{chaos_queries, prove};

/// Two clusters at once would take each other's ports, and time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs a plan against a cluster of its own.
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
        queries: chaos_queries(seed),
        lanes: 16,
        faults,
        standstill: Duration::from_secs(12),
    };
    prove(&runtime, &mut processes, &plan).await
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
