//! What a log does when nothing goes wrong.

mod common;

use std::sync::Arc;

use common::{Work, append, contents, dir, entry, id, identity, open, open_with, payload, vote};
use parking_lot::Mutex;
use vfs::{Op, RealDisk, SimDisk, Vfs};
use wal::{
    AppendError, Entry, GroupId, GroupState, OpenError, Record, Round, Vote, Wal, WalOptions,
    Writer, inspect,
};

const G: GroupId = GroupId(1);

#[test]
fn a_fresh_log_is_empty_and_says_so() {
    let (wal, report) = open(&SimDisk::new());
    assert!(report.fresh);
    assert_eq!(wal.groups(), []);
    assert_eq!(wal.group(G).last, None);
    assert_eq!(wal.group(G).first_index, 0);
}

#[test]
fn entries_votes_and_hints_survive_a_restart() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let batch = vec![entry(1, 0, b""), entry(1, 1, b"one"), vote(3)];
    wal.append_sync(G, batch).unwrap();
    wal.append_sync(G, vec![Record::Committed(id(1, 1))])
        .unwrap();
    let before = (wal.group(G), contents(&wal));
    wal.shutdown().unwrap();
    let (wal, report) = open(&disk.crash_losing_all());
    assert!(!report.fresh);
    assert_eq!((report.torn_bytes, report.ambiguous), (0, None));
    assert_eq!(before, (wal.group(G), contents(&wal)));
    let GroupState {
        vote,
        committed,
        last,
        ..
    } = wal.group(G);
    let voted = Vote {
        term: 3,
        node: 2,
        committed: false,
    };
    assert_eq!(
        (vote, committed, last),
        (Some(voted), Some(id(1, 1)), Some(id(1, 1)))
    );
}

#[test]
fn who_observes_is_told_of_each_group_commit_and_nobody_takes_his_place() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let edges = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&edges);
    assert!(wal.observe_rounds(move |round| told.lock().push((round, disk.pending().len()))));
    assert!(!wal.observe_rounds(|_| unreachable!("the first observer stays")));
    let before = wal.round();
    wal.append_sync(G, vec![entry(1, 0, b"one"), entry(1, 1, b"two")])
        .unwrap();
    assert_eq!(wal.round(), before + 2);
    // Nothing waits for the disk at either edge.
    assert_eq!(*edges.lock(), [(Round::Begins, 0), (Round::Ends, 0)]);
}

#[test]
fn reading_respects_range_and_bytes_from_cache_and_disk() {
    let disk = SimDisk::new();
    for cache_bytes in [0, 1 << 20] {
        let disk = disk.crash_keeping_all();
        let options = WalOptions {
            cache_bytes,
            ..WalOptions::small()
        };
        let (wal, _) = open_with(&disk, options).unwrap();
        for index in 0..50 {
            let bytes = payload(1, index, 100);
            wal.append_sync(G, vec![entry(1, index, &bytes)]).unwrap();
        }
        let some = wal.read(G, 10..20, u64::MAX).unwrap();
        assert_eq!(some.len(), 10);
        for (index, entry) in (10..).zip(&some) {
            assert_eq!(entry.payload, payload(1, index, 100));
        }
        assert_eq!(wal.read(G, 10..20, 350).unwrap().len(), 3);
        assert_eq!(wal.read(G, 10..20, 0).unwrap().len(), 1);
        assert_eq!(wal.read(G, 45..90, u64::MAX).unwrap().len(), 5);
        assert_eq!(wal.read(G, 90..99, u64::MAX).unwrap(), []);
        assert_eq!(wal.read(GroupId(2), 0..9, u64::MAX).unwrap(), []);
        let stats = wal.stats();
        let from_cache = stats.cache_hits > 0;
        assert_eq!(from_cache, cache_bytes > 0);
        assert_eq!(stats.cache_misses > 0, cache_bytes == 0);
    }
}

