//! Reading a log from disk and judging it, without changing anything.
//!
//! Three verdicts about what does not verify (the crate's documentation has the rules): *rot* lies below a
//! place that is known to have been durable and is an error, never cut; *torn* lies behind the last
//! complete batch and was never acknowledged; *ambiguous* lies inside the last batch whose marker
//! survived, so it may or may not have been acknowledged. Bytes that the disk does not give back are rot wherever they are.

mod last;
mod replay;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use vfs::{TwoSlot, Vfs, VfsFile};

use crate::{
    codec::Dictionaries,
    error::{LogFile, OpenError, RotReason},
    format::{
        FormatError, GroupMeta, HEADER_BYTES, MARK_FILE, MARK_MAGIC, MARK_SLOT_BYTES, Mark, Op,
        SegmentHeader,
    },
    group::GroupLog,
    options::Ambiguous,
    segment::{self, Damage, Scanner, at},
    types::{GroupId, Identity, Place, RecoveryReport},
};
use replay::Replay;

/// How to judge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// As a server must.
    Strict(Ambiguous),
    /// As if the log ended here, and forgiving what only an operator may forgive.
    Cut(Place),
}

/// A log as read.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) identity: Option<Identity>,
    /// The groups, the tail included.
    pub(crate) groups: BTreeMap<GroupId, GroupLog>,
    /// The groups' states at the end of what is known to be durable.
    pub(crate) metas: BTreeMap<GroupId, GroupMeta>,
    /// What follows there; it must be written again, for the page cache may show what the disk does not hold.
    pub(crate) tail: Vec<(GroupId, Op)>,
    /// The segments that hold what is durable.
    pub(crate) segments: BTreeMap<u64, OpenSegment>,
    /// The end of what is durable, and the physical chain there; `None` before the first segment.
    pub(crate) durable: Option<(Place, u32)>,
    pub(crate) mark: Option<Mark>,
    pub(crate) mark_sequence: u64,
    /// Segments that hold nothing of the log: retired, or never confirmed.
    pub(crate) leftovers: Vec<u64>,
    pub(crate) dictionaries: Arc<Dictionaries>,
    pub(crate) next_ticket: u64,
    pub(crate) report: RecoveryReport,
    /// Groups that lost entries, votes or commits; only in [`Mode::Cut`].
    pub(crate) forgiven: BTreeSet<GroupId>,
}

/// A segment that can be read from.
#[derive(Debug, Clone)]
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) seed: u32,
    pub(crate) dictionary: u32,
    /// Bytes of the file that count.
    pub(crate) end: u64,
}

/// Why a log cannot be read as asked.
#[derive(Debug)]
pub(crate) enum Failure {
    Open(OpenError),
    Rot {
        place: Place,
        /// Where the log would have to be cut.
        cut: Place,
        reason: RotReason,
    },
}

impl From<vfs::Error> for Failure {
    fn from(error: vfs::Error) -> Self {
        Self::Open(error.into())
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Open(error) => error,
            Failure::Rot { place, reason, .. } => Self::Rotten { place, reason },
        }
    }
}

fn rot(segment: u64, damage: Damage) -> Failure {
    let place = |offset| Place { segment, offset };
    Failure::Rot {
        place: place(damage.offset),
        cut: place(damage.batch_start),
        reason: damage.reason,
    }
}

fn rot_at(segment: u64, offset: u64, reason: RotReason) -> Failure {
    let batch_start = offset;
    rot(
        segment,
        Damage {
            offset,
            batch_start,
            reason,
        },
    )
}

/// A segment's header and file, before its records are read.
#[derive(Debug)]
struct Opened {
    header: SegmentHeader,
    seed: u32,
    file: Arc<dyn VfsFile>,
}

