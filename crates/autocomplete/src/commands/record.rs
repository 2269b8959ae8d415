//! `autocomplete record`.

use std::io::{self, Write as _};

use api::v1;
use cluster::limits;
use runtime::Runtime;

use crate::output::{grouped, printable};
use crate::target::{NamespaceArgs, TargetArgs};

/// Counts terms. Each is answered with its new exact count, once that is safe on disk.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// The terms; quote those with spaces
    #[arg(required = true, value_name = "TERM")]
    terms: Vec<String>,

    /// How much to add to each, 1 to 1,000,000,000,000
    #[arg(
        long,
        short,
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=limits::RECORD_COUNT_MAX)
    )]
    count: u64,

    #[command(flatten)]
    namespace: NamespaceArgs,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn record(runtime: &Runtime, arguments: RecordArgs) -> Result<(), anyhow::Error> {
    let client = arguments.target.client(runtime)?;
    for term in &arguments.terms {
        let response = client
            .record(v1::RecordRequest {
                term: term.clone(),
                count: arguments.count,
                namespace: arguments.namespace.namespace.to_string(),
                request_id: None,
            })
            .await?;
        writeln!(
            io::stdout(),
            "{:>15}  {}",
            grouped(response.count),
            printable(term)
        )?;
    }
    Ok(())
}
