//! Which snapshots are on their way to whom. The log behind one is kept until its receiver has it, for that is where it goes on.
//!
//! Two newer generations would let go of that log. Whoever takes longer to take a snapshot in than the leader takes to write two more
//! would find it gone, be sent the newest snapshot from its first byte, and never catch up while writes go on.
//!
//! What always holds: a snapshot counts from before it is offered until its receiver is known to have it, until another one is sent
//! to the same member, or until its sender's term is over. Where the receiver goes on from it is then known to openraft, which keeps the log
//! for those that it streams entries to. How much of the log may be held back so is for whoever cuts it to say.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The snapshots that a leader sends.
#[derive(Debug, Default)]
pub(crate) struct Sendings(Mutex<OfTerm>);

#[derive(Debug, Default)]
struct OfTerm {
    term: u64,
    /// The index of the snapshot that was sent to each member last.
    indices: BTreeMap<u64, u64>,
}

impl Sendings {
    /// The leader of a term begins to send a member the snapshot of an index.
    pub(super) fn begin(&self, member: u64, term: u64, index: u64) {
        let mut sent = self.0.lock();
        if sent.term < term {
            *sent = OfTerm {
                term,
                indices: BTreeMap::new(),
            };
        }
        if sent.term == term {
            sent.indices.insert(member, index);
        }
    }

    /// Whether the leader of a term has sent a member a snapshot, or has begun to.
    pub(crate) fn have_begun(&self, term: u64, member: u64) -> bool {
        let sent = self.0.lock();
        sent.term == term && sent.indices.contains_key(&member)
    }

    /// The members that the leader of a term is sending a snapshot, and its index: those that lack what it holds.
    pub(crate) fn under_way(
        &self,
        term: u64,
        lacks: impl Fn(u64, u64) -> bool,
    ) -> BTreeMap<u64, u64> {
        let sent = self.0.lock();
        let of_term = sent.indices.iter().filter(|_| sent.term == term);
        let of_term = of_term.map(|(member, index)| (*member, *index));
        of_term
            .filter(|(member, index)| lacks(*member, *index))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_under_way_until_its_receiver_has_it_and_its_sender_leads_no_more() {
        let sendings = Sendings::default();
        let under_way = |term, matched: &[(u64, u64)]| {
            let matched: BTreeMap<u64, u64> = matched.iter().copied().collect();
            let lacks =
                |member: u64, index: u64| matched.get(&member).is_some_and(|at| *at < index);
            let found = sendings.under_way(term, lacks);
            found.into_iter().collect::<Vec<_>>()
        };
        sendings.begin(2, 5, 100);
        sendings.begin(3, 5, 120);
        assert_eq!(under_way(5, &[(2, 99), (3, 0)]), [(2, 100), (3, 120)]);
        assert_eq!(under_way(5, &[(2, 100), (3, 0)]), [(3, 120)]);
        assert_eq!(under_way(5, &[(2, 0)]), [(2, 100)], "it is no member");
        // It broke off, and another one took its place.
        sendings.begin(2, 5, 140);
        assert_eq!(under_way(5, &[(2, 139)]), [(2, 140)]);
        assert!(under_way(6, &[(2, 0), (3, 0)]).is_empty());
        sendings.begin(3, 6, 160);
        // A task of an earlier lead that is late.
        sendings.begin(2, 5, 140);
        assert_eq!(under_way(6, &[(2, 0), (3, 0)]), [(3, 160)]);
        assert!(under_way(5, &[(2, 0), (3, 0)]).is_empty());
        assert!(sendings.have_begun(6, 3));
        assert!(!sendings.have_begun(6, 2) && !sendings.have_begun(5, 3));
    }
}
