//! The judge: compares what the cluster holds, and every answer that it gave, with what the history allows.
//!
//! Pure. Three promises are checked of every term, and they are exact wherever no operation is open:
//! - *nothing lost*: a count is at least the sum of what was acknowledged;
//! - *nothing twice*: a count is at most the sum of what was acknowledged and what is open;
//! - *nothing invented*: a term that is listed was sent.
//!
//! Where the increments of a term are different powers of four, each of them is looked for by itself ([`Bounds`](crate::history::Bounds)).
//! The count that an acknowledgement carried is reached by no other acknowledgement of that term (each increment is seen once).
//! All replicas of a shard hold the same number of terms, and the same sum of counts, at the same entry of its log.
//! A completion at the end is what the counts themselves give. What was answered while faults went on is judged by [`answers`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::history::{History, Outcome};

pub mod answers;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "violation", rename_all = "snake_case")]
pub enum Violation {
    /// Acknowledged increments are missing.
    Lost {
        /// The term.
        term: String,
        /// The least it must hold.
        acknowledged: u64,
        /// What it holds.
        count: u64,
    },
    /// Increments took effect more often than they were sent.
    Twice {
        /// The term.
        term: String,
        /// The most it may hold.
        possible: u64,
        /// What it holds.
        count: u64,
    },
    /// A term that nobody sent.
    Invented {
        /// The term.
        term: String,
        /// Its count.
        count: u64,
    },
    /// Two acknowledgements of one term carried the same count.
    SameCount {
        /// The term.
        term: String,
        /// The count that both carried.
        count: u64,
    },
    /// An answer lacks what it must hold.
    TooOld {
        /// The answer.
        to: Asked,
        /// The term.
        term: String,
        /// The least it must hold.
        required: u64,
        /// What was answered; 0 where it is not listed.
        count: u64,
    },
    /// An answer holds what nobody had sent yet, or more of it.
    TooMuch {
        /// The answer.
        to: Asked,
        /// The term.
        term: String,
        /// The most it may hold.
        possible: u64,
        /// What was answered.
        count: u64,
    },
    /// A list that breaks its own rules.
    WrongList {
        /// The answer.
        to: Asked,
        /// What is wrong with it.
        problem: String,
    },
    /// While a leader stood still, nobody took over in time.
    SlowTakeover {
        /// The leader.
        node: String,
        /// What waited.
        what: String,
        /// How long, from the moment that it stood still.
        after_ms: u64,
        /// How long it may.
        limit_ms: u64,
    },
    /// While a leader stood still, the status did not say so, or not all the time.
    Unnamed {
        /// The leader.
        node: String,
        /// What the status lacked.
        problem: String,
    },
    /// Replicas of a shard hold different terms or counts, although they have applied the same entries.
    ReplicasDiffer {
        /// The shard.
        shard: u64,
        /// What each of its replicas holds.
        replicas: Vec<Holding>,
    },
    /// A completion that does not follow from the counts.
    WrongTopK {
        /// The prefix.
        prefix: String,
        /// What the counts give.
        expected: Vec<(String, u64)>,
        /// What was answered.
        answered: Vec<(String, u64)>,
    },
}

/// What a replica says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The shard.
    pub shard: u64,
    /// The server that has the replica.
    pub node: u64,
    /// The life of the shard.
    pub incarnation: u64,
    /// The newest entry that is in it.
    pub applied_index: u64,
    /// Terms, of all namespaces together.
    pub terms: u64,
    /// The sum of their counts.
    pub total_count: u64,
}

/// An answer that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// What was asked, of whom and how.
    pub what: String,
    /// When it was begun, microseconds since the run began.
    pub began_us: u64,
    /// When it was answered.
    pub ended_us: u64,
}

/// Judges the counts that the cluster holds after everything has settled.
#[must_use]
pub fn judge_counts(history: &History, counts: &BTreeMap<String, u64>) -> Vec<Violation> {
    let bounds = history.bounds();
    let mut violations = Vec::new();
    for (term, bound) in &bounds {
        let count = counts.get(*term).copied().unwrap_or(0);
        if bound.lacks(count) {
            violations.push(Violation::Lost {
                term: (*term).to_owned(),
                acknowledged: bound.acknowledged,
                count,
            });
        }
        if bound.exceeds(count) {
            violations.push(Violation::Twice {
                term: (*term).to_owned(),
                possible: bound.possible,
                count,
            });
        }
    }
    let invented = counts
        .iter()
        .filter(|(term, _)| !bounds.contains_key(term.as_str()));
    violations.extend(invented.map(|(term, count)| Violation::Invented {
        term: term.clone(),
        count: *count,
    }));
    violations
}

/// Judges the counts that acknowledgements carried. Answers to repeats are left out: theirs is the present count.
#[must_use]
pub fn judge_acknowledgements(history: &History) -> Vec<Violation> {
    let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut violations = Vec::new();
    for operation in history.operations() {
        if let Outcome::Acknowledged {
            count,
            repeated: false,
            position: _,
        } = operation.outcome
            && !seen.insert((&operation.term, count))
        {
            violations.push(Violation::SameCount {
                term: operation.term.clone(),
                count,
            });
        }
    }
    violations
}

