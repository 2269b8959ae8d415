//! Direct routing by the cached map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use client::Client;
use cluster::{Epoch, Incarnation, Layout, Node, NodeId, Replica, Shard, ShardId, ShardMap};
use runtime::Runtime;

use crate::fake::{Fake, Play, batch, error, options, prefix, record};

/// A map of two shards that part at "m", on the given addresses.
fn map(epoch: u64, addresses: [&str; 2]) -> ShardMap {
    let starts = vec![(String::new(), ShardId(1)), ("m".to_owned(), ShardId(2))];
    let shard = |id: u64| Shard {
        id: ShardId(id),
        incarnation: Incarnation::FIRST,
        replicas: vec![Replica {
            node: NodeId(id),
            voter: true,
        }],
        lineage: Vec::new(),
    };
    let node = |id: u64, address: &str| Node {
        id: NodeId(id),
        name: format!("node-{id}"),
        address: address.to_owned(),
        region: String::new(),
        lost: false,
    };
    ShardMap {
        epoch: Epoch(epoch),
        template: Arc::new(Layout::new(starts).unwrap()),
        shards: [1, 2].map(|id| (ShardId(id), shard(id))).into(),
        nodes: [(1, addresses[0]), (2, addresses[1])]
            .map(|(id, address)| (NodeId(id), node(id, address)))
            .into(),
        namespaces: BTreeMap::new(),
    }
}

struct Cluster {
    coordinator: Fake,
    shards: [Fake; 2],
    addresses: [String; 2],
    client: Client,
}

async fn cluster() -> Cluster {
    let coordinator = Fake::default();
    let shards = [Fake::default(), Fake::default()];
    let addresses = [shards[0].serve().await, shards[1].serve().await];
    coordinator.set_map(map(1, [&addresses[0], &addresses[1]]));
    let mut options = options(&[&coordinator.serve().await]);
    options.direct = true;
    let client = Client::connect(Runtime::real(), options).unwrap();
    Cluster {
        coordinator,
        shards,
        addresses,
        client,
    }
}

#[tokio::test]
async fn what_concerns_one_shard_goes_to_its_owner() {
    let Cluster {
        coordinator,
        shards: [low, high],
        client,
        ..
    } = cluster().await;
    client.record(record("Apple")).await.unwrap();
    client.record(record("zoo")).await.unwrap();
    client.top_k(prefix("zo")).await.unwrap();
    // The empty prefix spans both, a batch may.
    client.top_k(prefix("")).await.unwrap();
    client.record_batch(batch(&["b"])).await.unwrap();
    assert_eq!((low.count("Apple"), high.count("zoo")), (1, 1));
    assert_eq!((high.reads(), coordinator.reads()), (1, 1));
    assert_eq!(coordinator.count("b"), 1);
    assert_eq!(coordinator.maps_served(), 1, "the map is kept");
}

#[tokio::test]
async fn a_stale_map_costs_one_refresh_and_the_id_stays() {
    let Cluster {
        coordinator,
        shards: [low, high],
        addresses,
        client,
    } = cluster().await;
    client.record(record("warm up")).await.unwrap();
    // The shards change places, and the old owner says so.
    coordinator.set_map(map(2, [&addresses[1], &addresses[0]]));
    high.script([Play::Refuse(error(Reason::WrongShard))]);
    client.record(record("zoo")).await.unwrap();
    assert_eq!((low.count("zoo"), high.count("zoo")), (1, 0));
    assert_eq!(coordinator.maps_served(), 2);
    assert_eq!(high.ids().last(), low.ids().last());
    assert_eq!(coordinator.ids().len(), 0);
}

#[tokio::test]
async fn who_never_tries_again_asks_the_right_one_next_time() {
    let coordinator = Fake::default();
    let shards = [Fake::default(), Fake::default()];
    let addresses = [shards[0].serve().await, shards[1].serve().await];
    coordinator.set_map(map(1, [&addresses[0], &addresses[1]]));
    let mut options = options(&[&coordinator.serve().await]);
    (options.direct, options.retries) = (true, 0);
    let client = Client::connect(Runtime::real(), options).unwrap();
    client.record(record("zoo")).await.unwrap();
    coordinator.set_map(map(2, [&addresses[1], &addresses[0]]));
    let [low, high] = shards;
    high.script([Play::Refuse(error(Reason::WrongShard))]);
    let refused = client.record(record("zoo")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::WrongShard));
    client.record(record("zoo")).await.unwrap();
    assert_eq!((low.count("zoo"), high.count("zoo")), (1, 1));
}

#[tokio::test]
async fn an_owner_that_fails_leaves_the_rest_to_the_coordinator() {
    let Cluster {
        coordinator,
        shards: [low, _high],
        client,
        ..
    } = cluster().await;
    low.script([Play::ApplyThenFail(error(Reason::Disconnected))]);
    client.record(record("apple")).await.unwrap();
    assert_eq!(coordinator.ids(), low.ids());
    // Who has just failed is left alone for a moment, and then asked again.
    client.record(record("apple")).await.unwrap();
    assert_eq!((coordinator.ids().len(), low.ids().len()), (2, 1));
    let again = async {
        while low.ids().len() < 2 {
            client.record(record("apple")).await.unwrap();
        }
    };
    let runtime = Runtime::real();
    let waited = runtime.timeout(Duration::from_secs(30), again).await;
    waited.expect("the owner is asked again");
}

#[tokio::test]
async fn a_leader_that_has_too_much_to_do_is_not_forgotten() {
    let Cluster {
        coordinator,
        shards: [low, high],
        addresses,
        client,
    } = cluster().await;
    let mut map = map(1, [&addresses[0], &addresses[1]]);
    let second = Replica {
        node: NodeId(2),
        voter: true,
    };
    let shard = map.shards.get_mut(&ShardId(1)).unwrap();
    shard.replicas.push(second);
    coordinator.set_map(map);
    low.script([Play::Refuse(ApiError::not_leader(Some(NodeId(2))))]);
    client.record(record("apple")).await.unwrap();
    assert_eq!((low.ids().len(), high.count("apple")), (1, 1));
    let busy = ApiError::overloaded("busy", Duration::from_millis(1));
    high.script([Play::Refuse(busy)]);
    client.record(record("apple")).await.unwrap();
    assert_eq!(coordinator.count("apple"), 1);
    client.record(record("apple")).await.unwrap();
    assert_eq!((low.ids().len(), high.count("apple")), (1, 2));
}

#[tokio::test]
async fn without_a_map_the_coordinator_does_everything() {
    let coordinator = Fake::default();
    let mut options = options(&[&coordinator.serve().await]);
    options.direct = true;
    let client = Client::connect(Runtime::real(), options).unwrap();
    client.record(record("a")).await.unwrap();
    assert_eq!(coordinator.count("a"), 1);
}
