//! The options as they are written on a command line, in the environment or in a file, and how they are checked.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use settings::Problems;

use super::Config;
use crate::detector::DetectorConfig;
use crate::policy::PolicyConfig;
use crate::restart::CommandTemplate;

/// What a time may be.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);

settings::settings! {
    /// The options of `serve`.
    pub struct Settings for Config, "AUTOCOMPLETE_WATCHDOG_";

    /// Coordinators, comma separated; the first that answers is asked [default: 127.0.0.1:50051]
    #[arg(value_delimiter = ',')]
    coordinators: Vec<String>, "COORDINATORS", "HOST:PORT,...";
    /// Address for the watchdog's own health over gRPC [default: 127.0.0.1:50071]
    grpc_addr: String, "GRPC_ADDR", "ADDR:PORT";
    /// Address for /metrics, /healthz and /readyz [default: 127.0.0.1:8082]
    http_addr: String, "HTTP_ADDR", "ADDR:PORT";
    /// Time between two polls of each shard [default: 5s]
    poll_interval: String, "POLL_INTERVAL", "DURATION";
    /// How long the answer to a poll may take [default: 1s]
    probe_timeout: String, "PROBE_TIMEOUT", "DURATION";
    /// Polls missed in a row until a shard counts as dead, 1 to 100 [default: 3]
    misses: u32, "MISSES", "N";
    /// How long a process that never answered may take to do so [default: 30s]
    startup_grace: String, "STARTUP_GRACE", "DURATION";
    /// How long a shard may recover without any progress [default: 1m]
    stall_after: String, "STALL_AFTER", "DURATION";
    /// Longest wait after the first attempt; doubles with each further one [default: 1s]
    backoff_min: String, "BACKOFF_MIN", "DURATION";
    /// Where the doubling ends [default: 1m]
    backoff_max: String, "BACKOFF_MAX", "DURATION";
    /// Share of the shards that are acted upon at once, 1 to 100 percent; one is always allowed [default: 10]
    concurrent_percent: u32, "CONCURRENT_PERCENT", "PERCENT";
    /// How long an attempt goes on without any progress of its shard [default: 30s]
    attempt_timeout: String, "ATTEMPT_TIMEOUT", "DURATION";
    /// How long a shard must serve until its attempts are forgotten [default: 1m]
    stable_after: String, "STABLE_AFTER", "DURATION";
    /// Attempts, not yet forgotten, after which an alert is raised, 1 to 1000 [default: 5]
    alert_after_attempts: u32, "ALERT_AFTER_ATTEMPTS", "N";
    /// Time without serving after which an alert is raised [default: 5m]
    alert_unserved_after: String, "ALERT_UNSERVED_AFTER", "DURATION";
    /// Command that brings the process of a node back, for instance "systemctl restart autocomplete@{node}"
    ///
    /// The words {node}, {node_id} and {address} are replaced. It is split at spaces, quotes keep words together, and no shell
    /// sees it. It must also end a process that hangs, and must itself end. Without it and --restart-containers, somebody else is
    /// expected to restart processes: a container's restart policy, or a service manager.
    restart_command: String, "RESTART_COMMAND", "COMMAND";
    /// Socket of a Docker Engine that restarts the container of a node, for instance /var/run/docker.sock
    ///
    /// It is the running container whose label autocomplete.node is the node's name: the containers' own policy only brings back
    /// what has ended. For clusters whose nodes are all on one machine. Whoever holds this socket can do anything to it.
    restart_containers: String, "RESTART_CONTAINERS", "SOCKET";
    /// How a line of the log looks: text or json [default: text]
    log_format: String, "LOG_FORMAT", "FORMAT";
    /// Levels of the log by module, such as info,watchdog=debug [default: info,openraft=error]
    log_filter: String, "LOG_FILTER", "FILTER";
}

impl Settings {
    fn examine(self, at: &mut Problems) -> Config {
        let default = Config::default();
        let (grpc, http) = (self.grpc_addr.as_deref(), self.http_addr.as_deref());
        let mut time = |option, given: &Option<String>, default| {
            at.duration(option, given.as_deref(), TIMES, default)
        };
        let poll_interval = time("poll-interval", &self.poll_interval, default.poll_interval);
        let probe_timeout = time("probe-timeout", &self.probe_timeout, default.probe_timeout);
        let attempt_timeout = time(
            "attempt-timeout",
            &self.attempt_timeout,
            default.attempt_timeout,
        );
        let alert_unserved_after = time(
            "alert-unserved-after",
            &self.alert_unserved_after,
            default.alert_unserved_after,
        );
        if attempt_timeout < probe_timeout {
            let text =
                format!("{attempt_timeout:?} leaves no time for one poll of {probe_timeout:?}");
            at.add("attempt-timeout", text);
        }
        let command = self.restart_command.as_deref().map(CommandTemplate::parse);
        if command.is_some() && self.restart_containers.is_some() {
            at.add("restart-containers", "goes with no --restart-command");
        } else if self.restart_containers.as_deref() == Some("") {
            at.add("restart-containers", "must name a socket");
        }
        Config {
            detector: self.detector(at, default.detector),
            policy: self.policy(at, default.policy),
            logging: at.logging(self.log_format.as_deref(), self.log_filter.as_deref()),
            grpc_addr: at.address("grpc-addr", grpc).or(default.grpc_addr),
            http_addr: at.address("http-addr", http).or(default.http_addr),
            coordinators: at.authorities(
                "coordinators",
                self.coordinators,
                Some(default.coordinators),
            ),
            poll_interval,
            probe_timeout,
            attempt_timeout,
            alert_unserved_after,
            restart_command: command.and_then(|parsed| at.keep("restart-command", parsed)),
            restart_containers: self.restart_containers.map(PathBuf::from),
        }
    }

    fn detector(&self, at: &mut Problems, default: DetectorConfig) -> DetectorConfig {
        let mut time = |option, given: &Option<String>, default| {
            at.duration(option, given.as_deref(), TIMES, default)
        };
        DetectorConfig {
            startup_grace: time("startup-grace", &self.startup_grace, default.startup_grace),
            stall_after: time("stall-after", &self.stall_after, default.stall_after),
            misses: at.number("misses", self.misses, 1..=100, default.misses),
        }
    }

    fn policy(&self, at: &mut Problems, default: PolicyConfig) -> PolicyConfig {
        let mut time = |option, given: &Option<String>, default| {
            at.duration(option, given.as_deref(), TIMES, default)
        };
        let policy = PolicyConfig {
            backoff_min: time("backoff-min", &self.backoff_min, default.backoff_min),
            backoff_max: time("backoff-max", &self.backoff_max, default.backoff_max),
            stable_after: time("stable-after", &self.stable_after, default.stable_after),
            concurrent_percent: at.number(
                "concurrent-percent",
                self.concurrent_percent,
                1..=100,
                default.concurrent_percent,
            ),
            alert_after_attempts: at.number(
                "alert-after-attempts",
                self.alert_after_attempts,
                1..=1000,
                default.alert_after_attempts,
            ),
        };
        let (min, max) = (policy.backoff_min, policy.backoff_max);
        if min > max {
            at.add(
                "backoff-min",
                format!("{min:?} is more than --backoff-max, {max:?}"),
            );
        }
        policy
    }
}
