//! What was asked of the cluster and what it answered. `docs/chaos.md` describes the file that is made of it.
//!
//! What always holds: an operation is in the history before it is sent, so that nothing the cluster may have applied is
//! unknown to the judge; an operation that was never answered stays *open*, which means "may have happened", never
//! "did not happen". All times are of one clock, which never goes back: what ended before something else began, came before it.
//! Each item of a batch is an operation of its own, for each is answered by itself.

use std::collections::{BTreeMap, BTreeSet};

use api::v1;
use serde::Serialize;

/// A position in the log of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The shard.
    pub shard: u64,
    /// Its life.
    pub incarnation: u64,
    /// Everything up to this entry.
    pub index: u64,
}

impl Position {
    /// The positions of a token.
    #[must_use]
    pub fn all(token: Option<&v1::SessionToken>) -> Vec<Self> {
        let positions = token.into_iter().flat_map(|token| &token.positions);
        positions
            .map(|position| Self {
                shard: position.shard_id,
                incarnation: position.incarnation,
                index: position.index,
            })
            .collect()
    }
}

/// How one operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Sent, and not answered for good: it may have been applied, or not.
    Open,
    /// Acknowledged; the count it was answered with.
    Acknowledged {
        /// The exact count after it, as the cluster said.
        count: u64,
        /// A try before had applied it already; `count` is then the present one, not that of the increment.
        repeated: bool,
        /// Where in the log of its shard it is, at the latest.
        position: Option<Position>,
    },
    /// A deletion that was acknowledged.
    Deleted {
        /// Whether the term was there, as the cluster said.
        existed: bool,
        /// As of [`Outcome::Acknowledged`].
        position: Option<Position>,
    },
    /// Refused by an answer that says that nothing was applied.
    Refused,
}

impl Outcome {
    /// Whether the cluster said that it was applied.
    pub(crate) const fn is_acknowledged(self) -> bool {
        match self {
            Self::Acknowledged { .. } | Self::Deleted { .. } => true,
            Self::Open | Self::Refused => false,
        }
    }
}

/// One Record of one term, by itself or as an item of a batch, or one deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Who was asked: `coordinators`, or a shard server by its name.
    pub via: String,
    /// The normalised term.
    pub term: String,
    /// What it adds; 0 for a deletion.
    pub add: u64,
    /// Whether it is a deletion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deletes: bool,
    /// The number of the batch that it is an item of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// When it was begun, microseconds since the run began.
    pub began_us: u64,
    /// When it ended, with however many tries; the same as `began_us` while it has not.
    pub ended_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// The number of an operation in its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationId(usize);

/// How fresh a read had to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Answered by a leader inside its lease.
    Leader,
    /// Confirmed by a majority.
    Linearizable,
    /// Answered by any replica that has what the token names.
    Stale,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Leader, Self::Linearizable, Self::Stale];
}

impl From<Level> for v1::Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Leader => Self::Leader,
            Level::Linearizable => Self::Linearizable,
            Level::Stale => Self::Stale,
        }
    }
}

/// What a read asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The count of a term.
    Count {
        /// The term.
        term: String,
    },
    /// The terms with the highest counts below a prefix.
    TopK {
        /// The prefix.
        prefix: String,
        /// How many.
        k: u32,
    },
}

/// What a read was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing, and why; it says nothing of the counts.
    Failed {
        /// The reason, by its name.
        reason: String,
    },
    /// The count of the term, 0 where it is not there.
    Count {
        /// The count.
        count: u64,
    },
    /// A list.
    TopK {
        /// Terms with their counts, as they were listed.
        list: Vec<(String, u64)>,
        /// Ranges of terms, from the first to before the second ("" for the end), that the list knows nothing of.
        missing: Vec<(String, String)>,
        /// What it shows, by what it says.
        positions: Vec<Position>,
    },
}

/// One read, of a single try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read {
    /// As of [`Operation::via`].
    pub via: String,
    /// How fresh it had to be.
    pub level: Level,
    /// What was asked.
    pub question: Question,
    /// The positions that the answer had to contain.
    pub token: Vec<Position>,
    /// As of [`Operation::began_us`].
    pub began_us: u64,
    /// When it was answered.
    pub ended_us: u64,
    /// What was answered.
    pub answer: Answer,
}

/// How many reads of a level were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// The level.
    pub level: Level,
    /// Those that were answered.
    pub answered: usize,
    /// Those that failed.
    pub failed: usize,
}

