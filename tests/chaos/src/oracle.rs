//! The judge: compares what the cluster holds, and every answer that it gave, with what the history allows.
//!
//! Pure. Three promises are checked of every term, and they are exact wherever no operation is open:
//! - *nothing lost*: a count is at least the sum of what was acknowledged;
//! - *nothing twice*: a count is at most the sum of what was acknowledged and what is open;
//! - *nothing invented*: a term that is listed was sent.
//!
//! Where the increments of a term are different powers of four, each of them is looked for by itself ([`Bounds`](crate::history::Bounds)).
//! The count that an acknowledgement carried is reached by no other acknowledgement of that term (each increment is seen once).
//! An item of a batch is judged like a Record of its own, for it is answered by itself. Terms that are deleted, too, are judged by [`lives`].
//! All replicas of a shard hold the same number of terms, and the same sum of counts, at the same entry of its log.
//! A completion at the end is what the counts themselves give. What was answered while faults went on is judged by [`answers`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::history::{History, Operation, Outcome};

pub mod answers;
mod lives;

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
    /// A term that was deleted now and then is left with a count that its writes do not give.
    WrongCount {
        /// The term.
        term: String,
        /// The counts that it may have.
        allowed: Vec<u64>,
        /// What it holds.
        count: u64,
    },
    /// An answer tells of such a term a count that it cannot have had at that time.
    Impossible {
        /// The answer.
        to: Asked,
        /// The term.
        term: String,
        /// The counts that it can have had.
        allowed: Vec<u64>,
        /// What was answered; 0 where it is not listed.
        count: u64,
    },
    /// A deletion says that the term was there although it was not, or the other way round.
    WrongDeletion {
        /// The answer.
        to: Asked,
        /// The term.
        term: String,
        /// What it held before.
        held: u64,
        /// What was answered.
        existed: bool,
    },
    /// A term that is deleted was not written in order, so that nothing can be said of it: a mistake of the run, not of the cluster.
    Unjudged {
        /// The term.
        term: String,
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

impl Asked {
    fn to_write(operation: &Operation) -> Self {
        let Operation { via, add, .. } = operation;
        let what = if operation.deletes {
            format!("a deletion via {via}")
        } else if let Some(batch) = operation.batch {
            format!("a Record of {add} in batch {batch} via {via}")
        } else {
            format!("a Record of {add} via {via}")
        };
        Self {
            what,
            began_us: operation.began_us,
            ended_us: operation.ended_us,
        }
    }
}

/// Judges the counts that the cluster holds after everything has settled.
#[must_use]
pub fn judge_counts(history: &History, counts: &BTreeMap<String, u64>) -> Vec<Violation> {
    let (bounds, lives) = (history.bounds(), lives::of(history));
    let count_of = |term: &str| counts.get(term).copied().unwrap_or(0);
    let mut violations = Vec::new();
    for (term, bound) in &bounds {
        let count = count_of(term);
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
    for (term, life) in &lives {
        violations.extend(life.judge_left(term, count_of(term)));
    }
    let is_known = |term: &str| bounds.contains_key(term) || lives.contains_key(term);
    let invented = counts.iter().filter(|(term, _)| !is_known(term));
    violations.extend(invented.map(|(term, count)| Violation::Invented {
        term: term.clone(),
        count: *count,
    }));
    violations
}

/// Judges the counts that acknowledgements carried. Answers to repeats are left out: theirs is the present count. So are terms that are deleted,
/// which have some counts more than once.
#[must_use]
pub fn judge_acknowledgements(history: &History) -> Vec<Violation> {
    let deleted = history.deleted();
    let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut violations = Vec::new();
    for operation in history.operations() {
        if let Outcome::Acknowledged {
            count,
            repeated: false,
            position: _,
        } = operation.outcome
            && !deleted.contains(operation.term.as_str())
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

    /// Two batches over three terms each: what their items add, and how they ended.
    fn batches(ended: [[Outcome; 3]; 2]) -> History {
        let mut history = History::default();
        for (number, outcomes) in (0..).zip(ended) {
            let items = ["a", "m", "z"].map(|term| api::v1::RecordItem {
                term: term.to_owned(),
                count: 1 << (2 * number),
            });
            let ids = history.begin_batch("coordinators", &items, 10 * number);
            for (id, outcome) in ids.into_iter().zip(outcomes) {
                history.end(id, outcome, 10 * number + 5);
            }
        }
        history
    }

    #[test]
    fn each_item_of_a_batch_counts_once() {
        let first = [ACKED, ACKED, Outcome::Refused];
        let second = [acknowledged(5), Outcome::Open, acknowledged(4)];
        let history = batches([first, second]);
        let left = |a, m, z| judge_counts(&history, &counts(&[("a", a), ("m", m), ("z", z)]));
        assert_eq!(left(5, 1, 4), vec![]);
        // What was left open may have been applied.
        assert_eq!(left(5, 5, 4), vec![]);
        let term_of = |found: &[Violation]| match found {
            [Violation::Lost { term, .. } | Violation::Twice { term, .. }] => term.clone(),
            _ => panic!("{found:?}"),
        };
        // One shard has lost its part of the first batch, or of the second, or applied one twice; what was refused is there.
        for (found, expected) in [
            (left(4, 1, 4), "a"),
            (left(1, 1, 4), "a"),
            (left(6, 1, 4), "a"),
            (left(5, 9, 4), "m"),
            (left(5, 1, 5), "z"),
            (left(5, 1, 0), "z"),
        ] {
            assert_eq!(term_of(&found), expected, "{found:?}");
        }
        // One item is lost and another one doubled.
        let both = batches([[ACKED; 3], [acknowledged(5); 3]]);
        let found = judge_counts(&both, &counts(&[("a", 5), ("m", 5), ("z", 2)]));
        assert!(matches!(
            found[..],
            [Violation::Lost { .. }, Violation::Twice { .. }]
        ));
        assert_eq!(judge_acknowledgements(&history), vec![]);
        let same = batches([first, [ACKED, ACKED, ACKED]]);
        assert_eq!(judge_acknowledgements(&same).len(), 2);
    }

    #[test]
    fn a_deleted_term_begins_anew_and_what_it_lost_is_no_loss() {
        let mut history = History::default();
        let via = || "coordinators".to_owned();
        let id = history.begin(via(), "a".to_owned(), 1, 0);
        history.end(id, ACKED, 10);
        let id = history.begin_delete(via(), "a".to_owned(), 20);
        let outcome = Outcome::Deleted {
            existed: true,
            position: None,
        };
        history.end(id, outcome, 30);
        let id = history.begin(via(), "a".to_owned(), 1, 40);
        history.end(id, ACKED, 50);
        assert_eq!(judge_counts(&history, &counts(&[("a", 1)])), vec![]);
        assert_eq!(judge_acknowledgements(&history), vec![]);
        for left in [counts(&[]), counts(&[("a", 2)])] {
            let found = judge_counts(&history, &left);
            assert!(matches!(found[..], [Violation::WrongCount { .. }]));
        }
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
