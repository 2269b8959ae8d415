//! The kinds of faults.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The process is killed.
    Kill,
    /// The machine loses its power, perhaps in the middle of a write.
    Power,
    /// All shard servers lose their power at once, half of the times the coordinators with them.
    Blackout,
    /// Two machines do not hear each other.
    Cut,
    /// One machine does not hear another.
    OneWay,
    /// A machine is alone.
    Isolate,
    /// A shard server hears its peers and nobody else.
    OutOfReach,
    /// A link comes and goes.
    Flap,
    /// Connections lose their way without either side being told.
    HalfOpen,
    /// A link is slow.
    Delay,
    /// What was sent over a connection is delivered again, over another one and later.
    Replay,
    /// A process stands still.
    Pause,
    /// A disk is slow.
    SlowDisk,
    /// A sync fails, of a log, another file or a directory.
    SyncError,
    /// Another operation of a disk fails or does a part of its work.
    DiskError,
    /// A disk has no room.
    FullDisk,
    /// A wall clock jumps.
    Clock,
    /// A monotonic clock is too slow.
    SlowClock,
    /// A machine comes back with an empty disk.
    LostDisk,
    /// A shard server comes back with its disk as it was some seconds ago, or without its log.
    SetBack,
    /// A coordinator comes back with an empty disk.
    LostCoordinator,
    /// A bit of a coordinator's log or snapshot flips.
    CoordinatorRot,
    /// A watchdog is killed, loses its power, stands still or is cut off.
    Watchdog,
    /// A bit of a log flips.
    Rot,
    /// A bit of a snapshot flips.
    SnapshotRot,
    /// An operator changes something.
    Operator,
    /// One shard server after another hears everybody but the others.
    Apart,
    /// No two shard servers hear each other.
    Standstill,
    /// One shard server after another stands still.
    Sleepers,
    /// One majority after another has the say, and the machine that is in all of them goes down in between.
    Majorities,
}

/// Those that only some worlds may meet: the first two need several coordinators, the third a watchdog.
pub(super) const OF_SOME: [Kind; 3] = [Kind::LostCoordinator, Kind::CoordinatorRot, Kind::Watchdog];

/// Those that every world may meet.
pub(super) const KINDS: [Kind; 27] = [
    Kind::Kill,
    Kind::Power,
    Kind::Blackout,
    Kind::Cut,
    Kind::OneWay,
    Kind::Isolate,
    Kind::OutOfReach,
    Kind::Flap,
    Kind::HalfOpen,
    Kind::Delay,
    Kind::Replay,
    Kind::Pause,
    Kind::SlowDisk,
    Kind::SyncError,
    Kind::DiskError,
    Kind::FullDisk,
    Kind::Clock,
    Kind::SlowClock,
    Kind::LostDisk,
    Kind::SetBack,
    Kind::Rot,
    Kind::SnapshotRot,
    Kind::Operator,
    Kind::Apart,
    Kind::Standstill,
    Kind::Sleepers,
    Kind::Majorities,
];

impl Kind {
    /// Its name in a report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Blackout => "blackout",
            Self::Cut => "cut",
            Self::OneWay => "one-way",
            Self::Isolate => "isolate",
            Self::OutOfReach => "out-of-reach",
            Self::Flap => "flap",
            Self::HalfOpen => "half-open",
            Self::Delay => "delay",
            Self::Replay => "replay",
            Self::Pause => "pause",
            Self::SlowDisk => "slow-disk",
            Self::SyncError => "sync-error",
            Self::DiskError => "disk-error",
            Self::FullDisk => "full-disk",
            Self::Clock => "clock",
            Self::SlowClock => "slow-clock",
            Self::LostDisk => "lost-disk",
            Self::SetBack => "set-back",
            Self::LostCoordinator => "lost-coordinator",
            Self::CoordinatorRot => "coordinator-rot",
            Self::Watchdog => "watchdog",
            Self::Rot => "rot",
            Self::SnapshotRot => "snapshot-rot",
            Self::Operator => "operator",
            Self::Apart => "apart",
            Self::Standstill => "standstill",
            Self::Sleepers => "sleepers",
            Self::Majorities => "majorities",
        }
    }
}
