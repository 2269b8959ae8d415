//! Batches and segments as bytes in files.

use std::sync::Arc;

use bytes::Bytes;
use vfs::VfsFile;

use super::{Active, Fault, Tip, Writer};
use crate::{
    format::{Frame, HEADER_BYTES, MarkVote, Op, SegmentHeader},
    segment::{self, marker},
    state::Written,
    types::{GroupId, Place, WalStats},
};

/// A record ready to be written: all but what depends on its place.
#[derive(Debug)]
pub(super) struct Prepared {
    frame: Frame,
    stored: Bytes,
    /// For entries: who asks where it went.
    entry: Option<(GroupId, u64, u64)>,
}

impl Prepared {
    /// Adds the record to the counters.
    pub(super) fn count(&self, stats: &mut WalStats) {
        stats.bytes_written += self.frame.total_bytes();
        if self.entry.is_some() {
            stats.payload_bytes += u64::from(self.frame.raw_len);
            stats.stored_bytes += u64::from(self.frame.stored_len);
        }
    }
}

impl Writer {
    /// Compresses a record's payload and makes its header.
    pub(super) fn prepare(&mut self, group: GroupId, op: &Op) -> Prepared {
        let payload = op.payload();
        let raw_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let (stored, flags) = self.encoder.encode(payload);
        let entry = match op {
            Op::Entry { id, ticket, .. } => Some((group, id.index, *ticket)),
            Op::Vote { .. }
            | Op::Committed(_)
            | Op::Truncate { .. }
            | Op::Purge { .. }
            | Op::Remove
            | Op::State(_) => None,
        };
        Prepared {
            frame: op.frame(group, raw_len, &stored, flags),
            stored,
            entry,
        }
    }

    /// Writes a batch at the end of the active segment, beginning another one where it is due, and syncs it.
    pub(super) fn write(&mut self, records: &[Prepared]) -> Result<Vec<Written>, Fault> {
        let bytes: u64 = records
            .iter()
            .map(|record| record.frame.total_bytes())
            .sum();
        let full = self.active.tip.end + bytes > self.options.segment_bytes;
        if full && self.active.tip.batches > 1 {
            match self.rotate() {
                Ok(()) => {}
                // Without room for another segment this one grows on.
                Err(Fault::Full) if may_grow(self.active.tip.end, bytes) => {}
                Err(fault) => return Err(fault),
            }
        }
        let (batch, written, tip) = encode(
            &self.active,
            records,
            self.active.place(),
            self.options.align_bytes,
        );
        self.put(&batch)?;
        self.active.tip = tip;
        Ok(written)
    }

    fn put(&mut self, batch: &[u8]) -> Result<(), Fault> {
        let step = self.options.reserve_step();
        let Active {
            file,
            tip,
            reserved,
            ..
        } = &mut self.active;
        match reserved.write(file.as_ref(), batch, tip.end, step) {
            Ok(()) => Ok(file.sync_data()?),
            Err(error) if error.is_disk_full() => {
                file.truncate(tip.end)?;
                file.sync_data()?;
                reserved.cut(tip.end);
                Err(Fault::Full)
            }
            Err(error) => Err(Fault::Fatal(error)),
        }
    }

    /// Seals the active segment, all of which is durable, and begins the next.
    fn rotate(&mut self) -> Result<(), Fault> {
        let previous = self.active.clone();
        let (active, _) = self.create_segment(previous.place(), previous.tip.chain, &[])?;
        let durable = active.place();
        self.write_mark_twice(self.mark.oldest, durable)?;
        self.active = active;
        let end = previous.tip.end;
        if previous.reserved.reaches_beyond(end) {
            // Only gives space back; what counts ends where the new segment's header says.
            if let Err(error) = previous.file.truncate(end) {
                tracing::warn!(%error, "cannot give back space reserved for a sealed segment");
            }
        }
        Ok(())
    }

