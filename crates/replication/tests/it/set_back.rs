//! A disk of three that comes back as it was some time before: its log is sound in itself, and only the others can tell.

use std::path::PathBuf;
use std::sync::Arc;

use replication::{Host, OpenError, Role, Start, StopCause};
use runtime::Runtime;

use crate::common::trio::{Trio, World, begin};
use crate::common::{PATIENCE, deps, put, small_options, timing};

const BEFORE: u64 = 5;
const SINCE: u64 = 20;

/// Three replicas of which a follower has an older disk than it had, and is down. Says who leads, who that is, and who is left.
async fn with_an_older_disk() -> (Trio, u64, u64, u64) {
    let mut trio = Trio::within(World::simulated(small_options())).await;
    let (leads, others) = trio.roles().await;
    let leader = &trio.replicas[&leads];
    for _ in 0..BEFORE {
        put(&leader.group, "a", 1).await.unwrap();
    }
    trio.agree().await;
    let [back, third] = others[..] else {
        panic!("{others:?} follow");
    };
    let image = trio.world.disks[&back].crash_losing_all();
    for _ in 0..SINCE {
        put(&leader.group, "a", 1).await.unwrap();
    }
    trio.agree().await;
    trio.kill(back).await;
    trio.world.disks.insert(back, image);
    (trio, leads, back, third)
}

/// Waits until a node knows that its disk was set back. Nothing of it answers then, and its next start refuses.
async fn is_told(trio: &mut Trio, back: u64) {
    let runtime = Runtime::real();
    let replica = &trio.replicas[&back];
    let mut ended = replica.node.host.poisoned();
    let told = runtime.timeout(PATIENCE, ended.wait_for(Option::is_some));
    told.await.unwrap().unwrap();
    assert!(replica.node.host.damaged().borrow().is_some());
    let status = replica.group.status();
    let stopped = status.stopped.clone().unwrap();
    assert_eq!(stopped.cause, StopCause::DataLoss, "{status:?}");
    assert_ne!(status.role, Role::Leader);
    trio.kill(back).await;
    for _ in 0..2 {
        let disk = trio.world.disks[&back].crash_losing_all();
        let again = deps(
            Arc::new(disk.clone()),
            PathBuf::from("/data"),
            back,
            small_options(),
        );
        let refused = Host::open(again).await.unwrap_err();
        assert!(refused.is_damage());
        assert!(matches!(refused, OpenError::SetBack { .. }), "{refused}");
        trio.world.disks.insert(back, disk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_set_back_is_noticed_and_has_no_say_any_more() {
    let (mut trio, _, back, _) = with_an_older_disk().await;
    trio.revive(back).await;
    is_told(&mut trio, back).await;
    let leader = trio.leader().await;
    put(&leader.group, "a", 1).await.unwrap();
    assert_eq!(leader.machine.get("a"), BEFORE + SINCE + 1);
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_nobody_hears_of_do_not_hide_that_a_disk_was_set_back() {
    let (mut trio, leads, back, _) = with_an_older_disk().await;
    for _ in 0..2 {
        let disk: Arc<dyn vfs::Vfs> = Arc::new(trio.world.disks[&back].clone());
        let alone = deps(disk, PathBuf::from("/data"), back, small_options());
        let (host, _) = Host::open(alone).await.unwrap();
        host.shutdown().await.unwrap();
    }
    trio.kill(leads).await;
    trio.revive(back).await;
    is_told(&mut trio, back).await;
    trio.revive(leads).await;
    let leader = trio.leader().await;
    assert_eq!(leader.machine.get("a"), BEFORE + SINCE);
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_leader_knew_of_a_disk_is_known_without_it() {
    let (mut trio, leads, back, third) = with_an_older_disk().await;
    trio.kill(leads).await;
    trio.revive(back).await;
    is_told(&mut trio, back).await;
    // The two of them would have been a majority.
    let alone = &trio.replicas[&third];
    let runtime = Runtime::real();
    let until = runtime.now() + timing().election_max * 5;
    while runtime.now() < until {
        assert!(alone.group.lease_check().is_err());
        runtime.sleep(timing().election_max / 10).await;
    }
    trio.revive(leads).await;
    let leader = trio.leader().await;
    assert_eq!(leader.machine.get("a"), BEFORE + SINCE);
    put(&leader.group, "a", 1).await.unwrap();
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_knew_of_a_disk_outlives_its_replica() {
    let (mut trio, leads, back, third) = with_an_older_disk().await;
    trio.kill(leads).await;
    // The group ends and begins again, and the process goes on: nobody else is left who knows.
    let witness = trio.replicas.get_mut(&third).unwrap();
    witness.group.shutdown().await;
    (witness.group, witness.machine) = begin(&witness.node.host, Start::Resume).await;
    trio.revive(back).await;
    is_told(&mut trio, back).await;
    trio.revive(leads).await;
    let leader = trio.leader().await;
    assert_eq!(leader.machine.get("a"), BEFORE + SINCE);
    put(&leader.group, "a", 1).await.unwrap();
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_restarts_with_what_it_had_is_believed() {
    let (mut trio, leads, back, third) = with_an_older_disk().await;
    trio.kill(leads).await;
    trio.kill(third).await;
    // Whoever remembers starts first, and is heard of what it was told.
    for id in [third, leads] {
        let disk = trio.world.disks[&id].crash_losing_all();
        trio.world.disks.insert(id, disk);
        trio.revive(id).await;
    }
    for round in 0..3 {
        let (leads, others) = trio.roles().await;
        put(&trio.replicas[&leads].group, "a", 1).await.unwrap();
        trio.agree().await;
        for id in [leads, others[0]] {
            trio.kill(id).await;
            trio.revive(id).await;
            let leader = trio.leader().await;
            assert_eq!(leader.machine.get("a"), BEFORE + SINCE + round + 1);
        }
    }
    assert!(!trio.replicas.contains_key(&back));
    for replica in trio.replicas.values() {
        assert_eq!(*replica.node.host.damaged().borrow(), None);
    }
    trio.end().await;
}
