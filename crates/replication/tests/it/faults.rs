//! A group of one on a disk that fails: crashes, failed syncs, a full disk, damaged snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use replication::{
    Group, Host, Outcome, ProposeError, SnapshotError, Start, StartError, StopCause,
};
use runtime::Runtime;
use vfs::sim::{Effect, Fate, Fault};
use vfs::{Op, SimDisk, Vfs};

use crate::common::{
    Counters, PATIENCE, alone, config, deps, open, put, reserved_options, settle, small_options,
    start,
};

fn on(disk: &SimDisk) -> Arc<dyn Vfs> {
    Arc::new(disk.clone())
}

fn snapshots_of(disk: &SimDisk) -> Vec<PathBuf> {
    let dir = Path::new("/data/snapshots/0000000000000007");
    let entries = disk.list_dir(dir).unwrap_or_default();
    entries.iter().map(|entry| dir.join(&entry.name)).collect()
}

/// Resumes and says what is there.
async fn recovered(disk: &SimDisk) -> (Host, Group<Counters>, Arc<Counters>) {
    let (host, _) = open(on(disk), small_options()).await;
    let (group, machine) = start(&host, Start::Resume).await;
    settle(&group).await;
    (host, group, machine)
}

/// Proposes numbered counters until the disk fails; returns the numbers that were acknowledged and those that were sent.
async fn until_it_fails(group: &Group<Counters>, snapshot_every: u64) -> (Vec<u64>, u64) {
    let mut acknowledged = Vec::new();
    for number in 0..200 {
        if put(group, &number.to_string(), number + 1).await.is_err() {
            return (acknowledged, number + 1);
        }
        acknowledged.push(number);
        if (number + 1) % snapshot_every == 0 {
            drop(group.take_snapshot().await);
        }
    }
    (acknowledged, 200)
}

