//! Disks that rot, fail and fill up.

use std::sync::Arc;
use std::time::Duration;

use api::Reason;
use api::admin::v1::ReplicaRole;
use api::shard::v1::{GetNodeRequest, GiveUpDataRequest};
use api::v1::*;
use cluster::ShardId;
use rpc::HealthcheckError;
use rpc::health::{READY_SERVICE, shard_read, shard_write};
use shard_server::RunError;
use vfs::sim::{Effect, Fault};
use vfs::{Op, SimDisk, Vfs as _};

use crate::harness::{Node, World, files, reason};
use crate::registry::{CLUSTER, STRANGER};

fn record(term: &str) -> RecordRequest {
    RecordRequest {
        term: term.to_owned(),
        ..RecordRequest::default()
    }
}

/// Flips a bit in the middle of the log, and says where and what the file holds now.
fn rot(world: &World) -> (std::path::PathBuf, Vec<u8>) {
    // The segment with the most in it; space that is reserved ahead is zero.
    let used = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1)
    };
    let segment = files(&world.data_dir().join("wal"))
        .into_iter()
        .max_by_key(used)
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[used(&segment) / 2] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();
    (segment, bytes)
}

fn give_up(node_id: u64, cluster: [u8; 16]) -> GiveUpDataRequest {
    GiveUpDataRequest {
        node_id,
        cluster_id: cluster.to_vec().into(),
    }
}

async fn until_damage_is_reported(world: &World) {
    world
        .until("the damage is reported, and the map is there", || async {
            let epoch = world.registry.state.lock().map.epoch;
            world.registry.report(1).is_some_and(|report| {
                report.data_loss && !report.reason.is_empty() && report.known_epoch == epoch
            })
        })
        .await;
}

/// The next start registers as a new node.
async fn comes_back_as_another(world: &World) {
    let node = world.launch().await;
    world
        .until("it comes back as another", || async {
            world.registry.report(2).is_some()
        })
        .await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_rotten_log_is_kept_reported_and_given_up_only_by_order() {
    let world = World::new().await;
    let node = world.start().await;
    for n in 0..200 {
        node.record(&format!("paris {n}"), 1).await;
    }
    node.stop().await.unwrap();
    let (segment, bytes) = rot(&world);

    let mut node = world.launch().await;
    until_damage_is_reported(&world).await;
    let refused = node.public().record(record("paris")).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss);
    let refused = node
        .public()
        .get_top_k(GetTopKRequest {
            prefix: "p".into(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss);
    let told = node.control().get_node(GetNodeRequest {}).await.unwrap();
    assert!(told.get_ref().data_loss && told.get_ref().node_id == 1);
    assert_eq!(
        std::fs::read(&segment).unwrap(),
        bytes,
        "the damaged log was touched"
    );

    let refused = node
        .control()
        .give_up_data(give_up(2, CLUSTER))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), Reason::WrongNode);
    let refused = node
        .control()
        .give_up_data(give_up(1, [0; 16]))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), Reason::WrongCluster);
    let moved = node
        .control()
        .give_up_data(give_up(1, CLUSTER))
        .await
        .unwrap()
        .into_inner();
    let ended = node.end().await.unwrap_err();
    assert!(matches!(ended, RunError::GaveUpData { .. }), "{ended}");
    drop(node);
    assert!(
        world.data_dir().join(moved.moved_to).join("wal").exists(),
        "what was damaged is kept"
    );
    comes_back_as_another(&world).await;
}

#[tokio::test]
async fn data_that_the_disk_does_not_give_back_go_the_way_of_rotten_ones() {
    for part in ["wal", "orders"] {
        let disk = SimDisk::new();
        let world = World::on(Arc::new(disk.clone())).await;
        let node = world.start().await;
        node.record("paris", 1).await;
        node.stop().await.unwrap();
        let path = world.data_dir().join(part);
        let lost = match disk.list_dir(&path) {
            Ok(entries) => entries.iter().map(|at| path.join(&at.name)).collect(),
            Err(_) => vec![path],
        };
        for file in lost {
            disk.make_unreadable(&file, 0..u64::MAX).unwrap();
        }
        let mut node = world.launch().await;
        until_damage_is_reported(&world).await;
        let refused = node.public().record(record("paris")).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::DataLoss);
        let order = give_up(1, CLUSTER);
        let moved = node.control().give_up_data(order).await.unwrap();
        let ended = node.end().await.unwrap_err();
        assert!(matches!(ended, RunError::GaveUpData { .. }), "{ended}");
        drop(node);
        let aside = world.data_dir().join(moved.into_inner().moved_to);
        assert!(disk.exists(&aside.join(part)).unwrap(), "{part} is kept");
        comes_back_as_another(&world).await;
    }
}

#[tokio::test]
async fn damaged_orders_are_not_written_over() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.stop().await.unwrap();
    let orders = world.data_dir().join("orders");
    disk.make_unreadable(&orders, 0..u64::MAX).unwrap();
    for _start in 0..2 {
        let node = world.launch().await;
        until_damage_is_reported(&world).await;
        world.until_orders_are_taken(1).await;
        node.stop().await.unwrap();
        world.registry.state.lock().reports.clear();
    }
}

