//! Completions: the first k terms below a prefix, and what follows for the terms that are not among them.
//!
//! A list that is not full is whole: what is not in it has the count 0. Of one that is full, whatever shard a term belongs to and at
//! whatever moment that was read, follows of every other term that it ranks behind the last one of the list. So its count is not told,
//! and it may have gone or not; but by what must be in it ([`Oracle::least`]) it must not rank before that one.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::{Asked, Key, Oracle, Shown, added};

/// Completions as they were asked for, and when.
#[derive(Debug)]
pub(crate) struct Top<'a> {
    pub(crate) namespace: &'static str,
    pub(crate) prefix: &'a str,
    /// How many, 1 at least.
    pub(crate) k: usize,
    pub(crate) asked: Asked,
    pub(crate) began: Duration,
    pub(crate) now: Duration,
}

impl Top<'_> {
    fn key(&self, term: &str) -> Key {
        let (namespace, term) = (self.namespace, term.to_owned());
        Key { namespace, term }
    }
}

/// Where a term stands: by its count, descending, then by its bytes.
fn rank(term: &str, count: u64) -> (Reverse<u64>, &str) {
    (Reverse(count), term)
}

impl Oracle {
    /// Completions were answered with these terms and counts, in this order, to a client that had brought its token, and was given another
    /// one. `is_whole` if no shard is missing.
    pub(crate) fn completed(
        &mut self,
        top: &Top<'_>,
        found: &[(String, u64)],
        is_whole: bool,
        shown: &mut Shown,
    ) {
        self.is_a_list(top, found);
        for (term, count) in found {
            let key = top.key(term);
            self.read(&key, *count, top.asked, top.began, top.now);
            self.carried_on(&key, *count, shown, top.now);
        }
        if !is_whole {
            return;
        }
        let terms: Vec<String> = found.iter().map(|(term, _)| term.clone()).collect();
        if let Some((last, count)) = found.last().filter(|_| found.len() >= top.k) {
            return self.cut_off(top, &terms, (last.as_str(), *count), shown);
        }
        let below = (top.namespace, top.prefix);
        self.absent(below, &terms, top.asked, top.began, top.now);
        let listed: BTreeSet<&String> = terms.iter().collect();
        let mut known = shown.below(top.namespace, top.prefix);
        known.retain(|key| !listed.contains(&key.term));
        for key in known {
            self.carried_on(&key, 0, shown, top.now);
        }
    }

    /// At most as many terms as were asked for, each below the prefix and once, in the one order.
    fn is_a_list(&mut self, top: &Top<'_>, found: &[(String, u64)]) {
        let (len, k, now) = (found.len(), top.k, top.now);
        if len > k {
            self.violate(now, &format!("{len} completions where {k} were asked for"));
        }
        let is_before = |one: &(String, u64), other: &(String, u64)| {
            rank(&one.0, one.1) < rank(&other.0, other.1)
        };
        if !found.is_sorted_by(is_before) {
            self.violate(now, "completions are not in order");
        }
        let terms: BTreeSet<&String> = found.iter().map(|(term, _)| term).collect();
        if terms.len() < len {
            self.violate(now, "a term is twice among completions");
        }
        let is_elsewhere = |term: &&&String| !term.starts_with(top.prefix);
        if let Some(term) = terms.iter().find(is_elsewhere) {
            let text = format!("{term} is a completion of {:?}", top.prefix);
            self.violate(now, &text);
        }
    }

    /// A list was full: no term that is not in it ranks before the last one.
    fn cut_off(
        &mut self,
        top: &Top<'_>,
        terms: &[String],
        (last, count): (&str, u64),
        shown: &Shown,
    ) {
        let source = top.asked.level.as_str_name();
        for key in self.missing((top.namespace, top.prefix), terms) {
            let must_see = self.due(&key, top.asked, top.began, top.now);
            // Each increment has a digit of its own, so that what must be there for either reason is what is in one of the two.
            let least = self.least(&key, must_see) | self.owed(&key, shown);
            if least > 0 && rank(&key.term, least) < rank(last, count) {
                let list = format!("{} completions that end with {last} = {count:#x}", top.k);
                let text = format!("{key} is {least:#x} or more, and not in {list} ({source})");
                self.violate(top.now, &text);
            }
        }
    }

    /// The least that the count of a term is in an answer that must show what was visible before a time: what no wipe can have taken.
    fn least(&self, key: &Key, must_see: Option<Duration>) -> u64 {
        let suffered = self.suffered(key, None);
        let increments = self.terms.get(key).into_iter().flatten().enumerate();
        let stays = increments.filter(|(_, increment)| {
            increment.due(must_see).is_some()
                && !suffered.iter().any(|wipe| wipe.excuses(increment))
        });
        stays.map(|(place, _)| added(place)).sum()
    }
}
