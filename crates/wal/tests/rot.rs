//! Bits flip, files vanish: what was acknowledged is never lost or changed without a word.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod common;

use common::{
    Seen, append, contents, dir, entry, id, identity, open, open_with, payload, script, seen, vote,
};
use vfs::{
    Op, SimDisk, Vfs,
    sim::{Effect, Fault},
};
use wal::{
    GroupId, LogFile, OpenError, ReadError, Record, RotReason, WalOptions,
    inspect::{self, Verdict},
};

const G: GroupId = GroupId(1);

fn segment(number: u64) -> std::path::PathBuf {
    dir().join(format!("{number:020}.wal"))
}

/// A small log with every kind of record, over two segments.
fn build(disk: &SimDisk) -> wal::Wal {
    let options = WalOptions {
        segment_bytes: 4 << 10,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(disk, options).unwrap();
    let batch = vec![vote(1), entry(1, 0, b""), entry(1, 1, &[b'a'; 2000])];
    wal.append_sync(G, batch).unwrap();
    wal.append_sync(GroupId(2), vec![entry(1, 0, &payload(2, 0, 1200))])
        .unwrap();
    wal.append_sync(G, vec![Record::Truncate { from_index: 1 }])
        .unwrap();
    wal.append_sync(G, vec![entry(2, 1, &payload(1, 1, 900))])
        .unwrap();
    wal.append_sync(G, vec![entry(2, 2, &payload(1, 2, 900)), vote(2)])
        .unwrap();
    let purge = Record::Purge {
        upto: id(1, 0),
        chain: None,
    };
    wal.append_sync(G, vec![purge]).unwrap();
    wal.append_sync(G, vec![Record::Committed(id(2, 1)), entry(2, 3, b"end")])
        .unwrap();
    assert!(wal.stats().segments >= 2);
    wal
}

#[test]
fn every_bit_of_a_marked_log_is_watched() {
    let disk = SimDisk::new();
    build(&disk).shutdown().unwrap();
    let healthy = inspect::verify(&disk, dir(), None).unwrap();
    assert_eq!(healthy.verdict, Verdict::Clean);
    let mut flipped = 0;
    for number in 1..=healthy.segments {
        let path = segment(number);
        for bit in 0..disk.contents(&path).unwrap().len() as u64 * 8 {
            disk.flip_bit(&path, bit).unwrap();
            let judged = inspect::verify(&disk, dir(), Some(identity())).unwrap();
            let Verdict::Rotten { place, .. } = judged.verdict else {
                panic!("bit {bit} of segment {number}: {:?}", judged.verdict);
            };
            assert_eq!(place.segment, number, "bit {bit}");
            assert!(place.offset <= bit / 8, "bit {bit}: {place}");
            if bit % 64 == 5 {
                let copy = disk.restart();
                let error = open_with(&copy, WalOptions::small()).unwrap_err();
                assert!(matches!(error, OpenError::Rotten { .. }), "{error}");
                let after = copy.contents(&path).unwrap();
                assert_eq!(after, disk.contents(&path).unwrap(), "nothing is cut");
            }
            disk.flip_bit(&path, bit).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 40_000, "{flipped} bits");
    assert_eq!(inspect::verify(&disk, dir(), None).unwrap(), healthy);
}

#[test]
fn every_bit_of_an_unmarked_last_batch_is_watched() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"marked"), vote(1)])
        .unwrap();
    wal.note_idle();
    let marked = disk.contents(&segment(1)).unwrap().len() as u64;
    let before = contents(&wal);
    let outcome = append(&wal, 1, vec![entry(2, 1, &payload(1, 4, 1500))]);
    outcome.lock().take().unwrap().unwrap();
    let len = disk.contents(&segment(1)).unwrap().len() as u64;
    drop(wal);
    let (mut torn, mut ambiguous) = (0, 0);
    for bit in marked * 8..len * 8 {
        let image = disk.crash_losing_all();
        image.flip_bit(&segment(1), bit).unwrap();
        let (wal, report) = open(&image);
        torn += u64::from(report.torn_bytes > 0);
        ambiguous += u64::from(report.ambiguous_bytes > 0 && report.ambiguous.is_some());
        assert_eq!(contents(&wal), before, "bit {bit}");
    }
    assert!(torn > 0 && ambiguous > 0);
    assert_eq!(torn + ambiguous, (len - marked) * 8);
}

