//! What must be true of every answer, by what was asked and acknowledged before.
//!
//! Every increment of a term has a digit of its own in base 4: the k-th adds 4^k. So a count says of each
//! increment how often it was applied: lost, doubled and invented ones cannot hide behind each other. A write that failed with an
//! unknown outcome may be applied, at any time, at most once; one that was refused may not, unless the network delivers the request once
//! more ([`Oracle::sent_again`]): as if its client had sent it again, it takes effect once then.
//!
//! A deletion or a clear (a [`Wipe`]) took effect once, at some moment between its being issued and its being acknowledged. An increment may
//! be missing only where some wipe may have come after it, and may be there only where none surely did. What a strict answer
//! showed to be gone stays gone, and where a single wipe can have done it, that wipe is known to be over.

mod doubt;
mod shown;
mod top;
mod wiped;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use api::Reason;
use api::v1::Consistency;

use crate::trace::Trace;
pub(crate) use doubt::Asked;
use doubt::Doubt;
pub(crate) use shown::Shown;
pub(crate) use top::Top;
use wiped::{Suffered, overtaken, resurrected};

/// Increments of one term: 4^18 is still below the largest count of a record.
pub(crate) const INCREMENTS_MAX: usize = 19;

/// A term of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: &'static str,
    pub(crate) term: String,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            "" => formatter.write_str(&self.term),
            namespace => write!(formatter, "{namespace}/{}", self.term),
        }
    }
}

/// One increment, and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Increment {
    issued: Duration,
    /// When it was acknowledged, or first seen by a strict read.
    visible: Option<Duration>,
    /// When a strict answer first showed that a wipe had taken it away.
    gone: Option<Duration>,
    refused: bool,
}

impl Increment {
    /// Since when it was visible, if that was before what an answer must see.
    fn due(&self, must_see: Option<Duration>) -> Option<Duration> {
        let is_before = |visible: &Duration| must_see.is_some_and(|due| *visible < due);
        self.visible.filter(is_before)
    }
}

/// What the increment at a place adds.
const fn added(place: usize) -> u64 {
    1 << (2 * place)
}

/// An increment that is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) key: Key,
    place: usize,
}

impl Ticket {
    /// What it adds.
    pub(crate) fn count(&self) -> u64 {
        added(self.place)
    }
}

/// What a deletion or a clear takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One term.
    Term(Key),
    /// All terms of a namespace, not all of them at one moment.
    Namespace(&'static str),
}

/// A deletion or a clear.
#[derive(Debug)]
struct Wipe {
    scope: Scope,
    issued: Duration,
    /// When it was acknowledged.
    done: Option<Duration>,
    /// For terms: when it was seen to have taken effect.
    seen: BTreeMap<Key, Duration>,
    refused: bool,
}

/// A wipe that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WipeTicket(usize);

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Acknowledged, with the count that it left.
    Acked(u64),
    /// Acknowledged as a repeat, with the count at that time.
    Repeated(u64),
    /// It was said that nothing happened.
    Refused,
    /// Nobody knows.
    Unknown,
    /// A bug says that it was acknowledged.
    Claimed,
}

/// How a wipe ended. One that never ended may take effect at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiped {
    /// A term was deleted that was there, or was not.
    Deleted { existed: bool },
    /// A namespace was cleared.
    Cleared,
    /// It was said that nothing happened.
    Refused,
}

/// Numbers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledgements of increments, repeats included.
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) repeats: u64,
    pub(crate) wipes: u64,
    /// Increments that were seen to be gone.
    pub(crate) gone: u64,
    /// Counts that may have been read by the lease of a leader whose clock is too slow.
    pub(crate) excused: u64,
}

/// A count as it was told, to be judged.
struct Answer<'a> {
    count: u64,
    /// What was visible before must be in it; nothing must be in one of a STALE read.
    must_see: Option<Duration>,
    now: Duration,
    source: &'a str,
    /// The wipe that tells it, from before its own effect.
    but: Option<WipeTicket>,
    /// It comes out of the log, so that what it shows has happened on the shard, and not only on the way to it.
    from_log: bool,
}

