//! A real server on a real port, asked by our client and by requests that no client of ours would send.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail like tests"
)]

mod bad_input;
mod deadlines;
mod health;
mod limits;
mod other_protocols;
mod pooling;
mod raw;
mod stopping;
mod support;
