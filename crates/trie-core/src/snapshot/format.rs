//! The fixed parts of the format: see the module above for the specification.

/// The format version written, and the newest that is read.
pub const FORMAT_VERSION: u16 = 1;

/// Start value of the checksums that are not chained.
pub const CRC_SEED: u32 = 0x7472_6965;

/// Size in bytes, before compression, at which a block is closed.
pub const BLOCK_BYTES: usize = 256 * 1_024;

/// Largest payload before compression that a reader accepts, in bytes.
pub const RAW_BYTES_MAX: usize = 1_024 * 1_024;

// The longest term with the longest display form still fits behind an almost full block.
const _: () = assert!(
    BLOCK_BYTES + crate::error::TERM_BYTES_MAX + crate::error::DISPLAY_BYTES_MAX + 64
        <= RAW_BYTES_MAX
);

pub(crate) const MAGIC: [u8; 8] = *b"\x89TRIE\r\n\x1a";
pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const FRAME_LEN: usize = 28;
pub(crate) const FOOTER_LEN: usize = 48;

pub(crate) const KIND_BLOCK: u8 = 1;
pub(crate) const KIND_FOOTER: u8 = 2;
pub(crate) const CODEC_STORED: u8 = 0;
pub(crate) const CODEC_ZSTD: u8 = 1;

/// CRC32 (IEEE) of `bytes`, started from `seed`.
pub(crate) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The header of a snapshot, with its checksum, from which the chain of frames starts.
pub(crate) fn header() -> ([u8; HEADER_LEN], u32) {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let check = crc(CRC_SEED, &out[..12]);
    out[12..].copy_from_slice(&check.to_le_bytes());
    (out, check)
}

/// What stands before each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) codec: u8,
    pub(crate) sequence: u32,
    pub(crate) terms: u32,
    pub(crate) raw_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) payload_crc: u32,
}

impl Frame {
    /// The frame as bytes, with its checksum, from which the next frame's starts.
    pub(crate) fn to_bytes(self, chain: u32) -> ([u8; FRAME_LEN], u32) {
        let mut out = [0; FRAME_LEN];
        out[0] = self.kind;
        out[1] = self.codec;
        let words = [
            self.sequence,
            self.terms,
            self.raw_len,
            self.stored_len,
            self.payload_crc,
        ];
        for (place, word) in out[4..24].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let check = crc(chain, &out[..24]);
        out[24..].copy_from_slice(&check.to_le_bytes());
        (out, check)
    }

    /// Reads a frame and checks it: checksum first, then what it may say at this place.
    pub(crate) fn from_bytes(
        bytes: &[u8; FRAME_LEN],
        chain: u32,
        sequence: u32,
    ) -> Result<(Self, u32), &'static str> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let check = crc(chain, &bytes[..24]);
        if check != word(24) {
            return Err("checksum of the frame");
        }
        let frame = Self {
            kind: bytes[0],
            codec: bytes[1],
            sequence: word(4),
            terms: word(8),
            raw_len: word(12),
            stored_len: word(16),
            payload_crc: word(20),
        };
        if bytes[2..4] != [0, 0] {
            return Err("reserved bytes of the frame");
        }
        if frame.sequence != sequence {
            return Err("sequence of the frame");
        }
        let shape = match (frame.kind, frame.codec) {
            (KIND_BLOCK, CODEC_STORED) => frame.terms > 0 && frame.stored_len == frame.raw_len,
            (KIND_BLOCK, CODEC_ZSTD) => frame.terms > 0 && frame.stored_len < frame.raw_len,
            (KIND_FOOTER, CODEC_STORED) => {
                frame.terms == 0
                    && frame.raw_len as usize == FOOTER_LEN
                    && frame.stored_len == frame.raw_len
            }
            (_, _) => return Err("kind or codec of the frame"),
        };
        if !shape || frame.raw_len as usize > RAW_BYTES_MAX {
            return Err("lengths in the frame");
        }
        Ok((frame, check))
    }
}
