//! How long a leader may answer reads on its own.
//!
//! A lease is safe only while it ends before the followers that granted it would help to elect somebody else. They are loyal for as
//! long as their own settings say, which need not be the leader's: with each answer to an append they say what lease they grant, and the
//! leader's is never longer than any of them. What a peer said last holds until it says otherwise; a replica that has just started
//! does not vote for as long as any lease may last ([`Timing::longest_lease`](crate::Timing)), so what it granted in its last life
//! still holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// What the peers of a replica grant, in milliseconds.
#[derive(Debug)]
pub(crate) struct Grants {
    own_ms: u32,
    by_peer: Mutex<BTreeMap<u64, u32>>,
    shortest_ms: AtomicU32,
}

impl Grants {
    /// With what this replica grants itself.
    pub(crate) fn new(own: Duration) -> Self {
        let own_ms = u32::try_from(own.as_millis()).unwrap_or(u32::MAX);
        Self {
            own_ms,
            by_peer: Mutex::default(),
            shortest_ms: AtomicU32::new(own_ms),
        }
    }

    /// What this replica tells its leader.
    pub(crate) fn own_ms(&self) -> u32 {
        self.own_ms
    }

    /// A peer has answered. To be noted before the answer counts for anything.
    pub(crate) fn told(&self, peer: u64, granted_ms: u32) {
        let mut by_peer = self.by_peer.lock();
        if by_peer.insert(peer, granted_ms) != Some(granted_ms) {
            let peers = by_peer.values().copied().min();
            let shortest = peers.map_or(self.own_ms, |peers| peers.min(self.own_ms));
            self.shortest_ms.store(shortest, Ordering::Release);
        }
    }

    /// How long after a majority's last answer this replica may answer reads, where it leads.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.shortest_ms.load(Ordering::Acquire).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_the_shortest_that_anybody_grants_now() {
        let grants = Grants::new(Duration::from_millis(450));
        assert_eq!(grants.lease().as_millis(), 450);
        grants.told(2, 600);
        assert_eq!(grants.lease().as_millis(), 450);
        grants.told(3, 150);
        grants.told(2, 300);
        assert_eq!(grants.lease().as_millis(), 150);
        grants.told(3, 600);
        assert_eq!(grants.lease().as_millis(), 300);
        assert_eq!(grants.own_ms(), 450);
    }
}
