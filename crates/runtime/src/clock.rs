//! Time: a monotonic clock with timers, and the wall clock.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Add;
use std::pin::Pin;
use std::time::Duration;

/// A moment of a runtime's monotonic clock, as the time since the clock's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(Duration);

impl Instant {
    /// The moment at a distance from the origin.
    #[must_use]
    pub const fn from_origin(since: Duration) -> Self {
        Self(since)
    }

    /// The distance from the clock's origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment, zero if it lies later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The time given to a future was up before it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no result within {limit:?}")]
pub struct Elapsed {
    /// The time that was given.
    pub limit: Duration,
}

/// A future that is ready when its time has come.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where time comes from.
pub trait Clock: Debug + Send + Sync {
    /// Monotonic time since the clock's origin.
    fn now(&self) -> Instant;
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// A timer on the clock of [`Clock::now`].
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The real clock. Its monotonic part is tokio's, so that tokio's paused time moves it too.
#[derive(Debug)]
pub struct TokioClock {
    #[expect(clippy::disallowed_types, reason = "this is the adapter")]
    origin: std::time::Instant,
}

impl TokioClock {
    /// A clock whose origin is now.
    #[must_use]
    #[expect(
        clippy::disallowed_types,
        clippy::disallowed_methods,
        reason = "this is the adapter"
    )]
    pub fn new() -> Self {
        let origin = tokio::runtime::Handle::try_current().map_or_else(
            |_| std::time::Instant::now(),
            |_| tokio::time::Instant::now().into_std(),
        );
        Self { origin }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter")]
    fn now(&self) -> Instant {
        // Off any executor it is the system's. To ask first whether there is one makes a handle, which all its threads count.
        let now = tokio::time::Instant::now().into_std();
        Instant::from_origin(now.saturating_duration_since(self.origin))
    }

    #[expect(clippy::disallowed_types, reason = "this is the adapter")]
    fn wall_ms(&self) -> i64 {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}
