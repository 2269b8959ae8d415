//! The list of first-ranked terms that an inner node keeps ready.
//!
//! ```text
//! list = n: u16, count: u64 (n times, descending), body (n times)
//! body = varint(length of suffix * 2 + has a display form), suffix, display form
//! ```
//!
//! One piece of memory, exactly as long as needed. A suffix is what follows the node's path, empty for a term
//! that ends in the node. Always: entries stand in the order of [`compare`], suffixes differ, and the
//! list holds the first `cached_k` of all terms at or below its node, or all of them if there are fewer.
//! The list does not know `cached_k`; its owner says it with each change.

use std::ops::Range;

use crate::display::Display;
use crate::order::compare;
use crate::varint;

const LEN_BYTES: usize = 2;
const COUNT_BYTES: usize = 8;

/// First-ranked terms, in order.
#[derive(Clone, Default)]
pub(crate) struct TopList {
    bytes: Box<[u8]>,
    /// A rise to a count below this leaves the list as it is; 0 while that is not known. Most records pass most lists by
    /// it, without fetching them from memory. Counts only rise, so it stays true; what is deleted makes a new list.
    floor: u64,
}

/// An entry of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopEntry<'a> {
    pub(crate) count: u64,
    /// What follows the path of the node.
    pub(crate) suffix: &'a [u8],
    pub(crate) display: Option<Display<'a>>,
}

/// What a record does to a term: all that a list needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rise<'a> {
    /// The count before; 0 for a new term.
    pub(crate) old: u64,
    /// The count now; greater.
    pub(crate) new: u64,
    /// Code of the display form.
    pub(crate) display: Option<&'a [u8]>,
}

