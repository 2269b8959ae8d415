//! What was asked of the cluster and what it answered.
//!
//! What always holds: an operation is in the history before it is sent, so that nothing the cluster may have applied is
//! unknown to the judge; an operation that was never answered stays *open*, which means "may have happened", never
//! "did not happen".

use std::collections::BTreeMap;

use serde::Serialize;

/// How one Record ended.
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
    },
    /// Refused by an answer that says that nothing was applied.
    Refused,
}

/// One Record of one term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The normalised term.
    pub term: String,
    /// What it adds.
    pub add: u64,
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

/// Every operation of a run, in the order in which they were begun.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    operations: Vec<Operation>,
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
}

impl History {
    /// Notes an operation that is about to be sent.
    pub fn begin(&mut self, term: String, add: u64, now_us: u64) -> OperationId {
        self.operations.push(Operation {
            term,
            add,
            began_us: now_us,
            ended_us: now_us,
            outcome: Outcome::Open,
        });
        OperationId(self.operations.len() - 1)
    }

    /// Notes how an operation ended.
    pub fn end(&mut self, id: OperationId, outcome: Outcome, now_us: u64) {
        if let Some(operation) = self.operations.get_mut(id.0) {
            operation.outcome = outcome;
            operation.ended_us = now_us;
        }
    }

    /// The operations, in the order in which they were begun.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The bounds of every term that was ever sent.
    #[must_use]
    pub fn bounds(&self) -> BTreeMap<&str, Bounds> {
        let mut bounds: BTreeMap<&str, Bounds> = BTreeMap::new();
        for operation in &self.operations {
            let of_term = bounds.entry(&operation.term).or_default();
            match operation.outcome {
                Outcome::Open => of_term.possible += operation.add,
                Outcome::Acknowledged { .. } => {
                    of_term.acknowledged += operation.add;
                    of_term.possible += operation.add;
                }
                Outcome::Refused => {}
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
            .filter(|operation| matches!(operation.outcome, Outcome::Acknowledged { .. }))
            .collect();
        let took = |operation: &&Operation| operation.ended_us.saturating_sub(operation.began_us);
        let mut latencies: Vec<u64> = acknowledged.iter().map(took).collect();
        latencies.sort_unstable();
        let at = |percent: usize| {
            let index = latencies.len() * percent / 100;
            let last = latencies.len().saturating_sub(1);
            latencies.get(index.min(last)).copied().unwrap_or(0) / 1000
        };
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
            .filter(|operation| matches!(operation.outcome, Outcome::Acknowledged { .. }))
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
                    Outcome::Acknowledged { .. } => (acknowledged + 1, open, refused),
                    Outcome::Open => (acknowledged, open + 1, refused),
                    Outcome::Refused => (acknowledged, open, refused + 1),
                },
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_what_was_acknowledged() {
        let acknowledged = Outcome::Acknowledged {
            count: 1,
            repeated: false,
        };
        let mut history = History::default();
        for number in 0..99 {
            let id = history.begin("a".to_owned(), 1, number * 10_000);
            history.end(id, acknowledged, number * 10_000 + 2_000);
        }
        let id = history.begin("a".to_owned(), 1, 980_000);
        history.end(id, acknowledged, 2_000_000);
        let id = history.begin("a".to_owned(), 1, 0);
        history.end(id, Outcome::Refused, 9_000_000);
        let expected = Pace {
            p50_ms: 2,
            p99_ms: 1_020,
            max_ms: 1_020,
            longest_gap_ms: 1_018,
        };
        assert_eq!(history.pace(), expected);
        assert_eq!(History::default().pace(), Pace::default());
    }

    #[test]
    fn waits_count_from_the_blow_and_only_for_what_was_acknowledged() {
        let acknowledged = Outcome::Acknowledged {
            count: 1,
            repeated: false,
        };
        let mut history = History::default();
        for (began, ended, outcome) in [
            (0, 900, acknowledged),
            (200, 700, acknowledged),
            (300, 5_000, Outcome::Refused),
            (2_000, 9_000, acknowledged),
        ] {
            let id = history.begin("a".into(), 1, began);
            history.end(id, outcome, ended);
        }
        assert_eq!(history.longest_wait_us(100, 1_000), 800);
        assert_eq!(history.longest_wait_us(100, 2_000), 7_000);
        assert_eq!(history.longest_wait_us(9_500, 9_900), 0);
    }
}
