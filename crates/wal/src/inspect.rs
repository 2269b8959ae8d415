//! Looking into a log without opening it: listing, judging, cutting, and training a dictionary.
//!
//! [`dump`], [`verify`] and [`train`] read only what is on disk and take no lock, so that they work beside a
//! running server; a tail that is being written may then look torn. [`repair`] takes the lock and is the
//! only one that changes a log.

mod follow;

use std::path::Path;

use bytes::Bytes;
use vfs::Vfs;

pub use self::follow::SegmentFollower;
use crate::{
    codec::{self, Decoder, Dictionaries},
    error::{LogFile, OpenError, RotReason},
    format::{HEADER_BYTES, Op, SegmentHeader},
    options::Ambiguous,
    recover::{self, Failure, Mode},
    segment::{self, Batch, Scanner},
    types::{GroupId, GroupState, Identity, Place, Vote},
    unreadable,
};
pub use crate::{
    repair::{RepairReport, repair},
    unreadable::UnreadableBytes,
};

/// The most payload bytes that training looks at.
const SAMPLE_BYTES_MAX: usize = 64 << 20;

/// One record, or one thing worth a line, in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: RecordKind,
    /// Bytes on disk, headers included.
    pub bytes: u64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// The header of a segment.
    Segment {
        /// Whose log it is.
        identity: Identity,
        /// Where the segment before ends.
        previous_end: u64,
        /// The compression dictionary; 0 for none.
        dictionary: u32,
    },
    /// An entry.
    Entry {
        /// The group.
        group: GroupId,
        /// The Raft term.
        term: u64,
        /// The leader that made it.
        node: u64,
        /// The index.
        index: u64,
        /// The caller's kind.
        kind: u8,
        /// Bytes of the payload as stored.
        stored_bytes: u32,
        /// Whether it is compressed, and with a dictionary.
        compression: Compression,
        /// The logical chain after it.
        chain: u32,
        /// The payload.
        payload: Bytes,
    },
    /// A vote.
    Vote {
        /// The group.
        group: GroupId,
        /// The vote.
        vote: Vote,
    },
    /// A commit hint.
    Committed {
        /// The group.
        group: GroupId,
        /// The index.
        index: u64,
    },
    /// A truncation.
    Truncate {
        /// The group.
        group: GroupId,
        /// The first index removed.
        from_index: u64,
    },
    /// A purge.
    Purge {
        /// The group.
        group: GroupId,
        /// The last index removed.
        upto_index: u64,
    },
    /// The removal of a group.
    Remove {
        /// The group.
        group: GroupId,
    },
    /// The state of a group at the head of a segment.
    State {
        /// The group.
        group: GroupId,
        /// Its purge point.
        purged_index: Option<u64>,
        /// Its last index.
        last_index: Option<u64>,
        /// Its vote.
        vote: Option<Vote>,
    },
    /// The end of a batch.
    Marker {
        /// The place before which all was durable.
        durable: Place,
    },
    /// Something that does not verify; the rest of the segment is not listed.
    Damage {
        /// What is wrong.
        reason: RotReason,
    },
}

impl RecordKind {
    const fn of_header(header: &SegmentHeader) -> Self {
        Self::Segment {
            identity: header.identity,
            previous_end: header.previous_end,
            dictionary: header.dictionary,
        }
    }
}

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// zstd.
    Zstd,
    /// zstd with the segment's dictionary.
    ZstdDictionary,
}

/// What [`verify`] thinks of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The verdict.
    pub verdict: Verdict,
    /// Segments in the directory.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Entries that can be read; 0 if the log is rotten.
    pub entries: u64,
    /// The state of each group; empty if the log is rotten.
    pub groups: Vec<(GroupId, GroupState)>,
    /// What the disk does not give back of all files. Looked for where the log is rotten or the mark damaged, and empty else.
    pub unreadable: Vec<UnreadableBytes>,
}

/// The verdict on a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte verifies.
    Clean,
    /// What follows this place was never acknowledged; the next start drops it.
    Torn {
        /// Where it begins.
        place: Place,
        /// How much it is.
        bytes: u64,
    },
    /// The last batch is damaged inside and may have been acknowledged.
    Ambiguous {
        /// Where the damage begins.
        place: Place,
    },
    /// Acknowledged data is damaged or missing.
    Rotten {
        /// The first place that is known to be damaged.
        place: Place,
        /// What is wrong there.
        reason: RotReason,
    },
}

