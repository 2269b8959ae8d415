//! Work at a bounded rate, so that it takes little from what else is done.

use std::time::Duration;

use crate::Runtime;

/// A rate in bytes a second.
#[derive(Debug, Clone)]
pub struct Pace {
    runtime: Runtime,
    bytes_per_second: u64,
}

impl Pace {
    /// At most so many bytes a second; a rate of 0 counts as 1.
    #[must_use]
    pub fn new(runtime: &Runtime, bytes_per_second: u64) -> Self {
        Self {
            runtime: runtime.clone(),
            bytes_per_second: bytes_per_second.max(1),
        }
    }

    /// The rate.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// By whose time.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Waits as long as so many bytes may take. Called after each piece of the work, it keeps the whole below the rate.
    pub async fn keep(&self, bytes: u64) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.runtime.sleep(pause).await;
    }
}
