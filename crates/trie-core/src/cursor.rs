//! Walks over terms in ascending byte order, without copies.

use crate::bucket::{RawEntries, common_prefix};
use crate::display::Display;
use crate::node::{Child, Node};

/// A node that the walk is inside of.
struct Frame<'a> {
    node: &'a Node,
    /// Length of the path to the node.
    depth: usize,
    /// Whether the term that ends in the node is still to come.
    terminal_ahead: bool,
    /// The slot to be entered next.
    next_slot: usize,
}

/// A place between two terms, and the way on.
pub(crate) struct Cursor<'a> {
    /// The nodes on the path, the deepest last.
    frames: Vec<Frame<'a>>,
    /// The bucket that the walk is inside of, and the length of the path to it.
    run: Option<(RawEntries<'a>, usize)>,
    /// The last term, or the part of the path that is settled.
    key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// Before the first term that is `target` or greater.
    pub(crate) fn at(root: &'a Child, target: &[u8]) -> Self {
        Self::seek(root, target, true)
    }

    /// Before the first term that is greater than `target`.
    pub(crate) fn behind(root: &'a Child, target: &[u8]) -> Self {
        Self::seek(root, target, false)
    }

    fn seek(root: &'a Child, target: &[u8], inclusive: bool) -> Self {
        let mut cursor = Self {
            frames: Vec::new(),
            run: None,
            key: Vec::new(),
        };
        let mut child = root;
        loop {
            let depth = cursor.key.len();
            let rest = &target[depth..];
            match child {
                Child::Bucket(bucket) => {
                    let spot = bucket.find(rest);
                    let (mut entries, shared) = bucket.entries_from(&spot);
                    if spot.count > 0 && !inclusive {
                        entries.next();
                    }
                    // What follows shares no more with the target than this, or all of it.
                    let known = if spot.count > 0 { rest.len() } else { shared };
                    cursor.key.extend_from_slice(&rest[..known]);
                    cursor.run = Some((entries, depth));
                    return cursor;
                }
                Child::Node(node) => {
                    let same = common_prefix(rest, node.label());
                    if same < node.label().len() {
                        // All below is greater than the target, or all is smaller.
                        if same == rest.len() || node.label()[same] > rest[same] {
                            cursor.enter(node, true, 0);
                        }
                        return cursor;
                    }
                    let Some(&first) = rest.get(same) else {
                        cursor.enter(node, inclusive, 0);
                        return cursor;
                    };
                    let behind = node.firsts().partition_point(|&lowest| lowest <= first);
                    cursor.enter(node, false, behind);
                    let Some(slot) = node.slot_of(first) else {
                        return cursor;
                    };
                    child = &node.slots()[slot].child;
                }
            }
        }
    }

    /// Goes into a node whose parent the key ends with.
    fn enter(&mut self, node: &'a Node, terminal_ahead: bool, next_slot: usize) {
        self.key.extend_from_slice(node.label());
        self.frames.push(Frame {
            node,
            depth: self.key.len(),
            terminal_ahead,
            next_slot,
        });
    }

    /// The next term with its count and display form.
    pub(crate) fn next_coded(&mut self) -> Option<(&[u8], u64, Option<Display<'a>>)> {
        loop {
            if let Some((entries, depth)) = &mut self.run {
                if let Some(entry) = entries.next() {
                    self.key.truncate(*depth + entry.shared);
                    self.key.extend_from_slice(entry.suffix);
                    return Some((&self.key, entry.count, entry.display));
                }
                self.run = None;
            }
            let frame = self.frames.last_mut()?;
            self.key.truncate(frame.depth);
            if frame.terminal_ahead {
                frame.terminal_ahead = false;
                if let Some(terminal) = &frame.node.terminal {
                    return Some((&self.key, terminal.count, terminal.display()));
                }
            }
            match frame.node.slots().get(frame.next_slot) {
                Some(slot) => {
                    frame.next_slot += 1;
                    match &slot.child {
                        Child::Bucket(bucket) => self.run = Some((bucket.entries(), frame.depth)),
                        Child::Node(node) => self.enter(node, true, 0),
                    }
                }
                None => {
                    self.frames.pop();
                }
            }
        }
    }
}
