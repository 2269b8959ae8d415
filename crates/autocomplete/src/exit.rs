//! How a command ends.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit code of bad arguments or configuration, as in BSD's `sysexits.h` (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// The exit code of everything else that failed.
pub const EXIT_FAILED: u8 = 1;

/// Arguments that cannot be taken, found after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// An error of bad arguments.
pub(crate) fn usage(problem: impl Into<String>) -> anyhow::Error {
    Usage(problem.into()).into()
}

/// The exit code of a result; says on standard error what went wrong.
pub(crate) fn code(result: Result<(), anyhow::Error>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&error) {
        // Whoever read our output has had enough; that is how `head` works.
        return ExitCode::SUCCESS;
    }
    // With standard error closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    if error.downcast_ref::<Usage>().is_some() {
        return ExitCode::from(EXIT_USAGE);
    }
    ExitCode::from(EXIT_FAILED)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
