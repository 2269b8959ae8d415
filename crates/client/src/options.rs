//! What a client can be told.

use std::time::Duration;

use cluster::limits;

use crate::ClientError;

/// How a [`crate::Client`] reaches the cluster and how patient it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Coordinators, as `host:port` or `http://host:port`, 1 to 64. The first is used until it fails.
    pub endpoints: Vec<String>,
    /// Connections to each server, 1 to 64; default 2. Several lift the rate of many small calls.
    pub connections: usize,
    /// For a whole operation with all its retries; default 10 s. With less than 20 ms of it left no further try is begun.
    pub deadline: Duration,
    /// For one try of a unary call; default 2 s, at most 10 s. On streams an answer may take 10 s, unless the deadline ends it sooner.
    pub attempt_timeout: Duration,
    /// Tries after the first; default 8. 0 never retries.
    pub retries: u32,
    /// The longest first pause; it doubles with each further try. Default 20 ms.
    pub backoff_min: Duration,
    /// Where the doubling ends; default 1 s.
    pub backoff_max: Duration,
    /// Sends what concerns one shard straight to its owner; default off. Needs the shard servers' addresses to be reachable.
    pub direct: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:50051".to_owned()],
            connections: 2,
            deadline: Duration::from_secs(10),
            attempt_timeout: limits::DEADLINE_DEFAULT,
            retries: 8,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            direct: false,
        }
    }
}

const ENDPOINTS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 64;

impl ClientOptions {
    /// The defaults, for one coordinator.
    #[must_use]
    pub fn to(endpoint: impl Into<String>) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let within = |field, number: usize, max: usize| {
            if (1..=max).contains(&number) {
                return Ok(());
            }
            Err(ClientError::Options {
                field,
                problem: format!("is {number}, must be 1 to {max}"),
            })
        };
        within("endpoints", self.endpoints.len(), ENDPOINTS_MAX)?;
        within("connections", self.connections, CONNECTIONS_MAX)?;
        if self.attempt_timeout.is_zero() || self.attempt_timeout > limits::DEADLINE_MAX {
            return Err(ClientError::Options {
                field: "attempt_timeout",
                problem: format!(
                    "is {:?}, must be above 0 and at most {:?}",
                    self.attempt_timeout,
                    limits::DEADLINE_MAX
                ),
            });
        }
        if self.backoff_max < self.backoff_min {
            return Err(ClientError::Options {
                field: "backoff_max",
                problem: format!(
                    "is {:?}, less than backoff_min ({:?})",
                    self.backoff_max, self.backoff_min
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_each_limit_is_named() {
        ClientOptions::default().check().unwrap();
        let bad = |change: fn(&mut ClientOptions)| {
            let mut options = ClientOptions::default();
            change(&mut options);
            match options.check() {
                Err(ClientError::Options { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(bad(|o| o.endpoints.clear()), "endpoints");
        assert_eq!(bad(|o| o.connections = 0), "connections");
        assert_eq!(bad(|o| o.connections = 65), "connections");
        assert_eq!(
            bad(|o| o.attempt_timeout = Duration::ZERO),
            "attempt_timeout"
        );
        assert_eq!(
            bad(|o| o.attempt_timeout = Duration::from_secs(11)),
            "attempt_timeout"
        );
        assert_eq!(bad(|o| o.backoff_max = Duration::ZERO), "backoff_max");
    }
}
