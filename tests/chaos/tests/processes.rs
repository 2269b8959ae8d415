//! Kills shard servers that run as processes on loopback, under a stream of queries, and judges every count.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "helpers of a test; what was left out is said to whoever runs it"
)]

use std::path::Path;

use chaos::deployment::Deployment as _;
use chaos::processes::{Processes, Programs, RunFolder};
use chaos::{queries, scenario};
use runtime::Runtime;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_count_is_lost_or_doubled_when_shard_servers_are_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(scratch.path()).unwrap();
    let mut processes = Processes::start(folder, &Programs::build().unwrap()).unwrap();
    let plan = scenario::Plan {
        name: "processes".to_owned(),
        seed: 1,
        queries: chaos_queries(),
        lanes: 16,
        kills: 2,
    };
    let outcome = scenario::run(&Runtime::real(), &processes, &plan).await;
    processes.stop().unwrap();
    let (report, _) = outcome.unwrap_or_else(|error| panic!("{error:#}\n{}", logs(scratch.path())));
    println!("{report}");
    assert_eq!(report.violations, vec![]);
    assert_eq!(report.open, 0, "every Record was settled in the end");
    assert_eq!(report.kills.len(), plan.kills);
    assert!(report.recoveries_counted >= plan.kills as u64);
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

fn logs(folder: &Path) -> String {
    ["coordinator", "shard-1", "shard-2", "shard-3", "watchdog"]
        .map(|name| {
            let log = std::fs::read(folder.join(format!("{name}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.len().saturating_sub(40);
            format!("--- {name}\n{}", lines[tail..].join("\n"))
        })
        .join("\n")
}
