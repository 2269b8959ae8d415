//! Three replicas that talk over gRPC: elections, catching up, leases, members.

use std::time::Duration;

use api::raft::v1 as wire;
use replication::{
    ChangeError, ELECTION_LIMIT, NodeId, Outcome, ProposeError, ReadError, Role, Start, Timing,
};
use runtime::Runtime;
use tonic::Code;

use crate::common::trio::{Replica, Trio, World, begin};
use crate::common::{GROUP, PATIENCE, client_of, envelope, put, until_status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_its_leader() {
    let mut trio = Trio::new().await;
    let leader = trio.leader().await;
    let first = leader.node.id.0;
    for number in 0..50 {
        put(&leader.group, &number.to_string(), 1).await.unwrap();
    }
    let old_term = leader.group.status().term;
    // Proposals that are under way when the leader dies may be lost, but are answered.
    let mut pending = Vec::new();
    for number in 50..80 {
        let command = crate::common::add(&number.to_string(), 1);
        pending.push(
            leader
                .group
                .submit(crate::common::ADD, command)
                .await
                .unwrap(),
        );
    }
    trio.kill(first).await;
    let mut acknowledged = 50;
    for answer in pending {
        match answer.await {
            Ok(_) => acknowledged += 1,
            Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error}"),
        }
    }
    let leader = trio.leader().await;
    assert_ne!(leader.node.id.0, first);
    assert!(leader.group.status().term > old_term);
    for number in 0..50 {
        assert_eq!(leader.machine.get(&number.to_string()), 1, "{number}");
    }
    assert!(leader.machine.sum() >= acknowledged && leader.machine.sum() <= 80);
    put(&leader.group, "after", 1).await.unwrap();
    trio.revive(first).await;
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_far_behind_is_sent_a_snapshot() {
    let mut trio = Trio::new().await;
    let leads = trio.leader().await.node.id.0;
    let behind = *trio.replicas.keys().find(|id| **id != leads).unwrap();
    trio.kill(behind).await;
    let leader = trio.leader().await;
    for round in 0..3 {
        for number in 0..100 {
            // Names long enough that the snapshot is sent in several pieces.
            let name = format!("{round}-{number}-{}", "x".repeat(12_000));
            put(&leader.group, &name, 1).await.unwrap();
        }
        leader.group.take_snapshot().await.unwrap();
    }
    let mut status = leader.group.status();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while status.purged.is_none() {
        assert!(runtime.now() < deadline, "{status:?}");
        runtime.sleep(Duration::from_millis(10)).await;
        status = leader.group.status();
    }
    let newest = leader.group.latest_snapshot().unwrap();
    assert!(newest.info().bytes > 2 << 20, "{}", newest.info().bytes);
    put(&leader.group, "after", 1).await.unwrap();
    trio.revive(behind).await;
    trio.agree().await;
    let caught_up = &trio.replicas[&behind];
    let received = caught_up.group.latest_snapshot().unwrap();
    assert_eq!(received.info(), newest.info());
    // It stands on its own feet: a restart brings it back.
    trio.kill(behind).await;
    trio.revive(behind).await;
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_answers_nothing_strict() {
    let mut trio = Trio::new().await;
    let leads = trio.leader().await.node.id.0;
    put(&trio.replicas[&leads].group, "a", 1).await.unwrap();
    let others: Vec<u64> = trio
        .replicas
        .keys()
        .copied()
        .filter(|id| *id != leads)
        .collect();
    for other in others {
        trio.kill(other).await;
    }
    let group = trio.replicas[&leads].group.clone();
    let runtime = Runtime::real();
    let cut = runtime.now();
    loop {
        // The clock is read first: a machine that is slow in between does not make the lease longer.
        let passed = runtime.now().saturating_since(cut);
        if group.lease_check().is_err() {
            break;
        }
        assert!(
            passed < crate::common::timing().election_max,
            "the lease goes on for {passed:?}"
        );
        runtime.sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(group.lease_check(), Err(ReadError::LeaseExpired));
    let read = group.read_index(Duration::from_secs(2)).await.unwrap_err();
    assert!(
        matches!(read, ReadError::NoQuorum | ReadError::NotLeader { .. }),
        "{read}"
    );
    let age = group.status().quorum_ack_age;
    assert!(
        age.is_none_or(|age| age >= crate::common::timing().lease()),
        "{age:?}"
    );
    // A write is not acknowledged; whether it survives is decided when the majority is back.
    let write = runtime
        .timeout(Duration::from_millis(500), put(&group, "b", 1))
        .await;
    if let Ok(answer) = write {
        assert!(answer.is_err(), "{answer:?}");
    }
    for other in trio.down.keys().copied().collect::<Vec<_>>() {
        trio.revive(other).await;
    }
    let leader = trio.leader().await;
    assert_eq!(leader.machine.get("a"), 1);
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_name_the_leader_and_serve_positions() {
    let trio = Trio::new().await;
    let leader = trio.leader().await;
    let committed = put(&leader.group, "a", 1).await.unwrap();
    for replica in trio.replicas.values() {
        replica
            .group
            .wait_applied(committed.index, PATIENCE)
            .await
            .unwrap();
        assert_eq!(replica.machine.get("a"), 1);
        if replica.node.id == leader.node.id {
            continue;
        }
        let named = Some(leader.node.peer());
        let error = put(&replica.group, "a", 1).await.unwrap_err();
        assert_eq!(
            error,
            ProposeError::NotLeader {
                leader: named.clone()
            }
        );
        assert_eq!(
            replica.group.lease_check(),
            Err(ReadError::NotLeader {
                leader: named.clone()
            })
        );
        let read = replica.group.read_index(PATIENCE).await;
        assert_eq!(read, Err(ReadError::NotLeader { leader: named }));
        assert_eq!(replica.group.status().role, Role::Follower);
    }
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_can_be_handed_over() {
    let trio = Trio::new().await;
    let leader = trio.leader().await;
    put(&leader.group, "a", 1).await.unwrap();
    let to = trio
        .replicas
        .values()
        .find(|other| other.node.id != leader.node.id)
        .unwrap();
    let refused = to.group.transfer_leader(leader.node.id, PATIENCE).await;
    assert!(matches!(refused, Err(ChangeError::NotLeader { .. })));
    let stranger = leader.group.transfer_leader(NodeId(9), PATIENCE).await;
    assert!(matches!(stranger, Err(ChangeError::Refused { .. })));
    to.group
        .wait_applied(leader.group.applied().unwrap().index, PATIENCE)
        .await
        .unwrap();
    leader
        .group
        .transfer_leader(to.node.id, PATIENCE)
        .await
        .unwrap();
    assert!(leader.group.lease_check().is_err());
    crate::common::settle(&to.group).await;
    put(&to.group, "a", 1).await.unwrap();
    assert_eq!(to.machine.get("a"), 2);
    trio.agree().await;
    trio.end().await;
}

/// The one that it hands the lead to may be elected while the others are still loyal to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hands_over_holds_no_lease_though_a_majority_follows_it() {
    let trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let leader = &trio.replicas[&leads];
    put(&leader.group, "a", 1).await.unwrap();
    let (deaf, follows) = (others[0], others[1]);
    assert_eq!(trio.leader().await.node.id, NodeId(leads));
    trio.world.links.cut(leads, deaf);
    trio.world.links.cut(follows, deaf);
    let handed = leader
        .group
        .transfer_leader(NodeId(deaf), Duration::from_millis(1))
        .await;
    assert_eq!(handed, Err(ChangeError::Timeout));
    assert!(leader.group.lease_check().is_err());
    trio.world.links.heal();
    let leader = trio.leader().await;
    put(&leader.group, "a", 1).await.unwrap();
    assert_eq!(leader.machine.get("a"), 2);
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_under_a_new_name() {
    let mut trio = Trio::new().await;
    let leads = trio.leader().await.node.id.0;
    for number in 0..20 {
        put(&trio.replicas[&leads].group, &number.to_string(), 1)
            .await
            .unwrap();
    }
    let lost = *trio.replicas.keys().find(|id| **id != leads).unwrap();
    trio.kill(lost).await;
    let node = trio.open(4, None).await;
    let (group, machine) = begin(&node.host, Start::Join).await;
    let leader = trio.leader().await;
    leader.group.remove(NodeId(lost)).await.unwrap();
    leader
        .group
        .add_learner(node.peer(), PATIENCE)
        .await
        .unwrap();
    leader
        .group
        .add_learner(node.peer(), PATIENCE)
        .await
        .unwrap();
    leader.group.promote(node.id).await.unwrap();
    let members = leader.group.status().members;
    assert_eq!(members.len(), 3, "{members:?}");
    assert!(
        members
            .iter()
            .all(|member| member.voter && member.node.0 != lost)
    );
    trio.replicas.insert(
        4,
        Replica {
            node,
            group,
            machine,
        },
    );
    trio.agree().await;
    // The newcomer's vote counts: with it, one more may go.
    let other = *trio
        .replicas
        .keys()
        .find(|id| **id != leads && **id != 4)
        .unwrap();
    trio.kill(other).await;
    put(&trio.leader().await.group, "after", 1).await.unwrap();
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_grows_to_three() {
    let world = World::new();
    let first = world.open(1, None).await;
    let members = vec![first.member()];
    let (group, machine) = begin(&first.host, Start::Bootstrap { members }).await;
    crate::common::settle(&group).await;
    for number in 0..100 {
        put(&group, &number.to_string(), 1).await.unwrap();
    }
    for _ in 0..3 {
        put(&group, "more", 1).await.unwrap();
        group.take_snapshot().await.unwrap();
    }
    let first = Replica {
        node: first,
        group,
        machine,
    };
    let mut trio = Trio::grown_from(world, first).await;
    trio.kill(1).await;
    put(&trio.leader().await.group, "after", 1).await.unwrap();
    trio.agree().await;
    trio.end().await;
}

/// A peer that takes connections and closes them is one that answers at once, and always with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_down_is_not_called_without_end() {
    let mut trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    trio.kill(others[0]).await;
    let address = trio.down[&others[0]].parse().unwrap();
    let mut listener = Runtime::real().bind(address).await.unwrap();
    let leader = &trio.replicas[&leads].group;
    put(leader, "a", 1).await.unwrap();
    let mut calls = 0;
    let count = async {
        loop {
            drop(listener.accept().await.unwrap());
            calls += 1;
        }
    };
    let counted = Runtime::real().timeout(Duration::from_secs(2), count).await;
    assert!(counted.is_err());
    // Three lanes of at most one call a heartbeat each; without pauses there are thousands.
    assert!((1..200).contains(&calls), "{calls} calls");
    put(leader, "a", 1).await.unwrap();
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn election_times_are_changed_by_restarting_one_replica_after_another() {
    let short = Timing::of(Duration::from_millis(300));
    let mut trio = Trio::new().await;
    let mut written = 0;
    for timing in [short, Timing::of(ELECTION_LIMIT)] {
        for id in 1..=3 {
            trio.kill(id).await;
            trio.revive_with(id, timing).await;
            put(&trio.leader().await.group, "kept", 1).await.unwrap();
            written += 1;
            trio.agree().await;
        }
    }
    // A leader of longer times than its followers' loses its lease before they follow another.
    let (_, others) = trio.roles().await;
    for other in others {
        trio.kill(other).await;
        trio.revive_with(other, short).await;
        trio.agree().await;
    }
    let (leads, others) = trio.roles().await;
    for other in &others {
        trio.world.links.cut(leads, *other);
    }
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let has_lease = |id: &u64| trio.replicas[id].group.lease_check().is_ok();
    while !others.iter().any(has_lease) {
        assert!(runtime.now() < deadline, "nobody follows");
        runtime.sleep(Duration::from_millis(2)).await;
    }
    assert!(!has_lease(&leads), "two may answer");
    trio.world.links.heal();
    trio.agree().await;
    assert_eq!(trio.leader().await.machine.get("kept"), written);
    trio.end().await;
}

/// What it granted in its last life it does not remember; a leader may still count on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_just_started_votes_for_nobody_until_no_lease_can_be_left() {
    let mut trio = Trio::new().await;
    let (_, others) = trio.roles().await;
    let (restarted, candidate) = (others[0], others[1]);
    trio.kill(restarted).await;
    trio.revive(restarted).await;
    let mut client = client_of(&trio.replicas[&restarted].node);
    // Of a vote that would be held none is changed.
    let request = wire::VoteRequest {
        envelope: Some(envelope(candidate, restarted)),
        vote: Some(wire::Vote {
            term: trio.leader().await.group.status().term + 1,
            node_id: candidate,
            committed: false,
        }),
        pre_vote: true,
        ..wire::VoteRequest::default()
    };
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let mut refused = 0;
    while let Err(status) = client.vote(request.clone()).await {
        let error = api::ApiError::from_status(&status);
        assert_eq!(error.reason(), api::Reason::Starting, "{status}");
        assert!(runtime.now() < deadline, "it never votes");
        refused += 1;
        runtime.sleep(Duration::from_millis(5)).await;
    }
    assert!(refused > 0, "it votes as soon as it has started");
    trio.end().await;
}

#[tokio::test]
async fn messages_for_others_are_refused() {
    let world = World::new();
    let node = world.open(1, None).await;
    let members = vec![node.member()];
    let (_group, _) = begin(&node.host, Start::Bootstrap { members }).await;
    let mut client = client_of(&node);
    let right = envelope(2, 1);
    let cases = [
        (None, Code::InvalidArgument),
        (
            Some(wire::Envelope {
                cluster_id: vec![8; 16].into(),
                ..right.clone()
            }),
            Code::PermissionDenied,
        ),
        (
            Some(wire::Envelope {
                to_node: 2,
                ..right.clone()
            }),
            Code::FailedPrecondition,
        ),
        (
            Some(wire::Envelope {
                group_id: 99,
                ..right.clone()
            }),
            Code::NotFound,
        ),
        (Some(right), Code::InvalidArgument), // without a vote
    ];
    for (envelope, code) in cases {
        let vote = wire::VoteRequest {
            envelope: envelope.clone(),
            ..wire::VoteRequest::default()
        };
        assert_eq!(client.vote(vote).await.unwrap_err().code(), code);
        let append = wire::AppendRequest {
            envelope: envelope.clone(),
            ..Default::default()
        };
        let stream = client.append(futures::stream::iter([append])).await;
        let status = stream.unwrap().into_inner().message().await.unwrap_err();
        assert_eq!(status.code(), code);
        let offer = wire::OfferSnapshotRequest {
            envelope: envelope.clone(),
            ..Default::default()
        };
        assert_eq!(client.offer_snapshot(offer).await.unwrap_err().code(), code);
        let piece = wire::InstallSnapshotRequest {
            envelope,
            ..Default::default()
        };
        let answer = client
            .install_snapshot(futures::stream::iter([piece]))
            .await;
        assert_eq!(answer.unwrap_err().code(), code);
    }
    node.kill().await;
}

/// A change of the voters takes two entries, and whoever leads next does not write the second by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_leader_is_lost_half_way_is_told_of_and_ended_by_another() {
    let mut trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let (hears, deaf) = (others[0], others[1]);
    let newcomer = trio.world.joining(4).await;
    let leader = trio.replicas[&leads].group.clone();
    let peer = newcomer.node.peer();
    leader.add_learner(peer, PATIENCE).await.unwrap();
    trio.replicas.insert(4, newcomer);
    trio.agree().await;
    assert!(!leader.status().joint);
    // One follower alone hears of the change, which is no majority of the four.
    trio.world.links.cut(leads, deaf);
    trio.world.links.cut(leads, 4);
    let runtime = Runtime::real();
    let change = runtime.spawn("change", async move { leader.promote(NodeId(4)).await });
    until_status(&trio.replicas[&hears].group, |status| status.joint).await;
    trio.kill(leads).await;
    assert!(change.await.unwrap().is_err());
    trio.world.links.heal();
    let next = trio.leader().await;
    assert_eq!(next.node.id, NodeId(hears));
    assert!(next.group.status().joint, "it is as it was");
    // A change does not begin before the last one is committed.
    let ended = async {
        while trio.leader().await.group.status().joint {
            drop(trio.leader().await.group.promote(NodeId(4)).await);
            runtime.sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.timeout(PATIENCE, ended).await.unwrap();
    trio.revive(leads).await;
    trio.agree().await;
    for replica in trio.replicas.values() {
        until_status(&replica.group, |status| !status.joint).await;
    }
    trio.end().await;
}

#[tokio::test]
async fn a_stream_that_turns_to_another_group_is_refused() {
    let world = World::new();
    let node = world.open(1, None).await;
    let members = vec![node.member()];
    let (_group, _) = begin(&node.host, Start::Bootstrap { members }).await;
    let append = |group_id| wire::AppendRequest {
        envelope: Some(wire::Envelope {
            group_id,
            ..envelope(2, 1)
        }),
        vote: Some(wire::Vote {
            term: 99,
            node_id: 2,
            committed: true,
        }),
        ..wire::AppendRequest::default()
    };
    let requests = futures::stream::iter([append(GROUP.0), append(GROUP.0 + 1)]);
    let answers = client_of(&node).append(requests).await.unwrap();
    let mut answers = answers.into_inner();
    let refused = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("both were taken"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    node.kill().await;
}
