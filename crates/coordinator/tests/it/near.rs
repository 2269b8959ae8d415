//! Shards in the coordinator's own process.

use api::v1::{GetCountRequest, RecordRequest};

use super::harness::{Cluster, Shape, listed};
use super::writes::settled;

async fn count(cluster: &Cluster, term: &str) -> u64 {
    let request = GetCountRequest {
        term: term.into(),
        ..GetCountRequest::default()
    };
    let answer = cluster.client().get_count(request).await.unwrap();
    answer.into_inner().count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_asked_without_a_socket_for_as_long_as_they_serve() {
    let mut cluster = Cluster::of(Shape {
        near: true,
        ..Shape::default()
    })
    .await;
    for number in 1..=3 {
        cluster.add_server(&format!("shard-{number}")).await;
    }
    cluster.until_serving().await;
    let is_near = |cluster: &Cluster, place| {
        let address = cluster.server_address(place);
        cluster.neighbours.get(&address).is_some()
    };
    assert!((0..3).all(|place| is_near(&cluster, place)));
    for (term, times) in [("ant", 3), ("gold", 2), ("zoo", 1)] {
        assert_eq!(cluster.record(term, times).await, times);
    }
    let all = [("ant", 3), ("gold", 2), ("zoo", 1)];
    assert_eq!(listed(&cluster.top("", 10).await), all);
    assert_eq!(count(&cluster, "gold").await, 2);

    // The owner of one of them goes, and its door with it: the answer says that a part is missing.
    let owner = cluster.leader_of(2).await;
    cluster.stop_server(owner).await;
    assert!(!is_near(&cluster, owner));
    let partial = cluster.top("", 10).await;
    assert_eq!(listed(&partial), [("ant", 3), ("zoo", 1)]);
    assert_eq!(partial.completeness.unwrap().missing.len(), 1);

    // It comes back where it was, as a new process would.
    cluster.start_server(owner).await;
    let request = RecordRequest {
        term: "gold".into(),
        count: 5,
        ..RecordRequest::default()
    };
    let send = async || cluster.client().record(request.clone()).await;
    assert_eq!(settled(&cluster, send).await.count, 7);
    assert!(is_near(&cluster, owner));
    assert_eq!(listed(&cluster.top("g", 10).await), [("gold", 7)]);
}
