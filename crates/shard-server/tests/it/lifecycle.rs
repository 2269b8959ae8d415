use std::collections::BTreeMap;

use api::Reason;
use api::v1::*;
use rpc::health::{READY_SERVICE, shard_read};
use shard_server::RunError;

use crate::harness::{World, reason, request_id};

#[tokio::test]
async fn what_was_acknowledged_survives_stops_and_kills() {
    let mut world = World::new().await;
    world.config.snapshots.entries = 50;
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..5_u64 {
        let node = world.start().await;
        for (term, count) in &expected {
            assert_eq!(node.count(term).await, *count, "{term} in round {round}");
        }
        for n in 0..60 {
            let term = format!("{} {}", ["boston", "paris"][n % 2], n % 7);
            let count = node.record(&term, round + 1).await;
            let sum = expected.entry(term).or_default();
            *sum += round + 1;
            assert_eq!(count, *sum);
        }
        if round % 2 == 0 {
            node.kill();
        } else {
            node.stop().await.unwrap();
        }
    }
    let node = world.start().await;
    let mut best: Vec<(String, u64)> = expected
        .into_iter()
        .filter(|(term, _)| term.starts_with("paris"))
        .collect();
    best.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    assert_eq!(node.top("paris", 1000).await, best);
}

#[tokio::test]
async fn retries_after_a_kill_count_once() {
    let world = World::new().await;
    let mut node = world.start().await;
    let mut requests = Vec::new();
    for sequence in 0..20 {
        let batch = RecordBatchRequest {
            items: ["boston", "paris", "paris"]
                .map(|term| RecordItem {
                    term: term.into(),
                    count: sequence + 1,
                })
                .to_vec(),
            request_id: Some(request_id(3, sequence)),
            ..RecordBatchRequest::default()
        };
        requests.push(batch.clone());
        // Half of the answers are lost on the way.
        if sequence % 2 == 0 {
            node.public().record_batch(batch).await.unwrap();
        }
        if sequence % 5 == 4 {
            node.kill();
            node = world.start().await;
        }
    }
    for _ in 0..2 {
        for request in &requests {
            let answer = node
                .public()
                .record_batch(request.clone())
                .await
                .unwrap()
                .into_inner();
            assert!(answer.results.iter().all(|result| result.error().is_none()));
        }
    }
    let sum: u64 = (1..=20).sum();
    assert_eq!(
        (node.count("boston").await, node.count("paris").await),
        (sum, 2 * sum)
    );
}

#[tokio::test]
async fn a_node_goes_on_and_restarts_without_its_coordinators() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 2).await;
    // The orders with the namespace in them have to be there before the coordinators go away.
    world
        .until("the newest map has arrived", || async {
            let epoch = world.registry.state.lock().map.epoch;
            world
                .registry
                .report(1)
                .is_some_and(|report| report.known_epoch == epoch)
        })
        .await;
    world.registry.state.lock().is_away = true;
    assert_eq!(node.record("paris", 1).await, 3);
    node.kill();
    let node = world.start().await;
    assert_eq!(node.count("paris").await, 3);
    assert_eq!(node.record("paris", 1).await, 4);
    // Only what nobody here can know has to wait.
    let stranger = RecordRequest {
        term: "paris".into(),
        namespace: "new".into(),
        ..RecordRequest::default()
    };
    let refused = node.public().record(stranger.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    world.registry.state.lock().is_away = false;
    node.public().record(stranger).await.unwrap();
}

/// What a node has last reported of its shards: life, and whether it serves.
fn reported(world: &World) -> BTreeMap<u64, (u64, bool)> {
    let report = world.registry.report(1);
    let replicas = report.into_iter().flat_map(|report| report.replicas);
    replicas
        .map(|at| (at.shard_id, (at.incarnation, at.serving)))
        .collect()
}