/// Reads and judges the log in a directory.
pub(crate) fn read(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: Option<Identity>,
    mode: Mode,
) -> Result<Recovered, Failure> {
    let numbers = if vfs.exists(dir)? {
        segment::list(vfs, dir)?
    } else {
        Vec::new()
    };
    let (mark, mark_sequence, damaged) = read_mark(vfs, dir, &numbers, mode)?;
    let mut log = Recovered {
        identity,
        groups: BTreeMap::new(),
        metas: BTreeMap::new(),
        tail: Vec::new(),
        segments: BTreeMap::new(),
        durable: None,
        mark_sequence,
        leftovers: Vec::new(),
        dictionaries: Arc::new(Dictionaries::default()),
        next_ticket: 1,
        report: RecoveryReport {
            mark_slots_damaged: damaged,
            ..RecoveryReport::default()
        },
        forgiven: BTreeSet::new(),
        mark,
    };
    let known = match (log.mark.clone(), mode) {
        (None, Mode::Cut(_)) => guessed_mark(vfs, dir, &numbers, identity)?,
        (known, Mode::Cut(_) | Mode::Strict(_)) => known,
    };
    let Some(mark) = known else {
        log.report.fresh = true;
        return Ok(log);
    };
    log.check_identity(mark.identity)?;
    let dictionaries = Dictionaries::load(vfs, dir).map_err(Failure::Open)?;
    log.dictionaries = Arc::new(dictionaries);
    let numbers = log.select(vfs, dir, &mark, numbers, mode)?;
    if numbers.is_empty() {
        let ops = log.forgive_or_fail(&mark, &Replay::default(), mode)?;
        log.apply_forgiven(ops);
        return Ok(log);
    }
    let opened = log.open_all(vfs, dir, &numbers)?;
    log.read_segments(&opened, &mark, mode)?;
    Ok(log)
}

fn read_mark(
    vfs: &dyn Vfs,
    dir: &Path,
    numbers: &[u64],
    mode: Mode,
) -> Result<(Option<Mark>, u64, usize), Failure> {
    let newest = numbers.last().copied().unwrap_or(0);
    let path = dir.join(MARK_FILE);
    if !vfs.exists(&path)? {
        return match (mode, newest) {
            (_, 0) | (Mode::Cut(_), _) => Ok((None, 0, 0)),
            (Mode::Strict(_), _) => Err(rot_at(newest, 0, RotReason::Mark)),
        };
    }
    let found = TwoSlot::read(vfs, &path, MARK_MAGIC, MARK_SLOT_BYTES)?;
    let decoded = found.body.as_deref().map(Mark::decode);
    let mark = match decoded.unwrap_or(Err(FormatError::Damaged)) {
        Ok(mark) => Some(mark),
        Err(error) => match error.newer(LogFile::Mark) {
            Some(newer) => return Err(Failure::Open(newer)),
            None => None,
        },
    };
    match (mark, mode) {
        (Some(mark), _) => Ok((Some(mark), found.sequence, found.damaged)),
        (None, Mode::Cut(_)) => Ok((None, found.sequence, found.damaged)),
        (None, Mode::Strict(_)) => {
            let unreadable = RotReason::Unreadable(LogFile::Mark);
            let is_there = found.unreadable == 0;
            let reason = if is_there {
                RotReason::Mark
            } else {
                unreadable
            };
            Err(rot_at(newest, 0, reason))
        }
    }
}

/// What a mark would say that is lost: all segments count, no vote is known.
fn guessed_mark(
    vfs: &dyn Vfs,
    dir: &Path,
    numbers: &[u64],
    identity: Option<Identity>,
) -> Result<Option<Mark>, Failure> {
    let (Some(oldest), Some(newest)) = (numbers.first(), numbers.last()) else {
        return Ok(None);
    };
    let mut found = identity;
    for number in numbers {
        let file = vfs.open_read(&segment::path(dir, *number))?;
        let bytes = match read_to(file.as_ref(), *number, HEADER_BYTES as u64) {
            // Whoever needs it finds out.
            Err(Failure::Rot { .. }) => continue,
            bytes => bytes?,
        };
        let header = SegmentHeader::decode(&bytes).ok();
        found = found.or(header.map(|(header, _)| header.identity));
    }
    Ok(found.map(|identity| Mark {
        identity,
        oldest: *oldest,
        durable: Place {
            segment: *newest,
            offset: 0,
        },
        votes: Vec::new(),
    }))
}

