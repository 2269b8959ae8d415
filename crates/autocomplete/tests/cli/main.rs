//! The command as a user has it: real processes, real disks, real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests drive processes and files from outside"
)]

mod arguments;
mod compare;
mod documents;
mod exactness;
mod files;
mod life;
mod log_tool;
mod metrics;
mod operations;
mod page;
mod support;
