//! The command line.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use runtime::Runtime;

use crate::{EXIT_FAILED, EXIT_USAGE};
use crate::{bench, commands, exit, load, up, wal_tool};

/// Records what people search, and completes what they type.
///
/// `autocomplete up` starts a whole cluster on this machine. The other commands talk to a running one.
#[derive(Debug, Parser)]
#[command(
    name = "autocomplete",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "To try it:  autocomplete up --sample\n    and then:  autocomplete top -i"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster in one process
    ///
    /// Shards, a coordinator, a watchdog, and a page to try it. Everything is kept in the data directory; Ctrl-C stops.
    Up(up::UpArgs),
    /// Count terms: each adds to its exact count
    ///
    /// Each term is answered with its new count, once that is safe on disk.
    Record(commands::RecordArgs),
    /// Show the most frequent terms that start with a prefix
    ///
    /// With their exact counts, and of all terms where no prefix is given.
    Top(commands::TopArgs),
    /// Show the exact count of terms
    Count(commands::CountArgs),
    /// Remove terms
    Delete(commands::DeleteArgs),
    /// Load a file of terms
    ///
    /// Lines of `term<TAB>count`, or plain terms that count 1 each; compressed files (zstd, gzip) are recognised. An interrupted load is
    /// continued by the same command: nothing is counted twice. Loading a file that was loaded before changes nothing, unless
    /// --again is given.
    Load(load::LoadArgs),
    /// Write all terms, in byte order
    ///
    /// As lines of `term<TAB>count`. `load` reads the result back. A count above 10^12, the most that one line of a load can count, is
    /// written as several lines of its term, which add up to it.
    Export(commands::ExportArgs),
    /// Measure a cluster under load
    ///
    /// A closed loop: so many requests in flight, each followed by the next when it is answered. Prints the rate and the latencies that
    /// clients see. Records go to a namespace of their own, `bench`, unless another is named.
    Bench(bench::BenchArgs),
    /// Look into the log of a data directory
    ///
    /// DIR may be the directory of `up`, of one server, or the log itself. Only repair and train change anything.
    Wal(wal_tool::WalArgs),
}

/// The command line, as it is parsed and explained.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => {
            // With nobody to print to, the exit code still tells.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // The log tool is synchronous from end to end.
    if let Command::Wal(arguments) = cli.command {
        return exit::code(wal_tool::run(&arguments));
    }
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot start worker threads: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let result = executor.block_on(async {
        let runtime = Runtime::real();
        match cli.command {
            Command::Up(arguments) => up::run(&runtime, arguments).await,
            Command::Record(arguments) => commands::record(&runtime, arguments).await,
            Command::Top(arguments) => commands::top(&runtime, arguments).await,
            Command::Count(arguments) => commands::count(&runtime, arguments).await,
            Command::Delete(arguments) => commands::delete(&runtime, arguments).await,
            Command::Load(arguments) => load::run(&runtime, arguments).await,
            Command::Export(arguments) => commands::export(&runtime, arguments).await,
            Command::Bench(arguments) => bench::run(&runtime, arguments).await,
            Command::Wal(arguments) => wal_tool::run(&arguments),
        }
    });
    // A thread may still wait for the terminal or a disk; it must not hold up the end.
    executor.shutdown_background();
    exit::code(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_is_explained() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let is_ours = !matches!(argument.get_id().as_str(), "help" | "version");
                assert!(
                    !is_ours || argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