#[tokio::test]
async fn orders_of_a_coordinator_that_lags_behind_are_left_alone() {
    let world = World::new().await;
    let node = world.start().await;
    // The first write makes the namespace, and with it a newer map.
    assert_eq!(node.record("paris", 1).await, 1);
    world.until_orders_are_taken(1).await;
    {
        let mut state = world.registry.state.lock();
        state.map.epoch -= 1;
        state.assignments.clear();
    }
    world.until_orders_are_taken(1).await;
    let both = BTreeMap::from([(1, (1, true)), (2, (1, true))]);
    assert_eq!(reported(&world), both);
    assert_eq!(node.record("paris", 1).await, 2);
    // Once it has caught up the same orders count.
    world.registry.state.lock().map.epoch += 1;
    world.until_orders_are_taken(1).await;
    let none = BTreeMap::from([(1, (1, false)), (2, (1, false))]);
    assert_eq!(
        reported(&world),
        none,
        "the map has no other place for them"
    );
}

#[tokio::test]
async fn a_shard_does_not_go_back_to_an_older_life() {
    let world = World::new().await;
    let node = world.start().await;
    let assign = |incarnation| {
        let mut state = world.registry.state.lock();
        let mut assigned = state.assignments.iter_mut();
        let second = assigned.find(|at| at.shard_id == 2).unwrap();
        second.incarnation = incarnation;
    };
    assign(2);
    let life = || reported(&world).get(&2).copied();
    world
        .until("it has begun anew", || async { life() == Some((2, true)) })
        .await;
    assert_eq!(node.record("paris", 1).await, 1);
    assign(1);
    world.until_orders_are_taken(1).await;
    assert_eq!(life(), Some((2, true)));
    assert_eq!(node.count("paris").await, 1);
}

#[tokio::test]
async fn health_says_what_is_true() {
    let world = World::new().await;
    world.registry.state.lock().is_away = true;
    let node = world.launch().await;
    let asked = |service: String| {
        let (runtime, address) = (world.runtime.clone(), node.address.clone());
        async move {
            let patience = std::time::Duration::from_secs(2);
            rpc::healthcheck(&runtime, &address, &service, patience)
                .await
                .is_ok()
        }
    };
    let shard = || shard_read(cluster::ShardId(1));
    world
        .until("the process lives", || asked(String::new()))
        .await;
    assert!(!asked(READY_SERVICE.into()).await);
    assert!(!asked(shard()).await);
    let refused = node
        .public()
        .get_top_k(GetTopKRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), Reason::Starting);
    world.registry.state.lock().is_away = false;
    world.until("it serves", || asked(shard())).await;
    world
        .until("it is ready", || asked(READY_SERVICE.into()))
        .await;
    // No longer assigned, and on another node by the map: stopped, forgotten, removed.
    {
        let mut state = world.registry.state.lock();
        state
            .assignments
            .retain(|assignment| assignment.shard_id != 1);
        state.change_map(|map| map.shards[0].replicas[0].node_id = 99);
    }
    let record = RecordRequest {
        term: "boston".into(),
        ..RecordRequest::default()
    };
    world
        .until("it says where to go", || async {
            let answer = node.public().record(record.clone()).await;
            answer.is_err_and(|refused| reason(&refused) == Reason::WrongShard)
        })
        .await;
    world
        .until("it serves no more", || async { !asked(shard()).await })
        .await;
}