#[test]
fn every_bit_of_the_mark_is_watched() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let before = contents(&wal);
    wal.shutdown().unwrap();
    let mark = dir().join("mark");
    let bytes = disk.contents(&mark).unwrap();
    for slot in [0, 64 << 10] {
        let len = u32::from_le_bytes(bytes[slot + 12..slot + 16].try_into().unwrap());
        let slot = slot as u64;
        for bit in slot * 8..(slot + 24 + u64::from(len)) * 8 {
            let image = disk.crash_losing_all();
            image.flip_bit(&mark, bit).unwrap();
            let opened = open_with(&image, WalOptions::small());
            let (wal, report) = opened.unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            assert_eq!(report.mark_slots_damaged, 1, "bit {bit}");
            assert_eq!(contents(&wal), before, "bit {bit}");
        }
    }
}

#[test]
fn a_bit_that_flips_under_a_running_log_is_noticed_by_the_reader() {
    let disk = SimDisk::new();
    let options = WalOptions {
        cache_bytes: 0,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(&disk, options).unwrap();
    wal.append_sync(G, vec![entry(1, 0, &payload(1, 0, 100))])
        .unwrap();
    let path = segment(1);
    let bytes = disk.contents(&path).unwrap();
    let stored = payload(1, 0, 100);
    let at = bytes
        .windows(100)
        .position(|window| window == stored)
        .unwrap() as u64;
    for bit in (at - 64) * 8..(at + 100) * 8 {
        disk.flip_bit(&path, bit).unwrap();
        let error = wal.read(G, 0..1, 1).unwrap_err();
        assert!(
            matches!(error, ReadError::Rotten { .. }),
            "bit {bit}: {error}"
        );
        disk.flip_bit(&path, bit).unwrap();
    }
    assert_eq!(wal.read(G, 0..1, 1).unwrap()[0].payload, stored);
}

fn rotten(disk: &SimDisk) -> (u64, RotReason) {
    match open_with(disk, WalOptions::small()) {
        Err(OpenError::Rotten { place, reason }) => (place.segment, reason),
        Err(error) => panic!("{error}"),
        Ok((_, report)) => panic!("opened: {report:?}"),
    }
}

#[test]
fn missing_swapped_and_recycled_files_are_noticed() {
    let disk = SimDisk::new();
    build(&disk).shutdown().unwrap();
    let last = inspect::verify(&disk, dir(), None).unwrap().segments;
    assert!(last >= 2);
    for number in 1..=last {
        let image = disk.crash_losing_all();
        image.remove_file(&segment(number)).unwrap();
        assert_eq!(rotten(&image), (number, RotReason::SegmentMissing));
    }
    let image = disk.crash_losing_all();
    image.remove_file(&dir().join("mark")).unwrap();
    assert_eq!(rotten(&image).1, RotReason::Mark);

    let image = disk.crash_losing_all();
    image.rename(&segment(1), &dir().join("x")).unwrap();
    image.rename(&segment(2), &segment(1)).unwrap();
    image.rename(&dir().join("x"), &segment(2)).unwrap();
    assert_eq!(rotten(&image), (1, RotReason::SegmentHeader));

    // Another log's segment of the same number.
    let other = SimDisk::new();
    build(&other).shutdown().unwrap();
    let (wal, _) = open(&other);
    wal.append_sync(G, vec![entry(3, 4, b"another life")])
        .unwrap();
    wal.shutdown().unwrap();
    let foreign = other.contents(&segment(1)).unwrap();
    let image = disk.crash_losing_all();
    image
        .edit(&segment(last), |bytes| {
            let len = bytes.len();
            bytes.clone_from(&foreign);
            bytes.resize(len, 0);
        })
        .unwrap();
    assert_eq!(rotten(&image), (last, RotReason::SegmentHeader));

    // A record that moved within its segment.
    let image = disk.crash_losing_all();
    image
        .edit(&segment(1), |bytes| bytes.copy_within(512..1024, 1024))
        .unwrap();
    assert_eq!(rotten(&image).0, 1);

    // A file cut short, or zeroed, below what was durable.
    for change in [512_usize, 1024] {
        let image = disk.crash_losing_all();
        image
            .edit(&segment(last), |bytes| bytes.truncate(change))
            .unwrap();
        assert_eq!(rotten(&image).0, last);
        let image = disk.crash_losing_all();
        image
            .edit(&segment(last), |bytes| bytes[change..].fill(0))
            .unwrap();
        assert_eq!(rotten(&image).0, last);
    }
}

#[test]
fn a_lost_vote_is_noticed() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![vote(1)]).unwrap();
    let old = disk.crash_losing_all();
    wal.append_sync(G, vec![vote(2)]).unwrap();
    // The segment goes back in time, the mark does not.
    let image = disk.crash_losing_all();
    let bytes = old.contents(&segment(1)).unwrap();
    image
        .edit(&segment(1), |now| now.clone_from(&bytes))
        .unwrap();
    assert_eq!(rotten(&image).0, 1);
}

