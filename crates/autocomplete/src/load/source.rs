//! Where lines come from: a file or standard input, compressed or not.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;
use vfs::{FileReader, RealDisk, Vfs as _};

use super::args::Format;
use super::lines::Lines;

const BUFFER_BYTES: usize = 256 * 1024;

/// A source that can be opened.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
    /// A file that is part of this program.
    Embedded(&'static [u8]),
}

/// A source that is being read.
pub(super) struct Opened {
    /// The text, decompressed.
    pub(super) text: Box<dyn BufRead + Send>,
    /// What was read of the source itself.
    pub(super) meter: Arc<Meter>,
}

/// How much was read, and its hash once all was.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    hash: parking_lot::Mutex<blake3::Hasher>,
}

impl Meter {
    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The hash of what was read.
    pub(super) fn hash(&self) -> blake3::Hash {
        self.hash.lock().finalize()
    }
}

struct Metered<R> {
    input: R,
    meter: Arc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if let Some(bytes) = buffer.get(..read) {
            self.meter.hash.lock().update(bytes);
        }
        self.meter.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Source {
    /// `-` is standard input.
    pub(super) fn of(path: &Path) -> Self {
        if path == Path::new("-") {
            return Self::Stdin;
        }
        Self::File(path.to_owned())
    }

    pub(super) fn is_stdin(&self) -> bool {
        matches!(self, Self::Stdin)
    }

    /// Its length as it lies there; `None` where that is not known.
    pub(super) fn compressed_bytes(&self) -> Result<Option<u64>, anyhow::Error> {
        Ok(match self {
            Self::Stdin => None,
            Self::File(path) => Some(RealDisk::new().open_read(path)?.len()?),
            Self::Embedded(bytes) => Some(bytes.len() as u64),
        })
    }

    /// Opens it; whether it is compressed is seen by its first bytes.
    pub(super) fn open(&self) -> Result<Opened, anyhow::Error> {
        let raw: Box<dyn Read + Send> = match self {
            Self::Stdin => Box::new(io::stdin()),
            Self::File(path) => Box::new(FileReader::new(RealDisk::new().open_read(path)?)),
            Self::Embedded(bytes) => Box::new(*bytes),
        };
        let meter = Arc::new(Meter::default());
        let metered = Metered {
            input: raw,
            meter: Arc::clone(&meter),
        };
        let text = decompressed(BufReader::with_capacity(BUFFER_BYTES, metered))?;
        Ok(Opened { text, meter })
    }

    /// Reads all of it: its hash, and whether every line is good if that is asked.
    pub(super) fn examine(
        &self,
        format: Format,
        check_lines: bool,
    ) -> Result<blake3::Hash, anyhow::Error> {
        if check_lines {
            let opened = self.open()?;
            let mut lines = Lines::new(opened.text, format);
            while let Some(line) = lines.next().context("reading the file")? {
                if let Err(problem) = line.item {
                    anyhow::bail!("line {}: {problem} (nothing was loaded)", line.number);
                }
            }
        }
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Stdin => {}
            Self::File(path) => {
                hasher.update_reader(FileReader::new(RealDisk::new().open_read(path)?))?;
            }
            Self::Embedded(bytes) => {
                hasher.update(bytes);
            }
        }
        Ok(hasher.finalize())
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

fn decompressed(
    mut input: impl BufRead + Send + 'static,
) -> Result<Box<dyn BufRead + Send>, anyhow::Error> {
    let start = input.fill_buf().context("reading the start of the file")?;
    if start.starts_with(&ZSTD_MAGIC) {
        let decoder = zstd::Decoder::with_buffer(input).context("starting decompression")?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    if start.starts_with(&GZIP_MAGIC) {
        let decoder = MultiGzDecoder::new(input);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    Ok(Box::new(input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const TEXT: &[u8] = b"a\t1\nb\t2\n";

    fn read(bytes: Vec<u8>) -> (Vec<u8>, Arc<Meter>) {
        let mut opened = Source::Embedded(bytes.leak()).open().unwrap();
        let mut text = Vec::new();
        opened.text.read_to_end(&mut text).unwrap();
        (text, opened.meter)
    }

    #[test]
    fn compression_is_seen_by_the_first_bytes() {
        let zstd = zstd::encode_all(TEXT, 3).unwrap();
        let twice = [zstd.clone(), zstd.clone()].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(TEXT).unwrap();
        let gzip = gzip.finish().unwrap();
        for bytes in [TEXT.to_vec(), zstd, gzip] {
            let (text, meter) = read(bytes.clone());
            assert_eq!(text, TEXT);
            assert_eq!(meter.bytes(), bytes.len() as u64);
            assert_eq!(meter.hash(), blake3::hash(&bytes));
        }
        assert_eq!(read(twice).0, [TEXT, TEXT].concat());
        assert_eq!(read(Vec::new()).0, b"");
    }

    #[test]
    fn a_bad_line_is_found_before_anything_is_sent() {
        let good = Source::Embedded(TEXT);
        assert_eq!(
            good.examine(Format::Auto, true).unwrap(),
            blake3::hash(TEXT)
        );
        let bad = Source::Embedded(b"a\t1\nb\tx\n");
        let error = bad.examine(Format::Auto, true).unwrap_err().to_string();
        assert!(error.starts_with("line 2: has \"x\" as count"), "{error}");
        bad.examine(Format::Auto, false).unwrap();
    }
}
