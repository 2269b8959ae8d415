//! What a coordinator says of the cluster: as its commands show it to people, as a watchdog goes by it, and as another coordinator
//! passes it on.

use std::collections::BTreeSet;

use api::admin::v1::{
    ActionReport, CoordinatorStatus, GetStatusResponse, ListSnapshotsResponse, MemberChange,
    NodeDescriptor, NodeStatus, PastChange, RecoveryTurn, ReplicaDescriptor, ReplicaRole,
    ReplicaStatus, ShardAudit, ShardDescriptor, ShardMap, ShardState, ShardStatus, SnapshotInfo,
    TurnState,
};
use cluster::ShardId;
use coordinator::fuzzing;
use prost::Message as _;
use watchdog::NodeTarget;

use super::{join, joined, pieces};
use crate::{Target, mend};

/// When the status is looked at.
const NOW_MS: i64 = 1_700_000_060_000;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "cluster-status",
            run: shown,
            mend: mend::nothing,
            seeds: || vec![full().encode_to_vec(), strange().encode_to_vec()],
            quick: 3_000,
        },
        Target {
            name: "snapshot-list",
            run: listed,
            mend: mend::nothing,
            seeds: snapshot_seeds,
            quick: 6_000,
        },
        Target {
            name: "watched-fleet",
            run: watched,
            mend: mend::nothing,
            seeds: fleet_seeds,
            quick: 12_000,
        },
        Target {
            name: "other-coordinators",
            run: others,
            mend: mend::nothing,
            seeds: || vec![joined(0, &[full(), other(2, 2), other(3, 2)])],
            quick: 12_000,
        },
    ]
}

// --- people ---------------------------------------------------------------------------------------------------------

/// Whatever a status says, all of it has a line for people and a place for programs.
fn shown(input: &[u8]) {
    let Ok(status) = GetStatusResponse::decode(input) else {
        return;
    };
    let replicas = status.shards.iter().map(|shard| shard.replicas.len());
    let rows = status.coordinators.len()
        + status.shards.len()
        + replicas.sum::<usize>()
        + status.nodes.len();
    let text = fuzzing::status_text(&status, NOW_MS);
    assert!(text.lines().count() > rows, "{text}");
    let json = fuzzing::status_json(&status);
    let length = |list: &str| {
        let list = json.get(list).and_then(|list| list.as_array());
        list.map_or(0, Vec::len)
    };
    assert_eq!(length("coordinators"), status.coordinators.len());
    assert_eq!(length("shards"), status.shards.len());
    assert_eq!(length("nodes"), status.nodes.len());
    assert_eq!(length("actions"), status.actions.len());
    assert!(!format!("{json:#}").is_empty());
}

fn listed(input: &[u8]) {
    let Ok(listed) = ListSnapshotsResponse::decode(input) else {
        return;
    };
    let text = fuzzing::snapshot_table(&listed);
    assert!(text.lines().count() > listed.snapshots.len(), "{text}");
}

/// Everything once.
pub(super) fn full() -> GetStatusResponse {
    GetStatusResponse {
        cluster_id: vec![9; 16].into(),
        epoch: 12,
        nodes: vec![node(1, 250), node(2, 16_000), node(3, -1)],
        shards: vec![shard()],
        namespaces: 1,
        metadata_available: true,
        version: "0.1.0".to_owned(),
        coordinators: vec![
            coordinator(1, true),
            coordinator(2, false),
            coordinator(3, false),
        ],
        actions: vec![action(1, 0, ""), action(0, 2, ""), action(0, 0, "w-1")],
    }
}

/// One whose second replica has stopped.
fn shard() -> ShardStatus {
    let stopped = ReplicaStatus {
        serving: false,
        data_loss: true,
        reason: "its log is damaged".to_owned(),
        ..replica(2, ReplicaRole::Stopped)
    };
    let turn = |attempt, state: TurnState| RecoveryTurn {
        attempt,
        watchdog: "w-1".to_owned(),
        reason: "silent".to_owned(),
        began_ms: 1_700_000_000_000,
        ends_ms: 1_700_000_015_000,
        state: state.into(),
    };
    ShardStatus {
        shard_id: 1,
        shard_key: "m".to_owned(),
        incarnation: 2,
        state: ShardState::Serving.into(),
        reason: "1 of 2 replicas do not serve: node-2".to_owned(),
        replicas: vec![replica(1, ReplicaRole::Leader), stopped],
        records_per_second: 1.5,
        reads_per_second: 20.25,
        recoveries: 1,
        last_attempt: 2,
        turns: vec![turn(1, TurnState::Recovered), turn(2, TurnState::Open)],
        change: Some(MemberChange {
            add_node_id: 3,
            remove_node_id: 2,
            reason: "damaged".to_owned(),
            began_ms: 1_700_000_000_000,
        }),
        audit: Some(ShardAudit {
            index: 30,
            agreeing_node_ids: vec![1, 3],
            differing_node_ids: vec![2],
            undecided: false,
        }),
        changes: vec![PastChange {
            add_node_id: 2,
            remove_node_id: 0,
            reason: "too few".to_owned(),
            began_ms: 1_699_999_000_000,
            ended_ms: 1_699_999_003_000,
        }],
        last_known_index: 39,
    }
}

