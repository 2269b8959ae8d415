//! The command line.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use runtime::{CancellationToken, Runtime};
use telemetry::logging;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::config::{Config, Settings};
use crate::restart::{Command, Container, External, Restarter};
use crate::{Deps, serve};

/// The configuration or the command line is wrong (EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Polls the health of every shard, and sees to it that what stopped serving comes back.
///
/// A shard that misses three polls in a row is recovered: its process is restarted (by --restart-command, --restart-containers or
/// whoever supervises it), the coordinator diagnoses and repairs it, and the watchdog verifies that it serves. Data is never given up: where only that
/// could help, an alert is raised and left to an operator.
#[derive(Debug, Parser)]
#[command(name = "watchdog", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: Settings,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch until stopped; this is what happens without a subcommand, too
    Serve(Box<Settings>),
    /// Ask a running watchdog whether it is healthy; exits with 0 if so, with 1 if not
    Healthcheck(Healthcheck),
}

#[derive(Debug, Args)]
struct Healthcheck {
    /// Address of the watchdog's gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50071")]
    addr: String,
    /// What to ask for: nothing for the process itself, watchdog for whether it has found shards
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// The command line, for whoever explains or checks it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            let code = if problem.use_stderr() { EXIT_USAGE } else { 0 };
            // Where it cannot be said, the code still says it.
            let _ = problem.print();
            return ExitCode::from(code);
        }
    };
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let tokio = match tokio {
        Ok(tokio) => tokio,
        Err(problem) => return complain(1, &format!("cannot start the runtime: {problem}")),
    };
    match cli.verb {
        None => tokio.block_on(run(cli.serve)),
        Some(Verb::Serve(settings)) => tokio.block_on(run(*settings)),
        Some(Verb::Healthcheck(healthcheck)) => tokio.block_on(ask(&healthcheck)),
    }
}

async fn run(settings: Settings) -> ExitCode {
    let config = match settings.load() {
        Ok(config) => config,
        Err(problems) => return complain(EXIT_USAGE, &problems.to_string()),
    };
    if let Err(problem) = logging::init(&config.logging) {
        return complain(1, &problem.to_string());
    }
    match watch(config).await {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn watch(config: Config) -> anyhow::Result<()> {
    let runtime = Runtime::real();
    let metrics = telemetry::Metrics::new(&runtime)?;
    let (command, containers) = (&config.restart_command, &config.restart_containers);
    let restarter: Arc<dyn Restarter> = match (command, containers) {
        (Some(template), _) => Arc::new(Command::new(template.clone())),
        (None, Some(socket)) => Arc::new(Container::new(runtime.clone(), socket.clone())),
        (None, None) => Arc::new(External),
    };
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let on_signal = shutdown.clone();
    let waiting = runtime.spawn("signals", async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        on_signal.cancel();
    });
    let deps = Deps {
        runtime,
        metrics,
        restarter,
    };
    let served = serve(config, deps, shutdown).await;
    waiting.abort();
    Ok(served?)
}

async fn ask(question: &Healthcheck) -> ExitCode {
    let runtime = Runtime::real();
    let answer = rpc::healthcheck(
        &runtime,
        &question.addr,
        &question.service,
        question.timeout,
    );
    match answer.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => complain(1, &problem.to_string()),
    }
}

fn complain(code: u8, text: &str) -> ExitCode {
    // Where it cannot be said, the code still says it.
    let _ = writeln!(std::io::stderr(), "watchdog: {text}");
    ExitCode::from(code)
}