/// The judge.
#[derive(Debug)]
pub(crate) struct Oracle {
    terms: BTreeMap<Key, Vec<Increment>>,
    wipes: Vec<Wipe>,
    /// The wipes of single terms, and of namespaces.
    of_terms: BTreeMap<Key, Vec<usize>>,
    of_namespaces: BTreeMap<&'static str, Vec<usize>>,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
    /// Processes are paused or clocks jump in this run.
    pub(crate) bent_clocks: bool,
    /// What was sent until then may be delivered once more.
    sent_again: Duration,
    /// Where a leader may not know that it leads no more.
    doubts: Vec<Doubt>,
    trace: Trace,
}

impl Oracle {
    pub(crate) fn new(trace: Trace, bent_clocks: bool) -> Self {
        Self {
            terms: BTreeMap::new(),
            wipes: Vec::new(),
            of_terms: BTreeMap::new(),
            of_namespaces: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
            bent_clocks,
            sent_again: Duration::ZERO,
            doubts: Vec::new(),
            trace,
        }
    }

    /// The network delivers once more what clients and coordinators sent until a time. Who was told that nothing happened was told the
    /// truth; it may happen yet.
    pub(crate) fn sent_again(&mut self, until: Duration) {
        if until <= self.sent_again {
            return;
        }
        self.sent_again = until;
        let increments = self.terms.values_mut().flatten();
        for increment in increments.filter(|increment| increment.issued <= until) {
            increment.refused = false;
        }
        for wipe in self.wipes.iter_mut().filter(|wipe| wipe.issued <= until) {
            wipe.refused = false;
        }
    }