#[test]
fn truncation_and_purge_move_the_ends() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let batch = (5..15).map(|index| entry(2, index, b"x")).collect();
    wal.append_sync(G, batch).unwrap();
    let chain_at_9 = wal.entry_meta(G, 9).unwrap().chain;
    wal.append_sync(G, vec![Record::Truncate { from_index: 10 }])
        .unwrap();
    assert_eq!(wal.group(G).last, Some(id(2, 9)));
    assert_eq!(wal.group(G).chain, chain_at_9);
    let purge = Record::Purge {
        upto: id(2, 7),
        chain: None,
    };
    wal.append_sync(G, vec![purge, entry(3, 10, b"y")]).unwrap();
    assert_eq!(wal.group(G).first_index, 8);
    assert_eq!(wal.group(G).purged, Some(id(2, 7)));
    let beyond = Record::Purge {
        upto: id(4, 100),
        chain: Some(77),
    };
    let before = (wal.group(G), contents(&wal));
    let (again, _) = open(&disk.crash_losing_all());
    assert_eq!(before, (again.group(G), contents(&again)));

    wal.append_sync(G, vec![beyond, entry(4, 101, b"z")])
        .unwrap();
    let state = wal.group(G);
    assert_eq!((state.first_index, state.last), (101, Some(id(4, 101))));
    assert!(!state.chain_rebased);
    wal.append_sync(G, vec![Record::Truncate { from_index: 101 }])
        .unwrap();
    assert_eq!(wal.group(G).chain, 77);
    assert_eq!(wal.group(G).last, Some(id(4, 100)));
    let before = (wal.group(G), contents(&wal));
    let (again, _) = open(&disk.crash_losing_all());
    assert_eq!(before, (again.group(G), contents(&again)));
}

#[test]
fn the_logical_chain_depends_on_content_only() {
    let chains = [true, false].map(|compressed| {
        let options = WalOptions {
            zstd_level: i32::from(compressed),
            ..WalOptions::small()
        };
        let (wal, _) = open_with(&SimDisk::new(), options).unwrap();
        if compressed {
            wal.append_sync(GroupId(9), vec![entry(1, 0, b"another group")])
                .unwrap();
        }
        for index in 0..5 {
            wal.append_sync(G, vec![entry(1, index, &[b'a'; 4000])])
                .unwrap();
        }
        wal.group(G).chain
    });
    assert_eq!(chains[0], chains[1]);
}

#[test]
fn batches_that_break_a_rule_change_nothing() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(2, 0, b"a"), entry(2, 1, b"b"), vote(5)])
        .unwrap();
    let purge = |index, term| Record::Purge {
        upto: id(term, index),
        chain: None,
    };
    wal.append_sync(G, vec![purge(0, 2)]).unwrap();
    let before = (wal.group(G), contents(&wal));
    let bad = [
        vec![entry(2, 3, b"hole")],
        vec![entry(2, 1, b"again")],
        vec![entry(1, 2, b"older term")],
        vec![entry(2, 2, b"fine"), entry(2, 4, b"hole")],
        vec![vote(4)],
        vec![Record::Truncate { from_index: 0 }],
        vec![purge(1, 1)],
        vec![Record::Remove, vote(6)],
        vec![entry(2, 2, &vec![0; wal::PAYLOAD_BYTES_MAX + 1])],
    ];
    for batch in bad {
        let error = wal.append_sync(G, batch.clone()).unwrap_err();
        assert!(matches!(error, AppendError::Invalid { .. }), "{batch:?}");
        assert!(error.not_applied());
        assert_eq!(before, (wal.group(G), contents(&wal)), "{batch:?}");
    }
    let blank = append(&wal, 2, vec![entry(1, 5, b"x"), entry(1, 7, b"y")]);
    assert!(blank.lock().take().unwrap().is_err());
    assert_eq!(wal.groups(), [G]);
    let (again, _) = open(&disk.crash_losing_all());
    assert_eq!(before, (again.group(G), contents(&again)));
}

#[test]
fn a_removed_group_is_gone_for_good() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"a"), vote(2)])
        .unwrap();
    wal.append_sync(GroupId(2), vec![entry(1, 0, b"b")])
        .unwrap();
    wal.append_sync(G, vec![Record::Remove]).unwrap();
    assert_eq!(wal.groups(), [GroupId(2)]);
    let (wal, _) = open(&disk.crash_losing_all());
    assert_eq!(wal.groups(), [GroupId(2)]);
    wal.append_sync(G, vec![entry(9, 4, b"born again")])
        .unwrap();
    assert_eq!(wal.group(G).vote, None);
    let (wal, _) = open(&disk.crash_losing_all());
    assert_eq!(wal.groups(), [GroupId(2)]);
}

