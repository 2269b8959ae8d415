//! A term as it is handed out.

use std::cmp::Ordering;

use crate::order::compare;

/// A term with its exact count and, where one is kept, its display form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The key, as it was recorded.
    pub term: Vec<u8>,
    /// The exact count; never zero.
    pub count: u64,
    /// The form to show people; `None` where it equals `term`.
    pub display: Option<Vec<u8>>,
}

impl Entry {
    /// Ranks two entries by [`compare`]: `Less` stands first in an answer.
    #[must_use]
    pub fn cmp_rank(&self, other: &Self) -> Ordering {
        compare((self.count, &self.term), (other.count, &other.term))
    }

    /// The form to show people: the display form if there is one, else the term.
    #[must_use]
    pub fn shown(&self) -> &[u8] {
        self.display.as_deref().unwrap_or(&self.term)
    }
}
