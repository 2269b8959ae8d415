//! `autocomplete load`: a file of terms into a cluster, each line counted exactly once.
//!
//! # Exactly once
//!
//! A load is named by the file's BLAKE3 hash, the cluster, the namespace and its generation. From that name comes the client id of its
//! writes, and the number of a batch is its sequence, so a load that was interrupted is repeated by giving the same command again: what had
//! been applied is not applied twice.
//!
//! The other half of a request id is the time of its first try. The shards forget requests by age, and an id that they forgot must not come
//! back with a newer time, or it would pass for new. So the times are kept in a small state file ([`state`]), a thousand batches at a time,
//! written before the first of these batches is sent. The file also holds how far everything is settled, so that a repeated load goes on
//! where the first one stopped. It lies in the user's state directory and not beside the data, which may be read-only. If it is lost, the
//! repeated load is still exact as long as the shards remember the load's requests (some ten million lines at least, for hours or days), because
//! settled batches are only given up well behind the front (`ACKED_LAG_BATCHES`).
//!
//! How lines are read (`--format`) decides which of them are bad, and so what every batch holds. It is kept in the state file, too: under another
//! format a load is not gone on with.
//!
//! A load from standard input has no name before it ends, and cannot be repeated so.
//!
//! # Flow
//!
//! One blocking thread reads, decompresses, checks lines and forms batches; a bounded queue; several streams with several batches in flight
//! each. Memory is bounded by the queue and the windows.
//!
//! On failure: what was answered is kept, and the error says how to go on. A bad line is reported with its number and skipped, or stops the load
//! before anything is sent (`--on-error stop`). A line that the cluster did not take for another reason than itself ends the load, and its batch is
//! sent again by the next run.

mod args;
mod batch;
mod delivery;
mod lines;
mod name;
mod read;
mod report;
mod send;
mod source;
mod state;

use std::path::Path;

use anyhow::Context as _;
use client::Client;
use runtime::Runtime;
use term::NamespaceName;
use vfs::{RealDisk, Vfs};

pub(crate) use args::LoadArgs;
use args::{Format, OnError};
use delivery::Delivery;
use lines::Lines;
pub(crate) use name::LoadName;
use report::Report;
use send::{Loader, Plan};
use source::Source;
use state::LoadState;

use crate::exit::{Usage, usage};
use crate::fuzzing::LoadedLine;
use crate::target::connect;

pub(crate) async fn run(runtime: &Runtime, arguments: LoadArgs) -> Result<(), anyhow::Error> {
    let client = connect(runtime, arguments.options())?;
    let source = Source::of(&arguments.file);
    let examined = examine(runtime, &source, &arguments).await?;
    let delivery = match examined {
        Some(hash) => {
            let name = LoadName::find(&client, hash, &arguments.namespace.namespace).await?;
            let state = open_state(&arguments, &name)?;
            Delivery::repeatable(hash, &name, state)
        }
        None if arguments.again => {
            return Err(usage("--again is for files: standard input is always new"));
        }
        None => Delivery::once(runtime),
    };
    let report = Report::new(source.compressed_bytes()?);
    let plan = Plan {
        format: arguments.format,
        on_error: arguments.on_error,
        namespace: arguments.namespace.namespace.to_string(),
        streams: usize::from(arguments.streams),
        window: usize::from(arguments.window),
    };
    let mut loader = Loader::new(runtime, delivery, report);
    let result = loader.run(&client, source, &plan).await;
    loader.into_report().finish(runtime, result)
}

/// Reads the file once for its hash, and with `--on-error stop` checks every line. `None` for standard input.
async fn examine(
    runtime: &Runtime,
    source: &Source,
    arguments: &LoadArgs,
) -> Result<Option<blake3::Hash>, anyhow::Error> {
    if source.is_stdin() {
        return Ok(None);
    }
    let source = source.clone();
    let format = arguments.format;
    let check_lines = arguments.on_error == OnError::Stop;
    let work = move || source.examine(format, check_lines);
    let hash = runtime.spawn_blocking("examine", work).await??;
    Ok(Some(hash))
}

