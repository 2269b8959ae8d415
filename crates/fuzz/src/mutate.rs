//! Changes inputs at random: bits, numbers, pieces that are removed, repeated, or taken from another input.
//!
//! What always holds: the same dice make the same changes, and an input never grows beyond the limit.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Random numbers that follow from a seed.
#[derive(Debug, Clone)]
pub struct Dice(SplitMix64);

impl Dice {
    /// Dice that always fall the same way for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, 0 where that is 0.
    #[expect(clippy::cast_possible_truncation, reason = "below a length")]
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % (end as u64).max(1)) as usize
    }
}

/// Numbers at which decoders go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    u64::MAX - 1,
    u64::MAX,
];

/// Most changes to one input.
const CHANGES_MAX: usize = 5;

/// Changes an input in one to five places; `other` is where pieces are taken from. It has at most `bytes_max` bytes afterwards.
pub fn mutate(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], bytes_max: usize) {
    for _ in 0..=dice.below(CHANGES_MAX) {
        change(dice, input, other);
    }
    input.truncate(bytes_max);
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(input.len() + 1);
    match dice.below(10) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        2 => {
            let random = dice.number().to_le_bytes()[0];
            if let Some(byte) = input.get_mut(at) {
                *byte = random;
            }
        }
        3..=5 => number(dice, input, at),
        6 => {
            let end = at + dice.below((input.len() - at).min(64) + 1);
            input.drain(at..end);
        }
        7 => {
            let end = at + dice.below((input.len() - at).min(64) + 1);
            let piece: Vec<u8> = input.get(at..end).unwrap_or_default().to_vec();
            input.splice(at..at, piece);
        }
        8 => {
            let from = dice.below(other.len() + 1);
            let len = dice.below((other.len() - from).min(128) + 1);
            let piece = other.get(from..from + len).unwrap_or_default().to_vec();
            let replaced = if dice.below(2) == 0 { 0 } else { len };
            let end = (at + replaced).min(input.len());
            input.splice(at..end, piece);
        }
        _ => input.truncate(at),
    }
}

/// Writes an edge, or a number near the one that stands there, over one, two, four or eight bytes.
fn number(dice: &mut Dice, input: &mut [u8], at: usize) {
    let width = 1 << dice.below(4);
    let Some(place) = input.get_mut(at..at + width) else {
        return;
    };
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(place);
    let value = if dice.below(2) == 0 {
        let step = dice.number() % 33;
        u64::from_le_bytes(bytes)
            .wrapping_add(step)
            .wrapping_sub(16)
    } else {
        EDGES[dice.below(EDGES.len())]
    };
    place.copy_from_slice(&value.to_le_bytes()[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_dice_make_the_same_changes_within_the_limit() {
        let run = |seed| {
            let mut dice = Dice::new(seed);
            let mut input = vec![0; 40];
            for _ in 0..1000 {
                mutate(&mut dice, &mut input, b"another input", 64);
                assert!(input.len() <= 64);
            }
            input
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
        mutate(&mut Dice::new(0), &mut Vec::new(), &[], 64);
    }
}
