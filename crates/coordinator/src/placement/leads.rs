//! Which lead should move, so that no server does the work of several. Pure and deterministic.
//!
//! After servers died or were restarted one after another, those that stayed lead nearly everything ([`plan`]); a server whose disk
//! is full can lead nothing that is written to, and one that is drained is to be left ([`step_aside`]); and one that its peers hear and nobody else is of no use as a leader
//! ([`out_of_reach`]). What always holds: a lead moves to a voter that serves, has room and is not asked to leave; for evenness only
//! while every shard is whole, and only where the two then differ by less than before, so that moves come to an end.

use std::collections::BTreeMap;

use cluster::{NodeId, ShardId};

use super::repair::{MemberView, NodeView, ShardView};

/// A lead that should move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Of this shard.
    pub shard: ShardId,
    /// Who leads it.
    pub from: NodeId,
    /// Who should.
    pub to: NodeId,
}

/// The one that helps most; none where leads lie as evenly as they can, or where any shard is not whole.
#[must_use]
pub fn plan(nodes: &[NodeView], shards: &[ShardView]) -> Option<Move> {
    if !shards.iter().all(is_whole) {
        return None;
    }
    let leads = leads(shards);
    let led_by = |node: NodeId| leads.get(&node).copied().unwrap_or(0);
    let moves = shards.iter().filter_map(|shard| {
        let step = away(nodes, &leads, shard)?;
        let gain = led_by(step.from).saturating_sub(led_by(step.to));
        (gain >= 2).then_some((gain, step))
    });
    // Of several that help as much, the first by its shard.
    let best = moves.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, step)| step)
}

/// A lead that should leave a server of which something is true, such as that its disk is full or that it is to hold nothing, while
/// another may have it.
#[must_use]
pub fn step_aside(
    nodes: &[NodeView],
    shards: &[ShardView],
    must: fn(&NodeView) -> bool,
) -> Option<Move> {
    let leads = leads(shards);
    let must_leave = |node: NodeId| nodes.iter().any(|at| at.id == node && must(at));
    let led_there = shards
        .iter()
        .filter(|shard| leader(shard).is_some_and(must_leave));
    let mut moves = led_there.filter_map(|shard| away(nodes, &leads, shard));
    moves.next()
}

/// A lead that should leave a server that is silent here, although a voter that is heard goes on to follow it. That voter is the one that
/// can take it: it reaches both.
#[must_use]
pub fn out_of_reach(nodes: &[NodeView], shards: &[ShardView]) -> Option<Move> {
    let leads = leads(shards);
    let is_silent = |node: NodeId| {
        let mut found = nodes.iter().filter(|at| at.id == node);
        found.any(|at| at.silent.is_some() && !at.lost)
    };
    let mut moves = shards.iter().filter_map(|shard| {
        if leader(shard).is_some() {
            return None;
        }
        let voters = || shard.members.iter().filter(|at| at.voter);
        let mut followed = voters().filter_map(|at| at.follows);
        let from = followed.find(|node| is_silent(*node))?;
        let followers = voters().filter(|at| at.follows == Some(from));
        let to = fittest(nodes, &leads, followers)?;
        Some(Move {
            shard: shard.id,
            from,
            to,
        })
    });
    moves.next()
}

/// Where the lead of a shard would best go.
fn away(nodes: &[NodeView], leads: &BTreeMap<NodeId, usize>, shard: &ShardView) -> Option<Move> {
    let from = leader(shard)?;
    let others = shard.members.iter().filter(|at| at.node != from);
    Some(Move {
        shard: shard.id,
        from,
        to: fittest(nodes, leads, others)?,
    })
}

/// Whether what a node leads waits for its disk.
#[must_use]
pub fn is_stuck(node: &NodeView) -> bool {
    node.full || node.stalled
}

