//! `autocomplete top`.

use std::io::{self, IsTerminal as _, Write as _};

use api::v1;
use runtime::Runtime;

use crate::exit::usage;
use crate::output::{grouped, printable};
use crate::target::{NamespaceArgs, TargetArgs};
use crate::typing;

/// Shows the most frequent terms that start with a prefix, with their exact counts. Without a prefix: of all.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// What has been typed so far. One space at its end counts: "new " does not find newark
    #[arg(default_value = "")]
    prefix: String,

    /// How many to show; at most 1,000 are served
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,

    /// Print JSON: the terms, their counts, and which ranges are missing if a shard did not answer
    #[arg(long, conflicts_with = "interactive")]
    json: bool,

    /// How fresh the answer must be
    #[arg(long, value_enum, default_value_t = Freshness::Leader)]
    consistency: Freshness,

    /// Type in the terminal and see each key completed; Enter records what you chose
    #[arg(long, short)]
    interactive: bool,

    #[command(flatten)]
    namespace: NamespaceArgs,

    #[command(flatten)]
    target: TargetArgs,
}

/// The read levels, as they are named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Freshness {
    /// By a leader inside its lease
    Leader,
    /// Confirmed with a majority
    Linearizable,
    /// By any replica
    Stale,
}

impl From<Freshness> for v1::Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Leader => Self::Leader,
            Freshness::Linearizable => Self::Linearizable,
            Freshness::Stale => Self::Stale,
        }
    }
}

pub(crate) async fn top(runtime: &Runtime, arguments: TopArgs) -> Result<(), anyhow::Error> {
    let client = arguments.target.client(runtime)?;
    let request = v1::GetTopKRequest {
        prefix: arguments.prefix.clone(),
        k: arguments.k,
        namespace: arguments.namespace.namespace.to_string(),
        consistency: v1::Consistency::from(arguments.consistency).into(),
        ..Default::default()
    };
    if arguments.interactive {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(usage("-i needs a terminal"));
        }
        return typing::run(runtime, &client, request).await;
    }
    let response = client.top_k(request).await?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&as_json(&response))?;
        writeln!(io::stdout(), "{text}")?;
        return Ok(());
    }
    print(&response)?;
    Ok(())
}

/// The text that is shown of a suggestion.
pub(crate) fn shown(suggestion: &v1::Suggestion) -> String {
    let text = if suggestion.display.is_empty() {
        &suggestion.term
    } else {
        &suggestion.display
    };
    printable(text)
}

fn print(response: &v1::GetTopKResponse) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for suggestion in &response.suggestions {
        writeln!(
            stdout,
            "{:>15}  {}",
            grouped(suggestion.count),
            shown(suggestion)
        )?;
    }
    let mut stderr = io::stderr();
    if response.suggestions.is_empty() {
        writeln!(stderr, "nothing starts with this")?;
    }
    for range in response.completeness.iter().flat_map(|part| &part.missing) {
        let end = if range.end.is_empty() {
            "the end"
        } else {
            &range.end
        };
        writeln!(
            stderr,
            "incomplete: nothing is known of the terms from {:?} to {:?}",
            range.start, end
        )?;
    }
    Ok(())
}

pub(crate) fn as_json(response: &v1::GetTopKResponse) -> serde_json::Value {
    let suggestions: Vec<_> = response
        .suggestions
        .iter()
        .map(|suggestion| {
            serde_json::json!({
                "term": suggestion.term,
                "display": if suggestion.display.is_empty() { &suggestion.term } else { &suggestion.display },
                "count": suggestion.count,
            })
        })
        .collect();
    let missing: Vec<_> = response
        .completeness
        .iter()
        .flat_map(|part| &part.missing)
        .map(|range| serde_json::json!({ "start": range.start, "end": range.end }))
        .collect();
    serde_json::json!({
        "suggestions": suggestions,
        "k_served": response.k_served,
        "partial": !missing.is_empty(),
        "missing": missing,
        "age_ms": response.age_ms,
    })
}