impl TopList {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        match self.bytes.first_chunk::<LEN_BYTES>() {
            Some(len) => usize::from(u16::from_le_bytes(*len)),
            None => 0,
        }
    }

    /// The highest count; 0 without entries.
    pub(crate) fn best(&self) -> u64 {
        if self.len() == 0 { 0 } else { self.count(0) }
    }

    /// Bytes of memory.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The entries, in order.
    pub(crate) fn entries(&self) -> TopEntries<'_> {
        let len = self.len();
        TopEntries {
            list: self,
            next: 0,
            len,
            body_at: bodies_at(len),
        }
    }

    fn count(&self, i: usize) -> u64 {
        let at = LEN_BYTES + i * COUNT_BYTES;
        let mut out = [0; COUNT_BYTES];
        out.copy_from_slice(&self.bytes[at..at + COUNT_BYTES]);
        u64::from_le_bytes(out)
    }

    fn set_count(&mut self, i: usize, count: u64) {
        let at = LEN_BYTES + i * COUNT_BYTES;
        self.bytes[at..at + COUNT_BYTES].copy_from_slice(&count.to_le_bytes());
    }

    /// Takes in that the term with `suffix` rose. `k` is the length the list may have.
    pub(crate) fn raise(&mut self, k: usize, suffix: &[u8], rise: &Rise<'_>) {
        if rise.new < self.floor {
            return;
        }
        let len = self.len();
        if len == k {
            self.floor = self.count(len - 1);
            if rise.new < self.floor {
                return;
            }
        }
        let mut place = None;
        let mut old = None;
        let mut entries = self.entries();
        for i in 0..len {
            let start = entries.body_at;
            let Some(entry) = entries.next() else { break };
            let body = start..entries.body_at;
            if place.is_none() && compare((rise.new, suffix), (entry.count, entry.suffix)).is_lt() {
                place = Some((i, start));
            }
            if entry.count == rise.old && entry.suffix == suffix {
                old = Some((i, body));
                break;
            }
        }
        match old {
            Some((i, body)) => {
                let (to, to_at) = place.unwrap_or((i, body.start));
                self.move_up(i, body, to, to_at, rise.new);
            }
            None => match place {
                Some((to, to_at)) => self.insert(k, to, to_at, suffix, rise),
                None if len < k => {
                    self.insert(k, len, self.bytes.len().max(bodies_at(0)), suffix, rise)
                }
                None => {}
            },
        }
    }

    /// Moves entry `from` up to place `to`, with a new count. All in place.
    fn move_up(&mut self, from: usize, body: Range<usize>, to: usize, to_at: usize, count: u64) {
        for i in (to..from).rev() {
            let moved = self.count(i);
            self.set_count(i + 1, moved);
        }
        self.set_count(to, count);
        if to < from {
            let body_len = body.len();
            self.bytes[to_at..body.end].rotate_right(body_len);
        }
    }

    /// Inserts an entry at place `to`, whose body is at `to_at`; the last entry goes if the list is full.
    fn insert(&mut self, k: usize, to: usize, to_at: usize, suffix: &[u8], rise: &Rise<'_>) {
        let len = self.len();
        let kept = len.min(k - 1);
        let kept_end = if kept == len {
            self.bytes.len()
        } else {
            self.last_body_at()
        };
        let body_len = 10 + suffix.len() + rise.display.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(self.bytes.len() + COUNT_BYTES + body_len);
        out.extend_from_slice(&(kept as u16 + 1).to_le_bytes());
        let old_counts = LEN_BYTES..LEN_BYTES + kept * COUNT_BYTES;
        let split = LEN_BYTES + to * COUNT_BYTES;
        if len > 0 {
            out.extend_from_slice(&self.bytes[old_counts.start..split]);
        }
        out.extend_from_slice(&rise.new.to_le_bytes());
        if len > 0 {
            out.extend_from_slice(&self.bytes[split..old_counts.end]);
            out.extend_from_slice(&self.bytes[bodies_at(len)..to_at]);
        }
        put_body(&mut out, [suffix, &[]], rise.display);
        if len > 0 && to_at < kept_end {
            out.extend_from_slice(&self.bytes[to_at..kept_end]);
        }
        self.bytes = out.into_boxed_slice();
    }

    fn last_body_at(&self) -> usize {
        let mut entries = self.entries();
        let mut at = entries.body_at;
        for _ in 0..self.len() {
            at = entries.body_at;
            entries.next();
        }
        at
    }

    /// Whether the term with this suffix and count is in the list.
    pub(crate) fn contains(&self, suffix: &[u8], count: u64) -> bool {
        self.entries()
            .any(|entry| entry.count == count && entry.suffix == suffix)
    }

    /// The list without the term with this suffix.
    pub(crate) fn without(&self, suffix: &[u8]) -> Self {
        Self::from_ranked(
            self.entries()
                .filter(|entry| entry.suffix != suffix)
                .map(|entry| (entry, [].as_slice())),
        )
    }

    /// The same terms, seen from a node whose path lacks `label`.
    pub(crate) fn prefixed(&self, label: &[u8]) -> Self {
        Self::from_ranked(self.entries().map(|entry| (entry, label)))
    }

    /// A list of entries that stand in order, each with bytes to put before its suffix.
    pub(crate) fn from_ranked<'a>(ranked: impl Iterator<Item = (TopEntry<'a>, &'a [u8])>) -> Self {
        let mut counts = Vec::new();
        let mut bodies = Vec::new();
        let mut display = Vec::new();
        for (entry, before) in ranked {
            counts.push(entry.count);
            display.clear();
            if let Some(form) = entry.display {
                form.put_again(&mut display);
            }
            put_body(
                &mut bodies,
                [before, entry.suffix],
                entry.display.map(|_| display.as_slice()),
            );
        }
        if counts.is_empty() {
            return Self::default();
        }
        let mut out = Vec::with_capacity(bodies_at(counts.len()) + bodies.len());
        out.extend_from_slice(&(counts.len() as u16).to_le_bytes());
        for count in counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&bodies);
        Self {
            bytes: out.into_boxed_slice(),
            floor: 0,
        }
    }
}

fn bodies_at(len: usize) -> usize {
    LEN_BYTES + len * COUNT_BYTES
}

fn put_body(out: &mut Vec<u8>, suffix: [&[u8]; 2], display: Option<&[u8]>) {
    let len = suffix[0].len() + suffix[1].len();
    varint::put(out, (len as u64) << 1 | u64::from(display.is_some()));
    out.extend_from_slice(suffix[0]);
    out.extend_from_slice(suffix[1]);
    out.extend_from_slice(display.unwrap_or(&[]));
}

/// The entries of a list, in order.
pub(crate) struct TopEntries<'a> {
    list: &'a TopList,
    next: usize,
    len: usize,
    /// Offset of the body of the next entry.
    body_at: usize,
}

impl<'a> Iterator for TopEntries<'a> {
    type Item = TopEntry<'a>;

    #[inline]
    fn next(&mut self) -> Option<TopEntry<'a>> {
        if self.next == self.len {
            return None;
        }
        let bytes = &self.list.bytes;
        let mut at = self.body_at;
        let head = varint::get(bytes, &mut at)?;
        let end = at + (head >> 1) as usize;
        let suffix = bytes.get(at..end)?;
        at = end;
        let display = if head & 1 == 1 {
            Some(Display::get(bytes, &mut at)?)
        } else {
            None
        };
        let count = self.list.count(self.next);
        self.body_at = at;
        self.next += 1;
        Some(TopEntry {
            count,
            suffix,
            display,
        })
    }
}
