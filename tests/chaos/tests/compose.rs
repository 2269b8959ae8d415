//! The same on containers, by the docker-compose.yml that operators use.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of tests; what was left out is said to whoever runs them"
)]

use std::time::Duration;

use chaos::compose::Compose;
use chaos::deployment::{Deployment as _, Shape};
use chaos::faults::{Fault, Needs};
use chaos::{queries, scenario};
use runtime::Runtime;

async fn run(seed: u64, faults: Vec<Fault>) {
    let required = std::env::var_os("REQUIRE_ALL").is_some();
    if !required {
        println!(
            "left out: containers are only tried with REQUIRE_ALL=1, for the image takes minutes to build"
        );
        return;
    }
    assert!(
        Compose::is_available(),
        "docker and docker-compose are required"
    );
    let (runtime, needs) = (Runtime::real(), Needs::of(&faults));
    let started = Compose::start(&runtime, Shape::REPLICATED, needs).await;
    let mut compose = started.unwrap();
    let plan = scenario::Plan {
        name: "compose".to_owned(),
        seed,
        queries: queries::synthetic(seed, 12_000),
        lanes: 16,
        faults,
        standstill: Duration::from_secs(12),
    };
    let outcome = scenario::run(&runtime, &compose, &plan).await;
    let logs = compose.logs();
    compose.stop().unwrap();
    let (report, _) = outcome.unwrap_or_else(|error| panic!("{error:#}\n{logs}"));
    println!("{report}");
    assert_eq!(report.violations, vec![]);
    assert_eq!(report.open, 0, "every Record was settled in the end");
    assert_eq!(report.blows.len(), plan.faults.len());
    // Who restarts is the restart policy here, often sooner than the watchdog has missed three polls, so it need not have
    // counted an attempt.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_count_is_lost_or_doubled_when_containers_are_struck() {
    run(2, vec![Fault::Kill, Fault::Pause]).await;
}
