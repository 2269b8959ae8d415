//! The command `bench`. Everything is in the library.

use std::io::Write as _;
use std::process::ExitCode;

use bench::Cli;
use clap::Parser as _;
use runtime::Runtime;

// As the servers and the command have it, so that the client's side costs what it costs users.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Each of a thousand clients has a connection of its own.
    runtime::raise_open_files();
    let cli = Cli::parse();
    let result = match Runtime::real().with_connection_threads() {
        Ok(runtime) => bench::run(&runtime, cli).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
