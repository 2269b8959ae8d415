//! Many shards' answers as one. Pure.
//!
//! What always holds: the merged list is what one shard that owned everything would have answered, in the order of
//! [`trie_core::compare`]; and an answer is only called complete when the parts that were searched tile what was asked.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use api::v1::{Completeness, Suggestion, TermRange};
use cluster::KeyRange;

/// The head of one list while it is merged.
#[derive(Debug)]
struct Head {
    suggestion: Suggestion,
    rest: std::vec::IntoIter<Suggestion>,
}

impl Head {
    fn rank(&self) -> (u64, &[u8]) {
        (self.suggestion.count, self.suggestion.term.as_bytes())
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    /// The heap gives out its greatest, which is to be what stands first.
    fn cmp(&self, other: &Self) -> Ordering {
        trie_core::compare(self.rank(), other.rank()).reverse()
    }
}

/// The first `k` of several lists, each of which stands in the one order; no term is in two of them.
#[must_use]
pub fn merge(mut lists: Vec<Vec<Suggestion>>, k: usize) -> Vec<Suggestion> {
    if lists.len() <= 1 {
        let mut only = lists.pop().unwrap_or_default();
        only.truncate(k);
        return only;
    }
    let mut heap: BinaryHeap<Head> = lists
        .into_iter()
        .filter_map(|list| {
            let mut rest = list.into_iter();
            rest.next().map(|suggestion| Head { suggestion, rest })
        })
        .collect();
    let mut merged = Vec::new();
    while merged.len() < k
        && let Some(mut head) = heap.pop()
    {
        let next = head.rest.next();
        merged.push(head.suggestion);
        if let Some(suggestion) = next {
            heap.push(Head {
                suggestion,
                rest: head.rest,
            });
        }
    }
    merged
}

/// Whether a shard's list is one that it may answer with: in order, without repetition, inside its range, with counts
/// above 0, and not longer than was asked for.
#[must_use]
pub fn is_plausible(list: &[Suggestion], range: &KeyRange, k: usize) -> bool {
    let in_order = list.is_sorted_by(|one, two| {
        let (one, two) = (
            (one.count, one.term.as_bytes()),
            (two.count, two.term.as_bytes()),
        );
        trie_core::compare(one, two) == Ordering::Less
    });
    in_order
        && list.len() <= k
        && list
            .iter()
            .all(|at| at.count > 0 && range.contains(&at.term))
}

/// How complete an answer is for which these parts were asked, and those that are `true` answered.
#[must_use]
pub fn completeness<'a>(parts: impl IntoIterator<Item = (&'a KeyRange, bool)>) -> Completeness {
    let mut counted = Completeness::default();
    for (range, answered) in parts {
        counted.shards_attempted += 1;
        if answered {
            counted.shards_succeeded += 1;
        } else {
            counted.shards_failed += 1;
            counted.missing.push(TermRange::from(range));
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn suggestion(term: &str, count: u64) -> Suggestion {
        Suggestion {
            term: term.into(),
            count,
            display: String::new(),
        }
    }

    fn sorted(mut list: Vec<Suggestion>) -> Vec<Suggestion> {
        list.sort_by(|a, b| b.count.cmp(&a.count).then(a.term.cmp(&b.term)));
        list
    }

    #[test]
    fn ties_across_shards_stand_in_byte_order() {
        let lists = vec![
            vec![suggestion("m", 5), suggestion("z", 5)],
            vec![suggestion("a", 5), suggestion("b", 4)],
        ];
        let terms: Vec<String> = merge(lists, 3).into_iter().map(|at| at.term).collect();
        assert_eq!(terms, ["a", "m", "z"]);
    }

    #[test]
    fn an_answer_with_a_hole_says_so() {
        let parts: Vec<KeyRange> = ["", "f", "s"]
            .iter()
            .zip([Some("f"), Some("s"), None])
            .filter_map(|(start, end)| KeyRange::new((*start).into(), end.map(str::to_owned)))
            .collect();
        let partial = completeness(parts.iter().zip([true, false, true]));
        assert_eq!(
            (
                partial.shards_attempted,
                partial.shards_succeeded,
                partial.shards_failed
            ),
            (3, 2, 1)
        );
        let hole = TermRange {
            start: "f".into(),
            end: "s".into(),
        };
        assert_eq!(partial.missing, [hole]);
        let whole = completeness(parts.iter().zip([true; 3]));
        assert!(whole.missing.is_empty());
    }

    #[test]
    fn a_list_that_cannot_be_is_noticed() {
        let range = KeyRange::of_prefix("a");
        let good = [suggestion("ab", 3), suggestion("aa", 2)];
        assert!(is_plausible(&good, &range, 2));
        assert!(!is_plausible(&good, &range, 1), "longer than asked");
        assert!(!is_plausible(&[suggestion("b", 3)], &range, 2), "outside");
        assert!(!is_plausible(&[suggestion("a", 0)], &range, 2), "no count");
        let unordered = [suggestion("aa", 2), suggestion("ab", 3)];
        assert!(!is_plausible(&unordered, &range, 2));
        let twice = [suggestion("aa", 2), suggestion("aa", 2)];
        assert!(!is_plausible(&twice, &range, 2));
    }

    proptest! {
        /// Few counts and few letters, so that ties at every border are the rule; each shard answers with its own first k, as it
        /// does.
        #[test]
        fn the_merge_is_what_one_dictionary_would_answer(
            terms in proptest::collection::btree_map("[abc]{1,3}", 1u64..4, 0..40),
            cuts in proptest::collection::btree_set("[abc]{1,2}", 0..4),
            k in 0usize..14,
        ) {
            let mut shards: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new(); cuts.len() + 1];
            for (term, count) in &terms {
                let owner = cuts.iter().filter(|cut| *cut <= term).count();
                shards[owner].insert(term.clone(), *count);
            }
            let lists = shards
                .iter()
                .map(|shard| {
                    let mut list = sorted(shard.iter().map(|(term, count)| suggestion(term, *count)).collect());
                    list.truncate(k);
                    list
                })
                .collect();
            let mut naive = sorted(terms.iter().map(|(term, count)| suggestion(term, *count)).collect());
            naive.truncate(k);
            prop_assert_eq!(merge(lists, k), naive);
        }
    }
}
