//! The disk fails while the log runs.
#![expect(clippy::expect_used, reason = "a test helper may panic")]
#![expect(clippy::disallowed_methods, reason = "the threads of a test")]

mod common;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use common::{
    Outcome, Work, append, contents, dir, entry, id, identity, open, open_with, payload, vote,
};
use vfs::{
    Op, SimDisk, Vfs,
    sim::{Effect, Fault},
};
use wal::{AppendError, GroupId, Record, Wal, WalOptions, Writer};

const G: GroupId = GroupId(1);

fn result(outcome: &Outcome) -> Result<(), AppendError> {
    outcome.lock().take().expect("told")
}

/// A log whose thread runs only when it is let, so that what is appended before is one group commit.
struct Held {
    wal: Wal,
    work: Work,
}

impl Held {
    fn open(disk: &SimDisk, options: WalOptions) -> Self {
        let work: Work = Arc::default();
        let slot = Arc::clone(&work);
        let spawn = Box::new(move |_: &str, thread: Box<dyn FnOnce() + Send>| {
            *slot.lock() = Some(thread);
            Ok(())
        });
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let writer = Writer::Thread(spawn);
        let (wal, _) = Wal::open(vfs, dir(), identity(), options, writer).expect("opens");
        Self { wal, work }
    }

    /// Lets the thread do all that waits.
    fn go(self) -> Wal {
        let work = self.work.lock().take().expect("thread");
        let thread = std::thread::Builder::new().spawn(work).expect("thread");
        // An error is for the test to find in its own outcomes.
        let _ = self.wal.flush();
        let _ = self.wal.shutdown();
        thread.join().expect("thread ends");
        self.wal
    }
}

#[test]
fn a_failed_sync_acknowledges_nobody_and_poisons_the_log() {
    let disk = SimDisk::new();
    let held = Held::open(&disk, WalOptions::small());
    let before = disk.count(Op::SyncData);
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path(".wal"));
    let outcomes: Vec<Outcome> = (0..20)
        .map(|group| append(&held.wal, group, vec![entry(1, 0, b"x")]))
        .collect();
    let wal = held.go();
    assert_eq!(disk.faults_waiting(), 0);
    for outcome in &outcomes {
        let error = result(outcome).unwrap_err();
        assert!(matches!(error, AppendError::OutcomeUnknown(_)), "{error}");
        assert!(!error.not_applied());
    }
    assert!(wal.is_poisoned());
    let late = wal.append_sync(G, vec![entry(1, 1, b"late")]).unwrap_err();
    assert!(matches!(late, AppendError::Poisoned) && late.not_applied());
    assert!(wal.flush().is_err());
    // It was asked once, and never again.
    assert_eq!(disk.count(Op::SyncData), before + 1);
}

#[test]
fn what_a_restart_shows_after_a_failed_sync_is_durable() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"acknowledged")])
        .unwrap();
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path(".wal"));
    wal.append_sync(G, vec![entry(1, 1, b"in the page cache only")])
        .unwrap_err();
    // The disk itself does not have it, though every reader sees it.
    let (lost, _) = open(&disk.crash_losing_all());
    assert_eq!(lost.group(G).last.map(|last| last.index), Some(0));
    let machine = disk.restart();
    let (wal, _) = open(&machine);
    assert_eq!(wal.group(G).last.map(|last| last.index), Some(1));
    let shown = contents(&wal);
    let (wal, report) = open(&machine.crash_losing_all());
    assert_eq!(contents(&wal), shown);
    assert_eq!(report.torn_bytes, 0);
}

#[test]
fn a_failed_sync_of_the_mark_fails_the_vote() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path("mark"));
    let error = wal.append_sync(G, vec![vote(5)]).unwrap_err();
    assert!(matches!(error, AppendError::OutcomeUnknown(_)));
    assert!(wal.is_poisoned());
    let machine = disk.restart();
    let (wal, _) = open(&machine);
    assert_eq!(wal.group(G).vote.map(|vote| vote.term), Some(5));
    drop(wal);
    open(&machine.crash_losing_all());
}

