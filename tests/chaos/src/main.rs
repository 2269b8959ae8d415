//! `chaos run`: one run against a cluster that it starts itself. `chaos respawn`: how the watchdog brings a process of
//! such a cluster back.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chaos::compose::Compose;
use chaos::deployment::{Deployment, Shape};
use chaos::failover;
use chaos::faults::{Fault, Needs};
use chaos::processes::{Processes, Programs, RunFolder};
use chaos::{queries, scenario};
use clap::{Parser, Subcommand, ValueEnum};
use runtime::Runtime;

/// Strikes at a cluster under a stream of real queries and judges every count.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster, streams, strikes, waits until it is whole, judges; leaves a report. Exits with 1 when a promise was broken.
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
        /// What is done to the cluster, one after another, comma separated.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
        faults: Vec<Fault>,
        /// Seconds for which `stop-leader` lets a leader stand still.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(12..=600))]
        standstill: u16,
        /// How often all of that.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=1000))]
        rounds: u16,
        /// Three replicas of each shard, three coordinators and two watchdogs.
        #[arg(long)]
        replicated: bool,
        /// For processes, a folder with the programs; they are built without it.
        #[arg(long)]
        programs: Option<PathBuf>,
        /// Where report, history, logs and data go.
        #[arg(long, default_value = "tests/chaos/out")]
        out: PathBuf,
    },
    /// Kills one leader after another and tells how long nobody could write. Processes, three replicas.
    Failover {
        /// Leaders that are killed.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        rounds: u16,
        /// A folder with the programs; they are built without it.
        #[arg(long)]
        programs: Option<PathBuf>,
        /// Where logs and data, and the times as JSON, go.
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
        Command::Respawn { run_dir, node } => respawn(&run_dir, &node),
        Command::Failover {
            rounds,
            programs,
            out,
        } => failover(usize::from(rounds), programs, &out),
        Command::Run {
            deployment,
            seed,
            queries: file,
            records,
            lanes,
            faults,
            standstill,
            rounds,
            replicated,
            programs,
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
                faults: faults.repeat(usize::from(rounds)),
                standstill: Duration::from_secs(u64::from(standstill)),
            };
            let shape = if replicated {
                Shape::REPLICATED
            } else {
                Shape::SINGLE
            };
            run(deployment, shape, programs, &plan, &out)
        }
    }
}

#[tokio::main]
async fn run(
    kind: Kind,
    shape: Shape,
    programs: Option<PathBuf>,
    plan: &scenario::Plan,
    out: &Path,
) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::real();
    let mut deployment: Box<dyn Deployment> = match kind {
        Kind::Processes => {
            let needs = Needs::of(&plan.faults);
            Box::new(processes(&runtime, out, programs, shape, needs).await?)
        }
        Kind::Compose => {
            let needs = Needs::of(&plan.faults);
            Box::new(Compose::start(&runtime, shape, needs).await?)
        }
    };
    let outcome = scenario::run(&runtime, deployment.as_ref(), plan).await;
    if outcome.is_err() {
        writeln!(std::io::stderr(), "{}", deployment.logs())?;
    }
    deployment.stop()?;
    let (report, history) = outcome?;
    report.save(out, &history)?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(ExitCode::from(u8::from(!report.violations.is_empty())))
}

#[tokio::main]
async fn failover(
    rounds: usize,
    programs: Option<PathBuf>,
    out: &Path,
) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::real();
    let needs = Needs::default();
    let mut cluster = processes(&runtime, out, programs, Shape::REPLICATED, needs).await?;
    let outcome = failover::measure(&runtime, &cluster, rounds).await;
    if outcome.is_err() {
        writeln!(std::io::stderr(), "{}", cluster.logs())?;
    }
    cluster.stop()?;
    let outcome = outcome?;
    outcome.save(out)?;
    writeln!(std::io::stdout(), "{outcome}")?;
    Ok(ExitCode::SUCCESS)
}

async fn processes(
    runtime: &Runtime,
    out: &Path,
    programs: Option<PathBuf>,
    shape: Shape,
    needs: Needs,
) -> anyhow::Result<Processes> {
    let folder = RunFolder::create(&out.join(format!("run-{}", std::process::id())))?;
    let programs = match programs {
        Some(folder) => Programs::in_folder(folder.canonicalize()?),
        None => Programs::build()?,
    };
    Processes::start(runtime, folder, &programs, shape, needs).await
}

#[tokio::main]
async fn respawn(run_dir: &Path, node: &str) -> anyhow::Result<ExitCode> {
    let folder = RunFolder::create(run_dir)?;
    folder.respawn(&Runtime::real(), node).await?;
    Ok(ExitCode::SUCCESS)
}
