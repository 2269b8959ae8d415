//! Who holds a shard, and the change of it that is under way. Pure.
//!
//! What the map shows is what is meant: a newcomer stands in it, as a learner, before its group hears of it, and whoever
//! leaves stands in it until its group has let go. So whoever finds a change half done knows from the map alone how it goes on.
//!
//! What always holds:
//! - Each change names the version of the members that it was made for; of two that race one is refused.
//! - A newcomer begins as a learner, gets its vote in a step of its own, and only the node that the change names leaves.
//! - An identity that left is not let in again in the same life of the shard while it is not known that every voter that is not lost
//!   has heard of its leaving (the lost ones are not heard, see `replication::Host::know_lost`): who has not might still count its vote, and it remembers nothing of what it promised.
//! - A shard always has a voter.
//! - What is kept of changes that are over is bounded: the last [`ENDED_MAX`] of each shard.
//!
//! On failure: a change that breaks a rule is refused and nothing changes.

use std::collections::{BTreeMap, VecDeque};

use cluster::{Incarnation, NodeId, Replica, ShardId};

use super::codec::{CodecError, Reader, Writer};
use super::response::{Refusal, Response};
use super::state::State;

/// Replicas of a shard, those that come and go included.
pub const REPLICAS_MAX: usize = 16;

/// Changes that are remembered of each shard after they have ended, for people.
pub(super) const ENDED_MAX: usize = 8;

/// What is to become of a shard's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The node that gets a replica.
    pub add: Option<NodeId>,
    /// Whether it gets a vote; else it stays a learner.
    pub votes: bool,
    /// The node that loses its replica, once the other has caught up.
    pub remove: Option<NodeId>,
    /// For people.
    pub reason: String,
}

/// A change that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// What is to become of the members.
    pub intent: Intent,
    /// The stamp of its beginning, milliseconds since the Unix epoch.
    pub began_ms: i64,
    /// Who has come by it already.
    pub came: Option<NodeId>,
}

/// A change that is over: nothing of it is left to be done, or another one took its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedChange {
    /// Who was to come.
    pub add: Option<NodeId>,
    /// Who was to leave.
    pub remove: Option<NodeId>,
    /// Why.
    pub reason: String,
    /// The stamp of its beginning, milliseconds since the Unix epoch.
    pub began_ms: i64,
    /// The stamp of its end.
    pub ended_ms: i64,
}

/// What the metadata knows of a shard's members besides what the map shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Rises with each change.
    pub version: u64,
    /// The change that is under way.
    pub change: Option<MemberChange>,
    /// Identities that left in this life, where some voter, or one that left before and did not hear of it, may not know it: whoever
    /// comes back having forgotten everything would count for it as a voter. Emptied when that is over for all of them.
    pub former: Vec<NodeId>,
    /// The last changes that are over, oldest first, of earlier lives too.
    pub ended: VecDeque<EndedChange>,
}

impl Members {
    /// The members were set by other means than a change.
    pub(super) fn begin_anew(&mut self, stamp_ms: i64) {
        self.end_change(stamp_ms);
        *self = Self {
            version: self.version + 1,
            ended: std::mem::take(&mut self.ended),
            ..Self::default()
        };
    }

    /// What is under way from now on. A step of the same change says so by the same reason.
    fn go_on(&mut self, stamp_ms: i64, intent: Option<Intent>) {
        let is_step = |before: &MemberChange| {
            let after = intent.as_ref();
            after.is_some_and(|after| after.reason == before.intent.reason)
        };
        let (mut began_ms, mut came) = (stamp_ms, None);
        if let Some(before) = &self.change {
            began_ms = before.began_ms;
            came = before.came.or(before.intent.add);
            if !is_step(before) {
                self.end_change(stamp_ms);
                came = None;
            }
        }
        self.change = intent.map(|intent| MemberChange {
            came: came.filter(|_| intent.add.is_none()),
            intent,
            began_ms,
        });
    }

    fn end_change(&mut self, ended_ms: i64) {
        let Some(change) = self.change.take() else {
            return;
        };
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(EndedChange {
            add: change.came.or(change.intent.add),
            remove: change.intent.remove,
            reason: change.intent.reason,
            began_ms: change.began_ms,
            ended_ms,
        });
    }
}

/// A step of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplicas {
    /// The shard.
    pub shard: ShardId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The version of the members that this is meant for.
    pub expected: u64,
    /// What the map is to show.
    pub replicas: Vec<Replica>,
    /// What is under way from now on.
    pub intent: Option<Intent>,
    /// Whoever leaves with this may come again at once, without a [`Settled`]. Nobody says so any more.
    pub settled: bool,
}

/// All who left a shard may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The shard.
    pub shard: ShardId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The version of the members for which that was found to be so.
    pub expected: u64,
}

