//! What its peers grant a leader: that a majority still follows it, as of when, and how long it may answer reads on its own after that.
//!
//! A lease is safe only while it ends before the followers that granted it would help to elect somebody else. They are loyal for as
//! long as their own settings say, which need not be the leader's: with each answer to an append they say what lease they grant, and the
//! leader's is never longer than any of them. What a peer said last holds until it says otherwise; a replica that has just started
//! does not vote for as long as any lease may last ([`Timing::longest_lease`](crate::Timing)), so what it granted in its last life
//! still holds.
//!
//! What always holds: an answer counts for the request that it answers and for none that was sent later. The Raft library keeps a clock
//! of its own, but finds the request that an answer belongs to by the last log id in both: the answer to an entry, held up on its
//! way, counts for a request without entries that was sent much later, and renews a lease that a majority has long given to another. So
//! that clock is not asked, neither for leases nor for whether a majority has confirmed a strict read.
//!
//! While a machine sleeps its monotonic clock stands still, and a lease of before would go on when it wakes, whoever leads by then. The wall
//! clock does not: a request is as old as the clock says that went further since. So a wall clock that is set forward costs the
//! lease until the next request has been accepted, and one that is set back leaves it to the monotonic clock; neither makes a lease longer.
//! What stops both clocks, as a hypervisor may for its guest, is not noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use runtime::{Instant, Runtime};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A moment by both clocks of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    at: Instant,
    wall_ms: i64,
}

impl Moment {
    pub(crate) fn present(runtime: &Runtime) -> Self {
        Self {
            at: runtime.now(),
            wall_ms: runtime.wall_ms(),
        }
    }
}

/// When a request to a peer was sent. Taken before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The term of the leader that sent it.
    pub(crate) term: u64,
    /// Its place among all requests of this replica: by it alone two moments of a clock that has not moved differ.
    pub(crate) number: u64,
    pub(crate) at: Instant,
    /// The same by the wall clock.
    pub(crate) wall_ms: i64,
}

impl Stamp {
    /// How long ago that was, by the clock that has gone further since.
    pub(crate) fn age(&self, now: &Moment) -> Duration {
        let by_wall = now.wall_ms.saturating_sub(self.wall_ms);
        let by_wall = Duration::from_millis(u64::try_from(by_wall).unwrap_or_default());
        now.at.saturating_since(self.at).max(by_wall)
    }
}

/// What a peer has accepted.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    stamp: Stamp,
    /// When it last said so of a request of the same term: later than that was sent, by as long as its disk took.
    heard_at: Instant,
}

/// What the peers of a replica grant, in milliseconds, and what of its requests they have accepted.
#[derive(Debug)]
pub(crate) struct Grants {
    own_ms: u32,
    by_peer: Mutex<BTreeMap<u64, u32>>,
    shortest_ms: AtomicU32,
    next: AtomicU64,
    /// The first request of the newest term in which there was one.
    first: RwLock<Option<Stamp>>,
    /// The newest request that each peer has accepted.
    accepted: RwLock<BTreeMap<u64, Accepted>>,
    news: Notify,
}

