//! One question to a health service, for the `healthcheck` subcommand of the binaries.

use std::time::Duration;

use api::ApiError;
use runtime::Runtime;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Deadline;
use crate::channel::{PoolConfig, connect};

/// Why a server cannot be called healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It answered, and said no.
    #[error("{service:?} at {address} is not serving")]
    NotServing {
        /// Who was asked.
        address: String,
        /// What was asked for.
        service: String,
    },
    /// It did not answer, or not in time.
    #[error("no word of {service:?} from {address}: {error}")]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// What was asked for.
        service: String,
        /// What came instead.
        error: ApiError,
    },
}

/// Asks the server at `host:port` whether a service serves (`""` for the process itself).
///
/// # Errors
/// Everything but a plain yes within `timeout`.
pub async fn healthcheck(
    runtime: &Runtime,
    address: &str,
    service: &str,
    timeout: Duration,
) -> Result<(), HealthcheckError> {
    let no_answer = |error| HealthcheckError::NoAnswer {
        address: address.to_owned(),
        service: service.to_owned(),
        error,
    };
    let channel = connect(runtime, address, &PoolConfig::default()).map_err(no_answer)?;
    let deadline = Deadline::after(runtime, timeout);
    let question = HealthCheckRequest {
        service: service.to_owned(),
    };
    let request = deadline.request(runtime, question).map_err(no_answer)?;
    let mut client = HealthClient::new(channel);
    let answer = deadline
        .call(runtime, client.check(request))
        .await
        .map_err(no_answer)?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            Err(HealthcheckError::NotServing {
                address: address.to_owned(),
                service: service.to_owned(),
            })
        }
    }
}
