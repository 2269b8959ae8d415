//! The seam to the outside world: time, tasks, threads, randomness and sockets.
//!
//! Everything above the pure crates reaches the world through one [`Runtime`] value that is handed down from `main`.
//! Nobody else calls the standard library's or tokio's clocks, spawns a task, draws a random number or opens a
//! socket: clippy refuses it. A simulation builds a `Runtime` from adapters of its own ([`Adapters`]) and
//! so decides when time passes, which random numbers are drawn, and what the network delivers.
//!
//! What always holds:
//! - [`Runtime::now`] never goes back, and need not count the time for which the machine slept. [`Runtime::wall_ms`] may jump either way;
//!   nothing that must be safe lasts longer because of it.
//! - Timers follow the same clock as `now`, so a simulated clock moves both.
//! - A task that panics is reported by its [`Task`] as [`TaskFailed`], never swallowed. Where nobody awaits the task, see
//!   [`Runtime::spawn_guarded`].
//!
//! On failure: only sockets and thread creation can fail, and they return the operating system's error.

mod clock;
mod crew;
mod files;
mod guard;
mod network;
mod pace;
mod random;
mod task;
mod test_clock;
mod turns;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, Elapsed, Instant, Sleep, TokioClock};
pub use files::raise_open_files;
pub use guard::{TaskFaults, Vital};
pub use network::{Connection, Io, Listener, Network, TcpNetwork};
pub use pace::Pace;
pub use random::{OsRandom, Random, SeededRandom};
pub use task::{Task, TaskFailed};
pub use test_clock::TestClock;
pub use tokio_util::sync::CancellationToken;
pub use turns::Turns;

/// The adapters a [`Runtime`] is made of.
#[derive(Debug, Clone)]
pub struct Adapters {
    /// Monotonic and wall time, and timers.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
    /// Listening and connecting.
    pub network: Arc<dyn Network>,
}

/// A handle to the outside world; cheap to clone, the same world for every clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    adapters: Adapters,
    /// In a world without threads: how long work that blocks takes.
    turns: Option<Arc<dyn Turns>>,
    /// Threads for connections.
    crew: Option<Arc<crew::Crew>>,
    /// In a test: what makes guarded tasks panic.
    faults: Option<TaskFaults>,
}

impl Runtime {
    /// The real world: tokio's clock, the operating system's randomness, TCP.
    #[must_use]
    pub fn real() -> Self {
        Self::with(Adapters {
            clock: Arc::new(TokioClock::new()),
            random: Arc::new(OsRandom),
            network: Arc::new(TcpNetwork),
        })
    }

    /// A world made of the given adapters.
    #[must_use]
    pub fn with(adapters: Adapters) -> Self {
        Self {
            adapters,
            turns: None,
            crew: None,
            faults: None,
        }
    }

    /// The same world with a thread for each processor that serves connections and nothing else, see [`Runtime::spawn_apart`]. They end
    /// with the last clone of this value.
    ///
    /// # Errors
    /// The operating system's error when it refuses another thread.
    pub fn with_connection_threads(self) -> io::Result<Self> {
        Ok(Self {
            crew: Some(crew::Crew::for_processors()?),
            ..self
        })
    }

    /// The same world without threads, for simulations: work that blocks becomes a task that waits for as long as `turns`
    /// says and is then done in one go, so that the order of everything is decided by the executor alone.
    #[must_use]
    pub fn without_threads(self, turns: Arc<dyn Turns>) -> Self {
        Self {
            turns: Some(turns),
            crew: None,
            ..self
        }
    }

    /// Whether [`Runtime::spawn_thread`] can succeed. Where it cannot, a loop that blocks has to be a task that does its work by
    /// [`Runtime::spawn_blocking`].
    #[must_use]
    pub fn has_threads(&self) -> bool {
        self.turns.is_none()
    }

    /// Connections that may be accepted at a time, before there are too few open files left for anything else.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.adapters.network.connections_max()
    }

    /// Monotonic time since this runtime's origin.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.adapters.clock.now()
    }

    /// Milliseconds since the Unix epoch, as the machine's wall clock has it. May jump.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.adapters.clock.wall_ms()
    }

    /// Waits for a duration.
    pub async fn sleep(&self, duration: Duration) {
        self.adapters.clock.sleep(duration).await;
    }

    /// Waits until a moment; returns at once when it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        self.sleep(deadline.saturating_since(self.now())).await;
    }

    /// Runs a future for at most a duration.
    ///
    /// # Errors
    /// [`Elapsed`] when the time was up first; the future is dropped then.
    pub async fn timeout<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        let mut timer = self.adapters.clock.sleep(limit);
        tokio::select! {
            biased;
            output = &mut future => Ok(output),
            () = &mut timer => Err(Elapsed { limit }),
        }
    }

    /// Runs a future as a task of its own. Dropping the [`Task`] does not stop it.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::spawn(name, future)
    }

    /// Runs a future as a task on one of the threads for connections, where there are any, and as [`Runtime::spawn`] does elsewhere. Tasks
    /// that it spawns stay on its thread. It must never compute for long: the other connections of the thread wait meanwhile.
    pub fn spawn_apart<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.crew {
            Some(crew) => Task::spawn_on(crew.member(), name, future),
            None => Task::spawn(name, future),
        }
    }

    /// Runs a closure that may block (files, compression) away from the async workers. It must not wait for other tasks: in a
    /// world without threads nobody else would run meanwhile.
    pub fn spawn_blocking<F, T>(&self, name: &'static str, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match &self.turns {
            None => Task::spawn_blocking(name, work),
            Some(turns) => self.spawn_turn(turns, name, work),
        }
    }

    /// As [`Runtime::spawn_blocking`], for long work that nobody waits for: it yields the processor to everything else that
    /// wants it, and is slow on a busy machine.
    pub fn spawn_background<F, T>(&self, name: &'static str, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match &self.turns {
            None => Task::spawn_background(name, work),
            Some(turns) => self.spawn_turn(turns, name, work),
        }
    }

    fn spawn_turn<F, T>(&self, turns: &Arc<dyn Turns>, name: &'static str, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let wait = self.adapters.clock.sleep(turns.duration(name));
        Task::spawn(name, async move {
            wait.await;
            work()
        })
    }

    /// Starts an operating system thread for a loop that blocks for ever, such as the log's writer.
    ///
    /// # Errors
    /// The operating system's error when it refuses another thread; unsupported where there are none, see [`Runtime::has_threads`].
    pub fn spawn_thread<F>(&self, name: &str, work: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        if !self.has_threads() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        task::spawn_thread(name, work)
    }

    /// Fills a buffer with random bytes.
    pub fn fill_random(&self, buffer: &mut [u8]) {
        self.adapters.random.fill(buffer);
    }

    /// A random 64-bit number.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Sixteen random bytes: client ids, instance ids, cluster ids.
    #[must_use]
    pub fn random_id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        bytes
    }

    /// A random duration from zero up to and including `max` ("full jitter").
    #[must_use]
    pub fn jitter(&self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.random_u64() % (micros + 1))
    }

    /// Listens on an address; port 0 takes a free one, see [`Listener::local_addr`].
    ///
    /// # Errors
    /// The operating system's error, such as an address in use.
    pub async fn bind(&self, address: SocketAddr) -> io::Result<Listener> {
        self.adapters.network.bind(address).await
    }

    /// A channel that connects when it is first used, and again when the connection is lost.
    #[must_use]
    pub fn channel(&self, endpoint: tonic::transport::Endpoint) -> tonic::transport::Channel {
        network::channel(&self.adapters.network, &endpoint)
    }
}

#[cfg(test)]
mod tests;
