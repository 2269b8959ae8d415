//! Every single call to the disk fails once: of a workload, of the recovery after it, and of a repair.
//!
//! At each number of an operation, reads included, exactly that one fails with an input/output error, for want of space, or
//! does only a part of what it was asked for. The log then goes on, or says that it does not. After a restart, with the page
//! cache and after power was lost: acknowledged ⊆ recovered ⊆ issued, and a second recovery changes nothing; nor
//! does power that is lost when the log has gone on. What a repair leaves, also where the process ends or power is lost anywhere in
//! it, a start refuses, or it finds what the whole repair would have left; and another repair leaves that.
#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod common;

use std::sync::{Arc, OnceLock};

use common::{Seen, dir, entry, files, id, open_with, payload, seen, vote};
use vfs::{
    SimDisk, Vfs,
    sim::{Effect, Fault, Mishap, every_mishap},
};
use wal::{
    AppendError, GroupId, LogId, OpenError, Record, Wal, WalOptions,
    inspect::{self, RepairReport},
};

/// Small segments, nothing cached, so that reads ask the disk.
fn plain() -> WalOptions {
    WalOptions {
        segment_bytes: 4 << 10,
        cache_bytes: 0,
        ..WalOptions::small()
    }
}

/// The same with all that a full disk needs.
fn reserving() -> WalOptions {
    WalOptions {
        reserve_bytes: 64 << 10,
        low_water_bytes: 16 << 10,
        high_water_bytes: 32 << 10,
        preallocate_bytes: 4 << 10,
        ..plain()
    }
}

/// One step of the workload.
enum Step {
    Append(u64, Vec<Record>),
    /// Nothing waits: the mark is moved.
    Idle,
    /// All that is there is read, and verified as at rest.
    Read,
    /// The log is closed and opened again.
    Reopen,
}

/// All there is to do, over several segments, some of which are retired.
fn script() -> Vec<Step> {
    let purge = |term, index| Record::Purge {
        upto: id(term, index),
        chain: None,
    };
    let text = |index: u64| payload(1, index, 300);
    let add = Step::Append;
    vec![
        add(1, vec![vote(1), entry(1, 0, b"")]),
        add(1, vec![entry(1, 1, &text(1)), entry(1, 2, &text(2))]),
        add(2, vec![entry(1, 0, &payload(2, 0, 1500))]),
        Step::Idle,
        add(1, vec![Record::Committed(id(1, 1))]),
        add(1, vec![Record::Truncate { from_index: 2 }, vote(2)]),
        add(1, vec![entry(2, 2, &text(3))]),
        Step::Read,
        add(1, vec![purge(1, 1)]),
        add(2, vec![entry(1, 1, &payload(2, 1, 3000))]),
        Step::Reopen,
        add(3, vec![vote(9)]),
        add(2, vec![purge(1, 1)]),
        add(1, vec![purge(7, 40), entry(8, 41, &text(9))]),
        add(3, vec![Record::Remove]),
        add(2, vec![vote(4), entry(2, 2, &payload(2, 3, 1700))]),
        Step::Read,
        Step::Idle,
        Step::Reopen,
        add(1, vec![entry(8, 42, &payload(1, 42, 900))]),
    ]
}

/// The states after each number of batches, from a log that never fails.
fn states() -> &'static [Seen] {
    static STATES: OnceLock<Vec<Seen>> = OnceLock::new();
    STATES.get_or_init(|| {
        let (wal, _) = open_with(&SimDisk::new(), plain()).expect("opens");
        let mut states = vec![seen(&wal)];
        for step in script() {
            if let Step::Append(group, batch) = step {
                wal.append_sync(GroupId(group), batch).expect("appends");
                states.push(seen(&wal));
            }
        }
        states
    })
}

/// What a run left.
struct Run {
    disk: SimDisk,
    /// Batches that were acknowledged, and that were given to the log.
    acked: usize,
    issued: usize,
    /// Whether it came to its end.
    whole: bool,
}

/// Runs the script on a disk until the log fails.
fn run(disk: &SimDisk, options: &WalOptions) -> Run {
    let mut run = Run {
        disk: disk.clone(),
        acked: 0,
        issued: 0,
        whole: false,
    };
    let Ok((mut wal, _)) = open_with(disk, options.clone()) else {
        return run;
    };
    for step in script() {
        match step {
            Step::Append(group, batch) => {
                run.issued += 1;
                if !append(&wal, GroupId(group), &batch) {
                    return run;
                }
                run.acked = run.issued;
                assert_eq!(wal.groups(), groups_of(&states()[run.acked]));
            }
            Step::Idle => wal.note_idle(),
            Step::Read => read(&wal, &states()[run.acked]),
            Step::Reopen => {
                drop(wal);
                let Ok((again, _)) = open_with(disk, options.clone()) else {
                    return run;
                };
                wal = again;
                read(&wal, &states()[run.acked]);
            }
        }
    }
    // Marking failed when nothing waited, which has nobody to tell but the next who asks.
    run.whole = !wal.is_poisoned();
    run
}

