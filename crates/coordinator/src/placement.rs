//! Which nodes a new shard gets. Pure and deterministic: the same cluster is placed the same way every time.
//!
//! Nodes are taken by how few replicas they hold, then by name (shorter names first, so that `shard-2` stands before
//! `shard-10`), then by identity; no shard gets two replicas on one node. Nothing is placed until as many nodes are there as
//! the operator expects: whoever comes first would otherwise get everything.

pub mod audit;
pub mod leads;
pub mod repair;

use std::collections::BTreeMap;

use cluster::{NodeId, ShardId};

/// A node that may take replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub id: NodeId,
    /// The name it registered with.
    pub name: String,
    /// Replicas it holds now.
    pub replicas: usize,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Nodes that must be there before anything is placed.
    pub nodes: usize,
    /// Replicas of each shard.
    pub replicas: usize,
}

/// The nodes for each of `unplaced`; empty while there are too few candidates.
#[must_use]
pub fn plan(
    unplaced: &[ShardId],
    candidates: &[Candidate],
    wanted: Wanted,
) -> Vec<(ShardId, Vec<NodeId>)> {
    if candidates.len() < wanted.nodes.max(wanted.replicas) || wanted.replicas == 0 {
        return Vec::new();
    }
    let mut held: BTreeMap<NodeId, usize> =
        candidates.iter().map(|at| (at.id, at.replicas)).collect();
    let mut placements = Vec::with_capacity(unplaced.len());
    for shard in unplaced {
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        order.sort_by_key(|at| {
            let replicas = held.get(&at.id).copied().unwrap_or_default();
            (replicas, at.name.len(), &at.name, at.id)
        });
        let nodes: Vec<NodeId> = order
            .into_iter()
            .take(wanted.replicas)
            .map(|at| at.id)
            .collect();
        for node in &nodes {
            *held.entry(*node).or_default() += 1;
        }
        placements.push((*shard, nodes));
    }
    placements
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        // Registered in the order opposite to their names.
        (1..)
            .zip(names.iter().rev())
            .map(|(id, name)| Candidate {
                id: NodeId(id),
                name: (*name).to_owned(),
                replicas: 0,
            })
            .collect()
    }

    #[test]
    fn shards_stand_on_the_nodes_of_their_number() {
        let nodes = candidates(&["shard-1", "shard-2", "shard-10"]);
        let wanted = Wanted {
            nodes: 3,
            replicas: 1,
        };
        let plan = plan(&[ShardId(1), ShardId(2), ShardId(3)], &nodes, wanted);
        let expected = [(1, 3), (2, 2), (3, 1)]
            .map(|(shard, node)| (ShardId(shard), vec![NodeId(node)]))
            .to_vec();
        assert_eq!(plan, expected);
    }

    #[test]
    fn nothing_is_placed_before_everybody_is_there() {
        let nodes = candidates(&["a", "b"]);
        let wanted = |nodes, replicas| Wanted { nodes, replicas };
        assert!(plan(&[ShardId(1)], &nodes, wanted(3, 1)).is_empty());
        assert!(plan(&[ShardId(1)], &nodes, wanted(1, 3)).is_empty());
        assert_eq!(plan(&[ShardId(1)], &nodes, wanted(2, 2)).len(), 1);
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_evenly_spread(shards in 1u64..20, nodes in 1usize..8, replicas in 1usize..4) {
            let nodes: Vec<Candidate> = (1..=nodes as u64)
                .map(|id| Candidate { id: NodeId(id), name: format!("n{id}"), replicas: 0 })
                .collect();
            let shards: Vec<ShardId> = (1..=shards).map(ShardId).collect();
            let placed = plan(&shards, &nodes, Wanted { nodes: 1, replicas });
            if nodes.len() < replicas {
                prop_assert!(placed.is_empty());
                return Ok(());
            }
            let mut held = BTreeMap::new();
            for (_, on) in &placed {
                let distinct: std::collections::BTreeSet<_> = on.iter().collect();
                prop_assert_eq!(distinct.len(), replicas);
                for node in on { *held.entry(*node).or_insert(0usize) += 1; }
            }
            let most = held.values().max().copied().unwrap_or(0);
            let least = nodes.iter().map(|node| held.get(&node.id).copied().unwrap_or(0)).min().unwrap_or(0);
            prop_assert!(most - least <= 1);
        }
    }
}
