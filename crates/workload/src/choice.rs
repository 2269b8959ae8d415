//! Choices among terms, as people make them.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// A stream of choices that depends on its seed alone.
#[derive(Debug, Clone)]
pub struct Choice(SplitMix64);

impl Choice {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A term: the one in place r about 1/r as often as the first, as searches are. "" when there are none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a choice among far fewer than 2^53"
    )]
    pub fn term<'a>(&mut self, terms: &'a [String]) -> &'a str {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = (unit * (terms.len() as f64 + 1.0).ln()).exp() as usize;
        let place = rank.saturating_sub(1).min(terms.len().saturating_sub(1));
        terms.get(place).map_or("", String::as_str)
    }

    /// A term, each as often as any other. "" when there are none.
    pub fn uniform<'a>(&mut self, terms: &'a [String]) -> &'a str {
        let place = usize::try_from(self.below(terms.len() as u64)).unwrap_or(0);
        terms.get(place).map_or("", String::as_str)
    }

    /// What has been typed of a term at some keystroke.
    pub fn typed<'a>(&mut self, term: &'a str) -> &'a str {
        let typed = self.below(term.len() as u64) + 1;
        first_bytes(term, usize::try_from(typed).unwrap_or(usize::MAX))
    }
}

/// As much of a term as lies in its first bytes and ends between characters.
pub(crate) fn first_bytes(term: &str, bytes: usize) -> &str {
    term.get(..term.floor_char_boundary(bytes)).unwrap_or(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_terms_are_chosen_more_often_and_all_can_be() {
        let terms: Vec<_> = (0..10).map(|number| number.to_string()).collect();
        let mut choice = Choice::new(1);
        let mut chosen = [0_u32; 10];
        for _ in 0..20_000 {
            chosen[choice.term(&terms).parse::<usize>().unwrap()] += 1;
        }
        assert!(chosen[0] > chosen[1] && chosen[1] > chosen[4] && chosen[4] > chosen[9]);
        assert!(chosen[9] > 300, "{chosen:?}");
    }

    #[test]
    fn a_prefix_ends_between_characters() {
        let term = "żółć";
        let mut choice = Choice::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(choice.typed(term).chars().count());
        }
        assert!(seen.contains(&1) && seen.contains(&4));
    }
}
