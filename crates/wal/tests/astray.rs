//! One write of a correct log is lost, or goes to another place, and the caller is told that it was written and synced: the disk lies.
//!
//! Each write is the one in turn, of a log that begins and of one that is opened again; the log ends with what was being written then, or
//! goes on for a batch, or to the end of the script. What a start has to say of it, and why:
//!
//! - Of a batch that another one follows, or that the mark covers, it is known that it was durable. The start refuses the log as rotten, at
//!   the place or before it. So it does where the header of a segment is gone, for the mark names each segment.
//! - Of the last batch nothing else on the disk speaks. It is missing like one that was never written, and what a misplaced write has
//!   overwritten looks like the torn beginning of it. The start comes up with what lies before the first byte that is wrong: some
//!   number of batches in the order in which they were acknowledged, without a hole, and nothing else in their place. It cannot know
//!   better, but it says how far it reaches ([`wal::RecoveryReport::found`]), and that is less than what was told before
//!   ([`Wal::durable_end`]): whoever has heard that knows that something is lost. Where the marker of an overwritten batch is whole, that
//!   batch is ambiguous, and refused here.
//! - The mark only says what must be there. An older one claims less, of a log that is whole: all is found, or the log is refused for it.
//!   Only a write into the other slot takes both of them. Then a segment that was just begun looks unconfirmed, and with it goes the
//!   one batch that a start had written again: again the last, and less than what was told.
#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use common::{Seen, dir, identity, open_with, seen};
use parking_lot::Mutex;
use vfs::{DirEntry, LockGuard, SimDisk, Vfs, VfsFile, sim::BLOCK_BYTES};
use wal::{Ambiguous, GroupId, OpenError, Place, Record, RotReason, Wal, WalOptions, Writer};

/// Bytes between the slots of the mark.
const SLOT_BYTES: i64 = 64 << 10;

/// What becomes of a write of which the caller hears nothing but good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stray {
    /// Nothing of it is there.
    Lost,
    /// Its first sector is not there.
    FirstSectorLost,
    /// It is there, but so many bytes away.
    Shifted(i64),
}

const STRAYS: [Stray; 8] = [
    Stray::Lost,
    Stray::FirstSectorLost,
    Stray::Shifted(512),
    Stray::Shifted(-512),
    Stray::Shifted(2048),
    Stray::Shifted(-2048),
    Stray::Shifted(SLOT_BYTES),
    Stray::Shifted(-SLOT_BYTES),
];

impl Stray {
    /// Where a write begins that should begin at `offset`; `None` where there is no such place.
    const fn begins_at(self, offset: u64) -> Option<u64> {
        match self {
            Self::Lost | Self::FirstSectorLost => Some(offset),
            Self::Shifted(by) => offset.checked_add_signed(by),
        }
    }

    /// Whether it takes one slot of the mark for the other.
    fn changes_slots(self) -> bool {
        [SLOT_BYTES, -SLOT_BYTES].map(Self::Shifted).contains(&self)
    }

    /// Whether it is something for this write, and nothing that another one is as well.
    fn can_befall(self, write: &Write) -> bool {
        let is_of_mark = write.segment().is_none();
        self.begins_at(write.offset).is_some() && (is_of_mark || !self.changes_slots())
    }
}

/// A write as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    path: PathBuf,
    offset: u64,
}

impl Write {
    /// The segment that it belongs to; `None` for the mark.
    fn segment(&self) -> Option<u64> {
        self.path.file_stem()?.to_str()?.parse().ok()
    }
}

/// The writes of a disk.
#[derive(Debug)]
struct Writes {
    asked: Vec<Write>,
    /// The number of the one that goes astray, and how.
    astray: Option<(usize, Stray)>,
}

impl Writes {
    /// Takes down a write, and says what becomes of it.
    fn ask(&mut self, path: &Path, offset: u64) -> Option<Stray> {
        let number = self.asked.len();
        let path = path.to_owned();
        self.asked.push(Write { path, offset });
        let due = self.astray.filter(|(astray, _)| *astray == number);
        due.map(|(_, stray)| stray)
    }
}

