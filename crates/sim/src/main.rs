//! The command: runs seeds and records them, or shows what happens in one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sim::{Campaign, Options, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates the whole cluster from seeds
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many seeds, and appends a line for each to a record
    Run(Run),
    /// Runs one seed again
    Replay(Replay),
    /// Runs one seed and prints what it showed as JSON
    Report(Replay),
}

#[derive(Debug, Args)]
struct Run {
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// File with a line for each seed; seeds that it has are not run again
    #[arg(long)]
    record: Option<PathBuf>,
    /// Run each seed once instead of twice: does not see what depends on more than the seed
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
struct Replay {
    /// The seed
    seed: u64,
    /// Print what happens while it happens
    #[arg(long)]
    trace: bool,
    /// Also print the servers' logs, from these levels on, such as info,openraft=debug
    #[arg(long)]
    log: Option<String>,
    /// Without faults
    #[arg(long)]
    calm: bool,
    /// With a bug put in on purpose
    #[arg(long)]
    mutant: Option<sim::Mutant>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => many(&run),
        Command::Replay(replay) => one(&replay, show),
        Command::Report(replay) => sim::limit_processor_time().and_then(|()| {
            one(&replay, |report| {
                let json = serde_json::to_string(report);
                say(&json.unwrap_or_else(|error| error.to_string()));
            })
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(70)
        }
    }
}

fn many(run: &Run) -> anyhow::Result<bool> {
    let summary = sim::campaign(
        &Campaign {
            program: std::env::current_exe()?,
            from: run.from,
            seeds: run.seeds,
            jobs: run.jobs,
            record: run.record.clone(),
            twice: !run.once,
        },
        &|report| {
            if !report.problems.is_empty() {
                show(report);
            }
        },
    )?;
    say(&summary.to_string());
    Ok(summary.failed.is_empty())
}

fn one(replay: &Replay, show: impl Fn(&Report)) -> anyhow::Result<bool> {
    match &replay.log {
        Some(filter) => sim::log_to_stderr(filter)?,
        None => sim::log_nothing()?,
    }
    let options = Options {
        prints: replay.trace,
        calm: replay.calm,
        mutant: replay.mutant,
    };
    let report = sim::run(replay.seed, options)?;
    show(&report);
    Ok(report.problems.is_empty())
}

fn show(report: &Report) {
    say(&report.line());
    for problem in &report.problems {
        say(&format!("    {problem}"));
    }
}

fn say(line: &str) {
    use std::io::Write as _;
    // A closed standard output is no reason to end.
    let _ = writeln!(std::io::stdout(), "{line}");
}
