//! The bounds of a server.

use std::time::Duration;

use cluster::limits;

/// The bounds of a server. Each has a default that suits a public interface; [`ServerConfig::internal`] suits a port that
/// servers of the cluster hold long connections to.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections at a time, or fewer where the process may not open that many files; further ones are closed at once.
    pub connections_max: usize,
    /// Open calls of one connection; HTTP/2 holds the caller back above it.
    pub streams_per_connection_max: u32,
    /// Unary calls in work at a time, over all connections; further ones get `OVERLOADED`. What shard servers report, and watchdogs and
    /// operators ask, has as many to itself. Health, Raft and calls between coordinators are exempt.
    pub calls_max: usize,
    /// When a refused caller should come back; the advice is spread between this and twice this. It grows while many are refused.
    pub overload_delay: Duration,
    /// How far that grows.
    pub overload_delay_max: Duration,
    /// How long the message of a refused call is waited for before the refusal is sent.
    pub refused_message_timeout: Duration,
    /// The deadline of a unary call that names none.
    pub deadline_default: Duration,
    /// The longest deadline of a unary call; a longer one is cut to it.
    pub deadline_max: Duration,
    /// Bytes of a call's headers.
    pub header_bytes_max: u32,
    /// Time from accepting a connection to its first byte.
    pub first_byte_timeout: Duration,
    /// Time from accepting a connection to its first call.
    pub first_call_timeout: Duration,
    /// A ping is sent when nothing was heard from the caller for this long.
    pub keepalive_interval: Duration,
    /// The connection is closed when a ping is not answered for this long.
    pub keepalive_timeout: Duration,
    /// A connection without an open call for this long is asked to go.
    pub idle_max: Option<Duration>,
    /// A connection of this age is asked to go, so that callers spread anew; [`ServerConfig::age_grace`] later it is closed.
    pub age_max: Option<Duration>,
    /// What calls that are open at [`ServerConfig::age_max`] have to end.
    pub age_grace: Duration,
    /// What calls that are open at a stop have to end. Streams are then ended with `STOPPED`, and connections closed.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            streams_per_connection_max: 256,
            calls_max: 4_096,
            overload_delay: Duration::from_millis(100),
            overload_delay_max: Duration::from_secs(1),
            refused_message_timeout: Duration::from_secs(1),
            deadline_default: limits::DEADLINE_DEFAULT,
            deadline_max: limits::DEADLINE_MAX,
            header_bytes_max: 16 * 1024,
            first_byte_timeout: Duration::from_secs(3),
            first_call_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            idle_max: Some(Duration::from_secs(300)),
            age_max: Some(Duration::from_secs(3600)),
            age_grace: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

impl ServerConfig {
    /// For a port among servers of one cluster: few callers, each with many calls on connections that stay.
    #[must_use]
    pub fn internal() -> Self {
        Self {
            streams_per_connection_max: 1_024,
            idle_max: None,
            age_max: None,
            ..Self::default()
        }
    }
}
