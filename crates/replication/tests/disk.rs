//! Replicas whose disks fail in ways that concern their peers: doubt about the last batch, no room, rot.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use replication::{Host, HostOptions, OpenError, Start, WalOptions};
use runtime::Runtime;
use vfs::{Op, SimDisk, Vfs};
use wal::inspect::{self, Verdict};

use common::trio::{Trio, World};
use common::{PATIENCE, alone, deps, open, put, settle, small_options, start};

fn log_dir() -> &'static Path {
    Path::new("/data/wal")
}

/// A name that cannot be compressed away.
fn long_name() -> String {
    let runtime = Runtime::real();
    (0..600)
        .map(|_| char::from(b'!' + u8::try_from(runtime.random_u64() % 90).unwrap()))
        .collect()
}

fn newest_segment(disk: &SimDisk) -> PathBuf {
    let names = disk.list_dir(log_dir()).unwrap().into_iter();
    let newest = names.filter_map(|entry| {
        let name = entry.name.into_string().unwrap();
        name.ends_with(".wal").then_some(name)
    });
    log_dir().join(newest.max().unwrap())
}

/// Flips a bit of a disk's log such that its last batch is in doubt; `None` where the log was marked durable to its end.
fn put_in_doubt(disk: &SimDisk) -> Option<SimDisk> {
    let path = newest_segment(disk);
    let end = disk.contents(&path).unwrap().len() as u64;
    (0..end).step_by(64).take(64).find_map(|back| {
        let image = disk.restart();
        image.flip_bit(&path, (end - 1 - back) * 8).unwrap();
        let judged = inspect::verify(&image, log_dir(), None).unwrap();
        matches!(judged.verdict, Verdict::Ambiguous { .. }).then_some(image)
    })
}

async fn opened(
    disk: &SimDisk,
    node: u64,
) -> Result<(Host, replication::RecoveryReport), OpenError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    Host::open(deps(vfs, PathBuf::from("/data"), node, small_options())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_last_batch_is_refused_where_others_vote() {
    let trio = Trio::within(World::simulated(small_options())).await;
    for id in 1..=3 {
        let disk = &trio.world.disks[&id];
        let image = loop {
            let leader = trio.leader().await;
            put(&leader.group, &long_name(), 1).await.unwrap();
            trio.agree().await;
            if let Some(image) = put_in_doubt(disk) {
                break image;
            }
        };
        let path = newest_segment(&image);
        let before = image.contents(&path).unwrap();
        for _again in 0..2 {
            let error = opened(&image, id).await.unwrap_err();
            let refused = matches!(error, OpenError::Wal(wal::OpenError::Ambiguous { .. }));
            assert!(refused, "node {id}: {error}");
            assert_eq!(image.contents(&path).unwrap(), before, "nothing is cut");
        }
    }
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_last_batch_is_dropped_loudly_where_nobody_else_votes() {
    let disk = SimDisk::new();
    let mut image = None;
    for round in 0..3 {
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let (host, _) = open(vfs, small_options()).await;
        let begin = if round == 0 { alone() } else { Start::Resume };
        let (group, _) = start(&host, begin).await;
        settle(&group).await;
        image = loop {
            put(&group, &long_name(), 1).await.unwrap();
            let image = put_in_doubt(&disk);
            if image.is_some() {
                break image;
            }
        };
        host.shutdown().await.unwrap();
    }
    let image = image.unwrap();
    let (host, report) = opened(&image, 1).await.unwrap();
    assert!(report.wal.ambiguous.is_some(), "{report:?}");
    let (group, _) = start(&host, Start::Resume).await;
    settle(&group).await;
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_follower_refuses_entries_and_takes_them_when_there_is_room() {
    let options = HostOptions {
        wal: WalOptions {
            reserve_bytes: 256 << 10,
            low_water_bytes: 64 << 10,
            high_water_bytes: 128 << 10,
            ..WalOptions::small()
        },
        ..small_options()
    };
    let trio = Trio::within(World::simulated(options)).await;
    let (leads, others) = trio.roles().await;
    let disk = &trio.world.disks[&others[0]];
    let full = &trio.replicas[&others[0]];
    let leader = &trio.replicas[&leads];
    let term = leader.group.status().term;
    disk.set_capacity(Some(disk.used_bytes() + (300 << 10)));
    for written in 0.. {
        assert!(written < 5_000, "the disk never fills");
        put(&leader.group, &long_name(), 1).await.unwrap();
        if full.node.host.wal_stats().disk_full {
            break;
        }
    }
    // The other two go on.
    for _ in 0..20 {
        put(&leader.group, &long_name(), 1).await.unwrap();
    }
    let behind = full.group.status();
    assert_eq!(behind.stopped, None, "a full disk is no failure");
    assert!(behind.last_log < leader.group.status().last_log);

    // Each refusal asks the disk, and the leader waits longer and longer before it comes again.
    let runtime = Runtime::real();
    let (asked, since) = (disk.count(Op::FreeSpace), runtime.now());
    while disk.count(Op::FreeSpace) < asked + 12 {
        assert!(runtime.now().saturating_since(since) < PATIENCE);
        runtime.sleep(Duration::from_millis(1)).await;
    }
    let taken = runtime.now().saturating_since(since);
    assert!(
        taken > Duration::from_millis(700),
        "12 refusals in {taken:?}"
    );
    assert_eq!(full.group.status().stopped, None);
    assert_eq!(
        leader.group.status().term,
        term,
        "votes and heartbeats go on"
    );

    disk.set_capacity(None);
    trio.agree().await;
    trio.end().await;
}