impl State {
    pub(super) fn change_replicas(
        &mut self,
        stamp_ms: i64,
        wanted: NewReplicas,
    ) -> Result<Response, Refusal> {
        let shard = wanted.shard;
        let record = self
            .shards
            .get(&shard)
            .ok_or(Refusal::UnknownShard { shard })?;
        let current = record.shard.incarnation;
        if wanted.incarnation != current {
            return Err(Refusal::StaleIncarnation { current });
        }
        let members = &record.members;
        let present = members.change.as_ref().map(|change| &change.intent);
        let is_so = record.shard.replicas == wanted.replicas && present == wanted.intent.as_ref();
        if is_so && members.version == wanted.expected.saturating_add(1) {
            return Ok(Response::Done);
        }
        if members.version != wanted.expected {
            let current = members.version;
            return Err(Refusal::StaleMembers { current });
        }
        if !record.begun {
            return Err(Refusal::BadMembers {
                problem: "the shard's group has not begun",
            });
        }
        let before = &record.shard.replicas;
        check_step(before, members, &wanted).map_err(|problem| Refusal::BadMembers { problem })?;
        let was = |node: NodeId| before.iter().any(|at| at.node == node);
        let newcomers = wanted.replicas.iter().filter(|at| !was(at.node));
        let newcomers: Vec<NodeId> = newcomers.map(|at| at.node).collect();
        for newcomer in newcomers {
            self.usable_node(newcomer)?;
        }
        self.take_step(stamp_ms, wanted);
        Ok(Response::Done)
    }

    /// Makes a step that was checked.
    fn take_step(&mut self, stamp_ms: i64, wanted: NewReplicas) {
        let Some(record) = self.shards.get(&wanted.shard) else {
            return;
        };
        let stays = |node: NodeId| wanted.replicas.iter().any(|at| at.node == node);
        let left = record.shard.replicas.iter().map(|at| at.node);
        let left: Vec<NodeId> = left.filter(|node| !stays(*node)).collect();
        let mut former = record.members.former.clone();
        if !wanted.settled {
            former.extend(left);
        }
        // A lost identity comes back nowhere; that keeps the list short.
        former.retain(|node| !self.is_lost(*node));
        former.sort_unstable();
        former.dedup();
        let Some(record) = self.shards.get_mut(&wanted.shard) else {
            return;
        };
        let changed = record.shard.replicas != wanted.replicas;
        record.shard.replicas = wanted.replicas;
        record.members.version += 1;
        record.members.former = former;
        record.members.go_on(stamp_ms, wanted.intent);
        if changed {
            self.changed();
        }
    }

    /// All who left a shard may come again: they hold nothing of it any more, and no voter takes any of them for a voter.
    pub(super) fn settle_members(&mut self, settled: Settled) -> Result<Response, Refusal> {
        let shard = settled.shard;
        let record = self
            .shards
            .get_mut(&shard)
            .ok_or(Refusal::UnknownShard { shard })?;
        let current = record.shard.incarnation;
        if settled.incarnation != current {
            return Err(Refusal::StaleIncarnation { current });
        }
        let members = &mut record.members;
        if members.former.is_empty() {
            return Ok(Response::Done);
        }
        if members.version != settled.expected {
            let current = members.version;
            return Err(Refusal::StaleMembers { current });
        }
        members.former.clear();
        members.version += 1;
        Ok(Response::Done)
    }

    pub(super) fn set_draining(
        &mut self,
        node: NodeId,
        draining: bool,
    ) -> Result<Response, Refusal> {
        self.usable_node(node)?.draining = draining;
        Ok(Response::Done)
    }
}

/// Whether the members may become so by one step.
fn check_step(
    before: &[Replica],
    members: &Members,
    wanted: &NewReplicas,
) -> Result<(), &'static str> {
    let old: BTreeMap<NodeId, bool> = before.iter().map(|at| (at.node, at.voter)).collect();
    let new: BTreeMap<NodeId, bool> = wanted
        .replicas
        .iter()
        .map(|at| (at.node, at.voter))
        .collect();
    if new.len() != wanted.replicas.len() {
        return Err("a node is named twice");
    }
    if new.len() > REPLICAS_MAX {
        return Err("there are too many");
    }
    if !new.values().any(|votes| *votes) {
        return Err("nobody votes");
    }
    let present = members.change.as_ref().map(|change| &change.intent);
    let coming = present
        .filter(|intent| intent.votes)
        .and_then(|intent| intent.add);
    let leaving = present.and_then(|intent| intent.remove);
    for (node, votes) in &new {
        match old.get(node) {
            None if *votes => return Err("a newcomer begins without a vote"),
            None if wanted.intent.as_ref().and_then(|intent| intent.add) != Some(*node) => {
                return Err("a newcomer is not what is intended");
            }
            None if members.former.contains(node) => {
                return Err("somebody may not know yet that this node has left");
            }
            Some(true) if !votes => return Err("a vote is not taken back"),
            Some(false) if *votes && coming != Some(*node) => {
                return Err("a vote is given to somebody else than intended");
            }
            None | Some(_) => {}
        }
    }
    let mut gone = old.keys().filter(|node| !new.contains_key(node));
    if gone.any(|node| leaving != Some(*node)) {
        return Err("somebody else than intended leaves");
    }
    check_intent(&new, wanted.intent.as_ref())
}

