//! Finding the rarest terms of a state, to be given up where it has outgrown its budget.
//!
//! Two walks over a frozen view, a piece at a time: the first adds up what the terms of each count weigh, which tells the highest
//! count that has to go; the second picks the terms. Among terms of that count those that come first in byte order go. Memory is
//! bounded: counts beyond the ones that weigh enough are dropped as soon as that is known.

use std::collections::BTreeMap;

use cluster::{Generation, NamespaceId};
use trie_core::Entry;

use super::snapshot::{Visitor, Walk};
use super::{Space, StateView, term_weight};

/// Terms of one namespace that are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rare {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Its generation when they were picked.
    pub generation: Generation,
    /// A term goes if its count is no higher when the command is applied.
    pub count_max: u64,
    /// The terms, in byte order.
    pub terms: Vec<Vec<u8>>,
}

/// A search for the rarest terms.
#[derive(Debug)]
pub struct Rarest {
    view: StateView,
    walk: Walk,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Weighing(Weighing),
    Picking(Picking),
}

/// What terms weigh together, by their count.
#[derive(Debug)]
struct Weighing {
    wanted: u64,
    by_count: BTreeMap<u64, u64>,
    sum: u64,
}

/// Which terms go.
#[derive(Debug)]
struct Picking {
    count_max: u64,
    /// Logical bytes of terms of exactly that count that still have to go.
    left_at_max: u64,
    at: Option<(NamespaceId, Generation)>,
    picked: Vec<Rare>,
}

impl StateView {
    /// Begins to look for the rarest terms that together weigh so many logical bytes.
    #[must_use]
    pub fn rarest(self, wanted: u64) -> Rarest {
        Rarest {
            view: self,
            walk: Walk::default(),
            phase: Phase::Weighing(Weighing {
                wanted,
                by_count: BTreeMap::new(),
                sum: 0,
            }),
        }
    }
}

impl Rarest {
    /// Goes on with at most so many terms, at least one. What was picked among them; `None` once all were looked at.
    pub fn step(&mut self, terms: usize) -> Option<Vec<Rare>> {
        match &mut self.phase {
            Phase::Weighing(weighing) => {
                if !self.walk.step(&self.view, terms, weighing) {
                    self.phase = Phase::Picking(weighing.conclude());
                    self.walk = Walk::default();
                }
                Some(Vec::new())
            }
            Phase::Picking(picking) => {
                let goes_on = self.walk.step(&self.view, terms, picking);
                goes_on.then(|| std::mem::take(&mut picking.picked))
            }
        }
    }
}

impl Weighing {
    fn conclude(&self) -> Picking {
        let (count_max, of_it) = self
            .by_count
            .last_key_value()
            .map_or((0, 0), |(c, w)| (*c, *w));
        Picking {
            count_max,
            left_at_max: self.wanted.saturating_sub(self.sum - of_it),
            at: None,
            picked: Vec::new(),
        }
    }
}

impl Visitor for Weighing {
    fn space(&mut self, _id: NamespaceId, _space: &Space) {}

    fn term(&mut self, entry: Entry) {
        let enough = self.sum >= self.wanted;
        let highest = self.by_count.last_key_value().map(|(count, _)| *count);
        if enough && highest.is_none_or(|highest| entry.count > highest) {
            return;
        }
        let weight = term_weight(&entry);
        *self.by_count.entry(entry.count).or_default() += weight;
        self.sum += weight;
        while let Some(highest) = self.by_count.last_entry() {
            if self.sum - highest.get() < self.wanted {
                break;
            }
            self.sum -= highest.remove();
        }
    }
}

impl Visitor for Picking {
    fn space(&mut self, id: NamespaceId, space: &Space) {
        self.at = Some((id, space.generation));
    }

    fn term(&mut self, entry: Entry) {
        if entry.count > self.count_max {
            return;
        }
        if entry.count == self.count_max {
            if self.left_at_max == 0 {
                return;
            }
            self.left_at_max = self.left_at_max.saturating_sub(term_weight(&entry));
        }
        let Some((namespace, generation)) = self.at else {
            return;
        };
        match self
            .picked
            .last_mut()
            .filter(|at| at.namespace == namespace)
        {
            Some(rare) => rare.terms.push(entry.term),
            None => self.picked.push(Rare {
                namespace,
                generation,
                count_max: self.count_max,
                terms: vec![entry.term],
            }),
        }
    }
}