impl Recovered {
    fn check_identity(&mut self, found: Identity) -> Result<(), Failure> {
        match self.identity {
            Some(expected) if expected != found => {
                Err(Failure::Open(OpenError::WrongIdentity { found, expected }))
            }
            Some(_) => Ok(()),
            None => {
                self.identity = Some(found);
                Ok(())
            }
        }
    }

    /// Sorts out which segments make up the log; the rest are leftovers.
    fn select(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        mark: &Mark,
        numbers: Vec<u64>,
        mode: Mode,
    ) -> Result<Vec<u64>, Failure> {
        let newest = match mode {
            Mode::Strict(_) => mark.durable.segment,
            Mode::Cut(cut) => numbers.last().copied().unwrap_or(0).min(cut.segment),
        };
        let mut log = Vec::new();
        for number in numbers {
            if number < mark.oldest {
                self.leftovers.push(number);
            } else if number <= newest {
                log.push(number);
            } else {
                if matches!(mode, Mode::Strict(_)) {
                    self.check_unconfirmed(vfs, dir, mark, number)?;
                }
                self.leftovers.push(number);
            }
        }
        // Never collected: what the mark says may be any number.
        let mut expected = mark.oldest.max(1)..=newest;
        if log.iter().copied().eq(expected.clone()) {
            return Ok(log);
        }
        let missing = expected.find(|number| !log.contains(number));
        let missing = missing.unwrap_or(newest);
        match mode {
            Mode::Strict(_) => Err(rot_at(missing, 0, RotReason::SegmentMissing)),
            Mode::Cut(_) => {
                // What lies before the hole is the log, unless there is nothing before it.
                let first = log.first().copied().unwrap_or(0);
                let run = log
                    .iter()
                    .zip(first..)
                    .take_while(|(have, want)| *have == want);
                Ok(run.map(|(number, _)| *number).collect())
            }
        }
    }

    /// A segment behind the one that the mark names was being created when the process stopped: nothing in it was
    /// acknowledged. If more than its first batch is there, the mark is not what it was.
    fn check_unconfirmed(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        mark: &Mark,
        number: u64,
    ) -> Result<(), Failure> {
        let stale = rot_at(number, 0, RotReason::Mark);
        if number != mark.durable.segment + 1 {
            return Err(stale);
        }
        let file = vfs.open_read(&segment::path(dir, number))?;
        let bytes = read_to(file.as_ref(), number, u64::MAX)?;
        if let Ok((header, seed)) = SegmentHeader::decode(&bytes) {
            let mut scanner = Scanner::new(&bytes, header.number, seed);
            let more = match scanner.next_batch() {
                Ok(None) => false,
                Ok(Some(_)) => !matches!(scanner.next_batch(), Ok(None)),
                Err(damage) => {
                    let later = scanner.markers_after(damage);
                    later
                        .iter()
                        .any(|marker| marker.batch_start != damage.batch_start)
                }
            };
            if more {
                return Err(stale);
            }
        }
        self.report.torn_bytes += bytes.len() as u64;
        self.report.torn_at = Some(Place {
            segment: number,
            offset: 0,
        });
        Ok(())
    }

    fn open_all(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        numbers: &[u64],
    ) -> Result<Vec<Opened>, Failure> {
        let mut opened = Vec::new();
        for number in numbers {
            let number = *number;
            let file: Arc<dyn VfsFile> = Arc::from(vfs.open_read(&segment::path(dir, number))?);
            let bytes = read_to(file.as_ref(), number, HEADER_BYTES as u64)?;
            let (header, seed) = SegmentHeader::decode(&bytes).map_err(|error| {
                let newer = error.newer(LogFile::Segment(number)).map(Failure::Open);
                newer.unwrap_or_else(|| rot_at(number, 0, RotReason::SegmentHeader))
            })?;
            if header.number != number {
                return Err(rot_at(number, 0, RotReason::SegmentHeader));
            }
            self.check_identity(header.identity)?;
            if let Some(reason) = self.dictionaries.missing(header.dictionary) {
                return Err(rot_at(number, 0, reason));
            }
            opened.push(Opened { header, seed, file });
        }
        Ok(opened)
    }

