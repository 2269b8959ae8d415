use std::path::Path;

use super::{
    Effect, Fate, Fault, Mishap, PendingKind, Run, SimDisk, every_mishap, every_mishap_twice,
};
use crate::{Op, TwoSlot, Vfs, VfsFile, durable};

fn path() -> &'static Path {
    Path::new("/dir/file")
}

/// A disk with an empty, durable file, open to write.
fn disk_with_file() -> (SimDisk, Box<dyn VfsFile>) {
    let disk = SimDisk::new();
    durable::create_dir(&disk, Path::new("/dir")).unwrap();
    let file = disk.create_new(path()).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    assert_eq!(disk.pending(), []);
    (disk, file)
}

#[test]
fn a_write_is_durable_after_a_sync_and_not_before() {
    let (disk, file) = disk_with_file();
    file.write_all_at(b"hello", 0).unwrap();
    assert_eq!(disk.contents(path()).unwrap(), b"hello");
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), b"");
    assert_eq!(disk.crash_keeping_all().contents(path()).unwrap(), b"hello");
    file.sync_data().unwrap();
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), b"hello");
}

#[test]
fn blocks_survive_one_by_one_and_in_any_version() {
    let (disk, file) = disk_with_file();
    file.write_all_at(&[1; 1536], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 1536], 0).unwrap();
    file.write_all_at(&[3; 512], 512).unwrap();
    let image = disk.crash_with(|item| match item.kind {
        PendingKind::Block { block: 0, .. } => Fate::Lost,
        PendingKind::Block { block: 1, versions } => {
            assert_eq!(versions, 2);
            Fate::Version(0)
        }
        PendingKind::Block { .. } => Fate::Torn(100),
        PendingKind::Len { .. } | PendingKind::Name => unreachable!(),
    });
    let bytes = image.contents(path()).unwrap();
    assert_eq!(bytes[..512], [1; 512]);
    assert_eq!(bytes[512..1024], [2; 512]);
    assert_eq!(bytes[1024..1124], [2; 100]);
    assert_eq!(bytes[1124..], [1; 412]);
}

#[test]
fn a_file_may_grow_without_its_data() {
    let (disk, file) = disk_with_file();
    file.write_all_at(&[9; 700], 0).unwrap();
    let image = disk.crash_with(|item| match item.kind {
        PendingKind::Len { .. } => Fate::Kept,
        PendingKind::Block { .. } | PendingKind::Name => Fate::Lost,
    });
    assert_eq!(image.contents(path()).unwrap(), [0; 700]);
}

#[test]
fn names_need_a_sync_of_their_directory() {
    let (disk, _) = disk_with_file();
    let new = Path::new("/dir/new");
    let file = disk.create_new(new).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_all().unwrap();
    assert!(!disk.crash_losing_all().exists(new).unwrap());
    assert_eq!(disk.crash_keeping_all().contents(new).unwrap(), b"x");
    disk.rename(new, path()).unwrap();
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), b"");
    disk.sync_dir(Path::new("/dir")).unwrap();
    let image = disk.crash_losing_all();
    assert_eq!(image.contents(path()).unwrap(), b"x");
    assert!(!image.exists(new).unwrap());
    disk.remove_file(path()).unwrap();
    assert!(disk.crash_losing_all().exists(path()).unwrap());
    assert!(!disk.crash_keeping_all().exists(path()).unwrap());
}

#[test]
fn a_renamed_file_may_be_found_without_the_data_nobody_synced() {
    let (disk, _) = disk_with_file();
    let new = Path::new("/dir/new");
    let file = disk.create_new(new).unwrap();
    file.write_all_at(b"unsynced", 0).unwrap();
    disk.rename(new, path()).unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), b"");
}

