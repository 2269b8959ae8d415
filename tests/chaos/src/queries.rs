//! Real queries to stream, and synthetic ones where the real ones are not at hand.

#![expect(
    clippy::disallowed_methods,
    reason = "test data is only read; the vfs crate is for data that must survive"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use term::Term;

/// The queries of a file (one a line, plain or `.zst`), normalised, in order, at most `limit`.
///
/// # Errors
/// When the file cannot be read or decompressed.
pub fn from_file(path: &Path, limit: usize) -> anyhow::Result<Vec<String>> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let reader: Box<dyn std::io::Read> = if path.extension().is_some_and(|end| end == "zst") {
        Box::new(zstd::Decoder::new(file)?)
    } else {
        Box::new(file)
    };
    let mut queries = Vec::new();
    for line in BufReader::new(reader).lines() {
        if queries.len() == limit {
            break;
        }
        if let Ok(term) = Term::new(&line?) {
            queries.push(term.as_str().to_owned());
        }
    }
    anyhow::ensure!(!queries.is_empty(), "{} holds no query", path.display());
    Ok(queries)
}

/// Queries with the skew of real ones: few are asked often, most once. The same seed gives the same queries.
#[must_use]
pub fn synthetic(seed: u64, count: usize) -> Vec<String> {
    let mut dice = SplitMix64::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let draw = dice.next_u64();
            // A third of the draws fall on 64 popular queries, the others on a million rare ones.
            let rank = if draw.is_multiple_of(3) {
                dice.next_u64() % 64
            } else {
                dice.next_u64() % 1_000_000
            };
            spelled(rank)
        })
        .collect()
}

/// A pronounceable query for a number; spread over the alphabet, so that every shard gets its part.
fn spelled(number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ba", "ce", "do", "fi", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ro", "si", "tu",
        "wa",
    ];
    let mut text = String::new();
    let mut rest = number;
    let mut syllables = 0;
    while rest > 0 || syllables < 2 {
        let index = usize::try_from(rest % 16).unwrap_or(0);
        text.push_str(SYLLABLES.get(index).copied().unwrap_or("ba"));
        rest /= 16;
        syllables += 1;
        if syllables == 3 && rest > 0 {
            text.push(' ');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_queries_spread_over_the_alphabet() {
        let queries = synthetic(7, 2_000);
        assert_eq!(queries, synthetic(7, 2_000));
        assert_ne!(queries, synthetic(8, 2_000));
        let first_letters: BTreeSet<char> = queries
            .iter()
            .filter_map(|query| query.chars().next())
            .collect();
        assert_eq!(first_letters.len(), 16);
        let distinct: BTreeSet<&String> = queries.iter().collect();
        assert!(distinct.len() < queries.len(), "some repeat");
        assert!(
            queries
                .iter()
                .all(|query| Term::new(query).is_ok_and(|term| term.as_str() == query))
        );
    }
}
