//! Shards that nobody comes to begin.

use std::time::Duration;

use api::admin::v1::{RecoverShardRequest, RecoveryAction, ShardState};
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, SyncRequest};

use super::harness::{Cluster, PATIENCE, Shape, all_serve};

/// Where nobody is.
const NOWHERE: &str = "127.0.0.1:1";

/// A server registers by a name, reports until it is to begin a shard, and ends instead: the shard.
async fn come_and_go(cluster: &Cluster, name: &str) -> u64 {
    let request = RegisterRequest {
        node_name: name.into(),
        address: NOWHERE.into(),
        instance_id: vec![9; 16].into(),
        ..RegisterRequest::default()
    };
    let founds = async {
        let mut registry = RegistryServiceClient::new(cluster.channel(0));
        loop {
            if let Ok(registered) = registry.register(request.clone()).await {
                let registered = registered.into_inner();
                let report = SyncRequest {
                    node_id: registered.node_id,
                    cluster_id: registered.cluster_id,
                    address: NOWHERE.into(),
                    ..SyncRequest::default()
                };
                if let Ok(orders) = registry.sync(report).await {
                    let orders = orders.into_inner();
                    let found = orders.assignments.iter().find(|at| at.bootstrap);
                    if let Some(found) = found {
                        return found.shard_id;
                    }
                }
            }
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let founds = cluster.runtime.timeout(PATIENCE, founds).await;
    founds.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_founder_is_lost_before_it_has_begun_is_begun_by_a_persons_word() {
    let mut cluster = Cluster::of(Shape {
        replicas: 3,
        ..Shape::default()
    })
    .await;
    cluster.add_servers(2).await;
    let shard = come_and_go(&cluster, "shard-3").await;
    // Another one has its name, and takes its place as soon as it is silent.
    cluster.add_server("shard-3").await;
    cluster
        .until("nobody begins the shard", |status| {
            let found = status.shards.iter().find(|at| at.shard_id == shard);
            found.is_some_and(|at| at.state() == ShardState::DataLoss)
        })
        .await;
    let recover = async |accept_loss: bool| {
        let request = RecoverShardRequest {
            shard_id: shard,
            accept_loss,
            confirmation: format!("lose shard {shard}"),
            accept_empty: false,
        };
        let answer = cluster.admin().recover_shard(request).await;
        answer.map(|answer| answer.into_inner().action())
    };
    let asked = recover(false).await.unwrap();
    assert_eq!(asked, RecoveryAction::NeedsAcceptLoss);
    let begun = async {
        // It waits where somebody has not told yet whether it holds anything.
        while recover(true).await.ok() != Some(RecoveryAction::NewIncarnation) {
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let begun = cluster.runtime.timeout(PATIENCE, begun).await;
    begun.expect("the shard is not begun");
    cluster.until("all replicas serve", all_serve).await;
    for term in ["bee", "kit", "yak"] {
        assert_eq!(cluster.record(term, 1).await, 1);
    }
}
