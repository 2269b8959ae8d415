//! What a node's log is held back by, and how it is let go of.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use replication::{Applied, Group, GroupConfig, GroupId, Host, HostOptions, Start, StartError};
use runtime::Runtime;
use vfs::{RealDisk, Vfs};

use crate::common::trio::{Trio, World, begin, trio_config};
use crate::common::{
    Counters, GROUP, Node, PATIENCE, alone, config, deps, put, settle, small_options,
};

const LOG_BYTES_MAX: u64 = 64 << 10;

/// A node whose log is soon too long, a group that takes no snapshot by itself, and one that writes.
async fn crowded(dir: &Path) -> (Host, Group<Counters>, Group<Counters>) {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let options = HostOptions {
        log_bytes_max: LOG_BYTES_MAX,
        ..small_options()
    };
    let opened = Host::open(deps(vfs, dir.to_owned(), 1, options)).await;
    let (host, _) = opened.unwrap();
    let (group, _) = begin(&host, alone()).await;
    settle(&group).await;
    let busy = start_busy(&host, alone()).await;
    (host, group, busy)
}

/// Another group of a node, to fill its log.
async fn start_busy(host: &Host, start: Start) -> Group<Counters> {
    let busy = GroupConfig {
        group: GroupId(8),
        ..config(start)
    };
    let machine = Arc::new(Counters::default());
    let busy = host.start_group(busy, machine).await.unwrap();
    settle(&busy).await;
    busy
}

/// The start of a group that has no other member than a node.
fn alone_at(node: &Node) -> Start {
    Start::Bootstrap {
        members: vec![node.member()],
    }
}

/// Two generations of snapshots everywhere: what lies between them is held back.
async fn two_generations(trio: &Trio) {
    for number in 0..2 {
        let leader = trio.leader().await;
        put(&leader.group, &number.to_string(), 1).await.unwrap();
        trio.agree().await;
        for replica in trio.replicas.values() {
            replica.group.take_snapshot().await.unwrap();
        }
    }
}

/// Two snapshots, and an entry behind them.
async fn two_snapshots(group: &Group<Counters>) -> [Applied; 2] {
    put(group, "a", 1).await.unwrap();
    let older = group.take_snapshot().await.unwrap().info().applied;
    put(group, "a", 2).await.unwrap();
    let newer = group.take_snapshot().await.unwrap().info().applied;
    put(group, "a", 3).await.unwrap();
    [older, newer]
}

async fn write_until(busy: &Group<Counters>, mut is_reached: impl FnMut() -> bool) {
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let mut number = 0;
    while !is_reached() {
        assert!(runtime.now() < deadline, "after {number} entries");
        number += 1;
        put(busy, &format!("{number:0300}"), 1).await.unwrap();
    }
}

/// Whether a group that does not run has a snapshot, once nobody is at work on it.
async fn has_snapshot(host: &Host, applied: Applied) -> bool {
    let runtime = Runtime::real();
    let look = async {
        loop {
            match host.snapshot_of(GROUP, applied).await {
                Err(StartError::Running { .. }) => runtime.sleep(Duration::from_millis(5)).await,
                found => return found.unwrap().is_some(),
            }
        }
    };
    runtime.timeout(PATIENCE, look).await.unwrap()
}

