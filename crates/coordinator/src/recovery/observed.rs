//! The cluster as those see it who plan for it: from the metadata, what was heard, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::v1::ReplicaRole;
use cluster::NodeId;

use crate::liveness::{Heard, Liveness, Report};
use crate::meta::Meta;
use crate::metadata::{NodeRecord, ShardRecord, State};
use crate::placement::repair::{MemberView, NodeView, Pending, ShardView};

/// Every node and every placed shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(super) nodes: Vec<NodeView>,
    pub(super) shards: Vec<ShardView>,
}

impl Observed {
    /// As it looks now.
    pub(crate) fn of(meta: &Meta, liveness: &Liveness) -> Self {
        let heard = liveness.all();
        meta.read(|state| Self::new(state, &heard, |node| liveness.silent_for(node)))
    }

    /// `silent_for` says how long a node has not been heard of.
    pub(super) fn new(
        state: &State,
        heard: &BTreeMap<NodeId, Heard>,
        silent_for: impl Fn(NodeId) -> Option<Duration>,
    ) -> Self {
        let reports = |record: &NodeRecord, says: fn(&Report) -> bool| {
            let heard = heard.get(&record.node.id).filter(|heard| heard.alive);
            heard.is_some_and(|heard| says(&heard.report))
        };
        let nodes = state.nodes.values().map(|record| NodeView {
            id: record.node.id,
            name: record.node.name.clone(),
            region: record.node.region.clone(),
            lost: record.node.lost,
            draining: record.draining,
            damaged: is_damaged(state, heard, record),
            damage_is_news: heard
                .get(&record.node.id)
                .is_some_and(|heard| heard.damage_is_news),
            full: reports(record, |report| report.disk_full),
            stalled: reports(record, |report| report.disk_stalled),
            silent: silent_for(record.node.id),
        });
        let placed = state.shards.values();
        let placed = placed.filter(|record| !record.shard.replicas.is_empty());
        Self {
            nodes: nodes.collect(),
            shards: placed.map(|record| shard(state, heard, record)).collect(),
        }
    }
}

/// Whether a node reports damage of its log, or of a replica that it should have.
fn is_damaged(state: &State, heard: &BTreeMap<NodeId, Heard>, record: &NodeRecord) -> bool {
    let id = record.node.id;
    let Some(heard) = heard.get(&id).filter(|heard| heard.alive) else {
        return false;
    };
    let mut held = state.shards.values().filter(|record| {
        let mut replicas = record.shard.replicas.iter();
        replicas.any(|at| at.node == id)
    });
    heard.report.data_loss
        || held.any(|record| {
            let (shard, life) = (record.shard.id, record.shard.incarnation);
            let replica = heard.report.replica(shard, life);
            replica.is_some_and(|replica| replica.data_loss)
        })
}

/// Whether a node, which has left a shard, cannot act for it any more by what it remembers.
fn has_gone(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
    node: NodeId,
) -> bool {
    let (shard, life) = (record.shard.id, record.shard.incarnation);
    let heard = heard.get(&node).filter(|heard| heard.alive);
    state.is_lost(node)
        || heard.is_some_and(|heard| {
            !heard.report.data_loss && heard.report.replica(shard, life).is_none()
        })
}

fn shard(state: &State, heard: &BTreeMap<NodeId, Heard>, record: &ShardRecord) -> ShardView {
    let (id, life) = (record.shard.id, record.shard.incarnation);
    let members = record.shard.replicas.iter().map(|at| {
        let alive = heard.get(&at.node).filter(|heard| heard.alive);
        let replica = alive.and_then(|heard| heard.report.replica(id, life));
        let serving = replica.filter(|replica| replica.serving && !replica.data_loss);
        let leads = serving.is_some_and(|at| at.role() == ReplicaRole::Leader);
        let leader = serving.map(|at| NodeId(at.leader_node_id));
        MemberView {
            node: at.node,
            voter: at.voter,
            serves: serving.is_some(),
            leads,
            follows: leader.filter(|leader| !leads && leader.0 != 0),
            reached: replica.map_or(0, |at| at.applied_index.max(at.replayed_entries)),
        }
    });
    let change = record.members.change.as_ref();
    ShardView {
        id,
        members: members.collect(),
        pending: change.map(|change| Pending {
            add: change.intent.add,
            votes: change.intent.votes,
            remove: change.intent.remove,
        }),
        standstill: Duration::ZERO,
        without_majority: Duration::ZERO,
        former_have_gone: {
            let mut former = record.members.former.iter();
            former.all(|node| has_gone(state, heard, record, *node))
        },
        former: record.members.former.clone(),
    }
}
