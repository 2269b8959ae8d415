//! What decoders of bytes from disk or network must survive: any bytes.
//!
//! A [`Target`] is a function that is given bytes and panics when a promise is broken. The promises: no panic below; no
//! memory beyond what the bytes can account for; and what is particular to the format, such as that what was decoded is encoded to
//! the same bytes, or that recovering a log twice finds the same as once. Each target has seeds, made by the real encoders, and a
//! function that mends checksums after bytes were changed, so that what lies behind them is reached.
//!
//! Three ways to run them:
//! - `cargo test`: all of the kept corpus (`corpus/`, what [`Target::seeds`] made once and what was found since) and
//!   [`Target::quick`] changed inputs from a fixed seed, in seconds ([`campaign::quick`]): 300 to 1,800 for the targets of the log and
//!   `two-slot`, 3,000 to 30,000 for the others.
//! - `cargo run --release -p fuzz -- run TARGET --seconds N`: as many changed inputs as fit into a time, blindly.
//! - the program `guided`, built with coverage instrumentation, under libFuzzer: see `CONTRIBUTING.md`.
//!
//! Files, settings, headers, requests, what peers of a group send, and answers have targets, which call what the programs themselves
//! decode with. What has none:
//! - frames of HTTP and gRPC, and the compression of files that are loaded, which libraries read;
//! - answers of which numbers, flags and texts are compared, passed on or shown as they are: to counts and clears, of nodes to what
//!   they are told to do (to take or take in a snapshot, to give up their data, to hand a lead over), of coordinators to each other's
//!   proposals, questions for a confirmation and requests for a place, and to the turns of watchdogs and the verbs of operators. The
//!   tokens in some of them are those of the answers that have targets;
//! - that files and folders are named by one number, and what Linux says of a process;
//! - what the page's script reads in a browser.
//!
//! What always holds: no clock, no chance and no files in a target; the same bytes always do the same.
//!
//! On failure: the input is written where the runner says, and belongs into the corpus, together with the mending of what it found.

pub mod campaign;
pub mod corpus;
pub mod mend;
pub mod mutate;
mod targets;

/// A decoder, and what it promises.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Puts right what bytes say of each other, such as checksums, without changing how many there are.
    pub mend: fn(&mut [u8]),
    /// Inputs made by the real encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Changed inputs that a test run tries.
    pub quick: u32,
}

/// All targets, by name.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut all = targets::all();
    all.sort_by_key(|target| target.name);
    all
}

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    targets().into_iter().find(|target| target.name == name)
}
