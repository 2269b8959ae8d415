//! How a node and its groups are set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterId, NodeId};
use runtime::Runtime;
use vfs::Vfs;
use wal::{GroupId, WalOptions};

use crate::{Member, SnapshotFile, StartError};

/// Who this node is. Both are fixed when the data directory is first used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node, issued by the cluster's metadata and never used again.
    pub node: NodeId,
}

/// What a [`crate::Host`] is made of.
#[derive(Debug, Clone)]
pub struct HostDeps {
    /// The outside world.
    pub runtime: Runtime,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The data directory: the log is in `wal` below it, the snapshots in `snapshots`.
    pub dir: PathBuf,
    /// Who this node is.
    pub identity: Identity,
    /// Settings.
    pub options: HostOptions,
}

/// Settings of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// How the log is kept.
    pub wal: WalOptions,
    /// The log is written by a thread of its own; without it, by whoever appends, which is deterministic.
    pub writer_thread: bool,
    /// When the log grows beyond this, groups that hold back its oldest segment are made to take a snapshot, and keep nothing more for
    /// followers that lack what snapshots cover: those are sent one. In bytes. Default 1 GiB.
    pub log_bytes_max: u64,
    /// The largest snapshot that is taken in from a peer, in bytes. Default 64 GiB.
    pub snapshot_bytes_max: u64,
    /// A peer that has begun a stream of appends or a snapshot and then sends nothing for this long is given up.
    /// Default 10 s.
    pub peer_silence_max: Duration,
    /// How fast the log and the snapshots are read again in the background to find rot, in bytes a second; 0 turns it
    /// off. Default 4 MiB.
    pub scrub_bytes_per_second: u64,
    /// The pause between two passes of the scrub. Default 60 s.
    pub scrub_pause: Duration,
    /// How long the disk may be at one write of the log before it counts as failed; for ever, if none. Default 10 s.
    pub stall_max: Option<Duration>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            wal: WalOptions::default(),
            writer_thread: true,
            log_bytes_max: 1 << 30,
            snapshot_bytes_max: 64 << 30,
            peer_silence_max: Duration::from_secs(10),
            scrub_bytes_per_second: 4 << 20,
            scrub_pause: Duration::from_secs(60),
            stall_max: Some(Duration::from_secs(10)),
        }
    }
}

/// How a replica begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// From what is on disk.
    Resume,
    /// As the founder of a new group; this node must be one of its voters. Only one of the members founds.
    Bootstrap {
        /// The first members, all of them voters.
        members: Vec<Member>,
    },
    /// Empty, waiting for a leader to add it with [`crate::Group::add_learner`].
    Join,
    /// A new group with the state of a snapshot of another: what is left when a group is given up. The present node must be its only voter;
    /// others are added later.
    Seed {
        /// The state.
        snapshot: SnapshotFile,
        /// This node and its address.
        member: Member,
    },
}

/// Times of elections. `heartbeat * 2 <= election_min < election_max <= ELECTION_LIMIT` must hold.
///
/// After the death of a leader nothing is written for about `election_max`, for so long its followers are loyal, and a random
/// time between the two limits: about half a second with the defaults, which machines with two busy cores still keep.
///
/// Replicas of a group may have different times, as while the servers of a cluster are given other ones, one after another: a
/// leader's lease is the shortest that anybody grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A leader lets itself be heard this often.
    pub heartbeat: Duration,
    /// The shortest time that a follower waits before it asks for votes, once its loyalty has ended.
    pub election_min: Duration,
    /// The longest; also how long followers grant a leader their loyalty.
    pub election_max: Duration,
}

/// The longest election timeout. It bounds how long a replica that has just started must not vote, for it does not remember
/// how long it was loyal in its last life.
pub const ELECTION_LIMIT: Duration = Duration::from_secs(1);

impl Default for Timing {
    fn default() -> Self {
        Self::of(Self::ELECTION_DEFAULT)
    }
}

impl Timing {
    /// The election timeout unless another is asked for.
    pub const ELECTION_DEFAULT: Duration = Duration::from_millis(300);

    /// The times that go with an election timeout: heartbeats six times as often, and votes asked for a third of it to the whole
    /// after a follower's loyalty has ended.
    #[must_use]
    pub fn of(election_timeout: Duration) -> Self {
        Self {
            heartbeat: election_timeout / 6,
            election_min: election_timeout / 3,
            election_max: election_timeout,
        }
    }

    /// The longest lease of any leader.
    pub(crate) fn longest_lease() -> Duration {
        Self::of(ELECTION_LIMIT).lease()
    }

    /// How long after a majority's last acknowledgement a leader still answers reads. Followers grant `election_max`; a
    /// quarter is left for clocks that run at different speeds and for the look-up itself.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.election_max * 3 / 4
    }
}

