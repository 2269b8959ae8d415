//! A network in which links can be cut, in either direction, and healed.
//!
//! A cut link stalls: bytes that were sent wait until it heals, as they do in TCP, and nobody is told. A connection that is
//! begun over a cut link waits, too. A connection may also be made to break when it has carried so much; both ends notice that.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use runtime::{Adapters, Clock, Connection, Listener, Network, OsRandom, Runtime, TcpNetwork};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// All links between nodes; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, u64>,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    /// The next connection from, to that carries more than this breaks.
    breaks: BTreeMap<(u64, u64), u64>,
    /// Bytes sent from, to, over all connections.
    sent: BTreeMap<(u64, u64), u64>,
    waiting: Vec<Waker>,
}

impl Links {
    /// The world as a node sees it.
    pub(crate) fn runtime(&self, node: u64, clock: Arc<dyn Clock>) -> Runtime {
        Runtime::with(Adapters {
            clock,
            random: Arc::new(OsRandom),
            network: Arc::new(Side {
                node,
                links: self.clone(),
            }),
        })
    }

    /// Says where a node listens.
    pub(crate) fn place(&self, node: u64, address: &str) {
        self.0.lock().nodes.insert(address.to_owned(), node);
    }

    /// What `from` sends does not reach `to`.
    pub(crate) fn cut_one_way(&self, from: u64, to: u64) {
        self.0.lock().cut.insert((from, to));
    }

    /// Neither hears the other.
    pub(crate) fn cut(&self, one: u64, other: u64) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Breaks one connection from `from` to `to`: the first to carry so many bytes.
    pub(crate) fn break_after(&self, from: u64, to: u64, bytes: u64) {
        self.0.lock().breaks.insert((from, to), bytes);
    }

    /// Whether a connection is still to break.
    pub(crate) fn will_break(&self, from: u64, to: u64) -> bool {
        self.0.lock().breaks.contains_key(&(from, to))
    }

    /// Bytes that `from` has sent to `to`.
    pub(crate) fn sent(&self, from: u64, to: u64) -> u64 {
        self.0.lock().sent.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Notes what a connection has sent now and in all, and says whether it breaks by that.
    fn note_sent(&self, way: (u64, u64), now: usize, in_all: u64) -> bool {
        let mut state = self.0.lock();
        *state.sent.entry(way).or_default() += now as u64;
        let breaks = state.breaks.get(&way).is_some_and(|limit| in_all > *limit);
        if breaks {
            state.breaks.remove(&way);
        }
        breaks
    }

    /// All links work again.
    pub(crate) fn heal(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.cut.clear();
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_open(&self, from: u64, to: u64, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.cut.contains(&(from, to)) {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }

    async fn both_open(&self, one: u64, other: u64) {
        for (from, to) in [(one, other), (other, one)] {
            std::future::poll_fn(|context| self.poll_open(from, to, context)).await;
        }
    }
}

#[derive(Debug)]
struct Side {
    node: u64,
    links: Links,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Network for Side {
    fn bind(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>> {
        TcpNetwork.bind(address)
    }

    fn connect(&self, authority: String) -> BoxFuture<io::Result<Connection>> {
        let (node, links) = (self.node, self.links.clone());
        Box::pin(async move {
            let to = links.0.lock().nodes.get(&authority).copied();
            let Some(to) = to else {
                return TcpNetwork.connect(authority).await;
            };
            links.both_open(node, to).await;
            let inner = TcpNetwork.connect(authority).await?;
            let peer = inner.peer();
            let link = Link {
                inner,
                node,
                to,
                links,
                sent: 0,
                broken: false,
            };
            Ok(Connection::new(link, peer))
        })
    }
}

/// A connection from `node` to `to`.
struct Link {
    inner: Connection,
    node: u64,
    to: u64,
    links: Links,
    sent: u64,
    broken: bool,
}

impl Link {
    fn check(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        std::task::ready!(self.links.poll_open(self.to, self.node, context));
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        std::task::ready!(self.links.poll_open(self.node, self.to, context));
        let sent = std::task::ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.sent += sent as u64;
        self.broken = self.links.note_sent((self.node, self.to), sent, self.sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