    /// Creates a segment whose first batch is the state of every group, then `tail`. Durable when it returns.
    pub(super) fn create_segment(
        &mut self,
        previous: Place,
        previous_chain: u32,
        tail: &[Prepared],
    ) -> Result<(Active, Vec<Written>), Fault> {
        let number = previous.segment + 1;
        let header = SegmentHeader {
            identity: self.identity,
            number,
            previous_end: previous.offset,
            previous_chain,
            dictionary: self.dictionary,
        };
        let states: Vec<(GroupId, Op)> = self
            .metas
            .iter()
            .map(|(group, meta)| (*group, Op::State(*meta)))
            .collect();
        let states: Vec<Prepared> = states
            .iter()
            .map(|(group, op)| self.prepare(*group, op))
            .collect();
        let path = segment::path(&self.dir, number);
        if self.vfs.exists(&path)? {
            vfs::durable::remove(self.vfs.as_ref(), &path)?;
        }
        let file = match self.vfs.create_new(&path) {
            Ok(file) => Arc::<dyn VfsFile>::from(file),
            Err(error) if error.is_disk_full() => return Err(Fault::Full),
            Err(error) => return Err(Fault::Fatal(error)),
        };
        let (mut bytes, seed) = header.encode();
        let mut active = Active {
            number,
            file,
            seed,
            tip: Tip {
                end: HEADER_BYTES as u64,
                chain: seed,
                batches: 0,
            },
            reserved: self.active.reserved.anew(),
        };
        let records: Vec<&Prepared> = states.iter().chain(tail).collect();
        let (batch, written, tip) = encode(&active, records, previous, self.options.align_bytes);
        bytes.extend_from_slice(&batch);
        let step = self.options.reserve_step();
        let placed = active.reserved.write(active.file.as_ref(), &bytes, 0, step);
        match placed {
            Ok(()) => {}
            Err(error) if error.is_disk_full() => {
                vfs::durable::remove(self.vfs.as_ref(), &path)?;
                return Err(Fault::Full);
            }
            Err(error) => return Err(Fault::Fatal(error)),
        }
        active.file.sync_all()?;
        self.vfs.sync_dir(&self.dir)?;
        active.tip = tip;
        Ok((active, written))
    }

    /// Writes the mark file: oldest segment, durable place, votes.
    pub(super) fn write_mark(&mut self, oldest: u64, durable: Place) -> vfs::Result<()> {
        let votes = self.metas.iter().filter_map(|(group, meta)| {
            let (group, number) = (*group, meta.votes);
            meta.vote.map(|vote| MarkVote {
                group,
                number,
                vote,
            })
        });
        self.mark.votes = votes.collect();
        self.mark.oldest = oldest;
        self.mark.durable = durable;
        self.slots.write(&self.mark.encode())
    }

    /// Writes both slots of the mark: one that rots must leave none that names a segment which is deleted next, or for which one that
    /// is written next is unconfirmed.
    pub(super) fn write_mark_twice(&mut self, oldest: u64, durable: Place) -> vfs::Result<()> {
        for _slot in 0..2 {
            self.write_mark(oldest, durable)?;
        }
        Ok(())
    }
}

/// A batch as bytes for the end of a segment, where its entries will be, and how far the segment reaches after it.
fn encode<'a>(
    active: &Active,
    records: impl IntoIterator<Item = &'a Prepared>,
    watermark: Place,
    align: u64,
) -> (Vec<u8>, Vec<Written>, Tip) {
    let mut tip = active.tip;
    let (mut bytes, mut written) = (Vec::new(), Vec::new());
    let mut add = |tip: &mut Tip, frame: &Frame, stored: &[u8]| {
        tip.chain = frame.encode(active.seed, tip.end, tip.chain, &mut bytes);
        bytes.extend_from_slice(stored);
        tip.end += frame.total_bytes();
    };
    for record in records {
        let place = Place {
            segment: active.number,
            offset: tip.end,
        };
        add(&mut tip, &record.frame, &record.stored);
        if let Some((group, index, ticket)) = record.entry {
            written.push(Written {
                group,
                index,
                ticket,
                place,
                stored_len: record.frame.stored_len,
            });
        }
    }
    tip.batches += 1;
    let begin = active.tip.end;
    let (marker, payload) = marker(begin, tip.end, tip.batches, watermark, align);
    add(&mut tip, &marker, &payload);
    (bytes, written, tip)
}

/// Whether a segment that cannot be followed by another may take so many bytes more: places in it have 32 bits. What a batch has besides its
/// records is far less than what is kept back.
fn may_grow(end: u64, bytes: u64) -> bool {
    const KEPT_BACK: u64 = 1 << 20;
    end + bytes <= u64::from(u32::MAX) - KEPT_BACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_grows_no_further_than_places_reach() {
        let most = u64::from(u32::MAX) - (1 << 20);
        assert!(may_grow(64 << 20, 8 << 20));
        assert!(may_grow(most - 100, 100) && !may_grow(most - 100, 101));
        assert!(!may_grow(most, u64::from(u32::MAX)));
    }
}
