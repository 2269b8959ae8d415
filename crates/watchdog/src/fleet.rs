//! What there is to watch: the shards, the nodes that host them, and what the coordinator last said of them.
//!
//! What always holds: a fleet is one answer of one coordinator, never a mixture. Shards without a place are not in it: there
//! is nothing that could be restarted. Neither are nodes that nobody waits for: an identity that is lost and holds no replica, and a
//! node whose replicas were drained away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::admin::v1::{
    GetStatusResponse, NodeDescriptor, NodeStatus, ReplicaRole, ReplicaStatus, ShardMap,
    ShardState, ShardStatus, TurnState,
};
use cluster::{NodeId, ShardId};

/// A report older than this says nothing about progress, in milliseconds.
const REPORT_FRESH_MS: i64 = 15_000;

/// A process that hosts replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTarget {
    /// Its identity.
    pub id: NodeId,
    /// The name it registered with.
    pub name: String,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Its disk is gone, and the process has come back as another node. One that is lost and has not come back is still to be
    /// brought back: it will be another node then.
    pub replaced: bool,
}

/// A process that is expected to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) target: NodeTarget,
    /// It holds replicas; whether it lives is seen and mended with them.
    pub(crate) has_replicas: bool,
    /// The coordinator hears of it.
    pub(crate) is_alive: bool,
}

/// A shard, and where to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: ShardId,
    /// The first term of the shard in the template; the label of metrics.
    pub(crate) key: Arc<str>,
    pub(crate) nodes: Vec<NodeTarget>,
    pub(crate) report: Report,
}

/// What the coordinator says of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) serving: bool,
    /// A replica has stopped for a fault.
    pub(crate) stopped: bool,
    /// Moves while replicas take over their snapshots, replay and catch up; none if nothing fresh is known.
    pub(crate) progress: Option<u64>,
    pub(crate) reason: String,
    /// The number of the newest turn that a watchdog took at its recovery; none where no coordinator told.
    pub(crate) last_attempt: Option<u64>,
    /// The number of the newest turn that had ended. What is seen while a turn is open is old when that turn has ended.
    pub(crate) ended_attempt: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Fleet {
    pub(crate) shards: BTreeMap<ShardId, Target>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
}

impl Fleet {
    pub(crate) fn new(status: &GetStatusResponse, map: &ShardMap) -> Self {
        let reported: HashMap<u64, &NodeStatus> = status
            .nodes
            .iter()
            .map(|node| (node.node_id, node))
            .collect();
        let is_lost = |node: &NodeDescriptor| {
            let report = reported.get(&node.node_id);
            node.lost || report.is_some_and(|node| node.lost)
        };
        let nodes: HashMap<u64, NodeTarget> = map
            .nodes
            .iter()
            .map(|node| {
                let mut others = map.nodes.iter().filter(|other| !is_lost(other));
                let replaced = is_lost(node) && others.any(|other| other.name == node.name);
                let (name, address) = (node.name.clone(), node.address.clone());
                (
                    node.node_id,
                    NodeTarget {
                        id: NodeId(node.node_id),
                        name,
                        address,
                        replaced,
                    },
                )
            })
            .collect();
        let expected = expected(map, &nodes, &reported, is_lost);
        let statuses: HashMap<u64, &ShardStatus> = status
            .shards
            .iter()
            .map(|shard| (shard.shard_id, shard))
            .collect();
        let shards = map
            .shards
            .iter()
            .filter(|shard| !shard.replicas.is_empty())
            .map(|shard| {
                let hosts = shard
                    .replicas
                    .iter()
                    .filter_map(|replica| nodes.get(&replica.node_id).cloned())
                    .collect();
                let status = statuses.get(&shard.shard_id);
                let key = status.map_or("", |status| status.shard_key.as_str()).into();
                let report =
                    status.map_or_else(Report::default, |status| report(status, &reported));
                let id = ShardId(shard.shard_id);
                (
                    id,
                    Target {
                        id,
                        key,
                        nodes: hosts,
                        report,
                    },
                )
            })
            .collect();
        Self {
            shards,
            nodes: expected,
        }
    }

