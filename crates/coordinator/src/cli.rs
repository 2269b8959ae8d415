//! The commands of the binary: `serve` runs a coordinator, the others talk to one.
//!
//! Exit codes: 0 for what was asked, 1 for what failed and for a health check that says no, 2 for what is not so (a shard that was not
//! recovered), 64 for a command line or configuration that is refused.

mod connection;
mod healthcheck;
pub(crate) mod map;
mod members;
pub(crate) mod outlook;
mod recover;
mod serve;
pub(crate) mod snapshot;
pub(crate) mod status;
mod table;
mod transfer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::Runtime;

use connection::Connection;

/// Exit code of a refused command line or configuration.
pub const EXIT_USAGE: u8 = 64;
const EXIT_FAILED: u8 = 1;
const EXIT_NOT_SO: u8 = 2;

/// Routes searches and completions to the shards of an autocomplete cluster, and keeps its shard map.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, max_term_width = 100)]
pub struct Cli {
    /// Coordinators to talk to, comma separated, for every command but serve and healthcheck; the first that answers will do
    #[arg(
        long,
        alias = "coordinator",
        global = true,
        value_delimiter = ',',
        env = "AUTOCOMPLETE_COORDINATOR",
        value_name = "HOST:PORT,...",
        default_value = "127.0.0.1:50051"
    )]
    coordinators: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a coordinator
    Serve(Box<serve::Serve>),
    /// Show nodes and shards: where they are, what they do, how busy they are
    Status(status::Status),
    /// Show the shard map: who owns which terms
    Map(map::Map),
    /// Find out what is wrong with a shard, and repair it
    Recover(recover::Recover),
    /// Have a node's replicas moved to others, and none placed on it
    Drain(members::Drain),
    /// Give a node a voting replica of a shard
    Promote(members::Promote),
    /// Move a shard's replica from one node to another
    Replace(members::Replace),
    /// Hand the lead of a shard to another of its replicas
    TransferLeader(transfer::TransferLeader),
    /// Look after the snapshots that the coordinator holds for recovery
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Exit with 0 if the coordinator is ready; for container health checks
    Healthcheck(healthcheck::Healthcheck),
}

/// Why a command failed, and what the process exits with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<api::ApiError> for Failure {
    fn from(error: api::ApiError) -> Self {
        Self::new(EXIT_FAILED, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(EXIT_FAILED, error.to_string())
    }
}

impl Cli {
    /// Runs the command. Its answer goes to standard output, what is wrong to standard error.
    pub async fn run(self, runtime: Runtime) -> ExitCode {
        let connect = || Connection::new(&runtime, &self.coordinators);
        let done = match self.command {
            Command::Serve(serve) => Box::pin(serve.run(&runtime)).await,
            Command::Status(status) => status.run(&connect).await,
            Command::Map(map) => map.run(&connect).await,
            Command::Recover(recover) => recover.run(&connect).await,
            Command::Drain(drain) => drain.run(&connect).await,
            Command::Promote(promote) => promote.run(&connect).await,
            Command::Replace(replace) => replace.run(&connect).await,
            Command::TransferLeader(transfer) => transfer.run(&connect).await,
            Command::Snapshot(snapshot) => snapshot.run(&connect).await,
            Command::Healthcheck(check) => check.run(&runtime).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                use std::io::Write as _;
                // Nobody can be told that standard error is closed.
                let _ = writeln!(std::io::stderr(), "coordinator: {failure}");
                ExitCode::from(failure.code)
            }
        }
    }
}

type Done = Result<(), Failure>;