#[test]
fn a_failed_sync_marks_pages_clean_and_the_next_one_lies() {
    let (disk, file) = disk_with_file();
    file.write_all_at(b"lost", 0).unwrap();
    disk.inject(Fault::next(Op::SyncData, Effect::Io));
    file.sync_data().unwrap_err();
    file.sync_data()
        .expect("the second sync has nothing to write");
    assert_eq!(disk.contents(path()).unwrap(), b"lost");
    assert_eq!(disk.restart().contents(path()).unwrap(), b"lost");
    let image = disk.crash_keeping_all();
    assert_ne!(image.contents(path()).unwrap(), b"lost");
}

#[test]
fn capacity_gives_short_writes_then_no_space() {
    let (disk, file) = disk_with_file();
    disk.set_capacity(Some(100));
    assert_eq!(file.write_at(&[1; 80], 0).unwrap(), 80);
    assert_eq!(file.write_at(&[1; 80], 80).unwrap(), 20);
    let error = file.write_all_at(&[1; 1], 100).unwrap_err();
    assert!(error.is_disk_full());
    assert!(file.allocate(100, 1).unwrap_err().is_disk_full());
    assert_eq!(disk.free_space(path()).unwrap(), 0);
    file.truncate(10).unwrap();
    assert_eq!(disk.free_space(path()).unwrap(), 90);
    file.write_all_at(&[2; 90], 10).unwrap();
}

#[test]
fn scripted_faults_fire_once_where_they_are_told() {
    let (disk, file) = disk_with_file();
    disk.inject(Fault::after(Op::Write, 1, Effect::NoSpace).on_path("file"));
    disk.inject(Fault::next(Op::Write, Effect::Short(2)).on_path("other"));
    file.write_all_at(b"a", 0).unwrap();
    assert!(file.write_all_at(b"b", 1).unwrap_err().is_disk_full());
    file.write_all_at(b"c", 1).unwrap();
    assert_eq!(disk.faults_waiting(), 1);
    disk.halt_after(Some(1));
    file.write_all_at(b"d", 2).unwrap();
    file.write_all_at(b"e", 3).unwrap_err();
    assert!(disk.is_halted());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(disk.restart().contents(path()).unwrap(), b"acd");
}

#[test]
fn a_fault_that_was_taken_back_never_fires() {
    let (disk, file) = disk_with_file();
    disk.inject(Fault::next(Op::SyncData, Effect::Io));
    disk.inject(Fault::after(Op::Write, 1, Effect::NoSpace));
    file.write_all_at(b"a", 0).unwrap();
    assert_eq!(disk.take_back_faults(), 2);
    assert_eq!((disk.faults_waiting(), disk.take_back_faults()), (0, 0));
    file.write_all_at(b"b", 1).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), b"ab");
}

#[test]
fn one_seed_is_one_crash() {
    let (disk, file) = disk_with_file();
    for block in 0..40 {
        file.write_all_at(&[block; 512], u64::from(block) * 512)
            .unwrap();
    }
    let image = |seed| disk.crash_seeded(seed).contents(path()).unwrap();
    assert_eq!(image(1), image(1));
    assert!((2..10).any(|seed| image(seed) != image(1)));
}

/// Every crash of `work` at every operation, with every subset of at most 12 pending items.
fn every_crash(
    prepare: impl Fn(&SimDisk),
    work: impl Fn(&SimDisk),
    check: impl Fn(&SimDisk, bool),
) {
    let mut images = 0;
    let start = SimDisk::new();
    prepare(&start);
    let halted = |run: &Run<()>| match run.mishap {
        Mishap::None | Mishap::Halt { .. } => true,
        Mishap::Call { .. } => false,
    };
    for run in every_mishap(&start, work).filter(halted) {
        let done = !run.disk.is_halted();
        let pending = run.disk.pending().len();
        assert!(pending <= 12, "{pending} items");
        for image in run.disk.crash_subsets(12) {
            check(&image, done);
            images += 1;
        }
        check(&run.disk.restart(), done);
    }
    assert!(images > 5, "{images} images");
}

