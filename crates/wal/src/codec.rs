//! Compression of payloads, and the dictionaries for small ones.
//!
//! A payload is verified as stored before it is decompressed, and must decompress to exactly the size that
//! its verified header declares. Windows are at most [`WINDOW_LOG`] bits. A dictionary is a file beside the segments,
//! never changed once written; each segment's header names the one that its records may need.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use vfs::{Vfs, durable};
use zstd::{
    bulk::{Compressor, Decompressor},
    dict::DecoderDictionary,
    zstd_safe::{CParameter, DParameter},
};

use crate::{
    error::RotReason,
    format::{Fields, Frame, flag},
    options::{PAYLOAD_BYTES_MAX, WalOptions},
};

/// 8 MiB: what a decoder of ours ever reserves for a window.
const WINDOW_LOG: u32 = 23;
const DICTIONARY_MAGIC: [u8; 8] = *b"ACWALDIC";
const DICTIONARY_SUFFIX: &str = ".zdict";
/// The largest dictionary.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 1 << 20;
const DICTIONARY_HEADER_BYTES: usize = 24;

/// The dictionaries of a log's directory, by number.
#[derive(Clone, Default)]
pub(crate) struct Dictionaries(BTreeMap<u32, Arc<Dictionary>>);

struct Dictionary {
    bytes: Vec<u8>,
    decoder: DecoderDictionary<'static>,
}

impl std::fmt::Debug for Dictionaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Dictionaries {
    /// Reads all that verify. One that does not is only missed if a segment needs it.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> vfs::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in vfs.list_dir(dir)? {
            let name = entry.name.to_string_lossy().into_owned();
            let Some(number) = name
                .strip_suffix(DICTIONARY_SUFFIX)
                .and_then(|stem| stem.parse().ok())
            else {
                continue;
            };
            let limit = (DICTIONARY_BYTES_MAX + DICTIONARY_HEADER_BYTES) as u64;
            if entry.len > limit {
                continue;
            }
            let file = durable::read(vfs, &dir.join(&name), limit)?;
            if let Some(bytes) = decode_dictionary(number, &file) {
                let decoder = DecoderDictionary::copy(&bytes);
                all.insert(number, Arc::new(Dictionary { bytes, decoder }));
            }
        }
        Ok(Self(all))
    }

    /// The newest, which new segments use; 0 for none.
    pub(crate) fn newest(&self) -> u32 {
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        number == 0 || self.0.contains_key(&number)
    }
}

/// Writes a dictionary under a number that no other has.
pub(crate) fn save_dictionary(vfs: &dyn Vfs, dir: &Path, bytes: &[u8]) -> vfs::Result<u32> {
    let mut number = 1;
    for entry in vfs.list_dir(dir)? {
        let name = entry.name.to_string_lossy().into_owned();
        let stem = name.strip_suffix(DICTIONARY_SUFFIX);
        let used: u32 = stem.and_then(|stem| stem.parse().ok()).unwrap_or(0);
        number = number.max(used.saturating_add(1));
    }
    let mut file = Vec::with_capacity(DICTIONARY_HEADER_BYTES + bytes.len());
    file.extend_from_slice(&DICTIONARY_MAGIC);
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&number.to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file.extend_from_slice(&dictionary_crc(number, bytes).to_le_bytes());
    file.extend_from_slice(bytes);
    durable::replace(vfs, &dictionary_path(dir, number), &file)?;
    Ok(number)
}

fn dictionary_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}{DICTIONARY_SUFFIX}"))
}

fn dictionary_crc(number: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(number);
    crc.update(&DICTIONARY_MAGIC);
    crc.update(bytes);
    crc.finalize()
}

fn decode_dictionary(number: u32, file: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields::new(file);
    let known = fields.array::<8>()? == DICTIONARY_MAGIC && fields.u32()? == 1;
    let named = fields.u32()?;
    let len = usize::try_from(fields.u32()?).ok()?;
    let crc = fields.u32()?;
    let bytes = file.get(DICTIONARY_HEADER_BYTES..)?;
    let sane = known && named == number && len == bytes.len();
    (sane && crc == dictionary_crc(number, bytes)).then(|| bytes.to_vec())
}

