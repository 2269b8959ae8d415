//! Iteration for users of the crate.

use crate::cursor::Cursor;
use crate::entry::Entry;

/// Terms in ascending byte order; made by [`Dictionary::iter_from`](crate::Dictionary::iter_from).
pub struct Iter<'a> {
    /// `None` once a term without the prefix was met.
    cursor: Option<Cursor<'a>>,
    prefix: Vec<u8>,
}

impl<'a> Iter<'a> {
    pub(crate) fn new(cursor: Cursor<'a>, prefix: &[u8]) -> Self {
        Self {
            cursor: Some(cursor),
            prefix: prefix.to_vec(),
        }
    }
}

impl std::fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Iterator for Iter<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (term, count, display) = self.cursor.as_mut()?.next_coded()?;
        if !term.starts_with(&self.prefix) {
            self.cursor = None;
            return None;
        }
        Some(Entry {
            term: term.to_vec(),
            count,
            display: display.map(|display| display.of(term)),
        })
    }
}

impl std::iter::FusedIterator for Iter<'_> {}