#[tokio::test]
async fn healthy_data_is_not_given_up() {
    let world = World::new().await;
    let node = world.start().await;
    let request = give_up(1, CLUSTER);
    let refused = node.control().give_up_data(request).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded);
}

#[tokio::test]
async fn a_failed_sync_ends_the_server() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let mut node = world.start().await;
    node.record("paris", 1).await;
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path(".wal"));
    let mut client = node.public();
    let call = world.runtime.spawn("test-record", async move {
        client.record(record("paris")).await
    });
    let ended = node.end().await.unwrap_err();
    assert!(matches!(ended, RunError::DiskFailed { .. }), "{ended}");
    assert_eq!(ended.exit_code(), 75);
    let refused = call.await.unwrap().unwrap_err();
    let error = api::ApiError::from_status(&refused);
    assert_ne!(error.outcome(), Some(api::Outcome::NotApplied), "{refused}");
    drop(node);
    let node = world.start().await;
    let count = node.count("paris").await;
    assert!((1..=2).contains(&count), "{count}");
}

#[tokio::test]
async fn a_last_batch_that_is_damaged_and_may_have_been_acknowledged_is_counted_apart() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let mut node = world.start().await;
    node.record("paris", 1).await;
    // What is written then is in the file, and not below the mark.
    disk.inject(Fault::next(Op::SyncData, Effect::Io).on_path(".wal"));
    node.public().record(record("rome")).await.unwrap_err();
    node.end().await.unwrap_err();
    drop(node);
    let (segment, place) = place_of(b"rome", &disk, &world.data_dir().join("wal"));
    disk.flip_bit(&segment, 8 * place).unwrap();
    let node = world.start().await;
    let dropped = |name: &str| {
        let text = node.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    assert!(dropped("autocomplete_wal_ambiguous_bytes_total") > 0);
    assert_eq!(dropped("autocomplete_wal_torn_bytes_total"), 0);
    assert_eq!(node.count("paris").await, 1);
    assert_eq!(node.count("rome").await, 0);
    node.stop().await.unwrap();
}

/// Where a text stands in the newest segment of a log.
fn place_of(text: &[u8], disk: &SimDisk, log: &std::path::Path) -> (std::path::PathBuf, u64) {
    let entries = disk.list_dir(log).unwrap();
    let is_segment = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".wal");
    let segments = entries.iter().filter(|at| is_segment(&at.name));
    let newest = segments.map(|at| log.join(&at.name)).max().unwrap();
    let bytes = disk.contents(&newest).unwrap();
    let place = bytes.windows(text.len()).rposition(|found| found == text);
    (newest, place.unwrap() as u64)
}

#[tokio::test]
async fn a_disk_that_does_not_answer_ends_the_server() {
    let disk = SimDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    world.config.log.stall_abort = Some(Duration::from_millis(500));
    let mut node = world.start().await;
    node.record("paris", 1).await;
    disk.hold_syncs(true);
    let mut client = node.public();
    let call = world.runtime.spawn("test-record", async move {
        client.record(record("paris")).await
    });
    let ended = node.end().await.unwrap_err();
    assert!(matches!(ended, RunError::DiskFailed { .. }), "{ended}");
    assert_eq!(ended.exit_code(), 75);
    let refused = call.await.unwrap().unwrap_err();
    let error = api::ApiError::from_status(&refused);
    assert_ne!(error.outcome(), Some(api::Outcome::NotApplied), "{refused}");
    disk.hold_syncs(false);
}

#[tokio::test]
async fn how_far_the_opening_of_the_log_is_can_be_asked_for_until_it_is_open() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.stop().await.unwrap();
    // It has read by then, and is to write where it has begun.
    disk.hold_syncs(true);
    let node = world.launch().await;
    let told = async || {
        let told = node.control().get_node(GetNodeRequest {}).await;
        told.ok().map(|told| told.into_inner().opening_bytes)
    };
    world
        .until("it opens its log", || async {
            told().await.flatten().is_some_and(|bytes| bytes > 0)
        })
        .await;
    disk.hold_syncs(false);
    world.until_serving(&node, &[1, 2]).await;
    world
        .until("its log is open", || async { told().await == Some(None) })
        .await;
    node.stop().await.unwrap();
}

