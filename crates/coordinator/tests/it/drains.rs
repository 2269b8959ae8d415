//! What a person has said of a server, when the server comes back as another.

use std::time::Duration;

use api::admin::v1::{DrainNodeRequest, NodeStatus};
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, RegisterResponse};

use super::harness::{Cluster, PATIENCE};

/// The name of a server comes with another directory, as soon as the old one is silent.
async fn come_back_empty(cluster: &Cluster, place: usize) -> RegisterResponse {
    let request = RegisterRequest {
        node_name: format!("shard-{}", place + 1),
        address: cluster.server_address(place),
        instance_id: vec![9; 16].into(),
        ..RegisterRequest::default()
    };
    let registered = async {
        let mut registry = RegistryServiceClient::new(cluster.channel(0));
        loop {
            if let Ok(registered) = registry.register(request.clone()).await {
                return registered.into_inner();
            }
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let registered = cluster.runtime.timeout(PATIENCE, registered).await;
    registered.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_server_is_drained_also_when_it_has_lost_its_disk() {
    let mut cluster = Cluster::replicated().await;
    // Nobody could take what it holds.
    let drain = |undo| DrainNodeRequest {
        node: "shard-1".into(),
        undo,
    };
    cluster.admin().drain_node(drain(false)).await.unwrap();
    cluster.kill_server(0).await;
    let back = come_back_empty(&cluster, 0).await;
    let told = async || {
        let status = cluster.until("there is a status", |_| true).await;
        let is_it = |node: &NodeStatus| node.node_id == back.node_id;
        status.nodes.into_iter().find(is_it).unwrap()
    };
    // From the moment on in which it knows who it is.
    let node = told().await;
    assert!(node.draining && !node.lost, "{node:?}");
    assert!(cluster.actions("drain", "taken_over") >= 1);
    // The server is meant, whoever it is now.
    cluster.admin().drain_node(drain(true)).await.unwrap();
    let node = told().await;
    assert!(!node.draining, "{node:?}");
}
