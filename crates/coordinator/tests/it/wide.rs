//! More than three replicas: five voters of which two may be lost, and a learner in a region whose link is cut.

use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ReplicaRole, ReplicaStatus, ShardStatus};
use api::v1::{
    Consistency, GetCountRequest, GetTopKRequest, GetTopKResponse, RecordRequest, RequestId,
    SessionToken,
};
use api::{ApiError, Reason};
use bytes::Bytes;
use tonic::{Code, IntoRequest, Request, Status};

use super::harness::{Cluster, PATIENCE, Shape, listed, reason};
use super::replicas::Writers;

/// A deadline that holds an election, on a machine that has other work.
const AMPLE: Duration = Duration::from_secs(10);
/// What is waited for something that does not come.
const SHORT: Duration = Duration::from_millis(300);

async fn record(
    cluster: &Cluster,
    request: impl IntoRequest<RecordRequest>,
) -> Result<u64, Status> {
    Ok(cluster.client().record(request).await?.into_inner().count)
}

fn kiwi() -> RecordRequest {
    RecordRequest {
        term: "kiwi".into(),
        ..RecordRequest::default()
    }
}

async fn count(cluster: &Cluster, term: &str, consistency: Consistency) -> Result<u64, Status> {
    let request = GetCountRequest {
        term: term.into(),
        consistency: consistency.into(),
        ..GetCountRequest::default()
    };
    Ok(cluster
        .client()
        .get_count(request)
        .await?
        .into_inner()
        .count)
}

