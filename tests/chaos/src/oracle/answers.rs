//! Judges every answer that was given while the run went on, by when it was asked and answered.
//!
//! Pure. A strict read, and the answer to a Record, holds at least what was acknowledged before it was begun. Every answer holds at least
//! what its token names, and at most what had been sent by the time it came. A list is in order, holds nothing that nobody sent, and lacks no
//! term that must be on it. Terms that are deleted, too, are judged by [`super::lives`].

use std::collections::{BTreeMap, BTreeSet};

use super::lives::{self, Life};
use super::{Asked, Violation};
use crate::history::{
    Answer, Bounds, History, Level, Operation, Outcome, Position, Question, Read,
};

/// For how long a LEADER read without a token may miss the writes of others while processes stand still, and on a busy machine any
/// process may: the lease of the default election timeout.
const LEASE_US: u64 = 225_000;

/// Judges all answers of a run.
#[must_use]
pub fn judge_answers(history: &History) -> Vec<Violation> {
    let judge = Judge::new(history);
    let mut violations = Vec::new();
    for operation in history.operations() {
        violations.extend(judge.acknowledgement(operation));
    }
    for (term, life) in &judge.lives {
        violations.extend(life.judge_writes(term));
    }
    for read in history.reads() {
        judge.read(read, &mut violations);
    }
    violations
}

/// Sums that grow with a moment or a place in a log.
#[derive(Debug, Default)]
struct Steps(Vec<(u64, u64)>);

impl Steps {
    fn add(&mut self, at: u64, add: u64) {
        self.0.push((at, add));
    }

    /// To be called once, when all is added.
    fn sum_up(&mut self) {
        self.0.sort_unstable();
        let mut sum: u64 = 0;
        for (_, step) in &mut self.0 {
            sum = sum.saturating_add(*step);
            *step = sum;
        }
    }

    fn before(&self, at: u64) -> u64 {
        self.first(self.0.partition_point(|(moment, _)| *moment < at))
    }

    fn up_to(&self, at: u64) -> u64 {
        self.first(self.0.partition_point(|(moment, _)| *moment <= at))
    }

    fn first(&self, steps: usize) -> u64 {
        let last = steps.checked_sub(1).and_then(|last| self.0.get(last));
        last.map_or(0, |(_, sum)| *sum)
    }
}

/// What is known of a term.
#[derive(Debug, Default)]
struct Known {
    has_digits: bool,
    /// All that was acknowledged in the end.
    settled: u64,
    /// By the moment of the acknowledgement.
    acknowledged: Steps,
    /// By the moment at which it was begun; what was refused is not in it.
    attempted: Steps,
    /// What was acknowledged by its index, for each shard and life.
    applied: BTreeMap<(u64, u64), Steps>,
}

/// What an answer must see, and may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    /// What was acknowledged before this; nothing where it is `None`.
    pub(super) must_see_us: Option<u64>,
    pub(super) token: &'a [Position],
    pub(super) ended_us: u64,
}

impl Known {
    fn note(&mut self, operation: &Operation) {
        match operation.outcome {
            Outcome::Deleted { .. } | Outcome::Refused => return,
            Outcome::Open => {}
            Outcome::Acknowledged { position, .. } => {
                self.settled = self.settled.saturating_add(operation.add);
                self.acknowledged.add(operation.ended_us, operation.add);
                if let Some(at) = position {
                    let log = self.applied.entry((at.shard, at.incarnation));
                    log.or_default().add(at.index, operation.add);
                }
            }
        }
        self.attempted.add(operation.began_us, operation.add);
    }

    fn sum_up(&mut self) {
        self.acknowledged.sum_up();
        self.attempted.sum_up();
        self.applied.values_mut().for_each(Steps::sum_up);
    }

    fn bounds(&self, sight: Sight<'_>) -> Bounds {
        let by_time = sight
            .must_see_us
            .map_or(0, |at| self.acknowledged.before(at));
        let acknowledged = sight.token.iter().fold(by_time, |least, position| {
            let log = self.applied.get(&(position.shard, position.incarnation));
            let named = log.map_or(0, |log| log.up_to(position.index));
            if self.has_digits {
                least | named
            } else {
                least.max(named)
            }
        });
        Bounds {
            acknowledged,
            possible: self.attempted.up_to(sight.ended_us),
            has_digits: self.has_digits,
        }
    }
}

