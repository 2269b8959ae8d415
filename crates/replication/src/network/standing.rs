//! How far the logs of a group's members reach on their disks, as they tell each other: by this a disk that was set back is noticed.
//!
//! A disk may come back as it was some time ago (a machine restored from an image, a copy put back in its place), or without what it had
//! said was written. The log on it is then sound in itself, and lacks votes and entries that others count on; only they can tell. So a
//! node says with every vote and every answer how far its log is durable ([`Wal::durable_end`]), whoever hears it remembers that, and
//! whoever asks it for a vote or sends it entries says what is remembered of it, and of the others, so that what one knows does
//! not go with it. A node that is told of more than it found when it started after that ([`Starts`]), or of a life that its log never had, has lost
//! something: it falls silent before it does what it was asked for, and is rebuilt like one with a rotten log ([`NodeFault::set_back`]).
//!
//! What always holds: a place is compared with places of the same life of a process, or with what the very next start found. Each start
//! begins another segment, so that places of two lives say nothing beside each other. Who hears of a life and cannot compare it with one
//! that it remembers, for others came in between, remembers both and tells of both; the node itself knows its starts.
//!
//! What is remembered is remembered in memory, for as long as the process lives. Where all who heard a node have been restarted since, nobody can tell
//! it; the same goes for a node that only ever talked to itself, and for one whose only voter it is: learners refuse it, and do not tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::raft::v1 as wire;
use parking_lot::Mutex;
use wal::{Place, Wal};

use super::message::unreachable;
use crate::host::{Starts, number_of};
use crate::log::NodeFault;
use crate::raft::RpcError;

/// The most members that are remembered, and told of in one message: more than a group ever has at a time. Of more than that the
/// nodes with the highest numbers are kept, which are the youngest.
const STANDINGS_MAX: usize = 64;

/// Lives that are remembered of one node.
const LIVES_MAX: usize = 3;

/// Seeds the checksum of what is said.
const SEED: u32 = 0x5374_4e64;

/// What a node says of itself, in all groups.
#[derive(Debug)]
pub(crate) struct Own {
    node: u64,
    starts: Starts,
    wal: Wal,
    fault: NodeFault,
}

/// What the members of one group have said, and been told.
#[derive(Debug)]
pub(crate) struct Standings {
    own: Arc<Own>,
    /// The lives of each that are remembered, none twice, in the order of their starts.
    peers: Mutex<BTreeMap<u64, Vec<Known>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    life: u64,
    end: Place,
}

impl Known {
    /// Whether who says this did not begin from all that it was known to have: it is another copy of the log, an older one, or late.
    fn contradicts(&self, life: u64, found: Place) -> bool {
        if self.life == life {
            return false;
        }
        match (number_of(self.life), number_of(life)) {
            (Some(before), Some(now)) if now <= before => true,
            (Some(before), Some(now)) if now > before + 1 => false,
            (Some(_) | None, Some(_) | None) => self.end > found,
        }
    }

    /// Whether a life began with the very next start, so that it stands for this one once it does not contradict it.
    fn is_followed_by(&self, life: u64) -> bool {
        match (number_of(self.life), number_of(life)) {
            (Some(before), Some(now)) => now == before + 1,
            (Some(_) | None, Some(_) | None) => self.life != life,
        }
    }
}

/// Why a message must not be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Behind {
    /// This node lacks what it has said to have.
    #[error(
        "this node has lost what it had on its disk: its log was durable up to {told}, and reached {found} when it was opened after that"
    )]
    Own {
        /// What others heard.
        told: Place,
        /// What is there.
        found: Place,
    },
    /// The sender does.
    #[error(
        "node {node} has lost what it had on its disk: its log was durable up to {told}, and reached {found} when it was opened"
    )]
    Peer {
        /// Who.
        node: u64,
        /// What it said before.
        told: Place,
        /// What it says now to have found.
        found: Place,
    },
    /// It changed on its way.
    #[error("the standing of node {node} does not have its checksum")]
    Damaged {
        /// Whose it seems to be.
        node: u64,
    },
    /// Nobody has so many members.
    #[error("standings of {count} nodes, at most {STANDINGS_MAX} are taken")]
    TooMany {
        /// How many were sent.
        count: usize,
    },
}

impl Own {
    pub(crate) const fn new(node: u64, starts: Starts, wal: Wal, fault: NodeFault) -> Self {
        Self {
            node,
            starts,
            wal,
            fault,
        }
    }

    fn standing(&self) -> wire::Standing {
        let (end, present) = (self.wal.durable_end(), self.starts.present());
        sealed(wire::Standing {
            node_id: self.node,
            life: present.life,
            segment: end.segment,
            offset: end.offset,
            found_segment: present.found.segment,
            found_offset: present.found.offset,
            crc: 0,
        })
    }

    /// Judges what others have heard of this node.
    fn judge(&self, told: &wire::Standing) -> Result<(), Behind> {
        let found = if told.life == self.starts.present().life {
            // Only where memory was set back with the disk.
            self.wal.durable_end()
        } else {
            self.starts.found_after(told.life)
        };
        let told = end_of(told);
        if told <= found {
            return Ok(());
        }
        let behind = Behind::Own { told, found };
        self.fault.set_back(&behind.to_string());
        Err(behind)
    }
}