impl Grants {
    /// With what this replica grants itself.
    pub(crate) fn new(own: Duration) -> Self {
        let own_ms = u32::try_from(own.as_millis()).unwrap_or(u32::MAX);
        Self {
            own_ms,
            by_peer: Mutex::default(),
            shortest_ms: AtomicU32::new(own_ms),
            next: AtomicU64::new(0),
            first: RwLock::default(),
            accepted: RwLock::default(),
            news: Notify::new(),
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

    /// How long after a majority has last accepted a request this replica may answer reads, where it leads.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.shortest_ms.load(Ordering::Acquire).into())
    }

    /// For a request of the leader of a term that is about to be sent.
    pub(crate) fn stamp(&self, term: u64, now: Moment) -> Stamp {
        let stamp = Stamp {
            term,
            number: self.next.fetch_add(1, Ordering::SeqCst),
            at: now.at,
            wall_ms: now.wall_ms,
        };
        if self.asked_since(term).is_none() {
            let mut first = self.first.write();
            if first.is_none_or(|first| first.term < term) {
                *first = Some(stamp);
            }
        }
        stamp
    }

    /// Since when the leader of a term, or of a later one, has asked its peers for anything; `None` before it has.
    pub(crate) fn asked_since(&self, term: u64) -> Option<Instant> {
        let first = *self.first.read();
        first
            .filter(|first| first.term >= term)
            .map(|first| first.at)
    }

    /// The number from which on requests have not been stamped yet.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// A peer has just said that it accepted the request that was stamped so: it followed its leader at some moment since.
    pub(crate) fn accepted(&self, peer: u64, stamp: Stamp, now: Instant) {
        let mut accepted = self.accepted.write();
        let newest = accepted.entry(peer).or_insert(Accepted {
            stamp,
            heard_at: now,
        });
        if newest.stamp.term <= stamp.term {
            newest.heard_at = now;
        }
        if (newest.stamp.term, newest.stamp.number) < (stamp.term, stamp.number) {
            newest.stamp = stamp;
        }
        drop(accepted);
        self.news.notify_waiters();
    }

    /// Ends when a peer has accepted a request after this call.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether, in each of some sets of voters, a majority has accepted a request of a term that is `recent`; the leader itself is one of
    /// them, where it votes.
    pub(crate) fn has_majority(
        &self,
        configs: &[BTreeSet<u64>],
        leader: u64,
        term: u64,
        recent: impl Fn(&Stamp) -> bool,
    ) -> bool {
        self.majority(configs, leader, term, |at| recent(&at.stamp))
    }

    /// The same by when the answers came, and not by when what they answer was sent. It says that peers are there, and
    /// nothing of a lease.
    pub(crate) fn hears_majority(
        &self,
        configs: &[BTreeSet<u64>],
        leader: u64,
        term: u64,
        recent: impl Fn(Instant) -> bool,
    ) -> bool {
        self.majority(configs, leader, term, |at| recent(at.heard_at))
    }

    fn majority(
        &self,
        configs: &[BTreeSet<u64>],
        leader: u64,
        term: u64,
        counts: impl Fn(&Accepted) -> bool,
    ) -> bool {
        // Who votes alone is asked by every read: without a lock.
        let is_alone = |voters: &BTreeSet<u64>| voters.len() == 1 && voters.contains(&leader);
        if !configs.is_empty() && configs.iter().all(is_alone) {
            return true;
        }
        let accepted = self.accepted.read();
        let follows = |voter: &&u64| {
            let its = accepted.get(*voter);
            **voter == leader || its.is_some_and(|at| at.stamp.term == term && counts(at))
        };
        let is_majority =
            |voters: &BTreeSet<u64>| voters.iter().filter(follows).count() > voters.len() / 2;
        !configs.is_empty() && configs.iter().all(is_majority)
    }

    /// Since when a majority is not known to have followed; `None` where it never was, or where the leader is alone.
    pub(crate) fn majority_at(
        &self,
        configs: &[BTreeSet<u64>],
        leader: u64,
        term: u64,
    ) -> Option<Instant> {
        let moments: BTreeSet<Instant> = {
            let accepted = self.accepted.read();
            let stamps = accepted.values().map(|at| at.stamp);
            let of_term = stamps.filter(|stamp| stamp.term == term);
            of_term.map(|stamp| stamp.at).collect()
        };
        let has = |at: &Instant| self.has_majority(configs, leader, term, |stamp| stamp.at >= *at);
        moments.into_iter().rev().find(has)
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

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    /// By clocks that agree.
    fn moment(ms: u64) -> Moment {
        Moment {
            at: at(ms),
            wall_ms: 1_000_000 + ms.cast_signed(),
        }
    }

    #[test]
    fn a_request_is_as_old_as_the_clock_says_that_went_further_since() {
        let sent = Grants::new(Duration::from_millis(450)).stamp(1, moment(10));
        let age = |ms: u64, wall_ahead_ms: i64| {
            let Moment { at, wall_ms } = moment(ms);
            let wall_ms = wall_ms + wall_ahead_ms;
            sent.age(&Moment { at, wall_ms }).as_millis()
        };
        assert_eq!(age(10, 0), 0);
        assert_eq!(age(40, 0), 30);
        assert_eq!(age(40, 10_000), 10_030, "the machine has slept");
        assert_eq!(age(40, -3_600_000), 30, "its wall clock was set back");
        assert_eq!(age(5, -10), 0, "it was sent later than this was taken");
        // What is sent after the sleep is young again.
        let Moment { at, wall_ms } = moment(50);
        let awake = Moment {
            at,
            wall_ms: wall_ms + 10_000,
        };
        let grants = Grants::new(Duration::from_millis(450));
        assert_eq!(grants.stamp(1, awake).age(&awake), Duration::ZERO);
    }

    fn set(voters: &[u64]) -> BTreeSet<u64> {
        voters.iter().copied().collect()
    }

    #[test]
    fn a_majority_is_known_as_of_what_it_has_accepted() {
        let grants = Grants::new(Duration::from_millis(450));
        let configs = [set(&[1, 2, 3])];
        let known = |grants: &Grants, term| grants.majority_at(&configs, 1, term);
        let first = grants.stamp(7, moment(10));
        let second = grants.stamp(7, moment(20));
        assert_eq!(known(&grants, 7), None);
        grants.accepted(2, first, at(50));
        assert_eq!(known(&grants, 7), Some(at(10)));
        grants.accepted(3, second, at(50));
        assert_eq!(known(&grants, 7), Some(at(20)));
        // An answer that was held up makes nothing older.
        grants.accepted(3, first, at(50));
        assert_eq!(known(&grants, 7), Some(at(20)));
        // One term's followers are not the next one's, nor are an old term's answers.
        assert_eq!(known(&grants, 8), None);
        grants.accepted(2, grants.stamp(8, moment(30)), at(50));
        grants.accepted(2, second, at(50));
        assert_eq!(known(&grants, 8), Some(at(30)));
        assert_eq!(known(&grants, 7), Some(at(20)));
    }

    #[test]
    fn a_request_is_later_than_a_mark_by_its_number_where_the_clock_stands_still() {
        let grants = Grants::new(Duration::from_millis(450));
        let configs = [set(&[1, 2])];
        let before = grants.stamp(1, moment(10));
        let mark = grants.next();
        let after = grants.stamp(1, moment(10));
        let confirmed =
            |grants: &Grants| grants.has_majority(&configs, 1, 1, |stamp| stamp.number >= mark);
        grants.accepted(2, before, at(50));
        assert!(!confirmed(&grants));
        grants.accepted(2, after, at(50));
        assert!(confirmed(&grants));
    }

    #[test]
    fn peers_are_there_by_when_they_answer_and_followed_by_when_they_were_asked() {
        let grants = Grants::new(Duration::from_millis(450));
        let voters = [set(&[1, 2, 3])];
        let hears = |since| grants.hears_majority(&voters, 1, 4, |heard| heard >= at(since));
        // Its disk is slow: the answer comes long after.
        let asked = grants.stamp(4, moment(10));
        grants.accepted(2, asked, at(300));
        assert!(!grants.has_majority(&voters, 1, 4, |stamp| stamp.at >= at(11)));
        assert!(hears(300) && !hears(301));
        // What comes late still says that somebody is there.
        grants.accepted(2, grants.stamp(4, moment(20)), at(400));
        grants.accepted(2, asked, at(500));
        assert!(hears(500));
        // Of another term it says nothing.
        grants.accepted(2, grants.stamp(3, moment(30)), at(600));
        assert!(!hears(501));
        assert!(!grants.hears_majority(&voters, 1, 5, |_| true));
    }

    #[test]
    fn a_leader_asks_since_the_first_request_of_its_term() {
        let grants = Grants::new(Duration::from_millis(450));
        assert_eq!(grants.asked_since(1), None);
        grants.stamp(2, moment(5));
        grants.stamp(2, moment(6));
        assert_eq!(grants.asked_since(2), Some(at(5)));
        assert_eq!(grants.asked_since(3), None);
        grants.stamp(3, moment(7));
        grants.stamp(2, moment(8));
        assert_eq!(grants.asked_since(3), Some(at(7)));
    }

    #[test]
    fn while_members_change_both_sets_must_follow_and_a_leader_without_a_vote_counts_for_nothing() {
        let grants = Grants::new(Duration::from_millis(450));
        let recent = |_: &Stamp| true;
        let joint = [set(&[1, 2, 3]), set(&[1, 4, 5])];
        grants.accepted(2, grants.stamp(1, moment(1)), at(50));
        assert!(!grants.has_majority(&joint, 1, 1, recent));
        grants.accepted(5, grants.stamp(1, moment(2)), at(50));
        assert!(grants.has_majority(&joint, 1, 1, recent));
        assert!(!grants.has_majority(&joint, 9, 1, recent));
        assert!(!grants.has_majority(&[], 1, 1, recent));
        assert!(grants.has_majority(&[set(&[1])], 1, 1, recent));
    }
}
