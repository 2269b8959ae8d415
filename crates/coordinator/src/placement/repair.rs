//! What the cluster does about replicas that are lost, gone for long, or asked to leave. Pure and deterministic.
//!
//! From the nodes and shards as they look now to the changes that are due. A change adds a replica, removes one, or replaces one by
//! another: the newcomer first, the removal once it has caught up and votes.
//!
//! What always holds:
//! - At most one change of a shard is under way, and none is begun while [`Rules::changes_max`] of those under way can go on: one that cannot
//!   must not hold up what other shards need. That a shard elects a leader makes no room for another change.
//! - A change is begun only where a majority of the voters is at work under a leader: below that nothing could be decided, and what is
//!   left must not be touched.
//! - Nothing is removed without a newcomer in its place, unless enough others vote.
//! - With a home region, voters come to it only, and every other region that has nodes gets a learner of each shard.
//! - A newcomer is alive, sound, has room, is not asked to leave, not a member by another identity of the same name, and no former member that somebody may take for one.
//! - A node may give up its data only where every shard on it has a majority without it; of several damaged ones one at a time.
//!
//! On failure: where the rules leave nothing to do, nothing is planned, and the next look decides anew.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{NodeId, ShardId};

/// For so long a newcomer may hear nobody and get no further, however soon nodes are replaced: it may not come again before everybody has
/// heard of its leaving.
const STANDSTILL_MIN: Duration = Duration::from_mins(10);

/// For so long a change waits for a majority before others no longer wait for it: several elections, and the reports of who leads, fit in.
const MAJORITY_AWAITED: Duration = Duration::from_secs(30);

/// A node as it looks now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its identity.
    pub id: NodeId,
    /// The name it registered with; stable over lost disks.
    pub name: String,
    /// The region it stands in; empty where regions are not used.
    pub region: String,
    /// Its disk is gone; the identity never comes back.
    pub lost: bool,
    /// Its replicas are to go elsewhere.
    pub draining: bool,
    /// It reports that data on it is damaged.
    pub damaged: bool,
    /// Others may count as alive who have not been heard since it first reported that.
    pub damage_is_news: bool,
    /// It reports that it has no room for writes.
    pub full: bool,
    /// It reports that its disk does not answer, which may pass.
    pub stalled: bool,
    /// How long it has not been heard of; nothing while it is alive.
    pub silent: Option<Duration>,
}

/// A replica as it looks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberView {
    /// Who holds it.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Its node is alive and says that it serves.
    pub serves: bool,
    /// It leads.
    pub leads: bool,
    /// Whom it follows, as far as it serves.
    pub follows: Option<NodeId>,
    /// How much of the log it has gone through: rises as long as it gets on with it.
    pub reached: u64,
}

/// A change that the map tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Who is to come; until it is whole.
    pub add: Option<NodeId>,
    /// Whether it is to vote, or to stay a learner.
    pub votes: bool,
    /// Who is to leave.
    pub remove: Option<NodeId>,
}

/// A shard as it looks now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    /// Its id.
    pub id: ShardId,
    /// Its replicas, those that come and go included.
    pub members: Vec<MemberView>,
    /// The change that is under way.
    pub pending: Option<Pending>,
    /// How long who is to come has heard nobody and got no further, while a majority was at work. Whoever is sent a snapshot hears the leader
    /// meanwhile, however long that takes.
    pub standstill: Duration,
    /// How long no majority has been at work.
    pub without_majority: Duration,
    /// Identities that left, and may not come again.
    pub former: Vec<NodeId>,
    /// Each of them is lost, or alive and says that it holds nothing of the shard.
    pub former_have_gone: bool,
}

/// What an operator has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Voters that each shard should have.
    pub replicas: usize,
    /// Where all voters stand; every other region that has nodes holds a learner of each shard. Anywhere, if none, and no learners.
    pub home: Option<String>,
    /// How long a node may be gone before others take its place; never, if none.
    pub replace_after: Option<Duration>,
    /// Changes that may be under way in the cluster at once; at least one is. Those that cannot go on do not count.
    pub changes_max: usize,
}

/// Why a replica is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The disk of its node is lost.
    Lost,
    /// Its node has been away for long.
    Gone,
    /// Its node is to hold nothing any more.
    Draining,
    /// The shard has fewer voters than it should.
    TooFew,
    /// A learner that belongs to no change.
    LeftOver,
    /// It votes outside the home region.
    Abroad,
    /// A region has no learner of the shard.
    RegionLacks,
    /// It cannot be finished: the newcomer is lost, damaged, full or gone, or hears nobody where another one could come.
    NewcomerFailed,
}

