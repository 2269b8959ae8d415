//! Hashing a state, in one go or a piece at a time.

use std::borrow::Borrow;

use cluster::NamespaceId;
use trie_core::Entry;

use super::StateView;
use super::walk::{Visitor, Walk};
use crate::state::Space;

/// A view that is being hashed.
#[derive(Debug)]
pub struct Hashing<V = StateView> {
    view: V,
    hasher: Hasher,
    walk: Walk,
}

#[derive(Debug, Default)]
struct Hasher(blake3::Hasher);

impl Visitor for Hasher {
    fn space(&mut self, id: NamespaceId, space: &Space) {
        self.0.update(&id.0.to_le_bytes());
        self.0.update(&space.generation.0.to_le_bytes());
        self.0.update(&space.dictionary.len().to_le_bytes());
    }

    fn term(&mut self, entry: Entry) {
        let display = entry.display.as_deref().unwrap_or_default();
        self.0.update(&(entry.term.len() as u32).to_le_bytes());
        self.0.update(&entry.term);
        self.0.update(&entry.count.to_le_bytes());
        self.0.update(&(display.len() as u32).to_le_bytes());
        self.0.update(display);
    }
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
            hasher: Hasher::default(),
            walk: Walk::default(),
        }
    }

    /// Goes on with at most so many terms, at least one. The hash, once all is done.
    pub fn step(&mut self, terms: usize) -> Option<[u8; 32]> {
        let view: &StateView = self.view.borrow();
        if self.walk.step(view, terms, &mut self.hasher) {
            return None;
        }
        let mut table = Vec::new();
        view.repeats.encode(&mut table);
        self.hasher.0.update(&table);
        Some(*self.hasher.0.finalize().as_bytes())
    }
}
