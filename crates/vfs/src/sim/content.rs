//! The bytes of a simulated file. Space that was reserved and never written is zero and takes no memory: logs reserve many
//! times what they write.

use super::BLOCK_BYTES;

/// Bytes, of which those behind the last that was written are zero and not kept.
#[derive(Clone, Default)]
pub(super) struct Content {
    kept: Vec<u8>,
    len: u64,
}

/// A simulated file fits memory; larger offsets are refused before they get here.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Cuts, or grows with zeros.
    pub(super) fn resize(&mut self, len: u64) {
        self.kept.truncate(index(len));
        self.len = len;
    }

    /// Reads as much as there is from an offset.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = index(self.len.saturating_sub(offset)).min(buffer.len());
        let kept = self.kept.get(index(offset)..).unwrap_or_default();
        let (buffer, _) = buffer.split_at_mut(count);
        let (written, reserved) = buffer.split_at_mut(kept.len().min(count));
        written.copy_from_slice(kept.get(..written.len()).unwrap_or_default());
        reserved.fill(0);
        count
    }

    /// Writes as far as the content reaches.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = (offset + bytes.len() as u64).min(self.len);
        if offset >= end {
            return;
        }
        if (self.kept.len() as u64) < end {
            self.kept.resize(index(end), 0);
        }
        if let Some(room) = self.kept.get_mut(index(offset)..index(end)) {
            let (bytes, _) = bytes.split_at(room.len());
            room.copy_from_slice(bytes);
        }
    }

    /// A block, filled with zeros behind the end.
    pub(super) fn block(&self, block: u64) -> Vec<u8> {
        let mut content = vec![0; index(BLOCK_BYTES)];
        self.read(&mut content, block * BLOCK_BYTES);
        content
    }

    /// Writes a block as far as the content reaches.
    pub(super) fn put_block(&mut self, block: u64, content: &[u8]) {
        self.write(content, block * BLOCK_BYTES);
    }

    /// All of it.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = self.kept.clone();
        bytes.resize(index(self.len), 0);
        bytes
    }
}

impl From<Vec<u8>> for Content {
    fn from(kept: Vec<u8>) -> Self {
        let len = kept.len() as u64;
        Self { kept, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reserved_reads_as_zeros_and_is_not_kept() {
        let mut content = Content::default();
        content.resize(1 << 40);
        content.write(b"words", 3);
        assert!(content.kept.len() < 16);
        let mut buffer = [7; 12];
        assert_eq!(content.read(&mut buffer, 0), 12);
        assert_eq!(&buffer, b"\0\0\0words\0\0\0\0");
        assert_eq!(content.read(&mut buffer, (1 << 40) - 5), 5);
        assert_eq!(content.read(&mut buffer, 1 << 40), 0);
    }

    #[test]
    fn what_was_cut_does_not_come_back() {
        let mut content = Content::from(b"words".to_vec());
        content.resize(2);
        content.resize(4);
        assert_eq!(content.to_vec(), b"wo\0\0");
        content.write(b"ld and more", 2);
        assert_eq!(content.to_vec(), b"wold");
        assert_eq!(content.block(0).get(..5), Some(&b"wold\0"[..]));
    }
}
