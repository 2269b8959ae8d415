//! What a search box does: counts a search, then completes a prefix.
//!
//! `cargo run --release -p client --example search_box -- 127.0.0.1:50051 "New Zealand" "new z"`

use std::error::Error;
use std::io::Write as _;

use api::v1::{GetTopKRequest, RecordRequest};
use client::{Client, ClientOptions};
use runtime::Runtime;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is wanted"));
    let (coordinators, searched, typed) =
        (next("HOST:PORT,...")?, next("a term")?, next("a prefix")?);

    // One client for the whole program: its retries carry the request id of the first try, and its reads see its writes.
    let endpoints = coordinators.split(',').map(str::to_owned).collect();
    let options = ClientOptions {
        endpoints,
        ..ClientOptions::default()
    };
    let client = Client::connect(Runtime::real(), options)?;

    let request = RecordRequest {
        term: searched,
        ..RecordRequest::default()
    };
    let recorded = client.record(request).await?;
    let request = GetTopKRequest {
        prefix: typed,
        k: 5,
        ..GetTopKRequest::default()
    };
    let completions = client.top_k(request).await?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "searched {} times", recorded.count)?;
    for suggestion in completions.suggestions {
        // As it was first written, which is left out where that is the term itself.
        let shown = match suggestion.display.as_str() {
            "" => &suggestion.term,
            display => display,
        };
        writeln!(out, "{:>12}  {shown}", suggestion.count)?;
    }
    Ok(())
}