fn groups_of(state: &Seen) -> Vec<GroupId> {
    state.0.iter().map(|(group, ..)| *group).collect()
}

/// Whether the batch was acknowledged. One that has no room is not applied and comes again; a log that fails says so to everybody.
fn append(wal: &Wal, group: GroupId, batch: &[Record]) -> bool {
    let again = match wal.append_sync(group, batch.to_vec()) {
        Ok(()) => return true,
        Err(AppendError::DiskFull) => {
            wal.refresh().expect("there is room again");
            wal.append_sync(group, batch.to_vec())
        }
        Err(failed) => Err(failed),
    };
    if again.is_ok() {
        return true;
    }
    assert!(wal.is_poisoned(), "{again:?}");
    let late = wal.append_sync(GroupId(5), vec![vote(1)]);
    assert!(matches!(late, Err(AppendError::Poisoned)), "{late:?}");
    false
}

/// What can be read is right; a read that fails says so, and the next one is right.
fn read(wal: &Wal, expected: &Seen) {
    for (group, state, entries) in &expected.0 {
        let found = wal.read(*group, 0..u64::MAX, u64::MAX);
        let found = found.or_else(|_| wal.read(*group, 0..u64::MAX, u64::MAX));
        assert_eq!(found.expect("fails once"), *entries);
        let last = wal.group(*group).last;
        assert_eq!(
            last.map(|id: LogId| id.index),
            state.last.map(|id| id.index)
        );
    }
}

/// What a restart finds, with the page cache and without.
fn images(disk: &SimDisk) -> Vec<(&'static str, SimDisk)> {
    vec![
        ("killed", disk.restart()),
        ("lost all", disk.crash_losing_all()),
        ("kept all", disk.crash_keeping_all()),
        ("some", disk.crash_seeded(1)),
    ]
}

/// Opens what was left, which may be any state that was issued and not less than what was acknowledged; goes on with it, loses power
/// and opens it again.
fn check(run: &Run, image: &SimDisk, options: &WalOptions, what: &dyn std::fmt::Debug) {
    let opened = open_with(image, options.clone());
    let (wal, _) = opened.unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let found = seen(&wal);
    let allowed = &states()[run.acked..=run.issued];
    assert!(
        allowed.contains(&found),
        "{what:?}: {} acked of {} issued, found {found:#?}",
        run.acked,
        run.issued
    );
    let more = vec![entry(1, 0, b"and it goes on")];
    wal.append_sync(GroupId(77), more).expect("appends");
    let after = seen(&wal);
    drop(wal);
    let again = image.crash_losing_all();
    let opened = open_with(&again, options.clone());
    let (wal, report) = opened.unwrap_or_else(|error| panic!("{what:?}, again: {error}"));
    assert_eq!(seen(&wal), after, "{what:?}: second recovery differs");
    assert_eq!((report.torn_bytes, report.ambiguous), (0, None), "{what:?}");
}

fn every_call_of_a_workload(options: &WalOptions) {
    let sound = run(&SimDisk::new(), options);
    assert!(sound.whole);
    assert_eq!(sound.acked + 1, states().len());
    let calls = sound.disk.calls();
    assert!(calls.len() > 150, "{} calls", calls.len());
    for (number, op) in (0..).zip(calls) {
        for effect in Effect::possible(op) {
            let disk = SimDisk::new();
            disk.inject(Fault::nth(number, effect));
            let run = run(&disk, options);
            let what = (number, op, effect);
            assert_eq!(run.disk.faults_waiting(), 0, "{what:?}");
            if matches!(effect, Effect::Short(_)) {
                assert!(run.whole, "{what:?}: the rest is asked for");
            }
            for (image, disk) in images(&run.disk) {
                check(&run, &disk, options, &(what, image));
            }
        }
    }
}

#[test]
fn every_call_of_a_workload_fails_once() {
    every_call_of_a_workload(&plain());
}

#[test]
fn every_call_of_a_workload_with_a_reserve_fails_once() {
    every_call_of_a_workload(&reserving());
}

/// Recovers a log that a crash left, with one call failing; then what that leaves is recovered like any other.
fn recovery_fails(run: &Run, left: &SimDisk, options: &WalOptions, place: &dyn std::fmt::Debug) {
    let sound = left.restart();
    drop(open_with(&sound, options.clone()).expect("opens"));
    for (number, op) in (0..).zip(sound.calls()) {
        for effect in Effect::possible(op) {
            let disk = left.restart();
            disk.inject(Fault::nth(number, effect));
            let opened = open_with(&disk, options.clone());
            let what = (place, number, op, effect);
            if matches!(effect, Effect::Short(_)) {
                assert!(opened.is_ok(), "{what:?}: the rest is asked for");
            }
            drop(opened);
            check(run, &disk.restart(), options, &(&what, "killed"));
            check(run, &disk.crash_losing_all(), options, &(&what, "lost all"));
        }
    }
}

