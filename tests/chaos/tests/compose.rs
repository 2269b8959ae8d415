//! The same on containers, by the docker-compose.yml that operators use.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of tests; what was left out is said to whoever runs them"
)]

mod support;

use chaos::compose::Compose;
use chaos::deployment::{SHARDS, Shape};
use chaos::faults::{Fault, Needs};
use chaos::report::Report;
use runtime::Runtime;
use support::{plan, prove};
use tokio::sync::Mutex;

/// All containers have the same names and ports.
static ONE_CLUSTER: Mutex<()> = Mutex::const_new(());

/// Runs a plan against a cluster of its own, if containers are tried at all.
async fn run(seed: u64, faults: Vec<Fault>) -> Option<Report> {
    let required = std::env::var_os("REQUIRE_ALL").is_some();
    if !required {
        println!(
            "left out: containers are only tried with REQUIRE_ALL=1, for the image takes minutes to build"
        );
        return None;
    }
    assert!(
        Compose::is_available(),
        "docker and docker-compose are required"
    );
    let _alone = ONE_CLUSTER.lock().await;
    let (runtime, needs) = (Runtime::real(), Needs::of(&faults));
    let started = Compose::start(&runtime, Shape::REPLICATED, needs).await;
    let mut compose = started.unwrap();
    let plan = plan("compose", seed, faults);
    let report = prove(&runtime, &mut compose, &plan).await;
    let blows = plan.faults.iter().map(|fault| fault.blows(SHARDS));
    assert_eq!(report.blows.len(), blows.sum::<usize>());
    Some(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_count_is_lost_or_doubled_when_containers_are_struck() {
    // Who restarts is the restart policy here, often sooner than the watchdog has missed three polls, so it need not have
    // counted an attempt.
    let faults = vec![Fault::Kill, Fault::Pause, Fault::Roll, Fault::KillAll];
    run(2, faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_hangs_is_restarted_by_a_watchdog() {
    let report = run(3, vec![Fault::Hang]).await;
    assert!(report.is_none_or(|report| report.recoveries_counted >= 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_lose_nothing_when_their_links_and_their_disks_are_struck() {
    let faults = vec![
        Fault::OneWay,
        Fault::HalfOpen,
        Fault::FullDisk,
        Fault::FlipMiddle,
        Fault::FlipEnd,
        Fault::Wipe,
        Fault::Coordinator,
        Fault::CoordinatorWipe,
        Fault::StopLeader,
        Fault::Cut,
        Fault::Everything,
    ];
    let report = run(4, faults).await;
    assert!(report.is_none_or(|report| {
        let standstills = report.blows.iter().filter_map(|at| at.standstill.as_ref());
        standstills.count() == 1
    }));
}