/// Compresses the payloads of one log's new records.
pub(crate) struct Encoder {
    plain: Option<Compressor<'static>>,
    with_dictionary: Option<Compressor<'static>>,
    above: usize,
    above_with_dictionary: usize,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    pub(crate) fn new(
        options: &WalOptions,
        dictionaries: &Dictionaries,
        dictionary: u32,
    ) -> io::Result<Self> {
        let level = options.zstd_level;
        let mut encoder = Self {
            plain: None,
            with_dictionary: None,
            above: options.compress_above_bytes,
            above_with_dictionary: options.compress_with_dictionary_above_bytes,
        };
        if level == 0 {
            return Ok(encoder);
        }
        let mut plain = Compressor::new(level)?;
        lean(&mut plain)?;
        plain.set_parameter(CParameter::WindowLog(WINDOW_LOG - 2))?;
        encoder.plain = Some(plain);
        if let Some(known) = dictionaries.0.get(&dictionary) {
            let mut compressor = Compressor::with_dictionary(level, &known.bytes)?;
            lean(&mut compressor)?;
            encoder.with_dictionary = Some(compressor);
        }
        Ok(encoder)
    }

    /// The payload as stored, and the flags that say how. Stored as it is where that is not longer.
    pub(crate) fn encode(&mut self, payload: Bytes) -> (Bytes, u8) {
        let (compressor, flags) = if payload.len() >= self.above {
            (self.plain.as_mut(), flag::ZSTD)
        } else if payload.len() >= self.above_with_dictionary {
            let flags = flag::ZSTD | flag::DICTIONARY;
            (self.with_dictionary.as_mut(), flags)
        } else {
            (None, 0)
        };
        let Some(compressor) = compressor else {
            return (payload, 0);
        };
        match compressor.compress(&payload) {
            Ok(stored) if stored.len() < payload.len() => (Bytes::from(stored), flags),
            Ok(_) | Err(_) => (payload, 0),
        }
    }
}

/// Size, checksum and dictionary number stand in our own header.
fn lean(compressor: &mut Compressor<'static>) -> io::Result<()> {
    compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
    compressor.set_parameter(CParameter::ChecksumFlag(false))?;
    compressor.set_parameter(CParameter::DictIdFlag(false))
}

/// Decompresses payloads; keeps its decompressors between calls.
#[derive(Default)]
pub(crate) struct Decoder<'a> {
    plain: Option<Decompressor<'a>>,
    with_dictionary: Option<(u32, Decompressor<'a>)>,
}

impl<'a> Decoder<'a> {
    /// The payload behind a verified header, from bytes that verified as stored.
    pub(crate) fn decode(
        &mut self,
        frame: &Frame,
        stored: Bytes,
        dictionary: u32,
        dictionaries: &'a Dictionaries,
    ) -> Result<Bytes, RotReason> {
        let size = usize::try_from(frame.raw_len).unwrap_or(usize::MAX);
        if frame.flags & flag::ZSTD == 0 {
            let exact = stored.len() == size;
            return if exact {
                Ok(stored)
            } else {
                Err(RotReason::Sense)
            };
        }
        if size > PAYLOAD_BYTES_MAX {
            return Err(RotReason::Decompress);
        }
        let decompressor = if frame.flags & flag::DICTIONARY == 0 {
            self.plain()
        } else {
            self.with_dictionary(dictionary, dictionaries)
        };
        let mut raw = Vec::with_capacity(size);
        match decompressor?.decompress_to_buffer(&stored, &mut raw) {
            Ok(written) if written == size => Ok(Bytes::from(raw)),
            Ok(_) | Err(_) => Err(RotReason::Decompress),
        }
    }

    fn plain(&mut self) -> Result<&mut Decompressor<'a>, RotReason> {
        if self.plain.is_none() {
            let made = Decompressor::new().and_then(bounded);
            self.plain = Some(made.map_err(|_| RotReason::Decompress)?);
        }
        self.plain.as_mut().ok_or(RotReason::Decompress)
    }

    fn with_dictionary(
        &mut self,
        number: u32,
        dictionaries: &'a Dictionaries,
    ) -> Result<&mut Decompressor<'a>, RotReason> {
        let missing = RotReason::Dictionary(number);
        if self
            .with_dictionary
            .as_ref()
            .is_none_or(|(have, _)| *have != number)
        {
            let known = dictionaries.0.get(&number).ok_or(missing)?;
            let made = Decompressor::with_prepared_dictionary(&known.decoder).and_then(bounded);
            self.with_dictionary = Some((number, made.map_err(|_| missing)?));
        }
        let made = self.with_dictionary.as_mut();
        made.map(|(_, decompressor)| decompressor).ok_or(missing)
    }
}

fn bounded(mut decompressor: Decompressor<'_>) -> io::Result<Decompressor<'_>> {
    decompressor.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
    Ok(decompressor)
}

/// Makes a dictionary of at most `bytes_max` bytes from samples of payloads.
pub(crate) fn train(samples: &[Bytes], bytes_max: usize) -> io::Result<Vec<u8>> {
    zstd::dict::from_samples(samples, bytes_max)
}
