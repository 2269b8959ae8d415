//! Whose copies make an entry committed, and whose votes a leader: the voters that the entries of the log themselves name.
//!
//! An entry determines all that stand before it, and so the voters that were named last. They are known of an entry once a log was seen to hold
//! it next to one that they are known of. Of others nothing is known but how many replicas a group begins with: a majority of that number
//! counts then, on whichever disks.
//!
//! A leader counts by the voters that its log names last, which may stand behind the entry that is committed. It names others only when the ones
//! before are committed: two sets in place of one, of which it is the first, and then one of the two, or the second with another one.
//! So what is committed where one set was named last has a majority of it, the entry that names two sets has a majority of both, and what
//! stands behind that one has a majority of either: more cannot be said of it, as nobody may have written the next set yet.
//!
//! Who wins has the votes of the voters that its log names last; or those of a later entry, where it has a snapshot and its log does not yet say so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::NodeId;

use super::{GroupLog, Key};

/// The sets of voters that were named last, and the index at which they were.
#[derive(Debug, Clone)]
pub(super) struct Voters {
    sets: Arc<[BTreeSet<NodeId>]>,
    named_at: u64,
}

impl Voters {
    /// Whether the entry of an index may be committed if these nodes have it.
    pub(super) fn may_commit(&self, index: u64, nodes: &BTreeSet<NodeId>) -> bool {
        if index == self.named_at {
            return self.agree(nodes);
        }
        self.sets.iter().any(|set| is_majority(set, nodes))
    }

    /// Whether these nodes are a majority of each set.
    fn agree(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.sets.iter().all(|set| is_majority(set, nodes))
    }
}

fn is_majority(set: &BTreeSet<NodeId>, nodes: &BTreeSet<NodeId>) -> bool {
    set.intersection(nodes).count() > set.len() / 2
}

/// The voters of all entries of which they are known, by index and term.
#[derive(Debug, Default)]
pub(super) struct Memberships(BTreeMap<(Key, u64, u64), Voters>);

impl Memberships {
    /// An entry was written behind one of this term, if anything is known of what stands before it. It may name voters itself.
    pub(super) fn note(
        &mut self,
        (group, index, term): (Key, u64, u64),
        before: Option<u64>,
        named: Option<Vec<BTreeSet<NodeId>>>,
    ) {
        let named = named.map(|sets| Voters {
            sets: sets.into(),
            named_at: index,
        });
        let inherited = || self.of(group, index.checked_sub(1)?, before?).cloned();
        if let Some(voters) = named.or_else(inherited) {
            self.0.entry((group, index, term)).or_insert(voters);
        }
    }

    /// The voters by whom an entry is committed, as far as they are known.
    pub(super) fn of(&self, group: Key, index: u64, term: u64) -> Option<&Voters> {
        self.0.get(&(group, index, term))
    }

    /// Whether a node whose log ends with an entry may be elected by others, as far as its voters are known.
    pub(super) fn may_elect(
        &self,
        (group, index, term): (Key, u64, u64),
        nodes: &BTreeSet<NodeId>,
    ) -> Option<bool> {
        let last = self.of(group, index, term)?;
        let later = (group, index.saturating_add(1), 0)..=(group, u64::MAX, u64::MAX);
        let mut later = self.0.range(later);
        let may = later.any(|((_, at, _), voters)| voters.named_at == *at && voters.agree(nodes));
        Some(last.agree(nodes) || may)
    }
}

impl GroupLog {
    /// The index and the term of the last entry, if that is known.
    pub(super) fn last(&self) -> Option<(u64, u64)> {
        let held = self.entries.last_key_value();
        let held = held.map(|(index, held)| (*index, held.term));
        held.or(self.purged.filter(|(index, _)| index + 1 == self.floor))
    }

    /// The term of the entry before an index.
    pub(super) fn term_before(&self, index: u64) -> Option<u64> {
        let before = index.checked_sub(1)?;
        let purged = self.purged.filter(|(index, _)| *index == before);
        let held = self.entries.get(&before).map(|held| held.term);
        held.or(purged.map(|(_, term)| term))
    }
}