#[test]
fn a_newer_format_is_refused_and_not_called_damage() {
    let disk = SimDisk::new();
    build(&disk).shutdown().unwrap();
    disk.edit(&segment(1), |bytes| {
        bytes[8] = 2;
        let mut crc = crc32fast::Hasher::new_with_initial(0x5761_6c48);
        crc.update(&bytes[..92]);
        bytes[92..96].copy_from_slice(&crc.finalize().to_le_bytes());
    })
    .unwrap();
    let error = open_with(&disk, WalOptions::small()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                file: LogFile::Segment(1),
                version: 2,
                known: 1
            }
        ),
        "{error}"
    );
}

/// What a start and a repair say of a log that must be refused, and that neither changes anything.
fn refused_as_newer(disk: &SimDisk) -> (LogFile, u32, u32) {
    let files = |disk: &SimDisk| -> Vec<Vec<u8>> {
        let listed = disk.list_dir(dir()).unwrap().into_iter();
        let paths = listed.map(|entry| dir().join(entry.name));
        paths.map(|path| disk.contents(&path).unwrap()).collect()
    };
    let before = files(disk);
    let vfs: std::sync::Arc<dyn Vfs> = std::sync::Arc::new(disk.clone());
    let repaired = inspect::repair(&vfs, dir(), None, WalOptions::small(), true);
    let told: Vec<_> = [
        open_with(disk, WalOptions::small()).map(drop),
        inspect::verify(disk, dir(), None).map(drop),
        repaired.map(drop),
    ]
    .into_iter()
    .map(|refused| {
        let Err(OpenError::NewerFormat {
            file,
            version,
            known,
        }) = refused
        else {
            panic!("{refused:?}");
        };
        (file, version, known)
    })
    .collect();
    assert!(told.iter().all(|found| *found == told[0]), "{told:?}");
    assert_eq!(files(disk), before);
    told[0]
}

#[test]
fn a_newer_mark_is_refused_and_a_flipped_version_is_rot() {
    let disk = SimDisk::new();
    build(&disk).shutdown().unwrap();
    let path = dir().join("mark");
    let slots = [0_usize, 64 << 10];
    let newer = disk.crash_losing_all();
    newer
        .edit(&path, |bytes| {
            for start in slots {
                bytes[start + 24] = 2;
                let len = bytes[start + 12..start + 16].try_into().unwrap();
                let len = u32::from_le_bytes(len) as usize;
                let mut crc = crc32fast::Hasher::new();
                crc.update(b"ACWALMRK");
                crc.update(&bytes[start + 16..start + 24]);
                crc.update(&(len as u64).to_le_bytes());
                crc.update(&bytes[start + 24..start + 24 + len]);
                let crc = crc.finalize().to_le_bytes();
                bytes[start + 8..start + 12].copy_from_slice(&crc);
            }
        })
        .unwrap();
    assert_eq!(refused_as_newer(&newer), (LogFile::Mark, 2, 1));
    for start in slots {
        disk.flip_bit(&path, (start as u64 + 24) * 8 + 1).unwrap();
    }
    assert_eq!(rotten(&disk).1, RotReason::Mark);
}

