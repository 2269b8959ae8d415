//! Changes to a bucket.

use std::sync::Arc;

use super::raw::{RawEntry, put_count, put_head};
use super::{ARC_BYTES, Bucket, HEADER_LEN, Spot};

/// Room for one more term with a long rest, so that the scratch of an edit is allocated once.
const SCRATCH_BYTES: usize = 96;

impl Bucket {
    /// A bucket of `coded`: room for the header, then coded terms. The header is filled in.
    pub(super) fn from_coded(coded: &mut [u8]) -> Self {
        if coded.len() <= HEADER_LEN {
            return Self::default();
        }
        let end = coded.len();
        set_end(coded, end);
        let mut bytes = zeroed(end);
        if let Some(place) = Arc::get_mut(&mut bytes) {
            place[..end].copy_from_slice(coded);
        }
        Self { bytes }
    }

    /// Adds a term that is not there, at the spot that [`Bucket::find`] gave.
    /// `display` is the code of its display form.
    pub(crate) fn insert(&mut self, term: &[u8], spot: &Spot, count: u64, display: Option<&[u8]>) {
        let mut scratch = Vec::with_capacity(SCRATCH_BYTES);
        put_head(&mut scratch, spot.shared, [&term[spot.shared..], &[]]);
        put_count(&mut scratch, count, display.is_some());
        scratch.extend_from_slice(display.unwrap_or(&[]));
        let mut end = spot.at;
        if let Some(next) = RawEntry::read(self.coded(), spot.at) {
            // The next term now follows the new one and shares at least as much with it.
            let rest = &next.suffix[spot.next_shared - next.shared..];
            put_head(&mut scratch, spot.next_shared, [rest, &[]]);
            end = next.count_at;
        }
        self.splice(spot.at.max(HEADER_LEN), end.max(HEADER_LEN), &scratch);
    }

    /// Changes the count of the term at `spot`.
    pub(crate) fn set_count(&mut self, spot: &Spot, count: u64) {
        let Some(entry) = RawEntry::read(self.coded(), spot.at) else {
            return;
        };
        let (start, end) = (entry.count_at, entry.count_end);
        let mut scratch = Vec::with_capacity(16);
        put_count(&mut scratch, count, entry.display.is_some());
        self.splice(start, end, &scratch);
    }

    /// Removes the term at `spot`.
    pub(crate) fn remove(&mut self, spot: &Spot) {
        let Some(gone) = RawEntry::read(self.coded(), spot.at) else {
            return;
        };
        let mut scratch = Vec::with_capacity(SCRATCH_BYTES);
        let mut end = gone.end;
        if let Some(next) = RawEntry::read(self.coded(), gone.end) {
            // The next term takes over the bytes it shared with the one that goes.
            let own = next.shared.saturating_sub(gone.shared);
            put_head(
                &mut scratch,
                next.shared - own,
                [&gone.suffix[..own], next.suffix],
            );
            end = next.count_at;
        }
        self.splice(spot.at, end, &scratch);
    }

    /// Replaces bytes `from..to` by `with`, in place if nobody else holds the bucket and the size class stays.
    fn splice(&mut self, from: usize, to: usize, with: &[u8]) {
        let old_end = self.end().max(HEADER_LEN);
        let new_end = old_end - (to - from) + with.len();
        if new_end <= HEADER_LEN {
            *self = Self::default();
            return;
        }
        let tail_at = from + with.len();
        if capacity_for(new_end) == self.bytes.len()
            && let Some(bytes) = Arc::get_mut(&mut self.bytes)
        {
            bytes.copy_within(to..old_end, tail_at);
            bytes[from..tail_at].copy_from_slice(with);
            set_end(bytes, new_end);
            return;
        }
        let mut fresh = zeroed(new_end);
        if let Some(place) = Arc::get_mut(&mut fresh) {
            let old = &self.bytes;
            let head_end = from.min(old.len());
            place[..head_end].copy_from_slice(&old[..head_end]);
            place[from..tail_at].copy_from_slice(with);
            if to < old_end {
                place[tail_at..new_end].copy_from_slice(&old[to..old_end]);
            }
            set_end(place, new_end);
        }
        self.bytes = fresh;
    }
}

fn set_end(bytes: &mut [u8], end: usize) {
    if let Some(place) = bytes.first_chunk_mut::<HEADER_LEN>() {
        // A bucket of one oversized term stays far below 4 GiB.
        *place = (end as u32).to_le_bytes();
    }
}

/// Length to allocate for `end` bytes in use: together with the reference counts a multiple of a
/// thirty-second of the next power of two. Most writes then change bytes in place, at most a sixteenth
/// of a large bucket is unused, and the size classes of common allocators are met.
fn capacity_for(end: usize) -> usize {
    let whole = ARC_BYTES + end;
    let step = (whole.next_power_of_two() / 32).max(16);
    whole.next_multiple_of(step) - ARC_BYTES
}

/// Memory for `end` bytes in use.
fn zeroed(end: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, capacity_for(end)).collect()
}