impl Cause {
    /// One word, for what counts changes.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Draining => "draining",
            Self::TooFew => "too_few",
            Self::LeftOver => "left_over",
            Self::Abroad => "abroad",
            Self::RegionLacks => "region_lacks",
            Self::NewcomerFailed => "newcomer_failed",
        }
    }
}

/// What is to be done about a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A change is begun.
    Begin {
        /// The shard.
        shard: ShardId,
        /// Who comes and who leaves.
        change: Pending,
        /// Why.
        cause: Cause,
    },
    /// The change that is under way goes on.
    GoOn {
        /// The shard.
        shard: ShardId,
    },
    /// The change that is under way is turned round: the newcomer leaves again.
    TakeBack {
        /// The shard.
        shard: ShardId,
        /// The newcomer.
        newcomer: NodeId,
    },
    /// Those who left may come again, if their leaving has reached every voter.
    Settle {
        /// The shard.
        shard: ShardId,
    },
}

/// What is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// At most one for each shard.
    pub steps: Vec<Step>,
    /// A node that may set its damaged data aside, to come back as a new one.
    pub give_up: Option<NodeId>,
}

/// Decides what is due.
#[must_use]
pub fn plan(nodes: &[NodeView], shards: &[ShardView], rules: Rules) -> Plan {
    let mut planner = Planner {
        nodes: nodes.iter().map(|node| (node.id, node)).collect(),
        load: load(shards),
        rules,
    };
    let pending = shards.iter().filter(|shard| shard.pending.is_some());
    let going_on = pending.filter(|shard| planner.can_go_on(shard)).count();
    let mut free = planner.rules.changes_max.max(1).saturating_sub(going_on);
    let mut steps = Vec::new();
    for shard in shards {
        let step = match shard.pending {
            Some(pending) => Some(planner.go_on(shard, pending)),
            None if free > 0 => planner.begin(shard).or_else(|| planner.settle(shard)),
            None => planner.settle(shard),
        };
        if let Some(Step::Begin { .. }) = step {
            free -= 1;
        }
        steps.extend(step);
    }
    Plan {
        steps,
        give_up: planner.give_up(shards),
    }
}

/// The node that a shard's replica may go to: asked for by name, or the best there is.
///
/// # Errors
/// Why the node that was asked for may not take it, or why there is none.
pub fn newcomer(
    nodes: &[NodeView],
    shards: &[ShardView],
    rules: Rules,
    shard: &ShardView,
    leaving: Option<NodeId>,
    asked: Option<NodeId>,
) -> Result<NodeId, &'static str> {
    let planner = Planner {
        nodes: nodes.iter().map(|node| (node.id, node)).collect(),
        load: load(shards),
        rules,
    };
    match asked {
        Some(id) => {
            let node = planner.nodes.get(&id).ok_or("is not known")?;
            if !planner.may_vote(node) {
                return Err("stands outside the home region");
            }
            planner.fits(shard, leaving, node).map(|()| id)
        }
        None => planner
            .voter_for(shard, leaving)
            .ok_or("no server is there that could take it, start another"),
    }
}

/// Whether a majority of a shard's voters is at work under one of them.
#[must_use]
pub fn has_majority(shard: &ShardView) -> bool {
    let voters = || shard.members.iter().filter(|at| at.voter);
    let at_work = voters().filter(|at| at.serves).count();
    at_work > voters().count() / 2 && voters().any(|at| at.serves && at.leads)
}

fn load(shards: &[ShardView]) -> BTreeMap<NodeId, usize> {
    let mut load = BTreeMap::new();
    for member in shards.iter().flat_map(|shard| &shard.members) {
        *load.entry(member.node).or_default() += 1;
    }
    load
}

struct Planner<'a> {
    nodes: BTreeMap<NodeId, &'a NodeView>,
    /// Replicas that each node holds, those that are planned included.
    load: BTreeMap<NodeId, usize>,
    rules: Rules,
}