    /// Every term that was ever written.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.terms.keys().cloned().collect()
    }

    /// Whether a term has had all increments that it can have.
    pub(crate) fn is_full(&self, key: &Key) -> bool {
        self.terms
            .get(key)
            .is_some_and(|increments| increments.len() >= INCREMENTS_MAX)
    }

    /// The next increment of a term; `None` when it has had all it can have.
    pub(crate) fn issue(&mut self, key: &Key, now: Duration) -> Option<Ticket> {
        let increments = self.terms.entry(key.clone()).or_default();
        let place = increments.len();
        if place >= INCREMENTS_MAX {
            return None;
        }
        increments.push(Increment {
            issued: now,
            visible: None,
            gone: None,
            refused: false,
        });
        let key = key.clone();
        Some(Ticket { key, place })
    }

    /// A write, begun at `began`, has ended now.
    pub(crate) fn written(
        &mut self,
        ticket: &Ticket,
        ended: Ended,
        began: Duration,
        now: Duration,
    ) {
        let key = &ticket.key;
        let line = format!("write {key} #{} {ended:?}", ticket.place);
        self.trace.note(now, &line);
        match ended {
            Ended::Acked(count) | Ended::Repeated(count) => {
                self.counts.acked += 1;
                self.counts.repeats += u64::from(matches!(ended, Ended::Repeated(_)));
                let lacks_itself = count & ticket.count() == 0;
                let may_be_gone = matches!(ended, Ended::Repeated(_))
                    && self.increment(ticket).is_some_and(|own| {
                        let suffered = self.suffered(key, None);
                        suffered.iter().any(|wipe| wipe.excuses(own))
                    });
                if lacks_itself && !may_be_gone {
                    let text = format!("{line}: the count lacks the increment itself");
                    self.violate(now, &text);
                }
                let answer = Answer {
                    count,
                    must_see: Some(began),
                    now,
                    source: "the answer to a write",
                    but: None,
                    from_log: true,
                };
                self.check(key, &answer);
                self.seen(ticket, now);
            }
            Ended::Refused => {
                self.counts.refused += 1;
                let sent_again = self.sent_again;
                if let Some(increment) = self.increment_mut(key, ticket.place) {
                    increment.refused = increment.issued > sent_again;
                }
            }
            Ended::Unknown => self.counts.unknown += 1,
            Ended::Claimed => self.seen(ticket, now),
        }
    }

    /// A deletion or a clear begins.
    pub(crate) fn wipe(&mut self, scope: Scope, now: Duration) -> WipeTicket {
        let number = self.wipes.len();
        let same = match &scope {
            Scope::Term(key) => self.of_terms.entry(key.clone()).or_default(),
            Scope::Namespace(namespace) => self.of_namespaces.entry(namespace).or_default(),
        };
        same.push(number);
        self.wipes.push(Wipe {
            scope,
            issued: now,
            done: None,
            seen: BTreeMap::new(),
            refused: false,
        });
        WipeTicket(number)
    }

    /// The wipes that a term may have suffered from, but one.
    fn suffered(&self, key: &Key, but: Option<WipeTicket>) -> Vec<Suffered> {
        let of_term = self.of_terms.get(key).into_iter().flatten();
        let of_namespace = self.of_namespaces.get(key.namespace).into_iter().flatten();
        let numbers = of_term.chain(of_namespace).copied();
        let others = numbers.filter(|number| but != Some(WipeTicket(*number)));
        let one = |number: usize| {
            let wipe = self.wipes.get(number)?;
            let seen = wipe.seen.get(key).copied();
            Some(Suffered {
                wipe: number,
                is_of_term: matches!(wipe.scope, Scope::Term(_)),
                issued: wipe.issued,
                over: wipe.done.into_iter().chain(seen).min(),
                refused: wipe.refused,
            })
        };
        others.filter_map(one).collect()
    }

    /// A deletion or a clear has ended now.
    pub(crate) fn wiped(&mut self, ticket: WipeTicket, ended: Wiped, now: Duration) {
        let Some(wipe) = self.wipes.get(ticket.0) else {
            return;
        };
        let (scope, began) = (wipe.scope.clone(), wipe.issued);
        self.trace.note(now, &format!("wipe {scope:?} {ended:?}"));
        match (ended, &scope) {
            (Wiped::Deleted { existed: true }, Scope::Term(key)) => {
                if !self.may_be_there(key, began, ticket) {
                    let text = format!("{key} was not there when it was deleted");
                    self.violate(now, &text);
                }
            }
            (Wiped::Deleted { existed: false }, Scope::Term(key)) => {
                let answer = Answer {
                    count: 0,
                    must_see: Some(began),
                    now,
                    source: "a deletion that found nothing",
                    but: Some(ticket),
                    from_log: true,
                };
                self.check(key, &answer);
            }
            (Wiped::Deleted { .. }, Scope::Namespace(_)) | (Wiped::Cleared, _) => {}
            (Wiped::Refused, _) => {
                let sent_again = self.sent_again;
                if let Some(wipe) = self.wipes.get_mut(ticket.0) {
                    wipe.refused = wipe.issued > sent_again;
                }
                return;
            }
        }
        self.counts.wipes += 1;
        if let Some(wipe) = self.wipes.get_mut(ticket.0) {
            wipe.done.get_or_insert(now);
        }
    }

    /// Whether anything of a term may have been there at some time since `began`, as far as others than one wipe go.
    fn may_be_there(&self, key: &Key, began: Duration, but: WipeTicket) -> bool {
        let suffered = self.suffered(key, Some(but));
        let mut increments = self.terms.get(key).into_iter().flatten();
        increments.any(|increment| {
            let taken = |wipe: &Suffered| wipe.surely_took(increment, began);
            !increment.refused
                && increment.gone.is_none_or(|gone| gone >= began)
                && !suffered.iter().any(taken)
        })
    }

    fn increment(&self, ticket: &Ticket) -> Option<&Increment> {
        self.terms.get(&ticket.key)?.get(ticket.place)
    }

    fn increment_mut(&mut self, key: &Key, place: usize) -> Option<&mut Increment> {
        self.terms.get_mut(key)?.get_mut(place)
    }

    fn seen(&mut self, ticket: &Ticket, now: Duration) {
        if let Some(increment) = self.increment_mut(&ticket.key, ticket.place) {
            increment.visible.get_or_insert(now);
        }
    }

    /// A count was read.
    pub(crate) fn read(
        &mut self,
        key: &Key,
        count: u64,
        asked: impl Into<Asked>,
        began: Duration,
        now: Duration,
    ) {
        let asked: Asked = asked.into();
        let level = asked.level;
        self.counts.reads += 1;
        self.trace
            .note(now, &format!("read {key} {level:?} {count}"));
        let must_see = self.due(key, asked, began, now);
        let answer = Answer {
            count,
            must_see,
            now,
            source: level.as_str_name(),
            but: None,
            from_log: false,
        };
        self.check(key, &answer);
        if level != Consistency::Stale {
            let increments = self.terms.get_mut(key).into_iter().flatten();
            for (place, increment) in increments.enumerate() {
                if count >> (2 * place) & 3 != 0 {
                    increment.visible.get_or_insert(now);
                }
            }
        }
    }

    /// A whole list of what is below a prefix was read: what is not in it has the count 0.
    pub(crate) fn absent(
        &mut self,
        below: (&str, &str),
        found: &[String],
        asked: impl Into<Asked>,
        began: Duration,
        now: Duration,
    ) {
        let asked: Asked = asked.into();
        for key in self.missing(below, found) {
            self.read(&key, 0, asked, began, now);
        }
    }

    /// The terms below a prefix that were ever written and are not in a list.
    fn missing(&self, (namespace, prefix): (&str, &str), found: &[String]) -> Vec<Key> {
        let below = |key: &&Key| key.namespace == namespace && key.term.starts_with(prefix);
        let found: BTreeSet<&String> = found.iter().collect();
        let missing = |key: &&Key| !found.contains(&key.term);
        let keys = self.terms.keys().filter(below).filter(missing);
        keys.cloned().collect()
    }

    fn check(&mut self, key: &Key, answer: &Answer<'_>) {
        let increments = self.terms.get(key).cloned().unwrap_or_default();
        let suffered = self.suffered(key, answer.but);
        let mut faults = Vec::new();
        let (mut gone, mut over) = (Vec::new(), Vec::new());
        for (place, increment) in increments.iter().enumerate() {
            match answer.count >> (2 * place) & 3 {
                0 => {
                    let Some(visible) = increment.due(answer.must_see) else {
                        continue;
                    };
                    let mut excuses = suffered.iter().filter(|wipe| wipe.excuses(increment));
                    let Some(first) = excuses.next() else {
                        let at = visible.as_secs_f64();
                        faults.push(format!("#{place}, visible at {at:.3}, is missing"));
                        continue;
                    };
                    let rest: Vec<&Suffered> = excuses.collect();
                    let all_of_term = first.is_of_term && rest.iter().all(|wipe| wipe.is_of_term);
                    if answer.from_log || all_of_term {
                        gone.push(place);
                        if rest.is_empty() {
                            over.push(first.wipe);
                        }
                    }
                }
                1 if increment.refused => {
                    let at = increment.issued.as_secs_f64();
                    faults.push(format!(
                        "#{place}, issued at {at:.3} and refused, was applied"
                    ));
                }
                1 => faults.extend(resurrected((place, increment), &suffered, answer)),
                times => faults.push(format!("#{place} was applied {times} times")),
            }
        }
        faults.extend(overtaken(&increments, answer));
        let issued = u32::try_from(increments.len()).unwrap_or(u32::MAX);
        if answer.count.checked_shr(2 * issued) > Some(0) {
            faults.push("there are increments that nobody issued".to_owned());
        }
        for fault in faults {
            let (count, source) = (answer.count, answer.source);
            self.violate(
                answer.now,
                &format!("{key} = {count:#x} ({source}): {fault}"),
            );
        }
        for place in gone {
            self.take_away(key, place, answer.now);
        }
        for wipe in over {
            if let Some(wipe) = self.wipes.get_mut(wipe) {
                wipe.seen.entry(key.clone()).or_insert(answer.now);
            }
        }
    }

    fn take_away(&mut self, key: &Key, place: usize, now: Duration) {
        if let Some(increment) = self.increment_mut(key, place)
            && increment.gone.is_none()
        {
            increment.gone = Some(now);
            self.counts.gone += 1;
        }
    }

    pub(crate) fn violate(&mut self, now: Duration, text: &str) {
        self.trace.note(now, &format!("VIOLATION {text}"));
        self.violations.push(text.to_owned());
    }

    /// A request was answered with an error. Whatever was sent is younger than what a shard remembers, unless clocks jump, and no
    /// client uses an id for two things: nobody may be told otherwise.
    pub(crate) fn failed(&mut self, now: Duration, error: &str, reason: Option<Reason>) {
        let line = format!("failed: {error}");
        self.trace.note(now, &line);
        let is_wrong = match reason {
            Some(Reason::SessionExpired) => !self.bent_clocks,
            Some(Reason::RequestIdReused) => true,
            _ => false,
        };
        if is_wrong {
            self.violate(now, &line);
        }
    }
}

#[cfg(test)]
mod tests;
