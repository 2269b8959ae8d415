//! `autocomplete bench`: a closed loop over gRPC.
//!
//! A fixed number of workers each send a request, wait for its answer, and send the next, for a fixed time after a warm-up that does not count.
//! What is measured is what a client sees: from before the call to after its answer, without retries. A closed loop slows down with the
//! server, so its tail is that of the offered concurrency, not of a fixed rate.
//!
//! `record` and `mixed` change counts, in a namespace of their own unless told otherwise.

mod args;
mod measure;
mod report;
mod terms;
mod worker;

use std::io::{self, Write as _};
use std::sync::Arc;

use client::ClientOptions;
use futures::future::join_all;
use runtime::Runtime;

pub(crate) use args::BenchArgs;
use measure::Measured;
use worker::Worker;

use crate::target::connect;

pub(crate) async fn run(runtime: &Runtime, arguments: BenchArgs) -> Result<(), anyhow::Error> {
    let options = ClientOptions {
        connections: usize::from(arguments.connections),
        retries: 0,
        ..arguments.target.options()
    };
    let client = connect(runtime, options)?;
    let terms = Arc::new(terms::gather(runtime, &client, &arguments).await?);
    let start = runtime.now() + arguments.warm_up;
    let end = start + arguments.time;
    let workers = (0..arguments.in_flight).map(|number| {
        let worker = Worker::new(runtime, &client, &arguments, &terms, number);
        runtime.spawn("bench worker", worker.run(start, end))
    });
    let mut total = Measured::new()?;
    for measured in join_all(workers.collect::<Vec<_>>()).await {
        total.add(&measured??)?;
    }
    let text = if arguments.json {
        serde_json::to_string_pretty(&report::json(&arguments, &total))?
    } else {
        report::text(&arguments, &total)
    };
    writeln!(io::stdout(), "{text}")?;
    anyhow::ensure!(total.answers() > 0, "no request was answered");
    Ok(())
}