impl Planner<'_> {
    fn go_on(&self, shard: &ShardView, pending: Pending) -> Step {
        match pending.add {
            Some(newcomer) if self.has_failed(newcomer) || self.gives_way(shard, pending) => {
                Step::TakeBack {
                    shard: shard.id,
                    newcomer,
                }
            }
            Some(_) | None => Step::GoOn { shard: shard.id },
        }
    }

    /// Whether it is time to ask if all have heard of those who left. A lost identity is not waited for, or the only spare could be one
    /// that may not come to replace it. Should its process still run, whoever comes again does not hear it: the map that a newcomer is told
    /// of before it joins says who is lost.
    fn settle(&self, shard: &ShardView) -> Option<Step> {
        let is_lost = |id: NodeId| self.nodes.get(&id).is_none_or(|node| node.lost);
        let mut voters = shard.members.iter().filter(|at| at.voter);
        let all_at_work = voters.all(|at| at.serves || is_lost(at.node));
        let is_due = !shard.former.is_empty() && shard.former_have_gone && all_at_work;
        let step = Step::Settle { shard: shard.id };
        (is_due && has_majority(shard)).then_some(step)
    }

    /// Whether a newcomer cannot be waited for any longer.
    fn has_failed(&self, newcomer: NodeId) -> bool {
        self.nodes
            .get(&newcomer)
            .is_none_or(|node| node.lost || node.damaged || node.full || self.is_gone(node))
    }

    /// Whether a change that is under way can go on, as far as is known yet: whoever elects a leader has no majority for a moment.
    fn can_go_on(&self, shard: &ShardView) -> bool {
        let is_awaited = has_majority(shard) || shard.without_majority < MAJORITY_AWAITED;
        is_awaited && !self.stands_still(shard)
    }

    fn stands_still(&self, shard: &ShardView) -> bool {
        let limit = self.rules.replace_after;
        limit.is_some_and(|limit| shard.standstill >= limit.max(STANDSTILL_MIN))
    }

    /// Whether a newcomer that stands still makes room for another one. Where there is none, it may still get on.
    fn gives_way(&self, shard: &ShardView, pending: Pending) -> bool {
        let another = || self.voter_for(shard, pending.remove);
        pending.votes && self.stands_still(shard) && another().is_some()
    }

    fn is_gone(&self, node: &NodeView) -> bool {
        let silent = node.silent.zip(self.rules.replace_after);
        silent.is_some_and(|(silent, limit)| silent >= limit)
    }

    fn begin(&mut self, shard: &ShardView) -> Option<Step> {
        if shard.members.is_empty() || !has_majority(shard) {
            return None;
        }
        let (change, cause) = self.change(shard)?;
        if let Some(newcomer) = change.add {
            *self.load.entry(newcomer).or_default() += 1;
        }
        Some(Step::Begin {
            shard: shard.id,
            change,
            cause,
        })
    }

    fn change(&self, shard: &ShardView) -> Option<(Pending, Cause)> {
        let leaves = |node: NodeId| Pending {
            add: None,
            votes: false,
            remove: Some(node),
        };
        if let Some((stray, cause)) = self.useless_learner(shard) {
            return Some((leaves(stray), cause));
        }
        let voters = shard.members.iter().filter(|at| at.voter).count();
        if let Some((leaving, cause)) = self.worst(shard) {
            if voters > self.rules.replicas && self.spares(shard, leaving) {
                return Some((leaves(leaving), cause));
            }
            // Where nobody is there to take its place, there may still be something else to do.
            if let Some(newcomer) = self.voter_for(shard, Some(leaving)) {
                let change = Pending {
                    add: Some(newcomer),
                    votes: true,
                    remove: Some(leaving),
                };
                return Some((change, cause));
            }
        }
        let comes = |node: NodeId, votes| Pending {
            add: Some(node),
            votes,
            remove: None,
        };
        if voters < self.rules.replicas
            && let Some(newcomer) = self.voter_for(shard, None)
        {
            return Some((comes(newcomer, true), Cause::TooFew));
        }
        let learner = self.learner_for(shard)?;
        Some((comes(learner, false), Cause::RegionLacks))
    }

    /// A learner that nobody is to be served by: it belongs nowhere, or its node is to go or gone.
    fn useless_learner(&self, shard: &ShardView) -> Option<(NodeId, Cause)> {
        let mut learners = shard.members.iter().filter(|at| !at.voter);
        learners.find_map(|at| {
            let node = self.nodes.get(&at.node);
            let cause = match node {
                Some(node) if self.may_vote(node) => Cause::LeftOver,
                Some(node) if node.lost => Cause::Lost,
                Some(node) if self.is_gone(node) => Cause::Gone,
                Some(node) if node.draining => Cause::Draining,
                Some(_) => return None,
                None => Cause::LeftOver,
            };
            Some((at.node, cause))
        })
    }

    /// Whether a node stands where voters may.
    fn may_vote(&self, node: &NodeView) -> bool {
        let home = self.rules.home.as_ref();
        home.is_none_or(|home| *home == node.region)
    }

    /// Whether the others are a majority at work of their own.
    fn spares(&self, shard: &ShardView, leaving: NodeId) -> bool {
        let rest = ShardView {
            members: shard
                .members
                .iter()
                .filter(|at| at.node != leaving)
                .copied()
                .collect(),
            ..shard.clone()
        };
        has_majority(&rest)
    }

    /// The member that should leave most urgently.
    fn worst(&self, shard: &ShardView) -> Option<(NodeId, Cause)> {
        let causes = [Cause::Lost, Cause::Gone, Cause::Draining, Cause::Abroad];
        causes.into_iter().find_map(|cause| {
            let is_it = |node: &NodeView| match cause {
                Cause::Lost => node.lost,
                Cause::Gone => self.is_gone(node),
                Cause::Draining => node.draining,
                Cause::Abroad => !self.may_vote(node),
                Cause::TooFew | Cause::LeftOver | Cause::RegionLacks | Cause::NewcomerFailed => {
                    false
                }
            };
            let mut members = shard.members.iter().filter(|at| at.voter);
            let found = members.find(|at| {
                let node = self.nodes.get(&at.node);
                node.is_some_and(|node| is_it(node))
            });
            found.map(|at| (at.node, cause))
        })
    }

    fn fits(
        &self,
        shard: &ShardView,
        leaving: Option<NodeId>,
        node: &NodeView,
    ) -> Result<(), &'static str> {
        if node.lost {
            return Err("has lost its data");
        }
        if node.silent.is_some() {
            return Err("has not been heard of");
        }
        if node.damaged {
            return Err("has damaged data");
        }
        if node.full {
            return Err("has no room");
        }
        if node.stalled {
            return Err("has a disk that does not answer");
        }
        if node.draining {
            return Err("is being drained");
        }
        if shard.former.contains(&node.id) {
            return Err(
                "has held the shard before, and somebody may not know that it has left: it may come again when all servers that held the shard and are not lost are back, or at once with an empty directory",
            );
        }
        for member in &shard.members {
            if member.node == node.id {
                return Err("holds a replica of the shard");
            }
            let namesake = self.nodes.get(&member.node);
            if Some(member.node) != leaving && namesake.is_some_and(|at| at.name == node.name) {
                return Err("holds a replica of the shard by an earlier identity");
            }
        }
        Ok(())
    }

    /// Who takes the place: whoever has the name of the one that leaves, else whoever holds least.
    fn voter_for(&self, shard: &ShardView, leaving: Option<NodeId>) -> Option<NodeId> {
        self.best(shard, leaving, |node| self.may_vote(node))
    }

    /// Who gets a learner: of the regions besides home that have none, whoever holds least.
    fn learner_for(&self, shard: &ShardView) -> Option<NodeId> {
        let members = shard.members.iter();
        let served: Vec<&str> = members
            .filter_map(|at| self.nodes.get(&at.node))
            .map(|node| node.region.as_str())
            .collect();
        self.best(shard, None, |node| {
            !self.may_vote(node) && !served.contains(&node.region.as_str())
        })
    }

    fn best(
        &self,
        shard: &ShardView,
        leaving: Option<NodeId>,
        may_take: impl Fn(&NodeView) -> bool,
    ) -> Option<NodeId> {
        let left = leaving.and_then(|node| self.nodes.get(&node));
        let name = left.map(|node| node.name.as_str());
        let nodes = self.nodes.values().filter(|node| may_take(node));
        let fitting = nodes.filter(|node| self.fits(shard, leaving, node).is_ok());
        let best = fitting.min_by_key(|node| {
            let held = self.load.get(&node.id).copied().unwrap_or_default();
            let is_other = Some(node.name.as_str()) != name;
            (is_other, held, node.name.len(), &node.name, node.id)
        });
        best.map(|node| node.id)
    }

    /// A damaged node whose data nobody needs: every shard on it has a sound majority besides it, and that has been heard since: where all were
    /// restarted, what others said before says nothing of what they found. One that holds nothing is a spare that is to be one again.
    fn give_up(&self, shards: &[ShardView]) -> Option<NodeId> {
        let mut damaged = self.nodes.values().filter(|node| {
            node.damaged && !node.damage_is_news && !node.lost && node.silent.is_none()
        });
        let is_held = |node: NodeId| {
            let mut on_it = shards
                .iter()
                .filter(|shard| shard.members.iter().any(|at| at.node == node));
            on_it.all(|shard| self.has_majority_without(shard, node))
        };
        damaged.find(|node| is_held(node.id)).map(|node| node.id)
    }

    /// Whether most of all voters are at work and sound, without one node.
    fn has_majority_without(&self, shard: &ShardView, without: NodeId) -> bool {
        let is_sound = |node: NodeId| {
            let node = self.nodes.get(&node);
            node.is_some_and(|node| !node.lost && !node.damaged && node.silent.is_none())
        };
        let voters = || shard.members.iter().filter(|at| at.voter);
        let rest = || voters().filter(|at| at.node != without && at.serves && is_sound(at.node));
        rest().count() > voters().count() / 2 && rest().any(|at| at.leads)
    }
}

#[cfg(test)]
mod tests;