#[tokio::test]
async fn of_a_group_that_is_not_started_again_snapshots_stay_up_to_the_last_entry_and_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let (host, group, busy) = crowded(dir.path()).await;
    let [older, newer] = two_snapshots(&group).await;
    let last = group.applied().unwrap();
    let held = host.wal().oldest_segment();
    group.retire().await;
    host.forget_group(GROUP);
    host.retire_group(GROUP);
    write_until(&busy, || {
        host.wal().group(GROUP).first_index > last.index && host.wal().oldest_segment() > held
    })
    .await;
    assert!(last > newer);
    for applied in [older, newer, last] {
        assert!(has_snapshot(&host, applied).await, "{applied:?}");
    }
    host.remove_group(GROUP).await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_group_that_may_be_started_again_the_log_stays_back_to_the_older_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (host, group, busy) = crowded(dir.path()).await;
    let [older, _] = two_snapshots(&group).await;
    group.shutdown().await;
    // Long enough for it to be looked at more than once.
    let runtime = Runtime::real();
    let enough = runtime.now() + Duration::from_secs(2);
    write_until(&busy, || {
        runtime.now() > enough && host.wal_stats().log_bytes > 2 * LOG_BYTES_MAX
    })
    .await;
    let state = host.wal().group(GROUP);
    assert!(state.first_index <= older.index + 1, "{state:?}");
    let machine = Arc::new(Counters::default());
    let config = trio_config(Start::Resume);
    let resumed = host.start_group(config, Arc::clone(&machine)).await;
    settle(&resumed.unwrap()).await;
    assert_eq!(machine.get("a"), 6);
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_nobody_leads_lets_go_of_the_log_up_to_its_newest_snapshot() {
    let mut world = World::new();
    world.options.log_bytes_max = LOG_BYTES_MAX;
    let mut trio = Trio::within(world).await;
    two_generations(&trio).await;
    let (leads, others) = trio.roles().await;
    // In this order, so that the last has nobody to elect.
    trio.kill(others[1]).await;
    trio.kill(leads).await;
    let left = &trio.replicas[&others[0]];
    let before = left.group.status();
    let host = left.node.host.clone();
    let busy = start_busy(&host, alone_at(&left.node)).await;
    let held = host.wal().oldest_segment();
    write_until(&busy, || {
        left.group.status().purged >= before.last_log && host.wal().oldest_segment() > held
    })
    .await;
    let newest = left.group.latest_snapshot().unwrap();
    assert_eq!(Some(newest.info().applied), left.group.applied());
    drop((newest, host));
    trio.revive(leads).await;
    trio.revive(others[1]).await;
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_lets_go_of_the_log_of_a_follower_that_has_another_to_do() {
    let mut world = World::new();
    world.options.log_bytes_max = 64 << 10;
    let trio = Trio::within(world).await;
    two_generations(&trio).await;
    let (leads, others) = trio.roles().await;
    let follower = &trio.replicas[&others[0]];
    let host = &follower.node.host;
    let before = trio.replicas[&leads].group.status();
    let busy = start_busy(host, alone_at(&follower.node)).await;
    let held = host.wal().oldest_segment();
    write_until(&busy, || {
        follower.group.status().purged > before.last_log && host.wal().oldest_segment() > held
    })
    .await;
    // Nobody else has anything to do with it: the leader wrote for the one that asked.
    let after = trio.replicas[&leads].group.status();
    assert!(after.last_log > before.last_log, "{after:?}");
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_nobody_leads_keeps_the_log_that_a_rotten_snapshot_would_stand_for() {
    let options = HostOptions {
        log_bytes_max: LOG_BYTES_MAX,
        ..small_options()
    };
    let mut trio = Trio::within(World::simulated(options)).await;
    two_generations(&trio).await;
    let (leads, others) = trio.roles().await;
    let left = others[0];
    trio.kill(others[1]).await;
    trio.kill(leads).await;
    let disk = trio.world.disks[&left].clone();
    let dir = Path::new("/data/snapshots/0000000000000007");
    let newest = disk.list_dir(dir).unwrap().pop().unwrap();
    disk.flip_bit(&dir.join(&newest.name), 999).unwrap();
    let node = &trio.replicas[&left].node;
    let host = node.host.clone();
    let busy = start_busy(&host, alone_at(node)).await;
    // Longer than a group counts as led, and than several snapshots in a row take that free nothing.
    let runtime = Runtime::real();
    let enough = runtime.now() + Duration::from_secs(12);
    write_until(&busy, || {
        runtime.now() > enough && host.wal_stats().log_bytes > 2 * LOG_BYTES_MAX
    })
    .await;
    drop((busy, host));
    // It begins from the older one, and has the log behind that.
    trio.kill(left).await;
    for node in [left, leads, others[1]] {
        trio.revive(node).await;
    }
    trio.agree().await;
    trio.end().await;
}
