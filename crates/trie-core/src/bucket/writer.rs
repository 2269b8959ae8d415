//! Makes buckets of terms that come in order.

use super::raw::{put_count, put_head};
use super::{Bucket, HEADER_LEN, RawEntries};
use crate::display::Display;

/// A bucket that is being written, and what is needed to divide it: its terms fall into *groups* of one first
/// byte, and the last group can be cut off.
#[derive(Debug)]
pub(crate) struct BucketWriter {
    /// The coded terms behind room for the header.
    bytes: Vec<u8>,
    /// Number of terms.
    len: usize,
    /// Offset of the last group.
    group_at: usize,
    /// Bytes that all terms of the last group share.
    group_shared: usize,
}

impl BucketWriter {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_LEN],
            len: 0,
            group_at: HEADER_LEN,
            group_shared: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of terms.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of coded terms.
    pub(crate) fn used_bytes(&self) -> usize {
        self.bytes.len() - HEADER_LEN
    }

    /// Bytes of coded terms before the last group; 0 if there is one group.
    pub(crate) fn bytes_before_group(&self) -> usize {
        self.group_at - HEADER_LEN
    }

    /// What all terms share; empty if there are several groups.
    pub(crate) fn shared_by_all(&self) -> &[u8] {
        if self.bytes_before_group() > 0 {
            &[]
        } else {
            // The first term stands there whole.
            self.entries()
                .next()
                .map_or(&[], |first| &first.suffix[..self.group_shared])
        }
    }

    /// Adds the term that consists of `shared` bytes of the last one, as many as the two share, and `rest`.
    pub(crate) fn push(
        &mut self,
        shared: usize,
        rest: &[u8],
        count: u64,
        display: Option<Display<'_>>,
    ) {
        if shared == 0 {
            self.group_at = self.bytes.len();
            self.group_shared = rest.len();
        } else {
            self.group_shared = self.group_shared.min(shared);
        }
        put_head(&mut self.bytes, shared, [rest, &[]]);
        put_count(&mut self.bytes, count, display.is_some());
        if let Some(display) = display {
            display.put_again(&mut self.bytes);
        }
        self.len += 1;
    }

    /// The terms so far.
    pub(crate) fn entries(&self) -> RawEntries<'_> {
        RawEntries::new(&self.bytes, HEADER_LEN)
    }

    /// Makes a bucket of all terms and begins anew.
    pub(crate) fn take(&mut self) -> Bucket {
        let bucket = Bucket::from_coded(&mut self.bytes);
        self.bytes.truncate(HEADER_LEN);
        self.len = 0;
        self.group_at = HEADER_LEN;
        self.group_shared = 0;
        bucket
    }

    /// Makes a bucket of all terms before the last group and keeps that group.
    pub(crate) fn take_before_group(&mut self) -> Bucket {
        // The first term of a group shares nothing with the one before, so its code stands on its own.
        let bucket = Bucket::from_coded(&mut self.bytes[..self.group_at]);
        self.bytes.drain(HEADER_LEN..self.group_at);
        self.group_at = HEADER_LEN;
        self.len = self.entries().count();
        bucket
    }
}
