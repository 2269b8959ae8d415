//! Three replicas whose network is cut, whole and one way: who may answer, who may not, and what is left when it heals.

use std::time::Duration;

use replication::{NodeId, ReadError, Role, Start, StartError};
use runtime::Runtime;
use vfs::SimDisk;

use crate::common::trio::{Replica, Trio, World, begin};
use crate::common::{Counters, PATIENCE, config, put, small_options, timing};

/// Waits until a replica has no lease, which must not take longer than its followers' loyalty.
async fn lease_runs_out(replica: &Replica) {
    let runtime = Runtime::real();
    let cut = runtime.now();
    loop {
        let passed = runtime.now().saturating_since(cut);
        if replica.group.lease_check().is_err() {
            return;
        }
        assert!(
            passed < timing().election_max,
            "the lease goes on for {passed:?}"
        );
        runtime.sleep(Duration::from_millis(2)).await;
    }
}

/// Whoever leads with a lease among some replicas.
async fn leader_of<'a>(trio: &'a Trio, among: &[u64]) -> &'a Replica {
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    loop {
        let found = among
            .iter()
            .map(|id| &trio.replicas[id])
            .find(|replica| replica.group.lease_check().is_ok());
        if let Some(found) = found {
            return found;
        }
        assert!(runtime.now() < deadline, "nobody leads");
        runtime.sleep(Duration::from_millis(5)).await;
    }
}

/// A leader that hears nobody answers nothing that is strict; the others go on; one history is left.
async fn a_leader_that_is_cut_off(one_way: bool) {
    let trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let alone = &trio.replicas[&leads];
    put(&alone.group, "before", 1).await.unwrap();
    let links = &trio.world.links;
    for other in &others {
        if one_way {
            links.cut_one_way(*other, leads);
        } else {
            links.cut(*other, leads);
        }
    }
    lease_runs_out(alone).await;
    let read = alone.group.read_index(timing().election_max).await;
    let refused = matches!(
        read,
        Err(ReadError::NoQuorum | ReadError::NotLeader { .. } | ReadError::LeaseExpired)
    );
    assert!(refused, "{read:?}");
    let lonely = alone
        .group
        .submit(crate::common::ADD, crate::common::add("lonely", 1))
        .await;
    let leader = leader_of(&trio, &others).await;
    assert!(leader.group.status().term > 1);
    for _ in 0..10 {
        put(&leader.group, "meanwhile", 1).await.unwrap();
    }
    assert!(alone.group.lease_check().is_err());
    assert_eq!(alone.machine.get("meanwhile"), 0);
    assert_eq!(alone.machine.get("lonely"), 0);
    links.heal();
    trio.agree().await;
    let leader = trio.leader().await;
    assert_eq!(leader.machine.get("before"), 1);
    assert_eq!(leader.machine.get("meanwhile"), 10);
    // What was proposed to the old leader was given up, and it says so.
    if let Ok(pending) = lonely {
        let answered = Runtime::real().timeout(PATIENCE, pending).await;
        assert!(answered.unwrap().is_err());
    }
    assert_eq!(leader.machine.get("lonely"), 0);
    trio.end().await;
}

