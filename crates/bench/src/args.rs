//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::grow::GrowArgs;
use crate::overload::OverloadArgs;
use crate::routes::RoutesArgs;
use crate::stalls::StallsArgs;

/// Where Debian's package redis-redisearch puts the module.
const REDISEARCH: &str = "/usr/lib/redis/modules/redisearch.so";

/// Where Debian's package liblucene8-java puts its libraries.
const LUCENE: &str = "/usr/share/java";

/// Measures the cluster beside its peers, in one run on this machine. Installs nothing: a peer that is absent is left out. The commands measure
/// the cluster alone.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "bench", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What else there is to measure.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The comparison.
    #[command(flatten)]
    pub compare: Args,
}

/// What else there is to measure.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// How the cost of ours grows with terms, connections and the rest; as tables and drawings
    Grow(GrowArgs),
    /// What the hop from a coordinator to a shard, and the merge of all shards, add to a completion
    Routes(RoutesArgs),
    /// How long requests wait while snapshots are taken and pulled, and while replicas move
    Stalls(StallsArgs),
    /// How many requests are still answered, and how fast the others refused, when there are more than a server takes on
    Overload(OverloadArgs),
}

/// The comparison.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Made-up terms to load
    #[arg(long, default_value_t = 200_000, conflicts_with = "file", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub terms: u32,

    /// Load this file instead: lines of `term<TAB>count` or plain terms, not compressed, each term once
    #[arg(long)]
    pub file: Option<PathBuf>,

    /// Shards of ours
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,

    /// Terms that the sorted sets get, from the first on: each takes kilobytes there
    #[arg(long, value_name = "NUMBER", default_value_t = 200_000)]
    pub sorted_set_terms: usize,

    /// Connections, each with one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64], value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: Vec<u16>,

    /// How often everything is measured; medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,

    /// How long each measurement takes, after a fifth of that to warm up
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = humantime::parse_duration)]
    pub time: Duration,

    /// Completions to ask for
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub k: u32,

    /// Where the made-up terms and choices begin
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Our program [default: the one beside this]
    #[arg(long, value_name = "PROGRAM")]
    pub autocomplete: Option<PathBuf>,

    /// Another build of our program, measured as a server of its own: the baseline of a change
    #[arg(long, value_name = "PROGRAM")]
    pub baseline: Option<PathBuf>,

    /// Ours once more: a coordinator and three shard servers with three replicas of each shard, as four processes
    #[arg(long)]
    pub replicated: bool,

    /// The module that gives Redis its suggestion dictionaries
    #[arg(
        long,
        value_name = "FILE",
        default_value = REDISEARCH
    )]
    pub redisearch: PathBuf,

    /// The folder of the libraries of Lucene 8, whose completion field is asked through a small server; needs a Java of 17 or later
    #[arg(long, value_name = "DIR", default_value = LUCENE)]
    pub lucene: PathBuf,

    /// Ours alone
    #[arg(long)]
    pub no_peers: bool,

    /// Reads alone
    #[arg(long)]
    pub no_records: bool,

    /// Ask the servers to end, and wait for it, instead of killing them
    #[arg(long)]
    pub end_in_order: bool,

    /// A folder for bench.md and bench.json
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Args {
    /// Ours alone, with so many made-up terms in so many shards.
    pub(crate) fn ours(terms: u32, shards: u16) -> Self {
        Self {
            terms,
            file: None,
            shards,
            sorted_set_terms: 0,
            connections: Vec::new(),
            rounds: 1,
            time: Duration::ZERO,
            k: 10,
            seed: 1,
            autocomplete: None,
            baseline: None,
            replicated: false,
            redisearch: PathBuf::from(REDISEARCH),
            lucene: PathBuf::from(LUCENE),
            no_peers: true,
            no_records: false,
            end_in_order: false,
            out: None,
        }
    }

    /// Where Debian's package has the module of [`Args::redisearch`].
    #[must_use]
    pub fn redisearch_of_debian() -> PathBuf {
        PathBuf::from(REDISEARCH)
    }

    /// Where Debian's package has the libraries of [`Args::lucene`].
    #[must_use]
    pub fn lucene_of_debian() -> PathBuf {
        PathBuf::from(LUCENE)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
