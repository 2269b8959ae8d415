//! Ranges of terms.

use std::fmt;

/// Terms from `start` (included) to `end` (excluded), in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    start: String,
    end: Option<String>,
}

impl KeyRange {
    /// The range from `start` up to but excluding `end`; no `end` means to the last term. `None` when it would be empty.
    #[must_use]
    pub fn new(start: String, end: Option<String>) -> Option<Self> {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return None;
        }
        Some(Self { start, end })
    }

    /// Every term.
    #[must_use]
    pub fn full() -> Self {
        Self {
            start: String::new(),
            end: None,
        }
    }

    /// Every term that starts with `prefix`.
    #[must_use]
    pub fn of_prefix(prefix: &str) -> Self {
        Self {
            start: prefix.to_owned(),
            end: successor(prefix).map(|(kept, next)| {
                let mut end = String::with_capacity(kept.len() + next.len_utf8());
                end.push_str(kept);
                end.push(next);
                end
            }),
        }
    }

    /// The first term of the range.
    #[must_use]
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The first term behind the range; `None` when it reaches to the last.
    #[must_use]
    pub fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// Hands out the first term of the range, and the first behind it.
    #[must_use]
    pub fn into_parts(self) -> (String, Option<String>) {
        (self.start, self.end)
    }

    /// Whether the range is that of a prefix, see [`KeyRange::of_prefix`].
    #[must_use]
    pub fn is_of_prefix(&self, prefix: &str) -> bool {
        let ends_there = match (successor(prefix), self.end()) {
            (None, None) => true,
            (Some((kept, next)), Some(end)) => end.strip_suffix(next) == Some(kept),
            (None, Some(_)) | (Some(_), None) => false,
        };
        ends_there && self.start == prefix
    }

    /// Whether a term lies in the range.
    #[must_use]
    pub fn contains(&self, term: &str) -> bool {
        *self.start <= *term && self.end.as_deref().is_none_or(|end| term < end)
    }

    /// What both ranges have in common.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        self.clipped(other.start(), other.end())
    }

    /// What lies from `start` up to but excluding `end`.
    pub(crate) fn clipped(&self, start: &str, end: Option<&str>) -> Option<Self> {
        let start = self.start().max(start);
        let end = match (self.end(), end) {
            (None, end) | (end, None) => end,
            (Some(one), Some(two)) => Some(one.min(two)),
        };
        if end.is_some_and(|end| end <= start) {
            return None;
        }
        Some(Self {
            start: start.to_owned(),
            end: end.map(str::to_owned),
        })
    }

    /// Whether the ranges, in their order, cover this one without a hole or an overlap.
    #[must_use]
    pub fn is_tiled_by<'a>(&self, parts: impl IntoIterator<Item = &'a Self>) -> bool {
        let mut reached = Some(self.start.as_str());
        for part in parts {
            if reached != Some(part.start.as_str()) {
                return false;
            }
            reached = part.end.as_deref();
        }
        reached == self.end.as_deref()
    }
}

/// The first string, in byte order, behind every string that starts with `prefix`: its last character that has a
/// successor is raised, what follows is cut. What stands before that character, and what it is raised to. Stays valid UTF-8, whose
/// byte order is the order of the characters.
fn successor(prefix: &str) -> Option<(&str, char)> {
    let mut from_behind = prefix.char_indices().rev();
    from_behind.find_map(|(at, last)| Some((prefix.get(..at)?, next_char(last)?)))
}

fn next_char(character: char) -> Option<char> {
    match character {
        '\u{d7ff}' => Some('\u{e000}'),
        char::MAX => None,
        other => char::from_u32(u32::from(other) + 1),
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some(end) => write!(formatter, "[{:?}, {end:?})", self.start),
            None => write!(formatter, "[{:?}, end)", self.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_range_ends_behind_its_last_term() {
        assert_eq!(KeyRange::of_prefix("ab").end(), Some("ac"));
        assert_eq!(KeyRange::of_prefix("").end(), None);
        assert_eq!(KeyRange::of_prefix("a\u{10ffff}").end(), Some("b"));
        assert_eq!(KeyRange::of_prefix("\u{d7ff}").end(), Some("\u{e000}"));
    }

    #[test]
    fn a_range_is_of_the_one_prefix_that_it_was_made_of() {
        let prefixes = [
            "",
            "a",
            "ab",
            "b",
            "ac",
            "a\u{10ffff}",
            "\u{10ffff}",
            "\u{d7ff}",
        ];
        for one in prefixes {
            for other in prefixes {
                let is_of = KeyRange::of_prefix(one).is_of_prefix(other);
                assert_eq!(is_of, one == other, "{one:?} {other:?}");
            }
        }
        let part = KeyRange::new("a".into(), Some("az".into())).unwrap();
        let rest = KeyRange::new("a".into(), None).unwrap();
        assert!(!part.is_of_prefix("a") && !rest.is_of_prefix("a"));
    }

    #[test]
    fn an_empty_range_cannot_be_built() {
        assert_eq!(KeyRange::new("b".into(), Some("b".into())), None);
        assert_eq!(KeyRange::new("b".into(), Some("a".into())), None);
    }

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_what_starts_with_it(prefix in "[ab\u{7f}\u{d7ff}\u{10ffff}]{0,3}", term in "[abc\u{7f}\u{80}\u{d7ff}\u{e000}\u{10ffff}]{0,5}") {
            prop_assert_eq!(KeyRange::of_prefix(&prefix).contains(&term), term.starts_with(&prefix));
        }

        #[test]
        fn an_intersection_holds_what_both_hold(a in "[a-d]{0,2}", b in "[a-d]{0,2}", c in "[a-d]{0,2}", d in "[a-d]{0,2}", term in "[a-d]{0,3}") {
            let one = KeyRange::new(a, Some(b).filter(|end| !end.is_empty()));
            let two = KeyRange::new(c, Some(d).filter(|end| !end.is_empty()));
            if let (Some(one), Some(two)) = (one, two) {
                let both = one.intersection(&two).is_some_and(|range| range.contains(&term));
                prop_assert_eq!(both, one.contains(&term) && two.contains(&term));
            }
        }
    }
}
