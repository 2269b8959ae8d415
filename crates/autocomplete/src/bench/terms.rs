//! The terms of a run.

use anyhow::Context as _;
use api::v1;
use client::Client;
use cluster::limits;
use runtime::Runtime;

use super::args::{BenchArgs, Workload};
use crate::load;

/// Terms that are kept of a file.
const TERMS_MAX: usize = 1_000_000;

const GENERATED_DEFAULT: u32 = 100_000;

/// The terms to use; never empty.
pub(super) async fn gather(
    runtime: &Runtime,
    client: &Client,
    arguments: &BenchArgs,
) -> Result<Vec<String>, anyhow::Error> {
    let is_top_k = arguments.workload == Workload::TopK;
    let terms = match (&arguments.terms, arguments.generated) {
        (Some(path), _) => {
            let path = path.clone();
            let read = move || load::read_terms(&path, TERMS_MAX);
            runtime.spawn_blocking("terms", read).await??
        }
        (None, None) if is_top_k => most_frequent(client, arguments).await?,
        (None, generated) => {
            workload::generate(generated.unwrap_or(GENERATED_DEFAULT), arguments.seed)
        }
    };
    anyhow::ensure!(
        !terms.is_empty(),
        "there are no terms to use: load some first (autocomplete load FILE), or give --terms or --generated"
    );
    Ok(terms)
}

/// What people would type in this namespace.
async fn most_frequent(
    client: &Client,
    arguments: &BenchArgs,
) -> Result<Vec<String>, anyhow::Error> {
    let response = client
        .top_k(v1::GetTopKRequest {
            k: limits::K_MAX,
            namespace: arguments.namespace(),
            ..Default::default()
        })
        .await
        .context("asking for the most frequent terms")?;
    let terms = response.suggestions.into_iter();
    Ok(terms.map(|suggestion| suggestion.term).collect())
}
