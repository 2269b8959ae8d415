//! What must be true of every answer, by what was asked and acknowledged before.
//!
//! Every increment of a term has a digit of its own in base 4: the k-th adds 4^k. So a count says of each
//! increment how often it was applied: lost, doubled and invented ones cannot hide behind each other. A write that failed with an
//! unknown outcome may be applied, at any time, at most once; one that was refused may not.

use std::collections::BTreeMap;
use std::time::Duration;

use api::v1::Consistency;

use crate::trace::Trace;

/// Increments of one term: 4^18 is still below the largest count of a record.
pub(crate) const INCREMENTS_MAX: usize = 19;

/// For how long a LEADER read may miss the writes of others when clocks or processes are at fault.
pub(crate) const LEASE: Duration = Duration::from_millis(450);

/// One increment, and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Increment {
    issued: Duration,
    /// When it was acknowledged, or first seen by a linearizable read.
    visible: Option<Duration>,
    refused: bool,
}

/// An increment that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) term: String,
    place: usize,
}

impl Ticket {
    /// What it adds.
    pub(crate) fn count(&self) -> u64 {
        1 << (2 * self.place)
    }
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Acknowledged, with the count that it left.
    Acked(u64),
    /// It was said that nothing happened.
    Refused,
    /// Nobody knows.
    Unknown,
    /// A bug says that it was acknowledged.
    Claimed,
}

/// Numbers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) repeats: u64,
}

/// The judge.
#[derive(Debug)]
pub(crate) struct Oracle {
    terms: BTreeMap<String, Vec<Increment>>,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
    /// Processes are paused or clocks jump in this run.
    pub(crate) loose_leases: bool,
    trace: Trace,
}

impl Oracle {
    pub(crate) fn new(trace: Trace, loose_leases: bool) -> Self {
        Self {
            terms: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
            loose_leases,
            trace,
        }
    }

    /// Every term that was ever written.
    pub(crate) fn terms(&self) -> Vec<String> {
        self.terms.keys().cloned().collect()
    }

    /// The next increment of a term; `None` when it has had all it can have.
    pub(crate) fn issue(&mut self, term: &str, now: Duration) -> Option<Ticket> {
        let increments = self.terms.entry(term.to_owned()).or_default();
        let place = increments.len();
        if place >= INCREMENTS_MAX {
            return None;
        }
        increments.push(Increment {
            issued: now,
            visible: None,
            refused: false,
        });
        Some(Ticket {
            term: term.to_owned(),
            place,
        })
    }

    /// A write, begun at `began`, has ended now.
    pub(crate) fn written(
        &mut self,
        ticket: &Ticket,
        ended: Ended,
        began: Duration,
        now: Duration,
    ) {
        let line = format!("write {} #{} {ended:?}", ticket.term, ticket.place);
        self.trace.note(now, &line);
        match ended {
            Ended::Acked(count) => {
                self.counts.acked += 1;
                if count & ticket.count() == 0 {
                    let text = format!("{line}: the count lacks the increment itself");
                    self.violate(now, &text);
                }
                self.check(
                    &ticket.term,
                    count,
                    Some(began),
                    now,
                    "the answer to a write",
                );
                self.seen(ticket, now);
            }
            Ended::Refused => {
                self.counts.refused += 1;
                if let Some(increment) = self.increment(ticket) {
                    increment.refused = true;
                }
            }
            Ended::Unknown => self.counts.unknown += 1,
            Ended::Claimed => self.seen(ticket, now),
        }
    }

    fn increment(&mut self, ticket: &Ticket) -> Option<&mut Increment> {
        self.terms.get_mut(&ticket.term)?.get_mut(ticket.place)
    }

    fn seen(&mut self, ticket: &Ticket, now: Duration) {
        if let Some(increment) = self.increment(ticket) {
            increment.visible.get_or_insert(now);
        }
    }

    /// A count was read.
    pub(crate) fn read(
        &mut self,
        term: &str,
        count: u64,
        level: Consistency,
        began: Duration,
        now: Duration,
    ) {
        self.counts.reads += 1;
        self.trace
            .note(now, &format!("read {term} {level:?} {count}"));
        let must_see = match level {
            Consistency::Linearizable => Some(began),
            Consistency::Leader | Consistency::Unspecified if self.loose_leases => {
                Some(began.saturating_sub(LEASE))
            }
            Consistency::Leader | Consistency::Unspecified => Some(began),
            Consistency::Stale => None,
        };
        self.check(term, count, must_see, now, level.as_str_name());
        if level == Consistency::Linearizable {
            let places = self.terms.get(term).map_or(0, Vec::len);
            for place in (0..places).filter(|place| count >> (2 * place) & 3 != 0) {
                let term = term.to_owned();
                self.seen(&Ticket { term, place }, now);
            }
        }
    }