impl Standings {
    /// Of a group whose other members have not been heard yet.
    pub(crate) fn of(own: &Arc<Own>) -> Arc<Self> {
        Arc::new(Self {
            own: Arc::clone(own),
            peers: Mutex::default(),
        })
    }

    /// What this node says of itself.
    pub(crate) fn own(&self) -> wire::Standing {
        self.own.standing()
    }

    /// What this node says of all it knows.
    pub(crate) fn all(&self) -> Vec<wire::Standing> {
        let peers = self.peers.lock();
        let standing = |(node, known): (u64, &Known)| {
            sealed(wire::Standing {
                node_id: node,
                life: known.life,
                segment: known.end.segment,
                offset: known.end.offset,
                ..wire::Standing::default()
            })
        };
        let lives = peers.iter().rev();
        let lives = lives.flat_map(|(node, lives)| lives.iter().map(|known| (*node, known)));
        let own = std::iter::once(self.own());
        own.chain(lives.take(STANDINGS_MAX - 1).map(standing))
            .collect()
    }

    /// Takes in what a node says. To be asked before anything else of the message counts.
    ///
    /// # Errors
    /// [`Behind`]: nothing else of the message may count.
    pub(crate) fn hear(&self, from: u64, told: &[wire::Standing]) -> Result<(), Behind> {
        if told.len() > STANDINGS_MAX {
            return Err(Behind::TooMany { count: told.len() });
        }
        if let Some(damaged) = told.iter().find(|at| at.crc != checksum(at)) {
            let node = damaged.node_id;
            return Err(Behind::Damaged { node });
        }
        for standing in told {
            if standing.node_id == self.own.node {
                self.own.judge(standing)?;
            } else if standing.node_id == from {
                self.hear_sender(standing)?;
            } else {
                self.hear_rumour(standing);
            }
        }
        Ok(())
    }

    /// As [`Self::hear`], for the answer to a call: one that must not count is as good as none.
    pub(super) fn hear_answer(
        &self,
        from: u64,
        told: Option<&wire::Standing>,
    ) -> Result<(), RpcError> {
        let heard = self.hear(from, told.map_or(&[], std::slice::from_ref));
        heard.map_err(|behind| unreachable(&behind.to_string()))
    }

    /// What a node says of itself.
    fn hear_sender(&self, standing: &wire::Standing) -> Result<(), Behind> {
        let node = standing.node_id;
        let found = Place {
            segment: standing.found_segment,
            offset: standing.found_offset,
        };
        let mut peers = self.peers.lock();
        let lives = peers.get(&node).into_iter().flatten();
        let mut ahead = lives.filter(|known| known.contradicts(standing.life, found));
        if let Some(Known { end: told, .. }) = ahead.next().copied() {
            return Err(Behind::Peer { node, told, found });
        }
        let lives = remember(&mut peers, standing);
        lives.retain(|known| !known.is_followed_by(standing.life));
        bound(lives);
        keep_told(&mut peers);
        Ok(())
    }

    /// What a node says of another. It takes the place of nothing: whether the one life began where the other ended, only the node
    /// itself can say.
    fn hear_rumour(&self, standing: &wire::Standing) {
        let mut peers = self.peers.lock();
        bound(remember(&mut peers, standing));
        keep_told(&mut peers);
    }
}

fn sealed(standing: wire::Standing) -> wire::Standing {
    wire::Standing {
        crc: checksum(&standing),
        ..standing
    }
}

fn checksum(of: &wire::Standing) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(SEED);
    for field in [
        of.node_id,
        of.life,
        of.segment,
        of.offset,
        of.found_segment,
        of.found_offset,
    ] {
        crc.update(&field.to_le_bytes());
    }
    crc.finalize()
}

/// Remembers the furthest place of a life. Gives the lives of its node.
fn remember<'a>(
    peers: &'a mut BTreeMap<u64, Vec<Known>>,
    standing: &wire::Standing,
) -> &'a mut Vec<Known> {
    let (life, end) = (standing.life, end_of(standing));
    let lives = peers.entry(standing.node_id).or_default();
    match lives.iter_mut().find(|known| known.life == life) {
        // Messages overtake each other.
        Some(known) => known.end = known.end.max(end),
        None => lives.push(Known { life, end }),
    }
    lives
}

/// Of a node's lives the first stays, which nobody has shown to be part of the others, and so do the newest.
fn bound(lives: &mut Vec<Known>) {
    lives.sort_by_key(|known| number_of(known.life));
    while lives.len() > LIVES_MAX {
        lives.remove(1);
    }
}

/// Keeps no more nodes than are told of.
fn keep_told(peers: &mut BTreeMap<u64, Vec<Known>>) {
    if peers.len() >= STANDINGS_MAX {
        peers.pop_first();
    }
}

const fn end_of(standing: &wire::Standing) -> Place {
    Place {
        segment: standing.segment,
        offset: standing.offset,
    }
}

#[cfg(test)]
pub(super) mod tests;
