//! `chaos run`: one run against a cluster that it starts itself. `chaos respawn`: how the watchdog brings a process of
//! such a cluster back.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chaos::compose::Compose;
use chaos::deployment::Deployment;
use chaos::processes::{Processes, Programs, RunFolder};
use chaos::{queries, scenario};
use clap::{Parser, Subcommand, ValueEnum};
use runtime::Runtime;

/// Kills shard servers under a stream of real queries and judges every count.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster, streams, kills, waits for the watchdog, judges; leaves a report. Exits with 1 when a promise was broken.
    Run {
        /// What the cluster is made of.
        #[arg(long, value_enum, default_value = "processes")]
        deployment: Kind,
        /// Chooses the victims, and the queries where no file is given.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A file with a query a line, plain or .zst; synthetic ones without it.
        #[arg(long)]
        queries: Option<PathBuf>,
        /// Records to send at most.
        #[arg(long, default_value_t = 20_000)]
        records: usize,
        /// Records in flight.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
        lanes: u16,
        /// Shard servers to kill, one after another.
        #[arg(long, default_value_t = 3)]
        kills: usize,
        /// Where report, history, logs and data go.
        #[arg(long, default_value = "tests/chaos/out")]
        out: PathBuf,
    },
    /// Starts the described process of a run anew.
    Respawn {
        /// The folder of the run.
        #[arg(long)]
        run_dir: PathBuf,
        /// The process.
        #[arg(long)]
        node: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The programs as processes on loopback.
    Processes,
    /// docker-compose.yml.
    Compose,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Respawn { run_dir, node } => {
            RunFolder::create(&run_dir)?.spawn(&node)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            deployment,
            seed,
            queries: file,
            records,
            lanes,
            kills,
            out,
        } => {
            let queries = match file {
                Some(file) => queries::from_file(&file, records)?,
                None => queries::synthetic(seed, records),
            };
            let plan = scenario::Plan {
                name: format!("{deployment:?}").to_lowercase(),
                seed,
                queries,
                lanes: usize::from(lanes),
                kills,
            };
            run(deployment, &plan, &out)
        }
    }
}

#[tokio::main]
async fn run(kind: Kind, plan: &scenario::Plan, out: &Path) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::real();
    let mut deployment: Box<dyn Deployment> = match kind {
        Kind::Processes => {
            let folder = RunFolder::create(&out.join(format!("run-{}", std::process::id())))?;
            Box::new(Processes::start(folder, &Programs::build()?)?)
        }
        Kind::Compose => Box::new(Compose::start()?),
    };
    let outcome = scenario::run(&runtime, deployment.as_ref(), plan).await;
    deployment.stop()?;
    let (report, history) = outcome?;
    report.save(out, &history)?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(ExitCode::from(u8::from(!report.violations.is_empty())))
}