#[test]
fn a_failed_write_poisons_and_leaves_what_was_acknowledged() {
    for effect in [Effect::Io, Effect::TornIo(100)] {
        let disk = SimDisk::new();
        let (wal, _) = open(&disk);
        wal.append_sync(G, vec![entry(1, 0, b"kept")]).unwrap();
        let before = contents(&wal);
        disk.inject(Fault::next(Op::Write, effect).on_path(".wal"));
        let error = wal.append_sync(G, vec![entry(1, 1, b"lost")]).unwrap_err();
        assert!(matches!(error, AppendError::OutcomeUnknown(_)));
        assert!(wal.is_poisoned());
        for image in [
            disk.restart(),
            disk.crash_losing_all(),
            disk.crash_keeping_all(),
        ] {
            assert_eq!(contents(&open(&image).0), before);
        }
    }
}

#[test]
fn rotation_that_fails_poisons_and_loses_nothing() {
    let mut failures = 0;
    for op in [Op::CreateNew, Op::SyncAll, Op::SyncDir] {
        let disk = SimDisk::new();
        let (wal, _) = open(&disk);
        disk.inject(Fault::next(op, Effect::Io));
        let mut acked = 0;
        while wal
            .append_sync(G, vec![entry(1, acked, &payload(1, acked, 1000))])
            .is_ok()
        {
            acked += 1;
        }
        assert!(wal.is_poisoned());
        failures += 1;
        for image in [
            disk.restart(),
            disk.crash_losing_all(),
            disk.crash_seeded(3),
        ] {
            let (wal, _) = open(&image);
            let found = wal.read(G, 0..u64::MAX, u64::MAX).unwrap();
            assert!(found.len() as u64 >= acked, "{op:?}");
            for (index, entry) in (0..).zip(found) {
                assert_eq!(entry.payload, payload(1, index, 1000));
            }
        }
    }
    assert_eq!(failures, 3);
}

#[test]
fn short_and_interrupted_writes_leave_the_same_bytes() {
    let files = [false, true].map(|faulty| {
        let disk = SimDisk::new();
        let (wal, _) = open(&disk);
        for index in 0..10 {
            if faulty {
                let length = 1 + usize::try_from(index).unwrap() * 37;
                disk.inject(Fault::next(Op::Write, Effect::Short(length)).on_path(".wal"));
                disk.inject(Fault::after(Op::Write, 1, Effect::Interrupted).on_path(".wal"));
            }
            wal.append_sync(G, vec![entry(1, index, &payload(1, index, 600))])
                .unwrap();
            assert_eq!(disk.faults_waiting(), 0);
        }
        disk.contents(&dir().join("00000000000000000001.wal"))
            .unwrap()
    });
    assert!(files[0] == files[1]);
}

fn reserving() -> WalOptions {
    WalOptions {
        segment_bytes: 32 << 10,
        reserve_bytes: 64 << 10,
        low_water_bytes: 16 << 10,
        high_water_bytes: 32 << 10,
        preallocate_bytes: 4 << 10,
        ..WalOptions::small()
    }
}

/// Appends until nothing more is admitted; how many entries there are then.
fn fill(wal: &Wal) -> u64 {
    let mut index = 0;
    while wal.admit(1000).is_ok() {
        wal.append_sync(G, vec![entry(1, index, &payload(1, index, 1000))])
            .expect("what was admitted can be written");
        index += 1;
        assert!(index < 1000);
    }
    index
}

#[test]
fn admission_closes_before_the_disk_is_full_and_opens_again() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(600 << 10));
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    let index = fill(&wal);
    assert!(wal.stats().disk_full);
    assert!(wal.stats().disk_full_refusals == 0);
    assert!(disk.used_bytes() < 600 << 10);
    let purge = Record::Purge {
        upto: common::id(1, index - 1),
        chain: None,
    };
    wal.append_sync(G, vec![purge]).expect("room for a purge");
    wal.admit(1000).expect("room again");
    assert!(!wal.stats().disk_full);
}

