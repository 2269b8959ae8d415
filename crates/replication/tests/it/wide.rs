//! Groups of more than three: five voters of which two may be lost, and a learner whose link is cut.

use std::time::Duration;

use replication::{ChangeError, NodeId, ReadError, Role, Start};
use runtime::Runtime;

use crate::common::trio::{Replica, Trio, World, begin};
use crate::common::{ADD, Counters, PATIENCE, add, put, timing};

async fn write(group: &replication::Group<Counters>, name: &str, times: u64) {
    for _ in 0..times {
        put(group, name, 1).await.unwrap();
    }
}

/// Waits until none of the replicas may answer on its own.
async fn nobody_has_a_lease(trio: &Trio) {
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let has_lease = |replica: &Replica| replica.group.lease_check().is_ok();
    while trio.replicas.values().any(has_lease) {
        assert!(runtime.now() < deadline, "a lease goes on");
        runtime.sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_voters_go_on_without_two_and_answer_nothing_strict_without_three() {
    let mut five = Trio::of(World::new(), 5).await;
    let (leads, others) = five.roles().await;
    write(&five.replicas[&leads].group, "five", 20).await;
    five.kill(leads).await;
    five.kill(others[0]).await;
    let leader = five.leader().await;
    write(&leader.group, "three", 20).await;
    leader.group.read_index(PATIENCE).await.unwrap();
    assert_eq!(leader.machine.get("five"), 20);

    // Of those that are left one that follows goes: the leader is there, and may do nothing.
    let (leads, others) = five.roles().await;
    five.kill(others[0]).await;
    nobody_has_a_lease(&five).await;
    let leader = &five.replicas[&leads].group;
    let read = leader.read_index(timing().election_max).await;
    let refused = matches!(
        read,
        Err(ReadError::NoQuorum | ReadError::NotLeader { .. } | ReadError::LeaseExpired)
    );
    assert!(refused, "{read:?}");
    let lonely = leader.submit(ADD, add("lonely", 1)).await;
    let runtime = Runtime::real();
    if let Ok(pending) = lonely {
        let answered = runtime.timeout(timing().election_max, pending).await;
        assert!(!matches!(answered, Ok(Ok(_))), "{answered:?}");
    }
    nobody_has_a_lease(&five).await;

    five.revive(others[0]).await;
    let leader = five.leader().await;
    write(&leader.group, "three again", 20).await;
    let down: Vec<u64> = five.down.keys().copied().collect();
    for id in down {
        five.revive(id).await;
    }
    five.agree().await;
    let leader = five.leader().await;
    for name in ["five", "three", "three again"] {
        assert_eq!(leader.machine.get(name), 20, "{name}");
    }
    // It was not acknowledged, and is there once or not at all.
    assert!(leader.machine.get("lonely") <= 1);
    five.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_whose_link_is_cut_holds_up_nobody_and_catches_up() {
    let trio = Trio::new().await;
    let (leads, _) = trio.roles().await;
    let leader = &trio.replicas[&leads].group;
    let node = trio.open(4, None).await;
    let (far, machine) = begin(&node.host, Start::Join).await;
    leader.add_learner(node.peer(), PATIENCE).await.unwrap();
    let before = put(leader, "before", 1).await.unwrap();
    far.wait_applied(before.index, PATIENCE).await.unwrap();
    let (term, stamp_ms) = (leader.status().term, far.stamp_ms());

    for id in 1..=3 {
        trio.world.links.cut(4, id);
    }
    for _ in 0..50 {
        put(leader, "meanwhile", 1).await.unwrap();
        leader.read_index(PATIENCE).await.unwrap();
    }
    assert_eq!(trio.leader().await.node.id, NodeId(leads));
    let status = leader.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
    let matched = status.matched.iter().find(|(at, _)| *at == node.id);
    let matched = matched.and_then(|(_, matched)| *matched);
    assert!(matched < Some(before.index + 50), "{status:?}");
    // It stays as old as it was, says so, and answers nothing that asks for more.
    assert_eq!((machine.get("before"), machine.get("meanwhile")), (1, 0));
    assert_eq!(far.stamp_ms(), stamp_ms);
    let later = far.wait_applied(before.index + 1, Duration::from_millis(50));
    let later = later.await;
    assert!(matches!(later, Err(ReadError::Timeout { .. })), "{later:?}");
    assert!(far.lease_check().is_err());
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let is_long = |silence: Option<Duration>| silence.is_none_or(|at| at > timing().election_max);
    while !is_long(far.status().leader_silence) {
        assert!(runtime.now() < deadline, "{:?}", far.status());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(far.status().role, Role::Learner);

    trio.world.links.heal();
    let last = leader.read_index(PATIENCE).await.unwrap().applied.index;
    far.wait_applied(last, PATIENCE).await.unwrap();
    assert_eq!(machine.get("meanwhile"), 50);
    assert!(far.stamp_ms() > stamp_ms);
    assert_eq!(leader.status().term, term, "nobody was disturbed");
    node.kill().await;
    trio.end().await;
}

/// Whoever promotes it then would have a majority wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_has_heard_nothing_is_not_told_to_have_caught_up() {
    let trio = Trio::new().await;
    let (leads, _) = trio.roles().await;
    let leader = &trio.replicas[&leads].group;
    write(leader, "a", 5).await;
    let newcomer = trio.world.joining(4).await;
    for id in 1..=3 {
        trio.world.links.cut(id, 4);
    }
    // The first call makes it a member, and the second finds that it is one.
    for _ in 0..2 {
        let limit = Duration::from_millis(50);
        let added = leader.add_learner(newcomer.node.peer(), limit).await;
        assert_eq!(added, Err(ChangeError::Timeout));
        let members = leader.status().members;
        let is_learner = members
            .iter()
            .any(|at| at.node == newcomer.node.id && !at.voter);
        assert!(is_learner, "{members:?}");
    }
    assert_eq!(newcomer.group.status().last_log, None);
    let target = leader.status().last_log;
    trio.world.links.heal();
    let added = leader.add_learner(newcomer.node.peer(), PATIENCE).await;
    assert_eq!(added, Ok(()));
    let status = leader.status();
    let matched = status
        .matched
        .iter()
        .find(|(at, _)| *at == newcomer.node.id);
    assert!(
        matched.is_some_and(|(_, matched)| *matched >= target),
        "{status:?}"
    );
    newcomer
        .group
        .wait_applied(target.unwrap(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(newcomer.machine.get("a"), 5);
    newcomer.node.kill().await;
    trio.end().await;
}
