//! What a client's token stands for: what the answers have shown that it was made of. A later read that brings it must show that, too,
//! whatever its level and whoever answers it.
//!
//! Only answers that give a token count: those to records and deletions, and completions. GetCount gives none, and a clear none, so
//! that of what they tell nothing follows for a STALE read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Key, Oracle, added};

/// Increments that a count has room for.
const PLACES: usize = 32;

/// What the answers have shown that a client's token was made of.
#[derive(Debug, Default)]
pub(crate) struct Shown(BTreeMap<Key, Places>);

/// Which of a term's increments they have shown.
#[derive(Debug, Default)]
struct Places {
    there: BTreeSet<usize>,
    /// They were there, and later were not: each is applied once, so that none comes back.
    gone: BTreeSet<usize>,
}

/// Whether a count has an increment in it.
fn has(count: u64, place: usize) -> bool {
    count >> (2 * place) & 3 != 0
}

impl Shown {
    /// An answer to a write, which gave a token, told the count of a term.
    pub(crate) fn add(&mut self, key: &Key, count: u64) {
        let Places { there, gone } = self.0.entry(key.clone()).or_default();
        let seen = (0..PLACES).filter(|place| has(count, *place));
        there.extend(seen.filter(|place| !gone.contains(place)));
    }

    /// A deletion of a term was acknowledged, and gave a token: what had been shown before it was issued is gone.
    pub(crate) fn delete(&mut self, key: &Key) {
        if let Some(Places { there, gone }) = self.0.get_mut(key) {
            gone.append(there);
        }
    }

    /// The terms below a prefix that something was shown of.
    pub(crate) fn below(&self, namespace: &str, prefix: &str) -> Vec<Key> {
        let below = |key: &&Key| key.namespace == namespace && key.term.starts_with(prefix);
        self.0.keys().filter(below).cloned().collect()
    }
}

impl Oracle {
    /// A count was read with the token of a client.
    pub(crate) fn carried(&mut self, key: &Key, count: u64, shown: &Shown, now: Duration) {
        let Some(Places { there, gone }) = shown.0.get(key) else {
            return;
        };
        let missing = there.iter().filter(|place| !has(count, **place));
        let lost = missing.filter(|place| self.ends_of(key, **place).is_empty());
        let lost = lost.map(|place| {
            format!("#{place} is missing for the client to whom it was shown with its token")
        });
        let back = gone.iter().filter(|place| has(count, **place));
        let back = back.map(|place| {
            format!(
                "#{place} is there again for the client to whom its end was shown with its token"
            )
        });
        let faults: Vec<String> = lost.chain(back).collect();
        for fault in faults {
            self.violate(now, &format!("{key} = {count:#x}: {fault}"));
        }
    }

    /// The same of an answer that gave a token, too: later reads must show what it shows.
    pub(crate) fn carried_on(&mut self, key: &Key, count: u64, shown: &mut Shown, now: Duration) {
        self.carried(key, count, shown, now);
        if let Some(Places { there, gone }) = shown.0.get_mut(key) {
            // A clear is known to coordinators before it is in the log, which is what tokens are positions of.
            let is_over = |place: &usize| {
                let ends = self.ends_of(key, *place);
                !ends.is_empty() && ends.iter().all(|is_of_term| *is_of_term)
            };
            let missing = there.iter().copied().filter(|place| !has(count, *place));
            let over: BTreeSet<usize> = missing.filter(is_over).collect();
            there.retain(|place| !over.contains(place));
            gone.extend(over);
        }
        shown.add(key, count);
    }

    /// The least that the count of a term is for a client that was shown something of it with its token.
    pub(super) fn owed(&self, key: &Key, shown: &Shown) -> u64 {
        let there = shown.0.get(key).into_iter();
        let there = there.flat_map(|places| places.there.iter().copied());
        let owed = there.filter(|place| self.ends_of(key, *place).is_empty());
        owed.map(added).sum()
    }

    /// The wipes that may have taken an increment away, by whether they are of its term alone. Of one that nobody issued nothing is said.
    fn ends_of(&self, key: &Key, place: usize) -> Vec<bool> {
        let increments = self.terms.get(key).map_or(&[][..], Vec::as_slice);
        let Some(increment) = increments.get(place) else {
            return vec![false];
        };
        let suffered = self.suffered(key, None).into_iter();
        let excuses = suffered.filter(|wipe| wipe.excuses(increment));
        excuses.map(|wipe| wipe.is_of_term).collect()
    }
}