/// Records on a disk that fills up: how many were acknowledged, and how the next one was refused.
async fn record_until_refused(node: &Node) -> (u64, tonic::Status) {
    for acknowledged in 0..2000 {
        if let Err(refused) = node.public().record(record("paris")).await {
            return (acknowledged, refused);
        }
    }
    panic!("the disk never filled up");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_answers_reads_and_recovers() {
    let disk = SimDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    world.config.log.reserve_bytes = 1 << 20;
    let node = world.start().await;
    node.record("paris", 1).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let (more, refused) = record_until_refused(&node).await;
    let acknowledged = 1 + more;
    assert_eq!(reason(&refused), Reason::DiskFull, "{refused}");
    let (read, write) = (shard_read(ShardId(1)), shard_write(ShardId(1)));
    world
        .until(
            "its health says that it reads and does not write",
            || async {
                let writes = world.health(&node, &write).await;
                let refuses = matches!(writes, Err(HealthcheckError::NotServing { .. }));
                let reads = world.health(&node, &read).await.is_ok();
                refuses && reads && world.health(&node, READY_SERVICE).await.is_ok()
            },
        )
        .await;
    assert_eq!(node.count("paris").await, acknowledged);
    disk.set_capacity(None);
    // Whoever goes by its health writes nothing before.
    world.until_serving(&node, &[1, 2]).await;
    world
        .until("writes are taken again", || {
            let mut client = node.public();
            async move { client.record(record("rome")).await.is_ok() }
        })
        .await;
    assert_eq!(node.count("paris").await, acknowledged);
}

#[tokio::test]
async fn a_replica_that_found_no_room_at_all_begins_again_when_there_is_some() {
    let disk = SimDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    world.config.log.segment_bytes = 64 << 10;
    let node = world.start().await;
    node.record("paris", 1).await;
    // Admission still believes in the room of its last look, the next segment finds none, and giving the reserve back is of no use.
    disk.set_capacity(Some(1));
    let (more, refused) = record_until_refused(&node).await;
    let acknowledged = 1 + more;
    let error = api::ApiError::from_status(&refused);
    assert_ne!(error.outcome(), Some(api::Outcome::NotApplied), "{refused}");
    let refused = node.public().record(record("paris")).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Stopped, "{refused}");
    disk.set_capacity(None);
    world
        .until("writes are taken again", || {
            let mut client = node.public();
            async move { client.record(record("oslo")).await.is_ok() }
        })
        .await;
    assert!(node.actions("restart_replica", "disk_full") >= 1);
    // What had no room was acknowledged to nobody, and is not there.
    assert_eq!(node.count("paris").await, acknowledged);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn of_a_replica_that_did_not_start_again_no_figures_are_shown() {
    let disk = SimDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    world.config.log.segment_bytes = 64 << 10;
    world.registry.state.lock().give_all(&[""]);
    let node = world.launch().await;
    world.until_serving(&node, &[1]).await;
    let shown = || node.series("applied_index");
    world.until("it is shown", || async { shown() == 1 }).await;
    // The next start fails, which is tried again only after some seconds.
    disk.inject(Fault::next(Op::List, Effect::Io).on_path("snapshots"));
    loop {
        disk.set_capacity(Some(1));
        record_until_refused(&node).await;
        let refused = node.public().record(record("paris")).await.unwrap_err();
        disk.set_capacity(None);
        if reason(&refused) == Reason::Stopped {
            break;
        }
        // Admission has looked before the log found no room. It looks again some time after it takes writes.
        world
            .until("writes are taken again", || {
                let mut client = node.public();
                async move { client.record(record("oslo")).await.is_ok() }
            })
            .await;
    }
    world
        .until("nothing is shown of it", || async {
            disk.faults_waiting() == 0 && shown() == 0
        })
        .await;
    world.until_serving(&node, &[1]).await;
    world
        .until("it is shown again", || async { shown() == 1 })
        .await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_shard_that_was_begun_and_not_remembered_is_begun_from_what_is_there() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    world.registry.state.lock().give_all(&[""]);
    // The orders are written when they come, and again once the group is begun.
    disk.inject(Fault::after(Op::CreateNew, 1, Effect::Io).on_path("orders"));
    let node = world.launch().await;
    world
        .until("it was begun and not remembered", || async {
            let report = world.registry.report(1).unwrap_or_default();
            let mut replicas = report.replicas.iter();
            // On a machine that was held up it may have been tried again by now.
            let is_over = replicas.any(|at| at.serving || at.role() == ReplicaRole::Stopped);
            is_over && disk.faults_waiting() == 0
        })
        .await;
    node.stop().await.unwrap();
    let node = world.launch().await;
    world.until_serving(&node, &[1]).await;
    assert_eq!(node.record("paris", 1).await, 1);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn the_data_of_a_shard_that_left_goes_even_if_that_fails_at_first() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let node = world.start().await;
    node.record("paris", 1).await;
    let snapshots = world.data_dir().join("snapshots");
    let kept = || disk.list_dir(&snapshots).unwrap().len();
    assert_eq!(kept(), 2);
    let told = || {
        (
            node.series("applied_index"),
            node.series("memory_part_bytes"),
        )
    };
    world
        .until("both are told of", || async { told() == (2, 6) })
        .await;
    disk.inject(Fault::next(Op::RemoveDir, Effect::Io).on_path("snapshots"));
    {
        let mut state = world.registry.state.lock();
        state.assignments.retain(|at| at.shard_id != 2);
        state.change_map(|map| {
            for shard in map.shards.iter_mut().filter(|at| at.shard_id == 2) {
                shard.replicas[0].node_id = STRANGER;
            }
        });
    }
    world
        .until("nothing of it is left", || async {
            kept() == 1 && node.actions("remove_replica", "reassigned") == 1
        })
        .await;
    // What it was at last would be taken for what it is.
    assert_eq!(told(), (1, 3));
    node.record("boston", 1).await;
    node.stop().await.unwrap();
}