#[test]
fn a_full_disk_refuses_entries_takes_votes_and_leaves_no_torn_record() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    wal.append_sync(G, vec![entry(1, 0, b"first")]).unwrap();
    // Another process takes all that is left.
    disk.set_capacity(Some(disk.used_bytes()));
    let mut acked = 1;
    let error = loop {
        let record = entry(1, acked, &payload(1, acked, 1500));
        match wal.append_sync(G, vec![record]) {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 1000);
    };
    assert!(acked > 10, "the first half of the reserve is for entries");
    assert!(matches!(error, AppendError::DiskFull) && error.not_applied());
    assert!(!wal.is_poisoned());
    wal.admit(1).unwrap_err();
    assert_eq!(wal.group(G).last.map(|last| last.index), Some(acked - 1));
    for term in 1..20 {
        wal.append_sync(G, vec![vote(term)]).expect("votes go on");
        let refused = wal.append_sync(GroupId(2), vec![entry(1, 0, &payload(2, 0, 30_000))]);
        assert!(matches!(refused, Err(AppendError::DiskFull)));
    }
    assert_eq!(wal.groups(), [G]);
    let before = contents(&wal);
    let image = disk.crash_losing_all();
    let (again, report) = open(&image);
    assert_eq!((report.torn_bytes, report.ambiguous), (0, None));
    assert_eq!(contents(&again), before);
    assert_eq!(again.group(G).vote.map(|vote| vote.term), Some(19));

    disk.set_capacity(Some(2 << 20));
    wal.admit(100).expect("room again");
    let record = entry(1, acked, b"resumed");
    wal.append_sync(G, vec![record]).unwrap();
    assert!(
        disk.exists(&dir().join("reserve.0")).unwrap(),
        "the reserve is whole again"
    );
}

#[test]
fn a_file_system_that_reserves_nothing_is_written_to_and_runs_full_like_any_other() {
    const ASKED_AT_MOST: usize = 100;
    let disk = SimDisk::new();
    disk.set_capacity(Some(300 << 10));
    for _ in 0..ASKED_AT_MOST {
        disk.inject(Fault::next(Op::Allocate, Effect::Unsupported));
    }
    let (wal, _) = open_with(&disk, reserving()).expect("opens");
    let index = fill(&wal);
    assert!(index > 100, "several segments");
    let refused = wal.stats();
    assert!(refused.disk_full && !wal.is_poisoned());
    // A log that has learnt that it is in vain asks once for its segments, not for each batch.
    let asked = ASKED_AT_MOST - disk.take_back_faults();
    assert!((2..20).contains(&asked), "{asked}");
    let (again, report) = open(&disk.crash_losing_all());
    assert_eq!((report.torn_bytes, report.ambiguous), (0, None));
    assert_eq!(contents(&again), contents(&wal));
}

#[test]
fn in_one_group_commit_only_what_has_no_room_fails() {
    for effect in [Effect::NoSpace, Effect::Quota, Effect::FileTooLarge] {
        let disk = SimDisk::new();
        let (wal, _) = open_with(&disk, reserving()).unwrap();
        wal.append_sync(G, vec![entry(1, 0, b"a"), entry(1, 1, b"b")])
            .unwrap();
        wal.shutdown().unwrap();
        let held = Held::open(&disk, reserving());
        // The first try, and the one with half of the reserve.
        disk.inject(Fault::next(Op::Write, effect).on_path(".wal"));
        disk.inject(Fault::next(Op::Write, effect).on_path(".wal"));
        let truncated = append(&held.wal, 1, vec![Record::Truncate { from_index: 1 }]);
        let voted = append(&held.wal, 2, vec![vote(7)]);
        let appended = append(&held.wal, 1, vec![entry(2, 1, b"c")]);
        let after = append(&held.wal, 1, vec![vote(3)]);
        let other = append(&held.wal, 3, vec![entry(1, 0, b"d")]);
        let wal = held.go();
        assert_eq!(disk.faults_waiting(), 0);
        result(&truncated).unwrap();
        result(&voted).unwrap();
        for outcome in [appended, after, other] {
            assert!(matches!(result(&outcome), Err(AppendError::DiskFull)));
        }
        assert_eq!(wal.group(G).last, Some(common::id(1, 0)));
        assert_eq!(wal.group(G).vote, None);
        assert_eq!(wal.groups(), [G, GroupId(2)]);
        let (again, report) = open(&disk.crash_losing_all());
        assert_eq!(report.torn_bytes, 0);
        assert_eq!(contents(&again), contents(&wal));
        assert_eq!(again.group(G), wal.group(G));
    }
}

