//! The dictionary: what all its operations share.

mod delete;
mod drain;
mod invariants;
mod merge;
mod read;
mod record;

use crate::bucket::{Spot, common_prefix};
use crate::cursor::Cursor;
use crate::display::Display;
use crate::iter::Iter;
use crate::memory::MemoryUsage;
use crate::node::{Child, Node, Slots};
use crate::options::Options;

/// Terms with exact counts; see the [crate](crate) for an introduction.
///
/// **Clones** are made in constant time and are frozen views: nodes and buckets are shared, and a write
/// copies those on its path that somebody else holds, no others. While nobody holds a clone, writes
/// happen in place.
///
/// **Threads**: `Send` and `Sync`. Reads take `&self`; there are no locks inside.
///
/// **Empty** dictionaries own no memory beyond their own few words, so thousands of small ones are
/// cheap.
#[derive(Clone)]
pub struct Dictionary {
    options: Options,
    root: Child,
    len: u64,
    total: u128,
    memory: MemoryUsage,
    /// What [`Dictionary::drain_some`] has yet to free.
    draining: drain::Draining,
}

/// A term that was looked for.
#[derive(Debug, Clone, Copy)]
struct Located<'a> {
    /// Its count; 0 if it is absent.
    count: u64,
    display: Option<Display<'a>>,
    /// Its place in the bucket that is responsible, if it is one.
    spot: Option<Spot>,
}

impl Dictionary {
    /// An empty dictionary.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options: options.in_range(),
            root: Child::default(),
            len: 0,
            total: 0,
            memory: MemoryUsage::default(),
            draining: drain::Draining::default(),
        }
    }

    /// A dictionary of slots that stand for all first bytes. `memory` is what they weigh, `sums` the number of
    /// terms and the sum of counts.
    pub(crate) fn from_parts(
        options: Options,
        slots: Slots,
        memory: MemoryUsage,
        sums: (u64, u128),
    ) -> Self {
        let mut dict = Self {
            memory,
            len: sums.0,
            total: sums.1,
            ..Self::new(options)
        };
        dict.root = dict.join(slots);
        dict
    }

    /// One child of slots that stand for all first bytes.
    fn join(&mut self, mut slots: Slots) -> Child {
        if slots.len() > 1 {
            let mut node = Node::new(&[], slots);
            node.rebuild_top(self.options.cached_k);
            node.weigh(&mut self.memory);
            return Child::Node(node.into());
        }
        slots.pop().map(|(_, slot)| slot.child).unwrap_or_default()
    }

    /// The settings in use.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// Number of terms.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no term.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of all counts.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.total
    }

    /// Bytes held, kept up to date by every write.
    #[must_use]
    pub fn memory(&self) -> MemoryUsage {
        self.memory
    }

    /// The terms that start with `prefix` and come behind `after`, in ascending byte order.
    pub fn iter_from<'a>(&'a self, prefix: &[u8], after: Option<&[u8]>) -> Iter<'a> {
        let cursor = match after {
            Some(after) if after >= prefix => Cursor::behind(&self.root, after),
            Some(_) | None => Cursor::at(&self.root, prefix),
        };
        Iter::new(cursor, prefix)
    }

    /// All terms in ascending order, without copies.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor::at(&self.root, &[])
    }

    /// What is to be walked where the dictionary itself is not needed any more.
    pub(crate) fn into_root(self) -> Child {
        self.root
    }

    #[cfg(test)]
    pub(crate) fn root(&self) -> &Child {
        &self.root
    }

    fn locate(&self, term: &[u8]) -> Located<'_> {
        let absent = Located {
            count: 0,
            display: None,
            spot: None,
        };
        let mut child = &self.root;
        let mut rest = term;
        loop {
            match child {
                Child::Bucket(bucket) => {
                    let spot = bucket.find(rest);
                    let display = if spot.count > 0 {
                        bucket.entry_at(&spot).and_then(|entry| entry.display)
                    } else {
                        None
                    };
                    return Located {
                        count: spot.count,
                        display,
                        spot: Some(spot),
                    };
                }
                Child::Node(node) => {
                    let same = common_prefix(rest, node.label());
                    if same < node.label().len() {
                        return absent;
                    }
                    let below = &rest[same..];
                    let Some(&first) = below.first() else {
                        return match &node.terminal {
                            Some(terminal) => Located {
                                count: terminal.count,
                                display: terminal.display(),
                                spot: None,
                            },
                            None => absent,
                        };
                    };
                    let Some(i) = node.slot_of(first) else {
                        return absent;
                    };
                    child = &node.slots()[i].child;
                    rest = below;
                }
            }
        }
    }
}

// Thousands of small dictionaries stand side by side in a server.
const _: () = assert!(std::mem::size_of::<Dictionary>() <= 160);

impl Default for Dictionary {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary")
            .field("len", &self.len)
            .field("total", &self.total)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
