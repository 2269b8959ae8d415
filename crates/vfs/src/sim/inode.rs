//! One file of a simulated disk: what a process reads, what survives for certain, and all between.
//!
//! Every version of a block since the last sync is kept, for a crash may leave any of them. A failed sync forgets
//! them, so that what is read and what survives differ from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{
    BLOCK_BYTES,
    content::{Content, index},
    disk::input_output_error,
};

/// A file's content in both views, and what lies between them.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What a process reads.
    pub(super) data: Content,
    /// What survives for certain.
    pub(super) durable: Content,
    /// Versions of each block since the last sync, oldest first; each of [`BLOCK_BYTES`].
    pub(super) dirty: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Lengths since the last sync, oldest first.
    pub(super) lens: Vec<u64>,
    /// Blocks that the disk does not give back.
    pub(super) unreadable: BTreeSet<u64>,
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

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.data.len()
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.data.read(buf, offset)
    }

    /// How many of so many bytes from an offset come before one that the disk does not give back; an error where that is none.
    pub(super) fn sound_bytes(&self, offset: u64, count: usize) -> io::Result<usize> {
        let mut bad = self.unreadable.range(offset / BLOCK_BYTES..);
        let Some(block) = bad.next() else {
            return Ok(count);
        };
        let sound = index((block * BLOCK_BYTES).saturating_sub(offset));
        if sound == 0 && count > 0 {
            return Err(input_output_error());
        }
        Ok(count.min(sound))
    }

    /// Makes blocks good that are written whole. One that is written in part would have to be read for that, which fails.
    pub(super) fn write_over(&mut self, offset: u64, count: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let end = offset + count as u64;
        let touched = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        let len = self.len();
        let is_whole = |block: u64| {
            let start = block * BLOCK_BYTES;
            offset <= start && end >= (start + BLOCK_BYTES).min(len)
        };
        if !self
            .unreadable
            .range(touched.clone())
            .all(|block| is_whole(*block))
        {
            return Err(input_output_error());
        }
        self.unreadable.retain(|block| !touched.contains(block));
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.grow(end);
        self.data.write(bytes, offset);
        for block in offset / BLOCK_BYTES..=(end - 1) / BLOCK_BYTES {
            self.remember(block);
        }
    }

    /// Grows with zeros to at least `len`.
    pub(super) fn grow(&mut self, len: u64) {
        if len > self.len() {
            self.data.resize(len);
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
        self.data.resize(len);
        self.lens.push(len);
        self.unreadable
            .retain(|block| *block < len.div_ceil(BLOCK_BYTES));
        self.dirty
            .retain(|block, _| *block * BLOCK_BYTES < len.next_multiple_of(BLOCK_BYTES));
        if !len.is_multiple_of(BLOCK_BYTES) {
            self.remember(len / BLOCK_BYTES);
        }
    }

    /// Takes the present content of a block as its newest version.
    fn remember(&mut self, block: u64) {
        let content = self.data.block(block);
        self.dirty.entry(block).or_default().push(content);
    }

    /// A sync that worked: what the cache holds dirty becomes durable.
    pub(super) fn sync(&mut self) {
        self.durable.resize(self.data.len());
        for block in std::mem::take(&mut self.dirty).into_keys() {
            let content = self.data.block(block);
            self.durable.put_block(block, &content);
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
