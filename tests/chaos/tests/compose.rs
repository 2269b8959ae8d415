//! The same on containers, by the docker-compose.yml that operators use.

use chaos::compose::Compose;
use chaos::deployment::{Deployment as _, Shape};
use chaos::faults::Fault;
use chaos::{queries, scenario};
use runtime::Runtime;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_count_is_lost_or_doubled_when_containers_are_struck() {
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
    let mut compose = Compose::start(Shape::REPLICATED).unwrap();
    let plan = scenario::Plan {
        name: "compose".to_owned(),
        seed: 2,
        queries: queries::synthetic(2, 12_000),
        lanes: 16,
        faults: vec![Fault::Kill, Fault::Pause],
    };
    let outcome = scenario::run(&Runtime::real(), &compose, &plan).await;
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
