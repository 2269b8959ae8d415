//! Terms that nobody searched for.

use crate::Choice;

const SYLLABLES: [&str; 32] = [
    "ba", "be", "bo", "ca", "co", "da", "de", "di", "do", "fa", "fi", "ga", "go", "ha", "he", "ka",
    "ki", "la", "le", "li", "lo", "ma", "me", "mi", "na", "ne", "no", "ra", "re", "sa", "ta", "to",
];

/// Made-up terms of one to three words. Some short ones come more than once.
#[must_use]
pub fn generate(number: u32, seed: u64) -> Vec<String> {
    let mut choice = Choice::new(seed);
    let mut terms = Vec::new();
    for _ in 0..number {
        let mut term = String::new();
        for word in 0..=choice.below(3) {
            if word > 0 {
                term.push(' ');
            }
            for _ in 0..2 + choice.below(3) {
                term.push_str(SYLLABLES[usize::try_from(choice.below(32)).unwrap_or(0)]);
            }
        }
        terms.push(term);
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_terms() {
        let terms = generate(1_000, 7);
        assert_eq!(terms, generate(1_000, 7));
        assert_ne!(terms, generate(1_000, 8));
        assert!(
            terms
                .iter()
                .all(|term| term::Term::new(term).unwrap().as_str() == term)
        );
    }
}