struct Judge<'a> {
    terms: BTreeMap<&'a str, Known>,
    /// The terms that were deleted, which are not among the others.
    lives: BTreeMap<&'a str, Life<'a>>,
}

impl<'a> Judge<'a> {
    fn new(history: &'a History) -> Self {
        let lives = lives::of(history);
        let mut terms: BTreeMap<&str, Known> = BTreeMap::new();
        for operation in history.operations() {
            if !lives.contains_key(operation.term.as_str()) {
                terms.entry(&operation.term).or_default().note(operation);
            }
        }
        for (term, bounds) in history.bounds() {
            if let Some(known) = terms.get_mut(term) {
                known.has_digits = bounds.has_digits;
                known.sum_up();
            }
        }
        Self { terms, lives }
    }

    /// The count of an acknowledgement is as good as a strict read, and holds the increment itself.
    fn acknowledgement(&self, operation: &Operation) -> Option<Violation> {
        let Outcome::Acknowledged { count, .. } = operation.outcome else {
            return None;
        };
        let known = self.terms.get(operation.term.as_str())?;
        let mut bounds = known.bounds(Sight {
            must_see_us: Some(operation.began_us),
            token: &[],
            ended_us: operation.ended_us,
        });
        bounds.acknowledged += operation.add;
        let to = || Asked::to_write(operation);
        judge_count(&to, &operation.term, bounds, count)
    }

    fn read(&self, read: &Read, violations: &mut Vec<Violation>) {
        let sight = Sight {
            must_see_us: match read.level {
                Level::Linearizable => Some(read.began_us),
                Level::Leader => Some(read.began_us.saturating_sub(LEASE_US)),
                Level::Stale => None,
            },
            token: &read.token,
            ended_us: read.ended_us,
        };
        match (&read.question, &read.answer) {
            (Question::Count { term }, Answer::Count { count }) => {
                violations.extend(self.count(read, sight, term, *count));
            }
            (Question::TopK { prefix, k }, Answer::TopK { list, missing, .. }) => {
                let problem = wrong_form(prefix, *k, list);
                violations.extend(problem.map(|problem| Violation::WrongList {
                    to: asked(read),
                    problem,
                }));
                let listing = Listing {
                    prefix,
                    is_full: list.len() >= *k as usize,
                    list,
                    missing,
                };
                self.listed(read, sight, list, violations);
                self.unlisted(read, sight, &listing, violations);
            }
            (_, Answer::Failed { .. }) => {}
            (Question::Count { .. }, Answer::TopK { .. })
            | (Question::TopK { .. }, Answer::Count { .. }) => {
                violations.push(Violation::WrongList {
                    to: asked(read),
                    problem: "the answer to another question".to_owned(),
                });
            }
        }
    }

    /// One count of an answer. Of a term that nobody ever sent, nothing can be there.
    fn count(&self, read: &Read, sight: Sight<'_>, term: &str, count: u64) -> Option<Violation> {
        let to = || asked(read);
        if let Some(life) = self.lives.get(term) {
            return life.judge_answer(&to, term, sight, count);
        }
        let known = self.terms.get(term);
        let bounds = known.map_or(Bounds::default(), |known| known.bounds(sight));
        judge_count(&to, term, bounds, count)
    }

    fn listed(
        &self,
        read: &Read,
        sight: Sight<'_>,
        list: &[(String, u64)],
        violations: &mut Vec<Violation>,
    ) {
        for (term, count) in list {
            let was_sent =
                self.terms.contains_key(term.as_str()) || self.lives.contains_key(term.as_str());
            if was_sent {
                violations.extend(self.count(read, sight, term, *count));
            } else {
                violations.push(Violation::Invented {
                    term: term.clone(),
                    count: *count,
                });
            }
        }
    }

