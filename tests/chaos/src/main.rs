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
use chaos::report::save_logs;
use chaos::{queries, scenario};
use clap::{Parser, Subcommand, ValueEnum};
use runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
        /// Below which the folder of the run is made, for report, history, logs and data.
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
        /// Below which the folder of the run is made, for logs and data, and the times as JSON.
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
            let queries = match &file {
                Some(file) => queries::from_file(file, records)?,
                None => queries::synthetic(seed, records),
            };
            let plan = scenario::Plan {
                name: format!("{deployment:?}").to_lowercase(),
                seed,
                queries,
                file,
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

/// SIGINT (Ctrl-C) and SIGTERM, which no longer end the process by themselves: first it has to end what it started.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
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
    let (runtime, needs) = (Runtime::real(), Needs::of(&plan.faults));
    let folder = RunFolder::create(out)?;
    let programs = match kind {
        Kind::Processes => Some(find_or_build(programs)?),
        Kind::Compose => None,
    };
    // From here on there is something to end.
    let mut signals = Signals::new()?;
    let mut deployment: Box<dyn Deployment> = match programs {
        Some(programs) => {
            let folder = folder.clone();
            Box::new(Processes::start(&runtime, folder, &programs, shape, needs).await?)
        }
        None => Box::new(Compose::start(&runtime, shape, needs).await?),
    };
    let (report, history) =
        scenario::run(&runtime, deployment.as_ref(), plan, signals.next()).await;
    let saved = report.save(folder.as_path(), &history);
    let is_proven = report.error.is_none() && report.violations.is_empty();
    let secured = secure(folder.as_path(), deployment.as_mut(), kind, is_proven);
    let stopped = deployment.stop();
    let place = folder.as_path().display();
    writeln!(std::io::stdout(), "{report}\n  all of it is in {place}")?;
    if let Ok(Some(kept)) = &secured {
        writeln!(std::io::stdout(), "  {kept}")?;
    }
    let failed = match &report.error {
        Some(error) => Err(anyhow::anyhow!("{error}")),
        None => Ok(()),
    };
    together([failed, saved, secured.map(drop), stopped])?;
    Ok(ExitCode::from(u8::from(!report.violations.is_empty())))
}

/// Saves what only the servers know, before they go: of containers always their logs, and where something is not proven, of all servers what
/// they have logged and their data. Says where those are.
fn secure(
    folder: &Path,
    deployment: &mut dyn Deployment,
    kind: Kind,
    is_proven: bool,
) -> anyhow::Result<Option<String>> {
    if is_proven {
        return match kind {
            // Theirs stay where they are.
            Kind::Processes => Ok(None),
            Kind::Compose => save_logs(folder, &deployment.logs()).map(|()| None),
        };
    }
    let logs = deployment.logs();
    let saved = save_logs(folder, &logs);
    let kept = deployment.keep_data(folder);
    writeln!(std::io::stderr(), "{logs}")?;
    saved?;
    kept.map(Some)
}

#[tokio::main]
async fn failover(
    rounds: usize,
    programs: Option<PathBuf>,
    out: &Path,
) -> anyhow::Result<ExitCode> {
    let (runtime, needs) = (Runtime::real(), Needs::default());
    let folder = RunFolder::create(out)?;
    let programs = find_or_build(programs)?;
    let mut signals = Signals::new()?;
    let (run, shape) = (folder.clone(), Shape::REPLICATED);
    let mut cluster = Processes::start(&runtime, run, &programs, shape, needs).await?;
    let outcome = tokio::select! {
        outcome = failover::measure(&runtime, &cluster, rounds) => outcome,
        () = signals.next() => Err(anyhow::anyhow!("it was interrupted")),
    };
    let told = match &outcome {
        Ok(outcome) => {
            writeln!(std::io::stdout(), "{outcome}")?;
            outcome.save(folder.as_path())
        }
        Err(_) => writeln!(std::io::stderr(), "{}", cluster.logs()).map_err(Into::into),
    };
    let stopped = cluster.stop();
    together([outcome.map(drop), told, stopped])?;
    Ok(ExitCode::SUCCESS)
}

/// The errors of several steps as one, so that none hides another.
fn together(steps: impl IntoIterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let failed = steps.into_iter().filter_map(Result::err);
    let errors: Vec<String> = failed.map(|error| format!("{error:#}")).collect();
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("; besides: "));
    Ok(())
}

fn find_or_build(programs: Option<PathBuf>) -> anyhow::Result<Programs> {
    match programs {
        Some(folder) => Ok(Programs::in_folder(
            folder.canonicalize()?,
            std::env::current_exe()?,
        )),
        None => Programs::build(),
    }
}

#[tokio::main]
async fn respawn(run_dir: &Path, node: &str) -> anyhow::Result<ExitCode> {
    let folder = RunFolder::open(run_dir)?;
    folder.respawn(&Runtime::real(), node).await?;
    Ok(ExitCode::SUCCESS)
}
