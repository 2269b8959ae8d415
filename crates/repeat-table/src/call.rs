//! The fingerprints of the calls that are remembered, in one place: a call that is tried through a coordinator and again
//! straight at a shard server must have the same.
//!
//! They cover what the call means, after normalising: its kind, its namespace, its terms and counts in their order. How a term
//! was written does not matter, nor which message carried it: a Record is a batch of one.

use crate::Fingerprint;

const RECORD: u64 = 1;
const DELETE: u64 = 2;
const CLEAR: u64 = 3;

/// The fingerprint of a Record or of a whole batch, before it is split over shards.
#[must_use]
pub fn record_fingerprint<'a>(
    namespace: &str,
    items: impl IntoIterator<Item = (&'a str, u64)>,
) -> u64 {
    items
        .into_iter()
        .fold(of(RECORD, namespace), |print, (term, count)| {
            print.part(term.as_bytes()).number(count)
        })
        .finish()
}

/// The fingerprint of a Delete.
#[must_use]
pub fn delete_fingerprint(namespace: &str, term: &str) -> u64 {
    of(DELETE, namespace).part(term.as_bytes()).finish()
}

/// The fingerprint of a ClearNamespace.
#[must_use]
pub fn clear_fingerprint(namespace: &str) -> u64 {
    of(CLEAR, namespace).finish()
}

fn of(kind: u64, namespace: &str) -> Fingerprint {
    Fingerprint::default()
        .number(kind)
        .part(namespace.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_call_means_makes_a_difference() {
        let one = record_fingerprint("default", [("a", 1), ("b", 2)]);
        let others = [
            record_fingerprint("other", [("a", 1), ("b", 2)]),
            record_fingerprint("default", [("b", 2), ("a", 1)]),
            record_fingerprint("default", [("a", 2), ("b", 1)]),
            record_fingerprint("default", [("a", 1)]),
            record_fingerprint("default", []),
            delete_fingerprint("default", "a"),
            delete_fingerprint("default", "b"),
            clear_fingerprint("default"),
        ];
        let distinct: std::collections::HashSet<u64> =
            others.iter().copied().chain([one]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
        assert_eq!(one, record_fingerprint("default", [("a", 1), ("b", 2)]));
    }
}
