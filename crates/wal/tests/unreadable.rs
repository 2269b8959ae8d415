//! Sectors go bad: what the disk does not give back is rot, is never passed over by a start, and can be repaired around.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod common;

use std::{path::PathBuf, sync::Arc};

use common::{contents, dir, entry, open, open_with, payload, vote};
use vfs::{
    Op, SimDisk, Vfs,
    sim::{BLOCK_BYTES, Effect, Fault},
};
use wal::{
    GroupId, LogFile, OpenError, Place, ReadError, RotReason, ScrubPosition, Wal, WalOptions,
    inspect::{self, RecordKind, RepairReport, UnreadableBytes, Verdict},
};

const G: GroupId = GroupId(1);

fn segment(number: u64) -> PathBuf {
    dir().join(format!("{number:020}.wal"))
}

/// Several segments, the last of which holds several batches.
fn build(disk: &SimDisk) -> Wal {
    let options = WalOptions {
        segment_bytes: 4 << 10,
        cache_bytes: 0,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(disk, options).unwrap();
    wal.append_sync(G, vec![vote(3)]).unwrap();
    for index in 0..10 {
        let bytes = payload(1, index, 700);
        wal.append_sync(G, vec![entry(1, index, &bytes)]).unwrap();
    }
    assert!(wal.stats().segments >= 3);
    wal
}

/// Each sector of each segment, as an image in which it has gone bad.
fn images(disk: &SimDisk) -> Vec<(u64, u64, SimDisk)> {
    let mut all = Vec::new();
    for number in 1..=inspect::verify(disk, dir(), None).unwrap().segments {
        let len = disk.contents(&segment(number)).unwrap().len() as u64;
        for offset in (0..len).step_by(BLOCK_BYTES as usize) {
            let image = disk.crash_losing_all();
            let sector = offset..offset + 1;
            image.make_unreadable(&segment(number), sector).unwrap();
            all.push((number, offset, image));
        }
    }
    assert!(all.len() > 20, "{} sectors", all.len());
    all
}

fn rotten(disk: &SimDisk) -> (Place, RotReason) {
    match open_with(disk, WalOptions::small()) {
        Err(OpenError::Rotten { place, reason }) => (place, reason),
        Err(error) => panic!("{error}"),
        Ok((_, report)) => panic!("opened: {report:?}"),
    }
}

fn repair(disk: &SimDisk, accept_loss: bool) -> Result<RepairReport, OpenError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    inspect::repair(&vfs, dir(), None, WalOptions::small(), accept_loss)
}

#[test]
fn a_sector_that_is_not_given_back_is_rot_wherever_it_is() {
    let disk = SimDisk::new();
    // As a crash leaves it: the last batch is not marked durable, and the start's verdict is the same.
    drop(build(&disk));
    for (number, offset, image) in images(&disk) {
        let reason = RotReason::Unreadable(LogFile::Segment(number));
        let place = Place {
            segment: number,
            offset,
        };
        let files = |image: &SimDisk| {
            let mark = image.contents(&dir().join("mark")).unwrap();
            (image.contents(&segment(number)).unwrap(), mark)
        };
        let before = files(&image);
        for _again in 0..2 {
            assert_eq!(rotten(&image), (place, reason));
        }
        let judged = inspect::verify(&image, dir(), None).unwrap();
        assert_eq!(judged.verdict, Verdict::Rotten { place, reason });
        let [lost] = judged.unreadable.as_slice() else {
            panic!("{judged:?}");
        };
        assert_eq!(lost.file, LogFile::Segment(number));
        assert!(lost.bytes.contains(&offset), "{lost:?}");
        let error = repair(&image, false).unwrap_err();
        assert!(matches!(error, OpenError::Rotten { .. }), "{error}");
        assert_eq!(files(&image), before, "nothing is changed");
    }
}

#[test]
fn one_failed_read_is_no_verdict_and_other_errors_are_none_of_the_bytes() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let before = contents(&wal);
    wal.shutdown().unwrap();
    let reads = {
        let image = disk.crash_losing_all();
        open(&image);
        image.count(Op::Read)
    };
    for number in 0..reads {
        let image = disk.crash_losing_all();
        image.inject(Fault::after(Op::Read, number, Effect::Io));
        let (wal, report) = open(&image);
        assert_eq!(image.faults_waiting(), 0);
        assert_eq!(report.mark_slots_damaged, 0);
        assert_eq!(contents(&wal), before, "read {number}");
        // Any other error of a read ends the start, and is not called damage.
        let image = disk.crash_losing_all();
        image.inject(Fault::after(Op::Read, number, Effect::Quota));
        let error = open_with(&image, WalOptions::small()).unwrap_err();
        assert!(matches!(error, OpenError::Io(_)), "{error}");
    }
    for op in [Op::OpenRead, Op::Len, Op::List, Op::Exists] {
        let image = disk.crash_losing_all();
        image.inject(Fault::next(op, Effect::Io));
        let error = open_with(&image, WalOptions::small()).unwrap_err();
        assert!(matches!(error, OpenError::Io(_)), "{op}: {error}");
    }
}