/// Of some replicas, the one whose server may lead and leads least.
fn fittest<'a>(
    nodes: &[NodeView],
    leads: &BTreeMap<NodeId, usize>,
    members: impl Iterator<Item = &'a MemberView>,
) -> Option<NodeId> {
    let takes = |node: NodeId| {
        let node = nodes.iter().find(|at| at.id == node);
        node.is_some_and(|at| {
            !at.lost && !at.draining && !at.damaged && !is_stuck(at) && at.silent.is_none()
        })
    };
    members
        .filter(|at| at.voter && at.serves)
        .map(|at| at.node)
        .filter(|node| takes(*node))
        .min_by_key(|node| (leads.get(node).copied().unwrap_or(0), *node))
}

fn leads(shards: &[ShardView]) -> BTreeMap<NodeId, usize> {
    let mut leads = BTreeMap::new();
    for leader in shards.iter().filter_map(leader) {
        *leads.entry(leader).or_default() += 1;
    }
    leads
}

/// Who leads each shard, to see whether that has changed.
#[must_use]
pub fn leaders(shards: &[ShardView]) -> Vec<(ShardId, Option<NodeId>)> {
    shards.iter().map(|at| (at.id, leader(at))).collect()
}

fn leader(shard: &ShardView) -> Option<NodeId> {
    let leads = shard.members.iter().find(|at| at.voter && at.leads);
    leads.map(|at| at.node)
}