#[test]
fn a_truncation_that_is_taken_back_shows_the_entries_again() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let batch = (0..5).map(|index| entry(1, index, &payload(1, index, 50)));
    wal.append_sync(G, batch.collect()).unwrap();
    let before = (contents(&wal), wal.group(G));
    disk.inject(Fault::next(Op::Write, Effect::NoSpace).on_path(".wal"));
    let purge = Record::Purge {
        upto: common::id(1, 0),
        chain: None,
    };
    let batch = vec![
        purge,
        Record::Truncate { from_index: 2 },
        entry(2, 2, b"new"),
    ];
    let error = wal.append_sync(G, batch).unwrap_err();
    assert!(matches!(error, AppendError::DiskFull));
    assert_eq!(before, (contents(&wal), wal.group(G)));
    wal.append_sync(G, vec![entry(1, 5, b"next")]).unwrap();
    let (again, _) = open(&disk.crash_losing_all());
    assert_eq!(contents(&again), contents(&wal));
}

#[test]
fn a_start_without_room_fails_and_changes_nothing_that_counts() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"a")]).unwrap();
    wal.shutdown().unwrap();
    let before = contents(&wal);
    disk.set_capacity(Some(disk.used_bytes()));
    open_with(&disk, WalOptions::small()).unwrap_err();
    disk.set_capacity(None);
    assert_eq!(contents(&open(&disk).0), before);
}

#[test]
fn entries_never_take_the_half_that_is_kept_for_votes() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    wal.append_sync(G, vec![entry(1, 0, b"first")]).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut index = 1;
    while wal
        .append_sync(G, vec![entry(1, index, &payload(1, index, 1500))])
        .is_ok()
    {
        index += 1;
    }
    let half = dir().join("reserve.1");
    assert!(disk.exists(&half).unwrap(), "nobody voted yet");
    let mut refused = 0;
    for term in 1..40 {
        wal.append_sync(GroupId(3), vec![vote(term)])
            .expect("votes go on");
        // Small ones too, and in groups that had no part in filling the disk.
        for len in [10, 1500] {
            let record = entry(1, 0, &payload(2, term, len));
            match wal.append_sync(GroupId(2), vec![record]) {
                Err(AppendError::DiskFull) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(refused, 78);
    assert!(!disk.exists(&half).unwrap());
}

#[test]
fn a_commit_hint_that_met_a_full_disk_is_written_when_there_is_room() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    let mut index = 0;
    let mut append = || {
        let record = entry(1, index, &payload(1, index, 1500));
        let done = wal.append_sync(G, vec![record]);
        index += u64::from(done.is_ok());
        done
    };
    append().unwrap();
    append().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    while append().is_ok() {}
    // The round that has no room for this one takes the hint along.
    let committed = common::id(1, 1);
    wal.append_sync(G, vec![Record::Committed(committed)])
        .unwrap();
    append().unwrap_err();
    disk.set_capacity(None);
    wal.refresh().unwrap();
    wal.append_sync(GroupId(3), vec![vote(1)]).unwrap();
    wal.shutdown().unwrap();
    drop(wal);
    let (wal, _) = open_with(&disk.restart(), reserving()).unwrap();
    assert_eq!(wal.group(G).committed, Some(committed));
}

#[test]
fn a_start_on_a_full_disk_takes_the_reserve() {
    let reserving = || WalOptions {
        reserve_bytes: 512 << 10,
        ..reserving()
    };
    for keep in [2, 1] {
        let disk = SimDisk::new();
        let (wal, _) = open_with(&disk, reserving()).unwrap();
        wal.append_sync(G, vec![vote(3), entry(1, 0, b"kept")])
            .unwrap();
        wal.shutdown().unwrap();
        let before = contents(&wal);
        drop(wal);
        if keep == 1 {
            disk.remove_file(&dir().join("reserve.0")).unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes()));
        let (wal, _) = open_with(&disk, reserving()).expect("the reserve is for this");
        assert_eq!(contents(&wal), before);
        assert!(wal.stats().disk_full);
        wal.admit(1).unwrap_err();
        wal.append_sync(G, vec![vote(4)]).expect("votes go on");
        disk.set_capacity(Some(2 << 20));
        wal.admit(1).expect("room again");
        assert!(disk.exists(&dir().join("reserve.0")).unwrap());
        assert!(disk.exists(&dir().join("reserve.1")).unwrap());
    }
}

