//! The command `watchdog`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchdog::main()
}
