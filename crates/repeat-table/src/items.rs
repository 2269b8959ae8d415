//! Which items of a batch were applied.

use std::sync::Arc;

use crate::RememberError;

/// Most items in a batch, hence the first item number that is refused.
pub const ITEMS_MAX: u32 = 1000;

pub(crate) const WORDS_MAX: usize = ITEMS_MAX.div_ceil(64) as usize;

/// A set of item numbers below [`ITEMS_MAX`]. Cheap to clone. The first 64 items, and so most batches, take no memory of their
/// own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedItems(Bits);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bits {
    One(u64),
    /// Invariant: some word after the first is not zero, so that a set has one representation.
    Many(Arc<[u64; WORDS_MAX]>),
}

impl Default for Bits {
    fn default() -> Self {
        Self::One(0)
    }
}

impl AppliedItems {
    /// Makes a set of item numbers.
    ///
    /// # Errors
    ///
    /// Refuses a number that is not below [`ITEMS_MAX`].
    pub fn new(items: impl IntoIterator<Item = u32>) -> Result<Self, RememberError> {
        let mut words = [0; WORDS_MAX];
        for item in items {
            let word = words
                .get_mut(item as usize / 64)
                .filter(|_| item < ITEMS_MAX);
            let word = word.ok_or(RememberError::ItemOutOfRange {
                item,
                limit: ITEMS_MAX,
            })?;
            *word |= 1 << (item % 64);
        }
        Ok(Self::from_all_words(words))
    }

    /// Whether an item was applied.
    #[must_use]
    pub fn contains(&self, item: u32) -> bool {
        self.words()
            .get(item as usize / 64)
            .is_some_and(|word| word >> (item % 64) & 1 == 1)
    }

    /// How many items were applied.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Bits::One(0)
    }

    /// The items, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..ITEMS_MAX).filter(|&item| self.contains(item))
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut words = [0; WORDS_MAX];
        for set in [self, other] {
            for (into, from) in words.iter_mut().zip(set.words()) {
                *into |= from;
            }
        }
        Self::from_all_words(words)
    }

    /// The words up to the last that is not zero.
    pub(crate) fn significant_words(&self) -> &[u64] {
        let words = self.words();
        let end = words
            .iter()
            .rposition(|&word| word != 0)
            .map_or(0, |at| at + 1);
        words.get(..end).unwrap_or(words)
    }

    /// The reverse of [`Self::significant_words`]; nothing if they are too many, end in zero, or name an item that is too high.
    pub(crate) fn from_significant_words(significant: &[u64]) -> Option<Self> {
        let mut words = [0; WORDS_MAX];
        words
            .get_mut(..significant.len())?
            .copy_from_slice(significant);
        let last_is_allowed = words[WORDS_MAX - 1] >> (ITEMS_MAX % 64) == 0;
        (last_is_allowed && significant.last() != Some(&0)).then(|| Self::from_all_words(words))
    }

    /// Whether the set takes memory of its own.
    pub(crate) fn is_large(&self) -> bool {
        matches!(self.0, Bits::Many(_))
    }

    fn words(&self) -> &[u64] {
        match &self.0 {
            Bits::One(word) => std::slice::from_ref(word),
            Bits::Many(words) => words.as_slice(),
        }
    }

    fn from_all_words(words: [u64; WORDS_MAX]) -> Self {
        let [first, rest @ ..] = &words;
        if rest.iter().all(|&word| word == 0) {
            return Self(Bits::One(*first));
        }
        Self(Bits::Many(Arc::new(words)))
    }
}

const _: () = assert!(
    !ITEMS_MAX.is_multiple_of(64),
    "the last word has bits that may not be set"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_at_the_borders_of_words() {
        let items = [0, 1, 63, 64, 65, 127, 128, 511, 512, 959, 960, 999];
        let set = AppliedItems::new(items).unwrap();
        assert!(set.iter().eq(items));
        assert_eq!(set.len(), 12);
        assert!(!set.contains(2) && !set.contains(1000) && !set.contains(u32::MAX));
        for item in [1000, 1023, 1024, u32::MAX] {
            assert_eq!(
                AppliedItems::new([0, item]),
                Err(RememberError::ItemOutOfRange { item, limit: 1000 })
            );
        }
    }

    #[test]
    fn one_representation_for_a_set() {
        assert!(AppliedItems::new([]).unwrap().is_empty());
        assert_eq!(AppliedItems::new([]).unwrap(), AppliedItems::default());
        assert!(!AppliedItems::new([63]).unwrap().is_large());
        assert!(AppliedItems::new([64]).unwrap().is_large());
        let united = AppliedItems::new([1, 64])
            .unwrap()
            .union(&AppliedItems::new([999, 1]).unwrap());
        assert_eq!(united, AppliedItems::new([1, 64, 999]).unwrap());
    }

    #[test]
    fn words_round_trip_and_have_one_spelling() {
        for items in [vec![], vec![0], vec![63], vec![64], vec![0, 999]] {
            let set = AppliedItems::new(items).unwrap();
            assert_eq!(
                AppliedItems::from_significant_words(set.significant_words()),
                Some(set)
            );
        }
        assert_eq!(AppliedItems::from_significant_words(&[1, 0]), None);
        assert_eq!(AppliedItems::from_significant_words(&[1; 17]), None);
        let mut words = [0; WORDS_MAX];
        words[WORDS_MAX - 1] = 1 << 40; // item 1000
        assert_eq!(AppliedItems::from_significant_words(&words), None);
    }
}
