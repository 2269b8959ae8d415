//! A group of one replica: proposing, reading, restarting, and starting wrongly.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use replication::{
    Applied, Group, GroupConfig, GroupId, Host, HostOptions, Member, NodeId, Outcome, ProposeError,
    ReadError, Role, SnapshotFile, Start, StartError, StopCause, shard_group,
};
use runtime::Runtime;
use vfs::{RealDisk, SimDisk, Vfs};

use crate::common::{
    ADD, BREAK, Counters, GROUP, PANIC, PATIENCE, add, alone, config, deps, open, put, settle,
    small_options, start, timing,
};

async fn on_disk(dir: &Path) -> Host {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let deps = deps(vfs, dir.to_owned(), 1, crate::common::small_options());
    Host::open(deps).await.unwrap().0
}

#[tokio::test]
async fn a_restart_brings_back_snapshot_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    for number in 0..50 {
        put(&group, &format!("name-{}", number % 7), number)
            .await
            .unwrap();
    }
    let snapshot = group.take_snapshot().await.unwrap();
    assert_eq!(Some(snapshot.info().applied), group.applied());
    assert_eq!(group.status().snapshot, Some(snapshot.info().applied.index));
    for number in 0..30 {
        put(&group, "after", number).await.unwrap();
    }
    let before = machine.state();
    let last = group.applied().unwrap();
    host.shutdown().await.unwrap();

    let host = on_disk(dir.path()).await;
    let mut progress = None;
    let again = Arc::new(Counters::default());
    let group = host
        .start_group_watched(config(Start::Resume), Arc::clone(&again), |watch| {
            progress = Some(watch);
        })
        .await
        .unwrap();
    settle(&group).await;
    assert_eq!(again.state(), before);
    assert!(
        group.applied().unwrap().index > last.index,
        "a new leader adds an entry"
    );
    let replay = progress.unwrap().get();
    assert_eq!(replay.done, replay.target);
    assert!(replay.target > snapshot.info().applied.index);
    assert_eq!(
        put(&group, "after", 1).await.unwrap().response,
        29 * 30 / 2 + 1
    );
    host.shutdown().await.unwrap();
}

/// In simulated time, in which only timers take any.
#[tokio::test(start_paused = true)]
async fn a_group_of_one_leads_at_once() {
    let disk = SimDisk::new();
    let opened = || async {
        let options = HostOptions {
            writer_thread: false,
            ..small_options()
        };
        open(Arc::new(disk.clone()), options).await.0
    };
    let host = opened().await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    host.shutdown().await.unwrap();
    let host = opened().await;
    let runtime = runtime::Runtime::real();
    let begun = runtime.now();
    let (group, machine) = start(&host, Start::Resume).await;
    settle(&group).await;
    let took = runtime.now().saturating_since(begun);
    assert_eq!(machine.get("a"), 1);
    // No election timeout is waited for.
    assert!(took < timing().election_min, "{took:?}");
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn commands_keep_their_order_and_outlive_their_proposers() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    let mut pending = Vec::new();
    for _ in 0..500 {
        pending.push(group.submit(ADD, add("n", 1)).await.unwrap());
    }
    let mut index = 0;
    for (answer, expected) in pending.into_iter().zip(1..) {
        let committed = answer.await.unwrap();
        assert_eq!(committed.response, expected);
        assert!(committed.index > index);
        index = committed.index;
    }
    drop(group.submit(ADD, add("forgotten", 3)).await.unwrap());
    group.wait_applied(index + 1, PATIENCE).await.unwrap();
    assert_eq!(machine.get("forgotten"), 3);
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn reads_are_answered_by_a_leader_and_wait_for_positions() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    let committed = put(&group, "a", 1).await.unwrap();
    let point = group.lease_check().unwrap();
    assert!(point.applied.index >= committed.index);
    let reads = (0..200).map(|_| group.read_index(PATIENCE));
    for point in futures::future::join_all(reads).await {
        assert!(point.unwrap().applied.index >= committed.index);
    }
    group.wait_applied(committed.index, PATIENCE).await.unwrap();
    let beyond = committed.index + 10;
    assert_eq!(
        group.wait_applied(beyond, Duration::from_millis(20)).await,
        Err(ReadError::Timeout { index: beyond })
    );
    group.shutdown().await;
    assert!(matches!(
        group.lease_check(),
        Err(ReadError::Stopped { .. })
    ));
    assert!(matches!(
        group.read_index(PATIENCE).await,
        Err(ReadError::Stopped { .. })
    ));
    host.shutdown().await.unwrap();
}