#[test]
fn a_replaced_file_is_old_or_new_after_any_crash() {
    let prepare = |disk: &SimDisk| {
        durable::create_dir(disk, Path::new("/dir")).unwrap();
        durable::replace(disk, path(), b"old content").unwrap();
    };
    let work = |disk: &SimDisk| {
        let _ = durable::replace(disk, path(), &[b'n'; 1100]);
    };
    every_crash(prepare, work, |image, done| {
        let found = image.contents(path()).unwrap();
        let new = found == [b'n'; 1100];
        assert!(new || (!done && found == b"old content"));
        durable::remove_temporaries(image, Path::new("/dir")).unwrap();
        assert_eq!(image.list_dir(Path::new("/dir")).unwrap().len(), 1);
    });
}

#[test]
fn a_directory_is_there_once_it_was_created_durably() {
    let deep = Path::new("/a/b/c");
    let work = |disk: &SimDisk| {
        let _ = durable::create_dir(disk, deep);
    };
    every_crash(
        |_| {},
        work,
        |image, done| {
            assert!(!done || image.exists(deep).unwrap());
        },
    );
}

#[test]
fn a_directory_that_exists_is_made_durable_wherever_it_is() {
    for dir in ["data", "/data", "deep/data"].map(Path::new) {
        let disk = SimDisk::new();
        durable::create_dir(&disk, durable::parent(dir)).unwrap();
        disk.create_dir_all(dir).unwrap();
        durable::create_dir(&disk, dir).unwrap();
        let image = disk.crash_with(|_| Fate::Lost);
        assert!(image.exists(dir).unwrap(), "{}", dir.display());
    }
}

#[test]
fn a_two_slot_file_is_old_or_new_after_any_crash() {
    let magic = *b"testslot";
    let create = |disk: &SimDisk| {
        durable::create_dir(disk, Path::new("/dir")).unwrap();
        TwoSlot::create(disk, path(), magic, 1024, 1, b"one").unwrap()
    };
    let work = |disk: &SimDisk| {
        let halted = disk.mutations();
        let mut slots = TwoSlot::create(disk, path(), magic, 1024, 4, &[b'4'; 900])?;
        slots.write(&[b'5'; 900])?;
        assert!(disk.mutations() > halted);
        slots.write(&[b'6'; 10])
    };
    every_crash(
        |disk| drop(create(disk)),
        |disk| drop(work(disk)),
        |image, done| {
            let found = TwoSlot::read(image, path(), magic, 1024).unwrap();
            let body = found.body.expect("one slot is valid");
            let known = match found.sequence {
                1 => body == b"one",
                4 => body == [b'4'; 900],
                5 => body == [b'5'; 900],
                6 => body == [b'6'; 10],
                _ => false,
            };
            assert!(
                known && (!done || found.sequence == 6),
                "{found:?}",
                found = found.sequence
            );
        },
    );
}

#[test]
fn a_two_slot_file_counts_damaged_slots() {
    let disk = SimDisk::new();
    let magic = *b"testslot";
    let file = Path::new("/slots");
    let mut slots = TwoSlot::create(&disk, file, magic, 512, 1, b"one").unwrap();
    let read = || TwoSlot::read(&disk, file, magic, 512).unwrap();
    assert_eq!((read().sequence, read().damaged), (1, 0));
    slots.write(b"two").unwrap();
    assert_eq!((read().sequence, read().damaged), (2, 0));
    disk.flip_bit(file, 9).unwrap();
    assert_eq!((read().sequence, read().damaged), (1, 1));
    disk.flip_bit(file, 512 * 8 + 200).unwrap();
    assert_eq!((read().body, read().damaged), (None, 2));
    slots.write(&[0; 600]).unwrap_err();
}

