//! `autocomplete delete`.

use std::io::{self, Write as _};

use api::v1;
use runtime::Runtime;

use crate::exit::usage;
use crate::output::printable;
use crate::prompt;
use crate::target::{NamespaceArgs, TargetArgs};

/// Removes terms, or a whole namespace. They are gone from every answer at once.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The terms; quote those with spaces
    #[arg(required_unless_present = "all", value_name = "TERM")]
    terms: Vec<String>,

    /// Remove every term of the namespace; asks for its name, unless --yes is given
    #[arg(long, conflicts_with = "terms")]
    all: bool,

    /// Do not ask
    #[arg(long, requires = "all")]
    yes: bool,

    #[command(flatten)]
    namespace: NamespaceArgs,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn delete(runtime: &Runtime, arguments: DeleteArgs) -> Result<(), anyhow::Error> {
    let client = arguments.target.client(runtime)?;
    let namespace = arguments.namespace.namespace.to_string();
    if arguments.all {
        let question = format!("This removes every term of the namespace {namespace:?}.");
        if !arguments.yes && !prompt::confirmed(&question, &namespace)? {
            return Err(usage("not confirmed, nothing was removed"));
        }
        client
            .clear(v1::ClearNamespaceRequest {
                namespace: namespace.clone(),
                request_id: None,
            })
            .await?;
        writeln!(io::stdout(), "removed every term of {namespace}")?;
        return Ok(());
    }
    for term in &arguments.terms {
        let response = client
            .delete(v1::DeleteRequest {
                term: term.clone(),
                namespace: namespace.clone(),
                request_id: None,
            })
            .await?;
        let what = if response.existed {
            "removed"
        } else {
            "not there"
        };
        writeln!(io::stdout(), "{what:>9}  {}", printable(term))?;
    }
    Ok(())
}
