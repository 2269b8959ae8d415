//! The words of the interface: groups, entries, records, and what is reported about a log.
//!
//! Plain data. The rules that a batch of records must keep are on [`Record`]; they are checked when it is appended.

use bytes::Bytes;

/// Names a Raft group within the log of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose log this is. Written into every segment's header; a log of another node or cluster is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster, 16 random bytes fixed at its creation.
    pub cluster_id: [u8; 16],
    /// The node, issued by the metadata group and never used again.
    pub node_id: u64,
}

/// The place of an entry in a group's log: who wrote it, when in Raft's time, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId {
    /// The Raft term of the leader that made the entry.
    pub term: u64,
    /// That leader.
    pub node: u64,
    /// The position in the group's log.
    pub index: u64,
}

/// What a replica promised in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The Raft term.
    pub term: u64,
    /// The candidate.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One entry of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub id: LogId,
    /// What the payload is; the log does not interpret it.
    pub kind: u8,
    /// The caller's bytes, at most [`crate::PAYLOAD_BYTES_MAX`]. May be empty.
    pub payload: Bytes,
}

/// What is known of an entry without reading its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    /// Its place.
    pub id: LogId,
    /// The caller's kind.
    pub kind: u8,
    /// Length of the payload, uncompressed, in bytes.
    pub payload_bytes: u32,
    /// The group's logical chain up to and with this entry.
    pub chain: u32,
}

/// One change to append. The records of one batch are applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The next entry: its index is one above the last. The first entry of a group that has neither entries nor a
    /// purge point may have any index.
    Entry(Entry),
    /// The vote. Also written to the mark file before the append is acknowledged.
    Vote(Vote),
    /// How far the group is known to be committed. A hint: a batch of nothing else is acknowledged at once
    /// and reaches the disk with the next batch, [`crate::Wal::note_idle`] or [`crate::Wal::shutdown`].
    Committed(LogId),
    /// Removes all entries from this index on. It must be above the purge point. Beyond the last entry: no effect.
    Truncate {
        /// The first index that is removed.
        from_index: u64,
    },
    /// Forgets entries up to and with `upto`, which a durable snapshot covers. If `upto` lies beyond the last entry, the
    /// log becomes empty and goes on after it. At or below the present purge point: no effect.
    Purge {
        /// The last entry covered by the snapshot.
        upto: LogId,
        /// The logical chain at `upto`, if the snapshot carries it; only used where `upto` lies beyond
        /// the last entry. Without it the chain begins anew there ([`GroupState::chain_rebased`]).
        chain: Option<u32>,
    },
    /// Forgets the group with all its state, the vote included. Must be the last record of its batch.
    Remove,
}

impl Record {
    /// The length of an entry's payload; 0 for other records.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.payload.len(),
            Self::Vote(_)
            | Self::Committed(_)
            | Self::Truncate { .. }
            | Self::Purge { .. }
            | Self::Remove => 0,
        }
    }
}

/// A group's state as of the last append, synced or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupState {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last commit hint, or the purge point if there is none or the entries it speaks of were lost with an unacknowledged
    /// tail. After a crash it may be older than what was appended.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The last entry, or the purge point where there is none after it.
    pub last: Option<LogId>,
    /// The first index that can be read; `last + 1` (or 0) if there is none.
    pub first_index: u64,
    /// The logical chain at `last`; equal on all replicas that hold the same entries.
    pub chain: u32,
    /// Whether the chain was begun anew after a purge without a known chain, so that it must not be
    /// compared with that of other replicas.
    pub chain_rebased: bool,
}

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// The directory held no log: this node is new, or has lost its disk.
    pub fresh: bool,
    /// Segments that were read.
    pub segments: u64,
    /// Entries that can be read.
    pub entries: u64,
    /// The end of what was found, to the last complete batch. No earlier process that acknowledged anything in this directory can have
    /// been told by [`crate::Wal::durable_end`] that it lies further, unless something durable is missing.
    pub found: Place,
    /// Bytes after the last complete batch that were dropped. They were never acknowledged.
    pub torn_bytes: u64,
    /// Where they began.
    pub torn_at: Option<Place>,
    /// The last batch is complete but damaged inside, and nothing proves that it was durable. It was dropped under
    /// [`crate::Ambiguous::Drop`]: acknowledged entries may be missing. Raise an alarm.
    pub ambiguous: Option<Place>,
    /// Bytes of the ambiguous batch.
    pub ambiguous_bytes: u64,
    /// Slots of the mark file that did not verify; the other slot was used.
    pub mark_slots_damaged: usize,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The number of the segment, from 1.
    pub segment: u64,
    /// The offset in its file, in bytes.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

/// Counters since the log was opened, and present sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    /// Batches appended.
    pub appends: u64,
    /// Entries appended.
    pub entries: u64,
    /// Syncs of segments for appends: the groups of the group commit.
    pub fsyncs: u64,
    /// Bytes written to segments.
    pub bytes_written: u64,
    /// Payload bytes before compression.
    pub payload_bytes: u64,
    /// Payload bytes as stored.
    pub stored_bytes: u64,
    /// Segments that exist.
    pub segments: u64,
    /// Bytes of all segments, without space reserved ahead.
    pub log_bytes: u64,
    /// Bytes dropped as torn when the log was opened.
    pub torn_bytes: u64,
    /// Entries read from the cache.
    pub cache_hits: u64,
    /// Entries read from the disk.
    pub cache_misses: u64,
    /// Payload bytes in the cache.
    pub cached_bytes: u64,
    /// Batches that wait for the writer.
    pub queued_appends: u64,
    /// Payload bytes that wait for the writer.
    pub queued_bytes: u64,
    /// Appends refused for want of space.
    pub disk_full_refusals: u64,
    /// Whether new client writes are refused for want of space now.
    pub disk_full: bool,
    /// Segments deleted by retention.
    pub segments_deleted: u64,
}