/// A log whose newest segment needs dictionary 1.
fn with_dictionary() -> (SimDisk, std::path::PathBuf) {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let text = |index: u64| format!("autocomplete record term=city-{} count={index}", index % 97);
    let write = |wal: &wal::Wal, from: u64| {
        let entries = (from..from + 500).map(|index| entry(1, index, text(index).as_bytes()));
        wal.append_sync(G, entries.collect()).unwrap();
    };
    write(&wal, 0);
    wal.shutdown().unwrap();
    inspect::train(&disk, dir(), 1 << 10).unwrap();
    let (wal, _) = open(&disk);
    write(&wal, 500);
    wal.shutdown().unwrap();
    (disk, dir().join("00000001.zdict"))
}

#[test]
fn a_newer_dictionary_is_refused_and_a_flipped_version_is_rot() {
    let (disk, path) = with_dictionary();
    let newer = disk.crash_losing_all();
    newer
        .edit(&path, |bytes| {
            bytes[8] = 2;
            let mut crc = crc32fast::Hasher::new_with_initial(1);
            crc.update(b"ACWALDIC");
            crc.update(&2_u32.to_le_bytes());
            crc.update(&bytes[24..]);
            let crc = crc.finalize().to_le_bytes();
            bytes[20..24].copy_from_slice(&crc);
        })
        .unwrap();
    assert_eq!(refused_as_newer(&newer), (LogFile::Dictionary(1), 2, 1));
    for bit in 0..32 {
        let image = disk.crash_losing_all();
        image.flip_bit(&path, 8 * 8 + bit).unwrap();
        assert_eq!(rotten(&image).1, RotReason::Dictionary(1), "bit {bit}");
    }
}

#[test]
fn a_dictionary_that_the_disk_does_not_give_back_is_rot_where_it_is_needed() {
    let (disk, path) = with_dictionary();
    disk.make_unreadable(&path, 0..1).unwrap();
    let reason = RotReason::Unreadable(LogFile::Dictionary(1));
    assert_eq!(rotten(&disk).1, reason);
    let found = inspect::verify(&disk, dir(), None).unwrap().unreadable;
    assert_eq!(found[0].file, LogFile::Dictionary(1));
    // Nobody needs this one.
    let other = SimDisk::new();
    let (wal, _) = open(&other);
    wal.append_sync(G, vec![entry(1, 0, b"a")]).unwrap();
    wal.shutdown().unwrap();
    vfs::durable::replace(&other, &path, b"of no use").unwrap();
    other.make_unreadable(&path, 0..1).unwrap();
    assert_eq!(contents(&open(&other).0)[&1].len(), 1);
}

#[test]
fn a_dictionary_that_zstd_cannot_load_is_rot_where_it_is_needed() {
    let (disk, path) = with_dictionary();
    disk.edit(&path, |bytes| {
        // What follows the magic number of zstd makes no sense.
        bytes[28..].fill(0xff);
        let mut crc = crc32fast::Hasher::new_with_initial(1);
        crc.update(b"ACWALDIC");
        crc.update(&bytes[24..]);
        let crc = crc.finalize().to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
    })
    .unwrap();
    assert_eq!(rotten(&disk).1, RotReason::Dictionary(1));
}

