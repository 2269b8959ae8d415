//! A dictionary as a stream of bytes: the specification of the format, version 1.
//!
//! A snapshot holds the terms in ascending byte order with their counts and display forms, and
//! nothing that can be worked out from them. It is written and read as a stream: memory in use is a
//! block, whatever the size of the dictionary. The same content gives the same uncompressed bytes.
//!
//! ```text
//! snapshot = header  block*  footer
//! block    = frame   payload            (kind 1)
//! footer   = frame   payload            (kind 2)
//! ```
//!
//! All integers are little-endian. A varint is LEB128.
//!
//! **Header**, 16 bytes
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `89 54 52 49 45 0D 0A 1A` (`\x89TRIE\r\n\x1a`: damage by text tools shows at once) |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | flags, 0 |
//! | 12 | 4 | CRC32 of bytes 0..12, started from [`CRC_SEED`] |
//!
//! **Frame**, 28 bytes, before each payload
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind: 1 block, 2 footer |
//! | 1 | 1 | codec of the payload: 0 as it is, 1 zstd |
//! | 2 | 2 | reserved, 0 |
//! | 4 | 4 | sequence: 0, 1, 2, … over all frames |
//! | 8 | 4 | terms in the block; 0 in the footer |
//! | 12 | 4 | bytes of the payload when decompressed, at most [`RAW_BYTES_MAX`] |
//! | 16 | 4 | bytes of the payload as stored, at most as many |
//! | 20 | 4 | CRC32 of the stored payload, started from [`CRC_SEED`] |
//! | 24 | 4 | CRC32 of bytes 0..24, started from the checksum at the end of the frame before, the first from the header's |
//!
//! The last field chains the frames: one that was left out, moved or taken from another snapshot
//! does not verify. No start value is zero, so zeroed bytes do not verify either.
//!
//! **Payload of a block**: one or more terms, each
//!
//! | field | code |
//! |---|---|
//! | bytes shared with the term before | varint; 0 for the first of a block |
//! | length of the rest, and whether there is a display form | varint of `length * 2 + display` |
//! | the rest of the term | bytes, at least one |
//! | count | varint, at least 1 |
//! | display form, if there is one | varint of `length * 2 + mask`, then bytes |
//!
//! A display form with `mask = 1` is a bit a byte of the term, low bits first, without zero bytes at the end:
//! a set bit changes the case of that ASCII letter. With `mask = 0` it is the form itself.
//! A block ends with the first term that brings it to [`BLOCK_BYTES`] or more.
//!
//! **Payload of the footer**, 48 bytes, codec 0
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | number of terms |
//! | 8 | 16 | sum of all counts |
//! | 24 | 8 | lengths of all terms added up |
//! | 32 | 8 | lengths of all display forms added up |
//! | 40 | 8 | number of blocks |
//!
//! **Reading.** Not a byte behind the footer is taken, so a snapshot can stand inside a larger
//! stream. Lengths are checked against their limits before memory is asked for, and a checksum before
//! what it covers is decompressed or believed. A stream that ends early is
//! [`SnapshotError::Truncated`], anything else that is not as written here is
//! [`SnapshotError::Corrupt`]; either way there is no dictionary. Later versions raise the format version,
//! and version 1 stays readable.

mod decoder;
mod encoder;
mod error;
mod format;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, decode};
pub use encoder::{Encoder, encode};
pub use error::SnapshotError;
pub use format::{BLOCK_BYTES, CRC_SEED, FORMAT_VERSION, RAW_BYTES_MAX};

/// What a snapshot holds, as its footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Number of terms.
    pub terms: u64,
    /// Sum of all counts.
    pub total: u128,
    /// Lengths of all terms added up, in bytes.
    pub text_bytes: u64,
    /// Lengths of all display forms added up, in bytes.
    pub display_bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Length of the whole snapshot in bytes.
    pub stored_bytes: u64,
}