#[test]
fn a_two_slot_file_needs_no_room_to_be_rewritten() {
    for first in 1..3 {
        let disk = SimDisk::new();
        let path = Path::new("/slots");
        let mut slots = TwoSlot::create(&disk, path, *b"two-slot", 8192, first, b"short").unwrap();
        // Every block is written, not left a hole that needs room later.
        let written = disk.trace().into_iter().filter(|done| done.op == Op::Write);
        assert_eq!(written.map(|done| done.len).sum::<u64>(), 2 * 8192);
        disk.set_capacity(Some(disk.used_bytes()));
        for fill in 1..4_u8 {
            let body = vec![fill; 8192 - 24];
            slots.write(&body).unwrap();
            let found = TwoSlot::read(&disk, path, *b"two-slot", 8192).unwrap();
            assert_eq!(found.body.unwrap(), body);
            assert_eq!(found.damaged, 0);
        }
    }
}

#[test]
fn the_nth_call_of_any_kind_fails_once() {
    let (disk, file) = disk_with_file();
    disk.inject(Fault::nth(2, Effect::Io));
    assert_eq!(file.len().unwrap(), 0);
    file.write_all_at(b"a", 0).unwrap();
    let error = disk.exists(path()).unwrap_err();
    assert_eq!(error.op, Op::Exists);
    assert!(disk.exists(path()).unwrap());
    assert_eq!(disk.faults_waiting(), 0);
}

#[test]
fn everything_goes_wrong_once_and_nothing_twice() {
    let (disk, _) = disk_with_file();
    durable::replace(&disk, path(), b"old").unwrap();
    let work = |disk: &SimDisk| {
        let old = durable::read(disk, path(), 100)?;
        durable::replace(disk, path(), &[&old[..], b" and new"].concat())
    };
    let runs: Vec<_> = every_mishap(&disk, work).collect();
    let calls = runs[0].disk.trace();
    assert!(runs[0].outcome.is_ok() && runs[0].mishap == Mishap::None);
    let befell: Vec<Mishap> = runs.iter().map(|run| run.mishap).collect();
    for (number, call) in (0..).zip(&calls) {
        let op = call.op;
        for effect in Effect::possible(op) {
            let effect = effect.within(call.len);
            assert!(befell.contains(&Mishap::Call { number, op, effect }));
        }
    }
    let halts = befell.iter().filter(|at| matches!(at, Mishap::Halt { .. }));
    assert_eq!(halts.count() as u64, runs[0].disk.mutations());
    for run in &runs {
        let hit = run.disk.trace();
        let hit = hit.iter().filter(|call| call.fault.is_some()).count();
        let is_call = matches!(run.mishap, Mishap::Call { .. });
        assert_eq!(hit, usize::from(is_call), "{:?}", run.mishap);
        assert!(run.outcome.is_ok() || !run.mishap.is_harmless());
    }
    // The three bytes are not read at once, nor the eleven written.
    for effect in [1, 5].map(Effect::Short) {
        let short = |at: &&Mishap| matches!(at, Mishap::Call { effect: is, .. } if *is == effect);
        assert_eq!(befell.iter().filter(short).count(), 1, "{effect:?}");
    }
}

#[test]
fn what_goes_wrong_in_the_start_after_it_is_judged_by_what_was_promised() {
    let (disk, _) = disk_with_file();
    durable::replace(&disk, path(), b"old").unwrap();
    let mut judged = 0;
    let runs = every_mishap_twice(
        &disk,
        &None,
        |disk: &SimDisk, told: &mut Option<Vec<u8>>| {
            durable::replace(disk, path(), b"new")?;
            *told = Some(b"new".to_vec());
            Ok::<(), crate::Error>(())
        },
        |disk, told| {
            *told = Some(durable::read_settled(disk, path(), 100)?);
            Ok(())
        },
        |image, told, what| {
            let found = durable::read(image, path(), 100).unwrap();
            assert!(found == b"old" || found == b"new");
            assert!(told.as_ref().is_none_or(|told| *told == found), "{what:?}");
            judged += 1;
        },
    );
    assert!(judged > runs && runs > 300, "{judged} of {runs}");
}