/// A disk that lets one write go astray, and says that all is well.
#[derive(Debug, Clone)]
struct LyingDisk {
    disk: SimDisk,
    writes: Arc<Mutex<Writes>>,
}

impl LyingDisk {
    fn new(disk: SimDisk, astray: Option<(usize, Stray)>) -> Self {
        let asked = Vec::new();
        let writes = Arc::new(Mutex::new(Writes { asked, astray }));
        Self { disk, writes }
    }

    /// Whether it has happened.
    fn has_lied(&self) -> bool {
        let writes = self.writes.lock();
        let count = writes.asked.len();
        writes.astray.is_some_and(|(astray, _)| astray < count)
    }

    fn lying(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        let writes = Arc::clone(&self.writes);
        Box::new(LyingFile { file, writes })
    }
}

impl Vfs for LyingDisk {
    fn create_new(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        Ok(self.lying(self.disk.create_new(path)?))
    }

    fn open_read(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        self.disk.open_read(path)
    }

    fn open_write(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        Ok(self.lying(self.disk.open_write(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> vfs::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> vfs::Result<()> {
        self.disk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> vfs::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> vfs::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> vfs::Result<Vec<DirEntry>> {
        self.disk.list_dir(path)
    }

    fn exists(&self, path: &Path) -> vfs::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> vfs::Result<()> {
        self.disk.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> vfs::Result<u64> {
        self.disk.free_space(path)
    }

    fn lock_file(&self, path: &Path) -> vfs::Result<LockGuard> {
        self.disk.lock_file(path)
    }
}

#[derive(Debug)]
struct LyingFile {
    file: Box<dyn VfsFile>,
    writes: Arc<Mutex<Writes>>,
}

impl VfsFile for LyingFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> vfs::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> vfs::Result<usize> {
        let stray = self.writes.lock().ask(self.file.path(), offset);
        let Some(stray) = stray else {
            return self.file.write_at(buf, offset);
        };
        match stray {
            Stray::Lost => {}
            Stray::FirstSectorLost => {
                let (_, rest) = buf.split_at(buf.len().min(BLOCK_BYTES as usize));
                self.file.write_all_at(rest, offset + BLOCK_BYTES)?;
            }
            Stray::Shifted(_) => {
                let place = stray.begins_at(offset).expect("a place in the file");
                self.file.write_all_at(buf, place)?;
            }
        }
        Ok(buf.len())
    }

    fn sync_data(&self) -> vfs::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> vfs::Result<()> {
        self.file.sync_all()
    }

    fn truncate(&self, len: u64) -> vfs::Result<()> {
        self.file.truncate(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> vfs::Result<()> {
        self.file.allocate(offset, len)
    }

    fn len(&self) -> vfs::Result<u64> {
        self.file.len()
    }
}

/// Small segments; what may be lost is not dropped, as peers have it.
fn plain() -> WalOptions {
    WalOptions {
        segment_bytes: 4 << 10,
        ambiguous: Ambiguous::Refuse,
        ..WalOptions::small()
    }
}

/// Where a file is as long after a write that was lost as before it.
fn reserving_ahead() -> WalOptions {
    WalOptions {
        preallocate_bytes: 4 << 10,
        ..plain()
    }
}

/// The batches of [`common::script`] that change something: hints do not.
fn script() -> &'static [(u64, Vec<Record>)] {
    static SCRIPT: OnceLock<Vec<(u64, Vec<Record>)>> = OnceLock::new();
    let is_hint = |record: &Record| matches!(record, Record::Committed(_));
    SCRIPT.get_or_init(|| {
        let all = common::script().into_iter();
        all.filter(|(_, batch)| !batch.iter().all(is_hint))
            .collect()
    })
}

/// Batches of the script that a log has which is opened again. Nothing says of the last of them that it was durable, so that the start
/// has to write it again.
const BEFORE: usize = 5;

/// Appends a batch of the script. Whether the mark is to cover it then.
fn append(wal: &Wal, number: usize) -> bool {
    let (group, batch) = &script()[number];
    let appended = wal.append_sync(GroupId(*group), batch.clone());
    appended.expect("the disk says that all is well");
    let is_idle = number % 5 == 3;
    if is_idle {
        wal.note_idle();
    }
    let is_marked = |record: &Record| matches!(record, Record::Vote(_) | Record::Remove);
    is_idle || batch.iter().any(is_marked)
}

/// The states after each number of batches, from a log that never fails.
fn states() -> &'static [Seen] {
    static STATES: OnceLock<Vec<Seen>> = OnceLock::new();
    STATES.get_or_init(|| {
        let (wal, _) = open_with(&SimDisk::new(), plain()).expect("opens");
        let mut states = vec![seen(&wal)];
        for number in 0..script().len() {
            append(&wal, number);
            states.push(seen(&wal));
        }
        states
    })
}

/// A log on a disk, and where it ended after each number of batches.
struct Left {
    disk: SimDisk,
    ends: Vec<Place>,
}

impl Left {
    /// By the first batches of the script and then a loss of power.
    fn after(batches: usize, options: &WalOptions) -> Self {
        let disk = SimDisk::new();
        let mut ends = vec![Place::default()];
        if batches > 0 {
            let (wal, _) = open_with(&disk, options.clone()).expect("opens");
            for number in 0..batches {
                append(&wal, number);
                ends.push(wal.durable_end());
            }
        }
        let disk = disk.crash_losing_all();
        Self { disk, ends }
    }
}

/// What a run left, of which all was acknowledged.
struct Run {
    disk: SimDisk,
    /// Where the log ended after each number of batches.
    ends: Vec<Place>,
    /// What was said last to be durable, and what the mark was last told of it.
    told: Place,
    marked: Place,
    /// Batches after the one in which a write went astray.
    after: usize,
    writes: Vec<Write>,
}

impl Run {
    fn acked(&self) -> usize {
        self.ends.len() - 1
    }
}

/// Opens a log and goes on with the script; after the write that goes astray for so many batches more.
fn run(left: &Left, options: &WalOptions, astray: Option<(usize, Stray)>, further: usize) -> Run {
    let disk = LyingDisk::new(left.disk.restart(), astray);
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let opened = Wal::open(vfs, dir(), identity(), options.clone(), Writer::Inline);
    let (wal, _) = opened.expect("opens");
    let mut ends = left.ends.clone();
    let (mut marked, mut after) = (wal.durable_end(), 0);
    for number in left.ends.len() - 1..script().len() {
        if disk.has_lied() {
            if after == further {
                break;
            }
            after += 1;
        }
        let is_marked = append(&wal, number);
        ends.push(wal.durable_end());
        if is_marked {
            marked = wal.durable_end();
        }
    }
    let writes = disk.writes.lock().asked.clone();
    Run {
        told: wal.durable_end(),
        disk: disk.disk,
        ends,
        marked,
        after,
        writes,
    }
}

/// What a start says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Rotten(RotReason),
    Ambiguous,
    /// Nothing, and the end of what was acknowledged is missing.
    Short,
    /// Nothing, and all is there.
    Whole,
}

/// Opens what is found when power is lost.
fn judge(
    run: &Run,
    image: &SimDisk,
    write: &Write,
    stray: Stray,
    what: &dyn std::fmt::Debug,
) -> Verdict {
    let begins_at = stray.begins_at(write.offset).expect("a place in the file");
    // The first byte that is not what it should be.
    let wrong = write.segment().map(|segment| Place {
        segment,
        offset: begins_at.min(write.offset),
    });
    let check_place = |place: Place| {
        let is_there = wrong
            .is_none_or(|wrong| place.segment == wrong.segment && place.offset <= wrong.offset);
        assert!(is_there, "{what:?}: at {place}, not at {wrong:?}");
    };
    match open_with(image, plain()) {
        Ok((wal, report)) => {
            let found = seen(&wal);
            drop(wal);
            let kept = check_kept(run, write, stray, wrong, (&found, report.found), what);
            // What it has come up with stays.
            let again = open_with(&image.crash_losing_all(), plain());
            let (wal, again) = again.unwrap_or_else(|error| panic!("{what:?}, again: {error}"));
            assert_eq!(seen(&wal), found, "{what:?}: second recovery differs");
            assert_eq!((again.torn_bytes, again.ambiguous), (0, None), "{what:?}");
            if kept < run.acked() {
                Verdict::Short
            } else {
                Verdict::Whole
            }
        }
        Err(OpenError::Rotten { place, reason }) => {
            check_place(place);
            Verdict::Rotten(reason)
        }
        Err(OpenError::Ambiguous { place }) => {
            check_place(place);
            let is_last = run.after == 0 && wrong.is_some();
            assert!(is_last, "{what:?}: it is known to have been durable");
            Verdict::Ambiguous
        }
        Err(error) => panic!("{what:?}: {error}"),
    }
}

/// How many batches were found by a start that refuses nothing, all of which must be right, and none missing that is known.
fn check_kept(
    run: &Run,
    write: &Write,
    stray: Stray,
    wrong: Option<Place>,
    (found, reaches): (&Seen, Place),
    what: &dyn std::fmt::Debug,
) -> usize {
    let acked = run.acked();
    let kept = states()[..=acked].iter().rposition(|state| state == found);
    let kept = kept.unwrap_or_else(|| panic!("{what:?}: never so: {found:#?}"));
    let lost = acked - kept;
    assert!(
        lost == 0 || reaches < run.told,
        "{what:?}: {lost} of {acked} lost without a word, {reaches} of {}",
        run.told
    );
    let Some(wrong) = wrong else {
        let most = usize::from(stray.changes_slots());
        assert!(lost <= most, "{what:?}: {lost} of {acked} lost");
        return kept;
    };
    if !run.disk.exists(&write.path).expect("says it") {
        assert_eq!(lost, 0, "{what:?}: nobody needed it any more");
        return kept;
    }
    assert!(
        run.after == 0 && lost > 0,
        "{what:?}: {lost} of {acked} lost, {} batches before the end",
        run.after
    );
    assert!(
        reaches >= run.marked,
        "{what:?}: {reaches} is less than what is marked, {}",
        run.marked
    );
    let untouched = run.ends.iter().rposition(|end| *end <= wrong).unwrap_or(0);
    assert!(kept >= untouched, "{what:?}: {kept} of {untouched} found");
    kept
}

fn every_write_goes_astray(options: &WalOptions) {
    let mut verdicts = Vec::new();
    for batches in [0, BEFORE] {
        let left = Left::after(batches, options);
        let sound = run(&left, options, None, 0);
        assert_eq!(sound.acked(), script().len());
        for (number, write) in sound.writes.iter().enumerate() {
            for stray in STRAYS.into_iter().filter(|stray| stray.can_befall(write)) {
                for further in [0, 1, usize::MAX] {
                    let run = run(&left, options, Some((number, stray)), further);
                    assert_eq!(run.writes[..=number], sound.writes[..=number]);
                    let images = [run.disk.crash_losing_all(), run.disk.crash_keeping_all()];
                    for (image, kept) in images.iter().zip(["lost", "kept"]) {
                        let what = (batches, number, write, stray, further, kept);
                        verdicts.push(judge(&run, image, write, stray, &what));
                    }
                }
            }
        }
    }
    for reason in [
        RotReason::SegmentHeader,
        RotReason::RecordHeader,
        RotReason::EndMissing,
        RotReason::Mark,
    ] {
        assert!(verdicts.contains(&Verdict::Rotten(reason)), "{reason}");
    }
    let count = |is: fn(&&Verdict) -> bool| verdicts.iter().filter(is).count();
    let rotten = count(|verdict| matches!(verdict, Verdict::Rotten(_)));
    let short = count(|verdict| matches!(verdict, Verdict::Short));
    let whole = count(|verdict| matches!(verdict, Verdict::Whole));
    let numbers = (rotten, short, whole);
    assert!(rotten > 100 && short > 30 && whole > 30, "{numbers:?}");
}

#[test]
fn a_write_that_goes_astray_is_rot_or_costs_the_end_of_the_log() {
    every_write_goes_astray(&plain());
}

#[test]
fn a_write_that_goes_astray_in_reserved_space_is_rot_or_costs_the_end_of_the_log() {
    every_write_goes_astray(&reserving_ahead());
}
