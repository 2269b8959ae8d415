//! Judges terms that are deleted, too. One lane alone writes such a term, one write after another, so that what it holds is known exactly.
//!
//! Pure. Once a write was answered, the term holds one count and no other; while one is under way, and for ever where it was not answered, the
//! count before it or the one after it. So an increment that is lost or doubled, one that a deletion did not take away or that came back, and
//! a count of before are all the same here: a count that the term did not have at that time.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::Sight;
use super::{Asked, Violation};
use crate::history::{History, Operation, Outcome};

/// The terms of a history that were deleted, or may have been.
pub(super) fn of(history: &History) -> BTreeMap<&str, Life<'_>> {
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    for term in history.deleted() {
        lives.insert(term, Life::default());
    }
    for operation in history.operations() {
        if let Some(life) = lives.get_mut(operation.term.as_str()) {
            life.add(operation);
        }
    }
    lives
}

/// A write that was not refused.
#[derive(Debug)]
struct Step<'a> {
    operation: &'a Operation,
    /// What the term holds after it.
    after: u64,
}

/// The writes of one term, in their order.
#[derive(Debug, Default)]
pub(super) struct Life<'a> {
    steps: Vec<Step<'a>>,
    most: u64,
    /// One was begun before the one before it was settled, so that nothing is known.
    is_unordered: bool,
}

impl<'a> Life<'a> {
    fn add(&mut self, operation: &'a Operation) {
        if operation.outcome == Outcome::Refused {
            return;
        }
        let (mut held, mut follows) = (0, true);
        if let Some(last) = self.steps.last() {
            held = last.after;
            follows = last.is_answered() && last.operation.ended_us <= operation.began_us;
        }
        let after = if operation.deletes {
            0
        } else {
            held.saturating_add(operation.add)
        };
        self.is_unordered |= !follows;
        self.most = self.most.max(after);
        self.steps.push(Step { operation, after });
    }

    /// The most that the term ever held, or may have.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// The least that an answer may hold.
    pub(super) fn least(&self, sight: Sight<'_>) -> u64 {
        if self.is_unordered {
            return 0;
        }
        self.allowed(sight).first().copied().unwrap_or(0)
    }

    /// Judges what the writes were answered, each in its turn.
    pub(super) fn judge_writes(&self, term: &str) -> Vec<Violation> {
        if self.is_unordered {
            let term = term.to_owned();
            return vec![Violation::Unjudged { term }];
        }
        let mut violations = Vec::new();
        let mut held = 0;
        for step in &self.steps {
            violations.extend(step.judge(held));
            held = step.after;
        }
        violations
    }

    /// Judges a count that was read.
    pub(super) fn judge_answer(
        &self,
        to: &dyn Fn() -> Asked,
        term: &str,
        sight: Sight<'_>,
        count: u64,
    ) -> Option<Violation> {
        let allowed = self.allowed(sight);
        let is_wrong = !self.is_unordered && !allowed.contains(&count);
        is_wrong.then(|| Violation::Impossible {
            to: to(),
            term: term.to_owned(),
            allowed: allowed.into_iter().collect(),
            count,
        })
    }

    /// Judges the count that is left when everything has settled.
    pub(super) fn judge_left(&self, term: &str, count: u64) -> Option<Violation> {
        let answered = self.steps.partition_point(Step::is_answered);
        let allowed = self.counts(answered, self.steps.len());
        let is_wrong = !self.is_unordered && !allowed.contains(&count);
        is_wrong.then(|| Violation::WrongCount {
            term: term.to_owned(),
            allowed: allowed.into_iter().collect(),
            count,
        })
    }

    /// The counts that an answer may hold.
    fn allowed(&self, sight: Sight<'_>) -> BTreeSet<u64> {
        let by_time = sight.must_see_us.map_or(0, |at| {
            let is_before = |step: &Step<'_>| step.is_answered() && step.operation.ended_us < at;
            self.steps.partition_point(is_before)
        });
        let is_named = |step: &Step<'_>| step.is_named(sight);
        let named = self.steps.iter().rposition(is_named);
        let least = by_time.max(named.map_or(0, |last| last + 1));
        let is_begun = |step: &Step<'_>| step.operation.began_us <= sight.ended_us;
        self.counts(least, self.steps.partition_point(is_begun))
    }

