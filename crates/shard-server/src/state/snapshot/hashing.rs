//! Hashing a state, in one go or a piece at a time.

use std::borrow::Borrow;
use std::ops::Bound;

use cluster::NamespaceId;

use super::StateView;

/// A view that is being hashed.
#[derive(Debug)]
pub struct Hashing<V = StateView> {
    view: V,
    hasher: blake3::Hasher,
    /// Where to go on: in which namespace, and behind which of its terms.
    at: Option<(NamespaceId, Option<Vec<u8>>)>,
    /// The namespace that was begun last.
    begun: Option<NamespaceId>,
}

impl StateView {
    /// Begins to hash the replicated content: namespaces with their generations, then keys, counts and display forms in key order, then
    /// the repeat table. Equal on replicas that applied the same entries, however their memory is laid out.
    #[must_use]
    pub fn hashing(self) -> Hashing {
        Hashing::of(self)
    }

    /// The hash that [`StateView::hashing`] comes to.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hashing = Hashing::of(self);
        loop {
            if let Some(hash) = hashing.step(usize::MAX) {
                return hash;
            }
        }
    }
}

impl<V: Borrow<StateView>> Hashing<V> {
    fn of(view: V) -> Self {
        Self {
            view,
            hasher: blake3::Hasher::new(),
            at: None,
            begun: None,
        }
    }

    /// Goes on with at most so many terms, at least one. The hash, once all is done.
    pub fn step(&mut self, terms: usize) -> Option<[u8; 32]> {
        let Some((id, after)) = self.at.take().or_else(|| self.next_namespace()) else {
            let mut table = Vec::new();
            let view: &StateView = self.view.borrow();
            view.repeats.encode(&mut table);
            self.hasher.update(&table);
            return Some(*self.hasher.finalize().as_bytes());
        };
        let view: &StateView = self.view.borrow();
        let space = view.spaces.get(&id)?;
        let mut last = None;
        let entries = space.dictionary.iter_from(b"", after.as_deref());
        for entry in entries.take(terms.max(1)) {
            let display = entry.display.as_deref().unwrap_or_default();
            self.hasher.update(&(entry.term.len() as u32).to_le_bytes());
            self.hasher.update(&entry.term);
            self.hasher.update(&entry.count.to_le_bytes());
            self.hasher.update(&(display.len() as u32).to_le_bytes());
            self.hasher.update(display);
            last = Some(entry.term);
        }
        // None left: the next step is for the next namespace.
        self.at = last.map(|term| (id, Some(term)));
        None
    }

    fn next_namespace(&mut self) -> Option<(NamespaceId, Option<Vec<u8>>)> {
        let from = self.begun.map_or(Bound::Unbounded, Bound::Excluded);
        let view: &StateView = self.view.borrow();
        let (id, space) = view.spaces.range((from, Bound::Unbounded)).next()?;
        self.hasher.update(&id.0.to_le_bytes());
        self.hasher.update(&space.generation.0.to_le_bytes());
        self.hasher.update(&space.dictionary.len().to_le_bytes());
        self.begun = Some(*id);
        Some((*id, None))
    }
}
