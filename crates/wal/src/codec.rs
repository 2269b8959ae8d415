//! Compression of payloads, and the dictionaries for small ones.
//!
//! A payload is verified as stored before it is decompressed, and must decompress to exactly the size that
//! its verified header declares. Windows are at most [`WINDOW_LOG`] bits. A dictionary is a file beside the segments,
//! never changed once written; each segment's header names the one that its records may need.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    error::{LogFile, OpenError, RotReason},
    format::{Fields, FormatError, Frame, flag},
    options::{PAYLOAD_BYTES_MAX, WalOptions},
};

/// 8 MiB: what a decoder of ours ever reserves for a window.
const WINDOW_LOG: u32 = 23;
const DICTIONARY_MAGIC: [u8; 8] = *b"ACWALDIC";
const DICTIONARY_SUFFIX: &str = ".zdict";
/// The largest dictionary.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 1 << 20;
const DICTIONARY_HEADER_BYTES: usize = 24;
const DICTIONARY_VERSION: u32 = 1;

/// The dictionaries of a log's directory, by number.
#[derive(Clone, Default)]
pub(crate) struct Dictionaries {
    known: BTreeMap<u32, Arc<Dictionary>>,
    /// Those that the disk does not give back.
    unreadable: BTreeSet<u32>,
}

struct Dictionary {
    bytes: Vec<u8>,
    decoder: DecoderDictionary<'static>,
}

impl std::fmt::Debug for Dictionaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.known.keys()).finish()
    }
}

impl Dictionaries {
    /// Reads all that verify. One that does not, or cannot be read, is only missed if a segment needs it; one of a newer format is
    /// an error.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Self, OpenError> {
        let mut all = Self::default();
        for (number, path, len) in list_dictionaries(vfs, dir)? {
            let limit = (DICTIONARY_BYTES_MAX + DICTIONARY_HEADER_BYTES) as u64;
            if len > limit {
                continue;
            }
            let file = match durable::read(vfs, &path, limit) {
                Err(error) if error.is_unreadable() => {
                    all.unreadable.insert(number);
                    continue;
                }
                file => file?,
            };
            match decode_dictionary(number, &file) {
                Ok(bytes) => {
                    // One that zstd cannot load is of as little use as one that does not verify.
                    if let Ok(decoder) = DecoderDictionary::try_copy(&bytes) {
                        let dictionary = Arc::new(Dictionary { bytes, decoder });
                        all.known.insert(number, dictionary);
                    }
                }
                Err(error) => {
                    if let Some(newer) = error.newer(LogFile::Dictionary(number)) {
                        return Err(newer);
                    }
                }
            }
        }
        Ok(all)
    }

    /// The newest, which new segments use; 0 for none.
    pub(crate) fn newest(&self) -> u32 {
        self.known.keys().next_back().copied().unwrap_or(0)
    }

    /// Why a dictionary is not there that a segment names; `None` where it is.
    pub(crate) fn missing(&self, number: u32) -> Option<RotReason> {
        if number == 0 || self.known.contains_key(&number) {
            None
        } else if self.unreadable.contains(&number) {
            Some(RotReason::Unreadable(LogFile::Dictionary(number)))
        } else {
            Some(RotReason::Dictionary(number))
        }
    }
}

/// The files of dictionaries in a directory: number, path and length.
pub(crate) fn list_dictionaries(
    vfs: &dyn Vfs,
    dir: &Path,
) -> vfs::Result<Vec<(u32, PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in vfs.list_dir(dir)? {
        let name = entry.name.to_string_lossy();
        let stem = name.strip_suffix(DICTIONARY_SUFFIX);
        if let Some(number) = stem.and_then(|stem| stem.parse().ok()) {
            found.push((number, dir.join(&entry.name), entry.len));
        }
    }
    Ok(found)
}

/// Writes a dictionary under a number that no other has.
pub(crate) fn save_dictionary(vfs: &dyn Vfs, dir: &Path, bytes: &[u8]) -> vfs::Result<u32> {
    let used = list_dictionaries(vfs, dir)?.into_iter();
    let number = used.map(|(number, ..)| number.saturating_add(1)).max();
    let number = number.unwrap_or(1).max(1);
    let mut file = Vec::with_capacity(DICTIONARY_HEADER_BYTES + bytes.len());
    file.extend_from_slice(&DICTIONARY_MAGIC);
    file.extend_from_slice(&DICTIONARY_VERSION.to_le_bytes());
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

fn decode_dictionary(number: u32, file: &[u8]) -> Result<Vec<u8>, FormatError> {
    verified_dictionary(number, file).ok_or(FormatError::Damaged)?
}

fn verified_dictionary(number: u32, file: &[u8]) -> Option<Result<Vec<u8>, FormatError>> {
    let mut fields = Fields::new(file);
    let is_dictionary = fields.array::<8>()? == DICTIONARY_MAGIC;
    let version = fields.u32()?;
    let named = fields.u32()?;
    let len = usize::try_from(fields.u32()?).ok()?;
    let crc = fields.u32()?;
    let bytes = file.get(DICTIONARY_HEADER_BYTES..)?;
    if !is_dictionary || named != number {
        return None;
    }
    if version > DICTIONARY_VERSION {
        // The checksum of version 1 does not cover the version, so that it cannot tell a newer one from one that has rotted.
        let newer = FormatError::Newer {
            version,
            known: DICTIONARY_VERSION,
        };
        return (crc == later_dictionary_crc(number, version, bytes)).then_some(Err(newer));
    }
    let sane = version == DICTIONARY_VERSION && len == bytes.len();
    (sane && crc == dictionary_crc(number, bytes)).then(|| Ok(bytes.to_vec()))
}

/// The checksum of all versions but the first.
fn later_dictionary_crc(number: u32, version: u32, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(number);
    crc.update(&DICTIONARY_MAGIC);
    crc.update(&version.to_le_bytes());
    crc.update(rest);
    crc.finalize()
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
        if let Some(known) = dictionaries.known.get(&dictionary) {
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
            let known = dictionaries.known.get(&number).ok_or(missing)?;
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
