use std::sync::mpsc;
use std::time::Duration;

use cluster::{ClusterId, Generation, NamespaceId, NodeId};
use replication::{
    Applied, GroupConfig, GroupId, Host, HostDeps, HostOptions, Identity, Member, Replay, Start,
    shard_group,
};
use tokio::sync::oneshot;
use vfs::SimDisk;

use super::*;
use crate::metrics::NodeMetrics;
use crate::state::Scope;

const PATIENCE: Duration = Duration::from_secs(20);

/// A leader of term 3 that is its group's only voter.
fn leader(applied: Option<Applied>) -> GroupStatus {
    let node = NodeId(1);
    GroupStatus {
        group: GroupId(2),
        node,
        role: Role::Leader,
        term: 3,
        leader: None,
        members: vec![Member {
            node,
            address: "here:1".into(),
            voter: true,
        }],
        joint: false,
        last_log: Some(7),
        committed: Some(7),
        applied,
        snapshot: None,
        purged: None,
        replay: Replay::default(),
        quorum_ack_age: None,
        leader_silence: None,
        matched: Vec::new(),
        stopped: None,
    }
}

#[test]
fn a_leader_serves_once_it_has_applied_an_entry_of_its_term() {
    let at = |index, term| Some(Applied { index, term });
    assert!(!Replica::is_serving(&leader(None)));
    assert!(!Replica::is_serving(&leader(at(6, 2))));
    assert!(Replica::is_serving(&leader(at(7, 3))));
}

/// A replica that leads and is alone.
async fn alone(runtime: &Runtime) -> (Host, Arc<Replica>) {
    let members = vec![Member::voter(NodeId(1), "here:1")];
    let (host, replica) = one_of(runtime, members).await;
    let group = replica.group();
    let mut status = group.watch_status();
    let serves = status.wait_for(|status| status.role == Role::Leader);
    drop(runtime.timeout(PATIENCE, serves).await.unwrap().unwrap());
    group.read_index(PATIENCE).await.unwrap();
    (host, replica)
}

/// The first of these members.
async fn one_of(runtime: &Runtime, members: Vec<Member>) -> (Host, Arc<Replica>) {
    let node = members[0].node;
    let deps = HostDeps {
        runtime: runtime.clone(),
        vfs: Arc::new(SimDisk::new()),
        dir: "/data".into(),
        identity: Identity {
            cluster: ClusterId([7; 16]),
            node,
        },
        options: HostOptions {
            wal: wal::WalOptions::small(),
            ..HostOptions::default()
        },
    };
    let host = Host::open(deps).await.unwrap().0;
    let (shard, incarnation) = (ShardId(2), Incarnation(1));
    let start = Start::Bootstrap { members };
    let config = GroupConfig::new(shard_group(shard, incarnation), start);
    let machine = Arc::new(DictionaryState::new(trie_core::Options::default()));
    let group = host.start_group(config, machine).await.unwrap();
    let metrics = telemetry::Metrics::new(runtime).unwrap();
    let metrics = NodeMetrics::new(runtime, &metrics, "node")
        .unwrap()
        .shard("2");
    let queue = QueueConfig::default();
    let replica = Replica::new(runtime, shard, incarnation, group, queue, metrics);
    (host, Arc::new(replica))
}

fn fresh(runtime: &Runtime, consistency: Consistency) -> Freshness {
    Freshness {
        consistency,
        min_index: 0,
        deadline: Deadline::after(runtime, PATIENCE),
    }
}

const SCOPE: Scope = Scope {
    namespace: NamespaceId(1),
    generation: Generation(1),
};