/// Nothing is on its way, all members serve, and one of them leads.
fn is_whole(shard: &ShardView) -> bool {
    shard.pending.is_none()
        && shard.members.iter().all(|at| at.serves)
        && shard.members.iter().filter(|at| at.leads).count() == 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn node(id: u64) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: format!("shard-{id}"),
            region: String::new(),
            lost: false,
            draining: false,
            damaged: false,
            damage_is_news: false,
            full: false,
            stalled: false,
            silent: None,
        }
    }

    /// A shard on nodes of which the first leads.
    fn shard(id: u64, members: &[u64]) -> ShardView {
        let members = members.iter().enumerate().map(|(place, node)| MemberView {
            node: NodeId(*node),
            voter: true,
            serves: true,
            leads: place == 0,
            follows: (place > 0).then(|| NodeId(members[0])),
            reached: 0,
        });
        ShardView {
            id: ShardId(id),
            members: members.collect(),
            pending: None,
            standstill: Duration::ZERO,
            without_majority: Duration::ZERO,
            former: Vec::new(),
            former_have_gone: true,
        }
    }

    #[test]
    fn a_server_that_leads_everything_gives_leads_to_each_of_the_others() {
        let nodes = [node(1), node(2), node(3)];
        let mut shards = [
            shard(1, &[1, 2, 3]),
            shard(2, &[1, 2, 3]),
            shard(3, &[1, 2, 3]),
        ];
        let first = plan(&nodes, &shards).unwrap();
        assert_eq!((first.shard, first.to), (ShardId(1), NodeId(2)));
        shards[0] = shard(1, &[2, 1, 3]);
        let second = plan(&nodes, &shards).unwrap();
        assert_eq!((second.shard, second.to), (ShardId(2), NodeId(3)));
        shards[1] = shard(2, &[3, 1, 2]);
        assert_eq!(plan(&nodes, &shards), None);
    }

    #[test]
    fn nothing_moves_while_anything_is_amiss_and_nothing_to_who_may_not_have_it() {
        let nodes = [node(1), node(2)];
        let even = || [shard(1, &[1, 2]), shard(2, &[1, 2])];
        assert!(plan(&nodes, &even()).is_some());
        let mut shards = even();
        shards[1].members[1].serves = false;
        assert_eq!(plan(&nodes, &shards), None);
        let mut shards = even();
        shards[1].members[0].leads = false;
        assert_eq!(plan(&nodes, &shards), None);
        let changes: [fn(&mut NodeView); 6] = [
            |at| at.lost = true,
            |at| at.draining = true,
            |at| at.damaged = true,
            |at| at.full = true,
            |at| at.stalled = true,
            |at| at.silent = Some(Duration::from_secs(1)),
        ];
        for change in changes {
            let mut nodes = nodes.clone();
            change(&mut nodes[1]);
            assert_eq!(plan(&nodes, &even()), None, "{nodes:?}");
        }
        let mut shards = even();
        for shard in &mut shards {
            shard.members[1].voter = false;
        }
        assert_eq!(plan(&nodes, &shards), None, "learners do not lead");
    }

    const FULL: fn(&NodeView) -> bool = is_stuck;

    #[test]
    fn who_has_no_room_gives_its_leads_to_who_has_even_if_another_shard_is_not_whole() {
        let mut nodes = [node(1), node(2), node(3)];
        let mut shards = [shard(1, &[2, 1, 3]), shard(2, &[1, 2, 3])];
        assert_eq!(step_aside(&nodes, &shards, FULL), None);
        nodes[0].full = true;
        shards[0].members[1].serves = false;
        let step = step_aside(&nodes, &shards, FULL).unwrap();
        assert_eq!(
            (step.shard, step.from, step.to),
            (ShardId(2), NodeId(1), NodeId(3))
        );
        shards[1].members[2].serves = false;
        assert_eq!(step_aside(&nodes, &shards, FULL).unwrap().to, NodeId(2));
        nodes[1].full = true;
        let step = step_aside(&nodes, &shards, FULL).unwrap();
        assert_eq!((step.shard, step.to), (ShardId(1), NodeId(3)));
        nodes[2].full = true;
        assert_eq!(step_aside(&nodes, &shards, FULL), None, "nobody has room");
    }

    #[test]
    fn who_is_heard_by_its_peers_alone_gives_its_lead_to_one_of_them() {
        let mut nodes = [node(1), node(2), node(3)];
        let mut shards = [shard(1, &[2, 1, 3]), shard(2, &[1, 2, 3])];
        assert_eq!(out_of_reach(&nodes, &shards), None);
        // Nothing is known of what is on a silent node but what its peers say.
        nodes[0].silent = Some(Duration::from_secs(4));
        shards[0].members[1].serves = false;
        shards[1].members[0] = MemberView {
            serves: false,
            leads: false,
            ..shards[1].members[0]
        };
        let step = out_of_reach(&nodes, &shards).unwrap();
        // Node 2 leads the other shard already.
        let expected = Move {
            shard: ShardId(2),
            from: NodeId(1),
            to: NodeId(3),
        };
        assert_eq!(step, expected);
        // Who does not hear it any more cannot ask it.
        shards[1].members[2].follows = None;
        assert_eq!(out_of_reach(&nodes, &shards).unwrap().to, NodeId(2));
        let mut elected = shards.clone();
        elected[1].members[1].leads = true;
        assert_eq!(out_of_reach(&nodes, &elected), None);
        shards[1].members[1].follows = None;
        assert_eq!(out_of_reach(&nodes, &shards), None, "it is dead");
    }

    proptest! {
        #[test]
        fn moves_come_to_an_end_and_leave_no_two_servers_far_apart(
            leaders in proptest::collection::vec(0_usize..5, 1..40),
        ) {
            let nodes: Vec<NodeView> = (0..5).map(node).collect();
            let all = |first: usize| {
                let mut members: Vec<u64> = (0..5).collect();
                members.swap(0, first);
                members
            };
            let mut shards: Vec<ShardView> = (1..).zip(&leaders).map(|(id, first)| shard(id, &all(*first))).collect();
            let mut moves = 0;
            while let Some(step) = plan(&nodes, &shards) {
                moves += 1;
                prop_assert!(moves <= leaders.len());
                let at = shards.iter_mut().find(|at| at.id == step.shard).unwrap();
                for member in &mut at.members {
                    member.leads = member.node == step.to;
                }
            }
            let led = |node: u64| shards.iter().filter(|at| leader(at) == Some(NodeId(node))).count();
            let counts: Vec<usize> = (0..5).map(led).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }
}
