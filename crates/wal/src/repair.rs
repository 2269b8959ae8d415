//! Making a damaged log usable again, at an operator's word.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use vfs::{Vfs, durable};

use crate::{
    error::{LogFile, OpenError},
    format::HEADER_BYTES,
    options::WalOptions,
    recover::{self, Failure, Mode, Recovered},
    reserve::Reserve,
    segment,
    types::{GroupId, GroupState, Identity, Place},
    unreadable::{self, UnreadableBytes},
    wal::LOCK_FILE,
    writer,
};

/// The suffix of copies of what a repair gave up.
const LOST_SUFFIX: &str = ".lost";

/// What [`repair`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairReport {
    /// Whether anything was changed.
    pub changed: bool,
    /// Where the log was cut; all behind it is gone from the log.
    pub cut: Option<Place>,
    /// Bytes behind the cut.
    pub dropped_bytes: u64,
    /// Groups for which votes had to be restored from the mark file, or entries given up because what covered them is gone.
    pub groups_forgiven: Vec<GroupId>,
    /// Copies of the files that were cut or taken out, for an expert.
    pub kept: Vec<PathBuf>,
    /// What the disk did not give back of them. A copy has zeros there; a file that was taken out whole is as it was.
    pub unreadable: Vec<UnreadableBytes>,
    /// The groups afterwards.
    pub groups: Vec<(GroupId, GroupState)>,
}

/// Repairs a log. A torn tail is dropped, which a start would do as well. Where acknowledged data is damaged nothing
/// is changed unless `accept_loss`: then the log is cut before the first damage, and everything behind it is
/// lost to this replica, acknowledged or not; the files are kept as copies.
///
/// A log that is clean, or rotten while loss is not accepted, is not changed; the latter is an error.
pub fn repair(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: Option<Identity>,
    options: WalOptions,
    accept_loss: bool,
) -> Result<RepairReport, OpenError> {
    let lock = vfs.lock_file(&dir.join(LOCK_FILE)).map_err(|error| {
        if error.is_locked() {
            let dir = dir.to_owned();
            return OpenError::Locked { dir };
        }
        error.into()
    })?;
    let mut report = RepairReport::default();
    let ambiguous = if accept_loss {
        crate::Ambiguous::Drop
    } else {
        crate::Ambiguous::Refuse
    };
    let log = match recover::read(vfs.as_ref(), dir, identity, Mode::Strict(ambiguous)) {
        Ok(log) => {
            // A start would cut it off, and keep no copy.
            if let Some(place) = log.report.ambiguous {
                keep_copy(vfs.as_ref(), dir, place.segment, &mut report)?;
            }
            report.cut = log.report.ambiguous.or(log.report.torn_at);
            report.dropped_bytes = log.report.torn_bytes + log.report.ambiguous_bytes;
            log
        }
        Err(failure @ Failure::Open(_)) => return Err(failure.into()),
        Err(Failure::Rot { place, reason, .. }) if !accept_loss => {
            return Err(OpenError::Rotten { place, reason });
        }
        Err(Failure::Rot { .. }) => cut(vfs.as_ref(), dir, identity, &mut report)?,
    };
    report.groups_forgiven = log.forgiven.iter().copied().collect();
    report.changed = report.cut.is_some() || !report.groups_forgiven.is_empty();
    let groups = log.groups.iter();
    report.groups = groups.map(|(group, log)| (*group, log.state())).collect();
    if let (true, Some(identity)) = (report.changed, log.identity) {
        let reserve = Reserve::new(dir, options.reserve_bytes);
        writer::start(Arc::clone(vfs), dir, identity, options, &reserve, log)?;
    }
    drop(lock);
    Ok(report)
}

/// Finds the longest undamaged beginning and puts copies of the rest aside.
fn cut(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: Option<Identity>,
    report: &mut RepairReport,
) -> Result<Recovered, OpenError> {
    let mut place = Place {
        segment: u64::MAX,
        offset: u64::MAX,
    };
    let mut log = loop {
        match recover::read(vfs, dir, identity, Mode::Cut(place)) {
            Ok(log) => break log,
            Err(failure @ Failure::Open(_)) => return Err(failure.into()),
            Err(Failure::Rot {
                place: at,
                cut,
                reason,
            }) => {
                let next = before(cut);
                if next >= place {
                    return Err(OpenError::Rotten { place: at, reason });
                }
                place = next;
            }
        }
    };
    let none = Place {
        segment: 0,
        offset: 0,
    };
    let end = log.durable.map_or(none, |(end, _)| end);
    report.cut = Some(end);
    for number in segment::list(vfs, dir)? {
        if number < end.segment {
            continue;
        }
        let path = segment::path(dir, number);
        let len = vfs.open_read(&path)?.len()?;
        if number == end.segment {
            if len > end.offset {
                report.dropped_bytes += len - end.offset;
                keep_copy(vfs, dir, number, report)?;
            }
            // A repair before may have written it and ended before it was synced, or its sync may have failed, after which
            // another one says nothing. What is written anew is durable.
            let bytes = recover::read_to(vfs.open_read(&path)?.as_ref(), number, end.offset)?;
            durable::replace(vfs, &path, &bytes)?;
        } else {
            report.dropped_bytes += len;
            // It is taken out as it is; this says what of it cannot be read.
            salvage(vfs, &path, number, report)?;
            let kept = free_name(vfs, &path)?;
            vfs.rename(&path, &kept)?;
            report.kept.push(kept);
        }
    }
    vfs.sync_dir(dir)?;
    log.leftovers.clear();
    Ok(log)
}

/// Puts a copy of a segment aside that stays in the log in part.
fn keep_copy(
    vfs: &dyn Vfs,
    dir: &Path,
    number: u64,
    report: &mut RepairReport,
) -> Result<(), OpenError> {
    let path = segment::path(dir, number);
    let bytes = salvage(vfs, &path, number, report)?;
    let kept = free_name(vfs, &path)?;
    durable::replace(vfs, &kept, &bytes)?;
    report.kept.push(kept);
    Ok(())
}

/// What the disk gives back of a segment, with zeros for the rest, of which the report is told.
fn salvage(
    vfs: &dyn Vfs,
    path: &Path,
    number: u64,
    report: &mut RepairReport,
) -> Result<Vec<u8>, OpenError> {
    let salvaged = vfs::salvage(vfs.open_read(path)?.as_ref())?;
    let lost = unreadable::of(LogFile::Segment(number), salvaged.unreadable);
    report.unreadable.extend(lost);
    Ok(salvaged.bytes)
}

/// Where what is lost of a segment is kept. Numbers behind a cut are used again, and what an earlier repair has put aside under one stays.
fn free_name(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf, OpenError> {
    let mut kept = path.with_extension(format!("wal{LOST_SUFFIX}"));
    let mut number = 2_u64;
    while vfs.exists(&kept)? {
        kept = path.with_extension(format!("wal.{number}{LOST_SUFFIX}"));
        number += 1;
    }
    Ok(kept)
}

/// A cut within a header means the end of the segment before.
const fn before(cut: Place) -> Place {
    if cut.offset >= HEADER_BYTES as u64 {
        return cut;
    }
    Place {
        segment: cut.segment.saturating_sub(1),
        offset: u64::MAX,
    }
}
