//! What a person has said of a server, when the server comes back as another.

use api::admin::v1::{DrainNodeRequest, NodeStatus};

use super::harness::Cluster;
use super::steps::give_name_away;

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
    let back = give_name_away(&cluster, 0).await;
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
