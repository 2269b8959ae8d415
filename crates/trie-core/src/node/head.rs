//! What is read of a node to find the way through it: label and first bytes, side by side.
//!
//! In a large dictionary most nodes are not in the processor's cache, and a look-up is as fast as it touches few lines of it.
//! So the two stand in the node itself where they are short, as they are in all nodes but the first few levels: a term of ten
//! million passes eight nodes, six of which have at most [`INLINE_BYTES`] of both.

/// Label and first bytes together that need no memory of their own.
const INLINE_BYTES: usize = 29;

/// The label of a node, then the first byte of each slot in order.
#[derive(Clone)]
pub(super) enum Head {
    Inline {
        label_len: u8,
        len: u8,
        bytes: [u8; INLINE_BYTES],
    },
    Boxed {
        label_len: u32,
        bytes: Box<[u8]>,
    },
}

const _: () = assert!(size_of::<Head>() == 32);

impl Head {
    pub(super) fn new(label: &[u8], firsts: &[u8]) -> Self {
        let len = label.len() + firsts.len();
        if len <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..label.len()].copy_from_slice(label);
            bytes[label.len()..len].copy_from_slice(firsts);
            return Self::Inline {
                label_len: label.len() as u8,
                len: len as u8,
                bytes,
            };
        }
        Self::Boxed {
            // A label is part of a term, whose length is limited.
            label_len: label.len() as u32,
            bytes: [label, firsts].concat().into(),
        }
    }

    #[inline]
    pub(super) fn label(&self) -> &[u8] {
        match self {
            Self::Inline {
                label_len, bytes, ..
            } => &bytes[..usize::from(*label_len)],
            Self::Boxed { label_len, bytes } => &bytes[..*label_len as usize],
        }
    }

    #[inline]
    pub(super) fn firsts(&self) -> &[u8] {
        match self {
            Self::Inline {
                label_len,
                len,
                bytes,
            } => &bytes[usize::from(*label_len)..usize::from(*len)],
            Self::Boxed { label_len, bytes } => &bytes[*label_len as usize..],
        }
    }

    /// Replaces the first byte of slot `i`.
    pub(super) fn set_first(&mut self, i: usize, first: u8) {
        match self {
            Self::Inline {
                label_len, bytes, ..
            } => bytes[usize::from(*label_len) + i] = first,
            Self::Boxed { label_len, bytes } => bytes[*label_len as usize + i] = first,
        }
    }

    /// Bytes of memory beside the head itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Boxed { bytes, .. } => bytes.len(),
        }
    }
}