#[test]
fn of_the_mark_one_slot_is_enough_and_it_is_whole_again_afterwards() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let before = contents(&wal);
    wal.shutdown().unwrap();
    let mark = dir().join("mark");
    for slot in [0, 64 << 10] {
        let image = disk.crash_losing_all();
        image.make_unreadable(&mark, slot..slot + 1).unwrap();
        let (wal, report) = open(&image);
        assert_eq!(report.mark_slots_damaged, 1);
        assert_eq!(contents(&wal), before);
        drop(wal);
        let (_, report) = open(&image.crash_losing_all());
        assert_eq!(report.mark_slots_damaged, 0);
        // Nothing is written behind the votes, and nothing is missed there.
        let image = disk.crash_losing_all();
        let behind = slot + (32 << 10);
        image.make_unreadable(&mark, behind..behind + 1).unwrap();
        assert_eq!(open(&image).1.mark_slots_damaged, 0);
    }
    let whole = disk.contents(&mark).unwrap().len() as u64;
    disk.make_unreadable(&mark, 0..whole).unwrap();
    assert_eq!(rotten(&disk).1, RotReason::Unreadable(LogFile::Mark));
    let judged = inspect::verify(&disk, dir(), None).unwrap();
    let lost = UnreadableBytes {
        file: LogFile::Mark,
        bytes: 0..whole,
    };
    assert_eq!(judged.unreadable, [lost]);
    repair(&disk, false).unwrap_err();
    repair(&disk, true).unwrap();
    assert_eq!(contents(&open(&disk).0), before);
}

#[test]
fn a_repair_goes_around_what_is_not_given_back_and_says_what_it_was() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let before = contents(&wal);
    wal.shutdown().unwrap();
    for (number, offset, image) in images(&disk) {
        let report = repair(&image, true).unwrap();
        assert!(report.changed);
        let [lost] = report.unreadable.as_slice() else {
            panic!("{number} {offset}: {report:?}");
        };
        assert_eq!(lost.file, LogFile::Segment(number));
        assert!(lost.bytes.contains(&offset), "{lost:?}");
        for path in &report.kept {
            let name = path.with_extension("");
            let copy = image.contents(path).unwrap();
            let original = disk.contents(&name.with_extension("wal")).unwrap();
            assert_eq!(copy.len(), original.len());
            let differs = (0..).zip(copy.iter().zip(&original));
            let differs = differs.filter(|(_, (copy, original))| copy != original);
            for (at, (copy, _)) in differs {
                assert!(*copy == 0 && lost.bytes.contains(&at), "byte {at}");
            }
        }
        let judged = inspect::verify(&image, dir(), None).unwrap();
        assert_eq!(judged.verdict, Verdict::Clean);
        let (wal, _) = open(&image);
        assert_eq!(wal.group(G).vote.map(|vote| vote.term), Some(3));
        let kept = contents(&wal).remove(&1).unwrap_or_default();
        assert!(before[&1].starts_with(&kept), "{number} {offset}");
        // Of the segments before nothing is lost.
        let first = before[&1].len() * usize::try_from(number - 1).unwrap() / 8;
        assert!(kept.len() >= first, "{number} {offset}: {}", kept.len());
        wal.append_sync(GroupId(5), vec![entry(1, 0, b"on")])
            .unwrap();
    }
}

#[test]
fn a_dump_lists_what_can_be_read() {
    let disk = SimDisk::new();
    build(&disk).shutdown().unwrap();
    let kinds = |disk: &SimDisk| {
        let mut kinds = Vec::new();
        inspect::dump(disk, dir(), &mut |record| kinds.push(record.kind.clone())).unwrap();
        kinds
    };
    let whole = kinds(&disk);
    let reason = RotReason::Unreadable(LogFile::Segment(2));
    disk.make_unreadable(&segment(2), 1024..1025).unwrap();
    let found = kinds(&disk);
    assert!(found.contains(&RecordKind::Damage { reason }));
    let is_segment = |kind: &&RecordKind| matches!(kind, RecordKind::Segment { .. });
    let segments = whole.iter().filter(is_segment).count();
    assert_eq!(found.iter().filter(is_segment).count(), segments);
}

#[test]
fn a_running_log_says_where_the_disk_fails() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    disk.make_unreadable(&segment(2), 1024..1025).unwrap();
    let mut at = Some(ScrubPosition::default());
    let error = loop {
        match wal.scrub(at.unwrap(), 300) {
            Ok(step) => at = step.next,
            Err(error) => break error,
        }
    };
    // The caller asks again before it calls it rot.
    for _again in 0..2 {
        let Err(ReadError::Io(error)) = wal.scrub(at.unwrap(), 300) else {
            panic!("it was read");
        };
        assert!(error.is_unreadable());
        assert_eq!((error.path, error.offset), (segment(2), Some(1024)));
    }
    assert!(matches!(error, ReadError::Io(_)), "{error}");
    let error = wal.read(G, 0..u64::MAX, u64::MAX).unwrap_err();
    assert!(matches!(&error, ReadError::Io(error) if error.is_unreadable()));
}