#[test]
fn repair_drops_a_torn_tail_and_asks_before_anything_else() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let before = contents(&wal);
    wal.shutdown().unwrap();
    let last = inspect::verify(&disk, dir(), None).unwrap().segments;
    let repair = |disk: &SimDisk, accept| {
        let vfs: std::sync::Arc<dyn Vfs> = std::sync::Arc::new(disk.clone());
        inspect::repair(&vfs, dir(), None, WalOptions::small(), accept)
    };
    let report = repair(&disk, true).unwrap();
    assert!(!report.changed && report.cut.is_none());

    let torn = disk.crash_losing_all();
    torn.edit(&segment(last), |bytes| bytes.extend_from_slice(b"garbage"))
        .unwrap();
    let report = repair(&torn, false).unwrap();
    assert!(report.changed);
    assert_eq!(report.dropped_bytes, 7);
    assert_eq!(
        inspect::verify(&torn, dir(), None).unwrap().verdict,
        Verdict::Clean
    );
    assert_eq!(contents(&open(&torn).0), before);

    for (number, byte) in [(1, 700), (1, 10), (last, 100), (last, 600)] {
        let rotten = disk.crash_losing_all();
        rotten.flip_bit(&segment(number), byte * 8).unwrap();
        let error = repair(&rotten, false).unwrap_err();
        assert!(matches!(error, OpenError::Rotten { .. }), "{error}");
        let report = repair(&rotten, true).unwrap();
        assert!(report.changed && !report.kept.is_empty());
        assert_eq!(
            inspect::verify(&rotten, dir(), None).unwrap().verdict,
            Verdict::Clean
        );
        let (wal, _) = open(&rotten);
        assert_eq!(
            wal.group(G).vote.map(|vote| vote.term),
            Some(2),
            "no promise is forgotten"
        );
        for (group, entries) in contents(&wal) {
            for entry in entries {
                let old = before.get(&group).unwrap();
                let known = old.contains(&entry)
                    || entry.payload == [b'a'; 2000][..]
                    || entry.payload.is_empty();
                assert!(known, "{entry:?} was never issued");
            }
        }
        wal.append_sync(GroupId(5), vec![entry(1, 0, b"on")])
            .unwrap();
    }
    let rotten = disk.crash_losing_all();
    rotten.remove_file(&dir().join("mark")).unwrap();
    repair(&rotten, false).unwrap_err();
    repair(&rotten, true).unwrap();
    assert_eq!(contents(&open(&rotten).0), before);
}

#[test]
fn what_one_repair_has_put_aside_the_next_one_leaves() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let mut oldest = wal.oldest_segment();
    wal.shutdown().unwrap();
    let repair = || {
        let vfs: std::sync::Arc<dyn Vfs> = std::sync::Arc::new(disk.clone());
        inspect::repair(&vfs, dir(), None, WalOptions::small(), true).unwrap()
    };
    let mut kept = std::collections::BTreeMap::new();
    for round in 0..3 {
        // The numbers behind the damage are given out again each time.
        disk.flip_bit(&segment(oldest), 700 * 8).unwrap();
        let report = repair();
        assert!(!report.kept.is_empty());
        for path in report.kept {
            let content = disk.contents(&path).unwrap();
            assert!(kept.insert(path, content).is_none(), "{round}");
        }
        for (path, content) in &kept {
            assert_eq!(&disk.contents(path).unwrap(), content, "{round}");
        }
        let (wal, _) = open(&disk);
        let next = wal.group(G).last.map_or(0, |last| last.index + 1);
        for index in next..next + 40 {
            let bytes = payload(9, index, 900);
            wal.append_sync(G, vec![entry(9, index, &bytes)]).unwrap();
        }
        oldest = wal.oldest_segment();
        wal.shutdown().unwrap();
    }
    assert!(kept.len() > 3, "{kept:?}");
}

/// Either slot of the mark rots, and the log is found as it was.
fn one_slot_is_enough(disk: &SimDisk, before: &Seen, what: &str) {
    for slot in [0, 64 << 10] {
        let image = disk.restart();
        let mark = dir().join("mark");
        image.flip_bit(&mark, (slot + 30) * 8).unwrap();
        let opened = open_with(&image, WalOptions::small());
        let (wal, report) =
            opened.unwrap_or_else(|error| panic!("slot at {slot}, {what}: {error}"));
        assert_eq!(report.mark_slots_damaged, 1, "slot at {slot}, {what}");
        assert_eq!(seen(&wal), *before, "slot at {slot}, {what}");
    }
}

