//! The terms of a run, and the choices that are made among them.

use anyhow::Context as _;
use api::v1;
use client::Client;
use cluster::limits;
use runtime::Runtime;

use super::args::{BenchArgs, Workload};
use crate::load;

/// Terms that are kept of a file.
const TERMS_MAX: usize = 1_000_000;

const GENERATED_DEFAULT: u32 = 100_000;

/// The terms to use; never empty.
pub(super) async fn gather(
    runtime: &Runtime,
    client: &Client,
    arguments: &BenchArgs,
) -> Result<Vec<String>, anyhow::Error> {
    let is_top_k = arguments.workload == Workload::TopK;
    let terms = match (&arguments.terms, arguments.generated) {
        (Some(path), _) => {
            let path = path.clone();
            let read = move || load::read_terms(&path, TERMS_MAX);
            runtime.spawn_blocking("terms", read).await??
        }
        (None, None) if is_top_k => most_frequent(client, arguments).await?,
        (None, generated) => generate(generated.unwrap_or(GENERATED_DEFAULT), arguments.seed),
    };
    anyhow::ensure!(
        !terms.is_empty(),
        "there are no terms to use: load some first (autocomplete load FILE), or give --terms or --generated"
    );
    Ok(terms)
}

/// What people would type in this namespace.
async fn most_frequent(
    client: &Client,
    arguments: &BenchArgs,
) -> Result<Vec<String>, anyhow::Error> {
    let response = client
        .top_k(v1::GetTopKRequest {
            k: limits::K_MAX,
            namespace: arguments.namespace(),
            ..Default::default()
        })
        .await
        .context("asking for the most frequent terms")?;
    let terms = response.suggestions.into_iter();
    Ok(terms.map(|suggestion| suggestion.term).collect())
}

const SYLLABLES: [&str; 32] = [
    "ba", "be", "bo", "ca", "co", "da", "de", "di", "do", "fa", "fi", "ga", "go", "ha", "he", "ka",
    "ki", "la", "le", "li", "lo", "ma", "me", "mi", "na", "ne", "no", "ra", "re", "sa", "ta", "to",
];

/// Made-up terms of one to three words.
fn generate(number: u32, seed: u64) -> Vec<String> {
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

/// A stream of choices that depends on its seed alone: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Choice(u64);

impl Choice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A term: the one in place r about 1/r as often as the first, as searches are.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a choice among at most a million"
    )]
    pub(super) fn term<'a>(&mut self, terms: &'a [String]) -> &'a str {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = (unit * (terms.len() as f64 + 1.0).ln()).exp() as usize;
        let place = rank.saturating_sub(1).min(terms.len().saturating_sub(1));
        terms.get(place).map_or("", String::as_str)
    }

    /// What has been typed of a term at some keystroke.
    pub(super) fn prefix<'a>(&mut self, terms: &'a [String]) -> &'a str {
        let term = self.term(terms);
        let typed = self.below(term.len() as u64) + 1;
        let end = term.floor_char_boundary(usize::try_from(typed).unwrap_or(usize::MAX));
        term.get(..end).unwrap_or(term)
    }
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
        let terms = vec!["żółć".to_owned()];
        let mut choice = Choice::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(choice.prefix(&terms).chars().count());
        }
        assert!(seen.contains(&1) && seen.contains(&4));
    }
}