async fn stops_by(kind: u16) {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, alone()).await;
    let other = GroupConfig {
        group: GroupId(8),
        ..config(alone())
    };
    let other = host
        .start_group(other, Arc::new(Counters::default()))
        .await
        .unwrap();
    settle(&group).await;
    settle(&other).await;
    put(&group, "a", 5).await.unwrap();
    let error = group.propose(kind, Bytes::new()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let mut status = group.watch_status();
    let stopped = status.wait_for(|status| status.stopped.is_some());
    let stopped = runtime::Runtime::real().timeout(PATIENCE, stopped).await;
    let stopped = stopped.unwrap().unwrap().clone();
    assert_eq!(stopped.role, Role::Stopped);
    assert_eq!(stopped.stopped.unwrap().cause, StopCause::Apply);
    let error = put(&group, "a", 5).await.unwrap_err();
    assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(machine.get("a"), 5);
    // Other groups of the node are not concerned, and its disk is well.
    assert_eq!(put(&other, "a", 1).await.unwrap().response, 1);
    assert_eq!(host.groups(), [GroupId(8)]);
    assert_eq!(*host.poisoned().borrow(), None);
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_unknown_kind_stops_the_replica() {
    stops_by(99).await;
}

#[tokio::test]
async fn a_broken_invariant_stops_the_replica() {
    stops_by(BREAK).await;
}

#[tokio::test]
async fn a_panic_stops_the_replica() {
    stops_by(PANIC).await;
}

#[tokio::test]
async fn commands_above_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let machine = Arc::new(Counters::default());
    let config = GroupConfig {
        command_bytes_max: 100,
        ..config(alone())
    };
    let group = host.start_group(config, machine).await.unwrap();
    settle(&group).await;
    let error = group
        .propose(ADD, vec![b'a'; 101].into())
        .await
        .unwrap_err();
    assert_eq!(
        error,
        ProposeError::TooLarge {
            bytes: 101,
            limit: 100
        }
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn wrong_starts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let try_start = async |start: Start| {
        let machine = Arc::new(Counters::default());
        host.start_group(config(start), machine).await
    };
    assert!(matches!(
        try_start(Start::Resume).await,
        Err(StartError::NotFound { group: GROUP })
    ));
    let stranger = vec![Member::voter(NodeId(2), "127.0.0.1:2")];
    let stranger = Start::Bootstrap { members: stranger };
    assert!(matches!(
        try_start(stranger).await,
        Err(StartError::NotAMember { .. })
    ));
    assert!(!host.exists(GROUP).unwrap());

    let group = try_start(alone()).await.unwrap();
    settle(&group).await;
    assert!(host.exists(GROUP).unwrap());
    assert!(matches!(
        try_start(alone()).await,
        Err(StartError::Running { .. })
    ));
    assert!(matches!(
        host.remove_group(GROUP).await,
        Err(StartError::Running { .. })
    ));
    group.shutdown().await;
    assert!(matches!(
        try_start(alone()).await,
        Err(StartError::Exists { .. })
    ));
    assert!(matches!(
        try_start(Start::Join).await,
        Err(StartError::Exists { .. })
    ));
    let group = try_start(Start::Resume).await.unwrap();
    settle(&group).await;
    group.shutdown().await;
    let machine = Arc::downgrade(group.machine());
    drop(group);
    host.remove_group(GROUP).await.unwrap();
    assert!(!host.exists(GROUP).unwrap());
    // The last of its tasks may still be ending.
    let gone = async {
        while machine.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let gone = Runtime::real().timeout(PATIENCE, gone).await;
    gone.expect("its state is let go of");
    let group = try_start(alone()).await.unwrap();
    settle(&group).await;
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_reaches_as_far_as_is_wanted_is_not_written_again() {
    let (host, _) = open(Arc::new(SimDisk::new()), small_options()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    let wanted = put(&group, "a", 1).await.unwrap().index;
    let reaches = |file: &SnapshotFile| file.info().applied.index;
    let first = group.take_snapshot_to(wanted).await.unwrap();
    assert!(reaches(&first) >= wanted);
    let later = put(&group, "a", 1).await.unwrap().index;
    let same = group.take_snapshot_to(wanted).await.unwrap();
    assert_eq!(same.info(), first.info());
    let newer = group.take_snapshot_to(later).await.unwrap();
    assert!(reaches(&newer) >= later);
    // What nobody has written yet is not waited for.
    put(&group, "a", 1).await.unwrap();
    let newest = group.take_snapshot_to(u64::MAX).await.unwrap();
    assert!(reaches(&newest) > reaches(&newer));
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_start_is_seen_to_move_while_it_verifies_and_takes_over_its_snapshot() {
    let disk = SimDisk::new();
    let (host, _) = open(Arc::new(disk.clone()), small_options()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    let bytes = group.take_snapshot().await.unwrap().info().bytes;
    host.shutdown().await.unwrap();

    let (host, _) = open(Arc::new(disk.clone()), small_options()).await;
    let mut begun = None;
    let machine = Arc::new(Counters::default());
    host.start_group_watched(config(Start::Resume), machine, |watch| {
        begun = Some((watch.bytes(), watch));
    })
    .await
    .unwrap();
    let (at_first, watch) = begun.unwrap();
    assert_eq!(at_first, 0, "it is watched before it reads");
    assert!(watch.bytes() > 2 * bytes, "{} of {bytes}", watch.bytes());
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_new_incarnation_is_seeded_from_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    for number in 0..20 {
        put(&group, "a", number).await.unwrap();
    }
    let snapshot = group.take_snapshot().await.unwrap();
    let before = machine.state();
    // As another store would hand it over: a copy somewhere else, read and verified.
    let elsewhere = dir.path().join("copy");
    let mut bytes = Vec::new();
    std::io::copy(&mut snapshot.read().unwrap(), &mut bytes).unwrap();
    vfs::durable::replace(&RealDisk::new(), &elsewhere, &bytes).unwrap();
    let copy = SnapshotFile::open(Arc::new(RealDisk::new()), &elsewhere).unwrap();
    assert_eq!(copy.info(), snapshot.info());

    let next = shard_group(cluster::ShardId(3), cluster::Incarnation(2));
    let seed = || GroupConfig {
        group: next,
        ..config(Start::Seed {
            snapshot: copy.clone(),
            member: Member::voter(NodeId(1), "127.0.0.1:1"),
        })
    };
    let seeded = Arc::new(Counters::default());
    let group = host.start_group(seed(), Arc::clone(&seeded)).await.unwrap();
    settle(&group).await;
    assert_eq!(seeded.state(), before);
    let committed = put(&group, "a", 1).await.unwrap();
    assert_eq!(committed.response, 19 * 20 / 2 + 1);
    assert!(committed.index > snapshot.info().applied.index);
    assert!(committed.term > snapshot.info().applied.term);
    let again = host
        .start_group(seed(), Arc::new(Counters::default()))
        .await;
    assert!(matches!(again, Err(StartError::Running { .. })));
    host.shutdown().await.unwrap();

    let host = on_disk(dir.path()).await;
    let resumed = Arc::new(Counters::default());
    let resume = GroupConfig {
        group: next,
        ..config(Start::Resume)
    };
    let again = host
        .start_group(seed(), Arc::new(Counters::default()))
        .await;
    assert!(matches!(again, Err(StartError::Exists { .. })));
    let group = host
        .start_group(resume, Arc::clone(&resumed))
        .await
        .unwrap();
    settle(&group).await;
    assert_eq!(resumed.get("a"), 19 * 20 / 2 + 1);
    assert_eq!(
        group.status().members,
        [Member::voter(NodeId(1), "127.0.0.1:1")]
    );
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_policy_takes_snapshots_and_lets_go_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let machine = Arc::new(Counters::default());
    let config = GroupConfig {
        snapshots: replication::SnapshotPolicy {
            entries: 100,
            ..replication::SnapshotPolicy::default()
        },
        ..config(alone())
    };
    let group = host
        .start_group(config, Arc::clone(&machine))
        .await
        .unwrap();
    settle(&group).await;
    let runtime = runtime::Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    // The log is let go of once there are two snapshots.
    while group.status().purged.is_none() {
        assert!(runtime.now() < deadline, "{:?}", group.status());
        put(&group, "a", 1).await.unwrap();
    }
    let status = group.status();
    assert!(status.purged < status.snapshot, "{status:?}");
    let sum = machine.get("a");
    host.shutdown().await.unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, Start::Resume).await;
    settle(&group).await;
    assert_eq!(machine.get("a"), sum);
    host.shutdown().await.unwrap();
}

/// A policy under which only the end of a burst is worth a snapshot.
fn after_bursts(quiet: Duration) -> GroupConfig {
    GroupConfig {
        snapshots: replication::SnapshotPolicy {
            entries: u64::MAX,
            bytes: u64::MAX,
            interval: Duration::from_secs(3600),
            quiet,
            burst_bytes: 2_000,
        },
        ..config(alone())
    }
}

async fn write_burst(group: &Group<Counters>) {
    for number in 0..10 {
        put(group, &format!("{number:0300}"), 1).await.unwrap();
    }
}

#[tokio::test]
async fn the_end_of_a_burst_is_worth_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let machine = Arc::new(Counters::default());
    let policy = after_bursts(Duration::from_millis(1));
    let group = host.start_group(policy, machine).await.unwrap();
    settle(&group).await;
    write_burst(&group).await;
    let runtime = runtime::Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while group.status().snapshot.is_none() {
        assert!(runtime.now() < deadline, "{:?}", group.status());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_orderly_stop_leaves_little_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let never = Duration::from_secs(3600);
    let host = on_disk(dir.path()).await;
    let machine = Arc::new(Counters::default());
    let group = host
        .start_group(after_bursts(never), machine)
        .await
        .unwrap();
    settle(&group).await;
    put(&group, "little", 1).await.unwrap();
    host.shutdown().await.unwrap();

    // What is replayed at a start counts as still to be written down.
    let host = on_disk(dir.path()).await;
    let resumed = GroupConfig {
        start: Start::Resume,
        ..after_bursts(never)
    };
    let machine = Arc::new(Counters::default());
    let group = host.start_group(resumed.clone(), machine).await.unwrap();
    settle(&group).await;
    assert!(group.latest_snapshot().is_none(), "a little is no burst");
    write_burst(&group).await;
    let applied = group.applied();
    host.shutdown().await.unwrap();

    let host = on_disk(dir.path()).await;
    let machine = Arc::new(Counters::default());
    let group = host
        .start_group(resumed, Arc::clone(&machine))
        .await
        .unwrap();
    settle(&group).await;
    let held = group.latest_snapshot().map(|file| file.info().applied);
    assert_eq!(held, applied);
    assert_eq!((machine.get("little"), machine.sum()), (1, 11));
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_grows_too_large_makes_idle_groups_move_on() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let options = HostOptions {
        log_bytes_max: 64 << 10,
        ..crate::common::small_options()
    };
    let (host, _) = Host::open(deps(vfs, dir.path().to_owned(), 1, options))
        .await
        .unwrap();
    let (idle, _) = start(&host, alone()).await;
    let busy = GroupConfig {
        group: GroupId(8),
        ..config(alone())
    };
    let busy = host
        .start_group(busy, Arc::new(Counters::default()))
        .await
        .unwrap();
    settle(&idle).await;
    settle(&busy).await;
    put(&idle, "early", 1).await.unwrap();
    let runtime = runtime::Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let mut number = 0;
    while idle.status().purged.is_none() || host.wal().oldest_segment() < 3 {
        assert!(runtime.now() < deadline, "{:?}", idle.status());
        number += 1;
        put(&busy, &format!("{number:0300}"), 1).await.unwrap();
    }
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_group_that_was_shut_down_still_has_its_snapshots_by_their_entries() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    let taken = group.take_snapshot().await.unwrap();
    let applied = taken.info().applied;
    let refused = host.snapshot_of(GROUP, applied).await.unwrap_err();
    assert!(matches!(refused, StartError::Running { .. }), "{refused}");
    group.shutdown().await;
    host.forget_group(GROUP);
    let found = host.snapshot_of(GROUP, applied).await.unwrap().unwrap();
    assert_eq!(found.info(), taken.info());
    let later = Applied {
        index: applied.index + 1,
        ..applied
    };
    assert!(host.snapshot_of(GROUP, later).await.unwrap().is_none());
    host.remove_group(GROUP).await.unwrap();
    assert!(host.snapshot_of(GROUP, applied).await.unwrap().is_none());
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_begins_from_a_snapshot_alone_takes_over_its_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let host = on_disk(dir.path()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    group.take_snapshot().await.unwrap();
    let stamp_ms = group.stamp_ms();
    assert!(stamp_ms > 0);
    host.shutdown().await.unwrap();
    let host = on_disk(dir.path()).await;
    let (group, machine) = start(&host, Start::Resume).await;
    settle(&group).await;
    assert_eq!(machine.get("a"), 1);
    // What a new leader writes carries none.
    assert_eq!(group.stamp_ms(), stamp_ms);
    host.shutdown().await.unwrap();
}
