//! Reads a snapshot.

use std::io::{ErrorKind, Read};

use super::format::{
    CODEC_ZSTD, FOOTER_LEN, FRAME_LEN, Frame, HEADER_LEN, KIND_FOOTER, MAGIC, RAW_BYTES_MAX, crc,
};
use super::{CRC_SEED, FORMAT_VERSION, SnapshotError, Summary};
use crate::bucket::common_prefix;
use crate::builder::Builder;
use crate::dictionary::Dictionary;
use crate::display::Display;
use crate::entry::Entry;
use crate::error::{RecordError, check, check_display};
use crate::options::Options;
use crate::varint;

/// Reads a snapshot into a dictionary. Nothing behind the footer is taken from `input`.
///
/// # Errors
/// See [`SnapshotError`]; there is no dictionary unless every byte was right.
pub fn decode<R: Read>(input: R, options: Options) -> Result<Dictionary, SnapshotError> {
    let mut decoder = Decoder::new(input)?;
    let mut builder = Builder::new(options);
    while decoder.advance()? {
        let (term, shared) = (decoder.term.as_slice(), decoder.shared);
        builder.push_coded(term, shared, decoder.count, decoder.display());
    }
    Ok(builder.finish())
}

/// Reads a snapshot term by term, in ascending order.
///
/// What it hands out was checked as far as the block it stands in; that the snapshot is whole is known
/// when [`Decoder::next_entry`] has returned `None`.
pub struct Decoder<R: Read> {
    input: R,
    /// Made for the first block that is compressed.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    stored: Vec<u8>,
    raw: Vec<u8>,
    at: usize,
    /// Terms of the block that were not read yet.
    terms_left: u32,
    sequence: u32,
    chain: u32,
    summary: Summary,
    finished: bool,
    term: Vec<u8>,
    /// Bytes that the term shares with the one before.
    shared: usize,
    count: u64,
    /// Where the code of the display form stands in the block.
    display_at: Option<usize>,
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the header of a snapshot.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn new(mut input: R) -> Result<Self, SnapshotError> {
        let mut bytes = [0; HEADER_LEN];
        fill(&mut input, &mut bytes, 0)?;
        if bytes[..8] != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let chain = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        if crc(CRC_SEED, &bytes[..12]) != chain {
            return Err(corrupt(0, "checksum of the header"));
        }
        let found = u16::from_le_bytes([bytes[8], bytes[9]]);
        if found != FORMAT_VERSION {
            return Err(SnapshotError::Version {
                found,
                supported: FORMAT_VERSION,
            });
        }
        if bytes[10..12] != [0, 0] {
            return Err(corrupt(0, "flags of the header"));
        }
        Ok(Self {
            input,
            zstd: None,
            stored: Vec::new(),
            raw: Vec::new(),
            at: 0,
            terms_left: 0,
            sequence: 0,
            chain,
            summary: Summary {
                stored_bytes: HEADER_LEN as u64,
                ..Summary::default()
            },
            finished: false,
            term: Vec::new(),
            shared: 0,
            count: 0,
            display_at: None,
        })
    }

