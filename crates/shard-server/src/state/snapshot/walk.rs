//! Walking over all terms of a view, a piece at a time.

use std::ops::Bound;

use cluster::NamespaceId;
use trie_core::Entry;

use super::StateView;
use crate::state::Space;

/// What is done with what a walk comes by.
pub(in crate::state) trait Visitor {
    /// A namespace begins; its terms follow.
    fn space(&mut self, id: NamespaceId, space: &Space);
    /// The next term of the namespace that was begun last.
    fn term(&mut self, entry: Entry);
}

/// A place in the order of namespaces, and of terms within each.
#[derive(Debug, Default)]
pub(in crate::state) struct Walk {
    /// Where to go on: in which namespace, and behind which of its terms.
    at: Option<(NamespaceId, Option<Vec<u8>>)>,
    /// The namespace that was begun last.
    begun: Option<NamespaceId>,
}

impl Walk {
    /// Goes on by at most so many terms, at least one. False once everything was visited.
    pub(in crate::state) fn step(
        &mut self,
        view: &StateView,
        terms: usize,
        visitor: &mut impl Visitor,
    ) -> bool {
        let Some((id, after)) = self.at.take().or_else(|| self.next_space(view, visitor)) else {
            return false;
        };
        let Some(space) = view.spaces.get(&id) else {
            return false;
        };
        let mut last = None;
        let entries = space.dictionary.iter_from(b"", after.as_deref());
        for entry in entries.take(terms.max(1)) {
            last = Some(entry.term.clone());
            visitor.term(entry);
        }
        // None left: the next step is for the next namespace.
        self.at = last.map(|term| (id, Some(term)));
        true
    }

    fn next_space(
        &mut self,
        view: &StateView,
        visitor: &mut impl Visitor,
    ) -> Option<(NamespaceId, Option<Vec<u8>>)> {
        let from = self.begun.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, space) = view.spaces.range((from, Bound::Unbounded)).next()?;
        visitor.space(*id, space);
        self.begun = Some(*id);
        Some((*id, None))
    }
}
