//! The dictionary from outside: against a naive model, at its borders, and over formats of the past.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod edges;
mod fixtures;
mod model;
mod reference;
