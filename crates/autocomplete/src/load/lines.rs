//! Lines to items: bounded, each judged on its own.

use std::io::{self, BufRead};

use api::v1::RecordItem;
use cluster::limits;
use term::Surface;

use super::args::Format;

/// A longer line is bad and is skipped without being kept: a term, its display form and a count take less.
const LINE_BYTES_MAX: usize = 2 * limits::RAW_BYTES_MAX + 64;

/// An item with the number of its line, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) item: Result<RecordItem, BadLine>,
}

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("has more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("has no count (expected term<TAB>count)")]
    NoCount,
    #[error("has {0:?} as count, expected 1 to {max}", max = limits::RECORD_COUNT_MAX)]
    BadCount(String),
    #[error("has more than three columns")]
    TooManyColumns,
    #[error("has a display form that belongs to another term")]
    OtherDisplay,
    #[error("its term {0}")]
    BadTerm(#[from] term::TermError),
}

/// Reads lines one after another.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    format: Format,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, format: Format) -> Self {
        Self {
            input,
            format,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The next line that is not empty; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        while let Some(is_whole) = self.read()? {
            self.number += 1;
            if !is_whole {
                return Ok(Some(self.line(Err(BadLine::TooLong))));
            }
            let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let text = if self.number == 1 {
                text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
            } else {
                text
            };
            if text.is_empty() {
                continue;
            }
            let item = std::str::from_utf8(text)
                .map_err(|_| BadLine::NotUtf8)
                .and_then(|text| parse(text, self.format));
            return Ok(Some(self.line(item)));
        }
        Ok(None)
    }

    fn line(&self, item: Result<RecordItem, BadLine>) -> Line {
        Line {
            number: self.number,
            item,
        }
    }

    /// Reads a line into the buffer; false if it was too long, in which case its rest is skipped. `None` at the end.
    fn read(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let mut is_whole = true;
        let mut is_empty = true;
        loop {
            let ready = match self.input.fill_buf() {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if ready.is_empty() {
                return Ok((!is_empty).then_some(is_whole));
            }
            is_empty = false;
            let end = ready.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(ready.len(), |end| end + 1);
            is_whole &= self.buffer.len() + taken <= LINE_BYTES_MAX;
            if is_whole {
                self.buffer.extend(ready.iter().take(taken));
            }
            self.input.consume(taken);
            if end.is_some() {
                return Ok(Some(is_whole));
            }
        }
    }
}

fn parse(text: &str, format: Format) -> Result<RecordItem, BadLine> {
    let is_plain = match format {
        Format::Lines => true,
        Format::Tsv => false,
        Format::Auto => !text.contains('\t'),
    };
    if is_plain {
        Surface::parse(text)?;
        return Ok(RecordItem {
            term: text.to_owned(),
            count: 1,
        });
    }
    let mut columns = text.split('\t');
    let term = columns.next().unwrap_or_default();
    let count = columns.next().ok_or(BadLine::NoCount)?;
    let display = columns.next().filter(|display| !display.is_empty());
    if columns.next().is_some() {
        return Err(BadLine::TooManyColumns);
    }
    let key = Surface::parse(term)?;
    let count = parse_count(count).ok_or_else(|| BadLine::BadCount(shortened(count)))?;
    // A display form is a spelling of the same term, and recording it under this spelling is what brings it back.
    let term = match display {
        None => term,
        Some(display) if Surface::parse(display)?.term() == key.term() => display,
        Some(_) => return Err(BadLine::OtherDisplay),
    };
    Ok(RecordItem {
        term: term.to_owned(),
        count,
    })
}

fn parse_count(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = text.parse().ok()?;
    (1..=limits::RECORD_COUNT_MAX)
        .contains(&count)
        .then_some(count)
}

fn shortened(text: &str) -> String {
    text.chars().take(24).collect()
}

#[cfg(test)]
mod tests;