fn five_serve(status: &GetStatusResponse) -> bool {
    let whole = |shard: &ShardStatus| {
        shard.replicas.len() == 5 && shard.replicas.iter().all(|replica| replica.serving)
    };
    status.shards.len() == 3 && status.shards.iter().all(whole)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_replicas_go_on_without_two_and_wait_without_three() {
    let mut cluster = Cluster::of(Shape {
        replicas: 5,
        ..Shape::default()
    })
    .await;
    cluster.add_servers(5).await;
    cluster.until("all five replicas serve", five_serve).await;
    let writers = Writers::start(&cluster);
    writers.go_on(&cluster.runtime, 20).await;
    for _ in 0..2 {
        let leads = cluster.leader_of(2).await;
        cluster.kill_server(leads).await;
        writers.go_on(&cluster.runtime, 30).await;
    }
    writers.end(&cluster).await;
    let acknowledged = count(&cluster, "kiwi", Consistency::Linearizable).await;
    let acknowledged = acknowledged.unwrap();

    let third = cluster.leader_of(2).await;
    cluster.kill_server(third).await;
    // By the deadline that the server gives it: a caller's own would race with the answer.
    let refused = record(&cluster, kiwi()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    for consistency in [Consistency::Leader, Consistency::Linearizable] {
        let refused = count(&cluster, "kiwi", consistency).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    // With one of the three there is a majority again; the write that was refused may have been written all the same.
    cluster.start_server(third).await;
    let now = record(&cluster, rpc::request(kiwi(), AMPLE)).await.unwrap();
    assert!(
        (1..=2).contains(&(now - acknowledged)),
        "{now} after {acknowledged}"
    );
}

/// Four servers, the first of which, whose place is told as well, stands in another region than the voters and holds a learner of
/// every shard.
pub(super) async fn with_a_far_region(shape: Shape) -> (Cluster, usize) {
    let mut cluster = Cluster::of(Shape {
        replicas: 3,
        ..shape
    })
    .await;
    cluster.coordinator_config(0).home_region = Some("home".into());
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    cluster.add_server_in("far", "shard-1").await;
    for number in 2..=4 {
        let name = format!("shard-{number}");
        cluster.add_server_in("home", &name).await;
    }
    let follows = |status: &GetStatusResponse| {
        let Some(far) = far_node(status) else {
            return false;
        };
        status.shards.iter().all(|shard| {
            let whole = shard.replicas.len() == 4 && shard.change.is_none();
            let learns = |at: &ReplicaStatus| {
                (at.node_id == far) == (at.role() == ReplicaRole::Learner) && at.serving
            };
            whole && shard.replicas.iter().all(learns)
        })
    };
    cluster.until("the far region follows", follows).await;
    (cluster, 0)
}

fn far_node(status: &GetStatusResponse) -> Option<u64> {
    let node = status.nodes.iter().find(|node| node.region == "far");
    node.map(|node| node.node_id)
}

fn far_replicas(
    status: &GetStatusResponse,
) -> impl Iterator<Item = (&ShardStatus, &ReplicaStatus)> {
    let far = far_node(status);
    status.shards.iter().filter_map(move |shard| {
        let mut replicas = shard.replicas.iter();
        let found = replicas.find(|replica| Some(replica.node_id) == far);
        found.map(|replica| (shard, replica))
    })
}

/// How many entries the far region has not applied, of the shard of which it lacks fewest.
fn fewest_behind(status: &GetStatusResponse) -> u64 {
    let behind = far_replicas(status).map(|(shard, replica)| {
        let newest = shard.replicas.iter().map(|at| at.applied_index).max();
        newest.unwrap_or_default() - replica.applied_index
    });
    behind.min().unwrap_or_default()
}

async fn stale(
    cluster: &Cluster,
    place: usize,
    token: Option<SessionToken>,
    limit: Duration,
) -> Result<GetTopKResponse, Status> {
    let mut request = Request::new(GetTopKRequest {
        prefix: "k".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetTopKRequest::default()
    });
    request.set_timeout(limit);
    let answer = cluster.client_of(place).get_top_k(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_whose_link_is_cut_holds_up_nobody_and_catches_up() {
    let (cluster, far) = with_a_far_region(Shape {
        cuttable: true,
        ..Shape::default()
    })
    .await;
    let writers = Writers::start(&cluster);
    writers.go_on(&cluster.runtime, 20).await;
    let known = cluster.top("k", 1).await;
    let before = stale(&cluster, far, known.token, AMPLE).await.unwrap();
    assert_eq!(before.suggestions.len(), 1);

    cluster.cut(far);
    // What was under way may still arrive, and then nothing does.
    let lag = cluster.until("the far region falls behind", |status| {
        fewest_behind(status) > 0
    });
    let lag = fewest_behind(&lag.await);
    let old = stale(&cluster, far, None, AMPLE).await.unwrap();
    // More than goes by between two settings of the gauge.
    let aged = cluster.stale_age(far, "g") + 3.0;
    let further = |status: &GetStatusResponse| fewest_behind(status) >= lag + 30;
    cluster.until("it falls further behind", further).await;
    let older = stale(&cluster, far, None, AMPLE).await.unwrap();
    assert_eq!(listed(&older), listed(&old), "it answers as of then");
    assert!(older.age_ms > old.age_ms, "{older:?} after {old:?}");
    // What a caller has seen at home it cannot show, and it does not answer without it.
    let seen = cluster.top("k", 1).await;
    assert!(listed(&seen) > listed(&old));
    let refused = stale(&cluster, far, seen.token.clone(), SHORT).await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), Reason::Deadline, "{refused}");
    let tells = |status: &GetStatusResponse| far_replicas(status).all(|(_, at)| !at.serving);
    cluster.until("it says that it follows nobody", tells).await;

    let ages = async {
        while cluster.stale_age(far, "g") < aged {
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let ages = cluster.runtime.timeout(PATIENCE, ages).await;
    ages.expect("its metrics tell of its age");

    cluster.cut_off_coordinator(far);
    let is_gone = |status: &GetStatusResponse| {
        let node = status.nodes.iter().find(|node| node.region == "far");
        node.is_some_and(|node| !node.alive)
    };
    cluster.until("nobody hears of it", is_gone).await;
    writers.go_on(&cluster.runtime, 30).await;
    // Of all the calls none failed, and strict reads tell every write.
    writers.end(&cluster).await;
    let at_home = cluster.top("k", 1).await;

    cluster.heal();
    let caught_up = |status: &GetStatusResponse| {
        let mut replicas = far_replicas(status);
        fewest_behind(status) == 0 && replicas.all(|(_, at)| at.serving && at.applied_index > 0)
    };
    cluster.until("it has caught up", caught_up).await;
    let now = stale(&cluster, far, at_home.token.clone(), AMPLE).await;
    assert_eq!(listed(&now.unwrap()), listed(&at_home));
    // Where nothing is written the age would go on growing.
    let is_fresh = async {
        while cluster.stale_age(far, "g") >= aged {
            cluster.record("kiwi", 1).await;
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let is_fresh = cluster.runtime.timeout(PATIENCE, is_fresh).await;
    is_fresh.expect("its metrics tell that it has caught up");
}

/// A learner, for no other replica is sure never to lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_lead_says_so_though_it_is_above_its_memory_budget() {
    let (cluster, far) = with_a_far_region(Shape {
        tight: Some(0),
        cuttable: true,
        ..Shape::default()
    })
    .await;
    let with_id = |request_id| {
        let request = RecordRequest {
            request_id,
            ..kiwi()
        };
        rpc::request(request, AMPLE)
    };
    let written = cluster.client().record(with_id(None)).await.unwrap();
    let held = stale(&cluster, far, written.into_inner().token, AMPLE).await;
    assert_eq!(listed(&held.unwrap()), [("kiwi", 1)]);
    let refused = cluster
        .client_of(far)
        .record(with_id(None))
        .await
        .unwrap_err();
    let error = ApiError::from_status(&refused);
    assert_eq!(error.reason(), Reason::NotLeader, "{refused}");
    assert!(error.leader().is_some(), "{refused}");
    // Where it would not be refused.
    assert_eq!(record(&cluster, with_id(None)).await.unwrap(), 2);

    // Of what it has not heard of it does not say that there was no room for it: it was applied.
    cluster.cut(far);
    let id = RequestId {
        client_id: Bytes::from_static(b"sixteen bytes id"),
        sequence: 1,
        issued_at_ms: cluster.runtime.wall_ms(),
        acked_below: 0,
    };
    let again = || with_id(Some(id.clone()));
    let first = cluster.client().record(again()).await.unwrap();
    assert_eq!(first.into_inner().count, 3);
    let refused = cluster.client_of(far).record(again()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotLeader, "{refused}");
    let repeat = cluster.client().record(again()).await.unwrap().into_inner();
    assert_eq!((repeat.count, repeat.repeated), (3, true));
    cluster.heal();
}
