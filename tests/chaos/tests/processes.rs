//! Strikes at a cluster of processes on loopback, under a stream of queries, and judges every count.

#![expect(clippy::unwrap_used, reason = "a helper of tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use chaos::backlog;
use chaos::deployment::{Deployment as _, Shape};
use chaos::faults::{Fault, Needs, wait_for};
use chaos::processes::{Processes, Programs, RunFolder, Spec};
use chaos::report::Report;
use chaos::whole::wait_until_whole;
use runtime::Runtime;
use support::{plan, prove};

/// Calls as a page makes them, each with the trace id that it is to leave.
const TRACED: [(&str, &str, &str); 2] = [
    (
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "POST /v1/record",
        r#"{"term":"apple"}"#,
    ),
    (
        "7d3efb1b173fecfa3ae1d5d8f3a1c2b0",
        "GET /v1/suggest?q=a",
        "",
    ),
];
/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two clusters at once would take each other's ports, and time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Starts a cluster, whose processes keep everything in a folder below this one. Whoever asks has its turn.
async fn start(
    runtime: &Runtime,
    scratch: &Path,
    shape: Shape,
    needs: Needs,
) -> (Processes, RunFolder) {
    let (folder, programs) = (
        RunFolder::create(scratch).unwrap(),
        Programs::build().unwrap(),
    );
    let started = Processes::start(runtime, folder.clone(), &programs, shape, needs).await;
    (started.unwrap(), folder)
}

/// Runs a plan against a cluster of its own.
async fn run(shape: Shape, seed: u64, faults: Vec<Fault>) -> Report {
    let _turn = ONE_AT_A_TIME.lock().await;
    let (runtime, scratch) = (Runtime::real(), tempfile::tempdir().unwrap());
    let (mut processes, _) = start(&runtime, scratch.path(), shape, Needs::of(&faults)).await;
    let plan = plan("processes", seed, faults);
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
        Fault::CoordinatorWipe,
        Fault::FlipMiddle,
        Fault::CoordinatorPause,
        Fault::FlipEnd,
        Fault::WipeLive,
        Fault::Hang,
        Fault::KillAll,
    ];
    let report = run(Shape::REPLICATED, 2, faults.clone()).await;
    assert_eq!(report.blows.len(), faults.len());
    assert!(report.batches > 0 && report.deletions > 0, "{report}");
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
async fn a_trace_id_is_in_the_log_of_every_process_that_its_request_passed() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let (runtime, scratch) = (Runtime::real(), tempfile::tempdir().unwrap());
    let needs = Needs::default();
    let (mut processes, folder) = start(&runtime, scratch.path(), Shape::SINGLE, needs).await;
    wait_until_whole(&runtime, &processes, PATIENCE)
        .await
        .unwrap();
    for (trace, what, body) in TRACED {
        // One that takes too long for the server's deadline is called again.
        let called = || Ok(call(&folder, what, body, trace).starts_with("HTTP/1.1 200"));
        let answered = wait_for(&runtime, PATIENCE, called).await;
        answered.unwrap_or_else(|_| panic!("{what}: {}", call(&folder, what, body, trace)));
    }
    // Each writes its line when its part is over, which may be after the answer.
    let kinds = |logs: &str, trace: &str| -> Vec<String> {
        let is_told = |line: &str| line.contains(trace) && line.contains("traced call");
        let parts = logs.split("--- ");
        let told = parts.filter(|part| part.lines().any(is_told));
        let kinds = told.filter_map(|part| part.split('-').next());
        kinds.map(str::to_owned).collect()
    };
    let both_tell = |logs: &str| {
        let mut traces = TRACED.iter().map(|(trace, _, _)| kinds(logs, trace));
        traces.all(|kinds| kinds == ["coordinator", "shard"])
    };
    let told = wait_for(&runtime, PATIENCE, || Ok(both_tell(&processes.logs()))).await;
    let (logs, stopped) = (processes.logs(), processes.stop());
    told.unwrap_or_else(|_| panic!("coordinator and shard do not both tell of the calls\n{logs}"));
    stopped.unwrap();
}

/// Calls the first coordinator as a page does.
fn call(folder: &RunFolder, what: &str, body: &str, trace: &str) -> String {
    let spec = std::fs::read_to_string(folder.path("coordinator-1.json")).unwrap();
    let spec: Spec = serde_json::from_str(&spec).unwrap();
    let arguments = spec.arguments.iter();
    let mut arguments = arguments.skip_while(|argument| *argument != "--http-addr");
    let address = arguments.nth(1).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {bytes}\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Batches of 100,000 bytes of terms.
const BACKLOG_BATCHES: usize = 3_000;
/// What a leader may keep for a follower, however much is written beside it.
const BACKLOG_BYTES_MAX: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hears_nothing_costs_its_leaders_little_memory() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let (runtime, scratch) = (Runtime::real(), tempfile::tempdir().unwrap());
    let needs = Needs::default();
    let (mut processes, _) = start(&runtime, scratch.path(), Shape::REPLICATED, needs).await;
    let backlog = backlog::measure(&runtime, &processes, BACKLOG_BATCHES).await;
    let (logs, stopped) = (processes.logs(), processes.stop());
    let backlog = backlog.unwrap_or_else(|error| panic!("{logs}\n{error:#}\n{stopped:?}"));
    println!("{backlog:?}");
    assert_eq!(backlog.growth.len(), 2, "{backlog:?}");
    // One server leads more than half of it, and it takes two thirds of its bytes compressed: that is what would be kept without a bound.
    let unbounded = backlog.written_bytes / 3;
    assert!(unbounded > BACKLOG_BYTES_MAX, "too little was written");
    let mut growth = backlog.growth.values();
    assert!(growth.all(|&at| at < BACKLOG_BYTES_MAX), "{backlog:?}");
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
