//! The command line of the binary: reads the configuration, runs the server, and turns how it ended into an exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use runtime::{CancellationToken, Runtime};
use telemetry::logging;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Deps, Settings, run};

/// Exit code for a command line or a configuration that cannot be used.
pub const EXIT_USAGE: u8 = 64;
/// Exit code for a machine that refuses threads or signals.
pub const EXIT_SYSTEM: u8 = 71;
/// Exit code for a server that is not healthy.
const EXIT_UNHEALTHY: u8 = 1;

/// Hosts shards of an autocomplete cluster.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a shard server (the default)
    Serve(Box<Settings>),
    /// Asks a running server whether it serves; exit code 0 means yes
    Healthcheck(Healthcheck),
}

#[derive(Debug, Args)]
struct Healthcheck {
    /// Address of the server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50061")]
    addr: String,
    /// Service to ask for; empty asks whether the process lives
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Cli {
    /// Does what was asked for.
    pub async fn run(self) -> ExitCode {
        match self.command {
            None => serve(self.serve).await,
            Some(Command::Serve(settings)) => serve(*settings).await,
            Some(Command::Healthcheck(question)) => healthcheck(question).await,
        }
    }
}

async fn serve(settings: Settings) -> ExitCode {
    let config = match settings.load() {
        Ok(config) => config,
        Err(problems) => return fail(&problems.to_string(), EXIT_USAGE),
    };
    if let Err(problem) = logging::init(&config.logging) {
        return fail(&problem.to_string(), EXIT_SYSTEM);
    }
    let runtime = Runtime::real();
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signal(&runtime, &shutdown) {
        return fail(&format!("cannot listen for signals: {error}"), EXIT_SYSTEM);
    }
    let ended = match Deps::real(runtime) {
        Ok(deps) => run(config, deps, shutdown).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
}

/// Cancels the token at SIGTERM or SIGINT.
fn stop_on_signal(runtime: &Runtime, shutdown: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    };
    drop(runtime.spawn("signals", wait));
    Ok(())
}

async fn healthcheck(question: Healthcheck) -> ExitCode {
    let runtime = Runtime::real();
    let asked = rpc::healthcheck(
        &runtime,
        &question.addr,
        &question.service,
        question.timeout,
    );
    match asked.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), EXIT_UNHEALTHY),
    }
}

fn fail(problem: &str, code: u8) -> ExitCode {
    use std::io::Write as _;
    // A closed standard error is no reason to end otherwise.
    drop(writeln!(std::io::stderr(), "{problem}"));
    ExitCode::from(code)
}