    /// The next term, or `None` behind the last once the footer has been checked.
    ///
    /// # Errors
    /// See [`SnapshotError`]; after an error the decoder is of no more use.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, SnapshotError> {
        Ok(self.advance()?.then(|| Entry {
            term: self.term.clone(),
            count: self.count,
            display: self.display().map(|display| display.of(&self.term)),
        }))
    }

    /// What was read so far; after the last term, what the snapshot holds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Moves to the next term; false behind the last.
    fn advance(&mut self) -> Result<bool, SnapshotError> {
        while self.terms_left == 0 {
            if self.finished {
                return Ok(false);
            }
            if self.at != self.raw.len() {
                return Err(self.corrupt("bytes behind the last term of a block"));
            }
            self.read_frame()?;
        }
        self.read_term()?;
        self.terms_left -= 1;
        self.summary.terms += 1;
        self.summary.total += u128::from(self.count);
        self.summary.text_bytes += self.term.len() as u64;
        let display_len = self.display().map(|form| form.len_for(self.term.len()));
        self.summary.display_bytes += display_len.unwrap_or(0) as u64;
        Ok(true)
    }

    /// The display form of the term at hand.
    fn display(&self) -> Option<Display<'_>> {
        Display::get(&self.raw, &mut self.display_at?)
    }

    fn read_term(&mut self) -> Result<(), SnapshotError> {
        let frame = self.sequence.wrapping_sub(1);
        let cut = || corrupt(frame, "term that does not fit its block");
        let raw = self.raw.as_slice();
        let at = &mut self.at;
        let shared = varint::get(raw, at).ok_or_else(cut)? as usize;
        let head = varint::get(raw, at).ok_or_else(cut)?;
        let end = at.checked_add((head >> 1) as usize).ok_or_else(cut)?;
        let rest = raw.get(*at..end).ok_or_else(cut)?;
        *at = end;
        self.count = varint::get(raw, at).ok_or_else(cut)?;
        self.display_at = (head & 1 == 1).then_some(*at);
        let display = if head & 1 == 1 {
            Some(Display::get(raw, at).ok_or_else(cut)?)
        } else {
            None
        };
        // Ascending: the first byte that is not shared must be greater than the one it replaces.
        // At the beginning of a block nothing is shared, so the whole term is compared.
        let kept = self
            .term
            .get(shared..)
            .ok_or_else(|| corrupt(frame, "shared bytes of a term"))?;
        let more_shared = common_prefix(rest, kept);
        if rest[more_shared..] <= kept[more_shared..] && self.summary.terms > 0 {
            return Err(SnapshotError::Term(RecordError::OutOfOrder {
                position: self.summary.terms,
            }));
        }
        self.shared = shared + more_shared;
        self.term.truncate(shared);
        self.term.extend_from_slice(rest);
        check(&self.term, self.count, None)?;
        if let Some(display) = display {
            if !display.is_canonical_for(&self.term) {
                return Err(corrupt(frame, "display form of a term"));
            }
            check_display(display.len_for(self.term.len()))?;
        }
        Ok(())
    }

    /// Reads a frame and its payload: a block to be read from, or the footer.
    fn read_frame(&mut self) -> Result<(), SnapshotError> {
        let sequence = self.sequence;
        let mut bytes = [0; FRAME_LEN];
        fill(&mut self.input, &mut bytes, sequence)?;
        let (frame, chain) = Frame::from_bytes(&bytes, self.chain, sequence)
            .map_err(|reason| corrupt(sequence, reason))?;
        self.stored.resize(frame.stored_len as usize, 0);
        fill(&mut self.input, &mut self.stored, sequence)?;
        if crc(CRC_SEED, &self.stored) != frame.payload_crc {
            return Err(corrupt(sequence, "checksum of the payload"));
        }
        self.chain = chain;
        self.summary.stored_bytes += (FRAME_LEN as u64) + u64::from(frame.stored_len);
        if frame.kind == KIND_FOOTER {
            return self.check_footer();
        }
        if frame.codec == CODEC_ZSTD {
            self.raw.clear();
            // The capacity bounds what is decompressed, whatever the compressed bytes say.
            self.raw
                .reserve_exact((frame.raw_len as usize).min(RAW_BYTES_MAX));
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                None => self.zstd.insert(zstd::bulk::Decompressor::new()?),
            };
            zstd.decompress_to_buffer(&self.stored, &mut self.raw)
                .map_err(|_| corrupt(sequence, "compressed payload"))?;
        } else {
            std::mem::swap(&mut self.raw, &mut self.stored);
        }
        if self.raw.len() != frame.raw_len as usize {
            return Err(corrupt(sequence, "length of the decompressed payload"));
        }
        self.at = 0;
        self.terms_left = frame.terms;
        self.sequence = sequence
            .checked_add(1)
            .ok_or_else(|| corrupt(sequence, "too many frames"))?;
        self.summary.blocks += 1;
        Ok(())
    }

    fn check_footer(&mut self) -> Result<(), SnapshotError> {
        let mut expected = Vec::with_capacity(FOOTER_LEN);
        expected.extend_from_slice(&self.summary.terms.to_le_bytes());
        expected.extend_from_slice(&self.summary.total.to_le_bytes());
        expected.extend_from_slice(&self.summary.text_bytes.to_le_bytes());
        expected.extend_from_slice(&self.summary.display_bytes.to_le_bytes());
        expected.extend_from_slice(&self.summary.blocks.to_le_bytes());
        if self.stored != expected {
            return Err(self.corrupt("totals in the footer"));
        }
        self.finished = true;
        Ok(())
    }

    fn corrupt(&self, reason: &'static str) -> SnapshotError {
        corrupt(self.sequence, reason)
    }
}

fn corrupt(frame: u32, reason: &'static str) -> SnapshotError {
    SnapshotError::Corrupt { frame, reason }
}

/// Fills `buffer`, or says that the snapshot ends too early.
fn fill<R: Read>(input: &mut R, buffer: &mut [u8], frame: u32) -> Result<(), SnapshotError> {
    input.read_exact(buffer).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            SnapshotError::Truncated { frame }
        } else {
            SnapshotError::Io(error)
        }
    })
}
