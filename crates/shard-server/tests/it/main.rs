//! A real server over real gRPC on port 0, with a registry that the tests script.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking, and damage files behind the server's back"
)]

mod bad_input;
mod disk;
mod harness;
mod lifecycle;
mod registry;
mod serving;
mod snapshots;
