//! Deleting: lists refill, and what becomes small is joined.
//!
//! The nodes on the path are taken out of their slots on the way down and put back on the way up, so
//! each is complete again before the one above looks at it: a list that loses an entry is made anew
//! from the children, whose lists are right by then.

use std::sync::Arc;

use super::Dictionary;
use crate::bucket::{Bucket, BucketWriter};
use crate::memory::MemoryUsage;
use crate::node::{Child, Node, Slot, Slots, Terminal};
use crate::options::Options;

/// A node on the path whose child at `slot` is taken out.
struct Step {
    node: Arc<Node>,
    slot: usize,
    /// Bytes on the way to the node, its label included.
    depth: usize,
}

impl Dictionary {
    /// Removes `term` with its count and display form. Returns the count it had, 0 if it was absent.
    pub fn delete(&mut self, term: &[u8]) -> u64 {
        let found = self.locate(term);
        let (count, spot) = (found.count, found.spot);
        if count == 0 {
            return 0;
        }
        let display_len = found
            .display
            .map_or(0, |display| display.len_for(term.len()));
        self.len -= 1;
        self.total -= u128::from(count);
        self.memory.text_bytes -= term.len() as u64;
        self.memory.display_bytes -= display_len as u64;

        let gone = Gone {
            term,
            count,
            options: self.options,
        };
        let memory = &mut self.memory;
        let mut path: Vec<Step> = Vec::new();
        let mut child = std::mem::take(&mut self.root);
        let mut depth = 0;
        loop {
            match &mut child {
                Child::Bucket(bucket) => {
                    memory.bucket_bytes -= bucket.heap_bytes();
                    let spot = spot.unwrap_or_else(|| bucket.find(&term[depth..]));
                    bucket.remove(&spot);
                    memory.bucket_bytes += bucket.heap_bytes();
                    break;
                }
                Child::Node(shared) => {
                    let node = Arc::make_mut(shared);
                    depth += node.label().len();
                    let slot = term.get(depth).and_then(|&first| node.slot_of(first));
                    let Some(slot) = slot else {
                        node.unweigh(memory);
                        node.terminal = None;
                        node.weigh(memory);
                        child = gone.settle(child, depth, memory);
                        break;
                    };
                    let below = std::mem::take(&mut node.slots_mut()[slot].child);
                    let Child::Node(node) = std::mem::replace(&mut child, below) else {
                        break;
                    };
                    path.push(Step { node, slot, depth });
                }
            }
        }
        while let Some(step) = path.pop() {
            child = gone.put_back(step, child, memory);
        }
        self.root = child;
        count
    }
}

/// The term that goes, and what else each node on its path needs to know.
struct Gone<'a> {
    term: &'a [u8],
    count: u64,
    options: Options,
}

