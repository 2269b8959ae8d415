//! A write-ahead log shared by many Raft groups, whose crate documentation is its format.
//!
//! One log a node. Every group's entries, votes, truncations and purges go through one ordered stream, so
//! that all appends that wait share one sync and a vote can never overtake an entry. [`Wal`] is the handle;
//! [`inspect`] looks at a log from outside. The crate knows no clock and no threads: the caller says where the
//! writer runs ([`Writer`]), and files are reached through [`vfs`] alone.
//!
//! What always holds:
//! - An append is acknowledged after its bytes are synced, in the order of the calls, or not at all.
//! - What is recovered holds all that was acknowledged and nothing that was not issued, and for each group it is the state
//!   after some number of its batches.
//! - Damage to acknowledged data is an error that names segment and offset. It is never cut or passed over.
//! - After a failed write or sync nothing is written any more ([`Wal::is_poisoned`]); the process must exit. A full disk is
//!   the exception: the segment is cut back to the last batch, the append fails as not applied, and the log goes on.
//!
//! # Files
//!
//! | name | content |
//! |---|---|
//! | `00000000000000000001.wal` | a segment, numbered from 1 in 20 digits |
//! | `mark` | two slots ([`vfs::TwoSlot`], 64 KiB each): what must exist |
//! | `00000001.zdict` | a compression dictionary, numbered from 1 in 8 digits |
//! | `reserve.0`, `reserve.1` | nothing: disk kept back, each half of the reserve |
//! | `LOCK` | nothing: locked while the log is open |
//! | `*.tmp`, `*.lost` | left by a crash, removed at the next start; put aside by a repair, never touched |
//!
//! Integers are little endian. CRC32 is the IEEE polynomial, begun with the seed given (not 0, so that
//! zeros do not verify).
//!
//! # Segment
//!
//! A header of 96 bytes, then batches. A batch is one or more records, the last of which is a marker. A segment that has a
//! successor ends where the successor's header says; bytes behind that are void. The first batch of a
//! segment begins with a state record for every group, so that older segments can be deleted.
//!
//! | offset | bytes | field of the header |
//! |---|---|---|
//! | 0 | 8 | magic `ACWALSEG` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | length of the header, 96 |
//! | 12 | 4 | 0 |
//! | 16 | 16 | cluster id |
//! | 32 | 8 | node id |
//! | 40 | 8 | number of this segment |
//! | 48 | 8 | number of the segment before, one less |
//! | 56 | 8 | where the segment before ends |
//! | 64 | 4 | physical chain at that place; `0x57616c30` before the first segment |
//! | 68 | 4 | number of the dictionary that records may need, 0 for none |
//! | 72 | 20 | 0 |
//! | 92 | 4 | CRC32 of all above, seed `0x57616c48` |
//!
//! *Version rule.* Later versions keep the magic, the place of the version and the place and seed of the checksum. A
//! version above the newest known is refused ([`OpenError::NewerFormat`]), not guessed at. All
//! versions up to it are read; new segments are written in the newest.
//!
//! # Record
//!
//! A header of 64 bytes, then the payload as stored. No gaps, no alignment, but for the marker's padding.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | header CRC32: seed = CRC of the segment's header; over the record's offset (8 bytes), then bytes 4 to 63 |
//! | 4 | 4 | physical chain: CRC32 of bytes 8 to 63, seeded by the chain of the record before (the CRC of the segment's header for the first) |
//! | 8 | 1 | kind, see below |
//! | 9 | 1 | flags: 1 zstd, 2 with dictionary, 4 vote committed, 8 something remains, 16 chain begins anew |
//! | 10 | 1 | kind of an entry, the caller's |
//! | 11 | 1 | 0 |
//! | 12 | 4 | length of the payload as stored |
//! | 16 | 4 | length of the payload uncompressed |
//! | 20 | 4 | CRC32 of the payload as stored, seed `0x57616c50` |
//! | 24 | 4 | logical chain of the group after the record |
//! | 28 | 4 | 0 |
//! | 32 | 8 | group |
//! | 40 | 8 | term |
//! | 48 | 8 | node |
//! | 56 | 8 | index |
//!
//! The header's checksum depends on the segment and the offset, so that a record that was moved,
//! swapped or recycled does not verify; the physical chain covers the payload through its checksum, so that a removed record breaks it.
//!
//! | kind | record | term, node, index | payload |
//! |---|---|---|---|
//! | 1 | entry | of the entry | the caller's |
//! | 2 | vote | term, candidate, count of votes so far | |
//! | 3 | commit hint | of the entry | |
//! | 4 | truncation | of what is then last (flag 8), but index = first removed | |
//! | 5 | purge | of the last purged | |
//! | 6 | removal of the group | 0 | |
//! | 7 | state of the group | 0 | 112 bytes, below |
//! | 8 | marker | watermark segment, watermark offset, number of the batch in the segment; *group* = where the batch begins | `a7 "mark" 0d 0a 1a`, zeros up to the next sector |
//!
//! No index, count of votes or number of a segment is 2^64 − 1, for each is counted on from: a record or a mark that says so means
//! nothing. A truncation removes at least one entry.
//!
//! *Logical chain.* CRC32, seed `0x57616c4c` before the first entry, then the chain before; over group, term, index (8
//! bytes each), kind (1), length (8) and the uncompressed payload. It is equal on all replicas that hold the same
//! entries, however they are stored, so that they can repair one another. A purge beyond the last entry sets it to the value that
//! came with the snapshot; where none came it begins anew as if after an empty entry of kind 0 at the purge point.
//!
//! *State.* version 1 (1 byte), flags (1: 1 vote, 2 vote committed, 4 committed, 8 purged, 16 last, 32 chain begun anew), 0 (2),
//! logical chain at the last entry (4), count of votes (8), vote: term, node (16); commit hint, purge point, last entry: term, node, index (24
//! each); logical chain at the purge point (4); 0 (4).
//!
//! *Watermark.* A marker says: all bytes before (segment, offset) were durable when this batch was written. It is the end of
//! the batch before, so that only the last batch of a log is ever in doubt.
//!
//! *Sectors.* The marker's padding ends each batch on a multiple of 4,096 (or 512) bytes: a write that is torn, or a page
//! that is lost by a failed sync, never holds what was acknowledged before.
//!
//! *Compression.* A payload is verified as stored, then decompressed to exactly its declared size (32 MiB at most, window 8
//! MiB at most). Dictionary files: magic `ACWALDIC`, version 1 (4), number (4), length (4), CRC32 of magic and dictionary
//! seeded by the number (4), dictionary. Later versions keep these places; their checksum covers the magic, the version (4) and all behind
//! byte 24, so that one is told from a version that has rotted.
//!
//! # Mark
//!
//! The body of a slot: version 1 (2 bytes), 0 (2), count of votes (4), cluster id (16), node id (8), oldest segment (8), durable
//! segment and offset (16); then for each group with a vote: group, count of votes, term, node, committed (8 each). Magic
//! `ACWALMRK`. Later versions keep the two-slot file with its magic and checksum, and the place of the version.
//!
//! It is rewritten before a vote is acknowledged, before segments are deleted, when a segment begins, and on
//! [`Wal::note_idle`] and [`Wal::shutdown`]. A segment above the durable one was being created: nothing in it was
//! acknowledged. All segments from the oldest to the durable one must exist. The log must know each vote, or a later one.
//!
//! Both slots are rewritten before anything in a new segment is acknowledged, and before segments are deleted. Else, with the newer
//! one rotten, the older one would call unconfirmed what was acknowledged, or missing what nobody needed.
//!
//! # Verdicts
//!
//! Let W be the highest watermark of the last segment: from the mark, its valid markers, and markers that verify by
//! themselves behind a damage.
//!
//! - *Rotten*: anything that does not verify in a segment with a successor; in the last one, in a batch that begins
//!   before W; or a file, an end, a vote or entries that must be there and are not. [`OpenError::Rotten`]; nothing is changed.
//!   So is any byte up to the end of a segment that the disk twice fails to give back, wherever W is: nobody knows what was
//!   there ([`RotReason::Unreadable`]). Of the mark one slot is enough. A file that cannot be opened, or a read that is refused for
//!   another reason, says nothing of the bytes and is [`OpenError::Io`].
//! - *Torn*: what follows the last complete batch at or after W, if no marker verifies behind it, or if the batch lacks a sector
//!   before its marker: 512 bytes at a multiple of as many that are all zero. A batch begins where nothing was written before, and no
//!   stored record is that empty, so that such a sector never reached the disk and the batch was never synced. It was never
//!   acknowledged; it is dropped and counted ([`RecoveryReport::torn_bytes`]). A sector that a disk lost after its sync looks the same:
//!   whoever was told of the batch can tell ([`RecoveryReport::found`]).
//! - *Ambiguous*: other damage in the last batch, whose marker verifies. A sector was torn in its middle in a crash before the sync, or
//!   it is rot. [`Ambiguous`] says what to do; the window is one batch, and closes with the next batch or
//!   [`Wal::note_idle`].
//!
//! # What a crash leaves, and a start does
//!
//! | crash | found | recovered |
//! |---|---|---|
//! | while a batch is written | any subset of its sectors, any length | the batch if complete, else torn or ambiguous: none of it |
//! | after its sync, before the acknowledgement | the batch | the batch |
//! | while a segment begins | a segment that the mark does not name | removed; the segment before goes on to its end |
//! | while the mark is written | one valid slot | the older mark, which claims less |
//! | while segments are deleted | segments older than the mark's oldest | removed |
//!
//! A start never goes on in an old segment. It writes the mark anew, both slots of it, then a fresh segment with the state as
//! of W followed by whatever was found after W, then both slots of the mark again: after a failed sync the page cache shows what
//! the disk does not have, and what readers are shown must be durable. Only then is the old tail cut off. A start that crashes is
//! begun again.
//!
//! # Disk full
//!
//! [`Wal::admit`] refuses new client writes below the low-water mark, until the high-water mark is free and the reserve
//! is whole; room that is promised or waits to be written is not promised again, and [`Wal::refresh`] looks anew without a
//! write. What was admitted, and was then caught by a full disk, takes the first half of the reserve; votes, truncations, purges
//! and removals may take the second half too. Once that is touched, entries are refused untried until it is whole: what it gave
//! is not theirs. A start that finds no room takes first the one half, then the other.

mod admit;
mod cache;
mod chain;
mod codec;
mod error;
mod format;
mod group;
pub mod inspect;
mod options;
mod read;
mod recover;
mod repair;
mod reserve;
mod rounds;
mod scrub;
mod segment;
mod shared;
mod state;
mod types;
mod unreadable;
mod waiter;
mod wal;
mod writer;

pub use error::{AppendError, DiskFull, LogFile, OpenError, ReadError, RotReason};
pub use options::{Ambiguous, BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, WalOptions};
pub use rounds::Round;
pub use scrub::{ScrubPosition, ScrubStep};
pub use types::{
    Entry, EntryMeta, GroupId, GroupState, Identity, LogId, Place, Record, RecoveryReport, Vote,
    WalStats,
};
pub use wal::{Done, Spawner, Wake, Wal, Writer};
