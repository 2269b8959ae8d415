//! The runtime's listener in the form that axum takes, with limits of its own.
//!
//! What always holds: no more connections are open than [`Limits::connections`], so that whoever opens many does not take the files that the
//! log needs; and none stays open on which nothing has moved for [`Limits::idle`], so that those who say nothing do not keep others out.
//!
//! On failure: a socket that cannot be accepted is logged and the next one tried.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use runtime::{Connection, Listener, Runtime, Sleep};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to wait after a failed accept, so that a full table of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What connections are bounded by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Open at a time; more wait to be accepted.
    pub(super) connections: usize,
    /// How long nothing may move on one.
    pub(super) idle: Duration,
}

/// Each browser of a page that asks for completions has one or a few.
const CONNECTIONS_MAX: usize = 4_096;

impl Limits {
    /// A quarter of the files that connections may have; gRPC leaves it.
    pub(super) fn of(runtime: &Runtime) -> Self {
        Self {
            connections: (runtime.connections_max() / 4).clamp(1, CONNECTIONS_MAX),
            idle: Duration::from_secs(60),
        }
    }
}

/// Accepts connections within the limits.
#[derive(Debug)]
pub(super) struct Accepting {
    runtime: Runtime,
    listener: Listener,
    places: Arc<Semaphore>,
    idle: Duration,
}

impl Accepting {
    pub(super) fn new(runtime: &Runtime, listener: Listener, limits: Limits) -> Self {
        Self {
            runtime: runtime.clone(),
            listener,
            places: Arc::new(Semaphore::new(limits.connections)),
            idle: limits.idle,
        }
    }
}

impl axum::serve::Listener for Accepting {
    type Io = Accepted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Accepted, SocketAddr) {
        // None only where the semaphore is closed, which nobody does.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    let peer = connection.peer().unwrap_or(self.listener.local_addr());
                    let accepted = Accepted {
                        connection,
                        runtime: self.runtime.clone(),
                        limit: self.idle,
                        idle: after(&self.runtime, self.idle),
                        _place: place,
                    };
                    return (accepted, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    self.runtime.sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.listener.local_addr())
    }
}

fn after(runtime: &Runtime, limit: Duration) -> Sleep {
    let runtime = runtime.clone();
    Box::pin(async move { runtime.sleep(limit).await })
}

/// A connection that has a place, and keeps it as long as something moves.
pub(super) struct Accepted {
    connection: Connection,
    runtime: Runtime,
    limit: Duration,
    /// Over when nothing has moved for too long.
    idle: Sleep,
    _place: Option<OwnedSemaphorePermit>,
}

impl Accepted {
    /// What came of an attempt to move something.
    fn moved<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.idle = after(&self.runtime, self.limit);
            return attempt;
        }
        ready!(self.idle.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.connection).poll_read(context, into);
        this.moved(context, attempt)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.connection).poll_write(context, bytes);
        this.moved(context, attempt)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}