/// A log with a short queue whose thread has not begun: one append in the first group commit, one that fills the
/// queue, and a thread that waits for room for a third.
fn crowded(disk: &SimDisk) -> (Held, [Outcome; 2], mpsc::Receiver<Result<(), AppendError>>) {
    let options = WalOptions {
        queue_bytes_max: 600,
        batch_bytes_max: 1,
        ..WalOptions::small()
    };
    let held = Held::open(disk, options);
    let outcomes = [(0, 100), (1, 5000)]
        .map(|(index, len)| append(&held.wal, 1, vec![entry(1, index, &payload(1, index, len))]));
    let (tell, told) = mpsc::channel();
    let wal = held.wal.clone();
    std::thread::spawn(move || tell.send(wal.append_sync(G, vec![entry(1, 2, b"waits")])));
    // It waits if it can be seen neither as queued nor as refused, however long it was given.
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(held.wal.stats().queued_appends, 2);
    (held, outcomes, told)
}

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn an_append_that_waits_for_room_is_told_when_the_log_fails() {
    let disk = SimDisk::new();
    let (held, outcomes, told) = crowded(&disk);
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path(".wal"));
    let work = held.work.lock().take().unwrap();
    let thread = std::thread::spawn(work);
    let third = told.recv_timeout(PATIENCE).expect("does not wait for ever");
    assert!(matches!(third, Err(AppendError::Poisoned)), "{third:?}");
    held.wal.shutdown().unwrap_err();
    thread.join().unwrap();
    assert!(matches!(
        result(&outcomes[0]),
        Err(AppendError::OutcomeUnknown(_))
    ));
    assert!(matches!(result(&outcomes[1]), Err(AppendError::Poisoned)));
}

#[test]
fn who_cannot_wait_for_room_does_not() {
    let disk = SimDisk::new();
    let (held, outcomes, told) = crowded(&disk);
    assert!(held.wal.is_crowded());
    let third: Outcome = Outcome::default();
    let slot = Arc::clone(&third);
    let done = Box::new(move |result| *slot.lock() = Some(result));
    let batch = vec![entry(1, 0, b"at once")];
    held.wal.append_now(GroupId(2), batch, done);
    let wal = held.go();
    assert!(!wal.is_crowded());
    wal.wait_for_room();
    for outcome in outcomes.iter().chain([&third]) {
        result(outcome).unwrap();
    }
    drop(told);
}

#[test]
fn an_append_that_waits_for_room_goes_on_when_others_are_refused() {
    let disk = SimDisk::new();
    let (held, outcomes, told) = crowded(&disk);
    disk.inject(Fault::next(Op::Write, Effect::NoSpace).on_path(".wal"));
    let work = held.work.lock().take().unwrap();
    std::thread::spawn(work);
    let third = told.recv_timeout(PATIENCE).expect("does not wait for ever");
    // What it builds on was refused, so that it begins the group.
    third.unwrap();
    for outcome in &outcomes {
        assert!(matches!(result(outcome), Err(AppendError::DiskFull)));
    }
}

#[test]
fn a_writer_that_panics_leaves_nobody_waiting() {
    let disk = SimDisk::new();
    let (held, outcomes, told) = crowded(&disk);
    disk.inject(Fault::next(Op::SyncData, Effect::Panic).on_path(".wal"));
    let work = held.work.lock().take().unwrap();
    let thread = std::thread::spawn(work);
    let third = told.recv_timeout(PATIENCE).expect("does not wait for ever");
    assert!(matches!(third, Err(AppendError::Poisoned)), "{third:?}");
    thread.join().unwrap_err();
    // In flight: nobody knows.
    assert!(matches!(
        result(&outcomes[0]),
        Err(AppendError::OutcomeUnknown(_))
    ));
    assert!(matches!(result(&outcomes[1]), Err(AppendError::Poisoned)));
    assert!(held.wal.is_poisoned());
    held.wal.flush().unwrap_err();
    held.wal.shutdown().unwrap_err();
    let late = held.wal.append_sync(G, vec![entry(1, 1, b"late")]);
    assert!(matches!(late, Err(AppendError::Poisoned)));
}

