//! The code of a term inside a bucket.
//!
//! ```text
//! term  = head: u8           high half: bytes shared with the term before; low half: length of the rest;
//!                            15 in a half: a varint of the value less 15 follows (shared first)
//!         rest: bytes        at least one
//!         count              first byte: bit 7 "a varint of count >> 6 follows", bit 6 "has a display form",
//!                            bits 0..6 the low bits of the count
//!         display form       if there is one, see `display`
//! ```
//!
//! A short term with a small count costs two bytes more than the rest of its text.

use crate::display::Display;
use crate::varint;

/// A half of the head that says "more follows".
const ESCAPE: usize = 15;

const COUNT_MORE: u8 = 0x80;
const COUNT_DISPLAY: u8 = 0x40;
const COUNT_LOW: u8 = 0x3f;
const COUNT_LOW_BITS: u32 = 6;

/// A term as it stands in a bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawEntry<'a> {
    /// Bytes shared with the term before.
    pub(crate) shared: usize,
    /// What follows the shared bytes.
    pub(crate) suffix: &'a [u8],
    /// The count.
    pub(crate) count: u64,
    /// The display form.
    pub(crate) display: Option<Display<'a>>,
    /// Offset of the code of the count.
    pub(crate) count_at: usize,
    /// Offset behind the code of the count.
    pub(crate) count_end: usize,
    /// Offset behind the term.
    pub(crate) end: usize,
}

impl<'a> RawEntry<'a> {
    /// Reads the term at offset `at`; `None` at the end.
    #[inline]
    pub(crate) fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let head = *bytes.get(at)?;
        let mut at = at + 1;
        let mut shared = usize::from(head >> 4);
        if shared == ESCAPE {
            shared += varint::get(bytes, &mut at)? as usize;
        }
        let mut len = usize::from(head & 0xf);
        if len == ESCAPE {
            len += varint::get(bytes, &mut at)? as usize;
        }
        let count_at = at + len;
        let suffix = bytes.get(at..count_at)?;
        let first = *bytes.get(count_at)?;
        let mut end = count_at + 1;
        let mut count = u64::from(first & COUNT_LOW);
        if first & COUNT_MORE != 0 {
            count |= varint::get(bytes, &mut end)? << COUNT_LOW_BITS;
        }
        let count_end = end;
        let display = if first & COUNT_DISPLAY == 0 {
            None
        } else {
            Some(Display::get(bytes, &mut end)?)
        };
        Some(Self {
            shared,
            suffix,
            count,
            display,
            count_at,
            count_end,
            end,
        })
    }
}

/// Offset behind the term at `at` if its first bytes alone say that it comes before a target which shares `shared` bytes
/// with the term before it, and goes on with `next`. `None` if they do not.
///
/// This is all that a search reads of most terms it passes. To read them whole took a third of the time of a look-up.
#[inline]
pub(super) fn skip_smaller(bytes: &[u8], at: usize, shared: usize, next: u8) -> Option<usize> {
    let head = *bytes.get(at)?;
    let (own_shared, mut len) = (usize::from(head >> 4), usize::from(head & 0xf));
    let mut text_at = at + 1;
    if own_shared == ESCAPE {
        return None;
    }
    if len == ESCAPE {
        let more = *bytes.get(text_at)?;
        if more >= 0x80 {
            return None;
        }
        len += usize::from(more);
        text_at += 1;
    }
    // One byte is cheaper fetched in vain than asked for: whether terms are skipped by the first or the second of these is
    // what no processor can guess.
    let is_smaller =
        (own_shared > shared) | ((own_shared == shared) & (*bytes.get(text_at)? < next));
    let count_at = text_at + len;
    let is_plain = *bytes.get(count_at)? & (COUNT_MORE | COUNT_DISPLAY) == 0;
    (is_smaller & is_plain).then_some(count_at + 1)
}

/// Appends the head and the rest of a term, in two parts.
pub(crate) fn put_head(out: &mut Vec<u8>, shared: usize, rest: [&[u8]; 2]) {
    let len = rest[0].len() + rest[1].len();
    out.push((shared.min(ESCAPE) << 4 | len.min(ESCAPE)) as u8);
    if shared >= ESCAPE {
        varint::put(out, (shared - ESCAPE) as u64);
    }
    if len >= ESCAPE {
        varint::put(out, (len - ESCAPE) as u64);
    }
    out.extend_from_slice(rest[0]);
    out.extend_from_slice(rest[1]);
}

/// Appends a count.
pub(crate) fn put_count(out: &mut Vec<u8>, count: u64, has_display: bool) {
    let mut first = count as u8 & COUNT_LOW;
    if has_display {
        first |= COUNT_DISPLAY;
    }
    let more = count >> COUNT_LOW_BITS;
    if more == 0 {
        out.push(first);
    } else {
        out.push(first | COUNT_MORE);
        varint::put(out, more);
    }
}

/// The terms of a bucket from an offset on.
#[derive(Debug, Clone)]
pub(crate) struct RawEntries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> RawEntries<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }
}

impl<'a> Iterator for RawEntries<'a> {
    type Item = RawEntry<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawEntry<'a>> {
        let entry = RawEntry::read(self.bytes, self.at)?;
        self.at = entry.end;
        Some(entry)
    }
}
