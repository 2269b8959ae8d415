//! The bytes on disk: encoding and decoding, and nothing else. The crate's documentation is the
//! specification; the constants here are its numbers.

mod frame;
mod header;
mod mark;
mod meta;
mod op;

pub(crate) use frame::{
    Claimed, FRAME_BYTES, Frame, FrameKind, MARKER_BYTES, MARKER_MAGIC, flag, payload_crc,
};
pub(crate) use header::{HEADER_BYTES, INITIAL_CHAIN, SegmentHeader};
pub(crate) use mark::{GROUPS_MAX, MARK_FILE, MARK_MAGIC, MARK_SLOT_BYTES, Mark, MarkVote};
pub(crate) use meta::GroupMeta;
pub(crate) use op::Op;

use crate::error::{LogFile, OpenError};

/// The newest format version this program writes, and the only one so far.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// Why a file, whose checksum held or not, cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// It is not what was written.
    Damaged,
    /// Its checksum holds, and a newer program wrote it.
    Newer { version: u32, known: u32 },
}

impl FormatError {
    /// The error of a file of a newer format; of a damaged one the reason is the caller's.
    pub(crate) const fn newer(self, file: LogFile) -> Option<OpenError> {
        match self {
            Self::Damaged => None,
            Self::Newer { version, known } => Some(OpenError::NewerFormat {
                file,
                version,
                known,
            }),
        }
    }
}

/// Reads little-endian integers from a slice, in order.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
