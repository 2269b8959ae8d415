//! Runs targets: over the corpus, and over inputs made from it by chance.
//!
//! What always holds: a campaign with the same seed and the same corpus tries the same inputs in the same order.
//!
//! On failure: the input that broke a promise comes back as a value. A process that runs out of memory ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Target;
use crate::mutate::{Dice, mutate};

/// The largest input that is made, in bytes, unless a seed is larger.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// An input that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The name of the target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// What the target said.
    pub message: String,
}

/// Runs a target on one input.
///
/// # Errors
/// The input, if a promise is broken.
pub fn check(target: &Target, input: &[u8]) -> Result<(), Broken> {
    let run = AssertUnwindSafe(|| (target.run)(input));
    catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Broken {
            target: target.name,
            input: input.to_vec(),
            message: text.unwrap_or_default(),
        }
    })
}

/// Tries inputs made from the corpus until `goes_on`, which is given how many were tried, says no. Says how many.
///
/// # Errors
/// The first input that breaks a promise.
pub fn run(
    target: &Target,
    corpus: &[Vec<u8>],
    seed: u64,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<u64, Broken> {
    let mut dice = Dice::new(seed);
    let largest = corpus.iter().map(Vec::len).max().unwrap_or(0);
    let bytes_max = largest.max(INPUT_BYTES_MAX);
    let mut tried = 0;
    while goes_on(tried) {
        let pick = |dice: &mut Dice| corpus.get(dice.below(corpus.len()));
        let mut input = pick(&mut dice).cloned().unwrap_or_default();
        let other = pick(&mut dice).map(Vec::as_slice).unwrap_or_default();
        mutate(&mut dice, &mut input, other, bytes_max);
        // Some are left as they are: checksums must hold off what does not fit.
        if dice.below(8) != 0 {
            (target.mend)(&mut input);
        }
        check(target, &input)?;
        tried += 1;
    }
    Ok(tried)
}

/// What `cargo test` does with a target: its seeds as they are, the corpus, and [`Target::quick`] changed inputs.
///
/// # Errors
/// The first input that breaks a promise.
pub fn quick(target: &Target, corpus: &[Vec<u8>]) -> Result<(), Broken> {
    let seeds = (target.seeds)();
    for input in seeds.iter().chain(corpus) {
        check(target, input)?;
    }
    check(target, &[])?;
    let all: Vec<Vec<u8>> = seeds.into_iter().chain(corpus.iter().cloned()).collect();
    run(target, &all, 0x000a_cacf, |tried| {
        tried < target.quick.into()
    })
    .map(drop)
}