#[test]
fn one_rotten_slot_of_the_mark_loses_nothing_after_a_restart() {
    for restarts in 1..4 {
        let disk = SimDisk::new();
        let (wal, _) = open(&disk);
        for index in 0..5 {
            wal.append_sync(G, vec![entry(1, index, &payload(1, index, 50))])
                .unwrap();
        }
        let before = seen(&wal);
        let mut disk = disk.crash_losing_all();
        for _ in 0..restarts {
            // Dropped, not shut down: the mark is as the start left it.
            drop(open(&disk));
            disk = disk.crash_losing_all();
        }
        one_slot_is_enough(&disk, &before, &format!("{restarts} starts"));
    }
}

#[test]
fn one_rotten_slot_of_the_mark_loses_nothing_after_any_batch() {
    let disk = SimDisk::new();
    let options = WalOptions {
        segment_bytes: 4 << 10,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(&disk, options).unwrap();
    for (number, (group, batch)) in script().into_iter().enumerate() {
        wal.append_sync(GroupId(group), batch).unwrap();
        if number % 5 == 3 {
            wal.note_idle();
        }
        let before = seen(&wal);
        for image in [disk.crash_losing_all(), disk.crash_keeping_all()] {
            one_slot_is_enough(&image, &before, &format!("batch {number}"));
        }
    }
    assert!(wal.stats().segments_deleted > 0);
}

#[test]
fn one_rotten_slot_of_the_mark_loses_nothing_after_a_start_that_failed() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![vote(1), entry(1, 0, b"kept")])
        .unwrap();
    let before = seen(&wal);
    let disk = disk.restart();
    disk.inject(Fault::next(Op::CreateNew, Effect::Io).on_path(".wal"));
    let error = open_with(&disk, WalOptions::small()).unwrap_err();
    assert!(matches!(error, OpenError::Io(_)), "{error}");
    one_slot_is_enough(&disk, &before, "the start failed");
}

#[test]
fn damage_before_a_batch_that_verifies_is_rot_though_nothing_is_marked() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let mut ends = vec![wal.durable_end().offset];
    for index in 0..3 {
        wal.append_sync(G, vec![entry(1, index, &payload(1, index, 1500))])
            .unwrap();
        ends.push(wal.durable_end().offset);
    }
    drop(wal);
    for bit in (ends[0] * 8..ends[2] * 8).step_by(7) {
        let image = disk.crash_losing_all();
        image.flip_bit(&segment(1), bit).unwrap();
        assert_eq!(rotten(&image).0, 1, "bit {bit}");
    }
}

/// With the newer slot gone, the older one must not name the segment before, behind which there would be nothing that it knows of.
#[test]
fn a_rotten_slot_of_the_mark_does_not_make_a_written_segment_look_unconfirmed() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let mut index = 0;
    while wal.stats().segments < 2 {
        wal.append_sync(G, vec![entry(1, index, &payload(1, index, 900))])
            .unwrap();
        index += 1;
    }
    let before = seen(&wal);
    drop(wal);
    one_slot_is_enough(&disk.crash_losing_all(), &before, "a segment has begun");
}

/// Nor must it ask for segments that nobody needed any more.
#[test]
fn a_rotten_slot_of_the_mark_does_not_make_a_deleted_segment_look_missing() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let mut index = 0;
    while wal.stats().segments < 3 {
        wal.append_sync(G, vec![entry(1, index, &payload(1, index, 900))])
            .unwrap();
        index += 1;
    }
    let purge = Record::Purge {
        upto: id(1, index - 2),
        chain: None,
    };
    wal.append_sync(G, vec![purge]).unwrap();
    assert_eq!(wal.stats().segments_deleted, 2);
    wal.note_idle();
    let before = seen(&wal);
    drop(wal);
    // The removals are durable.
    one_slot_is_enough(&disk.crash_keeping_all(), &before, "segments were deleted");
}