impl Gone<'_> {
    /// Size up to which buckets are joined: half of what makes one be divided, so that writes around
    /// the limit do not divide and join in turn.
    fn join_bytes(&self) -> usize {
        self.options.bucket_bytes / 2
    }

    /// Puts the changed child back into its slot, sets the node right, and returns what stands in its place now.
    fn put_back(&self, step: Step, below: Child, memory: &mut MemoryUsage) -> Child {
        let Step {
            mut node,
            slot,
            depth,
        } = step;
        let own = Arc::make_mut(&mut node);
        own.unweigh(memory);
        if below.is_empty() {
            own.replace_slots(slot, slot + 1, Slots::new());
        } else {
            let place = &mut own.slots_mut()[slot];
            place.child = below;
            if place.best == self.count {
                place.best = place.child.best();
            }
            self.join_neighbours(own, slot, memory);
        }
        own.weigh(memory);
        self.settle(Child::Node(node), depth, memory)
    }

    /// Joins the bucket in `slot` with the one on its left or right if both are small.
    fn join_neighbours(&self, node: &mut Node, slot: usize, memory: &mut MemoryUsage) {
        for left in [Some(slot), slot.checked_sub(1)].into_iter().flatten() {
            let Some([a, b]) = node.slots().get(left..left + 2) else {
                continue;
            };
            let (Child::Bucket(one), Child::Bucket(two)) = (&a.child, &b.child) else {
                continue;
            };
            if one.used_bytes() + two.used_bytes() > self.join_bytes() {
                continue;
            }
            memory.bucket_bytes -= one.heap_bytes() + two.heap_bytes();
            let mut writer = BucketWriter::new();
            copy_into(&mut writer, one, &[]);
            copy_into(&mut writer, two, &[]);
            let joined = writer.take();
            memory.bucket_bytes += joined.heap_bytes();
            let best = a.best.max(b.best);
            let first = node.firsts()[left];
            let child = Child::Bucket(joined);
            node.replace_slots(left, left + 2, vec![(first, Slot { best, child })]);
        }
    }

    /// Refills the list of a node whose children are right again, and replaces a node that is no longer
    /// worth being one.
    fn settle(&self, child: Child, depth: usize, memory: &mut MemoryUsage) -> Child {
        let Child::Node(mut shared) = child else {
            return child;
        };
        let k = self.options.cached_k;
        let node = Arc::make_mut(&mut shared);
        node.unweigh(memory);
        let suffix = &self.term[depth..];
        if node.top.contains(suffix, self.count) {
            if node.top.len() < k {
                node.top = node.top.without(suffix);
            } else {
                node.rebuild_top(k);
            }
        }
        if let Some(replacement) = self.replacement(node, memory) {
            return replacement;
        }
        node.weigh(memory);
        Child::Node(shared)
    }

    /// What stands in for a node that is no longer worth being one.
    fn replacement(&self, node: &Node, memory: &mut MemoryUsage) -> Option<Child> {
        match (node.slots(), &node.terminal) {
            ([], _) => Some(self.to_bucket(node, None, memory)),
            (
                [
                    Slot {
                        child: Child::Bucket(bucket),
                        ..
                    },
                ],
                terminal,
            ) => {
                let size = bucket.used_bytes() + prefix_bytes(node.label(), terminal);
                (size <= self.join_bytes()).then(|| self.to_bucket(node, Some(bucket), memory))
            }
            (
                [
                    Slot {
                        child: Child::Node(only),
                        ..
                    },
                ],
                None,
            ) => {
                // The node below takes over the label; its list holds what it held.
                let mut lower = Node::clone(only);
                lower.unweigh(memory);
                lower.set_label(&[node.label(), lower.label()].concat());
                lower.weigh(memory);
                Some(Child::Node(Arc::new(lower)))
            }
            (_, _) => None,
        }
    }

    /// One bucket of the term that ends in `node` and those of its only bucket.
    fn to_bucket(&self, node: &Node, below: Option<&Bucket>, memory: &mut MemoryUsage) -> Child {
        let mut writer = BucketWriter::new();
        if let Some(terminal) = &node.terminal {
            writer.push(0, node.label(), terminal.count, terminal.display());
        }
        if let Some(bucket) = below {
            memory.bucket_bytes -= bucket.heap_bytes();
            copy_into(&mut writer, bucket, node.label());
        }
        let bucket = writer.take();
        memory.bucket_bytes += bucket.heap_bytes();
        Child::Bucket(bucket)
    }
}

/// At most what a bucket grows by when it takes over the label and the term of the node above it.
fn prefix_bytes(label: &[u8], terminal: &Option<Box<Terminal>>) -> usize {
    /// Head and count at their longest.
    const CODES_BYTES: usize = 16;
    let own = terminal.as_ref().map_or(0, |terminal| {
        CODES_BYTES + label.len() + terminal.display.as_ref().map_or(0, |code| code.len())
    });
    label.len() + own
}

/// Appends the terms of `bucket`, each behind `label`.
fn copy_into(writer: &mut BucketWriter, bucket: &Bucket, label: &[u8]) {
    let mut entries = bucket.entries();
    // Before the first term stands the one that is the label, or one of another first byte.
    if let Some(first) = entries.next() {
        if writer.is_empty() {
            let term = [label, first.suffix].concat();
            writer.push(0, &term, first.count, first.display);
        } else {
            writer.push(label.len(), first.suffix, first.count, first.display);
        }
    }
    for entry in entries {
        let shared = label.len() + entry.shared;
        writer.push(shared, entry.suffix, entry.count, entry.display);
    }
}
