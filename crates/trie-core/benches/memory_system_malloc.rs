//! The same as the `memory` bench, with the system's allocator.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    reason = "a bench reads files and the clock, and stops at the first surprise"
)]

#[path = "support/report.rs"]
mod report;
mod support;

fn main() {
    report::run("the system's malloc");
}
