//! Power is lost at every point of a workload, and of the recovery after it, and everything that was not
//! synced may be there or not. Whatever is found: acknowledged ⊆ recovered ⊆ issued, a prefix in the order
//! of the log, and recovering it once more changes nothing.
#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod common;

use common::{Dice, Seen, append, entry, files, open_with, payload, script, seen, vote};
use std::sync::Arc;
use vfs::{SimDisk, Vfs, sim::Fate, sim::PendingKind};
use wal::{
    Ambiguous, GroupId, OpenError, WalOptions,
    inspect::{self, Verdict},
};

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4 << 10,
        ..WalOptions::small()
    }
}

/// What a run left: the disk, the states after each batch, and how many batches were acknowledged.
struct Run {
    disk: SimDisk,
    states: Vec<Seen>,
    acked: usize,
}

/// Runs the script until the disk halts.
fn run(halt_after: Option<u64>) -> Run {
    let disk = SimDisk::new();
    disk.halt_after(halt_after);
    let mut run = Run {
        states: vec![Seen(Vec::new())],
        acked: 0,
        disk: disk.clone(),
    };
    let Ok((wal, _)) = open_with(&disk, options()) else {
        return run;
    };
    for (number, (group, batch)) in script().into_iter().enumerate() {
        let expected = expected_after(number + 1);
        let outcome = append(&wal, group, batch).lock().take();
        run.states.push(expected);
        match outcome {
            Some(Ok(())) => run.acked = run.states.len() - 1,
            Some(Err(_)) | None => break,
        }
        if number % 5 == 3 {
            wal.note_idle();
        }
    }
    run
}

/// The state after the first batches, from a log that never fails.
fn expected_after(count: usize) -> Seen {
    use std::sync::OnceLock;
    static STATES: OnceLock<Vec<Seen>> = OnceLock::new();
    let states = STATES.get_or_init(|| {
        let (wal, _) = open_with(&SimDisk::new(), options()).expect("opens");
        let mut states = vec![seen(&wal)];
        for (group, batch) in script() {
            wal.append_sync(GroupId(group), batch).expect("appends");
            states.push(seen(&wal));
        }
        states
    });
    states[count].clone()
}

/// Opens what a crash left and judges it; then once more.
fn check(run: &Run, image: &SimDisk, what: &dyn std::fmt::Debug) {
    let (wal, _) = open_with(image, options()).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let found = seen(&wal);
    let allowed = &run.states[run.acked..];
    assert!(
        allowed.contains(&found),
        "{what:?}: {} acked of {} issued, found {found:#?}",
        run.acked,
        run.states.len() - 1
    );
    drop(wal);
    let again = image.crash_losing_all();
    let (wal, report) = open_with(&again, options()).expect("second recovery");
    assert_eq!(seen(&wal), found, "{what:?}: second recovery differs");
    assert_eq!((report.torn_bytes, report.ambiguous), (0, None), "{what:?}");
    wal.append_sync(GroupId(77), vec![entry(1, 0, b"and it goes on")])
        .expect("appends");
}

fn images(disk: &SimDisk, samples: u64) -> Vec<(String, SimDisk)> {
    let pending = disk.pending();
    let mut images = Vec::new();
    if pending.len() <= 12 {
        for mask in 0..1_u32 << pending.len() {
            let mut bit = 0;
            let image = disk.crash_with(|_| {
                bit += 1;
                if mask >> (bit - 1) & 1 == 1 {
                    Fate::Kept
                } else {
                    Fate::Lost
                }
            });
            images.push((format!("kept {mask:b} of {pending:?}"), image));
        }
    } else {
        images.push(("lost all".to_owned(), disk.crash_losing_all()));
        images.push(("kept all".to_owned(), disk.crash_keeping_all()));
    }
    if !pending.is_empty() {
        for seed in 0..samples {
            images.push((
                format!("seed {seed} of {pending:?}"),
                disk.crash_seeded(seed),
            ));
        }
    }
    images
}

#[test]
fn power_lost_at_every_operation_with_every_subset_of_what_was_not_synced() {
    let all = run(None);
    assert_eq!(all.acked, script().len());
    let mutations = all.disk.mutations();
    assert!(mutations > 60, "{mutations} operations");
    let mut checked = 0;
    for halt in 0..=mutations {
        let run = run(Some(halt));
        for (what, image) in images(&run.disk, 40) {
            check(&run, &image, &(halt, what));
            checked += 1;
        }
    }
    assert!(checked > 2_000, "{checked} images");
}

