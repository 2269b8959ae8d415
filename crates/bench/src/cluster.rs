//! A cluster of ours, loaded with made-up terms: what everything but the comparison is measured on.
//!
//! What always holds: its processes and its folder end with it.
//!
//! On failure: what does not start, load or answer is an error that says so.

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;

use crate::asking::{Answers, Asking};
use crate::figures::{float, ratio};
use crate::ours::Form;
use crate::servers::{self, Server};
use crate::terms::{self, Terms};
use crate::{Args, say};

/// A loaded cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) terms: Terms,
    pub(crate) server: Server,
    pub(crate) loaded: Load,
    _folder: tempfile::TempDir,
}

/// What loading so many terms took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    pub(crate) terms: usize,
    pub(crate) seconds: f64,
    pub(crate) cpu_us_per_term: f64,
    pub(crate) bytes_per_term: f64,
}

impl Cluster {
    /// Starts it, and loads so many made-up terms.
    pub(crate) async fn start(
        runtime: &Runtime,
        form: Form,
        terms: u32,
    ) -> Result<Self, anyhow::Error> {
        say(&format!("{terms} terms in {} shards", form.shards()));
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let arguments = Args::ours(terms, form.shards());
        let path = folder.path().join("terms.tsv");
        let prepared = arguments.clone();
        let terms = runtime
            .spawn_blocking("terms", move || terms::prepare(&prepared, path))
            .await??;
        let mut server = servers::start_ours(runtime, form, folder.path()).await?;
        let loaded = server.load(runtime, &terms, &arguments).await?;
        let number = float(loaded.terms as u64);
        let grown = loaded
            .resident_bytes
            .saturating_sub(loaded.resident_bytes_empty);
        let loaded = Load {
            terms: loaded.terms,
            seconds: loaded.seconds,
            cpu_us_per_term: ratio(loaded.cpu_seconds * 1e6, number),
            bytes_per_term: ratio(float(grown), number),
        };
        Ok(Self {
            runtime: runtime.clone(),
            terms,
            server,
            loaded,
            _folder: folder,
        })
    }

    /// Asks for a while.
    ///
    /// # Errors
    /// When nothing is answered, or a process has ended.
    pub(crate) async fn ask(&mut self, how: Asking) -> Result<Answers, anyhow::Error> {
        let terms = &self.terms.terms;
        self.server.ask(&self.runtime, terms, how).await
    }
}
