//! `coordinator healthcheck`

use std::time::Duration;

use rpc::health::READY_SERVICE;
use runtime::Runtime;

use super::{Done, EXIT_FAILED, Failure};

/// The options of `healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    /// Address of the coordinator's gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    addr: String,
    /// Service to ask for; empty asks whether the process lives
    #[arg(long, value_name = "NAME", default_value = READY_SERVICE)]
    service: String,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Healthcheck {
    pub(super) async fn run(self, runtime: &Runtime) -> Done {
        let checked = rpc::healthcheck(runtime, &self.addr, &self.service, self.timeout).await;
        checked.map_err(|error| Failure::new(EXIT_FAILED, error.to_string()))
    }
}
