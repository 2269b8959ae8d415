//! The shard server's binary.

use std::process::ExitCode;

use clap::Parser as _;
use shard_server::cli::{Cli, EXIT_SYSTEM, EXIT_USAGE};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    runtime::raise_open_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, and successes to whoever asked for them.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let Ok(executor) = tokio::runtime::Runtime::new() else {
        return ExitCode::from(EXIT_SYSTEM);
    };
    let code = executor.block_on(cli.run());
    // A blocking task that hangs on a failed disk must not keep the process.
    executor.shutdown_background();
    code
}
