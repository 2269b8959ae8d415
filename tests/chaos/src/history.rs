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
    pub fn begin(&mut self, term: String, add: u64) -> OperationId {
        self.operations.push(Operation {
            term,
            add,
            outcome: Outcome::Open,
        });
        OperationId(self.operations.len() - 1)
    }

    /// Notes how an operation ended.
    pub fn end(&mut self, id: OperationId, outcome: Outcome) {
        if let Some(operation) = self.operations.get_mut(id.0) {
            operation.outcome = outcome;
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
