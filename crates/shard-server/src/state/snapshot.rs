//! The state as a stream of bytes: what a snapshot of a shard holds.
//!
//! # Format, version 1
//!
//! All integers are little-endian.
//!
//! **Header**, 16 bytes: magic `41 43 53 54 41 54 45 0A` (`ACSTATE\n`), version (2), flags (2, zero), CRC32 of these 12 bytes.
//!
//! **Frames** follow, each a header of 12 bytes and up to [`frame::FRAME_BYTES_MAX`] bytes of content:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | section: 1 state, 2 repeat table, 3 namespace, 4 end |
//! | 1 | 1 | 1 if this is the last frame of its section, else 0 |
//! | 2 | 2 | zero |
//! | 4 | 4 | bytes of content |
//! | 8 | 4 | CRC32 over offsets 0..8 and the content, started from the CRC before (the header's at first) |
//!
//! The chain of checksums means that a frame left out, moved or taken from another snapshot does not verify.
//!
//! **Sections**, in this order:
//!
//! 1. state, once: newest stamp (8 bytes, signed milliseconds);
//! 2. repeat table, once: as [`repeat_table`] writes it;
//! 3. a namespace, for each, by ascending id: id (4), generation (8), then a [`trie_core::snapshot`];
//! 4. end, once: the number of namespaces (8). A stream without it was cut.
//!
//! What is derived (cached lists, sizes) is not in it. The file around it carries a hash of its own as well.

mod decode;
mod encode;
mod frame;
mod hashing;
mod walk;

use std::collections::BTreeMap;
use std::io::{self, Write};

use cluster::NamespaceId;
use repeat_table::TableView;
use replication::SnapshotView;

use super::Space;

pub(super) use decode::decode;
pub use hashing::Hashing;
pub(super) use walk::{Visitor, Walk};

/// A frozen state. Cheap to take; made to be encoded or hashed while writes go on.
#[derive(Debug)]
pub struct StateView {
    pub(super) stamp_ms: i64,
    pub(super) spaces: BTreeMap<NamespaceId, Space>,
    pub(super) repeats: TableView,
}

impl SnapshotView for StateView {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        encode::encode(self, out)
    }
}
