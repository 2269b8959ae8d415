//! The one order in which suggestions stand, everywhere.

use std::cmp::Ordering;

/// Ranks two terms with their counts: the higher count first, equal counts in ascending byte order.
///
/// `Less` means that `a` stands before `b` in an answer. The order is total over distinct terms,
/// so a top-K list has exactly one right content. Whoever merges or checks answers calls this
/// function and does not write the rule down a second time.
///
/// ```
/// use std::cmp::Ordering;
/// assert_eq!(trie_core::compare((7, b"b"), (5, b"a")), Ordering::Less);
/// assert_eq!(trie_core::compare((5, b"a"), (5, b"b")), Ordering::Less);
/// ```
#[must_use]
pub fn compare(a: (u64, &[u8]), b: (u64, &[u8])) -> Ordering {
    b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1))
}
