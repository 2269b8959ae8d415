//! What a run needs of a cluster, whatever it is made of.

use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::proxy::Link;

/// Shards, and shard servers, of every deployment.
pub const SHARDS: usize = 3;

/// What a cluster is made of. There are always three shards and three shard servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Replicas of each shard: 1 or 3.
    pub replicas: usize,
    /// Coordinators: 1 or 3.
    pub coordinators: usize,
    /// Watchdogs, which take turns.
    pub watchdogs: usize,
}

impl Shape {
    /// One of everything: what `docker-compose.yml` describes by itself.
    pub const SINGLE: Self = Self {
        replicas: 1,
        coordinators: 1,
        watchdogs: 1,
    };
    /// Three of everything that keeps data, and two watchdogs.
    pub const REPLICATED: Self = Self {
        replicas: 3,
        coordinators: 3,
        watchdogs: 2,
    };
}

/// A running cluster: coordinators, three shard servers and watchdogs.
pub trait Deployment: Debug {
    /// What it is made of.
    fn shape(&self) -> Shape;

    /// Where clients reach the coordinators: `host:port`.
    fn addresses(&self) -> &[String];

    /// Where the watchdogs serve their metrics: `host:port`.
    fn watchdog_metrics(&self) -> &[String];

    /// The names of the coordinators.
    fn coordinators(&self) -> &[String];

    /// The names of the watchdogs.
    fn watchdogs(&self) -> &[String];

    /// The names of the shard servers, as they register.
    fn shard_servers(&self) -> &[String];

    /// Where the shard servers are reached from here, in the order of their names: `host:port`. Empty where they are not.
    fn shard_addresses(&self) -> &[String];

    /// The process of a server on this machine; `None` while it is down.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn pid(&self, node: &str) -> anyhow::Result<Option<Pid>>;

    /// Keeps whoever restarts servers from ending this one while it stands still, or no longer.
    ///
    /// # Errors
    /// When it cannot be done.
    fn guard(&self, node: &str, is_guarded: bool) -> anyhow::Result<()>;

    /// Keeps a server down once it has ended, whoever else would restart it.
    ///
    /// # Errors
    /// When it cannot be done.
    fn hold(&self, node: &str) -> anyhow::Result<()>;

    /// Starts a server that was held down.
    ///
    /// # Errors
    /// When it cannot be started.
    fn release(&self, node: &str) -> anyhow::Result<()>;

    /// How often a coordinator or a watchdog that had ended, by itself or not, was started again by whoever does that here. No watchdog looks
    /// after these.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn started_again(&self) -> anyhow::Result<u64>;

    /// Where a server keeps its data, as a path on this machine.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn data_dir(&self, node: &str) -> anyhow::Result<PathBuf>;

    /// Changes what becomes of the connections to a shard server. One that is cut off has none to others, either; there is at most one at a time.
    ///
    /// # Errors
    /// When this deployment cannot do that.
    fn set_link(&self, node: &str, link: Link) -> anyhow::Result<()>;

    /// A folder on the disk of a shard server, which is small and its alone.
    ///
    /// # Errors
    /// When its disk is shared with others, and so must not be filled.
    fn own_disk(&self, node: &str) -> anyhow::Result<PathBuf>;

    /// What its servers have logged lately, for whoever has to find out why a run failed.
    fn logs(&self) -> String;

    /// Ends the servers, for whoever has to find out why a run failed, and has their data outlive [`Deployment::stop`]. Says where they are, and
    /// until when. What would go all the same is copied into a folder.
    ///
    /// # Errors
    /// When a server could not be ended, or something not be copied.
    fn keep_data(&mut self, folder: &Path) -> anyhow::Result<String>;

    /// Ends everything that was started. Containers and their volumes go, unless [`Deployment::keep_data`] was asked for; data and logs of
    /// processes stay where they are.
    ///
    /// # Errors
    /// When something could not be ended; the text says what is left.
    fn stop(&mut self) -> anyhow::Result<()>;
}

/// A process id on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pid(rustix::process::Pid);

impl Pid {
    /// The id of a raw number; `None` for what cannot be one.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        rustix::process::Pid::from_raw(raw).map(Self)
    }

    /// Whether any of the process is left that is not merely waiting to be reaped. Until then it may keep its ports and its locks.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "reads the kernel's table of processes"
    )]
    pub fn is_alive(self) -> bool {
        let stat = std::fs::read(format!("/proc/{}/stat", self.0.as_raw_nonzero()));
        stat.is_ok_and(|stat| !has_ended(&String::from_utf8_lossy(&stat)))
    }

    /// SIGKILL: the process gets no chance to flush or to say goodbye.
    ///
    /// # Errors
    /// When the kernel refuses, most often because the process has ended.
    pub fn kill(self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGTERM: the process may stop in an orderly way.
    ///
    /// # Errors
    /// As [`Pid::kill`].
    pub fn terminate(self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: the process stands still, with its connections open.
    ///
    /// # Errors
    /// As [`Pid::kill`].
    pub fn pause(self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: a process that stood still goes on.
    ///
    /// # Errors
    /// As [`Pid::kill`].
    pub fn resume(self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(self.0, signal)
            .with_context(|| format!("signalling process {self}"))
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0.as_raw_nonzero())
    }
}

/// What the kernel says of a process in `/proc/PID/stat` (proc(5)), read as to whether nothing of it is left. Its first thread may have ended
/// while another one still waits for the disk, and with it the sockets that it listens on stay open.
fn has_ended(stat: &str) -> bool {
    // The name stands in parentheses and may hold anything; the state follows.
    let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let state = fields.next();
    let threads = fields.nth(16).and_then(|threads| threads.parse().ok());
    match state {
        Some("Z") => threads.unwrap_or(0) <= 1,
        Some("X") | None => true,
        Some(_) => false,
    }
}

/// Recovery attempts that the watchdogs have counted, by their own metrics.
///
/// # Errors
/// When one does not answer, or not with metrics.
pub fn recovery_attempts(deployment: &dyn Deployment) -> anyhow::Result<u64> {
    let addresses = deployment.watchdog_metrics().iter();
    addresses.map(|address| attempts_at(address)).sum()
}

fn attempts_at(address: &str) -> anyhow::Result<u64> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect(address)
        .with_context(|| format!("connecting to the watchdog at {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: watchdog\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(
        answer.contains(" 200 "),
        "the watchdog has no metrics: {answer}"
    );
    let samples = answer
        .lines()
        .filter(|line| line.starts_with("shard_recovery_attempts_total{"));
    samples
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or("");
            value
                .parse::<u64>()
                .with_context(|| format!("reading {line:?}"))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_ended_with_its_last_thread() {
        let stat = |state: &str, threads: u32| {
            let between = "1 7 7 0 -1 4227084 95 0 0 0 1 0 0 0 20 0";
            format!("7 (a) S (b) {state} {between} {threads} 0 4711 0 0\n")
        };
        for state in ["R", "S", "D", "T"] {
            assert!(!has_ended(&stat(state, 1)), "{state}");
        }
        assert!(!has_ended(&stat("Z", 2)), "another thread is left");
        assert!(has_ended(&stat("Z", 1)));
        assert!(has_ended(&stat("X", 0)));
        assert!(has_ended(""), "reaped while it was read");
    }
}