/// Every operation of a run, in the order in which they were begun, and every read, in the order in which they ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    operations: Vec<Operation>,
    reads: Vec<Read>,
    /// Batches that were begun.
    #[serde(skip)]
    batches: usize,
}

/// Milliseconds of acknowledged operations, from the first try to the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Pace {
    /// Half of them took no longer.
    pub p50_ms: u64,
    /// All but one in a hundred took no longer.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// The longest time in which none was acknowledged.
    pub longest_gap_ms: u64,
}

/// The least and the most that a term's count can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The sum of what was acknowledged.
    pub acknowledged: u64,
    /// That, and all that is open.
    pub possible: u64,
    /// Each increment is a power of four that no other increment of the term is. A count then says of each increment how often it
    /// was applied, so that a lost one and a doubled one cannot hide behind each other.
    pub has_digits: bool,
}

/// The lowest bit of every digit in base 4.
const DIGITS: u64 = u64::MAX / 3;

impl Bounds {
    /// Whether something that was acknowledged is missing from a count.
    #[must_use]
    pub fn lacks(&self, count: u64) -> bool {
        if self.has_digits {
            // What was applied several times is there.
            let there = (count | count >> 1) & DIGITS;
            return self.acknowledged & !there != 0;
        }
        count < self.acknowledged
    }

    /// Whether something is in a count that nobody sent, or was sent once and is there several times.
    #[must_use]
    pub fn exceeds(&self, count: u64) -> bool {
        if self.has_digits {
            return count & !self.possible != 0;
        }
        count > self.possible
    }
}

impl History {
    /// Notes a Record that is about to be sent.
    pub fn begin(&mut self, via: String, term: String, add: u64, now_us: u64) -> OperationId {
        self.push(Operation {
            via,
            term,
            add,
            deletes: false,
            batch: None,
            began_us: now_us,
            ended_us: now_us,
            outcome: Outcome::Open,
        })
    }

    /// Notes a batch that is about to be sent; the numbers of its items, in their order.
    pub(crate) fn begin_batch(
        &mut self,
        via: &str,
        items: &[v1::RecordItem],
        now_us: u64,
    ) -> Vec<OperationId> {
        let batch = Some(self.batches);
        self.batches += 1;
        let mut ids = Vec::new();
        for item in items {
            ids.push(self.push(Operation {
                via: via.to_owned(),
                term: item.term.clone(),
                add: item.count,
                deletes: false,
                batch,
                began_us: now_us,
                ended_us: now_us,
                outcome: Outcome::Open,
            }));
        }
        ids
    }

    /// Notes a deletion that is about to be sent.
    pub(crate) fn begin_delete(&mut self, via: String, term: String, now_us: u64) -> OperationId {
        self.push(Operation {
            via,
            term,
            add: 0,
            deletes: true,
            batch: None,
            began_us: now_us,
            ended_us: now_us,
            outcome: Outcome::Open,
        })
    }

    fn push(&mut self, operation: Operation) -> OperationId {
        self.operations.push(operation);
        OperationId(self.operations.len() - 1)
    }

    /// Notes how an operation ended.
    pub fn end(&mut self, id: OperationId, outcome: Outcome, now_us: u64) {
        if let Some(operation) = self.operations.get_mut(id.0) {
            operation.outcome = outcome;
            operation.ended_us = now_us;
        }
    }

    /// Notes a read that has ended.
    pub fn read(&mut self, read: Read) {
        self.reads.push(read);
    }