#[test]
fn segments_rotate_and_go_when_nobody_needs_them() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(GroupId(2), vec![entry(1, 0, b"idle"), vote(8)])
        .unwrap();
    for index in 0..300 {
        let bytes = payload(1, index, 300);
        wal.append_sync(G, vec![entry(1, index, &bytes)]).unwrap();
    }
    let full = wal.stats().segments;
    assert!(full > 5, "{full} segments");
    let purge = |index| Record::Purge {
        upto: id(1, index),
        chain: None,
    };
    wal.append_sync(G, vec![purge(290)]).unwrap();
    assert_eq!(
        wal.stats().segments_deleted,
        0,
        "the idle group holds the first"
    );
    let oldest = wal.oldest_segment();
    assert_eq!(wal.groups_holding(oldest), [(GroupId(2), 1)]);
    wal.append_sync(GroupId(2), vec![purge(0)]).unwrap();
    assert!(wal.stats().segments <= 2);
    assert!(wal.stats().segments_deleted >= full - 2);
    let before = (contents(&wal), wal.group(GroupId(2)), wal.group(G));
    let files = disk.list_dir(dir()).unwrap();
    let files = files
        .iter()
        .filter(|file| file.name.to_string_lossy().ends_with(".wal"));
    assert_eq!(files.count() as u64, wal.stats().segments);
    let (wal, _) = open(&disk.crash_losing_all());
    assert_eq!(
        before,
        (contents(&wal), wal.group(GroupId(2)), wal.group(G))
    );
    assert_eq!(wal.group(GroupId(2)).vote.map(|vote| vote.term), Some(8));
}

#[test]
fn a_log_that_was_removed_while_it_is_written_is_noticed() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    for index in 0..300 {
        let bytes = payload(1, index, 300);
        wal.append_sync(G, vec![entry(1, index, &bytes)]).unwrap();
        assert_eq!(wal.displaced(), None);
    }
    let names = || disk.list_dir(dir()).unwrap().into_iter();
    let mut segments: Vec<_> = names()
        .map(|entry| dir().join(entry.name))
        .filter(|path| path.extension().is_some_and(|end| end == "wal"))
        .collect();
    segments.sort();
    let newest = segments.pop().unwrap();
    disk.remove_file(&newest).unwrap();
    wal.append_sync(G, vec![entry(1, 300, b"into nowhere")])
        .unwrap();
    assert_eq!(wal.displaced(), Some(newest));
    wal.shutdown().unwrap();
    assert_eq!(wal.displaced(), None, "it may be moved now");
}

#[test]
fn restarts_do_not_pile_up_segments() {
    let disk = SimDisk::new();
    for round in 0..20 {
        let (wal, _) = open(&disk);
        wal.append_sync(G, vec![vote(round)]).unwrap();
        wal.shutdown().unwrap();
        assert!(wal.stats().segments <= 2, "{:?}", wal.stats());
    }
}

#[test]
fn commit_hints_cost_no_sync_of_their_own() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 0, b"a"), entry(1, 1, b"b")])
        .unwrap();
    let before = disk.count(Op::SyncData);
    wal.append_sync(G, vec![Record::Committed(id(1, 0))])
        .unwrap();
    assert_eq!(disk.count(Op::SyncData), before);
    assert_eq!(wal.group(G).committed, Some(id(1, 0)));
    wal.append_sync(G, vec![entry(1, 2, b"c")]).unwrap();
    let (wal, _) = open(&disk.crash_losing_all());
    assert_eq!(wal.group(G).committed, Some(id(1, 0)));
}

#[test]
fn one_process_at_a_time() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    let error = open_with(&disk, WalOptions::small()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    wal.shutdown().unwrap();
    open(&disk);
}

#[test]
fn another_nodes_log_is_refused() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.shutdown().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    let mut other = identity();
    other.node_id += 1;
    let error = Wal::open(vfs, dir(), other, WalOptions::small(), Writer::Inline).unwrap_err();
    assert!(matches!(error, OpenError::WrongIdentity { .. }));
}

