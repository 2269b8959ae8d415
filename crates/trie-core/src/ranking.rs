//! Chooses the first-ranked few of many offered terms.

use std::ops::Range;

use crate::display::Display;
use crate::order::compare;
use crate::top_list::{TopEntry, TopList};

/// Keeps the `k` first-ranked of the terms it is offered.
pub(crate) struct Ranking {
    k: usize,
    /// In order.
    kept: Vec<Kept>,
    /// Suffixes and display forms of what is, or was, kept.
    text: Vec<u8>,
}

struct Kept {
    count: u64,
    suffix: Range<usize>,
    display: Option<Range<usize>>,
}

impl Ranking {
    pub(crate) fn new(k: usize) -> Self {
        Self {
            k,
            kept: Vec::with_capacity(k),
            text: Vec::new(),
        }
    }

    /// Whether a term with this count and this suffix, or a greater one, would be kept.
    pub(crate) fn would_keep(&self, count: u64, suffix: &[u8]) -> bool {
        match self.kept.last() {
            Some(last) if self.kept.len() == self.k => compare(
                (count, suffix),
                (last.count, &self.text[last.suffix.clone()]),
            )
            .is_lt(),
            Some(_) | None => true,
        }
    }

    /// Offers the term with the suffix `before` and `suffix` joined.
    pub(crate) fn offer(
        &mut self,
        before: &[u8],
        suffix: &[u8],
        count: u64,
        display: Option<Display<'_>>,
    ) {
        let is_full = self.kept.len() == self.k;
        if is_full && self.kept.last().is_some_and(|last| count < last.count) {
            return;
        }
        let start = self.text.len();
        self.text.extend_from_slice(before);
        self.text.extend_from_slice(suffix);
        let own = start..self.text.len();
        let place = self.kept.partition_point(|kept| {
            compare(
                (kept.count, &self.text[kept.suffix.clone()]),
                (count, &self.text[own.clone()]),
            )
            .is_lt()
        });
        if place == self.k {
            self.text.truncate(start);
            return;
        }
        let display = display.map(|display| {
            let start = self.text.len();
            display.put_again(&mut self.text);
            start..self.text.len()
        });
        if is_full {
            self.kept.pop();
        }
        self.kept.insert(
            place,
            Kept {
                count,
                suffix: own,
                display,
            },
        );
    }

    /// What was kept, as a list.
    pub(crate) fn to_list(&self) -> TopList {
        TopList::from_ranked(self.kept.iter().map(|kept| {
            let display = kept
                .display
                .clone()
                .and_then(|range| Display::get(&self.text[range], &mut 0));
            let suffix = &self.text[kept.suffix.clone()];
            (
                TopEntry {
                    count: kept.count,
                    suffix,
                    display,
                },
                [].as_slice(),
            )
        }))
    }
}
