//! Writes a snapshot.

use std::io::Write;

use super::format::{
    BLOCK_BYTES, CODEC_STORED, CODEC_ZSTD, FOOTER_LEN, FRAME_LEN, Frame, HEADER_LEN, KIND_BLOCK,
    KIND_FOOTER, crc, header,
};
use super::{CRC_SEED, SnapshotError, Summary};
use crate::dictionary::Dictionary;
use crate::display;
use crate::error::{RecordError, check};
use crate::release;
use crate::varint;

/// Levels 6 and 9 gained 4 % on generated terms and took three times as long; level 1 lost 9 %.
const ZSTD_LEVEL: i32 = 3;

/// Blocks below this many bytes are stored as they are.
const COMPRESS_BYTES_MIN: usize = 256;

/// Writes `dict` to `out` and says what was written.
///
/// Writes arrive at `out` a block at a time. A dictionary that is to be written while others go on
/// recording is cloned first: the clone is a frozen view, and is given up as it is written.
///
/// # Errors
/// [`SnapshotError::Io`] when `out` fails; what was written by then is worthless.
pub fn encode<W: Write>(dict: Dictionary, out: W) -> Result<Summary, SnapshotError> {
    let mut encoder = Encoder::new(out)?;
    release::walk(dict.into_root(), |term, count, display| {
        encoder.push_coded(term, count, |out| match display {
            Some(display) => {
                display.put_again(out);
                Some(display.len_for(term.len()))
            }
            None => None,
        })
    })?;
    encoder.finish()
}

/// Writes a snapshot from terms that come in ascending order.
pub struct Encoder<W: Write> {
    out: W,
    /// Made for the first block that is worth it: many dictionaries are small.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// The term before; empty at the beginning of the snapshot.
    last: Vec<u8>,
    raw: Vec<u8>,
    raw_terms: u32,
    stored: Vec<u8>,
    sequence: u32,
    chain: u32,
    summary: Summary,
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Encoder<W> {
    /// Begins a snapshot: writes the header.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] when `out` fails.
    pub fn new(mut out: W) -> Result<Self, SnapshotError> {
        let (bytes, chain) = header();
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            zstd: None,
            last: Vec::new(),
            raw: Vec::new(),
            raw_terms: 0,
            stored: Vec::new(),
            sequence: 0,
            chain,
            summary: Summary {
                stored_bytes: HEADER_LEN as u64,
                ..Summary::default()
            },
        })
    }

    /// Adds a term. A display form that equals the term is not kept.
    ///
    /// # Errors
    /// [`SnapshotError::Term`] when the term is out of order or none that a dictionary holds (nothing was
    /// added, and the encoder can go on), [`SnapshotError::Io`] when the writer fails.
    pub fn push(
        &mut self,
        term: &[u8],
        count: u64,
        display: Option<&[u8]>,
    ) -> Result<(), SnapshotError> {
        check(term, count, display)?;
        let display = display.filter(|&display| display != term);
        self.push_coded(term, count, |out| {
            display.map(|display| {
                display::put(out, term, display);
                display.len()
            })
        })
    }

    /// Adds a term that was checked. `put_display` appends the code of the display form, if there is one, and returns
    /// the length of the form.
    fn push_coded(
        &mut self,
        term: &[u8],
        count: u64,
        put_display: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Result<(), SnapshotError> {
        if self.summary.terms > 0 && term <= self.last.as_slice() {
            return Err(SnapshotError::Term(RecordError::OutOfOrder {
                position: self.summary.terms,
            }));
        }
        let shared = term
            .iter()
            .zip(&self.last)
            .take_while(|(a, b)| a == b)
            .count();
        let shared_here = if self.raw_terms == 0 { 0 } else { shared };
        let mut display = Vec::new();
        let display_len = put_display(&mut display);
        let rest = &term[shared_here..];
        varint::put(&mut self.raw, shared_here as u64);
        varint::put(
            &mut self.raw,
            (rest.len() as u64) << 1 | u64::from(display_len.is_some()),
        );
        self.raw.extend_from_slice(rest);
        varint::put(&mut self.raw, count);
        self.raw.extend_from_slice(&display);
        self.last.truncate(shared);
        self.last.extend_from_slice(&term[shared..]);
        self.raw_terms += 1;
        self.summary.terms += 1;
        self.summary.total += u128::from(count);
        self.summary.text_bytes += term.len() as u64;
        self.summary.display_bytes += display_len.unwrap_or(0) as u64;
        if self.raw.len() >= BLOCK_BYTES {
            self.close_block()?;
        }
        Ok(())
    }

    /// Ends the snapshot: writes the last block and the footer, and flushes.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] when the writer fails.
    pub fn finish(mut self) -> Result<Summary, SnapshotError> {
        if self.raw_terms > 0 {
            self.close_block()?;
        }
        let mut payload = Vec::with_capacity(FOOTER_LEN);
        payload.extend_from_slice(&self.summary.terms.to_le_bytes());
        payload.extend_from_slice(&self.summary.total.to_le_bytes());
        payload.extend_from_slice(&self.summary.text_bytes.to_le_bytes());
        payload.extend_from_slice(&self.summary.display_bytes.to_le_bytes());
        payload.extend_from_slice(&self.summary.blocks.to_le_bytes());
        self.write_frame(KIND_FOOTER, CODEC_STORED, FOOTER_LEN, &payload)?;
        self.out.flush()?;
        Ok(self.summary)
    }

    fn close_block(&mut self) -> Result<(), SnapshotError> {
        let raw = std::mem::take(&mut self.raw);
        let mut stored = std::mem::take(&mut self.stored);
        let worth_it =
            raw.len() >= COMPRESS_BYTES_MIN && self.compress(&raw, &mut stored)? < raw.len();
        if worth_it {
            self.write_frame(KIND_BLOCK, CODEC_ZSTD, raw.len(), &stored)?;
        } else {
            self.write_frame(KIND_BLOCK, CODEC_STORED, raw.len(), &raw)?;
        }
        self.summary.blocks += 1;
        self.raw_terms = 0;
        self.raw = raw;
        self.raw.clear();
        self.stored = stored;
        Ok(())
    }

    /// Compresses a block and returns the length that gives.
    fn compress(&mut self, raw: &[u8], stored: &mut Vec<u8>) -> Result<usize, SnapshotError> {
        stored.clear();
        stored.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            None => self.zstd.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        Ok(zstd.compress_to_buffer(raw, stored)?)
    }

    fn write_frame(
        &mut self,
        kind: u8,
        codec: u8,
        raw_len: usize,
        payload: &[u8],
    ) -> Result<(), SnapshotError> {
        let frame = Frame {
            kind,
            codec,
            sequence: self.sequence,
            terms: self.raw_terms,
            // Both lengths are at most `RAW_BYTES_MAX`.
            raw_len: raw_len as u32,
            stored_len: payload.len() as u32,
            payload_crc: crc(CRC_SEED, payload),
        };
        let (bytes, chain) = frame.to_bytes(self.chain);
        self.out.write_all(&bytes)?;
        self.out.write_all(payload)?;
        self.sequence += 1;
        self.chain = chain;
        self.summary.stored_bytes += (FRAME_LEN + payload.len()) as u64;
        Ok(())
    }
}
