//! Measures the cluster beside what a user would pick instead: the same terms, the same prefixes and the same records, with the same
//! numbers of connections, in turn, in one run on one machine.
//!
//! The servers are those of [`Kind`]: ours as `autocomplete up` and as four processes, durable as always, and of the peers those that are installed. Nothing is
//! installed; a peer that is absent is named as left out.
//!
//! What always holds:
//! - Every server is a process of its own on loopback, with a free port and a temporary folder, and ends with the run, by its id.
//! - All servers run for the whole run, so that none has the machine's memory or caches to itself; one is asked at a time.
//! - Every round asks every server, so that a busy minute of the machine falls on all of them. Medians over the rounds are compared.
//!
//! Besides the comparison there are measurements of ours alone: how its cost grows, what the ways of a completion cost, how long requests
//! wait while snapshots are taken and replicas move, and what becomes of more requests than a server takes on ([`Command`]).
//!
//! On failure: the first server that does not start, load or answer ends the run with an error that names it.

mod args;
mod asking;
mod cluster;
mod figures;
mod grow;
mod lucene;
mod machine;
mod operator;
mod ours;
mod overload;
mod plot;
mod process;
mod redis_server;
mod report;
mod rounds;
mod routes;
mod servers;
mod stalls;
mod terms;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Serialize;

pub use args::{Args, Cli, Command};
pub use grow::GrowArgs;
pub use overload::OverloadArgs;
pub use report::{Loaded, Report, Row};
pub use rounds::Work;
pub use routes::RoutesArgs;
pub use servers::Kind;
pub use stalls::StallsArgs;

use machine::Machine;
use servers::{Server, Started};

/// Measures what was asked for, prints it, and writes it where asked.
///
/// # Errors
/// See [`compare`], which the other measurements fail like; and when the result cannot be written.
pub async fn run(runtime: &Runtime, cli: Cli) -> Result<(), anyhow::Error> {
    let arguments = match cli.command {
        Some(Command::Grow(arguments)) => return grow::run(runtime, arguments).await,
        Some(Command::Routes(arguments)) => return routes::run(runtime, arguments).await,
        Some(Command::Stalls(arguments)) => return stalls::run(runtime, arguments).await,
        Some(Command::Overload(arguments)) => return overload::run(runtime, arguments).await,
        None => cli.compare,
    };
    let out = arguments.out.clone();
    let report = compare(runtime, arguments).await?;
    publish(out.as_deref(), "bench", &report.markdown(), &report)
}

/// Starts what is there, loads, measures, and ends it all.
///
/// # Errors
/// When a server that is there does not start, does not load, or does not answer.
pub async fn compare(runtime: &Runtime, arguments: Args) -> Result<Report, anyhow::Error> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let machine = Machine::look();
    let prepared = arguments.clone();
    let path = folder.path().join("terms.tsv");
    let terms = runtime
        .spawn_blocking("terms", move || terms::prepare(&prepared, path))
        .await??;
    let mut servers: Vec<Server> = Vec::new();
    let mut absent = Vec::new();
    for kind in Kind::ALL {
        match servers::start(runtime, kind, &arguments, folder.path()).await? {
            Started::Running(server) => servers.push(server),
            Started::Absent(reason) => absent.push(format!("{}: {reason}", kind.name())),
        }
    }
    let mut loaded = Vec::new();
    for server in &mut servers {
        say(&format!("loading {}", server.kind.name()));
        let load = server.load(runtime, &terms, &arguments).await;
        loaded.push(load.with_context(|| format!("loading {}", server.kind.name()))?);
    }
    let samples = rounds::measure(runtime, &mut servers, &terms.terms, &arguments).await?;
    if arguments.end_in_order {
        for server in servers {
            let name = server.kind.name();
            let ended = server.end(runtime).await;
            ended.with_context(|| format!("ending {name}"))?;
        }
    }
    Ok(Report::new(&arguments, machine, absent, loaded, &samples))
}

/// Tells whoever watches how far it is.
fn say(text: &str) {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a result for people and for programs where that was asked for, and prints it.
fn publish<T: Serialize>(
    dir: Option<&Path>,
    name: &str,
    text: &str,
    result: &T,
) -> Result<(), anyhow::Error> {
    if let Some(dir) = dir {
        write(dir, &format!("{name}.md"), text.as_bytes())?;
        let json = serde_json::to_vec_pretty(result)?;
        write(dir, &format!("{name}.json"), &json)?;
    }
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a report; the vfs crate is for data that must survive"
)]
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), anyhow::Error> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}