#[test]
fn appends_that_wait_share_one_sync() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.shutdown().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let start: Work = Arc::default();
    let held = Arc::clone(&start);
    let spawn = Box::new(move |_: &str, work: Box<dyn FnOnce() + Send>| {
        *held.lock() = Some(work);
        Ok(())
    });
    let (wal, _) = Wal::open(
        vfs,
        dir(),
        identity(),
        WalOptions::small(),
        Writer::Thread(spawn),
    )
    .unwrap();
    let outcomes: Vec<_> = (0..100)
        .map(|group| append(&wal, group, vec![entry(1, 0, b"together")]))
        .collect();
    assert!(outcomes.iter().all(|outcome| outcome.lock().is_none()));
    assert_eq!(
        wal.read(GroupId(3), 0..1, 99).unwrap()[0].payload,
        &b"together"[..]
    );
    let before = disk.count(Op::SyncData);
    let work = start.lock().take().unwrap();
    let thread = std::thread::Builder::new().spawn(work).unwrap();
    wal.flush().unwrap();
    // One for the batch, two for the slots of the mark that opening asked for.
    assert!(disk.count(Op::SyncData) <= before + 3);
    assert_eq!(wal.stats().fsyncs, 1);
    wal.shutdown().unwrap();
    thread.join().unwrap();
    for outcome in outcomes {
        outcome.lock().take().unwrap().unwrap();
    }
    assert!(matches!(
        wal.append_sync(G, vec![entry(1, 1, b"late")]),
        Err(AppendError::Shutdown)
    ));
}

#[test]
fn large_payloads_are_compressed_and_small_ones_with_a_dictionary() {
    let disk = SimDisk::new();
    let options = WalOptions {
        cache_bytes: 0,
        segment_bytes: 1 << 20,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(&disk, options.clone()).unwrap();
    let text = |index: u64| {
        format!(
            "autocomplete record term=city-{} count={index} generation=0 time=17000{index}",
            index * 7919 % 5000
        )
    };
    let large = b"a large payload that repeats ".repeat(100);
    wal.append_sync(G, vec![entry(1, 0, &large)]).unwrap();
    for index in 1..2000 {
        append(&wal, 1, vec![entry(1, index, text(index).as_bytes())]);
    }
    let plain = wal.stats();
    assert!(plain.stored_bytes < plain.payload_bytes);
    wal.shutdown().unwrap();
    let trained = inspect::train(&disk, dir(), 8 << 10).unwrap();
    assert_eq!(trained.dictionary, 1);
    let (wal, _) = open_with(&disk, options).unwrap();
    for index in 2000..4000 {
        append(&wal, 1, vec![entry(1, index, text(index).as_bytes())]);
    }
    let packed = wal.stats();
    assert!(packed.stored_bytes * 2 < packed.payload_bytes, "{packed:?}");
    let (again, _) = open(&disk.crash_losing_all());
    let entries = again.read(G, 0..u64::MAX, u64::MAX).unwrap();
    assert_eq!(entries.len(), 4000);
    assert_eq!(entries[0].payload, large);
    for (index, entry) in (1..).zip(&entries[1..]) {
        assert_eq!(entry.payload, text(index).as_bytes());
    }
    let lost = disk.crash_losing_all();
    lost.remove_file(&dir().join("00000001.zdict")).unwrap();
    let error = open_with(&lost, WalOptions::small()).unwrap_err();
    assert!(matches!(error, OpenError::Rotten { .. }), "{error}");
}

#[test]
fn a_real_disk_and_a_thread_work_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let open = || {
        let spawn = Box::new(|name: &str, work: Box<dyn FnOnce() + Send>| {
            let named = std::thread::Builder::new().name(name.to_owned());
            named.spawn(work).map(|_| ())
        });
        let options = WalOptions {
            segment_bytes: 256 << 10,
            reserve_bytes: 1 << 20,
            batch_bytes_max: 64 << 10,
            ..WalOptions::default()
        };
        Wal::open(
            Arc::new(RealDisk::new()),
            &dir,
            identity(),
            options,
            Writer::Thread(spawn),
        )
        .unwrap()
    };
    let (wal, report) = open();
    assert!(report.fresh);
    wal.admit(1000).unwrap();
    let outcomes: Vec<_> = (0..2000)
        .map(|number| {
            let (group, index) = (number % 4, number / 4);
            append(
                &wal,
                group,
                vec![entry(1, index, &payload(group, index, 500))],
            )
        })
        .collect();
    wal.flush().unwrap();
    let before = contents(&wal);
    assert!(wal.stats().segments > 3);
    assert!(wal.stats().fsyncs < 2000);
    wal.shutdown().unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(*outcome.lock(), Some(Ok(()))))
    );
    drop(wal);
    let (wal, report) = open();
    assert_eq!(report.torn_bytes, 0);
    assert_eq!(before, contents(&wal));
    let entry: &Entry = &before[&3][499];
    assert_eq!(entry.payload, payload(3, 499, 500));
    wal.shutdown().unwrap();
}

