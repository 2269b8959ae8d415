//! The arguments of `load`.

use std::path::PathBuf;
use std::time::Duration;

use client::ClientOptions;
use serde::{Deserialize, Serialize};

use crate::exit::usage;
use crate::target::{DEFAULT_GRPC_ADDRESS, NamespaceArgs, duration};

/// Loads a file of terms: lines of `term<TAB>count`, or plain terms that count 1 each. Compressed files (zstd, gzip) are recognised.
///
/// An interrupted load is continued by the same command: nothing is counted twice. Loading a file that was loaded before changes nothing, unless
/// --again is given.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadArgs {
    /// The file, or - for standard input (which cannot be continued after an interruption)
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,

    /// How lines are read; a load that was begun in one format is not continued in another
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    pub(super) format: Format,

    /// What a bad line does: skip it and report it, or stop before anything is loaded
    #[arg(long, value_enum, default_value_t = OnError::Skip)]
    pub(super) on_error: OnError,

    /// Count the file once more, although it was loaded before
    #[arg(long)]
    pub(super) again: bool,

    /// Streams to the cluster
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) streams: u16,

    /// Batches of up to 1,000 lines in flight on each stream
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) window: u16,

    /// How long to keep trying while the cluster does not take a batch
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(super) patience: Duration,

    /// Where the state of loads is kept [default: $XDG_STATE_HOME/autocomplete or ~/.local/state/autocomplete]
    #[arg(long, value_name = "DIR", env = "AUTOCOMPLETE_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,

    /// Coordinators of the cluster; several are separated by commas
    #[arg(
        long,
        short,
        value_name = "HOST:PORT",
        env = "AUTOCOMPLETE_ADDR",
        value_delimiter = ',',
        default_value = DEFAULT_GRPC_ADDRESS
    )]
    pub(super) addr: Vec<String>,

    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
}

/// How a line is read. These names stand in state files, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A line with a tab is term<TAB>count, any other a plain term
    Auto,
    /// Every line is term<TAB>count, and perhaps <TAB>display form
    Tsv,
    /// Every line is a term, tabs count as spaces
    Lines,
}

impl Format {
    /// As it is given to `--format`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tsv => "tsv",
            Self::Lines => "lines",
        }
    }
}

/// What a bad line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnError {
    /// Report it and go on
    Skip,
    /// Stop before anything is loaded (from standard input: where it stands)
    Stop,
}

impl LoadArgs {
    /// A client that waits out the restart of a shard.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            endpoints: self.addr.clone(),
            connections: usize::from(self.streams),
            deadline: self.patience,
            retries: u32::MAX,
            ..ClientOptions::default()
        }
    }

    pub(super) fn state_dir(&self) -> Result<PathBuf, anyhow::Error> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        set("XDG_STATE_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("autocomplete"))
            .ok_or_else(|| usage("give --state-dir: neither XDG_STATE_HOME nor HOME is set"))
    }
}
