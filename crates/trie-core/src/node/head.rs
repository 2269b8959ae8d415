//! What is read of a node to find the way through it: label and first bytes, side by side.
//!
//! In a large dictionary most nodes are not in the processor's cache. Kept together, the two cost
//! one or two lines of it, where a search among the slots themselves would touch several.

/// The label of a node, then the first byte of each slot in order.
#[derive(Clone, Default)]
pub(super) struct Head {
    bytes: Box<[u8]>,
    label_len: u32,
}

impl Head {
    pub(super) fn new(label: &[u8], firsts: impl Iterator<Item = u8>) -> Self {
        let mut bytes = label.to_vec();
        bytes.extend(firsts);
        // A label is part of a term, whose length is limited.
        Self {
            bytes: bytes.into(),
            label_len: label.len() as u32,
        }
    }

    #[inline]
    pub(super) fn label(&self) -> &[u8] {
        &self.bytes[..self.label_len as usize]
    }

    #[inline]
    pub(super) fn firsts(&self) -> &[u8] {
        &self.bytes[self.label_len as usize..]
    }

    /// Replaces the first byte of slot `i`.
    pub(super) fn set_first(&mut self, i: usize, first: u8) {
        self.bytes[self.label_len as usize + i] = first;
    }

    /// Bytes of memory.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.len()
    }
}
