//! The judges, judged: every bug of the bank is caught.

use std::path::Path;

use sim::{Mutant, Options, run_apart};

/// Seeds that a bug may need to show; each bug is tried with these in turn until one fails. Which one that is changes with every change of
/// what the programs do, and one of ten seeds that show a bug leaves forty that may not.
const SEEDS: std::ops::Range<u64> = 0..150;

/// Whether some seed shows a bug.
fn is_caught(mutant: Mutant) -> anyhow::Result<bool> {
    let program = Path::new(env!("CARGO_BIN_EXE_sim"));
    let options = Options {
        mutant: Some(mutant),
        ..Options::default()
    };
    for seed in SEEDS {
        if !run_apart(program, seed, options)?.problems.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn every_bug_of_the_bank_is_caught() {
    let bank = Mutant::all();
    // As docs/simulation.md says.
    assert_eq!(bank.len(), 14);
    let missed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = bank
            .chunks(bank.len().div_ceil(2))
            .map(|half| {
                scope.spawn(|| {
                    let missed = half.iter().filter(|mutant| !is_caught(**mutant).unwrap());
                    missed.map(|mutant| mutant.name()).collect::<Vec<_>>()
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect()
    });
    assert_eq!(missed, Vec::<String>::new());
}