/// When a replica takes a snapshot: as soon as one of the limits is reached. Each replica takes its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries applied since the last. Default 50,000.
    pub entries: u64,
    /// Bytes of commands applied since the last: what a restart has to replay. Default 32 MiB.
    pub bytes: u64,
    /// Time since the last, if anything was applied. Default 10 minutes.
    pub interval: Duration,
    /// A burst of writes is over when nothing was applied for this long. What it left to replay is then worth a snapshot if it
    /// is [`SnapshotPolicy::burst_bytes`] or more, and a quarter of the last snapshot. Default 3 seconds.
    pub quiet: Duration,
    /// Bytes of commands that make a burst. They are worth a snapshot when a node is stopped, too. Default 2 MiB.
    pub burst_bytes: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            entries: 50_000,
            bytes: 32 << 20,
            interval: Duration::from_secs(600),
            quiet: Duration::from_secs(3),
            burst_bytes: 2 << 20,
        }
    }
}

/// A group to be started.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Its name.
    pub group: GroupId,
    /// How it begins.
    pub start: Start,
    /// Times of elections.
    pub timing: Timing,
    /// When to take snapshots.
    pub snapshots: SnapshotPolicy,
    /// The largest command, in bytes. Default 2 MiB, at most 3 MiB, so that a message of one entry stays below the limit of
    /// messages between replicas.
    pub command_bytes_max: usize,
    /// A follower that holds back the log that snapshots cover, and is behind by more entries than this, is sent a snapshot instead. Only
    /// once by the same leader: one that needs longer for a snapshot than so many entries take to be written would be sent them for ever.
    /// After that it holds back the log until [`HostOptions::log_bytes_max`]. Default 1,000,000.
    pub lag_entries_max: u64,
}

/// The most that [`GroupConfig::command_bytes_max`] may be.
const COMMAND_BYTES_LIMIT: usize = 3 << 20;

impl GroupConfig {
    /// A group with default settings.
    #[must_use]
    pub fn new(group: GroupId, start: Start) -> Self {
        Self {
            group,
            start,
            timing: Timing::default(),
            snapshots: SnapshotPolicy::default(),
            command_bytes_max: 2 << 20,
            lag_entries_max: 1_000_000,
        }
    }

    /// Checks the settings and translates them.
    pub(crate) fn to_raft(&self) -> Result<openraft::Config, StartError> {
        let refuse = |option, problem: &str| {
            Err(StartError::Options {
                option,
                problem: problem.to_owned(),
            })
        };
        if self.timing.heartbeat.is_zero() {
            return refuse("heartbeat", "must be above zero");
        }
        if self.timing.heartbeat * 2 > self.timing.election_min {
            return refuse("heartbeat", "at most half of election_min");
        }
        if self.timing.election_min >= self.timing.election_max {
            return refuse("election_max", "must be above election_min");
        }
        if self.timing.election_max > ELECTION_LIMIT {
            return refuse("election_max", "at most one second");
        }
        if !(1..=COMMAND_BYTES_LIMIT).contains(&self.command_bytes_max) {
            return refuse("command_bytes_max", "1 byte to 3 MiB");
        }
        let config = openraft::Config {
            cluster_name: format!("group-{}", self.group),
            heartbeat_interval: millis(self.timing.heartbeat),
            election_timeout_min: millis(self.timing.election_min),
            election_timeout_max: millis(self.timing.election_max),
            // Snapshots and purges are decided in `group::policy`, by bytes and time too.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            install_snapshot_timeout: millis(Duration::from_secs(3600)),
            max_payload_entries: 1024,
            broadcast_submitted_on_append: Some(true),
            enable_pre_vote: Some(true),
            // The commit hint may be older than what was answered, so a leader must be elected anew after a restart.
            enable_leader_restore: Some(false),
            backoff: "20ms 50ms 100ms 200ms ...1s".to_owned(),
            api_channel_size: Some(4096),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| StartError::Options {
            option: "timing",
            problem: error.to_string(),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leader's may take four seconds for three of its followers'.
    #[test]
    fn a_lease_is_over_before_loyalty_by_a_clock_that_is_a_quarter_slower() {
        let uneven = Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(401),
        };
        let even = [60, 150, 300, 999].map(|ms| Timing::of(Duration::from_millis(ms)));
        let ends = [uneven, Timing::default(), Timing::of(ELECTION_LIMIT)];
        for timing in even.into_iter().chain(ends) {
            let config = GroupConfig {
                timing,
                ..GroupConfig::new(GroupId(7), Start::Join)
            };
            let raft = config.to_raft().unwrap();
            let loyal = Duration::from_millis(raft.election_timeout_max);
            assert!(timing.lease() * 4 <= loyal * 3, "{timing:?}");
            // For so long a replica that has just started votes for nobody.
            assert!(timing.lease() <= Timing::longest_lease(), "{timing:?}");
        }
    }
}