#[tokio::test]
async fn a_lost_disk_means_a_new_identity_and_never_the_old_one() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.stop().await.unwrap();
    std::fs::remove_dir_all(world.data_dir()).unwrap();
    let node = world.launch().await;
    // With the map, too: until then it cannot know what is whose.
    world
        .until("it reports as another", || async {
            let epoch = world.registry.state.lock().map.epoch;
            let report = world.registry.report(2);
            report.is_some_and(|report| report.known_epoch == epoch)
        })
        .await;
    assert_eq!(world.registry.state.lock().instances.len(), 2);
    // It hosts nothing: what it was assigned belonged to the identity that is gone.
    let mut shards = node.shards();
    let refused = shards.count(api::shard::v1::CountRequest {
        route: Some(api::shard::v1::Route {
            shard_id: 2,
            incarnation: 1,
            epoch: 1,
            ..Default::default()
        }),
        namespace_id: 1,
        generation: 1,
        term: "paris".into(),
        ..Default::default()
    });
    assert_eq!(reason(&refused.await.unwrap_err()), Reason::WrongShard);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_that_vanished_is_refused_and_not_begun_anew() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.stop().await.unwrap();
    std::fs::remove_dir_all(world.data_dir().join("wal")).unwrap();
    let node = world.launch().await;
    world
        .until("the loss is reported", || async {
            world.registry.report(1).is_some_and(|report| {
                report.replicas.len() == 2
                    && report
                        .replicas
                        .iter()
                        .all(|replica| replica.data_loss && !replica.serving)
            })
        })
        .await;
    let record = RecordRequest {
        term: "paris".into(),
        ..RecordRequest::default()
    };
    let refused = node.public().record(record).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss);
}

#[tokio::test]
async fn an_identity_that_was_given_up_ends_and_keeps_its_data() {
    let world = World::new().await;
    let mut node = world.start().await;
    node.record("paris", 1).await;
    world.registry.state.lock().lost.push(1);
    let ended = node.end().await.unwrap_err();
    assert!(matches!(ended, RunError::NodeLost { .. }), "{ended}");
    assert!(world.data_dir().join("identity").exists());
    drop(node);
    world.registry.state.lock().lost.clear();
    let node = world.start().await;
    assert_eq!(node.count("paris").await, 1);
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let world = World::new().await;
    let node = world.start().await;
    let runtime = runtime::Runtime::real();
    let deps = shard_server::Deps::real(runtime).unwrap();
    let second = shard_server::run(
        world.config.clone(),
        deps,
        runtime::CancellationToken::new(),
    );
    let ended = Box::pin(second).await.unwrap_err();
    assert!(matches!(ended, RunError::Locked { .. }), "{ended}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_ends_with_any_of_its_tasks() {
    let mut world = World::new().await;
    world.config.http_addr = Some(([127, 0, 0, 1], 0).into());
    let tasks = [
        "grpc-server",
        "http-server",
        "node-audit",
        "node-budget",
        "node-stall",
        "node-sync",
        "node-upkeep",
    ];
    for task in tasks {
        let mut node = world.start().await;
        node.record("paris", 1).await;
        assert!(world.faults.strike(task), "{:?}", world.faults.running());
        let ended = node.end().await.unwrap_err();
        let text = ended.to_string();
        assert!(text.contains(task), "{text}");
        // It is cured by a start, and says so.
        assert_eq!(ended.exit_code(), 75, "{text}");
    }
    let mut node = world.start().await;
    assert_eq!(node.count("paris").await, tasks.len() as u64);
    assert!(world.faults.strike("host-maintain"));
    let ended = node.end().await.unwrap_err();
    assert!(matches!(ended, RunError::DiskFailed { .. }), "{ended}");
}

/// A replica loses one of its tasks: callers are refused, and it comes back.
async fn without(task: &'static str) {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    assert!(world.faults.strike(task), "{:?}", world.faults.running());
    let request = RecordRequest {
        term: "paris".into(),
        count: 1,
        ..RecordRequest::default()
    };
    world
        .until("it has stopped", || async {
            let answer = node.public().record(request.clone()).await;
            answer.is_err_and(|status| status.code() == tonic::Code::Unavailable)
        })
        .await;
    world
        .until("it has come back", || async {
            node.public().record(request.clone()).await.is_ok()
        })
        .await;
    // The shard that was written to, or both by now.
    assert!((1..=2).contains(&node.actions("restart_replica", "fault")));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_lost_a_task_comes_back_by_itself() {
    let of_a_replica = [
        "group-reads",
        "group-status",
        "replica-watch",
        "write-queue",
    ];
    futures::future::join_all(of_a_replica.map(without)).await;
}
