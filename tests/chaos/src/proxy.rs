//! A TCP proxy in front of one server, so that the network between it and everybody else can be cut without the help of a kernel.
//!
//! What always holds: bytes pass unchanged and in order, or not at all; those that are held back by a cut go on when it is over,
//! as TCP sends again what was lost. What its server itself begins goes through the proxies of others, or through none. These break it
//! where that server is cut off ([`Apart`]), and hold back nothing of it.
//!
//! On failure: a connection that breaks on one side is broken on the other. One that cannot be accepted keeps no later one out.

#![expect(
    clippy::disallowed_types,
    reason = "it carries what servers send, whatever they go by, and is never simulated"
)]

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use runtime::{Connection, Runtime, Task};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Bytes that are carried at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// After a connection that could not be accepted: most likely all files are open, and some are closed again by and by.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What becomes of the connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Everything passes.
    #[default]
    Whole,
    /// Connections are broken, and new ones end at once.
    Cut,
    /// What is asked arrives, and no answer comes back.
    OneWay,
    /// Connections stand, new ones too, and nothing passes.
    HalfOpen,
}

impl Link {
    fn passes(self, direction: Direction) -> bool {
        match self {
            Self::Whole => true,
            Self::Cut | Self::HalfOpen => false,
            Self::OneWay => direction == Direction::ToServer,
        }
    }
}

/// Somebody who begins connections.
pub trait Origin: Debug + Send + Sync {
    /// Whether the connection from one address to another is one that it began. What cannot be found out it did not begin.
    fn began(&self, from: SocketAddr, to: SocketAddr) -> bool;
}

/// Who is cut off, if anybody is: the connections that it began are broken, and those that it begins end at once.
pub type Apart = Option<Arc<dyn Origin>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    FromServer,
}

/// A listening proxy. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    link: watch::Sender<Link>,
    task: Task<()>,
}

