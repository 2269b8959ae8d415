//! `autocomplete bench`: the closed loop of [`workload`] over gRPC.
//!
//! A fixed number of workers each send a request, wait for its answer, and send the next. What is measured is what a client sees, without
//! retries.
//!
//! `record` and `mixed` change counts, in a namespace of their own unless told otherwise.

mod args;
mod report;
mod terms;

use std::io::{self, Write as _};
use std::sync::Arc;

use client::ClientOptions;
use runtime::Runtime;
use workload::{Grpc, GrpcOptions, Plan, Popularity, Prefixes};

pub(crate) use args::BenchArgs;

use crate::target::connect;

pub(crate) async fn run(runtime: &Runtime, arguments: BenchArgs) -> Result<(), anyhow::Error> {
    let options = ClientOptions {
        connections: usize::from(arguments.connections),
        retries: 0,
        ..arguments.target.options()
    };
    let client = connect(runtime, options)?;
    let terms = Arc::new(terms::gather(runtime, &client, &arguments).await?);
    let options = GrpcOptions {
        namespace: arguments.namespace(),
        k: arguments.k,
        stream: arguments.stream,
    };
    let make = move || std::future::ready(Ok(Grpc::new(&client, options.clone())));
    let plan = Plan {
        seed: arguments.seed,
        record_percent: arguments.record_percent(),
        batch: arguments.batch,
        questions: 1,
        popularity: Popularity::Skewed,
        prefixes: Prefixes::Typed,
        warm_up: arguments.warm_up,
        time: arguments.time,
    };
    let total = workload::run(runtime, arguments.in_flight, make, &terms, plan).await?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&report::json(&arguments, &total))?
    } else {
        report::text(&arguments, &total)
    };
    writeln!(io::stdout(), "{text}")?;
    anyhow::ensure!(total.answers() > 0, "no request was answered");
    Ok(())
}