#[test]
fn every_call_of_a_recovery_fails_once() {
    let options = plain();
    let mutations = run(&SimDisk::new(), &options).disk.mutations();
    for halt in (0..=mutations).step_by(7) {
        let disk = SimDisk::new();
        disk.halt_after(Some(halt));
        let run = run(&disk, &options);
        let left = disk.crash_seeded(halt);
        recovery_fails(&run, &left, &options, &halt);
    }
}

#[test]
fn every_call_of_a_recovery_from_the_page_cache_fails_once() {
    let options = reserving();
    let mutations = run(&SimDisk::new(), &options).disk.mutations();
    for halt in (3..=mutations).step_by(11) {
        let disk = SimDisk::new();
        disk.halt_after(Some(halt));
        let run = run(&disk, &options);
        recovery_fails(&run, &disk.restart(), &options, &halt);
    }
}

/// The segments of a log.
fn segments(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut files = files(disk);
    files.retain(|(name, _)| name.ends_with(".wal"));
    files
}

/// A log of several segments that is damaged in one that others follow, at the beginning of one, or in its last batch, or has lost its mark.
fn damaged() -> Vec<SimDisk> {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, plain()).expect("opens");
    for index in 0..12 {
        // A vote in each, so that some are lost with whatever is cut.
        let added = entry(index + 1, index, &payload(1, index, 900));
        wal.append_sync(GroupId(1), vec![vote(index + 1), added])
            .expect("appends");
    }
    // Not shut down: whether the last batch is durable is not marked.
    drop(wal);
    let sound = disk.crash_losing_all();
    let segments = segments(&sound);
    let [_, second, third, .., last] = segments.as_slice() else {
        panic!("{} segments", segments.len());
    };
    let flipped = [
        (second, second.1.len() / 2),
        (third, 10),
        (last, last.1.len() - 1000),
    ];
    let flipped = flipped.map(|((name, _), byte)| {
        let disk = sound.restart();
        let flipped = disk.flip_bit(&dir().join(name), 8 * byte as u64);
        flipped.expect("is there");
        disk
    });
    let unmarked = sound.restart();
    let removed = unmarked.remove_file(&dir().join("mark"));
    removed.expect("is there");
    let mut damaged = Vec::from(flipped);
    damaged.push(unmarked.crash_keeping_all());
    damaged
}

fn repair(disk: &SimDisk) -> Result<RepairReport, OpenError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    inspect::repair(&vfs, dir(), None, plain(), true)
}

/// Opens what a repair left, which is refused or as expected, and says which; then repairs it to its end. Of what was there before
/// every segment is there, or a copy of it.
fn check_repair(
    image: &SimDisk,
    before: &[(String, Vec<u8>)],
    expected: &Seen,
    what: &dyn std::fmt::Debug,
) -> bool {
    let is_open = match open_with(&image.restart(), plain()) {
        Ok((wal, _)) => {
            assert_eq!(seen(&wal), *expected, "{what:?}");
            true
        }
        Err(OpenError::Rotten { .. }) => false,
        Err(error) => panic!("{what:?}: {error}"),
    };
    let again = repair(image);
    let again = again.unwrap_or_else(|error| panic!("{what:?}, again: {error}"));
    let left = files(image);
    for (name, bytes) in before {
        let is_kept = left.iter().any(|(_, found)| found == bytes);
        assert!(is_kept, "{what:?}: {name} is gone");
    }
    let opens = |disk: &SimDisk, then: &str| {
        let opened = open_with(disk, plain());
        let (wal, _) = opened.unwrap_or_else(|error| panic!("{what:?}, {then}: {error}"));
        assert_eq!(seen(&wal), *expected, "{what:?}, {then}");
    };
    if again.changed {
        opens(&image.crash_losing_all(), "repaired, and power lost");
    }
    // Nothing was to be repaired: the start makes durable what it finds.
    let started = image.restart();
    opens(&started, "repaired");
    opens(&started.crash_losing_all(), "started, and power lost");
    is_open
}

#[test]
fn every_call_of_a_repair_fails_once() {
    for (number, damaged) in damaged().into_iter().enumerate() {
        let before = segments(&damaged);
        let whole = damaged.restart();
        assert!(repair(&whole).expect("repairs").changed, "{number}");
        let (wal, _) = open_with(&whole, plain()).expect("opens");
        let expected = seen(&wal);
        let mut halts = 0;
        for run in every_mishap(&damaged, repair) {
            let is_done = run.outcome.is_ok();
            let what = (number, run.mishap);
            assert!(is_done || !run.mishap.is_harmless(), "{what:?}");
            let images = match run.mishap {
                Mishap::Halt { .. } => {
                    halts += 1;
                    run.images()
                }
                Mishap::None | Mishap::Call { .. } => run.plain_images().into(),
            };
            for image in images {
                let is_open = check_repair(&image, &before, &expected, &what);
                assert!(is_open || !is_done, "{what:?}: {:?}", run.outcome);
            }
        }
        assert!(halts > 10, "{number}: {halts}");
    }
}