/// Lists every record of every segment in order, as far as the disk gives them back.
pub fn dump(
    vfs: &dyn Vfs,
    dir: &Path,
    visit: &mut dyn FnMut(&RecordInfo),
) -> Result<(), OpenError> {
    let dictionaries = Dictionaries::load(vfs, dir)?;
    for number in segment::list(vfs, dir)? {
        let path = segment::path(dir, number);
        let file = match vfs.open_read(&path) {
            Ok(file) => file,
            // Retired since the listing.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let mut lost = None;
        let bytes = match recover::read_to(file.as_ref(), number, u64::MAX) {
            Err(Failure::Rot { place, .. }) => {
                lost = Some(place);
                recover::read_to(file.as_ref(), number, place.offset)
            }
            read => read,
        };
        dump_segment(number, &bytes?, &dictionaries, visit);
        if let Some(place) = lost {
            let reason = RotReason::Unreadable(LogFile::Segment(number));
            let kind = RecordKind::Damage { reason };
            let bytes = file.len()?.saturating_sub(place.offset);
            visit(&RecordInfo { place, kind, bytes });
        }
    }
    Ok(())
}

fn dump_segment(
    number: u64,
    bytes: &[u8],
    dictionaries: &Dictionaries,
    visit: &mut dyn FnMut(&RecordInfo),
) {
    let tell = |visit: &mut dyn FnMut(&RecordInfo), offset, bytes, kind| {
        let segment = number;
        let place = Place { segment, offset };
        visit(&RecordInfo { place, kind, bytes });
    };
    let Ok((header, seed)) = SegmentHeader::decode(bytes) else {
        let reason = RotReason::SegmentHeader;
        return tell(visit, 0, bytes.len() as u64, RecordKind::Damage { reason });
    };
    let kind = RecordKind::of_header(&header);
    tell(visit, 0, HEADER_BYTES as u64, kind);
    let mut scanner = Scanner::new(bytes, number, seed);
    let mut decoder = Decoder::default();
    loop {
        match scanner.next_batch() {
            Ok(None) => return,
            Err(damage) => {
                let rest = bytes.len() as u64 - damage.offset;
                let reason = damage.reason;
                return tell(visit, damage.offset, rest, RecordKind::Damage { reason });
            }
            Ok(Some(batch)) => {
                let coding = (header.dictionary, dictionaries);
                tell_batch(number, &scanner, &batch, &mut decoder, coding, visit);
            }
        }
    }
}

/// Tells of the records of a batch, and of the marker that ends it. `coding`: the dictionary that they may need, and all there are.
fn tell_batch<'a>(
    segment: u64,
    scanner: &Scanner<'_>,
    batch: &Batch,
    decoder: &mut Decoder<'a>,
    coding: (u32, &'a Dictionaries),
    visit: &mut dyn FnMut(&RecordInfo),
) {
    let mut tell = |offset, bytes, kind| {
        let place = Place { segment, offset };
        visit(&RecordInfo { place, kind, bytes });
    };
    let (dictionary, dictionaries) = coding;
    for (offset, bytes, kind) in describe(scanner, batch, decoder, dictionary, dictionaries) {
        tell(offset, bytes, kind);
    }
    let durable = batch.watermark;
    tell(
        batch.marker,
        batch.end - batch.marker,
        RecordKind::Marker { durable },
    );
}

fn describe<'a>(
    scanner: &Scanner<'_>,
    batch: &Batch,
    decoder: &mut Decoder<'a>,
    dictionary: u32,
    dictionaries: &'a Dictionaries,
) -> Vec<(u64, u64, RecordKind)> {
    let mut records = Vec::new();
    for (offset, frame) in &batch.frames {
        let stored = scanner.payload(*offset, frame).unwrap_or_default();
        let stored = Bytes::copy_from_slice(stored);
        let raw = decoder.decode(frame, stored, dictionary, dictionaries);
        let sense = |payload| Op::from_frame(frame, payload).ok_or(RotReason::Sense);
        let kind = match raw.and_then(sense) {
            Ok(op) => record_kind(frame, op),
            Err(reason) => RecordKind::Damage { reason },
        };
        records.push((*offset, frame.total_bytes(), kind));
    }
    records
}

fn record_kind(frame: &crate::format::Frame, op: Op) -> RecordKind {
    let group = GroupId(frame.group);
    match op {
        Op::Entry {
            id,
            kind,
            payload,
            chain,
            ..
        } => RecordKind::Entry {
            group,
            term: id.term,
            node: id.node,
            index: id.index,
            kind,
            stored_bytes: frame.stored_len,
            compression: compression(frame.flags),
            chain,
            payload,
        },
        Op::Vote { vote, .. } => RecordKind::Vote { group, vote },
        Op::Committed(id) => RecordKind::Committed {
            group,
            index: id.index,
        },
        Op::Truncate { from, .. } => RecordKind::Truncate {
            group,
            from_index: from,
        },
        Op::Purge { upto, .. } => RecordKind::Purge {
            group,
            upto_index: upto.index,
        },
        Op::Remove => RecordKind::Remove { group },
        Op::State(meta) => RecordKind::State {
            group,
            purged_index: meta.purged.map(|id| id.index),
            last_index: meta.last.map(|id| id.index),
            vote: meta.vote,
        },
    }
}