    /// Terms that are not on a list and must be.
    fn unlisted(
        &self,
        read: &Read,
        sight: Sight<'_>,
        listing: &Listing<'_>,
        violations: &mut Vec<Violation>,
    ) {
        let list = listing.list.iter();
        let on_it: BTreeSet<&str> = list.map(|(term, _)| term.as_str()).collect();
        // Most terms are ruled out by what they came to at most.
        let is_ruled_out = |term: &str, most: u64| {
            most == 0
                || listing.outranks(term, most)
                || on_it.contains(term)
                || listing.misses(term)
        };
        let mut require = |term: &str, required: u64| {
            if required > 0 && !listing.outranks(term, required) {
                violations.push(Violation::TooOld {
                    to: asked(read),
                    term: term.to_owned(),
                    required,
                    count: 0,
                });
            }
        };
        let below = self.terms.range(listing.prefix..);
        let below = below.take_while(|(term, _)| term.starts_with(listing.prefix));
        for (term, known) in below {
            if !is_ruled_out(term, known.settled) {
                require(term, known.bounds(sight).acknowledged);
            }
        }
        let below = self.lives.range(listing.prefix..);
        let below = below.take_while(|(term, _)| term.starts_with(listing.prefix));
        for (term, life) in below {
            if !is_ruled_out(term, life.most()) {
                require(term, life.least(sight));
            }
        }
    }
}

/// A list, and what it says of itself.
struct Listing<'a> {
    prefix: &'a str,
    /// As many terms as were asked for.
    is_full: bool,
    list: &'a [(String, u64)],
    missing: &'a [(String, String)],
}

impl Listing<'_> {
    /// Whether a term with this count comes after the end of the list.
    fn outranks(&self, term: &str, count: u64) -> bool {
        let last = self.list.last().filter(|_| self.is_full);
        last.is_some_and(|(other, least)| {
            count < *least || count == *least && other.as_str() < term
        })
    }

    /// Whether a term is in a range that the list knows nothing of.
    fn misses(&self, term: &str) -> bool {
        let mut ranges = self.missing.iter();
        ranges.any(|(start, end)| start.as_str() <= term && (end.is_empty() || term < end.as_str()))
    }
}

fn asked(read: &Read) -> Asked {
    let Read {
        level,
        question,
        via,
        ..
    } = read;
    Asked {
        what: format!("{level:?} {question:?} via {via}"),
        began_us: read.began_us,
        ended_us: read.ended_us,
    }
}

fn judge_count(
    to: &dyn Fn() -> Asked,
    term: &str,
    bounds: Bounds,
    count: u64,
) -> Option<Violation> {
    if bounds.lacks(count) {
        return Some(Violation::TooOld {
            to: to(),
            term: term.to_owned(),
            required: bounds.acknowledged,
            count,
        });
    }
    bounds.exceeds(count).then(|| Violation::TooMuch {
        to: to(),
        term: term.to_owned(),
        possible: bounds.possible,
        count,
    })
}