    fn read_segments(&mut self, opened: &[Opened], mark: &Mark, mode: Mode) -> Result<(), Failure> {
        let dictionaries = Arc::clone(&self.dictionaries);
        let mut replay = Replay::new(&dictionaries);
        for (position, segment) in opened.iter().enumerate() {
            let next = opened.get(position + 1).map(|next| next.header);
            replay.begin_segment(
                segment.header.number,
                segment.header.dictionary,
                position == 0,
            );
            self.report.segments += 1;
            match next {
                Some(next) => self.read_sealed(segment, next, &mut replay)?,
                None => self.read_last(segment, mark, mode, &mut replay)?,
            }
        }
        let ops = self.forgive_or_fail(mark, &replay, mode)?;
        self.next_ticket = replay.next_ticket;
        self.groups = replay.groups;
        self.apply_forgiven(ops);
        self.report.entries = self.groups.values().map(GroupLog::len).sum();
        Ok(())
    }

    /// Every byte of a segment with a successor counts, up to where the successor says it ends.
    fn read_sealed(
        &mut self,
        segment: &Opened,
        next: SegmentHeader,
        replay: &mut Replay<'_>,
    ) -> Result<(), Failure> {
        let number = segment.header.number;
        let bytes = read_to(segment.file.as_ref(), number, next.previous_end)?;
        let mut scanner = Scanner::new(&bytes, number, segment.seed);
        while let Some(batch) = scanner.next_batch().map_err(|damage| rot(number, damage))? {
            replay
                .batch(&scanner, &batch)
                .map_err(|damage| rot(number, damage))?;
        }
        let (end, chain) = scanner.position();
        if end != next.previous_end {
            return Err(rot_at(number, end, RotReason::EndMissing));
        }
        if chain != next.previous_chain {
            return Err(rot_at(number + 1, 0, RotReason::Chain));
        }
        self.add_segment(segment, end);
        Ok(())
    }

    fn add_segment(&mut self, segment: &Opened, end: u64) {
        self.segments.insert(
            segment.header.number,
            OpenSegment {
                file: Arc::clone(&segment.file),
                seed: segment.seed,
                dictionary: segment.header.dictionary,
                end,
            },
        );
    }

    fn apply_forgiven(&mut self, ops: Vec<(GroupId, Op)>) {
        for (group, op) in &ops {
            self.groups.entry(*group).or_default().apply(op);
            self.forgiven.insert(*group);
        }
        self.tail.extend(ops);
    }

    /// Votes and entries that must be there but are not: an error, or in [`Mode::Cut`] made good by records
    /// that the new segment will begin with.
    fn forgive_or_fail(
        &self,
        mark: &Mark,
        replay: &Replay<'_>,
        mode: Mode,
    ) -> Result<Vec<(GroupId, Op)>, Failure> {
        let mut ops = Vec::new();
        let end = self.durable.map_or(mark.durable, |(place, _)| place);
        let strict = matches!(mode, Mode::Strict(_));
        for lost in replay.lost_votes(&mark.votes) {
            if strict {
                let reason = RotReason::VoteLost(lost.group);
                return Err(rot_at(end.segment, end.offset, reason));
            }
            let (vote, number) = (lost.vote, lost.number);
            ops.push((lost.group, Op::Vote { vote, number }));
        }
        for (group, op) in replay.holes() {
            if strict {
                let reason = RotReason::EntriesMissing(group);
                return Err(rot_at(mark.oldest, 0, reason));
            }
            ops.push((group, op));
        }
        Ok(ops)
    }
}

/// The first bytes of a segment's file, at most `limit`. What the disk does not give back is rot, to be cut where it begins.
pub(crate) fn read_to(file: &dyn VfsFile, number: u64, limit: u64) -> Result<Vec<u8>, Failure> {
    let len = file.len()?.min(limit);
    let mut bytes = vec![0; at(len)];
    let read = file.read_patiently_at(&mut bytes, 0).map_err(|error| {
        if error.is_unreadable() {
            let reason = RotReason::Unreadable(LogFile::Segment(number));
            rot_at(number, error.offset.unwrap_or(0), reason)
        } else {
            error.into()
        }
    })?;
    bytes.truncate(read);
    Ok(bytes)
}
