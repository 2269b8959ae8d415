//! `autocomplete count`.

use std::io::{self, Write as _};

use api::v1;
use runtime::Runtime;

use crate::output::{grouped, printable};
use crate::target::{NamespaceArgs, TargetArgs};

/// Shows the exact count of terms; 0 for one that was never recorded.
#[derive(Debug, clap::Args)]
pub(crate) struct CountArgs {
    /// The terms; quote those with spaces
    #[arg(required = true, value_name = "TERM")]
    terms: Vec<String>,

    #[command(flatten)]
    namespace: NamespaceArgs,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn count(runtime: &Runtime, arguments: CountArgs) -> Result<(), anyhow::Error> {
    let client = arguments.target.client(runtime)?;
    for term in &arguments.terms {
        let response = client
            .count(v1::GetCountRequest {
                term: term.clone(),
                namespace: arguments.namespace.namespace.to_string(),
                ..Default::default()
            })
            .await?;
        let shown = if response.display.is_empty() {
            term
        } else {
            &response.display
        };
        writeln!(
            io::stdout(),
            "{:>15}  {}",
            grouped(response.count),
            printable(shown)
        )?;
    }
    Ok(())
}
