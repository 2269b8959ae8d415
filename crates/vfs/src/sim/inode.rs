//! One file of a simulated disk: what a process reads, what survives for certain, and all between.
//!
//! Every version of a block since the last sync is kept, for a crash may leave any of them. A failed sync forgets
//! them, so that what is read and what survives differ from then on.

use std::collections::BTreeMap;

use super::BLOCK_BYTES;

/// A file's content in both views, and what lies between them.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What a process reads.
    pub(super) data: Vec<u8>,
    /// What survives for certain.
    pub(super) durable: Vec<u8>,
    /// Versions of each block since the last sync, oldest first; each of [`BLOCK_BYTES`].
    pub(super) dirty: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Lengths since the last sync, oldest first.
    pub(super) lens: Vec<u64>,
}

impl std::fmt::Debug for Inode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Inode({} bytes, {} dirty blocks)",
            self.data.len(),
            self.dirty.len()
        )
    }
}

/// A simulated file fits memory; larger offsets are refused before they get here.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.data.len() as u64
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let rest = self.data.get(index(offset)..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.grow(end);
        if let Some(room) = self.data.get_mut(index(offset)..index(end)) {
            room.copy_from_slice(bytes);
        }
        for block in offset / BLOCK_BYTES..=(end - 1) / BLOCK_BYTES {
            self.remember(block);
        }
    }

    /// Grows with zeros to at least `len`.
    pub(super) fn grow(&mut self, len: u64) {
        if len > self.len() {
            self.data.resize(index(len), 0);
            self.lens.push(len);
        }
    }

    pub(super) fn truncate(&mut self, len: u64) {
        if len > self.len() {
            return self.grow(len);
        }
        if len == self.len() {
            return;
        }
        self.data.truncate(index(len));
        self.lens.push(len);
        self.dirty
            .retain(|block, _| *block * BLOCK_BYTES < len.next_multiple_of(BLOCK_BYTES));
        if !len.is_multiple_of(BLOCK_BYTES) {
            self.remember(len / BLOCK_BYTES);
        }
    }

    /// Takes the present content of a block as its newest version.
    fn remember(&mut self, block: u64) {
        let content = block_of(&self.data, block);
        self.dirty.entry(block).or_default().push(content);
    }

    /// A sync that worked: what the cache holds dirty becomes durable.
    pub(super) fn sync(&mut self) {
        self.durable.resize(self.data.len(), 0);
        for block in std::mem::take(&mut self.dirty).into_keys() {
            let content = block_of(&self.data, block);
            put_block(&mut self.durable, block, &content);
        }
        self.lens.clear();
    }

    /// A sync that failed: the pages are marked clean and were not written.
    pub(super) fn forget_dirty(&mut self) {
        self.dirty.clear();
        self.lens.clear();
    }

    /// Makes both views equal.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.data);
        self.dirty.clear();
        self.lens.clear();
    }
}

/// A block's content, filled with zeros behind the end.
pub(super) fn block_of(bytes: &[u8], block: u64) -> Vec<u8> {
    let start = index(block * BLOCK_BYTES).min(bytes.len());
    let end = index((block + 1) * BLOCK_BYTES).min(bytes.len());
    let mut content = bytes.get(start..end).unwrap_or_default().to_vec();
    content.resize(index(BLOCK_BYTES), 0);
    content
}

/// Writes a block as far as the file reaches.
pub(super) fn put_block(bytes: &mut [u8], block: u64, content: &[u8]) {
    let start = index(block * BLOCK_BYTES);
    let end = index((block + 1) * BLOCK_BYTES).min(bytes.len());
    if let Some(room) = bytes.get_mut(start..end) {
        let len = room.len();
        room.copy_from_slice(content.get(..len).unwrap_or_default());
    }
}
