//! Kept connections to peers.
//!
//! A [`Pool`] hands out channels by address. Several connections a peer are used in turn, because many small calls on one
//! connection contend for its lock. A channel connects when it is first used and again after its connection was lost; a
//! dead peer is noticed by keepalive, also while nothing is sent. Peers that nobody asked for in a while are dropped.
//!
//! On failure: an address that is none is refused at once; everything else shows in the call that needs the connection,
//! as `UNAVAILABLE`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::limits;
use parking_lot::Mutex;
use runtime::{Instant, Runtime};
use tonic::transport::{Channel, Endpoint};

/// How connections to peers are kept.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Connections a peer, used in turn. At least 1.
    pub connections_per_peer: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// A ping is sent when nothing was heard for this long.
    pub keepalive_interval: Duration,
    /// The connection counts as dead when a ping is not answered for this long.
    pub keepalive_timeout: Duration,
    /// A peer that was not asked for in this long is dropped; calls in flight end in their time.
    pub idle: Duration,
    /// Most peers; above it the one that was not used for longest is dropped.
    pub peers_max: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections_per_peer: 2,
            connect_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(3),
            keepalive_timeout: Duration::from_secs(3),
            idle: Duration::from_secs(300),
            peers_max: 2 * limits::SHARDS_MAX,
        }
    }
}

/// Channels by address; clones share them.
#[derive(Debug, Clone)]
pub struct Pool {
    runtime: Runtime,
    config: PoolConfig,
    peers: Arc<Mutex<HashMap<String, Peer>>>,
}

#[derive(Debug)]
struct Peer {
    channels: Vec<Channel>,
    next: usize,
    used: Instant,
}

impl Peer {
    fn take(&mut self, now: Instant) -> Option<Channel> {
        self.used = now;
        self.next = self.next.wrapping_add(1);
        let place = self.next.checked_rem(self.channels.len())?;
        self.channels.get(place).cloned()
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(runtime: &Runtime, config: PoolConfig) -> Self {
        Self {
            runtime: runtime.clone(),
            config,
            peers: Arc::default(),
        }
    }

    /// A channel to `host:port`, not necessarily connected yet. Take one for each call; that is cheap, and spreads
    /// calls over the peer's connections.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` when the address is not of this form.
    pub fn get(&self, address: &str) -> Result<Channel, ApiError> {
        let now = self.runtime.now();
        let mut peers = self.peers.lock();
        if let Some(channel) = peers.get_mut(address).and_then(|peer| peer.take(now)) {
            return Ok(channel);
        }
        let channels = (0..self.config.connections_per_peer.max(1))
            .map(|_| connect(&self.runtime, address, &self.config))
            .collect::<Result<Vec<_>, _>>()?;
        // Adding a peer is rare; that is when the pool is tidied.
        peers.retain(|_, peer| now.saturating_since(peer.used) < self.config.idle);
        if peers.len() >= self.config.peers_max.max(1) {
            let oldest = peers.iter().min_by_key(|(_, peer)| peer.used);
            if let Some(address) = oldest.map(|(address, _)| address.clone()) {
                peers.remove(&address);
            }
        }
        let mut peer = Peer {
            channels,
            next: 0,
            used: now,
        };
        let channel = peer.take(now);
        peers.insert(address.to_owned(), peer);
        channel.ok_or_else(|| ApiError::internal("a peer without channels"))
    }

    /// Drops the connections to a peer, as when its address now belongs to another node.
    pub fn forget(&self, address: &str) {
        self.peers.lock().remove(address);
    }

    /// How many peers are kept.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.lock().len()
    }
}

/// One channel of its own to `host:port`, outside of any pool.
///
/// # Errors
/// `BAD_ARGUMENT` when the address is not of this form.
pub fn connect(runtime: &Runtime, address: &str, config: &PoolConfig) -> Result<Channel, ApiError> {
    let bad = || {
        ApiError::field(
            Reason::BadArgument,
            "address",
            format_args!("{address:?} is not host:port"),
        )
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    let uri = endpoint.uri();
    let whole = uri
        .authority()
        .is_some_and(|found| found.as_str() == address);
    if !whole || uri.port_u16().is_none() || address.contains('@') {
        return Err(bad());
    }
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    Ok(runtime.channel(endpoint))
}

/// Room for what a peer may send unasked: one full message, and several streams of them.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(config: PoolConfig) -> (Runtime, Pool) {
        let runtime = Runtime::real();
        let pool = Pool::new(&runtime, config);
        (runtime, pool)
    }

    #[tokio::test]
    async fn addresses_are_checked() {
        let (_, pool) = pool(PoolConfig::default());
        for good in ["127.0.0.1:50051", "shard-1:50051", "[::1]:1"] {
            assert!(pool.get(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "nowhere",
            "host:port",
            "a b:1",
            "host:1/path",
            "host:1?q",
        ] {
            let error = pool.get(bad).unwrap_err();
            assert_eq!(error.reason(), Reason::BadArgument, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_nobody_uses_are_dropped() {
        let (runtime, pool) = pool(PoolConfig {
            idle: Duration::from_secs(60),
            ..PoolConfig::default()
        });
        pool.get("a:1").unwrap();
        runtime.sleep(Duration::from_secs(40)).await;
        pool.get("b:1").unwrap();
        assert_eq!(pool.peers(), 2);
        runtime.sleep(Duration::from_secs(40)).await;
        pool.get("c:1").unwrap();
        assert_eq!(pool.peers(), 2, "a is gone, b is not");
        pool.forget("b:1");
        assert_eq!(pool.peers(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_peers_is_bounded() {
        let (runtime, pool) = pool(PoolConfig {
            peers_max: 3,
            ..PoolConfig::default()
        });
        for port in 1..=10 {
            pool.get(&format!("a:{port}")).unwrap();
            runtime.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pool.peers(), 3);
        let kept: Vec<_> = pool.peers.lock().keys().cloned().collect();
        assert!(kept.contains(&"a:10".to_owned()), "{kept:?}");
    }
}