#[test]
fn a_driven_log_writes_in_its_turn_and_not_before() {
    let disk = SimDisk::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let woken = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let wakes = Arc::clone(&woken);
    let writer = Writer::Driven(Box::new(move || {
        wakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    let (wal, _) = Wal::open(vfs, dir(), identity(), WalOptions::small(), writer).unwrap();
    wal.turn();
    let before = woken.load(std::sync::atomic::Ordering::Relaxed);
    let first = append(&wal, G.0, vec![entry(1, 0, b"first")]);
    let second = append(&wal, G.0, vec![entry(1, 1, b"second")]);
    assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), before + 2);
    assert!(first.lock().is_none() && second.lock().is_none());
    let syncs = disk.count(Op::SyncData);
    wal.turn();
    assert_eq!(disk.count(Op::SyncData), syncs + 1);
    assert!(matches!(*first.lock(), Some(Ok(()))));
    assert!(matches!(*second.lock(), Some(Ok(()))));
    // Calls that wait do the work themselves.
    wal.append_sync(G, vec![entry(1, 2, b"third")]).unwrap();
    wal.shutdown().unwrap();
    let (wal, _) = open(&disk.crash_losing_all());
    assert_eq!(contents(&wal)[&G.0].len(), 3);
}

#[test]
fn room_is_reserved_in_steps_and_not_for_each_batch() {
    let disk = SimDisk::new();
    let options = WalOptions {
        preallocate_bytes: 1 << 20,
        ..WalOptions::default()
    };
    let (wal, _) = open_with(&disk, options).unwrap();
    let before = disk.calls().len();
    for index in 1..=600 {
        wal.append_sync(GroupId(1), vec![entry(1, index, b"x")])
            .unwrap();
    }
    let calls = disk.calls().split_off(before);
    let reserved = calls.iter().filter(|op| **op == Op::Allocate).count();
    let written = calls.iter().filter(|op| **op == Op::Write).count();
    // Batches of a block of 4 KiB each; the room for the first ones came with the segment.
    assert_eq!((written, reserved), (600, 2));
}

#[test]
fn a_log_has_room_for_1024_groups_and_refuses_more() {
    let options = WalOptions {
        segment_bytes: 4 << 20,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(&SimDisk::new(), options).unwrap();
    for group in 0..1024 {
        wal.append_sync(GroupId(group), vec![entry(1, 0, b"a")])
            .unwrap();
    }
    let error = wal.append_sync(GroupId(1024), vec![vote(1)]).unwrap_err();
    assert!(matches!(error, AppendError::Invalid { .. }) && error.not_applied());
    wal.append_sync(GroupId(7), vec![Record::Remove]).unwrap();
    wal.append_sync(GroupId(1024), vec![vote(1)]).unwrap();
}

#[test]
fn entries_under_two_dictionaries_are_read_in_one_call() {
    let disk = SimDisk::new();
    let options = WalOptions {
        cache_bytes: 0,
        segment_bytes: 1 << 20,
        ..WalOptions::small()
    };
    let text = |index: u64| match index / 1000 {
        0 => format!(
            "autocomplete record term=city-{} count={index} generation=0",
            index * 7919 % 5000
        ),
        _ => format!(
            "{{\"kind\":\"delete\",\"namespace\":\"towns\",\"number\":{},\"at\":{index}}}",
            index * 6007 % 5000
        ),
    };
    for round in 0..3_u64 {
        let (wal, _) = open_with(&disk, options.clone()).unwrap();
        for index in round * 1000..(round + 1) * 1000 {
            append(&wal, 1, vec![entry(1, index, text(index).as_bytes())]);
        }
        wal.shutdown().unwrap();
        if round < 2 {
            let trained = inspect::train(&disk, dir(), 8 << 10).unwrap();
            assert_eq!(u64::from(trained.dictionary), round + 1);
        }
    }
    let (wal, _) = open_with(&disk, options).unwrap();
    let entries = wal.read(G, 0..u64::MAX, u64::MAX).unwrap();
    assert_eq!(entries.len(), 3000);
    for (index, entry) in (0..).zip(&entries) {
        assert_eq!(entry.payload, text(index).as_bytes(), "{index}");
    }
}