    /// Judges a count; what was visible before `must_see` must be in it.
    pub(crate) fn check(
        &mut self,
        term: &str,
        count: u64,
        must_see: Option<Duration>,
        now: Duration,
        source: &str,
    ) {
        let increments = self.terms.get(term).cloned().unwrap_or_default();
        let mut faults = Vec::new();
        for (place, increment) in increments.iter().enumerate() {
            match count >> (2 * place) & 3 {
                0 => {
                    let due = must_see.zip(increment.visible);
                    if let Some((_, visible)) = due.filter(|(due, visible)| visible < due) {
                        let at = visible.as_secs_f64();
                        faults.push(format!("#{place}, visible at {at:.3}, is missing"));
                    }
                }
                1 if increment.refused => {
                    let at = increment.issued.as_secs_f64();
                    faults.push(format!(
                        "#{place}, issued at {at:.3} and refused, was applied"
                    ));
                }
                1 => {}
                times => faults.push(format!("#{place} was applied {times} times")),
            }
        }
        if count.checked_shr(2 * u32::try_from(increments.len()).unwrap_or(u32::MAX)) > Some(0) {
            faults.push("there are increments that nobody issued".to_owned());
        }
        for fault in faults {
            self.violate(now, &format!("{term} = {count:#x} ({source}): {fault}"));
        }
    }

    pub(crate) fn violate(&mut self, now: Duration, text: &str) {
        self.trace.note(now, &format!("VIOLATION {text}"));
        self.violations.push(text.to_owned());
    }

    /// The sum of everything that the terms below a prefix must have at least, and may have at most.
    pub(crate) fn note(&self, now: Duration, text: &str) {
        self.trace.note(now, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn two_increments() -> (Oracle, Ticket, Ticket) {
        let mut oracle = Oracle::new(Trace::new(false), false);
        let first = oracle.issue("term", at(1)).unwrap();
        let second = oracle.issue("term", at(1)).unwrap();
        assert_eq!((first.count(), second.count()), (1, 4));
        (oracle, first, second)
    }

    fn verdict(oracle: &Oracle) -> String {
        oracle.violations.join("; ")
    }

    #[test]
    fn lost_doubled_invented_and_refused_increments_are_told_apart() {
        let read = |count| {
            let (mut oracle, first, second) = two_increments();
            oracle.written(&first, Ended::Acked(1), at(1), at(2));
            oracle.written(&second, Ended::Refused, at(1), at(2));
            oracle.read("term", count, Consistency::Linearizable, at(3), at(3));
            verdict(&oracle)
        };
        assert_eq!(read(1), "");
        assert!(read(0).contains("#0, visible at 2.000, is missing"));
        assert!(read(2).contains("#0 was applied 2 times"));
        assert!(read(5).contains("refused, was applied"));
        assert!(read(17).contains("nobody issued"));
    }

    #[test]
    fn an_unknown_outcome_may_go_either_way_but_not_back() {
        let (mut oracle, first, second) = two_increments();
        oracle.written(&first, Ended::Unknown, at(1), at(2));
        oracle.written(&second, Ended::Unknown, at(1), at(2));
        let linear = Consistency::Linearizable;
        oracle.read("term", 0, linear, at(3), at(3));
        oracle.read("term", 4, linear, at(4), at(4));
        assert_eq!(verdict(&oracle), "");
        oracle.read("term", 0, Consistency::Stale, at(5), at(5));
        assert_eq!(verdict(&oracle), "");
        oracle.read("term", 0, linear, at(5), at(5));
        assert!(verdict(&oracle).contains("#1, visible at 4.000, is missing"));
    }

    #[test]
    fn a_leader_may_be_behind_by_one_lease_where_clocks_are_at_fault() {
        for (loose, faults) in [(false, 1), (true, 0)] {
            let mut oracle = Oracle::new(Trace::new(false), loose);
            let ticket = oracle.issue("term", at(1)).unwrap();
            oracle.written(&ticket, Ended::Acked(1), at(1), at(2));
            let soon = at(2) + LEASE / 2;
            oracle.read("term", 0, Consistency::Leader, soon, soon);
            assert_eq!(oracle.violations.len(), faults);
            let later = at(2) + LEASE * 2;
            oracle.read("term", 0, Consistency::Leader, later, later);
            assert_eq!(oracle.violations.len(), faults + 1);
        }
    }

    #[test]
    fn an_answer_holds_its_own_increment_and_all_before_it() {
        let (mut oracle, first, second) = two_increments();
        oracle.written(&first, Ended::Acked(1), at(1), at(2));
        oracle.written(&second, Ended::Acked(4), at(3), at(4));
        assert!(verdict(&oracle).contains("#0, visible at 2.000, is missing"));
        let third = oracle.issue("term", at(5)).unwrap();
        oracle.written(&third, Ended::Acked(5), at(5), at(6));
        assert!(verdict(&oracle).contains("lacks the increment itself"));
    }
}
