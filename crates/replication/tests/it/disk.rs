//! Replicas whose disks fail in ways that concern their peers: doubt about the last batch, no room, rot.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use replication::{Host, HostOptions, OpenError, Start, WalOptions};
use runtime::Runtime;
use tonic::Code;
use vfs::sim::{Effect, Fault};
use vfs::{Op, SimDisk, Vfs};
use wal::inspect::{self, Verdict};

use crate::common::trio::{Replica, Trio, World, begin};
use crate::common::{
    Node, PATIENCE, alone, client_of, deps, envelope, open, put, reserved_options, settle,
    small_options, start, until_status,
};

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
async fn who_voted_alone_at_first_refuses_a_damaged_last_batch_once_others_vote() {
    let world = World::simulated(small_options());
    let node = world.open(1, None).await;
    let members = vec![node.member()];
    let (group, machine) = begin(&node.host, Start::Bootstrap { members }).await;
    settle(&group).await;
    let first = Replica {
        node,
        group,
        machine,
    };
    let trio = Trio::grown_from(world, first).await;
    let image = loop {
        put(&trio.leader().await.group, &long_name(), 1)
            .await
            .unwrap();
        trio.agree().await;
        if let Some(image) = put_in_doubt(&trio.world.disks[&1]) {
            break image;
        }
    };
    let error = opened(&image, 1).await.unwrap_err();
    let refused = matches!(error, OpenError::Wal(wal::OpenError::Ambiguous { .. }));
    assert!(refused, "{error}");
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
    let trio = Trio::within(World::simulated(reserved_options())).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn want_of_room_for_a_snapshot_is_no_failure_of_the_disk() {
    let disk = SimDisk::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let (host, _) = open(vfs, small_options()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    put(&group, &long_name(), 1).await.unwrap();
    let newest = group.take_snapshot().await.unwrap();
    for effect in [Effect::NoSpace, Effect::Quota, Effect::FileTooLarge] {
        for op in [Op::CreateNew, Op::Write, Op::Rename] {
            put(&group, "a", 1).await.unwrap();
            disk.inject(Fault::next(op, effect).on_path("snapshots"));
            let error = group.take_snapshot().await.unwrap_err();
            assert!(error.is_disk_full(), "{op} {effect:?}: {error}");
            assert_eq!(disk.faults_waiting(), 0);
            assert_eq!(group.status().stopped, None);
        }
    }
    // Where the last one would not fit, none is begun.
    disk.set_capacity(Some(disk.used_bytes() + newest.info().bytes - 1));
    let begun = disk.trace().len();
    let error = group.take_snapshot().await.unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    let written = disk.trace().split_off(begun).into_iter().any(|entry| {
        entry.op == Op::CreateNew && entry.path.to_string_lossy().contains("snapshots")
    });
    assert!(!written);
    disk.set_capacity(None);
    group.take_snapshot().await.unwrap();
    host.shutdown().await.unwrap();
}

/// The first piece of a snapshot of so many bytes.
fn first_piece(bytes: u64) -> wire::InstallSnapshotRequest {
    wire::InstallSnapshotRequest {
        envelope: Some(envelope(2, 1)),
        vote: Some(wire::Vote {
            term: 1,
            node_id: 2,
            committed: true,
        }),
        header: Some(wire::SnapshotHeader {
            bytes,
            hash: vec![0; 32].into(),
            ..wire::SnapshotHeader::default()
        }),
        offset: 0,
        data: vec![0; 10].into(),
    }
}

/// A node with an empty replica that waits to be filled.
async fn receiver(options: HostOptions) -> (World, Node) {
    let world = World::simulated(options);
    let node = world.open(1, None).await;
    begin(&node.host, Start::Join).await;
    (world, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_fit_is_not_begun() {
    let (world, node) = receiver(small_options()).await;
    let disk = &world.disks[&1];
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20)));
    let mut client = client_of(&node);
    for (bytes, code) in [(2 << 20, Code::ResourceExhausted), (1000, Code::DataLoss)] {
        let piece = futures::stream::iter([first_piece(bytes)]);
        let refused = client.install_snapshot(piece).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_fall_silent_are_given_up() {
    let options = HostOptions {
        peer_silence_max: Duration::from_millis(100),
        ..small_options()
    };
    let (_world, node) = receiver(options).await;
    let mut client = client_of(&node);
    let silent = futures::stream::pending::<wire::AppendRequest>();
    let mut answers = client.append(silent).await.unwrap().into_inner();
    let ended = Runtime::real().timeout(PATIENCE, answers.message()).await;
    assert_eq!(ended.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    for begun in [false, true] {
        let pieces = futures::stream::iter(begun.then(|| first_piece(1000)));
        let pieces = futures::StreamExt::chain(pieces, futures::stream::pending());
        let ended = Runtime::real()
            .timeout(PATIENCE, client.install_snapshot(pieces))
            .await;
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_of_a_group_is_received_at_a_time() {
    let options = HostOptions {
        peer_silence_max: PATIENCE * 10,
        ..small_options()
    };
    let (_world, node) = receiver(options).await;
    let runtime = Runtime::real();
    let open = || async {
        let (pieces, stream) = tokio::sync::mpsc::channel(1);
        pieces.send(first_piece(1000)).await.unwrap();
        let mut client = client_of(&node);
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let sent = runtime.spawn(
            "first",
            async move { client.install_snapshot(stream).await },
        );
        (pieces, sent)
    };
    let (pieces, mut first) = open().await;
    let mut pieces = Some(pieces);
    let mut second = client_of(&node);
    for refused in [true, false] {
        let deadline = runtime.now() + PATIENCE;
        loop {
            if refused && first.is_finished() {
                // It met one of the second's, and was the one that was refused.
                let (again, sent) = open().await;
                (pieces, first) = (Some(again), sent);
            }
            let piece = futures::stream::iter([first_piece(1000)]);
            let status = second.install_snapshot(piece).await.unwrap_err();
            if (status.code() == Code::ResourceExhausted) == refused {
                break;
            }
            assert!(runtime.now() < deadline, "{status}");
        }
        pieces.take();
    }
    assert!(first.await.unwrap().is_err());
    node.kill().await;
}

/// A follower needs a snapshot, and of the leader's two the newest `rotten` are damaged.
async fn a_rotten_snapshot_is_replaced(rotten: usize) {
    // Large segments: no snapshot is wanted for the log's sake, so that there are those of this test and no others.
    let mut trio = Trio::within(World::simulated(HostOptions::default())).await;
    let (_, others) = trio.roles().await;
    let behind = others[0];
    trio.kill(behind).await;
    let leader = trio.leader().await;
    let leads = leader.node.id.0;
    let mut missed = None;
    for _ in 0..3 {
        let put = put(&leader.group, &long_name(), 1).await.unwrap();
        missed.get_or_insert(put.index);
        leader.group.take_snapshot().await.unwrap();
    }
    // What the follower misses is purged, also where it was on its way to it just now: the log cannot help it any more.
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while leader.group.status().purged < missed {
        assert!(runtime.now() < deadline, "{:?}", leader.group.status());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    put(&leader.group, "after", 1).await.unwrap();
    let disk = trio.world.disks[&leads].clone();
    let dir = Path::new("/data/snapshots/0000000000000007");
    let files = disk.list_dir(dir).unwrap();
    assert_eq!(files.len(), 2);
    for file in files.iter().rev().take(rotten) {
        disk.flip_bit(&dir.join(&file.name), 999).unwrap();
    }
    // The third, which has all of the log, must not lead instead.
    let third = *trio.replicas.keys().find(|id| **id != leads).unwrap();
    trio.kill(third).await;
    trio.revive(behind).await;
    trio.agree().await;
    // It is restored first and named then.
    let deadline = runtime.now() + PATIENCE;
    while trio.replicas[&behind].group.latest_snapshot().is_none() {
        assert!(runtime.now() < deadline, "no snapshot was sent");
        runtime.sleep(Duration::from_millis(10)).await;
    }
    assert!(
        trio.replicas
            .values()
            .all(|replica| replica.group.status().stopped.is_none())
    );
    // Sound ones take the place of those that are not.
    let deadline = runtime.now() + PATIENCE;
    loop {
        let files = disk.list_dir(dir).unwrap();
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let sound = files.iter().all(|file| {
            replication::SnapshotFile::open(Arc::clone(&vfs), &dir.join(&file.name)).is_ok()
        });
        if sound {
            break;
        }
        assert!(runtime.now() < deadline, "{files:?}");
        runtime.sleep(Duration::from_millis(10)).await;
    }
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_snapshot_is_not_sent_for_ever() {
    a_rotten_snapshot_is_replaced(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_sound_snapshot_makes_one() {
    a_rotten_snapshot_is_replaced(2).await;
}

fn quick_scrub() -> HostOptions {
    HostOptions {
        scrub_bytes_per_second: 64 << 20,
        scrub_pause: Duration::from_millis(10),
        ..small_options()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_rots_under_a_running_node_stops_it_and_it_is_rebuilt() {
    let mut trio = Trio::within(World::simulated(quick_scrub())).await;
    let (leads, others) = trio.roles().await;
    let leader = &trio.replicas[&leads];
    for _ in 0..60 {
        put(&leader.group, &long_name(), 1).await.unwrap();
    }
    trio.agree().await;
    let bad = others[0];
    let disk = trio.world.disks[&bad].clone();
    let (host, group) = (&trio.replicas[&bad].node.host, &trio.replicas[&bad].group);
    assert!(host.wal_stats().segments > 2);
    let sealed = log_dir().join("00000000000000000001.wal");
    disk.flip_bit(&sealed, 300 * 8).unwrap();
    let mut damaged = host.damaged();
    let found = damaged.wait_for(Option::is_some);
    let found = Runtime::real().timeout(PATIENCE, found).await;
    let reason = found.unwrap().unwrap().clone().unwrap();
    assert!(reason.contains("segment 1 "), "{reason}");
    let mut poisoned = host.poisoned();
    let told = poisoned.wait_for(Option::is_some);
    drop(
        Runtime::real()
            .timeout(PATIENCE, told)
            .await
            .unwrap()
            .unwrap(),
    );
    let mut status = group.watch_status();
    let stopped = status.wait_for(|status| status.role == replication::Role::Stopped);
    let stopped = Runtime::real().timeout(PATIENCE, stopped).await;
    assert!(stopped.unwrap().unwrap().data_loss());
    assert!(put(group, "a", 1).await.is_err());
    assert!(group.read_index(PATIENCE).await.is_err());
    let other = replication::GroupConfig::new(replication::GroupId(9), Start::Join);
    let machine = Arc::new(crate::common::Counters::default());
    let refused = host.start_group(other, machine).await;
    assert!(
        matches!(refused, Err(replication::StartError::DataLoss { .. })),
        "{refused:?}"
    );
    // A restart does not help it, and the others go on.
    trio.kill(bad).await;
    let error = opened(&disk, bad).await.unwrap_err();
    let rotten = matches!(error, OpenError::Wal(wal::OpenError::Rotten { .. }));
    assert!(rotten, "{error}");
    put(&trio.leader().await.group, "meanwhile", 1)
        .await
        .unwrap();
    let node = trio.open(4, None).await;
    let (group, machine) = begin(&node.host, Start::Join).await;
    let leader = &trio.leader().await.group;
    leader.remove(replication::NodeId(bad)).await.unwrap();
    leader.add_learner(node.peer(), PATIENCE).await.unwrap();
    leader.promote(node.id).await.unwrap();
    trio.replicas.insert(
        4,
        crate::common::trio::Replica {
            node,
            group,
            machine,
        },
    );
    trio.agree().await;
    trio.end().await;
}

/// The segments but the newest, to whose end nobody has read.
fn sealed_segments(disk: &SimDisk) -> Vec<PathBuf> {
    let newest = newest_segment(disk);
    let paths = disk.list_dir(log_dir()).unwrap().into_iter();
    let paths = paths.map(|entry| log_dir().join(entry.name));
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "wal") && *path != newest)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_read_its_log_stops_at_once_and_another_leads() {
    let options = HostOptions {
        wal: WalOptions {
            cache_bytes: 0,
            ..WalOptions::small()
        },
        // Whoever replicates is to find it.
        scrub_bytes_per_second: 0,
        ..small_options()
    };
    let mut trio = Trio::within(World::simulated(options)).await;
    let leads = trio.leader().await.node.id.0;
    for _ in 0..60 {
        put(&trio.leader().await.group, &long_name(), 1)
            .await
            .unwrap();
    }
    trio.agree().await;
    let disk = trio.world.disks[&leads].clone();
    let sealed = sealed_segments(&disk);
    assert!(sealed.len() > 1, "{sealed:?}");
    let group = trio.replicas[&leads].group.clone();
    assert_eq!(group.status().stopped, None);
    for path in &sealed {
        disk.make_unreadable(path, 96..u64::MAX).unwrap();
    }
    // For one that has nothing it must read all. What is sent to one that was there before may have been read before.
    let newcomer = trio.world.joining(4).await;
    let add = group.add_learner(newcomer.node.peer(), PATIENCE);
    let stops = until_status(&group, |status| status.stopped.is_some());
    let (added, stopped) = tokio::join!(add, stops);
    assert_eq!(stopped.role, replication::Role::Stopped);
    let stopped = stopped.stopped.unwrap();
    assert_eq!(stopped.cause, replication::StopCause::Disk, "{stopped:?}");
    assert!(added.is_err());
    trio.kill(leads).await;
    put(&trio.leader().await.group, "meanwhile", 1)
        .await
        .unwrap();
    trio.agree().await;
    // Its next start finds that the bytes are lost, not only a read.
    let error = opened(&disk, leads).await.unwrap_err();
    let unreadable = matches!(
        error,
        OpenError::Wal(wal::OpenError::Rotten {
            reason: wal::RotReason::Unreadable(wal::LogFile::Segment(_)),
            ..
        })
    );
    assert!(unreadable, "{error}");
    newcomer.node.kill().await;
    trio.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_the_disk_does_not_give_back_twice_stops_a_running_node() {
    let disk = SimDisk::new();
    let (host, _) = open(Arc::new(disk.clone()), quick_scrub()).await;
    // No snapshot is taken, so that the first segment stays.
    let (group, _) = begin(&host, alone()).await;
    settle(&group).await;
    for _ in 0..60 {
        put(&group, &long_name(), 1).await.unwrap();
    }
    let sealed = sealed_segments(&disk).swap_remove(0);
    let name = sealed.file_name().unwrap().to_string_lossy().into_owned();
    disk.inject(Fault::next(Op::Read, Effect::Io).on_path(&name));
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while disk.faults_waiting() > 0 {
        assert!(runtime.now() < deadline, "{:?}", host.scrub_stats());
        runtime.sleep(Duration::from_millis(5)).await;
    }
    let passes = host.scrub_stats().passes;
    while host.scrub_stats().passes < passes + 2 {
        assert!(runtime.now() < deadline, "{:?}", host.scrub_stats());
        runtime.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*host.damaged().borrow(), None, "one read that failed");
    disk.make_unreadable(&sealed, 4096..4097).unwrap();
    let mut damaged = host.damaged();
    let found = damaged.wait_for(Option::is_some);
    let found = runtime.timeout(PATIENCE, found).await;
    let reason = found.unwrap().unwrap().clone().unwrap();
    assert!(
        reason.contains(&name) && reason.contains("4096"),
        "{reason}"
    );
    let mut status = group.watch_status();
    let stopped = status.wait_for(|status| status.role == replication::Role::Stopped);
    let stopped = runtime.timeout(PATIENCE, stopped).await;
    assert!(stopped.unwrap().unwrap().data_loss());
    drop(host.shutdown().await);
    let error = opened(&disk, 1).await.unwrap_err();
    let rotten = matches!(error, OpenError::Wal(wal::OpenError::Rotten { .. }));
    assert!(rotten, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_rots_under_a_running_node_is_replaced() {
    a_damaged_snapshot_is_replaced(|disk, path| disk.flip_bit(path, 900)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_the_disk_does_not_give_back_is_replaced() {
    a_damaged_snapshot_is_replaced(|disk, path| disk.make_unreadable(path, 0..1)).await;
}

async fn a_damaged_snapshot_is_replaced(
    damage: impl FnOnce(&SimDisk, &Path) -> Result<(), vfs::Error>,
) {
    let disk = SimDisk::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let (host, _) = open(Arc::clone(&vfs), quick_scrub()).await;
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    let mut newest = None;
    for _ in 0..2 {
        put(&group, &long_name(), 1).await.unwrap();
        newest = Some(group.take_snapshot().await.unwrap());
    }
    let path = newest.take().unwrap().path().to_owned();
    damage(&disk, &path).unwrap();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while host.scrub_stats().rotten_snapshots == 0
        || replication::SnapshotFile::open(Arc::clone(&vfs), &path).is_err()
    {
        assert!(runtime.now() < deadline, "{:?}", host.scrub_stats());
        runtime.sleep(Duration::from_millis(10)).await;
    }
    let found = [replication::Rotten::Reread(group.id())];
    assert_eq!(host.take_rotten(), found);
    assert_eq!(host.take_rotten(), []);
    assert_eq!(group.status().stopped, None);
    assert_eq!(*host.damaged().borrow(), None);
    put(&group, "a", 1).await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_keeps_its_pace() {
    let options = HostOptions {
        scrub_bytes_per_second: 64 << 10,
        ..small_options()
    };
    let disk = SimDisk::new();
    let runtime = Runtime::real();
    let (host, _) = open(Arc::new(disk), options).await;
    let since = runtime.now();
    let (group, _) = start(&host, alone()).await;
    settle(&group).await;
    for _ in 0..30 {
        put(&group, &long_name(), 1).await.unwrap();
    }
    let deadline = runtime.now() + PATIENCE;
    while host.scrub_stats().passes == 0 {
        assert!(runtime.now() < deadline, "{:?}", host.scrub_stats());
        runtime.sleep(Duration::from_millis(5)).await;
    }
    let (bytes, taken) = (
        host.scrub_stats().bytes,
        runtime.now().saturating_since(since),
    );
    // At least a step is read before the first pause.
    let paced = bytes.saturating_sub(16 << 10) * 1000 / (64 << 10);
    assert!(
        taken.as_millis() >= u128::from(paced),
        "{bytes} bytes in {taken:?}"
    );
    host.shutdown().await.unwrap();
}