impl Proxy {
    /// Listens on an address, and connects each that comes with a server, but who is cut off at the time.
    ///
    /// # Errors
    /// When nobody may listen there.
    pub async fn start(
        runtime: &Runtime,
        listen: SocketAddr,
        server: SocketAddr,
        apart: &watch::Sender<Apart>,
    ) -> anyhow::Result<Self> {
        let bound = runtime.bind(listen).await;
        let mut listener = bound.with_context(|| format!("listening on {listen}"))?;
        let link = watch::Sender::new(Link::Whole);
        let (links, apart, inner) = (link.subscribe(), apart.clone(), runtime.clone());
        let task: Task<()> = runtime.spawn("chaos proxy", async move {
            let mut carried: Vec<Task<()>> = Vec::new();
            loop {
                let Ok(client) = listener.accept().await else {
                    inner.sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                carried.retain(|task| !task.is_finished());
                let carrying = carry(client, (listen, server), links.clone(), apart.subscribe());
                carried.push(inner.spawn("chaos link", carrying));
            }
        });
        Ok(Self { link, task })
    }

    /// Changes what becomes of the connections, of those that stand too.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries bytes both ways until either side ends, or the link is cut, or whoever connected is cut off.
async fn carry(
    client: Connection,
    (listen, server): (SocketAddr, SocketAddr),
    links: watch::Receiver<Link>,
    mut apart: watch::Receiver<Apart>,
) {
    let from = client.peer();
    let is_apart = |apart: &Apart| {
        let known = apart.as_ref().zip(from);
        known.is_some_and(|(origin, from)| origin.began(from, listen))
    };
    let mut cut = links.clone();
    let both_ways = async {
        let mut open = links.clone();
        // A connection that nothing gets through on has not reached the server yet.
        if open.wait_for(|link| *link != Link::HalfOpen).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        // The servers set it, too: small messages must not wait for one another.
        if server.set_nodelay(true).is_err() {
            return;
        }
        let (client_read, client_write) = tokio::io::split(client);
        let (server_read, server_write) = tokio::io::split(server);
        tokio::select! {
            () = pump(client_read, server_write, links.clone(), Direction::ToServer) => {}
            () = pump(server_read, client_write, links, Direction::FromServer) => {}
        }
    };
    tokio::select! {
        () = both_ways => {}
        _ = cut.wait_for(|link| *link == Link::Cut) => {}
        _ = apart.wait_for(is_apart) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut links: watch::Receiver<Link>,
    direction: Direction,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            Ok(_) | Err(_) => return,
        };
        if links.wait_for(|link| link.passes(direction)).await.is_err() {
            return;
        }
        let Some(bytes) = buffer.get(..count) else {
            return;
        };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything here takes that is to happen; what is not to happen is watched for a moment only.
    const SOON: Duration = Duration::from_secs(10);
    const A_MOMENT: Duration = Duration::from_millis(100);

    /// A server that answers each byte with the next one.
    async fn counting(runtime: &Runtime) -> SocketAddr {
        let mut listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, inner) = (listener.local_addr(), runtime.clone());
        drop(runtime.spawn("server", async move {
            while let Ok(mut client) = listener.accept().await {
                drop(inner.spawn("connection", async move {
                    let mut byte = [0];
                    while client.read_exact(&mut byte).await.is_ok() {
                        byte[0] += 1;
                        client.write_all(&byte).await.unwrap();
                    }
                }));
            }
        }));
        address
    }

    async fn proxied(runtime: &Runtime) -> (Proxy, SocketAddr) {
        proxied_but(runtime, &watch::Sender::default()).await
    }

    async fn proxied_but(runtime: &Runtime, apart: &watch::Sender<Apart>) -> (Proxy, SocketAddr) {
        let server = counting(runtime).await;
        let free = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let listen = free.local_addr();
        drop(free);
        let started = Proxy::start(runtime, listen, server, apart).await;
        (started.unwrap(), listen)
    }

    async fn answer(client: &mut TcpStream) -> std::io::Result<u8> {
        client.read_u8().await
    }

    #[tokio::test]
    async fn what_is_held_back_arrives_when_the_link_is_whole_again() {
        let runtime = Runtime::real();
        let (proxy, address) = proxied(&runtime).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        for link in [Link::OneWay, Link::HalfOpen] {
            client.write_u8(1).await.unwrap();
            let told = runtime.timeout(SOON, answer(&mut client)).await;
            assert_eq!(told.unwrap().unwrap(), 2);
            proxy.set(link);
            client.write_u8(7).await.unwrap();
            let silence = runtime.timeout(A_MOMENT, answer(&mut client)).await;
            assert!(silence.is_err(), "{link:?} lets answers through");
            proxy.set(Link::Whole);
            let told = runtime.timeout(SOON, answer(&mut client)).await;
            assert_eq!(told.unwrap().unwrap(), 8);
        }
    }

    #[tokio::test]
    async fn who_connects_to_a_half_open_link_is_served_later() {
        let runtime = Runtime::real();
        let (proxy, address) = proxied(&runtime).await;
        proxy.set(Link::HalfOpen);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_u8(1).await.unwrap();
        let silence = runtime.timeout(A_MOMENT, answer(&mut client)).await;
        assert!(silence.is_err());
        proxy.set(Link::Whole);
        let told = runtime.timeout(SOON, answer(&mut client)).await;
        assert_eq!(told.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_cut_breaks_connections_and_refuses_others() {
        let runtime = Runtime::real();
        let (proxy, address) = proxied(&runtime).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), 2);
        proxy.set(Link::Cut);
        let broken = runtime.timeout(SOON, answer(&mut client)).await;
        assert!(broken.unwrap().is_err());
        let mut late = TcpStream::connect(address).await.unwrap();
        let broken = runtime.timeout(SOON, answer(&mut late)).await;
        assert!(broken.unwrap().is_err());
        proxy.set(Link::Whole);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), 2);
    }

    /// Whoever connects from this address.
    #[derive(Debug)]
    struct At(SocketAddr);

    impl Origin for At {
        fn began(&self, from: SocketAddr, _to: SocketAddr) -> bool {
            from == self.0
        }
    }

    #[tokio::test]
    async fn who_is_cut_off_is_carried_no_further_and_the_others_are() {
        let (runtime, apart) = (Runtime::real(), watch::Sender::default());
        let (_proxy, address) = proxied_but(&runtime, &apart).await;
        let mut cut_off = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        for client in [&mut cut_off, &mut other] {
            client.write_u8(1).await.unwrap();
            assert_eq!(answer(client).await.unwrap(), 2);
        }
        let origin = At(cut_off.local_addr().unwrap());
        apart.send_replace(Some(Arc::new(origin)));
        let broken = runtime.timeout(SOON, answer(&mut cut_off)).await;
        assert!(broken.unwrap().is_err());
        other.write_u8(7).await.unwrap();
        let told = runtime.timeout(SOON, answer(&mut other)).await;
        assert_eq!(told.unwrap().unwrap(), 8);
    }
}
