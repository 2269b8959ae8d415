//! The client against a scripted server, over real gRPC on port 0.
//!
//! The server ([`fake::Fake`]) counts with a repeat table of its own, so that these tests can tell a retry from a second write, and fails where
//! the script says so.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod direct;
mod fake;
mod streams;
mod unary;
