//! Following a segment while it is written, from the bytes that are written to it.
//!
//! For whoever stands between a log and its disk, such as a simulation that wants to know what every disk holds at every moment. Each
//! byte is looked at a few times at most, however often something is written. A batch is told of once, when all of it is there;
//! what does not verify yet may be a part of one that is still to come, so nothing is ever reported as damaged.

use std::path::Path;

use super::{RecordInfo, RecordKind, tell_batch};
use crate::codec::{Decoder, Dictionaries};
use crate::format::{HEADER_BYTES, SegmentHeader};
use crate::segment::{self, Scanner};
use crate::types::Place;

/// One segment, as far as its bytes are known.
#[derive(Debug)]
pub struct SegmentFollower {
    number: u64,
    bytes: Vec<u8>,
    /// Where the last whole batch ends; `None` before the header is known.
    reached: Option<Reached>,
}

#[derive(Debug, Clone, Copy)]
struct Reached {
    seed: u32,
    dictionary: u32,
    offset: u64,
    chain: u32,
    batches: u64,
}

impl SegmentFollower {
    /// For the segment that a path names; `None` if it names none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        Some(Self {
            number: segment::number(path.file_name()?)?,
            bytes: Vec::new(),
            reached: None,
        })
    }

    /// The number of the segment.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes were written at an offset; those at 0 begin the segment anew. Tells of the records of every batch that is whole now. Payloads that need a trained dictionary
    /// are told of as [`RecordKind::Damage`].
    pub fn written(&mut self, offset: u64, data: &[u8], visit: &mut dyn FnMut(&RecordInfo)) {
        if offset == 0 {
            // Another segment of the same number, in place of one that was given up.
            self.reached = None;
        }
        let start = segment::at(offset);
        let end = start.saturating_add(data.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(start..end) {
            place.copy_from_slice(data);
        }
        self.go_on(visit);
    }

    /// The file was cut. What is written where batches had been told of is told anew, with the whole segment.
    pub fn truncated(&mut self, len: u64) {
        self.bytes.truncate(segment::at(len));
        self.reached = self.reached.filter(|reached| reached.offset <= len);
    }

    fn go_on(&mut self, visit: &mut dyn FnMut(&RecordInfo)) {
        let reached = match self.reached {
            Some(reached) => reached,
            None => match self.begin(visit) {
                Some(reached) => reached,
                None => return,
            },
        };
        let mut scanner = Scanner::new(&self.bytes, self.number, reached.seed).at(
            reached.offset,
            reached.chain,
            reached.batches,
        );
        let dictionaries = Dictionaries::default();
        let mut decoder = Decoder::default();
        let mut batches = reached.batches;
        while let Ok(Some(batch)) = scanner.next_batch() {
            batches += 1;
            let coding = (reached.dictionary, &dictionaries);
            tell_batch(self.number, &scanner, &batch, &mut decoder, coding, visit);
        }
        let (offset, chain) = scanner.position();
        self.reached = Some(Reached {
            offset,
            chain,
            batches,
            ..reached
        });
    }

    /// Reads the header, once it is there.
    fn begin(&self, visit: &mut dyn FnMut(&RecordInfo)) -> Option<Reached> {
        let (header, seed) = SegmentHeader::decode(self.bytes.get(..HEADER_BYTES)?).ok()?;
        visit(&RecordInfo {
            place: Place {
                segment: self.number,
                offset: 0,
            },
            kind: RecordKind::of_header(&header),
            bytes: HEADER_BYTES as u64,
        });
        Some(Reached {
            seed,
            dictionary: header.dictionary,
            offset: HEADER_BYTES as u64,
            chain: seed,
            batches: 0,
        })
    }
}
