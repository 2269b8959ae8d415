use api::admin::v1::{NodeDescriptor, ReplicaDescriptor, ShardDescriptor};

use super::*;

fn map() -> ShardMap {
    let node = |id: u64| NodeDescriptor {
        node_id: id,
        name: format!("n{id}"),
        address: format!("host:{id}"),
        ..NodeDescriptor::default()
    };
    let shard = |id: u64, nodes: &[u64]| ShardDescriptor {
        shard_id: id,
        replicas: nodes
            .iter()
            .map(|&node_id| ReplicaDescriptor {
                node_id,
                voter: true,
            })
            .collect(),
        ..ShardDescriptor::default()
    };
    ShardMap {
        nodes: vec![node(1), node(2)],
        shards: vec![shard(1, &[1]), shard(2, &[2, 1]), shard(3, &[])],
        ..ShardMap::default()
    }
}

fn shard(id: u64, key: &str, state: ShardState, replicas: Vec<ReplicaStatus>) -> ShardStatus {
    ShardStatus {
        shard_id: id,
        shard_key: key.to_owned(),
        state: state.into(),
        replicas,
        ..ShardStatus::default()
    }
}

fn replica(node_id: u64, replayed: u64, applied: u64) -> ReplicaStatus {
    ReplicaStatus {
        node_id,
        replayed_entries: replayed,
        applied_index: applied,
        ..ReplicaStatus::default()
    }
}

fn node(node_id: u64, silent_ms: i64) -> NodeStatus {
    NodeStatus {
        node_id,
        silent_ms,
        ..NodeStatus::default()
    }
}

#[test]
fn a_fleet_is_the_map_with_what_was_reported() {
    let status = GetStatusResponse {
        nodes: vec![
            node(1, 100),
            NodeStatus {
                lost: true,
                ..node(2, 100)
            },
        ],
        shards: vec![
            shard(1, "", ShardState::Serving, vec![replica(1, 5, 7)]),
            shard(
                2,
                "m",
                ShardState::Recovering,
                vec![replica(2, 100, 1), replica(1, 10, 0)],
            ),
            shard(3, "t", ShardState::Unplaced, Vec::new()),
        ],
        ..GetStatusResponse::default()
    };
    let fleet = Fleet::new(&status, &map());
    assert_eq!(fleet.shards.len(), 2, "what has no place is not watched");
    assert_eq!(fleet.down(), 1);
    let (one, two) = (&fleet.shards[&ShardId(1)], &fleet.shards[&ShardId(2)]);
    assert_eq!((one.key.as_ref(), two.key.as_ref()), ("", "m"));
    assert!(one.report.serving && !two.report.serving);
    assert_eq!(
        (one.report.progress, two.report.progress),
        (Some(12), Some(111))
    );
    assert_eq!(two.nodes[1].address, "host:1");
    let bare = fleet.without_reports();
    assert_eq!(bare.shards[&ShardId(2)].nodes, two.nodes);
    assert_eq!(bare.shards[&ShardId(2)].report, Report::default());
}

#[test]
fn a_lost_node_is_looked_for_until_it_has_come_back_as_another() {
    let status = GetStatusResponse {
        nodes: vec![NodeStatus {
            lost: true,
            ..node(2, 100)
        }],
        ..GetStatusResponse::default()
    };
    let is_replaced = |map: &ShardMap| {
        let fleet = Fleet::new(&status, map);
        fleet.shards[&ShardId(2)].nodes[0].replaced
    };
    let mut map = map();
    assert!(!is_replaced(&map), "somebody has to start it");
    let successor = NodeDescriptor {
        node_id: 3,
        ..map.nodes[1].clone()
    };
    map.nodes.push(successor);
    assert!(is_replaced(&map));
}

#[test]
fn an_old_report_says_nothing_about_progress() {
    for (silent_ms, progress) in [(0, Some(3)), (15_000, Some(3)), (15_001, None), (-1, None)] {
        let status = GetStatusResponse {
            nodes: vec![node(1, silent_ms)],
            shards: vec![shard(1, "", ShardState::Recovering, vec![replica(1, 3, 0)])],
            ..GetStatusResponse::default()
        };
        assert_eq!(
            Fleet::new(&status, &map()).shards[&ShardId(1)]
                .report
                .progress,
            progress
        );
    }
}

#[test]
fn a_replica_that_takes_over_its_snapshot_moves_before_any_entry_is_replayed() {
    let progress = |start_bytes| {
        let starting = ReplicaStatus {
            start_bytes,
            ..replica(1, 0, 0)
        };
        let status = GetStatusResponse {
            nodes: vec![node(1, 0)],
            shards: vec![shard(1, "", ShardState::Recovering, vec![starting])],
            ..GetStatusResponse::default()
        };
        let fleet = Fleet::new(&status, &map());
        fleet.shards[&ShardId(1)].report.progress
    };
    assert_eq!([0, 4096].map(progress), [Some(0), Some(4096)]);
}

#[test]
fn damage_is_a_stop_whoever_says_so() {
    let stopped = |status: ShardStatus| {
        let status = GetStatusResponse {
            shards: vec![status],
            ..GetStatusResponse::default()
        };
        Fleet::new(&status, &map()).shards[&ShardId(1)]
            .report
            .stopped
    };
    let with = |replica| shard(1, "", ShardState::Recovering, vec![replica]);
    assert!(stopped(shard(1, "", ShardState::DataLoss, Vec::new())));
    assert!(stopped(with(ReplicaStatus {
        data_loss: true,
        ..replica(1, 0, 0)
    })));
    assert!(stopped(with(ReplicaStatus {
        role: ReplicaRole::Stopped.into(),
        ..replica(1, 0, 0)
    })));
    assert!(!stopped(with(replica(1, 0, 0))));
}

#[test]
fn nodes_are_expected_to_live_unless_they_are_lost_or_were_drained_away() {
    let mut map = map();
    let extra = (3..=5).map(|id| NodeDescriptor {
        node_id: id,
        name: format!("n{id}"),
        lost: id == 5,
        ..NodeDescriptor::default()
    });
    map.nodes.extend(extra);
    let draining = |id| NodeStatus {
        draining: true,
        alive: true,
        ..node(id, 0)
    };
    let status = GetStatusResponse {
        nodes: vec![draining(2), node(3, 9_000), draining(4), node(5, 0)],
        ..GetStatusResponse::default()
    };
    let fleet = Fleet::new(&status, &map);
    let expected: Vec<(u64, bool)> = fleet
        .nodes
        .iter()
        .map(|(id, node)| (id.0, node.has_replicas))
        .collect();
    // 2 still has its replicas.
    assert_eq!(expected, [(1, true), (2, true), (3, false)]);
    assert_eq!(fleet.silent_nodes(), 2);
}