    /// What the term holds after so many steps at least, and so many at most.
    fn counts(&self, least: usize, most: usize) -> BTreeSet<u64> {
        let after = |steps: usize| match steps.checked_sub(1) {
            None => Some(0),
            Some(last) => self.steps.get(last).map(|step| step.after),
        };
        (least..=most.max(least)).filter_map(after).collect()
    }
}

impl Step<'_> {
    fn is_answered(&self) -> bool {
        self.operation.outcome.is_acknowledged()
    }

    /// Whether what an answer had to contain reaches up to this.
    fn is_named(&self, sight: Sight<'_>) -> bool {
        let position = match self.operation.outcome {
            Outcome::Acknowledged { position, .. } | Outcome::Deleted { position, .. } => position,
            Outcome::Open | Outcome::Refused => None,
        };
        position.is_some_and(|own| {
            let mut token = sight.token.iter();
            token.any(|at| {
                (at.shard, at.incarnation) == (own.shard, own.incarnation) && own.index <= at.index
            })
        })
    }

    /// What is wrong with its answer, where the term held so much before it.
    fn judge(&self, held: u64) -> Option<Violation> {
        let operation = self.operation;
        match operation.outcome {
            // A repeat tells the count of now, which is still this one: nobody else writes the term.
            Outcome::Acknowledged { count, .. } => {
                (count != self.after).then(|| Violation::Impossible {
                    to: Asked::to_write(operation),
                    term: operation.term.clone(),
                    allowed: vec![self.after],
                    count,
                })
            }
            Outcome::Deleted { existed, .. } => {
                (existed != (held > 0)).then(|| Violation::WrongDeletion {
                    to: Asked::to_write(operation),
                    term: operation.term.clone(),
                    held,
                    existed,
                })
            }
            Outcome::Open | Outcome::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Position;

    const TERM: &str = "a+0";

    /// What is done to the term, `None` being a deletion, and when it begins. Each write takes 10, and has its number as its index.
    fn history(writes: &[(Option<u64>, u64)]) -> History {
        let mut history = History::default();
        let mut held = 0;
        for (index, (add, began)) in (0..).zip(writes) {
            let (via, term) = ("coordinators".to_owned(), TERM.to_owned());
            let position = Some(position(index));
            let (id, outcome) = match add {
                Some(add) => {
                    held += add;
                    let outcome = Outcome::Acknowledged {
                        count: held,
                        repeated: false,
                        position,
                    };
                    (history.begin(via, term, *add, *began), outcome)
                }
                None => {
                    let existed = held > 0;
                    held = 0;
                    let outcome = Outcome::Deleted { existed, position };
                    (history.begin_delete(via, term, *began), outcome)
                }
            };
            history.end(id, outcome, began + 10);
        }
        history
    }

    /// Two increments, a deletion, and another increment.
    fn whole() -> History {
        history(&[(Some(1), 100), (Some(4), 200), (None, 300), (Some(16), 400)])
    }

    fn position(index: u64) -> Position {
        Position {
            shard: 1,
            incarnation: 1,
            index,
        }
    }

    /// Whether a count may be answered: to a strict read, or to one with a token.
    fn may_be(history: &History, sight: Sight<'_>, count: u64) -> bool {
        let lives = of(history);
        let to = || Asked {
            what: "a read".to_owned(),
            began_us: 0,
            ended_us: 0,
        };
        let judged = lives[TERM].judge_answer(&to, TERM, sight, count);
        assert!(
            judged
                .iter()
                .all(|at| matches!(at, Violation::Impossible { .. }))
        );
        judged.is_none()
    }

    fn strict(began: u64, ended: u64) -> Sight<'static> {
        Sight {
            must_see_us: Some(began),
            token: &[],
            ended_us: ended,
        }
    }

    #[test]
    fn what_is_left_is_exactly_what_the_writes_give() {
        let left = |history: &History, count| of(history)[TERM].judge_left(TERM, count).is_none();
        let history = whole();
        assert!(left(&history, 16));
        // Lost, doubled, not taken away, and all three of them.
        for count in [0, 32, 17, 21, 5, 15] {
            assert!(!left(&history, count), "{count}");
        }
        // A phantom of what was deleted last.
        let mut gone = whole();
        let (via, term) = ("coordinators".to_owned(), TERM.to_owned());
        let id = gone.begin_delete(via, term, 500);
        assert!(left(&gone, 16) && left(&gone, 0) && !left(&gone, 1));
        let outcome = Outcome::Deleted {
            existed: true,
            position: None,
        };
        gone.end(id, outcome, 510);
        assert!(left(&gone, 0) && !left(&gone, 16));
    }

    #[test]
    fn a_strict_read_sees_one_count_or_the_one_before_or_after() {
        let history = whole();
        let at = |began, ended, count| may_be(&history, strict(began, ended), count);
        assert!(at(50, 60, 0) && !at(50, 60, 1));
        assert!(at(150, 160, 1) && !at(150, 160, 0) && !at(150, 160, 5));
        // While it is deleted, and when it was.
        assert!(at(305, 306, 5) && at(305, 306, 0) && !at(305, 306, 1));
        assert!(at(320, 330, 0) && !at(320, 330, 5));
        // One that began before the deletion and ended long after it may tell of any time between.
        assert!(at(290, 420, 5) && at(290, 420, 0) && at(290, 420, 16));
        assert!(!at(290, 420, 1) && !at(290, 420, 21) && !at(290, 420, 17));
    }

    #[test]
    fn a_token_demands_a_deletion_like_an_increment() {
        let history = whole();
        let with = |index: Option<u64>, count| {
            let token: Vec<Position> = index.into_iter().map(position).collect();
            let sight = Sight {
                must_see_us: None,
                token: &token,
                ended_us: 350,
            };
            may_be(&history, sight, count)
        };
        assert!(with(None, 0) && with(None, 1) && with(None, 5) && !with(None, 16));
        assert!(with(Some(1), 5) && with(Some(1), 0) && !with(Some(1), 1));
        assert!(with(Some(2), 0) && !with(Some(2), 5) && !with(Some(2), 1));
    }

    #[test]
    fn each_write_is_answered_by_what_the_others_left() {
        let judged = |change: fn(&mut History)| {
            let mut history = whole();
            change(&mut history);
            of(&history)[TERM].judge_writes(TERM)
        };
        assert_eq!(judged(|_| {}), vec![]);
        let lost = judged(|history| {
            let id = history.begin("coordinators".to_owned(), TERM.to_owned(), 64, 500);
            let outcome = Outcome::Acknowledged {
                count: 64,
                repeated: true,
                position: None,
            };
            history.end(id, outcome, 510);
        });
        let is_found = matches!(lost[..], [Violation::Impossible { count: 64, .. }]);
        assert!(is_found, "{lost:?}");
        let missed = judged(|history| {
            let id = history.begin_delete("coordinators".to_owned(), TERM.to_owned(), 500);
            let outcome = Outcome::Deleted {
                existed: false,
                position: None,
            };
            history.end(id, outcome, 510);
        });
        assert!(matches!(
            missed[..],
            [Violation::WrongDeletion {
                held: 16,
                existed: false,
                ..
            }]
        ));
    }

    #[test]
    fn writes_that_are_not_in_order_are_called_so() {
        let after_open = {
            let mut history = whole();
            history.begin("coordinators".to_owned(), TERM.to_owned(), 64, 500);
            history.begin("coordinators".to_owned(), TERM.to_owned(), 256, 600);
            history
        };
        let overlapping = history(&[(Some(1), 100), (None, 105)]);
        for history in [after_open, overlapping] {
            let lives = of(&history);
            let found = lives[TERM].judge_writes(TERM);
            assert!(matches!(found[..], [Violation::Unjudged { .. }]));
            assert_eq!(lives[TERM].judge_left(TERM, 7), None);
            assert!(may_be(&history, strict(900, 901), 7));
        }
        // A write that was refused says nothing.
        let mut refused = whole();
        let id = refused.begin("coordinators".to_owned(), TERM.to_owned(), 64, 500);
        refused.end(id, Outcome::Refused, 510);
        assert!(may_be(&refused, strict(900, 901), 16));
        assert!(!may_be(&refused, strict(900, 901), 80));
    }
}