/// Looks up a term that is not there.
fn look_up(state: &DictionaryState) -> Result<Reading<bool>, StaleGeneration> {
    let found = state.get(SCOPE, "ant")?;
    Ok(Reading {
        value: found.value.is_some(),
        index: found.index,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_during_which_the_replica_stopped_is_not_answered() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let seen = replica.read(fresh(&runtime, Consistency::Leader), look_up);
    assert!(!seen.await.unwrap().value);
    let (begun, begins) = oneshot::channel();
    let (ended, ends) = mpsc::channel();
    let reads = Arc::clone(&replica);
    let at = fresh(&runtime, Consistency::Leader);
    let slow = runtime.spawn("slow-read", async move {
        let slow = move |state: &DictionaryState| {
            begun.send(()).unwrap();
            ends.recv_timeout(PATIENCE).unwrap();
            look_up(state)
        };
        reads.read(at, slow).await
    });
    begins.await.unwrap();
    replica.group().shutdown().await;
    ended.send(()).unwrap();
    let refused = slow.await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Reason::Stopped);
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_is_wrong_answers_nobody() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let levels = [
        Consistency::Stale,
        Consistency::Leader,
        Consistency::Linearizable,
    ];
    for level in levels {
        let seen = replica.read(fresh(&runtime, level), look_up).await;
        assert!(seen.is_ok(), "{level:?}");
    }
    replica.group().condemn("it differs from the others").await;
    for level in levels {
        let seen = replica.read(fresh(&runtime, level), look_up).await;
        assert_eq!(seen.unwrap_err().reason(), Reason::DataLoss, "{level:?}");
    }
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_to_wait_for_nothing_is_answered_at_once_and_nothing_else_is() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let at_once = |scope, fresh| replica.read_at_once(scope, fresh, look_up);
    let mut answered = 0;
    for level in [Consistency::Leader, Consistency::Stale] {
        let seen = at_once(SCOPE, fresh(&runtime, level)).unwrap();
        let called = replica.read(fresh(&runtime, level), look_up).await.unwrap();
        assert_eq!(seen, called);
        answered += 2;
    }
    assert!(at_once(SCOPE, fresh(&runtime, Consistency::Linearizable)).is_none());
    let ahead = Freshness {
        min_index: replica.applied() + 1,
        ..fresh(&runtime, Consistency::Leader)
    };
    assert!(at_once(SCOPE, ahead).is_none());
    // A clear that this replica has not heard of has to be written before a strict read may be answered.
    let cleared = Scope {
        generation: Generation(2),
        ..SCOPE
    };
    assert!(at_once(cleared, fresh(&runtime, Consistency::Leader)).is_none());
    assert!(at_once(cleared, fresh(&runtime, Consistency::Stale)).is_some());
    answered += 1;
    assert_eq!(replica.reads(), answered);
    replica.group().shutdown().await;
    for level in [Consistency::Leader, Consistency::Stale] {
        assert!(at_once(SCOPE, fresh(&runtime, level)).is_none());
    }
    host.shutdown().await.unwrap();
}

/// By the time that it has a lease it may have applied what was not there when it was looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_nothing_is_looked_up_at_once() {
    let runtime = Runtime::real();
    let members = [1, 2, 3].map(|node| Member::voter(NodeId(node), "here:1"));
    let (host, replica) = one_of(&runtime, members.into()).await;
    let looked_up = |_: &DictionaryState| -> Result<Reading<bool>, StaleGeneration> {
        panic!("it does not lead")
    };
    let fresh = fresh(&runtime, Consistency::Leader);
    assert!(replica.read_at_once(SCOPE, fresh, looked_up).is_none());
    host.shutdown().await.unwrap();
}

/// Of a batch that is half applied a reader may see what a replica lacks that has applied all before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_the_entry_that_was_being_applied_when_it_was_looked_up() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let index = replica.applied() + 1;
    let half_applied = |_: &DictionaryState| -> Result<Reading<bool>, StaleGeneration> {
        Ok(Reading { value: true, index })
    };
    let at = fresh(&runtime, Consistency::Leader);
    let called = replica.read(at, half_applied).await.unwrap();
    let at_once = replica.read_at_once(SCOPE, at, half_applied).unwrap();
    let expected = replica.position(index);
    assert_eq!([called.position, at_once.position], [expected; 2]);
    host.shutdown().await.unwrap();
}