/// Judges the replicas of each shard among themselves. They must have applied the same entries.
#[must_use]
pub fn judge_replicas(held: &[Holding]) -> Vec<Violation> {
    let mut shards: BTreeMap<u64, Vec<Holding>> = BTreeMap::new();
    for at in held {
        shards.entry(at.shard).or_default().push(*at);
    }
    let differ = |replicas: &[Holding]| {
        let distinct: BTreeSet<(u64, u64)> = replicas
            .iter()
            .map(|at| (at.terms, at.total_count))
            .collect();
        distinct.len() > 1
    };
    let differing = shards.into_iter().filter(|(_, replicas)| differ(replicas));
    differing
        .map(|(shard, replicas)| Violation::ReplicasDiffer { shard, replicas })
        .collect()
}

/// What a completion must be, from the counts themselves: by count falling, then by bytes rising.
#[must_use]
pub fn naive_top_k(counts: &BTreeMap<String, u64>, prefix: &str, k: usize) -> Vec<(String, u64)> {
    let mut matches: Vec<(String, u64)> = counts
        .iter()
        .filter(|(term, _)| term.starts_with(prefix))
        .map(|(term, count)| (term.clone(), *count))
        .collect();
    matches.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
    matches.truncate(k);
    matches
}

/// Judges one completion.
#[must_use]
pub fn judge_top_k(
    counts: &BTreeMap<String, u64>,
    prefix: &str,
    k: usize,
    answered: &[(String, u64)],
) -> Option<Violation> {
    let expected = naive_top_k(counts, prefix, k);
    (expected != answered).then(|| Violation::WrongTopK {
        prefix: prefix.to_owned(),
        expected,
        answered: answered.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(&str, Outcome)]) -> History {
        let mut history = History::default();
        for (term, outcome) in operations {
            let id = history.begin("coordinators".to_owned(), (*term).to_owned(), 1, 0);
            history.end(id, *outcome, 1);
        }
        history
    }

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(term, count)| ((*term).to_owned(), *count))
            .collect()
    }

    const ACKED: Outcome = acknowledged(1);

    const fn acknowledged(count: u64) -> Outcome {
        Outcome::Acknowledged {
            count,
            repeated: false,
            position: None,
        }
    }

    #[test]
    fn settled_histories_are_judged_exactly() {
        let history = history(&[("a", ACKED), ("a", ACKED), ("b", Outcome::Refused)]);
        assert_eq!(judge_counts(&history, &counts(&[("a", 2)])), vec![]);
        assert!(matches!(
            judge_counts(&history, &counts(&[("a", 1)]))[..],
            [Violation::Lost {
                acknowledged: 2,
                count: 1,
                ..
            }]
        ));
        assert!(matches!(
            judge_counts(&history, &counts(&[("a", 3)]))[..],
            [Violation::Twice {
                possible: 2,
                count: 3,
                ..
            }]
        ));
        assert!(matches!(
            judge_counts(&history, &counts(&[("a", 2), ("b", 1)]))[..],
            [Violation::Twice {
                possible: 0,
                count: 1,
                ..
            }]
        ));
    }

    #[test]
    fn an_open_operation_may_have_happened_once() {
        let history = history(&[("a", ACKED), ("a", Outcome::Open)]);
        assert_eq!(judge_counts(&history, &counts(&[("a", 1)])), vec![]);
        assert_eq!(judge_counts(&history, &counts(&[("a", 2)])), vec![]);
        assert_eq!(judge_counts(&history, &counts(&[("a", 3)])).len(), 1);
        assert_eq!(judge_counts(&history, &counts(&[])).len(), 1);
    }

    #[test]
    fn a_term_that_nobody_sent_is_invented() {
        assert!(matches!(
            judge_counts(&History::default(), &counts(&[("ghost", 1)]))[..],
            [Violation::Invented { .. }]
        ));
    }

    #[test]
    fn one_count_is_acknowledged_once() {
        let twice = history(&[("a", ACKED), ("a", ACKED)]);
        assert_eq!(judge_acknowledgements(&twice).len(), 1);
        let once = history(&[("a", ACKED), ("a", acknowledged(2))]);
        assert_eq!(judge_acknowledgements(&once), vec![]);
    }

    #[test]
    fn replicas_of_one_shard_hold_the_same() {
        let held = |shard, node, terms, total_count| Holding {
            shard,
            node,
            incarnation: 1,
            applied_index: 9,
            terms,
            total_count,
        };
        let alike = [held(1, 1, 5, 70), held(1, 2, 5, 70), held(2, 1, 3, 9)];
        assert_eq!(judge_replicas(&alike), vec![]);
        let with = |other| judge_replicas(&[alike[0], other, alike[2]]);
        for other in [held(1, 2, 5, 71), held(1, 2, 4, 70)] {
            let replicas = vec![alike[0], other];
            let expected = vec![Violation::ReplicasDiffer { shard: 1, replicas }];
            assert_eq!(with(other), expected);
        }
    }

    #[test]
    fn completions_follow_from_the_counts() {
        let counts = counts(&[("ab", 2), ("aa", 2), ("ac", 9), ("b", 100)]);
        let pair = |term: &str, count| (term.to_owned(), count);
        let right = [pair("ac", 9), pair("aa", 2)];
        assert_eq!(judge_top_k(&counts, "a", 2, &right), None);
        let swapped_tie = [pair("ac", 9), pair("ab", 2)];
        assert!(judge_top_k(&counts, "a", 2, &swapped_tie).is_some());
    }
}
