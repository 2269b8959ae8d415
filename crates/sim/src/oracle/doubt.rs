//! Reads by the lease of a leader whose clock is too slow, and how far they may be behind.
//!
//! Of a LEADER read the contract says that under a faulty clock it may miss what was acknowledged less than a lease before. The lease is as long
//! as the clock of the leader has it: so many times longer as that is too slow. Nothing else is excused: no other server, no other
//! level, no write, and nothing that a token stands for.

use std::time::Duration;

use api::v1::Consistency;
use cluster::ShardId;

use super::{Key, Oracle};
use crate::cast;
use crate::machine::TICK;
use crate::net::HostId;

/// How a read was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) level: Consistency,
    /// The server that answers it, where the client goes to one alone.
    pub(crate) server: Option<HostId>,
}

impl From<Consistency> for Asked {
    fn from(level: Consistency) -> Self {
        let server = None;
        Self { level, server }
    }
}

/// A while in which a server may have answered for a shard that another one led already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    shard: ShardId,
    server: HostId,
    from: Duration,
    until: Duration,
    /// How long its lease lasted in the world's time.
    lease: Duration,
}

impl Oracle {
    /// A server may answer now for a shard that another one leads already, by a lease that lasts so long. To be said at every moment of which it is true.
    pub(crate) fn doubt(&mut self, shard: ShardId, server: HostId, lease: Duration, now: Duration) {
        let goes_on = |known: &&mut Doubt| {
            let is_same = known.shard == shard && known.server == server && known.lease == lease;
            is_same && now <= known.until + TICK
        };
        match self.doubts.iter_mut().find(goes_on) {
            Some(known) => known.until = now,
            None => self.doubts.push(Doubt {
                shard,
                server,
                from: now,
                until: now,
                lease,
            }),
        }
    }

    /// From when on a read of a term must see what is visible; nothing must be in a STALE one.
    pub(super) fn due(
        &mut self,
        key: &Key,
        asked: Asked,
        began: Duration,
        now: Duration,
    ) -> Option<Duration> {
        match asked.level {
            Consistency::Linearizable => Some(began),
            Consistency::Leader | Consistency::Unspecified => {
                let shard = cast::shard_of(&key.term);
                let may_be = |doubt: &&Doubt| {
                    let is_asked = asked.server.is_none_or(|server| server == doubt.server);
                    is_asked && doubt.shard == shard && began <= doubt.until && doubt.from <= now
                };
                let doubts = self.doubts.iter().filter(may_be);
                let Some(lease) = doubts.map(|doubt| doubt.lease).max() else {
                    return Some(began);
                };
                self.counts.excused += 1;
                Some(began.saturating_sub(lease))
            }
            Consistency::Stale => None,
        }
    }
}