fn check(machine: &Counters, acknowledged: &[u64], sent: u64, context: &str) {
    let state = machine.state();
    for number in acknowledged {
        let found = state.counts.get(&number.to_string());
        assert_eq!(
            found,
            Some(&(number + 1)),
            "{context}: {number} was acknowledged"
        );
    }
    for (name, count) in &state.counts {
        let number: u64 = name.parse().unwrap();
        assert!(
            number < sent && *count == number + 1,
            "{context}: {name} = {count}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_loses_nothing_that_was_acknowledged() {
    let mut halted = 0;
    for halt in (5..400).step_by(13) {
        let disk = SimDisk::new();
        let (host, _) = open(on(&disk), small_options()).await;
        let (group, _) = start(&host, alone()).await;
        settle(&group).await;
        put(&group, "0", 1).await.unwrap();
        disk.halt_after(Some(halt));
        let (mut acknowledged, sent) = until_it_fails(&group, 10).await;
        acknowledged.retain(|number| *number != 0);
        halted += u32::from(disk.is_halted() && !acknowledged.is_empty());
        drop(host.shutdown().await);
        for seed in 0..3 {
            let after = match seed {
                0 => disk.crash_losing_all(),
                1 => disk.crash_keeping_all(),
                seed => disk.crash_seeded(halt * 10 + seed),
            };
            let (host, group, machine) = recovered(&after).await;
            let context = format!("halt {halt} seed {seed}");
            let mut state = machine.state();
            // Counter 0 was added to once before and once, perhaps, in the loop.
            let zero = state.counts.remove("0").unwrap();
            assert!((1..=2).contains(&zero), "{context}: {zero}");
            for number in &acknowledged {
                let found = state.counts.get(&number.to_string());
                assert_eq!(found, Some(&(number + 1)), "{context}: {number}");
            }
            assert!(state.counts.len() as u64 <= sent, "{context}");
            put(&group, "again", 1).await.unwrap();
            host.shutdown().await.unwrap();
        }
    }
    assert!(halted >= 20, "only {halted} runs were cut in the middle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_poisons_the_node_and_a_restart_finds_what_was_acknowledged() {
    let disk = SimDisk::new();
    let (host, _) = open(on(&disk), small_options()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    for number in 0..20 {
        put(&group, &number.to_string(), number + 1).await.unwrap();
    }
    let mut poisoned = host.poisoned();
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path("wal"));
    let error = put(&group, "20", 21).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let reported = poisoned.wait_for(Option::is_some);
    Runtime::real()
        .timeout(PATIENCE, reported)
        .await
        .unwrap()
        .unwrap();
    let stopped = group.status().stopped.unwrap();
    assert_eq!(stopped.cause, StopCause::Disk);
    assert!(put(&group, "21", 22).await.is_err());
    drop(host.shutdown().await);
    let (host, _, machine) = recovered(&disk.restart()).await;
    check(
        &machine,
        &(0..20).collect::<Vec<_>>(),
        21,
        "after a failed sync",
    );
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_service_resumes() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(1 << 20));
    let (host, _) = open(on(&disk), reserved_options()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    let mut written = 0;
    let refused = loop {
        // Random enough not to be compressed away.
        let name: String = (0..600)
            .map(|_| char::from(b'!' + u8::try_from(Runtime::real().random_u64() % 90).unwrap()))
            .collect();
        match put(&group, &name, 1).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 5_000, "the disk never fills");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert_eq!(machine.sum(), written);
    group.lease_check().expect("reads go on");
    assert_eq!(*host.poisoned().borrow(), None);
    disk.set_capacity(Some(8 << 20));
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    loop {
        match put(&group, "room", 1).await {
            Ok(committed) => break assert_eq!(committed.response, 1),
            Err(ProposeError::DiskFull) => assert!(runtime.now() < deadline, "never resumed"),
            Err(error) => panic!("{error}"),
        }
        runtime.sleep(Duration::from_millis(20)).await;
    }
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_snapshot_is_taken_leaves_old_or_new() {
    let mut failed = 0;
    for halt in 0..40 {
        let disk = SimDisk::new();
        let (host, _) = open(on(&disk), small_options()).await;
        let (group, machine) = start(&host, alone()).await;
        settle(&group).await;
        for round in 0..2 {
            for number in 0..10 {
                put(&group, &format!("{round}-{number}"), 1).await.unwrap();
            }
            group.take_snapshot().await.unwrap();
        }
        put(&group, "last", 1).await.unwrap();
        let before = machine.state();
        disk.halt_after(Some(halt));
        let taken = group.take_snapshot().await;
        failed += u32::from(taken.is_err());
        drop(host.shutdown().await);
        for seed in 0..4 {
            let after = match seed {
                0 => disk.crash_losing_all(),
                1 => disk.crash_with(|pending| {
                    // Names reach the disk before contents.
                    match pending.kind {
                        vfs::sim::PendingKind::Name => Fate::Kept,
                        vfs::sim::PendingKind::Block { .. } | vfs::sim::PendingKind::Len { .. } => {
                            Fate::Lost
                        }
                    }
                }),
                seed => disk.crash_seeded(halt * 10 + seed),
            };
            let (host, group, machine) = recovered(&after).await;
            assert_eq!(machine.state(), before, "halt {halt} seed {seed} {taken:?}");
            let left = snapshots_of(&after);
            assert!(
                left.iter()
                    .all(|path| path.extension().is_some_and(|end| end == "snap")),
                "half-written files are removed: {left:?}"
            );
            assert!(group.latest_snapshot().is_some());
            host.shutdown().await.unwrap();
        }
    }
    assert!((4..40).contains(&failed), "{failed} of 40 snapshots failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_synced_is_discarded_and_tried_anew() {
    let disk = SimDisk::new();
    let (host, _) = open(on(&disk), small_options()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, "a", 1).await.unwrap();
    let mut newest = group.take_snapshot().await.unwrap();
    for op in [Op::SyncAll, Op::Rename, Op::SyncDir] {
        put(&group, "a", 1).await.unwrap();
        disk.inject(Fault::next(op, Effect::Io).on_path("snapshots"));
        let error = group.take_snapshot().await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::Disk(_) | SnapshotError::Io(_)),
            "{error}"
        );
        // What came before it may be purged only now.
        assert!(group.status().purged <= Some(newest.info().applied.index));
        assert!(snapshots_of(&disk).contains(&newest.path().to_owned()));
        newest = group.take_snapshot().await.unwrap();
        assert_eq!(Some(newest.info().applied), group.applied());
    }
    let mut watch = group.watch_status();
    for _ in 0..3 {
        assert!(group.status().stopped.is_none());
        put(&group, "a", 1).await.unwrap();
        disk.inject(Fault::next(Op::SyncAll, Effect::Io).on_path("snapshots"));
        group.take_snapshot().await.unwrap_err();
    }
    assert_eq!(group.status().stopped.unwrap().cause, StopCause::Disk);
    // Whoever follows the status hears of it, too: the server ends by that.
    let told = watch.wait_for(|status| status.stopped.is_some());
    let told = Runtime::real()
        .timeout(PATIENCE, told)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.stopped.as_ref().unwrap().cause, StopCause::Disk);
    drop(told);
    drop(host.shutdown().await);
    let (host, _, machine) = recovered(&disk.restart()).await;
    assert_eq!(machine.get("a"), 7);
    host.shutdown().await.unwrap();
}

/// A disk with two snapshots and a log that reaches back to the older one.
async fn with_two_snapshots() -> (SimDisk, Vec<PathBuf>, crate::common::State) {
    let disk = SimDisk::new();
    let (host, _) = open(on(&disk), small_options()).await;
    let (group, machine) = start(&host, alone()).await;
    settle(&group).await;
    for round in 0..3 {
        for number in 0..10 {
            put(&group, &format!("{round}-{number}"), 1).await.unwrap();
        }
        group.take_snapshot().await.unwrap();
    }
    // One that the scrub reads while a newer one is published stays until the next call.
    while snapshots_of(&disk).len() > 2 {
        tokio::task::yield_now().await;
        group.take_snapshot().await.unwrap();
    }
    put(&group, "last", 1).await.unwrap();
    let state = machine.state();
    host.shutdown().await.unwrap();
    let files = snapshots_of(&disk);
    assert_eq!(files.len(), 2, "{files:?}");
    (disk, files, state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_snapshot_falls_back_to_the_older_one() {
    let (disk, files, state) = with_two_snapshots().await;
    let bits = disk.contents(&files[1]).unwrap().len() as u64 * 8;
    for bit in (0..bits).step_by(97) {
        let disk = disk.restart();
        disk.flip_bit(&files[1], bit).unwrap();
        let (host, group, machine) = recovered(&disk).await;
        assert_eq!(machine.state(), state, "bit {bit}");
        assert!(
            disk.exists(&files[1]).unwrap(),
            "damaged data is not deleted first"
        );
        let newest = group.latest_snapshot().unwrap();
        assert_eq!(newest.path(), files[0]);
        host.shutdown().await.unwrap();
    }
    // A file cut short is no better.
    disk.edit(&files[1], |bytes| bytes.truncate(bytes.len() / 2))
        .unwrap();
    let (host, _, machine) = recovered(&disk).await;
    assert_eq!(machine.state(), state);
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_the_disk_does_not_give_back_is_a_damaged_one() {
    let (disk, files, state) = with_two_snapshots().await;
    for (bad, good) in [(0, 1), (1, 0)] {
        let disk = disk.restart();
        disk.make_unreadable(&files[bad], 0..u64::MAX).unwrap();
        let (host, group, machine) = recovered(&disk).await;
        assert_eq!(machine.state(), state);
        assert_eq!(group.latest_snapshot().unwrap().path(), files[good]);
        assert!(disk.exists(&files[bad]).unwrap());
        host.shutdown().await.unwrap();
    }
    for file in &files {
        disk.make_unreadable(file, 0..u64::MAX).unwrap();
    }
    let (host, _) = open(on(&disk), small_options()).await;
    let machine = Arc::new(Counters::default());
    let refused = host.start_group(config(Start::Resume), machine).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, StartError::DataLoss { .. }), "{error}");
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_usable_snapshot_a_replica_does_not_start() {
    let (disk, files, _) = with_two_snapshots().await;
    for file in &files {
        disk.flip_bit(file, 999).unwrap();
    }
    let (host, _) = open(on(&disk), small_options()).await;
    let machine = Arc::new(Counters::default());
    let error = host
        .start_group(config(Start::Resume), machine)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::DataLoss { .. }), "{error}");
    assert!(files.iter().all(|file| disk.exists(file).unwrap()));
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_its_log_is_not_taken_for_a_replica() {
    let (disk, files, _) = with_two_snapshots().await;
    disk.remove_dir_all(Path::new("/data/wal")).unwrap();
    let (host, report) = open(on(&disk), small_options()).await;
    assert!(report.wal.fresh);
    assert!(host.exists(crate::common::GROUP).unwrap());
    for start in [Start::Resume, alone(), Start::Join] {
        let machine = Arc::new(Counters::default());
        let error = host.start_group(config(start), machine).await.unwrap_err();
        assert!(matches!(error, StartError::DataLoss { .. }), "{error}");
    }
    assert!(files.iter().all(|file| disk.exists(file).unwrap()));
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_another_node_is_refused() {
    let (disk, _, _) = with_two_snapshots().await;
    let other = deps(on(&disk), PathBuf::from("/data"), 2, small_options());
    assert!(Host::open(other).await.is_err());
}
