//! The command people use, and the whole cluster in one process.
//!
//! `autocomplete up` starts a cluster; the other subcommands talk to one, or look into a data directory. Each subcommand is a
//! module: its arguments (parsed and checked before anything happens), and a `run` that does the work.
//!
//! What always holds:
//! - Results go to standard output and nothing else does, so that they can be piped. Everything for people who watch goes to
//!   standard error.
//! - Writes carry request ids, so that a command that is interrupted and repeated counts nothing twice where it says so (`load`).
//! - The terminal is left as it was found, however the command ends.
//!
//! On failure: one line on standard error that says what and why. Exit codes: 0 done, 1 failed, 64 bad arguments.

mod bench;
mod cli;
mod commands;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod load;
mod output;
mod prompt;
mod signals;
mod target;
mod typing;
mod up;
mod wal_tool;

use std::ffi::OsString;
use std::process::ExitCode;

pub use exit::{EXIT_FAILED, EXIT_USAGE};

/// The command line, for whoever explains or checks it.
#[must_use]
pub fn command() -> clap::Command {
    cli::command()
}

/// Runs the command of these arguments, the first being the program's name, and says how it ended.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::run(arguments)
}