fn replica(node_id: u64, role: ReplicaRole) -> ReplicaStatus {
    ReplicaStatus {
        shard_id: 1,
        incarnation: 2,
        node_id,
        role: role.into(),
        raft_term: 3,
        committed_index: 40,
        applied_index: 40 - node_id,
        snapshot_index: 20,
        terms: 5,
        total_count: 60,
        memory_bytes: 7_000_000,
        repeat_table_bytes: 800,
        serving: true,
        replayed_entries: 9,
        replay_target: 10,
        leader_node_id: 1,
        ..ReplicaStatus::default()
    }
}

/// With what no cluster of ours says.
pub(super) fn strange() -> GetStatusResponse {
    let mut strange = full();
    for node in &mut strange.nodes {
        (node.silent_ms, node.disk_free_bytes) = (i64::MIN, u64::MAX);
        node.name = "\u{1b}[2J\n\u{200d}👩\u{200d}🔬\u{0}".to_owned();
    }
    for shard in &mut strange.shards {
        (shard.records_per_second, shard.reads_per_second) = (f64::NAN, f64::MAX);
        shard.state = 77;
        for replica in &mut shard.replicas {
            (replica.memory_bytes, replica.applied_index) = (u64::MAX, u64::MAX);
            replica.role = -1;
        }
        for change in &mut shard.changes {
            (change.began_ms, change.ended_ms) = (i64::MIN, i64::MAX);
        }
        for turn in &mut shard.turns {
            (turn.began_ms, turn.ends_ms) = (i64::MAX, i64::MIN);
        }
        if let Some(audit) = &mut shard.audit {
            audit.undecided = true;
        }
    }
    for action in &mut strange.actions {
        action.last_ms = i64::MIN;
    }
    strange
}

fn node(node_id: u64, silent_ms: i64) -> NodeStatus {
    NodeStatus {
        node_id,
        name: format!("node-{node_id}"),
        address: format!("host-{node_id}:1"),
        region: "r".to_owned(),
        silent_ms,
        alive: silent_ms == 250,
        process_memory_bytes: 100_000_000,
        disk_free_bytes: 5_000_000_000,
        ..NodeStatus::default()
    }
}

fn coordinator(coordinator_id: u64, answers: bool) -> CoordinatorStatus {
    CoordinatorStatus {
        coordinator_id,
        address: format!("coordinator-{coordinator_id}:50051"),
        leads: coordinator_id == 2,
        answers,
        reached: answers,
        reason: String::new(),
    }
}

fn action(coordinator_id: u64, by_node_id: u64, watchdog: &str) -> ActionReport {
    ActionReport {
        coordinator_id,
        kind: "move_lead".to_owned(),
        reason: "balance".to_owned(),
        shard_id: Some(1),
        node_id: 2,
        error: String::new(),
        times: 3,
        first_ms: 1_700_000_000_000,
        last_ms: 1_700_000_030_000,
        by_node_id,
        watchdog: watchdog.to_owned(),
    }
}

pub(super) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let snapshot = |taken_at_ms| SnapshotInfo {
        shard_id: 1,
        incarnation: 2,
        raft_term: 3,
        index: 400,
        bytes: 5_000,
        hash: vec![6; 32].into(),
        taken_at_ms,
    };
    // The last of them is the first millisecond of the year 10000.
    let moments = [1_700_000_000_000, -1, i64::MAX, 253_402_300_800_000];
    let each = moments.map(|taken_at_ms| {
        let listed = ListSnapshotsResponse {
            snapshots: vec![snapshot(taken_at_ms)],
        };
        listed.encode_to_vec()
    });
    each.to_vec()
}

// --- watchdogs ------------------------------------------------------------------------------------------------------

