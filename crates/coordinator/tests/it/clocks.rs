//! A coordinator that led when its clock stopped, and that the others do not hear any more: by that clock its lease never ends, and another one
//! leads. What that one has changed it does not know, and denies to nobody.

use std::time::Duration;

use api::Reason;
use api::admin::v1::GetStatusResponse;
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, ResolveNamespaceRequest, SyncRequest};
use api::v1::{Consistency, GetCountRequest, GetTopKRequest};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::harness::{Cluster, PATIENCE, Shape, reason};

/// Three coordinators without servers, by their places.
struct Stage {
    cluster: Cluster,
    /// Whose clock stands still.
    behind: usize,
    /// Who leads.
    leader: usize,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::of(Shape {
            coordinators: 3,
            cuttable: true,
            ..Shape::default()
        })
        .await;
        let tries = async {
            let mut round = 0;
            loop {
                round += 1;
                let behind = cluster.leader_at(0).await;
                cluster.clock(behind).stop();
                // Once this is stored, a majority has followed it by the clock that stands still.
                create(&cluster, behind, &format!("before-{round}")).await;
                cluster.cut_coordinator(behind);
                let other = (behind + 1) % 3;
                let is_replaced = |status: &GetStatusResponse| {
                    status.metadata_available && leader(status).is_some_and(|at| at != behind)
                };
                let status = cluster.until_at(other, "another leads", is_replaced).await;
                let believed = cluster.until_at(behind, "a status", |_| true).await;
                if leader(&believed) == Some(behind) {
                    return (behind, leader(&status).unwrap());
                }
                // It had heard of another one before.
                cluster.heal();
                cluster.clock(behind).go_on();
            }
        };
        let (behind, leader) = cluster.runtime.timeout(PATIENCE, tries).await.unwrap();
        Self {
            cluster,
            behind,
            leader,
        }
    }
}

/// Who leads, as far as a coordinator knows.
fn leader(status: &GetStatusResponse) -> Option<usize> {
    status.coordinators.iter().position(|at| at.leads)
}

fn registry(cluster: &Cluster, place: usize) -> RegistryServiceClient<Channel> {
    RegistryServiceClient::new(cluster.channel(place))
}

/// Whether it is refused for now, and nothing is said of what it is about.
fn is_put_off(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

/// Asks until there is an answer, as the lead may move and the machine be busy.
async fn answered<T>(cluster: &Cluster, ask: impl AsyncFn() -> Result<Response<T>, Status>) -> T {
    let tries = async {
        loop {
            match ask().await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert!(is_put_off(&status), "{status}"),
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    cluster.runtime.timeout(PATIENCE, tries).await.unwrap()
}

async fn create(cluster: &Cluster, place: usize, name: &str) {
    let request = ResolveNamespaceRequest {
        name: name.to_owned(),
        create: true,
    };
    let ask = async || {
        registry(cluster, place)
            .resolve_namespace(request.clone())
            .await
    };
    answered(cluster, ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_clock_stands_still_does_not_say_that_a_namespace_does_not_exist() {
    let Stage {
        cluster,
        behind,
        leader,
    } = Stage::new().await;
    create(&cluster, leader, "new").await;
    let completions = GetTopKRequest {
        namespace: "new".into(),
        consistency: Consistency::Linearizable.into(),
        ..GetTopKRequest::default()
    };
    let refused = cluster.client_at(behind).get_top_k(completions).await;
    let refused = refused.unwrap_err();
    assert!(is_put_off(&refused), "{refused}");
    let count = GetCountRequest {
        namespace: "new".into(),
        term: "kiwi".into(),
        consistency: Consistency::Linearizable.into(),
        ..GetCountRequest::default()
    };
    let refused = cluster.client_at(behind).get_count(count).await;
    let refused = refused.unwrap_err();
    assert!(is_put_off(&refused), "{refused}");
    // Nor to a server that was asked.
    let unknown = ResolveNamespaceRequest {
        name: "new".into(),
        create: false,
    };
    let ask = async || {
        registry(&cluster, behind)
            .resolve_namespace(unknown.clone())
            .await
    };
    let refused = ask().await.unwrap_err();
    assert!(is_put_off(&refused), "{refused}");
    cluster.heal();
    cluster.clock(behind).go_on();
    let found = answered(&cluster, ask).await;
    assert!(found.namespace.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_clock_stands_still_gives_up_no_server_that_has_registered_since() {
    let Stage {
        cluster,
        behind,
        leader,
    } = Stage::new().await;
    let registration = RegisterRequest {
        node_name: "shard-1".into(),
        address: "127.0.0.1:1".into(),
        region: String::new(),
        instance_id: vec![7; 16].into(),
    };
    let ask = async || {
        registry(&cluster, leader)
            .register(registration.clone())
            .await
    };
    let issued = answered(&cluster, ask).await;
    let report = async |place: usize, node_id: u64| {
        let request = SyncRequest {
            node_id,
            cluster_id: issued.cluster_id.clone(),
            address: registration.address.clone(),
            ..SyncRequest::default()
        };
        registry(&cluster, place).sync(request).await
    };
    let refused = report(behind, issued.node_id).await.unwrap_err();
    assert!(is_put_off(&refused), "{refused}");
    answered(&cluster, async || report(leader, issued.node_id).await).await;
    // One that nobody was ever given is given up, once the lead is sure.
    let given_up = async {
        loop {
            let refused = report(leader, issued.node_id + 1).await.unwrap_err();
            if reason(&refused) == Reason::NodeLost {
                return;
            }
            assert!(is_put_off(&refused), "{refused}");
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let given_up = cluster.runtime.timeout(PATIENCE, given_up).await;
    given_up.expect("it is never given up");
}