#[test]
fn a_callback_that_panics_leaves_nobody_waiting() {
    let disk = SimDisk::new();
    let held = Held::open(&disk, WalOptions::small());
    let first = append(&held.wal, 2, vec![entry(1, 0, b"b")]);
    // It is told before the other.
    let panics = Box::new(|_| panic!("scripted"));
    held.wal.append(G, vec![entry(1, 0, b"a")], panics);
    let work = held.work.lock().take().unwrap();
    std::thread::spawn(work).join().unwrap_err();
    let error = result(&first).unwrap_err();
    assert!(!error.not_applied(), "it may well be on disk: {error}");
    assert!(held.wal.is_poisoned());
    held.wal.shutdown().unwrap_err();
}

#[test]
fn of_those_that_share_a_sync_the_newest_is_told_first() {
    let held = Held::open(&SimDisk::new(), WalOptions::small());
    let (told, order) = std::sync::mpsc::channel();
    for index in 0..3 {
        let told = told.clone();
        let done = Box::new(move |_| told.send(index).unwrap());
        held.wal.append(G, vec![entry(1, index, b"a")], done);
    }
    let work = held.work.lock().take().unwrap();
    let thread = std::thread::spawn(work);
    let order: Vec<u64> = (0..3)
        .map(|_| order.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert_eq!(order, [2, 1, 0]);
    held.wal.shutdown().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_panic_in_place_stops_the_log() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    disk.inject(Fault::next(Op::SyncData, Effect::Panic).on_path(".wal"));
    let again = wal.clone();
    let append = move || again.append_sync(G, vec![entry(1, 0, b"a")]);
    std::thread::spawn(append).join().unwrap_err();
    assert!(wal.is_poisoned());
    let late = wal.append_sync(G, vec![entry(1, 1, b"late")]);
    assert!(matches!(late, Err(AppendError::Poisoned)));
}

#[test]
fn a_refresh_opens_admission_without_a_write_and_nothing_else_does() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    wal.refresh().expect("room");
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(!wal.stats().disk_full);
    wal.refresh().unwrap_err();
    assert!(wal.stats().disk_full, "seen before a write failed");
    wal.admit(0).unwrap_err();
    // Votes of one group make room for each other. Each group more is one more vote to keep.
    let mut group = 1;
    while disk.exists(&dir().join("reserve.1")).unwrap() {
        wal.append_sync(GroupId(group), vec![vote(1)]).unwrap();
        group += 1;
        assert!(group < 10_000, "the reserve is never used");
    }
    disk.set_capacity(Some(2 << 20));
    let refused = wal.append_sync(G, vec![entry(1, 0, b"a")]);
    assert!(matches!(refused, Err(AppendError::DiskFull)));
    wal.refresh().expect("room again");
    assert!(!wal.stats().disk_full);
    for half in ["reserve.0", "reserve.1"] {
        assert!(disk.exists(&dir().join(half)).unwrap());
    }
    wal.append_sync(G, vec![entry(1, 0, b"a")]).unwrap();
    wal.admit(0).unwrap();
}

/// A disk with this much free above the low-water mark of a log in it.
fn with_room(disk: &SimDisk, bytes: u64) {
    disk.set_capacity(Some(
        disk.used_bytes() + reserving().low_water_bytes + bytes,
    ));
}

#[test]
fn the_same_room_is_not_promised_twice() {
    const ROOM: u64 = 1 << 20;
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    with_room(&disk, ROOM);
    let mut promised = 0;
    while wal.admit(1000).is_ok() {
        promised += 1000;
        assert!(promised <= ROOM);
    }
    assert!(promised > ROOM / 2, "{promised}");
    // Proposals that never came: forgotten at the second refresh from then on.
    wal.refresh().unwrap_err();
    wal.refresh().expect("room");
    wal.admit(1000).expect("room");
}