    /// The reads, in the order in which they ended.
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// How many reads of each level were answered.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        let of = |level| {
            let (failed, answered): (Vec<&Read>, Vec<&Read>) = self
                .reads
                .iter()
                .filter(|read| read.level == level)
                .partition(|read| matches!(read.answer, Answer::Failed { .. }));
            Heard {
                level,
                answered: answered.len(),
                failed: failed.len(),
            }
        };
        Level::ALL.map(of).to_vec()
    }

    /// The operations, in the order in which they were begun.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Batches that were begun.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// Deletions that were begun.
    pub(crate) fn deletions(&self) -> usize {
        let deletions = self.operations.iter().filter(|at| at.deletes);
        deletions.count()
    }

    /// The terms that were deleted, or may have been. What is added to them does not add up.
    pub(crate) fn deleted(&self) -> BTreeSet<&str> {
        let deletions = self.operations.iter().filter(|at| at.deletes);
        deletions.map(|at| at.term.as_str()).collect()
    }

    /// The bounds of every term that was ever sent and never deleted.
    #[must_use]
    pub fn bounds(&self) -> BTreeMap<&str, Bounds> {
        let deleted = self.deleted();
        let mut bounds: BTreeMap<&str, Bounds> = BTreeMap::new();
        let mut digits: BTreeMap<&str, u64> = BTreeMap::new();
        for operation in &self.operations {
            if deleted.contains(operation.term.as_str()) {
                continue;
            }
            let of_term = bounds.entry(&operation.term).or_insert(Bounds {
                has_digits: true,
                ..Bounds::default()
            });
            let seen = digits.entry(&operation.term).or_default();
            of_term.has_digits &= is_power_of_four(operation.add) && *seen & operation.add == 0;
            *seen |= operation.add;
            match operation.outcome {
                Outcome::Open => of_term.possible += operation.add,
                Outcome::Acknowledged { .. } => {
                    of_term.acknowledged += operation.add;
                    of_term.possible += operation.add;
                }
                Outcome::Deleted { .. } | Outcome::Refused => {}
            }
        }
        bounds
    }

    /// How long acknowledged operations took, and how long nothing was acknowledged.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let acknowledged: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|operation| operation.outcome.is_acknowledged())
            .collect();
        let took = |operation: &&Operation| operation.ended_us.saturating_sub(operation.began_us);
        let mut latencies: Vec<u64> = acknowledged.iter().map(took).collect();
        latencies.sort_unstable();
        let at = |percent| nearest_rank(&latencies, percent) / 1000;
        let mut ends: Vec<u64> = acknowledged.iter().map(|at| at.ended_us).collect();
        ends.sort_unstable();
        let gaps = ends.iter().zip(ends.iter().skip(1));
        let longest = gaps.map(|(one, next)| next - one).max();
        Pace {
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
            longest_gap_ms: longest.unwrap_or(0) / 1000,
        }
    }

    /// The longest that an operation which was acknowledged in the end was waited for between two moments, microseconds.
    #[must_use]
    pub fn longest_wait_us(&self, from_us: u64, to_us: u64) -> u64 {
        let waits = self
            .operations
            .iter()
            .filter(|operation| operation.outcome.is_acknowledged())
            .filter(|operation| operation.began_us <= to_us)
            .map(|operation| {
                operation
                    .ended_us
                    .saturating_sub(operation.began_us.max(from_us))
            });
        waits.max().unwrap_or(0)
    }

    /// How many operations ended how: acknowledged, open, refused.
    #[must_use]
    pub fn tally(&self) -> (usize, usize, usize) {
        self.operations
            .iter()
            .fold(
                (0, 0, 0),
                |(acknowledged, open, refused), operation| match operation.outcome {
                    Outcome::Acknowledged { .. } | Outcome::Deleted { .. } => {
                        (acknowledged + 1, open, refused)
                    }
                    Outcome::Open => (acknowledged, open + 1, refused),
                    Outcome::Refused => (acknowledged, open, refused + 1),
                },
            )
    }
}

/// The smallest of some values that so many percent of them do not exceed; 0 where there are none. They must be sorted.
pub(crate) fn nearest_rank(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let at = sorted.get(rank.saturating_sub(1));
    at.copied().unwrap_or(0)
}