    /// Shards that the coordinator does not see serving.
    pub(crate) fn down(&self) -> usize {
        self.shards
            .values()
            .filter(|target| !target.report.serving)
            .count()
    }

    /// Nodes that the coordinator does not hear of.
    pub(crate) fn silent_nodes(&self) -> usize {
        self.nodes.values().filter(|node| !node.is_alive).count()
    }

    /// The fleet without what may have changed since its coordinator was last heard.
    pub(crate) fn without_reports(&self) -> Self {
        let mut fleet = self.clone();
        for target in fleet.shards.values_mut() {
            target.report = Report::default();
        }
        fleet
    }
}

/// The nodes that somebody waits for. Of one that is lost the shards know, as long as it holds replicas.
fn expected(
    map: &ShardMap,
    targets: &HashMap<u64, NodeTarget>,
    reported: &HashMap<u64, &NodeStatus>,
    is_lost: impl Fn(&NodeDescriptor) -> bool,
) -> BTreeMap<NodeId, Node> {
    let replicas = map.shards.iter().flat_map(|shard| &shard.replicas);
    let hosts: HashSet<u64> = replicas.map(|replica| replica.node_id).collect();
    let node = |node: &NodeDescriptor| {
        let report = reported.get(&node.node_id);
        let has_replicas = hosts.contains(&node.node_id);
        let was_drained = !has_replicas && report.is_some_and(|report| report.draining);
        if is_lost(node) || was_drained {
            return None;
        }
        let node = Node {
            target: targets.get(&node.node_id)?.clone(),
            has_replicas,
            is_alive: report.is_some_and(|report| report.alive),
        };
        Some((node.target.id, node))
    };
    map.nodes.iter().filter_map(node).collect()
}

fn report(status: &ShardStatus, nodes: &HashMap<u64, &NodeStatus>) -> Report {
    let is_fresh = |replica: &&ReplicaStatus| {
        nodes
            .get(&replica.node_id)
            .is_some_and(|node| (0..=REPORT_FRESH_MS).contains(&node.silent_ms))
    };
    let fresh = status.replicas.iter().filter(is_fresh);
    let progress = fresh
        .flat_map(|replica| {
            [
                replica.replayed_entries,
                replica.applied_index,
                replica.start_bytes,
            ]
        })
        .reduce(u64::wrapping_add);
    let replica_stopped =
        |replica: &ReplicaStatus| replica.data_loss || replica.role() == ReplicaRole::Stopped;
    Report {
        serving: status.state() == ShardState::Serving,
        stopped: status.state() == ShardState::DataLoss
            || status.replicas.iter().any(replica_stopped),
        progress,
        reason: status.reason.clone(),
        last_attempt: Some(status.last_attempt),
        ended_attempt: ended_attempt(status),
    }
}

fn ended_attempt(status: &ShardStatus) -> u64 {
    let newest = status.turns.last();
    let open = newest.filter(|turn| turn.state() == TurnState::Open);
    open.map_or(status.last_attempt, |turn| turn.attempt.saturating_sub(1))
}

/// A process that never answers: its address is none.
#[cfg(test)]
pub(crate) fn node(id: u64) -> NodeTarget {
    NodeTarget {
        id: NodeId(id),
        name: format!("n{id}"),
        address: "nowhere".to_owned(),
        replaced: false,
    }
}

/// A fleet of one shard, of which nothing is reported.
#[cfg(test)]
pub(crate) fn fleet_of(id: ShardId, nodes: Vec<NodeTarget>) -> Fleet {
    let target = Target {
        id,
        key: "key".into(),
        nodes,
        report: Report::default(),
    };
    Fleet {
        shards: [(id, target)].into(),
        ..Fleet::default()
    }
}

#[cfg(test)]
mod tests;