#[test]
fn what_waits_for_a_slow_sync_counts_as_used() {
    const ROOM: u64 = 1 << 20;
    let disk = SimDisk::new();
    let held = Held::open(&disk, reserving());
    with_room(&disk, ROOM);
    let mut outcomes = Vec::new();
    while held.wal.admit(1000).is_ok() {
        let index = outcomes.len() as u64;
        let record = entry(1, index, &payload(1, index, 1000));
        outcomes.push(append(&held.wal, 1, vec![record]));
        assert!(outcomes.len() < 10_000, "no end of promises");
    }
    let admitted = outcomes.len() as u64 * 1000;
    assert!((ROOM / 2..=ROOM).contains(&admitted), "{admitted}");
    held.go();
    for outcome in &outcomes {
        result(outcome).expect("what was admitted can be written");
    }
    assert!(disk.exists(&dir().join("reserve.0")).unwrap());
}

#[test]
fn what_is_not_written_yet_can_be_read_however_small_the_cache() {
    let disk = SimDisk::new();
    let options = WalOptions {
        cache_bytes: 0,
        batch_bytes_max: 1,
        ..WalOptions::small()
    };
    let held = Held::open(&disk, options);
    let (tell, told) = mpsc::channel();
    let reader = held.wal.clone();
    // Told between the first group commit and the second.
    let done = Box::new(move |result: Result<(), AppendError>| {
        result.unwrap();
        tell.send(reader.read(G, 0..9, u64::MAX)).unwrap();
    });
    held.wal.append(G, vec![entry(1, 0, b"written")], done);
    let second = append(&held.wal, 1, vec![entry(1, 1, b"waits")]);
    held.go();
    let entries = told.recv().unwrap().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].payload, &b"waits"[..]);
    result(&second).unwrap();
}

#[test]
fn a_hint_never_reaches_the_disk_before_what_it_speaks_of() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"a"), entry(1, 1, b"b")])
        .unwrap();
    wal.shutdown().unwrap();
    let options = WalOptions {
        batch_bytes_max: 1,
        ..WalOptions::small()
    };
    let held = Held::open(&disk, options);
    // The second group commit, which replaces an entry, fails.
    disk.inject(Fault::after(Op::SyncData, 1, Effect::Io).on_path(".wal"));
    let first = append(&held.wal, 2, vec![entry(1, 0, b"other")]);
    let batch = vec![Record::Truncate { from_index: 1 }, entry(2, 1, b"c")];
    append(&held.wal, 1, batch);
    let hint = Record::Committed(id(2, 1));
    result(&append(&held.wal, 1, vec![hint])).unwrap();
    held.go();
    result(&first).unwrap();
    assert_eq!(disk.faults_waiting(), 0);
    let (again, _) = open(&disk.crash_losing_all());
    assert_eq!(again.group(G).last, Some(id(1, 1)));
    assert_eq!(again.group(G).committed, None);
}

#[test]
fn writes_resume_at_the_high_water_mark_and_not_at_the_low_one() {
    let disk = SimDisk::new();
    let (wal, _) = open_with(&disk, reserving()).unwrap();
    with_room(&disk, 0);
    wal.admit(1).unwrap_err();
    with_room(&disk, 1 << 10);
    wal.refresh().unwrap_err();
    wal.admit(0).unwrap_err();
    with_room(&disk, reserving().high_water_bytes);
    wal.refresh().unwrap();
    wal.admit(1).unwrap();
}

#[test]
fn where_half_of_the_reserve_fits_it_is_the_half_for_votes() {
    let disk = SimDisk::new();
    let with = |reserve_bytes| WalOptions {
        reserve_bytes,
        ..reserving()
    };
    let (wal, _) = open_with(&disk, with(0)).unwrap();
    wal.append_sync(G, vec![entry(1, 0, b"a")]).unwrap();
    wal.shutdown().unwrap();
    // The start needs 128 KiB beside the old mark for a moment; one half needs as much.
    disk.set_capacity(Some(disk.used_bytes() + (144 << 10)));
    let (wal, _) = open_with(&disk, with(256 << 10)).unwrap();
    assert!(wal.stats().disk_full);
    assert!(disk.exists(&dir().join("reserve.1")).unwrap());
    assert!(!disk.exists(&dir().join("reserve.0")).unwrap());
}
