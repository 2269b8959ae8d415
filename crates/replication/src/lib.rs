//! Replicated state machines: openraft over the write-ahead log, snapshots and gRPC.
//!
//! A [`Host`] is one node with one log. It runs replicas of groups; a [`Group`] is the handle to one of them, generic over a
//! [`StateMachine`]. A group of one replica is a group like any other: more replicas are a matter of its members.
//! This is the only crate that knows openraft, and none of its types appear in what is public here, on the
//! wire or on the disk.
//!
//! Where to look:
//! - [`StateMachine`]: what is replicated; [`Group`]: proposing, reading, members, snapshots.
//! - `log`: openraft's log on the [`wal`] crate. `snapshot`: the files and their format, byte by byte.
//! - `machine`: applying entries. `network`: messages between replicas. `host`: starting, recovering, upkeep.
//! - `raft`: the choice of openraft's types, in one place.
//!
//! What always holds:
//! - A proposal is answered after its entry is synced on a majority of the voters and applied here.
//! - A replica that cannot be brought back completely is not started ([`StartError::DataLoss`]); one that cannot go on
//!   stops for good and says why ([`GroupStatus::stopped`]).
//! - Rot in the log, met by a reader or found by the background scrub, stops all replicas of the node ([`Host::damaged`]).
//! - A failed sync of the log ends all replicas of the node ([`Host::poisoned`]), and the process must exit.
//! - Time reaches a state machine only as the leader's stamp in an entry, which never goes back.

mod command;
mod config;
mod convert;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod host;
mod lease;
mod log;
mod machine;
mod member;
mod network;
mod raft;
mod snapshot;
mod stamp;
mod status;

pub use cluster::NodeId;
pub use config::{
    ELECTION_LIMIT, GroupConfig, HostDeps, HostOptions, Identity, SnapshotPolicy, Start, Timing,
};
pub use convert::voters_of;
pub use error::{
    ChangeError, OpenError, Outcome, ProposeError, ReadError, SnapshotError, StartError,
};
pub use group::{Committed, Done, GivenUp, Group, Pending, Proposed, ReadPoint};
pub use host::{Host, RecoveryReport, ReplayWatch, Rotten, ScrubStats, shared_groups};
pub use machine::{Applied, ApplyError, RestoreError, SnapshotView, StateMachine};
pub use member::{METADATA_GROUP, Member, Peer, life_of, shard_group, shard_of};
pub use network::AppendSize;
pub use network::service::RaftServer;
pub use snapshot::{SnapshotFile, SnapshotInfo};
pub use status::{GroupStatus, Replay, Role, StopCause, Stopped};
pub use wal::{GroupId, WalOptions, WalStats};
