//! Which cluster a command talks to.

use std::time::Duration;

use client::{Client, ClientError, ClientOptions};
use runtime::Runtime;
use term::NamespaceName;

use crate::exit::usage;

/// The address that `up` listens on by default, and that the other commands ask.
pub(crate) const DEFAULT_GRPC_ADDRESS: &str = "127.0.0.1:50051";

/// The cluster to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Coordinators of the cluster; several are separated by commas
    #[arg(
        long,
        short,
        value_name = "HOST:PORT",
        env = "AUTOCOMPLETE_ADDR",
        value_delimiter = ',',
        default_value = DEFAULT_GRPC_ADDRESS
    )]
    pub(crate) addr: Vec<String>,

    /// How long an operation may take, retries included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) deadline: Duration,

    /// Go straight to the shard that owns a term, where that can be
    #[arg(long)]
    pub(crate) direct: bool,
}

/// The namespace a command works in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NamespaceArgs {
    /// The dictionary to use: [a-z0-9][a-z0-9._-]{0,62}
    #[arg(
        long,
        short,
        value_name = "NAME",
        env = "AUTOCOMPLETE_NAMESPACE",
        default_value = term::DEFAULT_NAMESPACE
    )]
    pub(crate) namespace: NamespaceName,
}

impl TargetArgs {
    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            endpoints: self.addr.clone(),
            deadline: self.deadline,
            direct: self.direct,
            ..ClientOptions::default()
        }
    }

    pub(crate) fn client(&self, runtime: &Runtime) -> Result<Client, anyhow::Error> {
        connect(runtime, self.options())
    }
}

/// A client, or an error of bad arguments.
pub(crate) fn connect(runtime: &Runtime, options: ClientOptions) -> Result<Client, anyhow::Error> {
    Client::connect(runtime.clone(), options).map_err(|error| match error {
        ClientError::Options { field, problem } => usage(format!("{field}: {problem}")),
        ClientError::Call { .. } | ClientError::Protocol { .. } | ClientError::Closed => {
            error.into()
        }
    })
}

/// Reads `10s`, `500ms` and the like.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("must be above 0".to_owned());
    }
    Ok(duration)
}
