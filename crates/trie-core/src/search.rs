//! Best-first search: the first `k` below a node, for a `k` that no list covers.
//!
//! A heap holds what could come next: pieces of trie, each with the highest count in it and a lower
//! bound of its terms, and buckets that were opened, each with the first of its terms that is left.
//! The one that ranks first by [`compare`] is taken. If it is a term, it is the next of the
//! answer, since everything else ranks behind, whatever is in it. If it is a piece, it is opened. Pieces whose
//! best count is too low are never opened, and of those with equal counts none further back in
//! byte order than the answer goes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::bucket::Bucket;
use crate::display::Display;
use crate::entry::Entry;
use crate::node::{Child, Node};
use crate::order::compare;

/// The first `k` terms at or below `node`, in order. `path` leads to the node, its label included.
pub(crate) fn best_first(node: &Node, path: Vec<u8>, k: usize) -> Vec<Entry> {
    let mut search = Search {
        heap: BinaryHeap::new(),
        floor: Floor::new(k),
    };
    search.open_node(node, path, 0);
    let mut answer = Vec::with_capacity(k.min(1_024));
    while answer.len() < k
        && let Some(Candidate {
            count,
            mut key,
            what,
        }) = search.heap.pop()
    {
        match what {
            What::Node(node) => {
                key.pop();
                key.extend_from_slice(node.label());
                search.open_node(node, key, count);
            }
            What::Bucket(bucket) => {
                key.pop();
                search.open_bucket(bucket, key, count);
            }
            What::Term { display, rest } => {
                let display = display.map(|display| display.of(&key));
                if let Some(opened) = rest {
                    let path = key[..opened.depth].to_vec();
                    search.push_opened(opened, path);
                }
                answer.push(Entry {
                    term: key,
                    count,
                    display,
                });
            }
        }
    }
    answer
}

/// A lower bound of the last count of the answer: the `k`-th highest count of terms that are known to be
/// there. What lies below it need not be looked at.
struct Floor {
    k: usize,
    /// The `k` highest counts of different terms, the lowest on top.
    highest: BinaryHeap<Reverse<u64>>,
}

impl Floor {
    fn new(k: usize) -> Self {
        Self {
            k,
            highest: BinaryHeap::new(),
        }
    }

    /// The bound; 0 as long as fewer than `k` terms are known.
    fn get(&self) -> u64 {
        match self.highest.peek() {
            Some(Reverse(lowest)) if self.highest.len() == self.k => *lowest,
            Some(_) | None => 0,
        }
    }

    /// Takes in the count of one more term.
    fn add(&mut self, count: u64) {
        if self.highest.len() < self.k {
            self.highest.push(Reverse(count));
        } else if count > self.get() {
            self.highest.pop();
            self.highest.push(Reverse(count));
        }
    }

    /// Takes in the best count of each part of a piece that is opened. The best of all was taken in with
    /// the piece: `known`.
    fn add_parts(&mut self, parts: impl Iterator<Item = u64>, known: u64) {
        let mut is_new = known == 0;
        for best in parts {
            if is_new || best != known {
                self.add(best);
            } else {
                is_new = true;
            }
        }
    }
}

struct Search<'a> {
    heap: BinaryHeap<Candidate<'a>>,
    floor: Floor,
}

impl<'a> Search<'a> {
    /// Puts the parts of a node on the heap. `known` is the best count in it, if that is in the floor already, else 0.
    fn open_node(&mut self, node: &'a Node, path: Vec<u8>, known: u64) {
        let own = node.terminal.iter().map(|terminal| terminal.count);
        self.floor
            .add_parts(node.slots().iter().map(|slot| slot.best).chain(own), known);
        let floor = self.floor.get();
        for (&first, slot) in node.firsts().iter().zip(node.slots()) {
            if slot.best < floor {
                continue;
            }
            let what = match &slot.child {
                Child::Node(node) => What::Node(node),
                Child::Bucket(bucket) => What::Bucket(bucket),
            };
            let key = [path.as_slice(), &[first]].concat();
            self.heap.push(Candidate {
                count: slot.best,
                key,
                what,
            });
        }
        if let Some(terminal) = &node.terminal {
            let what = What::Term {
                display: terminal.display(),
                rest: None,
            };
            self.heap.push(Candidate {
                count: terminal.count,
                key: path,
                what,
            });
        }
    }

    /// Puts the first term of a bucket on the heap, and with it the rest of the bucket.
    fn open_bucket(&mut self, bucket: &'a Bucket, path: Vec<u8>, known: u64) {
        self.floor
            .add_parts(bucket.entries().map(|entry| entry.count), known);
        let floor = self.floor.get();
        let left: Vec<(u64, Reverse<u32>)> = bucket
            .entries()
            .zip(0..)
            .filter(|(entry, _)| entry.count >= floor)
            .map(|(entry, place)| (entry.count, Reverse(place)))
            .collect();
        let opened = Opened {
            bucket,
            depth: path.len(),
            left: left.into(),
        };
        self.push_opened(opened, path);
    }

    /// Puts the next term of an opened bucket on the heap; `path` leads to the bucket.
    fn push_opened(&mut self, mut opened: Opened<'a>, path: Vec<u8>) {
        let Some((count, Reverse(place))) = opened.left.pop() else {
            return;
        };
        let mut key = path;
        for (entry, at) in opened.bucket.entries().zip(0..) {
            key.truncate(opened.depth + entry.shared);
            key.extend_from_slice(entry.suffix);
            if at == place {
                let rest = (!opened.left.is_empty()).then_some(opened);
                let what = What::Term {
                    display: entry.display,
                    rest,
                };
                self.heap.push(Candidate { count, key, what });
                return;
            }
        }
    }
}

/// Something the next term may come from.
struct Candidate<'a> {
    /// The highest count in it.
    count: u64,
    /// The term itself; of a piece a lower bound of its terms: the path to the parent and the first byte of the slot.
    key: Vec<u8>,
    what: What<'a>,
}

enum What<'a> {
    Node(&'a Node),
    Bucket(&'a Bucket),
    Term {
        display: Option<Display<'a>>,
        /// The bucket the term was taken from, if more is left in it.
        rest: Option<Opened<'a>>,
    },
}

/// A bucket and which of its terms are left that may come up. Only the next one's text is put together: most never come up.
struct Opened<'a> {
    bucket: &'a Bucket,
    /// Length of the path to the bucket.
    depth: usize,
    /// Counts and places in the bucket; an earlier place ranks first among equal counts.
    left: BinaryHeap<(u64, Reverse<u32>)>,
}

impl Ord for Candidate<'_> {
    /// The heap yields its greatest: the one that ranks first.
    fn cmp(&self, other: &Self) -> Ordering {
        compare((other.count, &other.key), (self.count, &self.key))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
