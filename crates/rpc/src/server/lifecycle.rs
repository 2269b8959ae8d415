//! How long a connection may live, and what it must do meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use runtime::{Connection, Instant, Runtime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::config::ServerConfig;

/// What is known of a connection's use.
#[derive(Debug)]
pub(super) struct Usage {
    runtime: Runtime,
    /// A byte came.
    heard: AtomicBool,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    begun: u64,
    open: usize,
    last_ended: Instant,
}

/// An open call; the connection is not idle while it lives.
#[derive(Debug)]
struct Open(Arc<Usage>);

/// A handle to an open call, in a request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Busy(#[expect(dead_code, reason = "held for its drop")] Arc<Open>);

impl Usage {
    pub(super) fn new(runtime: &Runtime) -> Arc<Self> {
        Arc::new(Self {
            runtime: runtime.clone(),
            heard: AtomicBool::new(false),
            calls: Mutex::new(Calls {
                begun: 0,
                open: 0,
                last_ended: runtime.now(),
            }),
        })
    }

    pub(super) fn begin_call(self: &Arc<Self>) -> Busy {
        let mut calls = self.calls.lock();
        calls.begun += 1;
        calls.open += 1;
        Busy(Arc::new(Open(Arc::clone(self))))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.0.runtime.now();
        let mut calls = self.0.calls.lock();
        calls.open -= 1;
        calls.last_ended = now;
    }
}

/// Why a connection should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Connected, and said nothing.
    Silent,
    /// Connected, and called nothing.
    Useless,
    /// No open call for long.
    Idle,
    /// Old enough.
    Old,
}

/// Waits until the connection should go.
pub(super) async fn judge(usage: &Usage, config: &ServerConfig) -> Verdict {
    let runtime = &usage.runtime;
    let born = runtime.now();
    runtime.sleep(config.first_byte_timeout).await;
    if !usage.heard.load(Ordering::Relaxed) {
        return Verdict::Silent;
    }
    runtime.sleep_until(born + config.first_call_timeout).await;
    if usage.calls.lock().begun == 0 {
        return Verdict::Useless;
    }
    loop {
        let now = runtime.now();
        let (open, last_ended) = {
            let calls = usage.calls.lock();
            (calls.open, calls.last_ended)
        };
        // While a call is open, the connection cannot become idle before a whole idle time from now.
        let since = if open > 0 { now } else { last_ended };
        let old = config.age_max.map(|age| born + age);
        let idle = config.idle_max.map(|idle| since + idle);
        if old.is_some_and(|old| old <= now) {
            return Verdict::Old;
        }
        if idle.is_some_and(|idle| idle <= now) {
            return Verdict::Idle;
        }
        match old.into_iter().chain(idle).min() {
            Some(next) => runtime.sleep_until(next).await,
            None => std::future::pending().await,
        }
    }
}

/// The connection's bytes, with a note of the first one.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) connection: Connection,
    pub(super) usage: Arc<Usage>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(context, buffer);
        if buffer.filled().len() > before && !self.usage.heard.load(Ordering::Relaxed) {
            self.usage.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_or_useless_connection_goes_soon() {
        let runtime = Runtime::real();
        let config = ServerConfig::default();
        let begun = runtime.now();
        let usage = Usage::new(&runtime);
        assert_eq!(judge(&usage, &config).await, Verdict::Silent);
        assert_eq!(runtime.now().saturating_since(begun), seconds(3));

        let begun = runtime.now();
        usage.heard.store(true, Ordering::Relaxed);
        assert_eq!(judge(&usage, &config).await, Verdict::Useless);
        assert_eq!(runtime.now().saturating_since(begun), seconds(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_last_call() {
        let runtime = Runtime::real();
        let config = ServerConfig::default();
        let begun = runtime.now();
        let usage = Usage::new(&runtime);
        usage.heard.store(true, Ordering::Relaxed);
        let call = usage.begin_call();
        let other = Arc::clone(&usage);
        let timer = runtime.clone();
        let task = runtime.spawn("a long call", async move {
            timer.sleep(seconds(400)).await;
            drop(call);
            drop(other);
        });
        assert_eq!(judge(&usage, &config).await, Verdict::Idle);
        assert_eq!(runtime.now().saturating_since(begun), seconds(700));
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_grows_old() {
        let runtime = Runtime::real();
        let config = ServerConfig::default();
        let begun = runtime.now();
        let usage = Usage::new(&runtime);
        usage.heard.store(true, Ordering::Relaxed);
        let _call = usage.begin_call();
        assert_eq!(judge(&usage, &config).await, Verdict::Old);
        assert_eq!(runtime.now().saturating_since(begun), seconds(3600));
    }
}
