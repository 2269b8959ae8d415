//! Connections to servers, and which coordinator is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rpc::channel::{Pool, PoolConfig};
use runtime::Runtime;
use tonic::transport::Channel;

use crate::{ClientError, ClientOptions};

/// A server that was not asked for this long is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// A pool as the options want it.
pub(crate) fn pool(runtime: &Runtime, options: &ClientOptions) -> Pool {
    let config = PoolConfig {
        connections_per_peer: options.connections,
        idle: IDLE,
        ..PoolConfig::default()
    };
    Pool::new(runtime, config)
}

/// The coordinators. One is preferred until it fails.
#[derive(Debug)]
pub(crate) struct Coordinators {
    pool: Pool,
    addresses: Vec<String>,
    preferred: AtomicUsize,
}

impl Coordinators {
    /// Checks all addresses; connects to none.
    pub(crate) fn new(pool: Pool, endpoints: &[String]) -> Result<Self, ClientError> {
        let addresses: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.strip_prefix("http://").unwrap_or(endpoint))
            .map(|address| address.trim_end_matches('/').to_owned())
            .collect();
        let coordinators = Self {
            pool,
            addresses,
            preferred: AtomicUsize::new(0),
        };
        for address in &coordinators.addresses {
            coordinators.channel(address)?;
        }
        Ok(coordinators)
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// A connection to the preferred coordinator, and which one it is.
    pub(crate) fn preferred(&self) -> Result<(usize, Channel), ClientError> {
        let index = self.preferred.load(Ordering::Relaxed);
        let address = self.addresses.get(index).map_or("", String::as_str);
        Ok((index, self.channel(address)?))
    }

    /// This one failed: the next is preferred from now on, unless another was chosen meanwhile.
    pub(crate) fn failed(&self, index: usize) {
        let next = (index + 1) % self.addresses.len().max(1);
        // Losing the race means that somebody else has moved on already.
        let _ = self
            .preferred
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn channel(&self, address: &str) -> Result<Channel, ClientError> {
        self.pool.get(address).map_err(|_| ClientError::Options {
            field: "endpoints",
            problem: format!("{address:?} is not host:port or http://host:port"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinators(addresses: &[&str]) -> Result<Coordinators, ClientError> {
        let pool = pool(&Runtime::real(), &ClientOptions::default());
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Coordinators::new(pool, &addresses)
    }

    #[tokio::test]
    async fn addresses_are_taken_with_and_without_a_scheme() {
        for good in ["127.0.0.1:1", "http://localhost:50051/", "[::1]:7"] {
            coordinators(&[good]).unwrap();
        }
        for bad in ["", "localhost", "https://localhost:1", "http://", "a b:1"] {
            coordinators(&[bad]).unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_failure_moves_on_once_however_many_report_it() {
        let coordinators = coordinators(&["a:1", "b:1", "c:1"]).unwrap();
        let preferred = || coordinators.preferred().unwrap().0;
        assert_eq!(preferred(), 0);
        coordinators.failed(0);
        coordinators.failed(0);
        assert_eq!(preferred(), 1);
        coordinators.failed(1);
        coordinators.failed(2);
        assert_eq!(preferred(), 0);
    }
}
