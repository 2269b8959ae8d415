//! What a dictionary can be tuned by.

/// Settings of a [`Dictionary`](crate::Dictionary). They shape memory and speed, never an answer,
/// and are no part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Entries in the list that each inner node keeps ready. Up to this k, a prefix that ends in a
    /// node is answered without a search. Default 10; values below 1 count as 1 and above 1,000 as
    /// 1,000.
    pub cached_k: usize,
    /// Size in bytes above which a leaf bucket is divided. Larger buckets take less memory and are
    /// slower to scan. Default 2,048, which leaves them about 1,400 long; values below 64 count as 64 and above 65,536 as 65,536.
    pub bucket_bytes: usize,
}

impl Options {
    /// Smallest and largest `cached_k` in use.
    const CACHED_K: std::ops::RangeInclusive<usize> = 1..=1_000;
    /// Smallest and largest `bucket_bytes` in use.
    const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 64..=65_536;

    /// The settings with each value moved into its range.
    #[must_use]
    pub(crate) fn in_range(self) -> Self {
        Self {
            cached_k: self
                .cached_k
                .clamp(*Self::CACHED_K.start(), *Self::CACHED_K.end()),
            bucket_bytes: self
                .bucket_bytes
                .clamp(*Self::BUCKET_BYTES.start(), *Self::BUCKET_BYTES.end()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cached_k: 10,
            bucket_bytes: 2_048,
        }
    }
}