/// What is wrong with a list, whatever the counts are.
fn wrong_form(prefix: &str, k: u32, list: &[(String, u64)]) -> Option<String> {
    if list.len() > k as usize {
        return Some(format!("{} terms where {k} were asked for", list.len()));
    }
    let mut terms = list.iter().map(|(term, _)| term);
    if let Some(term) = terms.find(|term| !term.starts_with(prefix)) {
        return Some(format!("{term:?} is not below the prefix"));
    }
    if let Some((term, _)) = list.iter().find(|(_, count)| *count == 0) {
        return Some(format!("{term:?} with a count of 0"));
    }
    let mut seen = BTreeSet::new();
    if let Some((term, _)) = list.iter().find(|(term, _)| !seen.insert(term)) {
        return Some(format!("{term:?} is listed twice"));
    }
    let is_out_of_order = |pair: &&[(String, u64)]| match pair {
        [one, next] => one.1 < next.1 || one.1 == next.1 && one.0 >= next.0,
        _ => false,
    };
    let pair = list.windows(2).find(is_out_of_order)?;
    Some(format!("out of order: {pair:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of a term: what they add, when they were begun and ended, their index; one without an index was never answered.
    fn history(records: &[(&str, u64, u64, u64, Option<u64>)]) -> History {
        let mut history = History::default();
        for (term, add, began, ended, index) in records {
            let via = "coordinators".to_owned();
            let id = history.begin(via, (*term).to_owned(), *add, *began);
            if let Some(index) = index {
                let outcome = Outcome::Acknowledged {
                    count: *add,
                    repeated: false,
                    position: Some(position(*index)),
                };
                history.end(id, outcome, *ended);
            }
        }
        history
    }

    fn position(index: u64) -> Position {
        Position {
            shard: 1,
            incarnation: 1,
            index,
        }
    }

    fn count(level: Level, token: &[u64], (began_us, ended_us): (u64, u64), count: u64) -> Read {
        Read {
            via: "shard-1".to_owned(),
            level,
            question: Question::Count {
                term: "a".to_owned(),
            },
            token: token.iter().copied().map(position).collect(),
            began_us,
            ended_us,
            answer: Answer::Count { count },
        }
    }

    fn list(prefix: &str, k: u32, list: &[(&str, u64)], missing: &[(&str, &str)]) -> Read {
        let owned = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
        let terms = list
            .iter()
            .map(|(term, count)| ((*term).to_owned(), *count));
        Read {
            question: Question::TopK {
                prefix: prefix.to_owned(),
                k,
            },
            answer: Answer::TopK {
                list: terms.collect(),
                missing: missing.iter().map(owned).collect(),
                positions: Vec::new(),
            },
            ..count(Level::Linearizable, &[], (1_000, 1_010), 0)
        }
    }

    /// The read alone: the acknowledgements are only as right as a test needs them.
    fn judged(history: &History, read: Read) -> Vec<Violation> {
        let mut violations = Vec::new();
        Judge::new(history).read(&read, &mut violations);
        violations
    }

    fn is_too_old(violations: &[Violation]) -> bool {
        matches!(violations, [Violation::TooOld { .. }])
    }

    fn is_too_much(violations: &[Violation]) -> bool {
        matches!(violations, [Violation::TooMuch { .. }])
    }

    /// Two increments that were acknowledged, at 100 and at 500,000, and one that was begun at 600,000 and stayed open.
    fn three() -> History {
        history(&[
            ("a", 2, 50, 100, Some(7)),
            ("a", 3, 400_000, 500_000, Some(9)),
            ("a", 5, 600_000, 0, None),
        ])
    }

    #[test]
    fn a_strict_read_holds_what_was_acknowledged_before_it_began() {
        let at = |began, ended, told| {
            judged(
                &three(),
                count(Level::Linearizable, &[], (began, ended), told),
            )
        };
        assert_eq!(at(500_001, 500_002, 5), vec![]);
        assert!(is_too_old(&at(500_001, 500_002, 2)));
        // What was under way may be there or not.
        assert_eq!(at(450_000, 450_001, 2), vec![]);
        assert_eq!(at(450_000, 450_001, 5), vec![]);
        assert_eq!(at(700_000, 700_001, 10), vec![]);
        assert!(is_too_much(&at(450_000, 450_001, 10)));
        assert!(is_too_much(&at(700_000, 700_001, 11)));
    }

    #[test]
    fn a_leader_read_may_miss_one_lease_and_no_more() {
        let at = |began, told| {
            let read = count(Level::Leader, &[], (began, began + 1), told);
            judged(&three(), read)
        };
        assert_eq!(at(500_001 + LEASE_US - 1, 2), vec![]);
        assert!(is_too_old(&at(500_001 + LEASE_US, 2)));
    }

    #[test]
    fn a_stale_read_holds_what_its_token_names_and_nothing_that_was_not_sent() {
        let with = |token: &[u64], told| {
            let read = count(Level::Stale, token, (900_000, 900_001), told);
            judged(&three(), read)
        };
        assert_eq!(with(&[], 0), vec![]);
        assert_eq!(with(&[8], 2), vec![]);
        assert!(is_too_old(&with(&[8], 0)));
        assert!(is_too_old(&with(&[9], 2)));
        assert!(is_too_much(&with(&[], 11)));
    }

    #[test]
    fn digits_tell_a_lost_increment_from_a_doubled_one() {
        let records = history(&[("a", 1, 0, 10, Some(1)), ("a", 4, 20, 30, Some(2))]);
        let at = |told| {
            let read = count(Level::Linearizable, &[], (100, 110), told);
            judged(&records, read)
        };
        assert_eq!(at(5), vec![]);
        assert!(is_too_old(&at(4)));
        assert!(is_too_old(&at(2)));
        assert!(is_too_much(&at(5 + 4)));
    }

    #[test]
    fn an_acknowledgement_holds_itself_and_what_came_before() {
        let with = |second: u64| {
            let mut history = history(&[("a", 1, 0, 10, Some(1))]);
            let id = history.begin("shard-1".to_owned(), "a".to_owned(), 4, 20);
            let outcome = Outcome::Acknowledged {
                count: second,
                repeated: true,
                position: None,
            };
            history.end(id, outcome, 30);
            judge_answers(&history)
        };
        assert_eq!(with(5), vec![]);
        assert!(is_too_old(&with(4)));
        assert!(is_too_old(&with(1)));
        assert!(is_too_much(&with(21)));
    }

    /// Two batches over `a` and `b`, acknowledged at 20 and 120 at the places 3 and 4 of two logs.
    fn batches() -> History {
        let mut history = History::default();
        for (number, add) in [(0_u64, 1), (1, 4)] {
            let items = ["a", "b"].map(|term| api::v1::RecordItem {
                term: term.to_owned(),
                count: add,
            });
            let began = 100 * number;
            let ids = history.begin_batch("coordinators", &items, began + 10);
            for (id, shard) in ids.into_iter().zip([1, 2]) {
                let outcome = Outcome::Acknowledged {
                    count: [1, 5][number as usize],
                    repeated: false,
                    position: Some(Position {
                        shard,
                        ..position(3 + number)
                    }),
                };
                history.end(id, outcome, began + 20);
            }
        }
        history
    }

    /// What a LINEARIZABLE read is judged that was told a count at a time.
    fn strictly(history: &History, at: u64, told: u64) -> Vec<Violation> {
        let read = count(Level::Linearizable, &[], (at, at + 1), told);
        judged(history, read)
    }

    /// What a STALE read with a token is judged that was told a count when all was over.
    fn late(history: &History, token: &[u64], told: u64) -> Vec<Violation> {
        judged(history, count(Level::Stale, token, (900, 901), told))
    }

    #[test]
    fn a_read_holds_its_part_of_every_batch_before_it() {
        let history = batches();
        assert_eq!(judge_answers(&history), vec![]);
        let strict = |at, told| strictly(&history, at, told);
        assert_eq!(strict(50, 1), vec![]);
        assert!(is_too_old(&strict(50, 0)));
        assert!(is_too_much(&strict(50, 5)));
        assert_eq!(strict(115, 1), vec![]);
        assert_eq!(strict(115, 5), vec![]);
        assert!(is_too_old(&strict(130, 1)));
        assert!(is_too_old(&strict(130, 4)));
        assert!(is_too_much(&strict(130, 13)));
        let stale = |token: &[u64], told| late(&history, token, told);
        assert_eq!(stale(&[3], 1), vec![]);
        assert!(is_too_old(&stale(&[4], 1)));
        assert!(is_too_much(&stale(&[], 16)));
    }

    /// The term `a`: 1 and 4 are added, it is deleted, and 16 are added; each takes 10, and has its number as its index.
    fn deleted() -> History {
        let mut history = history(&[("a", 1, 100, 110, Some(1)), ("b", 3, 100, 110, Some(9))]);
        let (via, term) = (|| "coordinators".to_owned(), || "a".to_owned());
        let acknowledged = |count, index| Outcome::Acknowledged {
            count,
            repeated: false,
            position: Some(position(index)),
        };
        let id = history.begin(via(), term(), 4, 200);
        history.end(id, acknowledged(5, 2), 210);
        let id = history.begin_delete(via(), term(), 300);
        let outcome = Outcome::Deleted {
            existed: true,
            position: Some(position(3)),
        };
        history.end(id, outcome, 310);
        let id = history.begin(via(), term(), 16, 400);
        history.end(id, acknowledged(16, 4), 410);
        history
    }

    fn is_impossible(violations: &[Violation]) -> bool {
        matches!(violations, [Violation::Impossible { .. }])
    }

    #[test]
    fn what_was_deleted_is_gone_from_every_answer() {
        let history = deleted();
        assert_eq!(judge_answers(&history), vec![]);
        let strict = |at, told| strictly(&history, at, told);
        assert_eq!(strict(250, 5), vec![]);
        assert!(is_impossible(&strict(250, 1)));
        assert_eq!(strict(350, 0), vec![]);
        assert!(is_impossible(&strict(350, 5)));
        assert_eq!(strict(450, 16), vec![]);
        for told in [0, 5, 17, 21, 32] {
            assert!(is_impossible(&strict(450, told)), "{told}");
        }
        let stale = |token: &[u64], told| late(&history, token, told);
        assert_eq!(stale(&[], 5), vec![]);
        assert_eq!(stale(&[3], 0), vec![]);
        assert!(is_impossible(&stale(&[3], 5)));
        assert!(is_impossible(&stale(&[4], 0)));
    }

    #[test]
    fn a_list_has_a_deleted_term_exactly_while_it_is_there() {
        let history = deleted();
        let at = |began_us, told: &[(&str, u64)]| {
            let read = Read {
                began_us,
                ended_us: began_us + 1,
                ..list("", 9, told, &[])
            };
            judged(&history, read)
        };
        assert_eq!(at(250, &[("a", 5), ("b", 3)]), vec![]);
        assert_eq!(at(350, &[("b", 3)]), vec![]);
        assert_eq!(at(450, &[("a", 16), ("b", 3)]), vec![]);
        assert!(is_too_old(&at(250, &[("b", 3)])));
        assert!(is_too_old(&at(450, &[("b", 3)])));
        assert!(is_impossible(&at(350, &[("a", 5), ("b", 3)])));
        assert!(is_impossible(&at(450, &[("a", 21), ("b", 3)])));
    }

    #[test]
    fn a_list_has_each_term_once_and_none_of_nothing() {
        let wrong = |told: &[(&str, u64)]| {
            let told = told
                .iter()
                .map(|(term, count)| ((*term).to_owned(), *count));
            wrong_form("a", 3, &told.collect::<Vec<_>>()).is_some()
        };
        assert!(!wrong(&[("ab", 5), ("aa", 4), ("ac", 1)]));
        // In order, each of them.
        assert!(wrong(&[("ab", 5), ("aa", 4), ("ab", 3)]));
        assert!(wrong(&[("ab", 5), ("ab", 4)]));
        assert!(wrong(&[("ab", 5), ("ab", 5)]));
        assert!(wrong(&[("ab", 5), ("aa", 0)]));
    }

    #[test]
    fn a_list_is_in_order_and_lacks_nothing() {
        let records = history(&[
            ("aa", 5, 0, 10, Some(1)),
            ("ab", 5, 0, 10, Some(2)),
            ("ac", 3, 0, 10, Some(3)),
            ("b", 9, 0, 10, Some(4)),
        ]);
        let with = |k, told: &[(&str, u64)], missing: &[(&str, &str)]| {
            judged(&records, list("a", k, told, missing))
        };
        let is_wrong =
            |found: &[Violation]| matches!(found.first(), Some(Violation::WrongList { .. }));
        let whole = [("aa", 5), ("ab", 5), ("ac", 3)];
        assert_eq!(with(3, &whole, &[]), vec![]);
        assert_eq!(with(2, &whole[..2], &[]), vec![]);
        assert!(is_wrong(&with(2, &whole, &[])));
        assert!(is_wrong(&with(2, &[("ab", 5), ("aa", 5)], &[])));
        assert!(is_wrong(&with(3, &[("b", 9), ("aa", 5), ("ab", 5)], &[])));
        // What is not on the list must be outranked by its end, or be said to be missing.
        assert!(is_too_old(&with(2, &[("aa", 5), ("ac", 3)], &[])));
        assert!(is_too_old(&with(3, &whole[..2], &[])));
        assert_eq!(with(3, &whole[..2], &[("ac", "")]), vec![]);
        assert!(matches!(
            with(3, &[("ax", 7), ("aa", 5), ("ab", 5)], &[])[..],
            [Violation::Invented { .. }]
        ));
        assert!(is_too_much(&with(
            3,
            &[("aa", 5), ("ab", 5), ("ac", 4)],
            &[]
        )));
    }
}
