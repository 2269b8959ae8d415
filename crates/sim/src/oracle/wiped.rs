//! What deletions and clears excuse, and what they forbid.

use std::time::Duration;

use super::{Answer, Increment};

/// What one term may have suffered from a wipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suffered {
    pub(super) wipe: usize,
    pub(super) is_of_term: bool,
    pub(super) issued: Duration,
    /// When its effect on the term was over at the latest.
    pub(super) over: Option<Duration>,
    pub(super) refused: bool,
}

impl Suffered {
    /// Whether it may have come after an increment.
    pub(super) fn excuses(&self, increment: &Increment) -> bool {
        !self.refused && self.over.is_none_or(|over| over >= increment.issued)
    }

    /// Whether it surely came after an increment, and was surely over before a time.
    pub(super) fn surely_took(&self, increment: &Increment, before: Duration) -> bool {
        increment
            .visible
            .is_some_and(|visible| self.issued > visible)
            && self.over.is_some_and(|over| over < before)
    }
}

/// What is wrong with an increment's being there.
pub(super) fn resurrected(
    (place, increment): (usize, &Increment),
    suffered: &[Suffered],
    answer: &Answer<'_>,
) -> Option<String> {
    let must_see = answer.must_see?;
    if let Some(gone) = increment.gone.filter(|gone| *gone < must_see) {
        let at = gone.as_secs_f64();
        return Some(format!("#{place}, gone at {at:.3}, is there again"));
    }
    let mut took = suffered
        .iter()
        .filter(|wipe| wipe.surely_took(increment, must_see));
    let at = took.next()?.issued.as_secs_f64();
    Some(format!(
        "#{place} is there in spite of what was deleted at {at:.3}"
    ))
}

/// A wipe takes what came before it: where an increment is there, those that surely came after it must be, too.
pub(super) fn overtaken(increments: &[Increment], answer: &Answer<'_>) -> Option<String> {
    let due = answer.must_see?;
    let there = |place: usize| answer.count >> (2 * place) & 3 != 0;
    let all = || increments.iter().enumerate();
    let earliest = all()
        .filter(|(place, _)| there(*place))
        .filter_map(|(place, increment)| Some((increment.visible?, place)))
        .min()?;
    let (visible, kept) = earliest;
    let later = |(place, increment): &(usize, &Increment)| {
        !there(*place)
            && increment.issued > visible
            && increment.visible.is_some_and(|seen| seen < due)
    };
    let (lost, _) = all().find(later)?;
    Some(format!(
        "#{lost} is missing, and #{kept}, which came before it, is there"
    ))
}
