//! The command: runs targets for as long as asked, and keeps inputs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fuzz::{Target, campaign, corpus};
use runtime::Runtime;
use vfs::{RealDisk, durable};

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Gives decoders bytes that nobody wrote
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names all targets
    List,
    /// Writes the seeds of all targets, or of one, into the corpus
    Seeds {
        /// The target
        target: Option<String>,
    },
    /// Tries changed inputs of all targets, or of one, for a time each
    Run {
        /// The target
        target: Option<String>,
        /// How long, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Other seeds try other inputs
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where an input that breaks a promise is written
        #[arg(long, default_value = "target/fuzz")]
        out: PathBuf,
    },
    /// Takes a file into the corpus of a target
    Keep {
        /// The target
        target: String,
        /// The file
        file: PathBuf,
    },
    /// Runs a target on the content of a file
    Replay {
        /// The target
        target: String,
        /// The file
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::List => {
            for target in fuzz::targets() {
                say(target.name);
            }
        }
        Command::Seeds { target } => {
            for target in chosen(target)? {
                for seed in (target.seeds)() {
                    corpus::keep(&corpus::folder(&target), &seed)?;
                }
            }
        }
        Command::Run {
            target,
            seconds,
            seed,
            out,
        } => {
            let mut all_hold = true;
            for target in chosen(target)? {
                all_hold &= run(&target, Duration::from_secs(seconds), seed, &out)?;
            }
            if !all_hold {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Keep { target, file } => {
            let target = fuzz::target(&target).context("no such target")?;
            let input = durable::read(&RealDisk::new(), &file, FILE_BYTES_MAX)?;
            corpus::keep(&corpus::folder(&target), &input)?;
        }
        Command::Replay { target, file } => {
            let target = fuzz::target(&target).context("no such target")?;
            let input = durable::read(&RealDisk::new(), &file, FILE_BYTES_MAX)?;
            (target.run)(&input);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(name: Option<String>) -> anyhow::Result<Vec<Target>> {
    match name {
        None => Ok(fuzz::targets()),
        Some(name) => Ok(vec![fuzz::target(&name).context("no such target")?]),
    }
}

/// Says whether all promises held.
fn run(target: &Target, time: Duration, seed: u64, out: &std::path::Path) -> anyhow::Result<bool> {
    let mut inputs = corpus::read(target)?;
    inputs.extend((target.seeds)());
    let runtime = Runtime::real();
    let end = runtime.now() + time;
    match campaign::run(target, &inputs, seed, |_| runtime.now() < end) {
        Ok(tried) => {
            say(&format!("{}: {tried} inputs", target.name));
            Ok(true)
        }
        Err(broken) => {
            let path = corpus::keep(&out.join(target.name), &broken.input)?;
            let (name, message) = (target.name, broken.message);
            say(&format!("{name}: {} breaks it: {message}", path.display()));
            Ok(false)
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command for people")]
fn say(text: &str) {
    println!("{text}");
}
