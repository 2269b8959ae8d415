//! The servers that are compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;
use workload::{Measured, Plan};

use crate::process::{Process, is_file, on_path, version};
use crate::redis_server::Design;
use crate::report::Loaded;
use crate::terms::Terms;
use crate::{Args, ours, redis_server};

/// A server, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `autocomplete up`: three shards and a coordinator in one process.
    Ours,
    /// Another build of it.
    Baseline,
    /// Suggestion dictionaries of RediSearch.
    Dictionary,
    /// A sorted set of Redis for each prefix.
    SortedSets,
}

impl Kind {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 4] = [
        Self::Ours,
        Self::Baseline,
        Self::Dictionary,
        Self::SortedSets,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "autocomplete",
            Self::Baseline => "autocomplete, baseline",
            Self::Dictionary => "RediSearch dictionary",
            Self::SortedSets => "Redis sorted sets",
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    process: Process,
    address: String,
    dir: PathBuf,
    program: PathBuf,
    design: Option<Design>,
}

/// What came of starting one.
#[derive(Debug)]
pub(crate) enum Started {
    Running(Server),
    /// It is not on this machine, or was not asked for.
    Absent(String),
}

impl Started {
    /// The server, which has to be there.
    pub(crate) fn running(self) -> Result<Server, anyhow::Error> {
        match self {
            Self::Running(server) => Ok(server),
            Self::Absent(reason) => anyhow::bail!(reason),
        }
    }
}

/// Starts a server where it is there.
#[expect(
    clippy::disallowed_methods,
    reason = "scratch space; the vfs crate is for data that must survive"
)]
pub(crate) async fn start(
    runtime: &Runtime,
    kind: Kind,
    arguments: &Args,
    folder: &Path,
) -> Result<Started, anyhow::Error> {
    let absent = |reason: &str| Ok(Started::Absent(reason.to_owned()));
    let (program, design) = match kind {
        Kind::Ours => {
            let given = arguments.autocomplete.clone().or_else(ours::beside);
            let program = given.context(
                "there is no autocomplete beside this program: build it, or give --autocomplete",
            )?;
            (program, None)
        }
        Kind::Baseline => match &arguments.baseline {
            Some(program) => (program.clone(), None),
            None => return absent("not asked for"),
        },
        Kind::Dictionary | Kind::SortedSets => {
            if arguments.no_peers {
                return absent("not asked for");
            }
            let Some(program) = on_path("redis-server") else {
                return absent("there is no redis-server");
            };
            let module = &arguments.redisearch;
            if kind == Kind::SortedSets {
                (program, Some(Design::SortedSets))
            } else if is_file(module) {
                (program, Some(Design::Dictionary(module.clone())))
            } else {
                return absent(&format!("there is no {}", module.display()));
            }
        }
    };
    let dir = folder.join(format!("{kind:?}").to_lowercase());
    std::fs::create_dir_all(&dir)?;
    let started = match &design {
        None => ours::start(runtime, &program, arguments.shards, &dir).await,
        Some(design) => redis_server::start(runtime, &program, design, &dir).await,
    };
    let (process, address) = started.with_context(|| format!("starting {}", kind.name()))?;
    Ok(Started::Running(Server {
        kind,
        process,
        address,
        dir,
        program,
        design,
    }))
}

impl Server {
    /// Loads the terms, and says what that took.
    pub(crate) async fn load(
        &mut self,
        runtime: &Runtime,
        terms: &Terms,
        arguments: &Args,
    ) -> Result<Loaded, anyhow::Error> {
        let (began, cpu, empty) = (
            runtime.now(),
            self.process.cpu(),
            self.process.resident_bytes(),
        );
        let count = match self.kind {
            Kind::SortedSets => terms.terms.len().min(arguments.sorted_set_terms),
            Kind::Ours | Kind::Baseline | Kind::Dictionary => terms.terms.len(),
        };
        match &self.design {
            None => {
                ours::load(
                    runtime,
                    &self.program,
                    &self.address,
                    &terms.file,
                    &self.dir,
                )
                .await?;
            }
            Some(design) => {
                let loaded = terms.terms.get(..count).unwrap_or_default();
                redis_server::load(&self.address, design, loaded, &terms.counts).await?;
            }
        }
        self.process.ensure_runs()?;
        Ok(Loaded {
            server: self.kind,
            version: version(&self.program),
            terms: count,
            seconds: runtime.now().saturating_since(began).as_secs_f64(),
            cpu_seconds: self.process.cpu().saturating_sub(cpu).as_secs_f64(),
            resident_bytes: self.process.resident_bytes(),
            resident_bytes_empty: empty,
        })
    }

    /// Asks for a while over so many connections. Also gives the processor time that the server used, warm-up included.
    pub(crate) async fn ask(
        &mut self,
        runtime: &Runtime,
        terms: &Arc<Vec<String>>,
        how: Asking,
    ) -> Result<(Measured, Duration), anyhow::Error> {
        let Asking {
            connections,
            k,
            stream,
            plan,
        } = how;
        let before = self.process.cpu();
        let address = self.address.clone();
        let measured = match self.design.clone() {
            None => {
                let world = runtime.clone();
                let make = move || {
                    let target = ours::target(&world, &address, k, stream);
                    async move { target }
                };
                workload::run(runtime, connections, make, terms, plan).await?
            }
            Some(design) => {
                let make = move || {
                    let (address, design) = (address.clone(), design.clone());
                    async move { redis_server::target(&address, design, k).await }
                };
                workload::run(runtime, connections, make, terms, plan).await?
            }
        };
        self.process.ensure_runs()?;
        Ok((measured, self.process.cpu().saturating_sub(before)))
    }

    /// Whether it can be asked over streams.
    pub(crate) fn has_streams(&self) -> bool {
        self.design.is_none()
    }
}

/// How a server is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) connections: u16,
    pub(crate) k: u32,
    pub(crate) stream: bool,
    pub(crate) plan: Plan,
}
