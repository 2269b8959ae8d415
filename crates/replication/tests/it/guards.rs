//! Tasks that panic: the replica, or the node, stops with a word, and nobody waits in vain.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replication::{
    Group, GroupConfig, GroupId, Host, HostDeps, HostOptions, Member, NodeId, ProposeError,
    ReadError, Start, StopCause, WalOptions,
};
use runtime::{Runtime, Task, TaskFaults};
use vfs::{SimDisk, Vfs};

use crate::common::{ADD, Counters, PATIENCE, add, alone, deps, put, settle, small_options, start};

/// Longer than a test runs: what ends sooner was not ended by it.
const LIMIT: Duration = Duration::from_secs(3_600);

async fn open(disk: &SimDisk, faults: &TaskFaults) -> Host {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let found = deps(vfs, PathBuf::from("/data"), 1, small_options());
    let runtime = found.runtime.clone().with_task_faults(faults.clone());
    let (host, _) = Host::open(HostDeps { runtime, ..found }).await.unwrap();
    host
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    Runtime::real().timeout(PATIENCE, future).await.unwrap()
}

/// One who waits for an entry that never comes.
fn wait(group: &Group<Counters>) -> Task<Result<replication::ReadPoint, ReadError>> {
    let group = group.clone();
    let wait = async move { group.wait_applied(1_000_000, LIMIT).await };
    Runtime::real().spawn("waits", wait)
}

/// Waits for the end of a replica, and for the word of everybody who waited for it.
async fn all_are_told(
    group: &Group<Counters>,
    name: &str,
    waits: Task<Result<replication::ReadPoint, ReadError>>,
) {
    let told = soon(waits).await.unwrap().unwrap_err();
    assert!(matches!(told, ReadError::Stopped { .. }), "{name}: {told}");
    let mut status = group.watch_status();
    let stopped = soon(status.wait_for(|status| status.stopped.is_some()));
    let stopped = stopped.await.unwrap().stopped.clone().unwrap();
    assert_eq!(stopped.cause, StopCause::Internal, "{name}");
    assert!(stopped.reason.contains(name), "{name}: {}", stopped.reason);
    let refused = put(group, "late", 1).await.unwrap_err();
    let expected =
        matches!(&refused, ProposeError::Stopped { reason, .. } if *reason == stopped.reason);
    assert!(expected, "{name}: {refused}");
    let refused = soon(group.read_index(LIMIT)).await.unwrap_err();
    assert!(matches!(refused, ReadError::Stopped { .. }), "{refused}");
    soon(group.ended()).await;
}

const OF_A_GROUP: [&str; 3] = ["group-reads", "group-snapshots", "group-status"];
const OF_A_HOST: [&str; 4] = ["host-damage", "host-maintain", "host-scrub", "host-stall"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stops_with_any_of_its_tasks_and_a_start_brings_it_back() {
    let (disk, faults) = (SimDisk::new(), TaskFaults::default());
    let host = open(&disk, &faults).await;
    let (mut group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    for (round, name) in OF_A_GROUP.into_iter().enumerate() {
        let expected = [&OF_A_GROUP[..], &OF_A_HOST].concat();
        // Those of the life before may still be ending.
        let only_these = async {
            while faults.running() != expected {
                tokio::task::yield_now().await;
            }
        };
        soon(only_these).await;
        let waits = wait(&group);
        // An entry that does not get to the disk meanwhile.
        disk.hold_syncs(true);
        let pending = group.submit(ADD, add("b", 1)).await.unwrap();
        assert!(faults.strike(name));
        let lost = soon(pending).await.unwrap_err();
        assert_eq!(lost.outcome(), replication::Outcome::Unknown, "{lost}");
        all_are_told(&group, name, waits).await;
        disk.hold_syncs(false);
        let (again, machine) = start(&host, Start::Resume).await;
        group = again;
        settle(&group).await;
        assert_eq!(machine.get("a"), 1, "what was acknowledged is there");
        assert!(machine.get("b") <= round as u64 + 1);
    }
    host.shutdown().await.unwrap();
    let all_have_ended = async {
        while !faults.running().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(all_have_ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_silent_for_now_does_not_stay_so() {
    let (disk, faults) = (SimDisk::new(), TaskFaults::default());
    let host = open(&disk, &faults).await;
    let members = [1, 2].map(|node| Member::voter(NodeId(node), "127.0.0.1:1"));
    let members = members.to_vec();
    let (group, _) = start(&host, Start::Bootstrap { members }).await;
    group.shutdown().await;
    let (group, _) = start(&host, Start::Resume).await;
    let waits = wait(&group);
    assert!(faults.strike("group-silence"));
    all_are_told(&group, "group-silence", waits).await;
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stops_with_the_task_that_applies() {
    let disk = SimDisk::new();
    let host = open(&disk, &TaskFaults::default()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    let waits = wait(&group);
    machine.break_views();
    soon(group.take_snapshot()).await.unwrap_err();
    all_are_told(&group, "state-machine", waits).await;
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_with_any_of_the_tasks_of_its_log() {
    for name in OF_A_HOST {
        let (disk, faults) = (SimDisk::new(), TaskFaults::default());
        let host = open(&disk, &faults).await;
        assert_eq!(faults.running(), OF_A_HOST);
        let mut poisoned = host.poisoned();
        assert!(faults.strike(name));
        let told = soon(poisoned.wait_for(Option::is_some)).await.unwrap();
        let told = told.clone().unwrap();
        assert!(told.contains(name), "{name}: {told}");
        drop(host.shutdown().await);
    }
}

/// From outside of the runtime: where every thread of it waited, nothing in it would tell.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the thread of a test, which watches a runtime that may not work any more"
)]
fn a_disk_that_hangs_is_noticed_however_much_waits_for_it() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let executor = builder.worker_threads(2).enable_all().build().unwrap();
    let disk = SimDisk::new();
    let options = HostOptions {
        wal: WalOptions {
            queue_bytes_max: 16 << 10,
            ..WalOptions::small()
        },
        stall_max: Some(Duration::from_secs(5)),
        ..small_options()
    };
    let begin = async {
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let (host, _) = crate::common::open(vfs, options).await;
        let mut groups = Vec::new();
        for id in 1..=3 {
            let config = GroupConfig::new(GroupId(id), alone());
            let machine = Arc::new(Counters::default());
            let group = host.start_group(config, machine).await.unwrap();
            settle(&group).await;
            groups.push(group);
        }
        (host, groups)
    };
    let (host, groups) = executor.block_on(begin);
    disk.hold_syncs(true);
    for group in groups.iter().cycle().take(12) {
        let group = group.clone();
        let name = "n".repeat(8 << 10);
        // It is never answered.
        drop(executor.spawn(async move { put(&group, &name, 1).await }));
    }
    let poisoned = host.poisoned();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while poisoned.borrow().is_none() && runtime.now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Where threads wait for the disk, they must be let go before the runtime can be.
    disk.hold_syncs(false);
    executor.shutdown_background();
    assert!(poisoned.borrow().is_some(), "nobody notices");
}
