//! Inner nodes of the trie.
//!
//! A node stands for the bytes on the way to it: the labels of the nodes above and its own. Its
//! children stand in slots that are ordered by first byte. A slot with a node belongs to one first byte; a slot
//! with a bucket belongs to all from its own up to that of the next slot.
//!
//! Always:
//! - only the root's label may be empty, and a node's label begins with the first byte of its slot;
//! - the first bytes of slots ascend, and no bucket in a slot is empty;
//! - `best` of a slot is the highest count at or below its child;
//! - `top` is the exact list of the first `cached_k` terms at or below the node.
//!
//! Nodes are shared between clones of a dictionary and copied when one of them is written. A node may lie as
//! deep as a term has bytes, so nothing here recurses, not even the release of memory.

mod head;

use std::mem::size_of;
use std::sync::Arc;

use crate::bucket::{ARC_BYTES, Bucket};
use crate::display::Display;
use crate::memory::MemoryUsage;
use crate::ranking::Ranking;
use crate::top_list::TopList;
use head::Head;

/// What hangs in a slot: more nodes, or terms.
#[derive(Clone)]
pub(crate) enum Child {
    Node(Arc<Node>),
    Bucket(Bucket),
}

// A child costs two words, whichever it is.
const _: () = assert!(size_of::<Child>() == 2 * size_of::<usize>());

impl Default for Child {
    fn default() -> Self {
        Self::Bucket(Bucket::default())
    }
}

impl Child {
    /// The highest count at or below.
    pub(crate) fn best(&self) -> u64 {
        match self {
            Self::Node(node) => node.top.best(),
            Self::Bucket(bucket) => bucket.best(),
        }
    }

    /// Whether there is no term.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Node(_) => false,
            Self::Bucket(bucket) => bucket.is_empty(),
        }
    }
}

/// A child and what its parent needs to know of it.
#[derive(Clone)]
pub(crate) struct Slot {
    /// The highest count at or below the child.
    pub(crate) best: u64,
    pub(crate) child: Child,
}

impl From<Child> for Slot {
    fn from(child: Child) -> Self {
        Self {
            best: child.best(),
            child,
        }
    }
}

/// Slots, each with the lowest first byte that belongs to it, in ascending order.
pub(crate) type Slots = Vec<(u8, Slot)>;

/// The term that ends in a node.
#[derive(Clone)]
pub(crate) struct Terminal {
    pub(crate) count: u64,
    /// Code of the display form.
    pub(crate) display: Option<Box<[u8]>>,
}

impl Terminal {
    pub(crate) fn display(&self) -> Option<Display<'_>> {
        Display::get(self.display.as_deref()?, &mut 0)
    }
}

/// An inner node. The fields stand in the order in which a look-up reads them: head and slots share a line of the
/// processor's cache with the reference counts.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Node {
    head: Head,
    /// The children. Their first bytes are in the head, so their number is changed through the node only.
    slots: Box<[Slot]>,
    pub(crate) top: TopList,
    /// The term that ends here.
    pub(crate) terminal: Option<Box<Terminal>>,
}

impl Node {
    /// A node without a term of its own; its list is still to be made.
    pub(crate) fn new(label: &[u8], slots: Slots) -> Self {
        let firsts: Vec<u8> = slots.iter().map(|(first, _)| *first).collect();
        Self {
            head: Head::new(label, &firsts),
            terminal: None,
            slots: slots.into_iter().map(|(_, slot)| slot).collect(),
            top: TopList::default(),
        }
    }

    /// The bytes from the parent's path to this one.
    #[inline]
    pub(crate) fn label(&self) -> &[u8] {
        self.head.label()
    }

    pub(crate) fn set_label(&mut self, label: &[u8]) {
        self.head = Head::new(label, self.head.firsts());
    }

    /// The lowest first byte of each slot.
    #[inline]
    pub(crate) fn firsts(&self) -> &[u8] {
        self.head.firsts()
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Takes all slots out; the node is of no more use.
    pub(crate) fn take_slots(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.slots).into_vec()
    }

