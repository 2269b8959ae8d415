//! Three replicas that talk over gRPC: elections, catching up, leases, members.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use replication::{
    ChangeError, Group, GroupConfig, Host, Member, NodeId, Outcome, ProposeError, ReadError, Role,
    Start,
};
use runtime::Runtime;
use tonic::Code;
use vfs::{RealDisk, Vfs};

use common::{CLUSTER, Counters, GROUP, Node, PATIENCE, config, put, small_options};

struct Replica {
    node: Node,
    group: Group<Counters>,
    machine: Arc<Counters>,
}

struct Trio {
    dir: tempfile::TempDir,
    replicas: BTreeMap<u64, Replica>,
    down: BTreeMap<u64, String>,
}

fn trio_config(start: Start) -> GroupConfig {
    GroupConfig {
        // Snapshots are taken when the tests say so.
        snapshots: replication::SnapshotPolicy {
            entries: u64::MAX,
            bytes: u64::MAX,
            interval: Duration::from_secs(3600),
        },
        ..config(start)
    }
}

async fn begin(host: &Host, start: Start) -> (Group<Counters>, Arc<Counters>) {
    let machine = Arc::new(Counters::default());
    let group = host
        .start_group(trio_config(start), Arc::clone(&machine))
        .await
        .unwrap();
    (group, machine)
}

impl Trio {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        for id in 1..=3 {
            nodes.push(Self::open(&dir, id, None).await);
        }
        let members: Vec<Member> = nodes.iter().map(Node::member).collect();
        let mut replicas = BTreeMap::new();
        for node in nodes {
            let start = match node.id.0 {
                1 => Start::Bootstrap {
                    members: members.clone(),
                },
                _ => Start::Join,
            };
            let (group, machine) = begin(&node.host, start).await;
            let id = node.id.0;
            replicas.insert(
                id,
                Replica {
                    node,
                    group,
                    machine,
                },
            );
        }
        let trio = Self {
            dir,
            replicas,
            down: BTreeMap::new(),
        };
        trio.leader().await;
        trio
    }

    async fn open(dir: &tempfile::TempDir, id: u64, address: Option<String>) -> Node {
        let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
        let path = dir.path().join(id.to_string());
        Node::open(vfs, path, id, address, small_options()).await
    }

    /// The replica that leads and may answer reads, once there is one.
    async fn leader(&self) -> &Replica {
        let runtime = Runtime::real();
        let deadline = runtime.now() + PATIENCE;
        loop {
            let found = self
                .replicas
                .values()
                .find(|replica| replica.group.lease_check().is_ok());
            if let Some(found) = found {
                return found;
            }
            let seen: Vec<_> = self.replicas.values().map(|r| r.group.status()).collect();
            assert!(runtime.now() < deadline, "nobody leads: {seen:?}");
            runtime.sleep(Duration::from_millis(5)).await;
        }
    }

    async fn kill(&mut self, id: u64) {
        let replica = self.replicas.remove(&id).unwrap();
        let (_, _, address) = replica.node.kill().await;
        self.down.insert(id, address);
    }

    async fn revive(&mut self, id: u64) {
        let address = self.down.remove(&id);
        let node = Self::open(&self.dir, id, address).await;
        let (group, machine) = begin(&node.host, Start::Resume).await;
        self.replicas.insert(
            id,
            Replica {
                node,
                group,
                machine,
            },
        );
    }

    /// Waits until all replicas have applied what the leader has, and compares them.
    async fn agree(&self) {
        let leader = self.leader().await;
        let index = leader
            .group
            .read_index(PATIENCE)
            .await
            .unwrap()
            .applied
            .index;
        for (id, replica) in &self.replicas {
            let waited = replica.group.wait_applied(index, PATIENCE).await;
            assert!(waited.is_ok(), "{id}: {:?}", replica.group.status());
        }
        let expected = leader.machine.state();
        for (id, replica) in &self.replicas {
            assert_eq!(replica.machine.state(), expected, "replica {id}");
        }
    }

    async fn end(self) {
        for replica in self.replicas.into_values() {
            replica.node.kill().await;
        }
    }
}

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
        let command = common::add(&number.to_string(), 1);
        pending.push(leader.group.submit(common::ADD, command).await.unwrap());
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
    while group.lease_check().is_ok() {
        let passed = runtime.now().saturating_since(cut);
        assert!(
            passed < common::timing().election_max,
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
        age.is_none_or(|age| age >= common::timing().lease()),
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
    common::settle(&to.group).await;
    put(&to.group, "a", 1).await.unwrap();
    assert_eq!(to.machine.get("a"), 2);
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
    let node = Trio::open(&trio.dir, 4, None).await;
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
    let dir = tempfile::tempdir().unwrap();
    let first = Trio::open(&dir, 1, None).await;
    let members = vec![first.member()];
    let (group, machine) = begin(&first.host, Start::Bootstrap { members }).await;
    common::settle(&group).await;
    for number in 0..100 {
        put(&group, &number.to_string(), 1).await.unwrap();
    }
    for _ in 0..3 {
        put(&group, "more", 1).await.unwrap();
        group.take_snapshot().await.unwrap();
    }
    let mut replicas = BTreeMap::new();
    for id in 2..=3 {
        let node = Trio::open(&dir, id, None).await;
        let (joined, machine) = begin(&node.host, Start::Join).await;
        group.add_learner(node.peer(), PATIENCE).await.unwrap();
        group.promote(node.id).await.unwrap();
        replicas.insert(
            id,
            Replica {
                node,
                group: joined,
                machine,
            },
        );
    }
    replicas.insert(
        1,
        Replica {
            node: first,
            group,
            machine,
        },
    );
    let mut trio = Trio {
        dir,
        replicas,
        down: BTreeMap::new(),
    };
    trio.agree().await;
    trio.kill(1).await;
    put(&trio.leader().await.group, "after", 1).await.unwrap();
    trio.agree().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Trio::open(&dir, 1, None).await;
    let members = vec![node.member()];
    let (_group, _) = begin(&node.host, Start::Bootstrap { members }).await;
    let channel = rpc::channel::connect(
        &Runtime::real(),
        &node.address,
        &rpc::channel::PoolConfig::default(),
    );
    let mut client = RaftServiceClient::new(channel.unwrap());
    let right = wire::Envelope {
        cluster_id: CLUSTER.0.to_vec().into(),
        group_id: GROUP.0,
        from_node: 2,
        to_node: 1,
    };
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
