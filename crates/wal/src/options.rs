//! How a log is kept: sizes, limits, and what to do in doubt.
//!
//! Ranges are checked when a log is opened, before anything on the disk is touched.

use crate::error::OpenError;

/// The largest payload of an entry, uncompressed, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;

/// The most bytes of a batch: payloads, uncompressed, and 64 for each record.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// How a log is kept. [`WalOptions::default`] suits a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalOptions {
    /// A segment that has reached this size is sealed, in bytes. A segment exceeds it by at most one group commit.
    /// 64 MiB; 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Space is reserved ahead in the active segment in steps of this many bytes; 0 turns it off. 4 MiB.
    pub preallocate_bytes: u64,
    /// Each group commit fills whole sectors of this size, in bytes, so that a write that is torn can never reach what was
    /// acknowledged before. 4,096, which is also a page of the page cache; or 512.
    pub align_bytes: u64,
    /// Payloads from this size on are compressed, in bytes. 1,024.
    pub compress_above_bytes: usize,
    /// Payloads from this size on are compressed when a dictionary has been trained, in bytes. 48.
    pub compress_with_dictionary_above_bytes: usize,
    /// The level of zstd; 0 turns compression off. 1; at most 19.
    pub zstd_level: i32,
    /// Payload bytes kept in memory behind the writer for readers. Newest entries first. 16 MiB.
    pub cache_bytes: usize,
    /// Bytes written in one group commit before the next begins. 8 MiB.
    pub batch_bytes_max: usize,
    /// Payload bytes that may wait for the writer's thread before `append` blocks. 64 MiB.
    pub queue_bytes_max: usize,
    /// Disk kept back so that what was admitted, and votes, truncations and membership, can still be
    /// written when the disk is full, and a log can be opened then, in bytes; 0 turns it off. 64 MiB; not much below
    /// 1 MiB, for opening needs 128 KiB for the mark and as much again as was not marked durable.
    pub reserve_bytes: u64,
    /// New client writes are refused when less than this is free beside the reserve, in bytes. 16 MiB.
    pub low_water_bytes: u64,
    /// They are admitted again when this much is free beside the reserve, in bytes. 32 MiB; not below
    /// `low_water_bytes`.
    pub high_water_bytes: u64,
    /// What to do with a last batch that is damaged inside without proof that it was durable.
    pub ambiguous: Ambiguous,
}

/// What to do with an ambiguous tail when a log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// Refuse, so that peers can repair it: for groups with several voters.
    Refuse,
    /// Drop it and report it loudly: for groups of one.
    Drop,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            preallocate_bytes: 4 << 20,
            align_bytes: 4096,
            compress_above_bytes: 1024,
            compress_with_dictionary_above_bytes: 48,
            zstd_level: 1,
            cache_bytes: 16 << 20,
            batch_bytes_max: 8 << 20,
            queue_bytes_max: 64 << 20,
            reserve_bytes: 64 << 20,
            low_water_bytes: 16 << 20,
            high_water_bytes: 32 << 20,
            ambiguous: Ambiguous::Drop,
        }
    }
}

impl WalOptions {
    /// Small sizes for tests: segments of 16 KiB, sectors of 512 bytes, no reserve, no space reserved ahead.
    #[must_use]
    pub fn small() -> Self {
        Self {
            segment_bytes: 16 << 10,
            align_bytes: 512,
            preallocate_bytes: 0,
            cache_bytes: 4 << 10,
            reserve_bytes: 0,
            low_water_bytes: 0,
            high_water_bytes: 0,
            ..Self::default()
        }
    }

    /// How far ahead space is reserved: a segment is never promised more than it will hold.
    pub(crate) fn reserve_step(&self) -> u64 {
        self.preallocate_bytes.min(self.segment_bytes)
    }

    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), OpenError> {
        let bad = |option, reason| Err(OpenError::Options { option, reason });
        if !(4 << 10..=1 << 30).contains(&self.segment_bytes) {
            return bad("segment_bytes", "4 KiB to 1 GiB");
        }
        if ![512, 4096].contains(&self.align_bytes) {
            return bad("align_bytes", "512 or 4096");
        }
        if self.preallocate_bytes > 1 << 30 {
            return bad("preallocate_bytes", "at most 1 GiB");
        }
        if !(0..=19).contains(&self.zstd_level) {
            return bad("zstd_level", "0 to 19");
        }
        if self.batch_bytes_max == 0 || self.queue_bytes_max == 0 {
            return bad("batch_bytes_max and queue_bytes_max", "above 0");
        }
        if self.high_water_bytes < self.low_water_bytes {
            return bad("high_water_bytes", "not below low_water_bytes");
        }
        Ok(())
    }
}