#[test]
fn killed_at_every_operation_with_the_page_cache_intact() {
    let mutations = run(None).disk.mutations();
    for halt in 0..=mutations {
        let run = run(Some(halt));
        check(&run, &run.disk.restart(), &halt);
        // And power is lost right after that recovery.
        let image = run.disk.restart();
        drop(open_with(&image, options()).expect("opens"));
        check(&run, &image.crash_losing_all(), &halt);
    }
}

#[test]
fn power_lost_inside_recovery() {
    let mutations = run(None).disk.mutations();
    let mut dice = Dice::new(11);
    for halt in (0..=mutations).step_by(3) {
        let run = run(Some(halt));
        let first = match dice.below(3) {
            0 => run.disk.crash_keeping_all(),
            1 => run.disk.restart(),
            _ => run.disk.crash_seeded(dice.next()),
        };
        let needed = {
            let copy = first.restart();
            let before = copy.mutations();
            drop(open_with(&copy, options()).expect("opens"));
            copy.mutations() - before
        };
        for inside in 0..=needed {
            let halted = first.restart();
            halted.halt_after(Some(inside));
            drop(open_with(&halted, options()));
            for seed in 0..6 {
                let image = halted.crash_seeded(seed);
                check(&run, &image, &(halt, inside, seed));
            }
            check(&run, &halted.crash_keeping_all(), &(halt, inside, "all"));
            check(&run, &halted.restart(), &(halt, inside, "killed"));
        }
    }
}

#[test]
fn the_log_cut_at_every_byte() {
    let disk = SimDisk::new();
    let options = WalOptions::small();
    let (wal, _) = open_with(&disk, options.clone()).unwrap();
    let mut states = vec![(0, seen(&wal))];
    let path = common::dir().join("00000000000000000001.wal");
    for index in 0..12 {
        let bytes = payload(1, index, 10 + index as usize * 70);
        wal.append_sync(GroupId(1), vec![entry(1, index, &bytes)])
            .unwrap();
        states.push((disk.contents(&path).unwrap().len(), seen(&wal)));
    }
    let len = disk.contents(&path).unwrap().len();
    let first = 512;
    for cut in first..len {
        // Only what follows the last sync can be missing: a crash in the middle of the last write of a longer log.
        let image = disk.crash_keeping_all();
        image.edit(&path, |bytes| bytes.truncate(cut)).unwrap();
        let (wal, report) = open_with(&image, options.clone()).unwrap();
        let (end, expected) = states.iter().rev().find(|(end, _)| *end <= cut).unwrap();
        assert_eq!(seen(&wal), *expected, "cut at {cut}");
        let rest = image_bytes(&disk, &path, (*end).max(first)..cut);
        let garbage = rest.iter().any(|byte| *byte != 0);
        assert_eq!(report.torn_at.is_some(), garbage, "cut at {cut}");
    }
}

fn image_bytes(disk: &SimDisk, path: &std::path::Path, range: std::ops::Range<usize>) -> Vec<u8> {
    disk.contents(path).expect("file")[range].to_vec()
}

#[test]
fn a_batch_that_lacks_a_sector_before_its_marker_was_never_synced() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, options()).unwrap();
    wal.append_sync(GroupId(1), vec![entry(1, 0, b"durable")])
        .unwrap();
    let before = seen(&wal);
    // The next batch spans several sectors; power goes before its sync returns.
    let end = wal.durable_end();
    disk.halt_after(Some(1));
    // A client may write what looks like the beginning of a marker.
    let mut bytes = payload(1, 1, 1500);
    bytes[40..48].copy_from_slice(b"\xa7mark\x0d\x0a\x1a");
    let outcome = append(&wal, 1, vec![entry(1, 1, &bytes)]);
    assert!(outcome.lock().take().unwrap().is_err());
    let middle = disk
        .pending()
        .into_iter()
        .filter(|item| matches!(item.kind, PendingKind::Block { .. }))
        .nth(1)
        .unwrap();
    let with_middle =
        |fate| disk.crash_with(|item| if *item == middle { fate } else { Fate::Kept });
    let refusing = || WalOptions {
        ambiguous: Ambiguous::Refuse,
        ..options()
    };
    let (wal, report) = open_with(&with_middle(Fate::Lost), refusing()).unwrap();
    assert_eq!(report.ambiguous, None);
    assert!(report.torn_bytes > 1500);
    assert_eq!(report.found, end);
    assert_eq!(seen(&wal), before);

    // What else a sector may have instead says nothing of when.
    for fate in [Fate::Garbage(7), Fate::Torn(300)] {
        let image = with_middle(fate);
        let error = open_with(&image.restart(), refusing()).unwrap_err();
        assert!(matches!(error, OpenError::Ambiguous { .. }), "{error}");
        let (wal, report) = open_with(&image, options()).unwrap();
        assert!(report.ambiguous.is_some());
        assert!(report.ambiguous_bytes > 1500);
        assert_eq!(seen(&wal), before);
    }
}