fn check_intent(new: &BTreeMap<NodeId, bool>, intent: Option<&Intent>) -> Result<(), &'static str> {
    let Some(intent) = intent else {
        return Ok(());
    };
    if intent.add.is_none() && intent.remove.is_none() {
        return Err("nothing is intended");
    }
    if intent
        .add
        .is_some_and(|node| new.get(&node) != Some(&false))
    {
        return Err("who is to come is no learner");
    }
    if intent.remove.is_some_and(|node| !new.contains_key(&node)) {
        return Err("who is to leave is not there");
    }
    if intent.add.is_some() && intent.add == intent.remove {
        return Err("the same node comes and leaves");
    }
    Ok(())
}

fn write_node(out: &mut Writer, node: Option<NodeId>) {
    // Identities begin at 1.
    out.u64(node.map_or(0, |node| node.0));
}

fn read_node(from: &mut Reader<'_>, field: &'static str) -> Result<Option<NodeId>, CodecError> {
    let id = from.u64(field)?;
    Ok((id > 0).then_some(NodeId(id)))
}

fn write_intent(out: &mut Writer, intent: &Intent) {
    write_node(out, intent.add);
    out.bool(intent.votes);
    write_node(out, intent.remove);
    out.text(&intent.reason);
}

fn read_intent(from: &mut Reader<'_>) -> Result<Intent, CodecError> {
    Ok(Intent {
        add: read_node(from, "node to add")?,
        votes: from.bool("votes")?,
        remove: read_node(from, "node to remove")?,
        reason: from.text("reason")?,
    })
}

pub(super) fn write_settled(out: &mut Writer, settled: &Settled) {
    out.u64(settled.shard.0);
    out.u64(settled.incarnation.0);
    out.u64(settled.expected);
}

pub(super) fn read_settled(from: &mut Reader<'_>) -> Result<Settled, CodecError> {
    Ok(Settled {
        shard: ShardId(from.u64("shard")?),
        incarnation: Incarnation(from.u64("incarnation")?),
        expected: from.u64("version")?,
    })
}

pub(super) fn write_step(out: &mut Writer, wanted: &NewReplicas) {
    out.u64(wanted.shard.0);
    out.u64(wanted.incarnation.0);
    out.u64(wanted.expected);
    write_replicas(out, &wanted.replicas);
    out.option(wanted.intent.as_ref(), write_intent);
    out.bool(wanted.settled);
}

pub(super) fn read_step(from: &mut Reader<'_>) -> Result<NewReplicas, CodecError> {
    Ok(NewReplicas {
        shard: ShardId(from.u64("shard")?),
        incarnation: Incarnation(from.u64("incarnation")?),
        expected: from.u64("expected version")?,
        replicas: read_replicas(from)?,
        intent: from.option("intent", read_intent)?,
        settled: from.bool("settled")?,
    })
}

pub(super) fn write_replicas(out: &mut Writer, replicas: &[Replica]) {
    out.len(replicas.len());
    for replica in replicas {
        out.u64(replica.node.0);
        out.bool(replica.voter);
    }
}

pub(super) fn read_replicas(from: &mut Reader<'_>) -> Result<Vec<Replica>, CodecError> {
    from.list("replicas", |from| {
        Ok(Replica {
            node: NodeId(from.u64("replica node")?),
            voter: from.bool("voter")?,
        })
    })
}

pub(super) fn write(out: &mut Writer, members: &Members) {
    out.u64(members.version);
    out.option(members.change.as_ref(), |out, change| {
        write_intent(out, &change.intent);
        out.i64(change.began_ms);
        write_node(out, change.came);
    });
    out.len(members.former.len());
    members.former.iter().for_each(|node| out.u64(node.0));
    out.len(members.ended.len());
    for ended in &members.ended {
        write_node(out, ended.add);
        write_node(out, ended.remove);
        out.text(&ended.reason);
        out.i64(ended.began_ms);
        out.i64(ended.ended_ms);
    }
}

/// `has_ended`: whether what is over was written, too.
pub(super) fn read(from: &mut Reader<'_>, has_ended: bool) -> Result<Members, CodecError> {
    Ok(Members {
        version: from.u64("version of the members")?,
        change: from.option("change of members", |from| {
            Ok(MemberChange {
                intent: read_intent(from)?,
                began_ms: from.i64("began")?,
                came: if has_ended {
                    read_node(from, "node that came")?
                } else {
                    None
                },
            })
        })?,
        former: from.list("former members", |from| {
            Ok(NodeId(from.u64("former member")?))
        })?,
        ended: if has_ended {
            from.list("changes that are over", read_ended)?.into()
        } else {
            VecDeque::new()
        },
    })
}

fn read_ended(from: &mut Reader<'_>) -> Result<EndedChange, CodecError> {
    Ok(EndedChange {
        add: read_node(from, "node that was to come")?,
        remove: read_node(from, "node that was to leave")?,
        reason: from.text("reason")?,
        began_ms: from.i64("began")?,
        ended_ms: from.i64("ended")?,
    })
}

#[cfg(test)]
mod tests;
