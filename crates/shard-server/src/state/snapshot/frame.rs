//! Frames: sections of any length, cut into pieces that are checked one by one.

use std::io::{self, Read, Write};

/// Most bytes of content in a frame.
pub(super) const FRAME_BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"ACSTATE\n";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const FRAME_HEADER_BYTES: usize = 12;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    State = 1,
    Repeats = 2,
    Namespace = 3,
    End = 4,
}

impl Section {
    fn of(byte: u8) -> Option<Self> {
        [Self::State, Self::Repeats, Self::Namespace, Self::End]
            .into_iter()
            .find(|section| *section as u8 == byte)
    }
}

fn crc(seed: u32, parts: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn header() -> ([u8; HEADER_BYTES], u32) {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    let check = crc(0, [&bytes[..12], &[]]);
    bytes[12..].copy_from_slice(&check.to_le_bytes());
    (bytes, check)
}

/// Writes the sections of one stream.
pub(super) struct Frames<'a> {
    out: &'a mut dyn Write,
    chain: u32,
}

impl<'a> Frames<'a> {
    pub(super) fn begin(out: &'a mut dyn Write) -> io::Result<Self> {
        let (bytes, chain) = header();
        out.write_all(&bytes)?;
        Ok(Self { out, chain })
    }

    /// Writes one section; `content` writes what is in it.
    pub(super) fn section(
        &mut self,
        section: Section,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut writer = SectionWriter {
            frames: self,
            section,
            buffer: Vec::with_capacity(FRAME_BYTES_MAX),
        };
        content(&mut writer)?;
        writer.put(true)
    }
}

struct SectionWriter<'a, 'b> {
    frames: &'a mut Frames<'b>,
    section: Section,
    buffer: Vec<u8>,
}

impl SectionWriter<'_, '_> {
    fn put(&mut self, is_last: bool) -> io::Result<()> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0] = self.section as u8;
        bytes[1] = u8::from(is_last);
        // At most `FRAME_BYTES_MAX`.
        bytes[4..8].copy_from_slice(&(self.buffer.len() as u32).to_le_bytes());
        let check = crc(self.frames.chain, [&bytes[..8], &self.buffer]);
        bytes[8..].copy_from_slice(&check.to_le_bytes());
        self.frames.out.write_all(&bytes)?;
        self.frames.out.write_all(&self.buffer)?;
        self.frames.chain = check;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for SectionWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == FRAME_BYTES_MAX {
            self.put(false)?;
        }
        let room = FRAME_BYTES_MAX - self.buffer.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the sections of one stream.
pub(super) struct FrameReader<'a> {
    input: &'a mut dyn Read,
    chain: u32,
}

/// Something that no writer of this version wrote.
pub(super) fn damaged(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl<'a> FrameReader<'a> {
    pub(super) fn begin(input: &'a mut dyn Read) -> io::Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        input.read_exact(&mut bytes)?;
        let (expected, chain) = header();
        if bytes[..8] != expected[..8] {
            return Err(damaged("not the state of a shard"));
        }
        if crc(0, [&bytes[..12], &[]]).to_le_bytes() != bytes[12..] {
            return Err(damaged("the header does not verify"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            let text = format!("format version {version}, this program knows up to {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if bytes != expected {
            return Err(damaged("the header makes no sense"));
        }
        Ok(Self { input, chain })
    }

    /// The next section, read up to its first frame.
    pub(super) fn next(&mut self) -> io::Result<SectionReader<'_, 'a>> {
        let (section, is_last, content) = self.frame()?;
        Ok(SectionReader {
            frames: self,
            section,
            is_last,
            content,
            taken: 0,
        })
    }

    fn frame(&mut self) -> io::Result<(Section, bool, Vec<u8>)> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.input.read_exact(&mut bytes)?;
        let [
            section,
            is_last,
            zero_a,
            zero_b,
            l0,
            l1,
            l2,
            l3,
            c0,
            c1,
            c2,
            c3,
        ] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(damaged("a frame is longer than frames are"));
        }
        let mut content = vec![0; len];
        self.input.read_exact(&mut content)?;
        let check = crc(self.chain, [&bytes[..8], &content]);
        if check != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("a frame does not verify"));
        }
        let section = Section::of(section).filter(|_| is_last <= 1 && zero_a | zero_b == 0);
        let section = section.ok_or_else(|| damaged("a frame of unknown kind"))?;
        self.chain = check;
        Ok((section, is_last == 1, content))
    }
}

/// Reads one section to its end and not further.
pub(super) struct SectionReader<'a, 'b> {
    frames: &'a mut FrameReader<'b>,
    section: Section,
    is_last: bool,
    content: Vec<u8>,
    taken: usize,
}

impl SectionReader<'_, '_> {
    pub(super) fn section(&self) -> Section {
        self.section
    }

    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Checks that all of it was read.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.read(&mut [0])? == 0 {
            return Ok(());
        }
        Err(damaged("a section is longer than its content"))
    }
}

impl Read for SectionReader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.content.len() && !self.is_last {
            let (section, is_last, content) = self.frames.frame()?;
            if section != self.section {
                return Err(damaged("a section ends in the middle"));
            }
            (self.is_last, self.content, self.taken) = (is_last, content, 0);
        }
        let mut rest = self.content.get(self.taken..).unwrap_or_default();
        let read = rest.read(out)?;
        self.taken += read;
        Ok(read)
    }
}
