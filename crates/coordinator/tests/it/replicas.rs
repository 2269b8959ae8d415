//! Three servers, each with a replica of every shard: what is left when a server dies, stops or hands over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ReplicaRole, ShardState, TransferLeaderRequest};
use api::v1::{Consistency, GetCountRequest, GetTopKRequest, RecordRequest, RequestId};
use api::{ApiError, Outcome, Reason};
use bytes::Bytes;
use runtime::{Runtime, Task};
use tonic::{Code, Request, Status};

use super::harness::{Cluster, PATIENCE, Shape, all_serve, listed, reason};

/// One term of each shard.
const TERMS: [&str; 3] = ["ant", "kiwi", "zoo"];
/// A deadline that holds an election, on a machine that has other work.
const AMPLE: Duration = Duration::from_secs(10);

/// Writers, one for each shard, that record a term again and again, each call once: what fails is not sent again.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<Task<Tally>>,
    acknowledged: Arc<AtomicU64>,
}

/// Failures of a writer that are kept to be shown.
const FAILED_KEPT: usize = 100;

/// What became of the calls of one writer.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    /// Calls that failed, and may have been applied or not; the first ones.
    failed: Vec<Status>,
}

impl Writers {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = TERMS.map(|term| {
            let mut client = cluster.client();
            let (stop, total) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let world = cluster.runtime.clone();
            let write = async move {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Acquire) {
                    let mut request = Request::new(record(term, 1, None));
                    request.set_timeout(AMPLE);
                    match client.record(request).await {
                        Ok(_) => {
                            tally.acknowledged += 1;
                            total.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(status) => {
                            if tally.failed.len() < FAILED_KEPT {
                                tally.failed.push(status);
                            }
                            // Where nobody listens an answer comes at once.
                            world.sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                tally
            };
            cluster.runtime.spawn("test-writer", write)
        });
        Self {
            stop,
            tasks: tasks.into(),
            acknowledged,
        }
    }

    /// Waits until so many more writes were acknowledged.
    pub(super) async fn go_on(&self, runtime: &Runtime, more: u64) {
        let target = self.acknowledged.load(Ordering::Acquire) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Acquire) < target {
                runtime.sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = runtime.timeout(PATIENCE, reached).await;
        reached.expect("writes go on");
    }

    /// Ends the writers and holds every count against what was acknowledged. Nobody was told of an error.
    pub(super) async fn end(mut self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Release);
        for (term, task) in TERMS.into_iter().zip(std::mem::take(&mut self.tasks)) {
            let tally = task.await.unwrap();
            assert!(tally.failed.is_empty(), "{term}: {:?}", tally.failed);
            let count = count(cluster, term, Consistency::Leader).await.unwrap();
            assert_eq!(count, tally.acknowledged, "{term}");
            let strict = count_again(cluster, term).await;
            assert_eq!(strict, tally.acknowledged, "{term}");
        }
    }
}

/// A test that ends stops its writers: when the threads they run on are about to end, calls fail without waiting for anything, and a
/// task that never waits keeps its thread.
impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

async fn count_again(cluster: &Cluster, term: &str) -> u64 {
    let counted = count(cluster, term, Consistency::Linearizable).await;
    counted.unwrap()
}

fn record(term: &str, count: u64, request_id: Option<RequestId>) -> RecordRequest {
    RecordRequest {
        term: term.into(),
        count,
        request_id,
        ..RecordRequest::default()
    }
}

async fn count(cluster: &Cluster, term: &str, consistency: Consistency) -> Result<u64, Status> {
    let mut request = Request::new(GetCountRequest {
        term: term.into(),
        consistency: consistency.into(),
        ..GetCountRequest::default()
    });
    request.set_timeout(AMPLE);
    let answer = cluster.client().get_count(request).await?;
    Ok(answer.into_inner().count)
}

/// Every replica of every shard holds, and says it holds, what was recorded of the shard's term. What they said before that may be old,
/// and the same everywhere.
async fn all_agree(cluster: &Cluster) {
    let mut recorded = Vec::new();
    for term in TERMS {
        recorded.push(count_again(cluster, term).await);
    }
    let agree = |status: &GetStatusResponse| {
        let mut shards = status.shards.iter().zip(&recorded);
        shards.all(|(shard, recorded)| {
            let mut replicas = shard.replicas.iter();
            shard.replicas.len() == 3 && replicas.all(|at| at.total_count == *recorded)
        })
    };
    cluster.until("all replicas hold the same", agree).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_a_server_that_is_killed() {
    let mut cluster = Cluster::replicated().await;
    let writers = Writers::start(&cluster);
    writers.go_on(&cluster.runtime, 30).await;
    for _ in 0..2 {
        let leads = cluster.leader_of(2).await;
        cluster.kill_server(leads).await;
        writers.go_on(&cluster.runtime, 60).await;
        cluster.start_server(leads).await;
        cluster.until("all replicas serve", all_serve).await;
        writers.go_on(&cluster.runtime, 30).await;
    }
    writers.end(&cluster).await;
    all_agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_servers_that_are_stopped_one_after_another() {
    let mut cluster = Cluster::replicated().await;
    let writers = Writers::start(&cluster);
    for place in 0..3 {
        writers.go_on(&cluster.runtime, 30).await;
        cluster.stop_server(place).await;
        writers.go_on(&cluster.runtime, 30).await;
        cluster.start_server(place).await;
        cluster.until("all replicas serve", all_serve).await;
    }
    writers.end(&cluster).await;
    all_agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_goes_where_it_is_told_to_under_load() {
    let cluster = Cluster::replicated().await;
    let writers = Writers::start(&cluster);
    let status = cluster.until("all replicas serve", all_serve).await;
    for _ in 0..2 {
        for node in &status.nodes {
            let request = TransferLeaderRequest {
                shard_id: 1,
                to_node_id: node.node_id,
            };
            let done = cluster.admin().transfer_leader(request).await.unwrap();
            assert_eq!(done.into_inner().leader_node_id, node.node_id);
            writers.go_on(&cluster.runtime, 10).await;
        }
    }
    let anywhere = TransferLeaderRequest {
        shard_id: 1,
        to_node_id: 0,
    };
    let last = status.nodes.last().unwrap().node_id;
    let done = cluster.admin().transfer_leader(anywhere).await.unwrap();
    assert_ne!(done.into_inner().leader_node_id, last);
    writers.end(&cluster).await;
    for (shard_id, to_node_id, wanted) in
        [(9, 0, Reason::UnknownShard), (1, 99, Reason::BadArgument)]
    {
        let request = TransferLeaderRequest {
            shard_id,
            to_node_id,
        };
        let refused = cluster.admin().transfer_leader(request).await.unwrap_err();
        assert_eq!(reason(&refused), wanted, "{refused}");
    }
    assert_eq!(cluster.actions("move_lead", "asked"), 7);
    let handed = |place| cluster.server_actions(place, "hand_over_lead", "asked");
    assert!((0..3).map(handed).sum::<u64>() >= 6);
    // The status tells of both, the servers' as far as they have reported since.
    let told = |status: &GetStatusResponse, kind: &str, servers: bool| -> u64 {
        let actions = status.actions.iter();
        let of_kind = actions.filter(|at| {
            let is_told = at.kind == kind && at.reason == "asked" && at.shard_id == Some(1);
            is_told && at.error.is_empty() && (at.by_node_id > 0) == servers
        });
        of_kind.map(|at| at.times).sum()
    };
    cluster
        .until("it is told who moved the lead", |status| {
            told(status, "move_lead", false) == 7 && told(status, "hand_over_lead", true) >= 6
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_spread_again_when_all_is_calm_and_nobody_hears_of_it() {
    let mut cluster = Cluster::replicated().await;
    cluster.coordinator_config(0).balance_after = Some(Duration::from_millis(500));
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    let status = cluster.until("all replicas serve", all_serve).await;
    let (one, shards) = (status.nodes[0].node_id, status.shards.len());
    let writers = Writers::start(&cluster);
    for shard in &status.shards {
        let request = TransferLeaderRequest {
            shard_id: shard.shard_id,
            to_node_id: one,
        };
        cluster.admin().transfer_leader(request).await.unwrap();
    }
    let is_spread = move |status: &GetStatusResponse| {
        let leads = status.shards.iter().flat_map(|shard| &shard.replicas);
        let leads = leads.filter(|at| at.role() == ReplicaRole::Leader);
        let nodes: std::collections::BTreeSet<u64> = leads.map(|at| at.node_id).collect();
        nodes.len() == shards
    };
    // The leads may look spread by what was reported before they were moved.
    cluster
        .until("each leads one shard", |status| {
            cluster.actions("move_lead", "uneven") >= 1 && is_spread(status)
        })
        .await;
    writers.end(&cluster).await;
    all_agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_its_leader_has_died_has_no_second_effect() {
    let mut cluster = Cluster::replicated().await;
    let id = |sequence| RequestId {
        client_id: Bytes::from_static(b"sixteen bytes id"),
        sequence,
        issued_at_ms: cluster.runtime.wall_ms(),
        acked_below: 0,
    };
    let requests: Vec<_> = (0..5).map(|at| record("kiwi", 2, Some(id(at)))).collect();
    for request in &requests {
        cluster.client().record(request.clone()).await.unwrap();
    }
    let leads = cluster.leader_of(2).await;
    cluster.kill_server(leads).await;
    for request in &requests {
        let mut again = Request::new(request.clone());
        again.set_timeout(AMPLE);
        let again = cluster.client().record(again).await.unwrap().into_inner();
        assert_eq!((again.count, again.repeated), (10, true));
    }
    assert_eq!(count_again(&cluster, "kiwi").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_stale_reads_and_wait_for_what_a_token_names() {
    let cluster = Cluster::replicated().await;
    let stale = |token| GetTopKRequest {
        prefix: "k".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetTopKRequest::default()
    };
    // Every replica takes its turn, and each has to wait until it has applied what its reader wrote.
    let mut ages = Vec::new();
    for round in 1..=30 {
        let written = cluster.client().record(record("kiwi", 1, None)).await;
        let token = written.unwrap().into_inner().token;
        let read = cluster
            .client()
            .get_top_k(stale(token.clone()))
            .await
            .unwrap();
        let read = read.into_inner();
        assert_eq!(listed(&read), [("kiwi", round)]);
        ages.push(read.age_ms);
        let counted = GetCountRequest {
            term: "kiwi".into(),
            consistency: Consistency::Stale.into(),
            token,
            ..GetCountRequest::default()
        };
        let counted = cluster.client().get_count(counted).await.unwrap();
        assert_eq!(counted.into_inner().count, round);
    }
    // Only a leader's answer is of no age: followers say how old theirs may be.
    cluster.runtime.sleep(Duration::from_millis(20)).await;
    for _ in 0..3 {
        let read = cluster.client().get_top_k(stale(None)).await.unwrap();
        ages.push(read.into_inner().age_ms);
    }
    assert!(ages.contains(&0), "{ages:?}");
    assert!(ages.iter().any(|age| *age > 0), "{ages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_strict_is_answered_and_stale_reads_are() {
    let mut cluster = Cluster::replicated().await;
    for term in TERMS {
        cluster.record(term, 3).await;
    }
    all_agree(&cluster).await;
    cluster.kill_server(0).await;
    cluster.kill_server(1).await;
    // With the default deadline, which the status must not miss.
    for _ in 0..2 {
        for term in TERMS {
            let refused = cluster.client().record(record(term, 1, None)).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{refused}");
            let outcome = ApiError::from_status(&refused).outcome();
            assert!(outcome.is_some(), "{refused}");
            for consistency in [Consistency::Leader, Consistency::Linearizable] {
                let request = GetCountRequest {
                    term: term.into(),
                    consistency: consistency.into(),
                    ..GetCountRequest::default()
                };
                let refused = cluster.client().get_count(request).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unavailable, "{refused}");
            }
            assert_eq!(count(&cluster, term, Consistency::Stale).await.unwrap(), 3);
        }
    }
    let serves_nothing = |status: &GetStatusResponse| {
        let mut shards = status.shards.iter();
        shards.all(|at| at.state() != ShardState::Serving)
    };
    cluster.until("the status says so", serves_nothing).await;
    cluster.start_server(0).await;
    cluster.start_server(1).await;
    cluster.until("all replicas serve", all_serve).await;
    for term in TERMS {
        // What was not acknowledged may have been written all the same, as its outcome said.
        let found = count_again(&cluster, term).await;
        assert!((3..=5).contains(&found), "{term}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_no_majority_follows_knows_it_by_itself() {
    let mut cluster = Cluster::replicated().await;
    cluster.record("kiwi", 3).await;
    let lonely = cluster.leader_of(2).await;
    // At the same moment: one that is left alone with a leader that is slow would take its lead.
    let others = (0..3).filter(|place| *place != lonely).collect::<Vec<_>>();
    cluster.kill_servers(&others).await;
    // Asked without a coordinator, and with time enough.
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let mut request = Request::new(record("kiwi", 1, None));
        request.set_timeout(AMPLE);
        let refused = cluster.client_of(lonely).record(request).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::NoQuorum, "{refused}");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        outcomes.push(ApiError::from_status(&refused).outcome());
        let mut request = Request::new(GetCountRequest {
            term: "kiwi".into(),
            consistency: Consistency::Linearizable.into(),
            ..GetCountRequest::default()
        });
        request.set_timeout(AMPLE);
        let refused = cluster.client_of(lonely).get_count(request).await;
        assert_eq!(reason(&refused.unwrap_err()), Reason::NoQuorum);
    }
    // Of the first it may not know yet that nobody follows.
    assert_eq!(outcomes[1..], [Some(Outcome::NotApplied); 2]);
    for other in others {
        cluster.start_server(other).await;
    }
    cluster.until("all replicas serve", all_serve).await;
    let may_have_been = u64::from(outcomes[0] != Some(Outcome::NotApplied));
    let found = count_again(&cluster, "kiwi").await;
    assert!((3..=3 + may_have_been).contains(&found), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_all_come_back_at_other_addresses_find_each_other() {
    let mut cluster = Cluster::replicated().await;
    for term in TERMS {
        cluster.record(term, 3).await;
    }
    for place in 0..3 {
        cluster.kill_server(place).await;
        cluster.move_server(place);
    }
    for place in 0..3 {
        cluster.start_server(place).await;
    }
    cluster.until("all replicas serve", all_serve).await;
    for term in TERMS {
        assert_eq!(count_again(&cluster, term).await, 3);
    }
}

/// Waits until something was counted, which is when it is over.
async fn until_counted(cluster: &Cluster, count: impl Fn() -> u64) {
    let counted = async {
        while count() == 0 {
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    cluster.runtime.timeout(PATIENCE, counted).await.unwrap();
}

/// Three servers with three replicas, on disks that do what they are told to.
async fn on_simulated_disks() -> Cluster {
    let mut cluster = Cluster::of(Shape {
        replicas: 3,
        simulated: true,
        ..Shape::default()
    })
    .await;
    cluster.add_servers(3).await;
    cluster.until("all replicas serve", all_serve).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_does_not_answer_gives_its_leads_away() {
    let cluster = on_simulated_disks().await;
    cluster.record("kit", 1).await;
    let hung = cluster.leader_of(2).await;
    cluster.disk(hung).hold_syncs(true);
    let writers = Writers::start(&cluster);
    let runtime = cluster.runtime.clone();
    let moved = async {
        while cluster.leader_of(2).await == hung {
            runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    runtime.timeout(PATIENCE, moved).await.unwrap();
    writers.go_on(&runtime, 20).await;
    // By itself, or because a coordinator was quicker; counted when that is over. On a starved machine the other may take the lead when
    // nobody waits for it any more, and then it counts as failed.
    let by_itself = ["hand_over_lead", "slow_disk"];
    until_counted(&cluster, || {
        cluster.attempts(hung, by_itself, ["move_lead", "disk"])
    })
    .await;
    cluster.disk(hung).hold_syncs(false);
    cluster.until("all replicas serve", all_serve).await;
    writers.end(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_refuses_and_gives_its_leads_away() {
    let cluster = on_simulated_disks().await;
    cluster.record("kiwi", 1).await;
    let full = cluster.leader_of(2).await;
    let disk = cluster.disk(full);
    disk.set_capacity(Some(disk.used_bytes()));
    let write = || async {
        let mut request = Request::new(record("kiwi", 1, None));
        request.set_timeout(AMPLE);
        cluster.client().record(request).await
    };
    let (mut acknowledged, mut unknown) = (1, 0);
    let moved = async {
        while cluster.leader_of(2).await == full {
            match write().await {
                Ok(_) => acknowledged += 1,
                Err(refused) => {
                    let outcome = ApiError::from_status(&refused).outcome();
                    unknown += u64::from(outcome != Some(Outcome::NotApplied));
                }
            }
        }
    };
    cluster.runtime.timeout(PATIENCE, moved).await.unwrap();
    // Counted when it is over, which is after others have seen it, and as failed where the other took the lead after that.
    until_counted(&cluster, || cluster.tries(["move_lead", "disk"])).await;
    for _ in 0..20 {
        write().await.unwrap();
        acknowledged += 1;
    }
    disk.set_capacity(None);
    cluster.until("all replicas serve", all_serve).await;
    let found = count_again(&cluster, "kiwi").await;
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&found),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_asked_directly_is_as_old_as_its_oldest_part() {
    const OLD: Duration = Duration::from_millis(1_500);
    let cluster = Cluster::replicated().await;
    for term in TERMS {
        cluster.record(term, 1).await;
    }
    cluster.runtime.sleep(OLD).await;
    let deadline = cluster.runtime.now() + PATIENCE;
    loop {
        // The last part is young each time; nobody writes to the others.
        cluster.record("zoo", 1).await;
        cluster.runtime.sleep(Duration::from_millis(200)).await;
        let mut old = 0;
        for place in 0..3 {
            let ask = GetTopKRequest {
                consistency: Consistency::Stale.into(),
                ..GetTopKRequest::default()
            };
            let answer = cluster.client_of(place).get_top_k(ask).await.unwrap();
            let age_ms = u128::from(answer.into_inner().age_ms);
            old += usize::from(age_ms >= OLD.as_millis());
        }
        // A part is of no age only to who leads it.
        if old >= 2 {
            return;
        }
        assert!(
            cluster.runtime.now() < deadline,
            "{old} servers say how old they are"
        );
    }
}
