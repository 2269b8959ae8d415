//! `autocomplete wal`: looks into the log of a data directory.
//!
//! `dump`, `verify` and `train` take no lock and change no segment; beside a running server, the tail they see may be one that is being
//! written. `repair` wants the server stopped. What nobody was promised (a torn tail) it drops as a start would; damage to what was
//! acknowledged it cuts away only after a person has typed a confirmation, and keeps what it cut. A log of whose entries other servers
//! have replicas is not cut, unless that was asked for apart: the server is better started with an empty directory.

mod dump;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use vfs::{RealDisk, Vfs};
use wal::inspect::{self, RepairReport, UnreadableBytes, Verdict};
use wal::{GroupId, OpenError, WalOptions};

use crate::exit::usage;
use crate::output::{counted, grouped};
use crate::prompt;

/// What has to be typed before acknowledged data is given up.
const CONFIRMATION: &str = "accept-loss";

/// Why a log that others share is not cut.
const COUNTED_ON: &str = "They count on what this server has voted and acknowledged: a log that is cut here can take back what was acknowledged, and nobody would notice.";

/// Looks into the write-ahead log of a data directory. DIR may be the directory of `up`, of one server, or the log itself.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct WalArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// List every record
    Dump(dump::DumpArgs),
    /// Judge the log as a start would; exit code 1 if acknowledged data is damaged
    Verify(DirArgs),
    /// Drop a torn tail; with a typed confirmation, cut away damage to acknowledged data
    Repair(RepairArgs),
    /// Make a compression dictionary for small entries, used by segments begun after the next start
    Train(TrainArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct DirArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
struct RepairArgs {
    /// The data directory of one server, which must not be running
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Give up acknowledged data that is damaged, and all that follows it. Only for a shard without other replicas; asks for a
    /// confirmation
    #[arg(long)]
    accept_loss: bool,

    /// Do so although other servers hold replicas of what is in the log. Votes and entries that they count on are forgotten, which can
    /// take back what was acknowledged: only where all of them are gone for good
    #[arg(long, requires = "accept_loss")]
    accept_votes_forgotten: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct TrainArgs {
    /// The data directory of one server
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The largest size of the dictionary
    #[arg(long, value_name = "BYTES", default_value_t = 32 * 1024)]
    bytes: usize,
}

pub(crate) fn run(arguments: &WalArgs) -> Result<(), anyhow::Error> {
    match &arguments.verb {
        Verb::Dump(arguments) => dump::run(arguments),
        Verb::Verify(arguments) => verify(&arguments.dir),
        Verb::Repair(arguments) => repair(arguments),
        Verb::Train(arguments) => train(arguments),
    }
}

/// The logs that a directory means: one, or those of all servers below it.
fn logs(disk: &dyn Vfs, dir: &Path) -> Result<Vec<PathBuf>, anyhow::Error> {
    let own = dir.join("wal");
    if disk.exists(&own)? {
        return Ok(vec![own]);
    }
    let entries = disk
        .list_dir(dir)
        .map_err(|error| usage(format!("{error}")))?;
    let below: Vec<_> = entries
        .iter()
        .filter(|entry| entry.is_dir)
        .map(|entry| dir.join(&entry.name).join("wal"))
        .filter(|log| disk.exists(log).unwrap_or(false))
        .collect();
    Ok(if below.is_empty() {
        vec![dir.to_owned()]
    } else {
        below
    })
}

fn one_log(disk: &dyn Vfs, dir: &Path) -> Result<PathBuf, anyhow::Error> {
    let found = logs(disk, dir)?;
    match found.as_slice() {
        [log] => Ok(log.clone()),
        several => Err(usage(format!(
            "{} holds {} logs; name one server's directory",
            dir.display(),
            several.len()
        ))),
    }
}

fn verify(dir: &Path) -> Result<(), anyhow::Error> {
    let disk = RealDisk::new();
    let mut rotten = 0;
    for log in logs(&disk, dir)? {
        let report = inspect::verify(&disk, &log, None)
            .with_context(|| format!("reading the log in {}", log.display()))?;
        if report.segments == 0 {
            return Err(usage(format!("there is no log in {}", log.display())));
        }
        let verdict = match report.verdict {
            Verdict::Clean => "clean".to_owned(),
            Verdict::Torn { place, bytes } => format!(
                "torn: {} at {place} were never acknowledged, the next start drops them",
                counted(bytes, "byte")
            ),
            Verdict::Ambiguous { place } => format!(
                "ambiguous: the last batch is damaged at {place} and may have been acknowledged"
            ),
            Verdict::Rotten { place, reason } => {
                rotten += 1;
                format!("ROTTEN at {place}: {reason}")
            }
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}: {verdict}", log.display())?;
        writeln!(
            out,
            "  {}, {}, {}",
            counted(report.segments, "segment"),
            counted(report.bytes, "byte"),
            entries(report.entries),
        )?;
        for lost in &report.unreadable {
            writeln!(out, "  {}", unreadable(lost))?;
        }
        for (group, state) in report.groups {
            let last = state.last.map_or(0, |id| id.index);
            writeln!(
                out,
                "  group {group}: entries {} to {}, chain {:08x}",
                grouped(state.first_index),
                grouped(last),
                state.chain
            )?;
        }
    }
    anyhow::ensure!(rotten == 0, "acknowledged data is damaged");
    Ok(())
}

fn unreadable(lost: &UnreadableBytes) -> String {
    let (from, to) = (lost.bytes.start, lost.bytes.end);
    format!("{}: bytes {from} to {to} cannot be read", lost.file)
}

fn entries(number: u64) -> String {
    if number == 1 {
        return "1 entry".to_owned();
    }
    format!("{} entries", grouped(number))
}

fn repair(arguments: &RepairArgs) -> Result<(), anyhow::Error> {
    let disk: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let log = one_log(disk.as_ref(), &arguments.dir)?;
    let mend = |accept_loss| inspect::repair(&disk, &log, None, WalOptions::default(), accept_loss);
    let report = match mend(false) {
        Ok(report) => report,
        Err(damage @ (OpenError::Rotten { .. } | OpenError::Ambiguous { .. })) => {
            let others = others(disk.as_ref(), &log)?;
            confirm_loss(arguments, &damage, others.as_deref())?;
            mend(true)?
        }
        Err(error) => return Err(error.into()),
    };
    tell_repair(&log, &report)?;
    Ok(())
}

/// Has a person say that the log may be cut before the damage. `others` says who else has what is in it.
fn confirm_loss(
    arguments: &RepairArgs,
    damage: &OpenError,
    others: Option<&str>,
) -> Result<(), anyhow::Error> {
    let mut question = format!(
        "{damage}.\nThe log is cut there. What follows is lost to this replica, although it was acknowledged."
    );
    if let Some(others) = others {
        anyhow::ensure!(
            arguments.accept_votes_forgotten,
            "{damage}. {others}. {COUNTED_ON} Start the server with an empty directory instead, and it is built anew from theirs. Only where all of them are gone for good: --accept-loss --accept-votes-forgotten"
        );
        question = format!("{question}\n{others}. {COUNTED_ON}");
    }
    anyhow::ensure!(
        arguments.accept_loss,
        "{damage}. Restore it from another replica. Where there is none: --accept-loss"
    );
    if !prompt::confirmed(&question, CONFIRMATION)? {
        return Err(usage("not confirmed, nothing was changed"));
    }
    Ok(())
}

/// Who else has what is in a log, as a sentence without its full stop; nothing where nobody has.
fn others(disk: &dyn Vfs, log: &Path) -> Result<Option<String>, anyhow::Error> {
    let noted = replication::shared_groups(disk, log)
        .with_context(|| format!("reading who shares the log in {}", log.display()))?;
    let Some(groups) = noted else {
        let unknown = "Other servers may hold replicas of these shards, for the note that names them cannot be believed";
        return Ok(Some(unknown.to_owned()));
    };
    let names: Vec<String> = groups.into_iter().map(named).collect();
    let names = names.join(", ");
    Ok((!names.is_empty()).then(|| format!("Other servers hold replicas of {names}")))
}

fn named(group: GroupId) -> String {
    match replication::shard_of(group) {
        Some(shard) => format!("shard {shard}"),
        None => "the metadata".to_owned(),
    }
}

fn tell_repair(log: &Path, report: &RepairReport) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !report.changed {
        return writeln!(out, "{}: nothing to repair", log.display());
    }
    if let Some(place) = report.cut {
        writeln!(
            out,
            "{}: cut at {place}, {} dropped",
            log.display(),
            counted(report.dropped_bytes, "byte")
        )?;
    }
    for group in &report.groups_forgiven {
        writeln!(out, "group {group}: restored what covered its entries")?;
    }
    for path in &report.kept {
        writeln!(out, "kept as a copy: {}", path.display())?;
    }
    for lost in &report.unreadable {
        writeln!(out, "{}", unreadable(lost))?;
    }
    Ok(())
}

fn train(arguments: &TrainArgs) -> Result<(), anyhow::Error> {
    let disk = RealDisk::new();
    let log = one_log(&disk, &arguments.dir)?;
    let report = inspect::train(&disk, &log, arguments.bytes)?;
    writeln!(
        io::stdout(),
        "dictionary {} of {}, from {} ({}); segments begun after the next start use it",
        report.dictionary,
        counted(report.dictionary_bytes, "byte"),
        entries(report.samples),
        counted(report.sample_bytes, "byte")
    )?;
    Ok(())
}
