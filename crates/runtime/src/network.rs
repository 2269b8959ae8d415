//! Sockets: listening and connecting, behind one trait so that a simulated network can stand in.

use std::fmt::{self, Debug};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::files;

/// A two-way stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where connections come from.
pub trait Network: Debug + Send + Sync {
    /// Listens on an address.
    fn bind(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>>;
    /// Connects to `host:port`.
    fn connect(&self, authority: String) -> BoxFuture<io::Result<Connection>>;
    /// Connections that may be open at a time; no limit, unless the network has one.
    fn connections_max(&self) -> usize {
        usize::MAX
    }
}

/// One connection, with the address of its other end.
pub struct Connection {
    io: Box<dyn Io>,
    peer: Option<SocketAddr>,
}

impl Connection {
    /// A connection over any stream of bytes.
    pub fn new(io: impl Io + 'static, peer: Option<SocketAddr>) -> Self {
        Self {
            io: Box::new(io),
            peer,
        }
    }

    /// The address of the other end, where there is one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }
}

impl Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer
    }
}

/// Accepts connections one after another.
trait Accept: Send {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Connection>>;
}

/// A listening socket. As a [`Stream`] it never ends.
pub struct Listener {
    accept: Box<dyn Accept>,
    local: SocketAddr,
}

impl Listener {
    /// A listener over a stream of connections, for simulated networks.
    pub fn from_stream(
        stream: impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static,
        local: SocketAddr,
    ) -> Self {
        Self {
            accept: Box::new(Streamed(stream)),
            local,
        }
    }

    /// The address it listens on, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection.
    ///
    /// # Errors
    /// The operating system's, such as too many open files. The listener stays usable.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        std::future::poll_fn(|context| self.accept.poll_accept(context)).await
    }
}

impl Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accept.poll_accept(context).map(Some)
    }
}

struct Streamed<S>(S);

impl<S: Stream<Item = io::Result<Connection>> + Send + Unpin> Accept for Streamed<S> {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        Pin::new(&mut self.0).poll_next(context).map(|item| {
            item.unwrap_or_else(|| Err(io::Error::other("the simulated listener was closed")))
        })
    }
}

/// TCP, with Nagle's algorithm off on both sides.
#[derive(Debug, Clone, Copy)]
pub struct TcpNetwork;

#[expect(clippy::disallowed_types, reason = "this is the adapter")]
mod tcp {
    use super::{
        Accept, AsyncRead, AsyncWrite, Connection, Context, Listener, Pin, Poll, ReadBuf, io,
    };
    use std::net::SocketAddr;
    use tokio::net::TcpStream;

    struct TcpAccept(tokio::net::TcpListener);

    impl Accept for TcpAccept {
        fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Connection>> {
            self.0.poll_accept(context).map(|accepted| {
                let (stream, peer) = accepted?;
                stream.set_nodelay(true)?;
                Ok(Connection::new(Unsettled::new(stream)?, Some(peer)))
            })
        }
    }

    /// An accepted connection that belongs to no executor until it is first used: then to the one that uses it, so that the thread
    /// that serves it is the one that is woken.
    enum Unsettled {
        /// Taken out by the first use only.
        Fresh(Option<std::net::TcpStream>),
        Settled(TcpStream),
    }

    impl Unsettled {
        fn new(stream: TcpStream) -> io::Result<Self> {
            Ok(Self::Fresh(Some(stream.into_std()?)))
        }

        fn settle(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
            let this = self.get_mut();
            if let Self::Fresh(stream) = this {
                let stream = stream.take().ok_or(io::ErrorKind::NotConnected)?;
                *this = Self::Settled(TcpStream::from_std(stream)?);
            }
            match this {
                Self::Settled(stream) => Ok(Pin::new(stream)),
                Self::Fresh(_) => Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    impl AsyncRead for Unsettled {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.settle()?.poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Unsettled {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.settle()?.poll_write(context, bytes)
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.settle()?.poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.settle()?.poll_flush(context)
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.settle()?.poll_shutdown(context)
        }
    }

    pub(super) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(Listener {
            accept: Box::new(TcpAccept(listener)),
            local,
        })
    }

    pub(super) async fn connect(authority: String) -> io::Result<Connection> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr().ok();
        Ok(Connection::new(stream, peer))
    }
}

impl Network for TcpNetwork {
    fn bind(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>> {
        Box::pin(tcp::bind(address))
    }

    fn connect(&self, authority: String) -> BoxFuture<io::Result<Connection>> {
        Box::pin(tcp::connect(authority))
    }

    fn connections_max(&self) -> usize {
        files::connections_max()
    }
}

pub(crate) fn channel(network: &Arc<dyn Network>, endpoint: &Endpoint) -> Channel {
    let network = Arc::clone(network);
    let connector = tower::service_fn(move |uri: Uri| {
        let network = Arc::clone(&network);
        async move {
            let authority = uri.authority().map(ToString::to_string).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "no host in the address")
            })?;
            network.connect(authority).await.map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector_lazy(connector)
}
