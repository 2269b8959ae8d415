//! A leaf: some terms side by side in one piece of memory.
//!
//! ```text
//! bucket = used: u32 little-endian    offset behind the last term
//!          term*                      in ascending order, see `raw`
//!          room to grow
//! ```
//!
//! The terms of a bucket lack what the path to it says already, and each lacks what it shares with
//! the one before. Always: the terms are strictly ascending, none is empty, none has a count of
//! zero. The memory is shared between clones of a dictionary: a bucket that somebody else holds is
//! copied when it is written. A bucket without terms owns no memory.

mod edit;
pub(crate) mod raw;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use raw::{RawEntries, RawEntry};
pub(crate) use writer::BucketWriter;

/// Bytes before the first term.
const HEADER_LEN: usize = 4;

/// Bytes that `Arc` keeps in front of what it holds: two reference counts.
pub(crate) const ARC_BYTES: usize = 16;

/// Terms side by side, in order.
#[derive(Clone, Default)]
pub(crate) struct Bucket {
    bytes: Arc<[u8]>,
}

#[cfg(test)]
impl Bucket {
    /// How many hold it.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.bytes)
    }
}

/// Where a term is in a bucket, or where it would be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    /// Offset of the term, or of the first one behind it.
    at: usize,
    /// Bytes that the term shares with the one before `at`.
    shared: usize,
    /// Bytes that the term shares with the one at `at`.
    next_shared: usize,
    /// Its count; 0 if it is not there.
    pub(crate) count: u64,
}

impl Bucket {
    /// Offset behind the last term.
    fn end(&self) -> usize {
        match self.bytes.first_chunk::<HEADER_LEN>() {
            Some(used) => u32::from_le_bytes(*used) as usize,
            None => 0,
        }
    }

    /// The header and the terms, without the room to grow.
    fn coded(&self) -> &[u8] {
        &self.bytes[..self.end()]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end() <= HEADER_LEN
    }

    /// Bytes of coded terms: what the size limit is about.
    pub(crate) fn used_bytes(&self) -> usize {
        self.end().saturating_sub(HEADER_LEN)
    }

    /// Bytes of memory, room to grow included.
    pub(crate) fn heap_bytes(&self) -> u64 {
        if self.bytes.is_empty() {
            0
        } else {
            (ARC_BYTES + self.bytes.len()) as u64
        }
    }

    /// All terms, in order.
    pub(crate) fn entries(&self) -> RawEntries<'_> {
        RawEntries::new(self.coded(), HEADER_LEN)
    }

    /// The term at a spot that was found.
    pub(crate) fn entry_at(&self, spot: &Spot) -> Option<RawEntry<'_>> {
        RawEntry::read(self.coded(), spot.at)
    }

    /// The terms from `spot` on, and how many bytes of the target that led to the spot stand for what the
    /// first of them shares with the term before it.
    pub(crate) fn entries_from(&self, spot: &Spot) -> (RawEntries<'_>, usize) {
        (RawEntries::new(self.coded(), spot.at), spot.shared)
    }

    /// Whether the term at `spot`, the place of `target`, begins with `target`.
    pub(crate) fn starts_with_at(&self, spot: &Spot, target: &[u8]) -> bool {
        spot.count > 0 || (spot.at < self.end() && spot.next_shared == target.len())
    }

    /// The highest count; 0 without terms.
    pub(crate) fn best(&self) -> u64 {
        self.entries().map(|entry| entry.count).max().unwrap_or(0)
    }

    /// Whether there are two terms or more.
    pub(crate) fn is_divisible(&self) -> bool {
        self.entries().nth(1).is_some()
    }

    /// Finds `target`, or the place where it belongs.
    ///
    /// Front coding makes this cheap: with `shared` the bytes that `target` shares with the term before,
    /// a term that shares more with that one is smaller than `target` too, one that shares less
    /// is greater, and only at equality are bytes compared.
    pub(crate) fn find(&self, target: &[u8]) -> Spot {
        let bytes = self.coded();
        let mut shared = 0;
        let mut at = HEADER_LEN.min(bytes.len());
        loop {
            if let Some(&next) = target.get(shared) {
                while let Some(behind) = raw::skip_smaller(bytes, at, shared, next) {
                    at = behind;
                }
            }
            let Some(entry) = RawEntry::read(bytes, at) else {
                break;
            };
            if entry.shared < shared {
                return Spot {
                    at,
                    shared,
                    next_shared: entry.shared,
                    count: 0,
                };
            }
            if entry.shared == shared {
                let rest = &target[shared..];
                let same = common_prefix(entry.suffix, rest);
                let here = Spot {
                    at,
                    shared,
                    next_shared: shared + same,
                    count: 0,
                };
                match (entry.suffix.get(same), rest.get(same)) {
                    (None, None) => {
                        return Spot {
                            count: entry.count,
                            ..here
                        };
                    }
                    (Some(_), None) => return here,
                    (Some(a), Some(b)) if a > b => return here,
                    (None | Some(_), Some(_)) => shared += same,
                }
            }
            at = entry.end;
        }
        Spot {
            at,
            shared,
            next_shared: 0,
            count: 0,
        }
    }
}

/// Number of bytes that `a` and `b` have in common at their beginnings.
#[inline]
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