fn is_power_of_four(number: u64) -> bool {
    number.is_power_of_two() && number.trailing_zeros().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKNOWLEDGED: Outcome = Outcome::Acknowledged {
        count: 1,
        repeated: false,
        position: None,
    };

    fn begin(history: &mut History, term: &str, add: u64, now_us: u64) -> OperationId {
        history.begin("coordinators".to_owned(), term.to_owned(), add, now_us)
    }

    #[test]
    fn a_count_of_digits_says_what_is_lost_although_the_sum_is_right() {
        let mut history = History::default();
        for add in [1, 4, 16] {
            let id = begin(&mut history, "digits", add, 0);
            history.end(id, ACKNOWLEDGED, 1);
        }
        for add in [4, 2, 4] {
            let id = begin(&mut history, "sum", add, 0);
            history.end(id, ACKNOWLEDGED, 1);
        }
        let bounds = history.bounds();
        let digits = bounds["digits"];
        assert!(digits.has_digits);
        assert!(!digits.lacks(21) && !digits.exceeds(21));
        // The 16 is lost, and the 4 was applied three times.
        assert!(digits.lacks(1 + 3 * 4) && digits.exceeds(1 + 3 * 4));
        assert!(digits.lacks(5) && !digits.exceeds(5));
        assert!(digits.exceeds(21 + 4) && !digits.lacks(21 + 4));
        let sum = bounds["sum"];
        assert!(!sum.has_digits);
        assert!(sum.lacks(9) && !sum.lacks(10) && !sum.exceeds(10) && sum.exceeds(11));
    }

    #[test]
    fn the_pace_is_that_of_what_was_acknowledged() {
        let mut history = History::default();
        for number in 0..99 {
            let id = begin(&mut history, "a", 1, number * 10_000);
            history.end(id, ACKNOWLEDGED, number * 10_000 + 2_000);
        }
        let id = begin(&mut history, "a", 1, 980_000);
        history.end(id, ACKNOWLEDGED, 2_000_000);
        let id = begin(&mut history, "a", 1, 0);
        history.end(id, Outcome::Refused, 9_000_000);
        let expected = Pace {
            p50_ms: 2,
            p99_ms: 2,
            max_ms: 1_020,
            longest_gap_ms: 1_018,
        };
        assert_eq!(history.pace(), expected);
        assert_eq!(History::default().pace(), Pace::default());
    }

    #[test]
    fn an_item_of_a_batch_is_an_operation_and_a_deleted_term_has_no_sum() {
        let mut history = History::default();
        let items = ["a", "b"].map(|term| v1::RecordItem {
            term: term.to_owned(),
            count: 4,
        });
        let ids = history.begin_batch("coordinators", &items, 5);
        for (id, outcome) in ids.into_iter().zip([ACKNOWLEDGED, Outcome::Refused]) {
            history.end(id, outcome, 9);
        }
        let deletion = history.begin_delete("coordinators".to_owned(), "c".to_owned(), 10);
        let outcome = Outcome::Deleted {
            existed: false,
            position: None,
        };
        history.end(deletion, outcome, 11);
        begin(&mut history, "c", 1, 12);
        assert_eq!(history.tally(), (2, 1, 1));
        assert_eq!((history.batches(), history.deletions()), (1, 1));
        let bounds = history.bounds();
        let sums = |term: &str| (bounds[term].acknowledged, bounds[term].possible);
        assert_eq!((sums("a"), sums("b")), ((4, 4), (0, 0)));
        assert!(!bounds.contains_key("c") && history.deleted().contains("c"));
        let kept = serde_json::to_value(&history).unwrap();
        let operations = kept["operations"].as_array().unwrap();
        let batches: Vec<Option<u64>> = operations.iter().map(|at| at["batch"].as_u64()).collect();
        assert_eq!(batches, [Some(0), Some(0), None, None]);
        assert_eq!(operations[2]["deletes"], true);
        assert_eq!(operations[2]["outcome"]["deleted"]["existed"], false);
        assert!(operations[3].get("deletes").is_none() && operations[3].get("batch").is_none());
    }

    #[test]
    fn a_quantile_is_the_smallest_value_that_enough_do_not_exceed() {
        let hundred: Vec<u64> = (1..=100).collect();
        let of_hundred = |percent| nearest_rank(&hundred, percent);
        assert_eq!([1, 50, 99, 100].map(of_hundred), [1, 50, 99, 100]);
        let of_three = |percent| nearest_rank(&[7, 8, 9], percent);
        assert_eq!([0, 33, 34, 50, 99, 100].map(of_three), [7, 7, 8, 8, 9, 9]);
        assert_eq!(nearest_rank(&[], 99), 0);
    }

    #[test]
    fn waits_count_from_the_blow_and_only_for_what_was_acknowledged() {
        let mut history = History::default();
        for (began, ended, outcome) in [
            (0, 900, ACKNOWLEDGED),
            (200, 700, ACKNOWLEDGED),
            (300, 5_000, Outcome::Refused),
            (2_000, 9_000, ACKNOWLEDGED),
        ] {
            let id = begin(&mut history, "a", 1, began);
            history.end(id, outcome, ended);
        }
        assert_eq!(history.longest_wait_us(100, 1_000), 800);
        assert_eq!(history.longest_wait_us(100, 2_000), 7_000);
        assert_eq!(history.longest_wait_us(9_500, 9_900), 0);
    }
}
