//! Snapshot files: their format, and the directory that keeps two generations of them.
//!
//! # Format, version 1
//!
//! One file holds one state of one group. Integers are little endian.
//!
//! | part | bytes | field |
//! |---|---|---|
//! | start | 8 | magic `ACSNAPSH` |
//! | | 4 | format version, 1 |
//! | | 4 | length of the header's body |
//! | header | 8 | group id |
//! | | 8 + 8 | term and index of the last entry that is part of the state |
//! | | 1 + 8 + 8 | whether a membership entry was applied; its term and index |
//! | | 8 | the newest leader's stamp that was applied, milliseconds since the Unix epoch |
//! | | 8 | when the snapshot was taken, by that machine's clock |
//! | | | the membership, protobuf message `autocomplete.raft.v1.Membership` |
//! | | 4 | CRC32 of start and header |
//! | body | | what [`crate::SnapshotView::encode`] wrote |
//! | footer | 8 | length of the body |
//! | | 32 | BLAKE3-256 of all bytes before this field |
//! | | 8 | magic `ACSNAPOK` |
//!
//! Later versions keep the start and the checksum of the header behind it, at most 64 KiB, so that they are told from a version that has
//! rotted. One is refused and nothing is changed: an older generation may be sound, but to go on from it would undo what the newer
//! program did.
//!
//! The hash names the content: it is what a sender announces and what a receiver and every start verify, over the
//! stored bytes, before one of them is decoded. A file without a valid footer was never published.
//!
//! # What always holds
//!
//! - A file appears under its final name only when it is written, synced and complete: temporary file, sync, rename, sync of the directory.
//!   Only then is it published, and only then may the log before it be purged.
//! - Names are made here from term and index, never from anything a peer sent.
//! - Two generations are kept, and the log reaches back to the older one. A newest file that does not verify, or that the disk does not
//!   give back, is kept as it is, reported, and the older one with the longer log is used instead. It goes when there are two sound ones
//!   and one of them is newer.
//! - One snapshot of a group is received at a time. A transfer that breaks off leaves what came (one such file a group, until the end of
//!   the process), and goes on from there when the same file is sent again; the hash of the whole decides, as ever.
//! - A file that somebody still reads (a [`SnapshotFile`] is held) is not removed.
//!
//! A failed sync discards the temporary file; the attempt may be repeated with a new one.

mod file;
mod format;
mod intake;
mod reader;
mod receive;
mod reread;
mod store;
mod writer;

pub use file::{SnapshotFile, SnapshotInfo};
pub(crate) use format::Header;
pub(crate) use intake::Announced;
pub(crate) use reader::{judge, verify};
pub(crate) use receive::{ReceiveError, Receiver};
pub(crate) use reread::Reread;
pub(crate) use store::{Found, GENERATIONS, SnapshotStore};
pub(crate) use writer::{copy, write};

#[cfg(test)]
pub(crate) mod tests;
