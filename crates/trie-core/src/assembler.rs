//! Makes a piece of trie from terms in ascending order.
//!
//! The terms come one by one and are met once. The assembler holds the path of nodes to the last
//! term; a node is closed, and its list made from its children, when a term leaves its path. The last bucket of
//! the deepest open node is being written. When it grows too large, it is cut before its last group
//! of one first byte, or, if there is one group only, becomes a node with that group's common
//! bytes as label. So nothing here recurses, and each term is copied a few times at most.
//!
//! Serves the bulk load of a whole dictionary and the division of a single bucket alike.

use std::sync::Arc;

use crate::bucket::{Bucket, BucketWriter};
use crate::display::Display;
use crate::memory::MemoryUsage;
use crate::node::{Child, Node, Slots, Terminal};
use crate::options::Options;

/// A node that is not complete.
#[derive(Default)]
struct Open {
    label: Box<[u8]>,
    terminal: Option<Box<Terminal>>,
    slots: Slots,
    /// Bytes on the way to the node, its label included.
    depth: usize,
}

/// See the module.
pub(crate) struct Assembler {
    options: Options,
    /// Size at which a bucket is cut if its last group leaves enough behind.
    cut_bytes: usize,
    /// The path of nodes to the last term. The first stands for whatever the piece will hang in.
    open: Vec<Open>,
    /// The last bucket of the last open node.
    bucket: BucketWriter,
    /// The first byte of that bucket's first term.
    bucket_first: u8,
    last: Vec<u8>,
    memory: MemoryUsage,
}

impl Assembler {
    /// For a bulk load: buckets are filled.
    pub(crate) fn full(options: Options) -> Self {
        Self::new(options, options.bucket_bytes)
    }

    /// For a bucket that is divided: what comes out has room to grow.
    pub(crate) fn relaxed(options: Options) -> Self {
        Self::new(options, options.bucket_bytes / 2)
    }

    fn new(options: Options, cut_bytes: usize) -> Self {
        Self {
            options,
            cut_bytes,
            open: vec![Open::default()],
            bucket: BucketWriter::new(),
            bucket_first: 0,
            last: Vec::new(),
            memory: MemoryUsage::default(),
        }
    }

    /// The last term.
    pub(crate) fn last(&self) -> &[u8] {
        &self.last
    }

    /// Adds a term, which must come after the last one and shares exactly `shared` bytes with it. Whoever pushes knows
    /// that number already.
    pub(crate) fn push(
        &mut self,
        term: &[u8],
        shared: usize,
        count: u64,
        display: Option<Display<'_>>,
    ) {
        self.close_below(shared);
        let depth = self.depth();
        if self.bucket.is_empty() {
            self.bucket_first = term[depth];
        }
        // The last term of a bucket that is not empty is the last term of all.
        let shared_here = if self.bucket.is_empty() {
            0
        } else {
            shared - depth
        };
        self.bucket
            .push(shared_here, &term[depth + shared_here..], count, display);
        self.last.truncate(shared);
        self.last.extend_from_slice(&term[shared..]);
        self.relieve();
    }

    /// The slots that hold all terms, and what they weigh.
    pub(crate) fn finish(mut self) -> (Slots, MemoryUsage) {
        self.close_below(0);
        self.seal_bucket();
        let slots = self.open.pop().map(|open| open.slots).unwrap_or_default();
        (slots, self.memory)
    }

    fn depth(&self) -> usize {
        self.open.last().map_or(0, |open| open.depth)
    }

    /// Closes the open nodes whose path is longer than `depth`.
    fn close_below(&mut self, depth: usize) {
        while self.depth() > depth {
            self.seal_bucket();
            let Some(open) = self.open.pop() else {
                return;
            };
            let mut label = &*open.label;
            let above = self.depth();
            if above < depth {
                // The next term leaves in the middle of the label.
                let (upper, lower) = label.split_at(depth - above);
                self.open.push(Open {
                    label: upper.into(),
                    depth,
                    ..Open::default()
                });
                label = lower;
            }
            let mut node = Node::new(label, open.slots);
            node.terminal = open.terminal;
            node.rebuild_top(self.options.cached_k);
            node.weigh(&mut self.memory);
            self.attach(label[0], Child::Node(Arc::new(node)));
        }
    }

    /// Cuts the bucket, or makes it a node, until it is no larger than allowed.
    fn relieve(&mut self) {
        let limit = self.options.bucket_bytes;
        while self.bucket.len() > 1 {
            let used = self.bucket.used_bytes();
            let before = self.bucket.bytes_before_group();
            if before > 0
                && (used > limit || (used > self.cut_bytes && before >= self.cut_bytes / 2))
            {
                let sealed = self.bucket.take_before_group();
                self.attach_bucket(sealed);
                self.bucket_first = self.last[self.depth()];
            } else if used > limit {
                self.bucket_to_node();
            } else {
                return;
            }
        }
    }

    /// Opens a node for what all terms of the bucket share; the bucket goes on below it.
    fn bucket_to_node(&mut self) {
        let label: Box<[u8]> = self.bucket.shared_by_all().into();
        let depth = self.depth() + label.len();
        let mut terminal = None;
        let mut below = BucketWriter::new();
        for (i, entry) in self.bucket.entries().enumerate() {
            let (shared, rest) = if i == 0 {
                (0, &entry.suffix[label.len()..])
            } else {
                (entry.shared - label.len(), entry.suffix)
            };
            if rest.is_empty() {
                let display = entry.display.map(|form| {
                    let mut code = Vec::new();
                    form.put_again(&mut code);
                    code.into_boxed_slice()
                });
                terminal = Some(Box::new(Terminal {
                    count: entry.count,
                    display,
                }));
                continue;
            }
            if below.is_empty() {
                self.bucket_first = rest[0];
            }
            below.push(shared, rest, entry.count, entry.display);
        }
        self.bucket = below;
        self.open.push(Open {
            label,
            terminal,
            slots: Slots::new(),
            depth,
        });
    }

    fn seal_bucket(&mut self) {
        if !self.bucket.is_empty() {
            let sealed = self.bucket.take();
            self.attach_bucket(sealed);
        }
    }

    fn attach_bucket(&mut self, bucket: Bucket) {
        self.memory.bucket_bytes += bucket.heap_bytes();
        self.attach(self.bucket_first, Child::Bucket(bucket));
    }

    fn attach(&mut self, first: u8, child: Child) {
        if let Some(open) = self.open.last_mut() {
            open.slots.push((first, child.into()));
        }
    }
}