    /// Puts `by` in the place of slots `from..to`.
    pub(crate) fn replace_slots(&mut self, from: usize, to: usize, by: Slots) {
        let mut firsts = self.firsts().to_vec();
        firsts.splice(from..to, by.iter().map(|(first, _)| *first));
        self.head = Head::new(self.label(), &firsts);
        let mut slots = self.take_slots();
        slots.reserve_exact(by.len().saturating_sub(to - from));
        slots.splice(from..to, by.into_iter().map(|(_, slot)| slot));
        self.slots = slots.into_boxed_slice();
    }

    /// The slot that `first` belongs to.
    #[inline]
    pub(crate) fn slot_of(&self, first: u8) -> Option<usize> {
        let firsts = self.firsts();
        let i = firsts
            .partition_point(|&lowest| lowest <= first)
            .checked_sub(1)?;
        match self.slots[i].child {
            Child::Node(_) if firsts[i] != first => None,
            Child::Node(_) | Child::Bucket(_) => Some(i),
        }
    }

    /// The slot that `first` belongs to; if there is none yet, the bucket on the right takes it on, or a new one.
    pub(crate) fn slot_of_or_new(&mut self, first: u8) -> usize {
        if let Some(i) = self.slot_of(first) {
            return i;
        }
        let i = self.firsts().partition_point(|&lowest| lowest <= first);
        if let Some(Slot {
            child: Child::Bucket(_),
            ..
        }) = self.slots.get(i)
        {
            self.head.set_first(i, first);
        } else {
            self.replace_slots(
                i,
                i,
                vec![(
                    first,
                    Slot {
                        best: 0,
                        child: Child::default(),
                    },
                )],
            );
        }
        i
    }

    /// Works the list out anew from the children, whose own lists must be right.
    pub(crate) fn rebuild_top(&mut self, k: usize) {
        let mut ranking = Ranking::new(k);
        if let Some(terminal) = &self.terminal {
            ranking.offer(&[], &[], terminal.count, terminal.display());
        }
        let mut by_best: Vec<(u8, &Slot)> =
            self.firsts().iter().copied().zip(&*self.slots).collect();
        by_best.sort_unstable_by(|a, b| b.1.best.cmp(&a.1.best).then(a.0.cmp(&b.0)));
        let mut suffix = Vec::new();
        for (first, slot) in by_best {
            // No term below the slot comes before its first byte alone.
            if !ranking.would_keep(slot.best, &[first]) {
                break;
            }
            match &slot.child {
                Child::Node(node) => {
                    for entry in node.top.entries() {
                        ranking.offer(node.label(), entry.suffix, entry.count, entry.display);
                    }
                }
                Child::Bucket(bucket) => {
                    for entry in bucket.entries() {
                        suffix.truncate(entry.shared);
                        suffix.extend_from_slice(entry.suffix);
                        ranking.offer(&[], &suffix, entry.count, entry.display);
                    }
                }
            }
        }
        self.top = ranking.to_list();
    }

    /// Bytes of the children's table: what changes with their number.
    pub(crate) fn table_bytes(&self) -> usize {
        self.head.heap_bytes() + self.slots.len() * size_of::<Slot>()
    }

    /// Adds what the node itself takes, without its children.
    pub(crate) fn weigh(&self, memory: &mut MemoryUsage) {
        let terminal = self.terminal.as_ref().map_or(0, |terminal| {
            size_of::<Terminal>() + terminal.display.as_ref().map_or(0, |display| display.len())
        });
        let own = ARC_BYTES + size_of::<Self>() + self.table_bytes() + terminal;
        memory.node_bytes += own as u64;
        memory.cached_list_bytes += self.top.heap_bytes();
    }

    /// Takes off what [`Node::weigh`] adds.
    pub(crate) fn unweigh(&self, memory: &mut MemoryUsage) {
        let mut own = MemoryUsage::default();
        self.weigh(&mut own);
        memory.node_bytes -= own.node_bytes;
        memory.cached_list_bytes -= own.cached_list_bytes;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut slots = self.take_slots();
        while let Some(slot) = slots.pop() {
            if let Child::Node(node) = slot.child
                && let Some(mut node) = Arc::into_inner(node)
            {
                slots.append(&mut node.take_slots());
            }
        }
    }
}