const fn compression(flags: u8) -> Compression {
    use crate::format::flag::{DICTIONARY, ZSTD};
    match (flags & ZSTD != 0, flags & DICTIONARY != 0) {
        (false, _) => Compression::None,
        (true, false) => Compression::Zstd,
        (true, true) => Compression::ZstdDictionary,
    }
}

/// Judges a log as a start would, and changes nothing. `identity`: whose log it should be, if known.
pub fn verify(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: Option<Identity>,
) -> Result<VerifyReport, OpenError> {
    let mut report = VerifyReport {
        verdict: Verdict::Clean,
        segments: 0,
        bytes: 0,
        entries: 0,
        groups: Vec::new(),
        unreadable: Vec::new(),
    };
    for number in segment::list(vfs, dir)? {
        report.segments += 1;
        report.bytes += vfs.open_read(&segment::path(dir, number))?.len()?;
    }
    let log = match recover::read(vfs, dir, identity, Mode::Strict(Ambiguous::Drop)) {
        Ok(log) => log,
        Err(failure) => match OpenError::from(failure) {
            OpenError::Rotten { place, reason } => {
                report.verdict = Verdict::Rotten { place, reason };
                report.unreadable = unreadable::find(vfs, dir)?;
                return Ok(report);
            }
            other @ (OpenError::Ambiguous { .. }
            | OpenError::NewerFormat { .. }
            | OpenError::WrongIdentity { .. }
            | OpenError::Locked { .. }
            | OpenError::Options { .. }
            | OpenError::Io(_)
            | OpenError::Spawn(_)) => return Err(other),
        },
    };
    if log.report.mark_slots_damaged > 0 {
        report.unreadable = unreadable::find(vfs, dir)?;
    }
    report.entries = log.report.entries;
    let states = log.groups.iter();
    report.groups = states.map(|(group, log)| (*group, log.state())).collect();
    if let Some(place) = log.report.ambiguous {
        report.verdict = Verdict::Ambiguous { place };
    } else if let Some(place) = log.report.torn_at {
        let bytes = log.report.torn_bytes;
        report.verdict = Verdict::Torn { place, bytes };
    }
    Ok(report)
}

/// What training made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainReport {
    /// The number of the new dictionary. Segments begun after the next start use it.
    pub dictionary: u32,
    /// Its size in bytes.
    pub dictionary_bytes: u64,
    /// Payloads it was made from.
    pub samples: u64,
    /// Their bytes.
    pub sample_bytes: u64,
}

/// Makes a compression dictionary of at most `dictionary_bytes` (1 KiB to 1 MiB) for small payloads from those in the log
/// (the newest 64 MiB), and puts it beside the segments.
pub fn train(vfs: &dyn Vfs, dir: &Path, dictionary_bytes: usize) -> Result<TrainReport, OpenError> {
    if !(1 << 10..=codec::DICTIONARY_BYTES_MAX).contains(&dictionary_bytes) {
        return Err(OpenError::Options {
            option: "dictionary_bytes",
            reason: "1 KiB to 1 MiB",
        });
    }
    let mut samples = std::collections::VecDeque::new();
    let mut sample_bytes = 0;
    dump(vfs, dir, &mut |record| {
        let RecordKind::Entry { payload, .. } = &record.kind else {
            return;
        };
        if payload.is_empty() {
            return;
        }
        sample_bytes += payload.len();
        samples.push_back(payload.clone());
        while sample_bytes > SAMPLE_BYTES_MAX {
            let oldest = samples.pop_front();
            sample_bytes -= oldest.map_or(sample_bytes, |oldest: Bytes| oldest.len());
        }
    })?;
    let samples: Vec<Bytes> = samples.into();
    let bytes = codec::train(&samples, dictionary_bytes).map_err(|_| OpenError::Options {
        option: "samples",
        reason: "too few or too small payloads in the log to train from",
    })?;
    let dictionary = codec::save_dictionary(vfs, dir, &bytes)?;
    Ok(TrainReport {
        dictionary,
        dictionary_bytes: bytes.len() as u64,
        samples: samples.len() as u64,
        sample_bytes: sample_bytes as u64,
    })
}