#[test]
fn the_next_process_finds_all_that_was_durable() {
    let disk = SimDisk::new();
    let mut known = wal::Place::default();
    for round in 0..5 {
        let (wal, report) = open_with(&disk.crash_losing_all(), options()).unwrap();
        assert!(report.found >= known, "{} after {known}", report.found);
        assert!(wal.durable_end() > known);
        drop(wal);
        let (wal, report) = open_with(&disk, options()).unwrap();
        assert!(report.found >= known, "{} after {known}", report.found);
        for index in 0..4 {
            let before = wal.durable_end();
            let bytes = payload(1, index, 600);
            wal.append_sync(GroupId(1), vec![entry(1, 4 * round + index, &bytes)])
                .unwrap();
            known = wal.durable_end();
            assert!(known > before);
        }
        let (_, report) = open_with(&disk.crash_losing_all(), options()).unwrap();
        assert_eq!(report.found, known);
        if round % 2 == 0 {
            wal.shutdown().unwrap();
        }
    }
}

#[test]
fn a_refused_tail_can_be_refused_again_looked_at_and_then_dropped() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, options()).unwrap();
    wal.append_sync(GroupId(1), vec![vote(3), entry(1, 0, b"durable")])
        .unwrap();
    wal.append_sync(GroupId(2), vec![entry(1, 0, b"durable")])
        .unwrap();
    let before = seen(&wal);
    let last = common::dir().join("00000000000000000001.wal");
    let damaged = disk.contents(&last).unwrap().len() as u64 + 700;
    append(&wal, 1, vec![entry(1, 1, &payload(1, 1, 1500))]);
    drop(wal);
    let disk = disk.crash_losing_all();
    disk.flip_bit(&last, damaged * 8).unwrap();
    let found = files(&disk);
    let refusing = || WalOptions {
        ambiguous: Ambiguous::Refuse,
        ..options()
    };
    let mut places = Vec::new();
    for _ in 0..3 {
        match open_with(&disk, refusing()) {
            Err(OpenError::Ambiguous { place }) => places.push(place),
            other => panic!("{other:?}"),
        }
        assert_eq!(files(&disk), found);
        assert_eq!(files(&disk.crash_losing_all()), found);
    }
    places.dedup();
    assert_eq!(places.len(), 1);
    assert!(places[0].offset <= damaged);
    // Who must decide can see which groups there are.
    let report = inspect::verify(&disk, common::dir(), None).unwrap();
    let groups: Vec<GroupId> = report.groups.iter().map(|(group, _)| *group).collect();
    assert_eq!(groups, [GroupId(1), GroupId(2)]);
    assert_eq!(report.verdict, Verdict::Ambiguous { place: places[0] });
    // Who gives it up by word has a copy of it.
    let repaired = disk.crash_losing_all();
    let vfs: Arc<dyn Vfs> = Arc::new(repaired.clone());
    let report = inspect::repair(&vfs, common::dir(), None, options(), true).unwrap();
    assert_eq!((report.cut, report.kept.len()), (Some(places[0]), 1));
    let kept = repaired.contents(&report.kept[0]).unwrap();
    assert_eq!(kept, disk.contents(&last).unwrap());
    assert_eq!(seen(&open_with(&repaired, refusing()).unwrap().0), before);
    let (wal, report) = open_with(&disk, options()).unwrap();
    assert_eq!(report.ambiguous, Some(places[0]));
    assert_eq!(seen(&wal), before);
}