/// A lost identity whose process still runs leads nobody who knows of the loss, whether it led before or stands again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_lost_is_not_heard_by_whoever_was_told() {
    let trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let lost = &trio.replicas[&leads];
    put(&lost.group, "before", 1).await.unwrap();
    let tell = |nodes: &[u64]| {
        for other in &others {
            let nodes = nodes.iter().copied().map(NodeId);
            trio.replicas[other].node.host.know_lost(nodes);
        }
    };
    tell(&[leads]);
    lease_runs_out(lost).await;
    let leader = leader_of(&trio, &others).await;
    let term = leader.group.status().term;
    assert!(term > 1);
    for _ in 0..10 {
        put(&leader.group, "meanwhile", 1).await.unwrap();
    }
    // It hears the others, as it may: what it has promised it keeps. But it cannot take the lead.
    assert!(
        lost.group
            .request_lead(timing().election_max)
            .await
            .is_err()
    );
    put(&leader.group, "meanwhile", 1).await.unwrap();
    assert_eq!(leader.group.status().term, term);
    tell(&[]);
    trio.agree().await;
    assert_eq!(lost.machine.get("meanwhile"), 11);
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_wholly_answers_nothing_strict() {
    a_leader_that_is_cut_off(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_answers_nothing_strict() {
    a_leader_that_is_cut_off(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_does_not_raise_the_term() {
    let trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let (leader, alone) = (&trio.replicas[&leads], &trio.replicas[&others[0]]);
    put(&leader.group, "a", 1).await.unwrap();
    trio.agree().await;
    for id in [leads, others[1]] {
        trio.world.links.cut(others[0], id);
    }
    // Cut off it learns of no other term: its own could only be raised by itself.
    let term = alone.group.status().term;
    let runtime = Runtime::real();
    let until = runtime.now() + timing().election_max * 5;
    while runtime.now() < until {
        let now = alone.group.status();
        assert_eq!(now.term, term, "{now:?}");
        assert_ne!(now.role, Role::Leader);
        runtime.sleep(Duration::from_millis(20)).await;
    }
    put(&leader_of(&trio, &[leads, others[1]]).await.group, "b", 1)
        .await
        .unwrap();
    trio.world.links.heal();
    trio.agree().await;
    trio.end().await;
}

/// It was down when it was removed: as far as it knows it has a vote, and nobody leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_unheard_is_told_nothing_more_and_disturbs_nobody() {
    let mut trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let (removed, stays) = (others[0], others[1]);
    trio.kill(removed).await;
    let leader = trio.leader().await;
    leader.group.remove(NodeId(removed)).await.unwrap();
    put(&leader.group, "after", 1).await.unwrap();
    let links = trio.world.links.clone();
    let sent = || [leads, stays].map(|id| links.sent(removed, id));
    let before = sent();
    let has_asked = || sent().iter().zip(&before).all(|(now, then)| now > then);
    trio.revive(removed).await;
    let alone = trio.replicas.remove(&removed).unwrap();
    let runtime = Runtime::real();
    let begun = runtime.now();
    let until = begun + timing().election_max * 5;
    while !has_asked() || runtime.now() < until {
        assert!(runtime.now() < begun + PATIENCE, "it asks for no vote");
        let now = alone.group.status();
        // Read afterwards: a term that it was told of is known to one of the others.
        let terms = trio.replicas.values().map(|at| at.group.status().term);
        assert!(terms.max() >= Some(now.term), "{now:?}");
        assert_ne!(now.role, Role::Leader);
        runtime.sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(alone.machine.get("after"), 0);
    put(&trio.leader().await.group, "after", 1).await.unwrap();
    trio.agree().await;
    alone.node.kill().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_catches_up_by_a_snapshot_and_replaces_an_old_member() {
    let mut trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let leader = &trio.replicas[&leads];
    for round in 0..3 {
        for number in 0..20 {
            put(&leader.group, &format!("{round}-{number}"), 1)
                .await
                .unwrap();
        }
        leader.group.take_snapshot().await.unwrap();
    }
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while leader.group.status().purged.is_none() {
        assert!(runtime.now() < deadline, "{:?}", leader.group.status());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    let node = trio.open(4, None).await;
    let (group, machine) = begin(&node.host, Start::Join).await;
    leader
        .group
        .add_learner(node.peer(), PATIENCE)
        .await
        .unwrap();
    let deadline = runtime.now() + PATIENCE;
    while group.latest_snapshot().is_none() {
        assert!(runtime.now() < deadline, "the log does not reach back");
        runtime.sleep(Duration::from_millis(10)).await;
    }
    leader.group.promote(node.id).await.unwrap();
    leader
        .group
        .remove(replication::NodeId(others[0]))
        .await
        .unwrap();
    let old = trio.replicas.remove(&others[0]).unwrap();
    old.node.kill().await;
    trio.replicas.insert(
        4,
        Replica {
            node,
            group,
            machine,
        },
    );
    put(&trio.leader().await.group, "after", 1).await.unwrap();
    trio.agree().await;
    let voters = trio.leader().await.group.status().members;
    assert_eq!(voters.iter().filter(|member| member.voter).count(), 3);
    assert!(voters.iter().all(|member| member.node.0 != others[0]));
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_loses_nothing() {
    let mut trio = Trio::new().await;
    for round in 0..2 {
        let leader = trio.leader().await;
        for number in 0..30 {
            put(&leader.group, &number.to_string(), 1).await.unwrap();
        }
        if round == 0 {
            leader.group.take_snapshot().await.unwrap();
        }
        for id in 1..=3 {
            trio.kill(id).await;
        }
        // In another order than they went.
        for id in [2, 3, 1] {
            trio.revive(id).await;
        }
    }
    let leader = trio.leader().await;
    for number in 0..30 {
        assert_eq!(leader.machine.get(&number.to_string()), 2, "{number}");
    }
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_is_not_taken_for_what_it_was() {
    let mut trio = Trio::within(World::simulated(small_options())).await;
    let (leads, others) = trio.roles().await;
    put(&trio.replicas[&leads].group, "a", 1).await.unwrap();
    trio.agree().await;
    let lost = others[0];
    trio.kill(lost).await;
    trio.world.disks.insert(lost, SimDisk::new());
    let address = trio.down.remove(&lost);
    let node = trio.open(lost, address).await;
    let machine = std::sync::Arc::new(Counters::default());
    let refused = node.host.start_group(config(Start::Resume), machine).await;
    assert!(
        matches!(refused, Err(StartError::NotFound { .. })),
        "{refused:?}"
    );
    // Without it the others go on, and it has no say.
    put(&trio.leader().await.group, "b", 1).await.unwrap();
    node.kill().await;
    trio.end().await;
}
