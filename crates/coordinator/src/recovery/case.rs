//! What a recovery works on: a shard as it looks at one moment, and what is left of it. Pure.
//!
//! Each coordinator hears the shard servers for itself. Before a life is ended, what the others hear is added: a server that is not heard
//! here may be at work all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ReplicaStatus, ShardState};
use cluster::{NodeId, SEED_AWAITED};

use super::furthest;
use super::seed::awaits_seed;
use crate::liveness::{Heard, Report};
use crate::metadata::ShardRecord;
use crate::snapshots::Held;
use crate::status;

/// A shard, and what is heard of its servers.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) record: ShardRecord,
    pub(super) state: ShardState,
    pub(super) reason: String,
    /// By what it was judged.
    pub(super) heard: BTreeMap<NodeId, Heard>,
    /// Nobody holds the snapshot that the life was to begin from, and its node has nothing.
    pub(super) seed_is_lost: bool,
}

impl Case {
    /// How far a node's replica has come, if it is sound and holds anything.
    pub(super) fn sound_index(&self, node: NodeId) -> Option<u64> {
        let shard = &self.record.shard;
        let heard = self.heard.get(&node);
        let heard = heard.filter(|heard| heard.alive && !heard.report.data_loss)?;
        let replica = heard.report.replica(shard.id, shard.incarnation)?;
        (!replica.data_loss && replica.applied_index > 0).then_some(replica.applied_index)
    }

    /// Whether its node says that it waits for the snapshot which the life is to begin from: nothing of it is there.
    pub(super) fn waits_for_seed(&self) -> bool {
        let waits = |replica: &&ReplicaStatus| {
            !replica.serving && !replica.data_loss && replica.reason.ends_with(SEED_AWAITED)
        };
        let replicas = status::replicas(&self.heard, &self.record);
        awaits_seed(&self.record) && replicas.iter().any(waits)
    }

    /// The sound replica that has come furthest, and how far.
    pub(super) fn best_replica(&self) -> Option<(u64, NodeId)> {
        self.sound_replicas().max()
    }

    fn sound_replicas(&self) -> impl Iterator<Item = (u64, NodeId)> {
        let replicas = self.record.shard.replicas.iter();
        replicas.filter_map(move |at| Some((self.sound_index(at.node)?, at.node)))
    }

    /// The sound replica that the shard should begin anew from, unless one of these snapshots reaches further.
    pub(super) fn furthest_left(&self, held: &[Held]) -> Option<NodeId> {
        let held = held.iter().map(Held::reach);
        furthest(self.record.shard.incarnation, self.sound_replicas(), held)
    }
}

/// Adds the servers of a shard that are heard by others alone. That all data of a server are damaged they do not tell: such a one counts as
/// one that has not opened the shard yet.
pub(super) fn add_heard_by_others(
    heard: &mut BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
    views: &[GetStatusResponse],
) {
    let (id, life) = (record.shard.id.0, record.shard.incarnation.0);
    for view in views {
        let mut shards = view.shards.iter();
        let shard = shards.find(|at| at.shard_id == id && at.incarnation == life);
        for replica in shard.into_iter().flat_map(|shard| &shard.replicas) {
            let mut nodes = view.nodes.iter();
            let there = nodes.find(|at| at.node_id == replica.node_id && at.alive);
            let node = NodeId(replica.node_id);
            let is_heard_here = heard.get(&node).is_some_and(|heard| heard.alive);
            let Some(there) = there.filter(|_| !is_heard_here) else {
                continue;
            };
            let silent_ms = u64::try_from(there.silent_ms).unwrap_or_default();
            let told = Heard {
                silent: Duration::from_millis(silent_ms),
                alive: true,
                report: Report {
                    replicas: vec![replica.clone()],
                    ..Report::default()
                },
                rates: BTreeMap::new(),
                damage_is_news: false,
            };
            heard.insert(node, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::admin::v1::{NodeStatus, ShardStatus};
    use cluster::{Incarnation, Replica, Shard, ShardId};

    use super::*;
    use crate::metadata::Members;

    fn record() -> ShardRecord {
        let replica = |node| Replica {
            node: NodeId(node),
            voter: true,
        };
        ShardRecord {
            shard: Shard {
                id: ShardId(2),
                incarnation: Incarnation(3),
                replicas: [1, 2, 3].map(replica).to_vec(),
                lineage: Vec::new(),
            },
            begun: true,
            seed: None,
            last_known_index: 0,
            recoveries: 0,
            members: Members::default(),
        }
    }

    fn replica(node_id: u64, applied_index: u64) -> ReplicaStatus {
        ReplicaStatus {
            shard_id: 2,
            incarnation: 3,
            node_id,
            applied_index,
            ..ReplicaStatus::default()
        }
    }

    /// What a coordinator tells of a life of the shard that hears these nodes, and no others, of all three.
    fn view(incarnation: u64, hears: &[u64]) -> GetStatusResponse {
        let node = |node_id| NodeStatus {
            node_id,
            silent_ms: 700,
            alive: hears.contains(&node_id),
            ..NodeStatus::default()
        };
        GetStatusResponse {
            nodes: (1..=3).map(node).collect(),
            shards: vec![ShardStatus {
                shard_id: 2,
                incarnation,
                replicas: (1..=3).map(|node| replica(node, 100 + node)).collect(),
                ..ShardStatus::default()
            }],
            ..GetStatusResponse::default()
        }
    }

    fn case(heard: &[(u64, bool)], views: &[GetStatusResponse]) -> Case {
        let heard = heard.iter().map(|(node, alive)| {
            let heard = Heard {
                silent: Duration::from_secs(1),
                alive: *alive,
                report: Report {
                    replicas: vec![replica(*node, 7)],
                    ..Report::default()
                },
                rates: BTreeMap::new(),
                damage_is_news: false,
            };
            (NodeId(*node), heard)
        });
        let (mut heard, record) = (heard.collect(), record());
        add_heard_by_others(&mut heard, &record, views);
        Case {
            record,
            state: ShardState::Recovering,
            reason: String::new(),
            heard,
            seed_is_lost: false,
        }
    }

    #[test]
    fn a_server_that_others_hear_is_what_they_hear_of_it_unless_it_is_heard_here() {
        let heard = [(1, true), (2, false)];
        let indexes = |views: &[GetStatusResponse]| {
            let case = case(&heard, views);
            [1, 2, 3].map(|node| case.sound_index(NodeId(node)))
        };
        assert_eq!(indexes(&[]), [Some(7), None, None]);
        assert_eq!(indexes(&[view(3, &[])]), [Some(7), None, None]);
        let all = [Some(7), Some(102), Some(103)];
        assert_eq!(indexes(&[view(3, &[1, 2, 3])]), all);
        assert_eq!(indexes(&[view(3, &[1, 2]), view(3, &[3])]), all);
        // Of another life it says nothing of this one.
        assert_eq!(indexes(&[view(2, &[1, 2, 3])]), [Some(7), None, None]);
        let case = case(&heard, &[view(3, &[2])]);
        assert_eq!(case.best_replica(), Some((102, NodeId(2))));
        assert_eq!(case.furthest_left(&[]), Some(NodeId(2)));
    }
}