fn open_state(arguments: &LoadArgs, name: &LoadName) -> Result<LoadState, anyhow::Error> {
    let dir = arguments.state_dir()?;
    let disk = RealDisk::new();
    let path = dir.join(name.file_name());
    let state = if arguments.again {
        LoadState::begin_again(&disk, &path, &arguments.file, arguments.format)
    } else {
        LoadState::open(&disk, &path, &arguments.file, arguments.format)
    };
    state.map_err(|error| {
        // Another place would not know of the load that the arguments are at odds with.
        if error.is::<Usage>() {
            return error;
        }
        error.context(state_advice(&dir))
    })
}

fn state_advice(dir: &Path) -> String {
    format!(
        "keeping the load's state in {} (choose another place with --state-dir)",
        dir.display()
    )
}

/// The first terms of a file, at most `terms_max`; bad lines are left out.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read_terms(path: &Path, terms_max: usize) -> Result<Vec<String>, anyhow::Error> {
    let opened = Source::of(path).open()?;
    let mut lines = Lines::new(opened.text, Format::Auto);
    let mut terms = Vec::new();
    while terms.len() < terms_max
        && let Some(line) = lines.next().context("reading the terms")?
    {
        terms.extend(line.item.ok().map(|item| item.term));
    }
    Ok(terms)
}

/// Loads a file that is part of the program into the default namespace, once for a state file; returns how many terms were recorded.
///
/// # Errors
/// When the cluster does not take it; another call goes on where this one stopped.
pub(crate) async fn embedded(
    runtime: &Runtime,
    client: &Client,
    bytes: &'static [u8],
    state: &Path,
) -> Result<u64, anyhow::Error> {
    let source = Source::Embedded(bytes);
    let format = Format::Tsv;
    let hash = source.examine(format, false)?;
    let name = LoadName::find(client, hash, &NamespaceName::default()).await?;
    let state = LoadState::open(&RealDisk::new(), state, Path::new("the sample"), format)?;
    let plan = Plan {
        format,
        on_error: OnError::Skip,
        namespace: NamespaceName::default().to_string(),
        streams: 2,
        window: 4,
    };
    let delivery = Delivery::repeatable(hash, &name, state);
    let mut loader = Loader::new(runtime, delivery, Report::quiet());
    loader.run(client, source, &plan).await?;
    Ok(loader.into_report().terms())
}

/// What the lines of a text give; it reads from memory, so that nothing but a line can be wrong.
pub(crate) fn lines_of(text: &[u8]) -> Vec<LoadedLine> {
    let mut lines = Lines::new(text, Format::Auto);
    let mut found = Vec::new();
    while let Ok(Some(line)) = lines.next() {
        let item = line.item.map(|item| (item.term, item.count));
        found.push((line.number, item.map_err(|problem| problem.to_string())));
    }
    found
}

/// Goes on with a load's state by a batch, and begins it again: see [`crate::fuzzing::load_goes_on`].
pub(crate) fn goes_on(vfs: &dyn Vfs, path: &Path) -> Option<[(u64, u64); 3]> {
    let (file, format) = (Path::new("terms.tsv"), Format::Auto);
    let told = |state: &LoadState| (state.done_below(), state.again());
    let mut state = LoadState::open(vfs, path, file, format).ok()?;
    let before = told(&state);
    let batch = state.done_below();
    if state.issued_at_ms(batch).is_none() {
        state.reserve(vfs, batch, 1, batch).ok()?;
    }
    state.done(vfs, batch + 1).ok()?;
    drop(state);
    let after = told(&LoadState::open(vfs, path, file, format).ok()?);
    let again = told(&LoadState::begin_again(vfs, path, file, format).ok()?);
    Some([before, after, again])
}
