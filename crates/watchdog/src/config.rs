//! What an operator can set, and what it means once it was checked.
//!
//! A value comes from the command line, else from the environment, else from the file named by `--config`, else from its
//! default (see [`::settings`]). [`Settings::load`] looks at everything and returns every problem at once; nothing is bound before.

mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use telemetry::logging::LogConfig;

use crate::detector::DetectorConfig;
use crate::policy::PolicyConfig;
use crate::restart::CommandTemplate;

pub use self::settings::Settings;

/// A watchdog's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The coordinators as `host:port`, asked in turn until one answers. Default 127.0.0.1:50051.
    pub coordinators: Vec<String>,
    /// Where the watchdog's own health is served over gRPC; None inside a process that serves health itself. Default 127.0.0.1:50071.
    pub grpc_addr: Option<SocketAddr>,
    /// Where the metrics are served; None inside a process that serves them itself. Default 127.0.0.1:8082.
    pub http_addr: Option<SocketAddr>,
    /// Time between two polls of each shard. Default 5 s.
    pub poll_interval: Duration,
    /// How long an answer to a poll may take. Default 1 s.
    pub probe_timeout: Duration,
    /// When a shard is dead.
    pub detector: DetectorConfig,
    /// When a dead shard is recovered.
    pub policy: PolicyConfig,
    /// How long an attempt goes on without any progress of its shard. Default 30 s.
    pub attempt_timeout: Duration,
    /// How long a shard may go without serving before a human should look. Default 5 min.
    pub alert_unserved_after: Duration,
    /// What brings a process back. None: somebody else does, such as a container's restart policy or a service manager.
    pub restart_command: Option<CommandTemplate>,
    /// The socket of the Docker Engine that restarts the containers of nodes, instead of a command.
    pub restart_containers: Option<PathBuf>,
    /// How the process logs; for whoever owns the process. Default: text, from level info on.
    pub logging: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinators: vec!["127.0.0.1:50051".to_owned()],
            grpc_addr: Some(SocketAddr::from(([127, 0, 0, 1], 50_071))),
            http_addr: Some(SocketAddr::from(([127, 0, 0, 1], 8_082))),
            poll_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(1),
            detector: DetectorConfig {
                misses: 3,
                startup_grace: Duration::from_secs(30),
                stall_after: Duration::from_secs(60),
            },
            policy: PolicyConfig {
                backoff_min: Duration::from_secs(1),
                backoff_max: Duration::from_secs(60),
                concurrent_percent: 10,
                alert_after_attempts: 5,
                stable_after: Duration::from_secs(60),
            },
            attempt_timeout: Duration::from_secs(30),
            alert_unserved_after: Duration::from_secs(300),
            restart_command: None,
            restart_containers: None,
            logging: LogConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests;
