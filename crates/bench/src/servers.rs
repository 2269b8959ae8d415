//! The servers that are compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;

use crate::asking::{Answers, Asking};
use crate::lucene::Lucene;
use crate::operator::Operator;
use crate::ours::{Form, Programs, Shape};
use crate::process::{Processes, is_file, on_path, version};
use crate::redis_server::Design;
use crate::report::Loaded;
use crate::terms::Terms;
use crate::{Args, lucene, ours, redis_server};

const NOT_BUILT: &str =
    "there is no autocomplete beside this program: build it, or give --autocomplete";
const NO_PROGRAMS: &str = "there are no coordinator and shard-server beside autocomplete";

/// How long a process may take to end: it writes down what it has in memory.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// A server, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `autocomplete up`: three shards and a coordinator in one process.
    Ours,
    /// Another build of it.
    Baseline,
    /// A coordinator and three shard servers, with three replicas of each shard.
    Replicated,
    /// Suggestion dictionaries of RediSearch.
    Dictionary,
    /// A sorted set of Redis for each prefix.
    SortedSets,
    /// The completion field of Lucene, without a search engine around it.
    Lucene,
}

impl Kind {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 6] = [
        Self::Ours,
        Self::Baseline,
        Self::Replicated,
        Self::Dictionary,
        Self::SortedSets,
        Self::Lucene,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "autocomplete",
            Self::Baseline => "autocomplete, baseline",
            Self::Replicated => "autocomplete, three replicas",
            Self::Dictionary => "RediSearch dictionary",
            Self::SortedSets => "Redis sorted sets",
            Self::Lucene => "Lucene completion field",
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    processes: Processes,
    address: String,
    dir: PathBuf,
    /// What it says of its version, in one line.
    version: String,
    make: Make,
}

/// How a server is loaded and asked.
#[derive(Debug, Clone)]
enum Make {
    /// By this command.
    Ours(PathBuf),
    Redis(Design),
    Lucene,
}

/// What it takes to start a server.
enum Recipe {
    /// With so many shards.
    Up(PathBuf, u16),
    Processes(PathBuf, Programs, Shape),
    Redis(PathBuf, Design),
    Lucene(Lucene),
    Absent(String),
}

impl Recipe {
    fn processes(program: PathBuf, shape: Shape) -> Self {
        match Programs::beside(&program) {
            Some(programs) => Self::Processes(program, programs, shape),
            None => Self::Absent(NO_PROGRAMS.to_owned()),
        }
    }
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
    fn running(self) -> Result<Server, anyhow::Error> {
        match self {
            Self::Running(server) => Ok(server),
            Self::Absent(reason) => anyhow::bail!(reason),
        }
    }
}

/// Starts a server where it is there.
pub(crate) async fn start(
    runtime: &Runtime,
    kind: Kind,
    arguments: &Args,
    folder: &Path,
) -> Result<Started, anyhow::Error> {
    let begun = begin(runtime, kind, recipe(kind, arguments)?, folder).await;
    begun.with_context(|| format!("starting {}", kind.name()))
}

/// Starts a cluster of the programs beside this one.
///
/// # Errors
/// When they are not there, or it does not come to serve.
pub(crate) async fn start_ours(
    runtime: &Runtime,
    form: Form,
    folder: &Path,
) -> Result<Server, anyhow::Error> {
    let program = ours::beside().context(NOT_BUILT)?;
    let (kind, recipe) = match form {
        Form::Up(shards) => (Kind::Ours, Recipe::Up(program, shards)),
        Form::Processes(shape) => (Kind::Replicated, Recipe::processes(program, shape)),
    };
    let begun = begin(runtime, kind, recipe, folder).await;
    begun.context("starting the cluster")?.running()
}

#[expect(
    clippy::disallowed_methods,
    reason = "scratch space; the vfs crate is for data that must survive"
)]
async fn begin(
    runtime: &Runtime,
    kind: Kind,
    recipe: Recipe,
    folder: &Path,
) -> Result<Started, anyhow::Error> {
    let dir = folder.join(format!("{kind:?}").to_lowercase());
    std::fs::create_dir_all(&dir)?;
    let started = match &recipe {
        Recipe::Up(program, shards) => ours::start(runtime, program, *shards, &dir).await,
        Recipe::Processes(_, programs, shape) => {
            ours::start_processes(runtime, programs, *shape, &dir).await
        }
        Recipe::Redis(program, design) => redis_server::start(runtime, program, design, &dir).await,
        Recipe::Lucene(lucene) => lucene.start(runtime, &dir).await,
        Recipe::Absent(reason) => return Ok(Started::Absent(reason.clone())),
    };
    let (processes, address) = started?;
    let (version, make) = match recipe {
        Recipe::Up(program, _) | Recipe::Processes(program, _, _) => {
            (version(&program), Make::Ours(program))
        }
        Recipe::Redis(program, design) => (version(&program), Make::Redis(design)),
        Recipe::Lucene(lucene) => (lucene.version(), Make::Lucene),
        Recipe::Absent(reason) => return Ok(Started::Absent(reason)),
    };
    Ok(Started::Running(Server {
        kind,
        processes,
        address,
        dir,
        version,
        make,
    }))
}

