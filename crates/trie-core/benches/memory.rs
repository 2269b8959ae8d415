//! Prints what a dictionary takes, with the allocator that the servers use:
//! `cargo bench -p trie-core --bench memory -- FILE`, or without a file for generated terms.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    reason = "a bench reads files and the clock, and stops at the first surprise"
)]

#[path = "support/report.rs"]
mod report;
mod support;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    report::run("mimalloc");
}
