//! Freeing a large dictionary in small steps.

use std::sync::Arc;

use super::Dictionary;
use crate::memory::MemoryUsage;
use crate::node::Child;

/// Bytes of a bucket that count as one term.
const BYTES_PER_TERM: usize = 16;

/// Pieces of trie that are to be freed. A clone of a dictionary does not take part in that.
#[derive(Default)]
pub(super) struct Draining(Vec<Child>);

impl Clone for Draining {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Dictionary {
    /// Frees a dictionary that is no longer needed piece by piece, about `terms` terms a call (at least one piece), so
    /// that no call takes long. True once nothing is left to free.
    ///
    /// The dictionary is empty from the first call on. Pieces that a clone still holds are left to it.
    pub fn drain_some(&mut self, terms: usize) -> bool {
        if !self.is_empty() {
            let root = std::mem::take(&mut self.root);
            self.draining.0.push(root);
            self.len = 0;
            self.total = 0;
            self.memory = MemoryUsage::default();
        }
        let pieces = &mut self.draining.0;
        let mut left = terms;
        loop {
            let freed = match pieces.pop() {
                None => break,
                Some(Child::Bucket(bucket)) => bucket.used_bytes() / BYTES_PER_TERM,
                Some(Child::Node(node)) => match Arc::into_inner(node) {
                    Some(mut node) => {
                        let slots = node.take_slots();
                        pieces.extend(slots.into_iter().map(|slot| slot.child));
                        node.top.len()
                    }
                    None => 0,
                },
            };
            left = left.saturating_sub(freed + 1);
            if left == 0 {
                break;
            }
        }
        if pieces.is_empty() {
            *pieces = Vec::new();
        }
        pieces.is_empty()
    }
}
