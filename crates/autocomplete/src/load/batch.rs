//! Items to batches. The same file always gives the same batches: their numbers are part of request ids.

use api::v1::RecordItem;
use cluster::limits;

/// A batch ends when its terms reach this many bytes: well below what a message may have.
const BATCH_BYTES: usize = 256 * 1024;

const _: () = assert!(2 * BATCH_BYTES + limits::RAW_BYTES_MAX <= limits::MESSAGE_BYTES_MAX);

/// Some lines that are recorded together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    /// Its place in the file, from 0.
    pub(super) number: u64,
    pub(super) items: Vec<RecordItem>,
    /// The line of each item.
    pub(super) lines: Vec<u64>,
}

/// Collects items.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    number: u64,
    bytes: usize,
    items: Vec<RecordItem>,
    lines: Vec<u64>,
}

impl Batcher {
    /// Adds an item; hands out a batch when it is full.
    pub(super) fn push(&mut self, line: u64, item: RecordItem) -> Option<Batch> {
        self.bytes += item.term.len();
        self.items.push(item);
        self.lines.push(line);
        let is_full = self.items.len() >= limits::BATCH_ITEMS_MAX || self.bytes >= BATCH_BYTES;
        if is_full { self.take() } else { None }
    }

    /// What has been collected, if anything.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.items.is_empty() {
            return None;
        }
        let batch = Batch {
            number: self.number,
            items: std::mem::take(&mut self.items),
            lines: std::mem::take(&mut self.lines),
        };
        self.number += 1;
        self.bytes = 0;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> RecordItem {
        RecordItem {
            term: "x".repeat(bytes),
            count: 1,
        }
    }

    #[test]
    fn a_batch_ends_by_items_or_by_bytes() {
        let mut batcher = Batcher::default();
        assert_eq!(batcher.take(), None);
        let mut sizes = Vec::new();
        for line in 1..=2_500 {
            sizes.extend(batcher.push(line, item(8)).map(|batch| batch.items.len()));
        }
        assert_eq!(sizes, [1_000, 1_000]);
        let rest = batcher.take().unwrap();
        assert_eq!((rest.number, rest.items.len()), (2, 500));
        assert_eq!(
            (rest.lines.first(), rest.lines.last()),
            (Some(&2_001), Some(&2_500))
        );

        let full = (0..)
            .find_map(|line| batcher.push(line, item(4_096)))
            .unwrap();
        assert_eq!((full.number, full.items.len()), (3, 64));
    }
}