/// What is watched is what the map names and has placed, and without reports nothing of it is known to serve.
fn watched(input: &[u8]) {
    let pieces = pieces(input);
    let [(_, status), (_, map), ..] = pieces.as_slice() else {
        return;
    };
    let decoded = (GetStatusResponse::decode(*status), ShardMap::decode(*map));
    let (Ok(status), Ok(map)) = decoded else {
        return;
    };
    let [seen, later] = watchdog::fuzzing::watched(&status, &map);
    let placed = map.shards.iter().filter(|shard| !shard.replicas.is_empty());
    let placed: BTreeSet<ShardId> = placed.map(|shard| ShardId(shard.shard_id)).collect();
    assert!(seen.shards.keys().eq(&placed));
    let is_named = |target: &NodeTarget| {
        map.nodes.iter().any(|node| {
            (node.node_id, &node.name, &node.address)
                == (target.id.0, &target.name, &target.address)
        })
    };
    assert!(seen.shards.values().flatten().all(is_named));
    assert!(seen.nodes.iter().all(is_named));
    let has_a_disk = |target: &NodeTarget| {
        let mut nodes = map.nodes.iter();
        nodes.any(|node| node.node_id == target.id.0 && !node.lost)
    };
    assert!(seen.nodes.iter().all(has_a_disk));
    assert!(seen.down <= seen.shards.len() && seen.silent <= seen.nodes.len());
    assert_eq!(later.down, later.shards.len());
    assert_eq!((later.shards, later.nodes), (seen.shards, seen.nodes));
}

fn fleet_seeds() -> Vec<Vec<u8>> {
    let named = |node_id, name: &str, lost| NodeDescriptor {
        node_id,
        name: name.to_owned(),
        address: format!("host-{node_id}:1"),
        lost,
        ..NodeDescriptor::default()
    };
    let shard = |shard_id, nodes: &[u64]| ShardDescriptor {
        shard_id,
        incarnation: 2,
        replicas: nodes
            .iter()
            .map(|&node_id| ReplicaDescriptor {
                node_id,
                voter: true,
            })
            .collect(),
        ..ShardDescriptor::default()
    };
    let map = ShardMap {
        epoch: 12,
        // The second has lost its disk, and has come back as the third.
        nodes: vec![
            named(1, "node-1", false),
            named(2, "node-2", true),
            named(3, "node-2", false),
        ],
        shards: vec![shard(1, &[1, 2]), shard(2, &[])],
        ..ShardMap::default()
    };
    let map = map.encode_to_vec();
    let with = |status: GetStatusResponse| {
        let status = status.encode_to_vec();
        join([(0, status.as_slice()), (0, map.as_slice())])
    };
    vec![with(full()), with(strange())]
}

// --- other coordinators ---------------------------------------------------------------------------------------------

/// Each that was to be asked was reached or is told not to be, and what is told has been said by somebody who may.
fn others(input: &[u8]) {
    let decode = |(_, bytes): (u8, &[u8])| GetStatusResponse::decode(bytes).ok();
    let told: Option<Vec<GetStatusResponse>> = pieces(input).into_iter().map(decode).collect();
    let told = told.unwrap_or_default();
    let Some((before, answers)) = told.split_first() else {
        return;
    };
    let after = fuzzing::heard_from_others(before.clone(), answers.to_vec());
    assert_eq!(after.coordinators.len(), before.coordinators.len());
    let asked = after.coordinators.iter().filter(|at| !at.answers);
    for (other, answer) in asked.zip(answers) {
        let answering = answer.coordinators.iter().find(|at| at.answers);
        let is_it = answering.is_some_and(|at| at.coordinator_id == other.coordinator_id);
        assert!(other.reached || !is_it);
        assert!(is_it || !other.reason.is_empty());
    }
    assert!(after.actions.is_sorted_by_key(|action| action.last_ms));
    let reached = |id| {
        let mut coordinators = after.coordinators.iter();
        coordinators.any(|at| at.coordinator_id == id && at.reached)
    };
    for action in &after.actions {
        if before.actions.contains(action) {
            continue;
        }
        assert!(answers.iter().any(|answer| answer.actions.contains(action)));
        assert!(!action.watchdog.is_empty() || reached(action.coordinator_id));
    }
}

/// What another coordinator says, which a watchdog has told the same as the first.
fn other(coordinator_id: u64, answering: u64) -> GetStatusResponse {
    GetStatusResponse {
        coordinators: vec![coordinator(answering, true)],
        actions: vec![
            action(coordinator_id, 0, ""),
            action(0, 1, ""),
            action(0, 0, "w-1"),
            action(0, 0, "w-2"),
        ],
        ..GetStatusResponse::default()
    }
}
