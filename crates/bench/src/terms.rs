//! The terms of a run: in memory for choices and peers, as a file for us.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use std::sync::Arc;

use anyhow::Context as _;

use crate::Args;

/// What is loaded.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Each once, in the order in which they are loaded.
    pub(crate) terms: Arc<Vec<String>>,
    /// In the order of the terms.
    pub(crate) counts: Vec<u64>,
    pub(crate) file: PathBuf,
}

/// Makes or reads the terms; made-up ones are written to `path`.
pub(crate) fn prepare(arguments: &Args, path: PathBuf) -> Result<Terms, anyhow::Error> {
    let prepared = match &arguments.file {
        Some(file) => read(file.clone())?,
        None => generate(arguments, path)?,
    };
    anyhow::ensure!(!prepared.terms.is_empty(), "there are no terms");
    Ok(prepared)
}

fn read(file: PathBuf) -> Result<Terms, anyhow::Error> {
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let (mut terms, mut counts) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (term, count) = match line.split_once('\t') {
            Some((term, count)) => (term, count.parse().context("a count is no number")?),
            None => (line, 1),
        };
        terms.push(term.to_owned());
        counts.push(count);
    }
    Ok(Terms {
        terms: Arc::new(terms),
        counts,
        file,
    })
}

/// Draws terms; each counts as often as it was drawn. (Where all counts are the same, some servers have to look at every term.)
#[expect(
    clippy::disallowed_methods,
    reason = "scratch space; the vfs crate is for data that must survive"
)]
fn generate(arguments: &Args, path: PathBuf) -> Result<Terms, anyhow::Error> {
    let drawn = workload::generate(arguments.terms, arguments.seed);
    let mut places = HashMap::new();
    let (mut terms, mut counts): (Vec<String>, Vec<u64>) = (Vec::new(), Vec::new());
    for term in &drawn {
        let place = *places.entry(term.as_str()).or_insert(terms.len());
        match counts.get_mut(place) {
            Some(count) => *count += 1,
            None => {
                terms.push(term.clone());
                counts.push(1);
            }
        }
    }
    let mut text = String::new();
    for (term, count) in terms.iter().zip(&counts) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{term}\t{count}");
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(Terms {
        counts,
        terms: Arc::new(terms),
        file: path,
    })
}