#[test]
fn a_sync_without_room_loses_what_it_was_to_write() {
    let (disk, file) = disk_with_file();
    file.write_all_at(b"a", 0).unwrap();
    disk.inject(Fault::next(Op::SyncData, Effect::NoSpace));
    assert!(file.sync_data().unwrap_err().is_disk_full());
    file.sync_data().unwrap();
    assert_eq!(disk.contents(path()).unwrap(), b"a");
    assert_eq!(disk.crash_losing_all().contents(path()).unwrap(), [0]);
}

#[test]
fn what_waits_in_a_directory_goes_where_the_directory_goes() {
    let (disk, _) = disk_with_file();
    let (old, new) = (Path::new("/dir/sub"), Path::new("/dir/moved"));
    crate::durable::create_dir(&disk, old).unwrap();
    disk.create_new(&old.join("late")).unwrap();
    disk.rename(old, new).unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    crate::durable::create_dir(&disk, old).unwrap();
    disk.sync_dir(old).unwrap();
    for (image, is_there) in [
        (disk.crash_losing_all(), false),
        (disk.crash_keeping_all(), true),
    ] {
        assert!(!image.exists(&old.join("late")).unwrap());
        assert_eq!(image.exists(&new.join("late")).unwrap(), is_there);
    }
    disk.sync_dir(new).unwrap();
    let image = disk.crash_losing_all();
    assert!(image.exists(&new.join("late")).unwrap());
}

#[test]
fn a_bad_sector_stays_bad_until_it_is_written_whole() {
    let (disk, file) = disk_with_file();
    file.write_all_at(&[7; 2000], 0).unwrap();
    file.sync_all().unwrap();
    disk.make_unreadable(path(), 600..601).unwrap();
    let moved = Path::new("/dir/moved");
    disk.rename(path(), moved).unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    for disk in [disk.restart(), disk.crash_losing_all()] {
        let file = disk.open_write(moved).unwrap();
        let mut bytes = [0; 2000];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 512);
        for offset in [512, 1023] {
            let error = file.read_at(&mut bytes, offset).unwrap_err();
            assert!(error.is_unreadable(), "{error}");
            assert_eq!(error.offset, Some(offset));
        }
        assert_eq!(file.read_at(&mut bytes, 1024).unwrap(), 976);
        let error = file.read_full_at(&mut bytes, 100).unwrap_err();
        assert_eq!(error.offset, Some(512));
        let through = std::io::Error::from(error);
        assert!(crate::means_unreadable(&through));
        let salvaged = crate::salvage(file.as_ref()).unwrap();
        assert_eq!(salvaged.unreadable.len(), 1);
        assert_eq!(salvaged.unreadable[0], 512..2000);
        assert_eq!(salvaged.bytes, [[7; 512].as_slice(), &[0; 1488]].concat());
        file.write_all_at(&[8; 100], 600).unwrap_err();
        file.write_all_at(&[8; 512], 512).unwrap();
        assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 2000);
        assert_eq!(bytes[512..1024], [8; 512]);
    }
}

#[test]
fn a_refused_read_is_tried_once_more_and_a_stream_gives_nothing_of_it() {
    let (disk, file) = disk_with_file();
    file.write_all_at(&[7; 700], 0).unwrap();
    let mut bytes = [0; 700];
    disk.inject(Fault::next(Op::Read, Effect::Io));
    assert_eq!(file.read_patiently_at(&mut bytes, 0).unwrap(), 700);
    for _ in 0..2 {
        disk.inject(Fault::next(Op::Read, Effect::Io));
    }
    let error = file.read_patiently_at(&mut bytes, 0).unwrap_err();
    assert!(error.is_unreadable(), "{error}");
    disk.inject(Fault::next(Op::Read, Effect::Quota));
    let error = file.read_patiently_at(&mut bytes, 0).unwrap_err();
    assert!(!error.is_unreadable(), "{error}");

    let mut reader = crate::FileReader::new(file);
    let mut read = Vec::new();
    disk.inject(Fault::next(Op::Read, Effect::Io));
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap_err();
    assert_eq!((reader.position(), read.len()), (0, 0));
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert_eq!(read, [7; 700]);
}
