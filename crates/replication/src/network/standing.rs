//! How far the logs of a group's members reach on their disks, as they tell each other: by this a disk that was set back is noticed.
//!
//! A disk may come back as it was some time ago (a machine restored from an image, a copy put back in its place), or without what it had
//! said was written. The log on it is then sound in itself, and lacks votes and entries that others count on; only they can tell. So a
//! node says with every vote and every answer how far its log is durable ([`Wal::durable_end`]), whoever hears it remembers that, and
//! whoever asks it for a vote or sends it entries says what is remembered of it, and of the others, so that what one knows does
//! not go with it. A node that is told of more than it found at its start ([`wal::RecoveryReport::found`]) has lost something: it falls
//! silent before it does what it was asked for, and is rebuilt like one with a rotten log ([`NodeFault::set_back`]).
//!
//! What always holds: a place is compared with places of the same life of a process, or with what a later one found. Each start begins
//! another segment, so that places of two lives say nothing beside each other.
//!
//! What is remembered is remembered in memory. Where all who heard a node have been restarted since, nobody can tell it; the same goes
//! for a node that only ever talked to itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::raft::v1 as wire;
use parking_lot::Mutex;
use wal::{Place, Wal};

use super::message::unreachable;
use crate::log::NodeFault;
use crate::raft::RpcError;

/// The most members that are remembered, and told of in one message: more than a group ever has at a time. Of more than that the
/// nodes with the highest numbers are kept, which are the youngest.
const STANDINGS_MAX: usize = 64;

/// Seeds the checksum of what is said.
const SEED: u32 = 0x5374_4e64;

/// What a node says of itself, in all groups.
#[derive(Debug)]
pub(crate) struct Own {
    node: u64,
    life: u64,
    found: Place,
    wal: Wal,
    fault: NodeFault,
}

/// What the members of one group have said, and been told.
#[derive(Debug)]
pub(crate) struct Standings {
    own: Arc<Own>,
    peers: Mutex<BTreeMap<u64, Known>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    life: u64,
    end: Place,
}

/// Why a message must not be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Behind {
    /// This node lacks what it has said to have.
    #[error(
        "this node has lost what it had on its disk: its log was durable up to {told}, and reached {found} when it was opened"
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
    /// `life` is drawn anew by each process, `found` what it found.
    pub(crate) const fn new(
        node: u64,
        life: u64,
        found: Place,
        wal: Wal,
        fault: NodeFault,
    ) -> Self {
        Self {
            node,
            life,
            found,
            wal,
            fault,
        }
    }

    fn standing(&self) -> wire::Standing {
        let end = self.wal.durable_end();
        sealed(wire::Standing {
            node_id: self.node,
            life: self.life,
            segment: end.segment,
            offset: end.offset,
            found_segment: self.found.segment,
            found_offset: self.found.offset,
            crc: 0,
        })
    }

    /// Judges what others have heard of this node.
    fn judge(&self, told: &wire::Standing) -> Result<(), Behind> {
        let found = if told.life == self.life {
            // Only where memory was set back with the disk.
            self.wal.durable_end()
        } else {
            self.found
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
        let peers = peers.iter().map(|(node, known)| {
            sealed(wire::Standing {
                node_id: *node,
                life: known.life,
                segment: known.end.segment,
                offset: known.end.offset,
                ..wire::Standing::default()
            })
        });
        let own = std::iter::once(self.own());
        own.chain(peers.rev().take(STANDINGS_MAX - 1)).collect()
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
        let before = peers.get(&node).filter(|known| known.life != standing.life);
        if let Some(told) = before.map(|known| known.end).filter(|told| *told > found) {
            return Err(Behind::Peer { node, told, found });
        }
        remember(&mut peers, standing);
        Ok(())
    }

    /// What a node says of another. Of two lives the one that got further is remembered: the other one found no less, or is behind.
    fn hear_rumour(&self, standing: &wire::Standing) {
        let mut peers = self.peers.lock();
        let known = peers.get(&standing.node_id);
        if known.is_none_or(|known| known.end < end_of(standing)) {
            remember(&mut peers, standing);
        }
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

/// Remembers the furthest place of a life.
fn remember(peers: &mut BTreeMap<u64, Known>, standing: &wire::Standing) {
    let heard = Known {
        life: standing.life,
        end: end_of(standing),
    };
    let known = peers.entry(standing.node_id).or_insert(heard);
    // Messages overtake each other.
    if known.life != heard.life || known.end < heard.end {
        *known = heard;
    }
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
