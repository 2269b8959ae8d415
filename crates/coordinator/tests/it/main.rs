//! A coordinator over real gRPC, with real shard servers behind it. Everything listens on a port of its own.

#![expect(
    clippy::disallowed_methods,
    reason = "tests break disks on purpose, and wait in real time"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "what is not there fails the test; a play is told from its beginning to its end"
)]

mod audit;
mod bad_input;
mod births;
mod cli;
mod clocks;
mod damage;
mod drains;
mod gates;
mod group;
mod harness;
mod hedging;
mod machine;
mod members;
mod namespaces;
mod near;
#[path = "../../../replication/tests/it/common/net.rs"]
#[expect(dead_code, reason = "shared with tests that use more of it")]
mod net;
mod promotions;
mod reads;
mod replicas;
mod scripted;
mod steps;
mod web;
mod wide;
mod writes;