/// How a server is started, or why it is left out.
fn recipe(kind: Kind, arguments: &Args) -> Result<Recipe, anyhow::Error> {
    let absent = |reason: &str| Recipe::Absent(reason.to_owned());
    let ours = || {
        let given = arguments.autocomplete.clone().or_else(ours::beside);
        given.context(NOT_BUILT)
    };
    let shards = arguments.shards;
    Ok(match kind {
        Kind::Ours => Recipe::Up(ours()?, shards),
        Kind::Baseline => match &arguments.baseline {
            Some(program) => Recipe::Up(program.clone(), shards),
            None => absent("not asked for"),
        },
        Kind::Replicated if !arguments.replicated => absent("not asked for"),
        Kind::Dictionary | Kind::SortedSets | Kind::Lucene if arguments.no_peers => {
            absent("not asked for")
        }
        Kind::Replicated => Recipe::processes(ours()?, Shape::replicated(shards)),
        Kind::Dictionary | Kind::SortedSets => {
            let module = &arguments.redisearch;
            match on_path("redis-server") {
                None => absent("there is no redis-server"),
                Some(program) if kind == Kind::SortedSets => {
                    Recipe::Redis(program, Design::SortedSets)
                }
                Some(program) if is_file(module) => {
                    Recipe::Redis(program, Design::Dictionary(module.clone()))
                }
                Some(_) => absent(&format!("there is no {}", module.display())),
            }
        }
        Kind::Lucene => match Lucene::find(&arguments.lucene) {
            Err(reason) => absent(&reason),
            Ok(lucene) => Recipe::Lucene(lucene),
        },
    })
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
            self.processes.cpu(),
            self.processes.resident_bytes(),
        );
        let count = match self.kind {
            Kind::SortedSets => terms.terms.len().min(arguments.sorted_set_terms),
            Kind::Ours | Kind::Baseline | Kind::Replicated | Kind::Dictionary | Kind::Lucene => {
                terms.terms.len()
            }
        };
        match &self.make {
            Make::Ours(program) => {
                ours::load(runtime, program, &self.address, &terms.file, &self.dir).await?;
            }
            Make::Lucene => lucene::load(runtime, &self.address, &terms.file, count).await?,
            Make::Redis(design) => {
                let loaded = terms.terms.get(..count).unwrap_or_default();
                redis_server::load(&self.address, design, loaded, &terms.counts).await?;
            }
        }
        self.processes.ensure_run()?;
        Ok(Loaded {
            server: self.kind,
            version: self.version.clone(),
            terms: count,
            seconds: runtime.now().saturating_since(began).as_secs_f64(),
            cpu_seconds: self.processes.cpu().saturating_sub(cpu).as_secs_f64(),
            resident_bytes: self.processes.resident_bytes(),
            resident_bytes_empty: empty,
        })
    }

    /// Has its processes end in good order, one after the other: what is asked for goes before what it asks.
    pub(crate) async fn end(self, runtime: &Runtime) -> Result<(), anyhow::Error> {
        for process in self.processes.0 {
            process.end(runtime, END_PATIENCE).await?;
        }
        Ok(())
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn processes(&mut self) -> &mut Processes {
        &mut self.processes
    }

    /// Whoever runs it, where it is ours.
    ///
    /// # Errors
    /// When the operator's command is not there.
    pub(crate) fn operator(&self, runtime: &Runtime) -> Result<Operator, anyhow::Error> {
        let programs = match &self.make {
            Make::Ours(program) => Programs::beside(program),
            Make::Redis(_) | Make::Lucene => None,
        };
        let programs = programs.context(NO_PROGRAMS)?;
        Ok(Operator::new(runtime, programs, &self.address))
    }

    /// Asks for a while over so many connections.
    pub(crate) async fn ask(
        &mut self,
        runtime: &Runtime,
        terms: &Arc<Vec<String>>,
        how: Asking,
    ) -> Result<Answers, anyhow::Error> {
        let Asking {
            connections,
            k,
            way,
            plan,
        } = how;
        let before = self.processes.cpu();
        let address = self.address.clone();
        let measured = match self.make.clone() {
            Make::Ours(_) => {
                let world = runtime.clone();
                let make = move || {
                    let target = ours::target(&world, &address, k, way);
                    async move { target }
                };
                workload::run(runtime, connections, make, terms, plan).await?
            }
            Make::Lucene => {
                let world = runtime.clone();
                let make = move || {
                    let (world, address) = (world.clone(), address.clone());
                    async move { Ok(lucene::target(&world, &address, k)) }
                };
                workload::run(runtime, connections, make, terms, plan).await?
            }
            Make::Redis(design) => {
                let make = move || {
                    let (address, design) = (address.clone(), design.clone());
                    async move { redis_server::target(&address, design, k).await }
                };
                workload::run(runtime, connections, make, terms, plan).await?
            }
        };
        self.processes.ensure_run()?;
        let cpu = self.processes.cpu().saturating_sub(before);
        Answers::of(&measured, cpu, plan.time)
    }
}
