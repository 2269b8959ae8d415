//! Replicas that are not the same, although every checksum is right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ShardAudit};
use replication::{SnapshotFile, SnapshotView as _, StateMachine as _};
use shard_server::state::{DictionaryState, Item, Operation, Write, command};
use vfs::{RealDisk, Vfs, durable};

use super::harness::{Cluster, Shape, all_serve};
use super::replicas::Writers;

/// Enough that a replica which lags a little is never sent a snapshot, which would mend it unseen.
const SNAPSHOT_ENTRIES: u64 = 300;
/// Enough that every replica takes a snapshot.
const SEARCHES: u64 = SNAPSHOT_ENTRIES + 20;

/// The newest snapshot of shard 2, which has what lies between "g" and "p".
pub(super) fn newest_snapshot(dir: &Path) -> PathBuf {
    let disk = RealDisk::new();
    let group = replication::shard_group(cluster::ShardId(2), cluster::Incarnation::FIRST);
    let dir = dir.join("snapshots").join(format!("{:016x}", group.0));
    let files = disk.list_dir(&dir).unwrap().into_iter();
    let newest = files.map(|entry| entry.name).max();
    dir.join(newest.expect("it has one"))
}

/// Counts one search more into a snapshot, as a flipped bit in memory would have before it was taken: length, checksums and hash are
/// right again.
fn count_wrong(path: &Path) {
    let disk: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let sound = SnapshotFile::open(Arc::clone(&disk), path).unwrap();
    let bytes = durable::read(disk.as_ref(), path, 1 << 30).unwrap();
    let described = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let head = 16 + described as usize + 4;
    let body = &bytes[head..bytes.len() - 48];
    let state = DictionaryState::new(Default::default());
    let at = sound.info().applied;
    state.restore(at, &mut &body[..]).unwrap();
    let namespaces = state.generations();
    let (namespace, generation) = namespaces.iter().next().unwrap();
    let wrong = Write {
        namespace: *namespace,
        generation: *generation,
        identity: None,
        operation: Operation::Record(vec![Item {
            number: 0,
            term: "kit".into(),
            count: 1,
            display: None,
        }]),
    };
    let command = command::encode_writes([&wrong]);
    state.apply(at, 0, command::KIND_WRITES, &command).unwrap();
    let mut file = bytes[..head].to_vec();
    state.view().encode(&mut file).unwrap();
    let length = (file.len() - head) as u64;
    file.extend_from_slice(&length.to_le_bytes());
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    file.extend_from_slice(b"ACSNAPOK");
    durable::replace(disk.as_ref(), path, &file).unwrap();
    SnapshotFile::open(disk, path).unwrap();
}

fn audit_of(status: &GetStatusResponse) -> Option<&ShardAudit> {
    status.shards.get(1)?.audit.as_ref()
}

/// Whether a replica of shard 2 has said that it counted one search more than there were, or was found out already.
fn shows_more(status: &GetStatusResponse) -> bool {
    let replicas = status.shards.get(1).map(|shard| &shard.replicas);
    let wrong = replicas
        .into_iter()
        .flatten()
        .any(|at| at.total_count == SEARCHES + 1 || at.data_loss);
    wrong || audit_of(status).is_some_and(|audit| !audit.differing_node_ids.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_counts_wrong_is_found_and_rebuilt_while_writes_go_on() {
    let mut cluster = Cluster::of(Shape {
        replicas: 3,
        audit_interval: Some(Duration::from_secs(1)),
        snapshot_entries: SNAPSHOT_ENTRIES,
        ..Shape::default()
    })
    .await;
    for server in 1..=3 {
        cluster.add_server(&format!("shard-{server}")).await;
    }
    cluster.until("all replicas serve", all_serve).await;
    for _ in 0..SEARCHES {
        cluster.record("kit", 1).await;
    }
    cluster
        .until("all have a snapshot", |status| {
            let shard = status.shards.get(1);
            shard.is_some_and(|shard| shard.replicas.iter().all(|at| at.snapshot_index > 0))
        })
        .await;
    cluster.stop_server(2).await;
    count_wrong(&newest_snapshot(cluster.server_dir(2)));
    cluster.start_server(2).await;
    // Nobody writes before: a replica that comes too late for the log is sent a snapshot, and that is right.
    cluster.until("the wrong count is there", shows_more).await;
    let writers = Writers::start(&cluster);
    let ended = cluster.server_ended(2).await.unwrap_err();
    let gave_up = matches!(ended, shard_server::RunError::GaveUpData { .. });
    assert!(gave_up, "{ended}");
    cluster.start_server(2).await;
    let status = cluster
        .until("its successor is the same", |status| {
            let whole = all_serve(status) && status.shards.iter().all(|at| at.change.is_none());
            let same = |audit: &ShardAudit| {
                audit.agreeing_node_ids.len() == 3 && audit.differing_node_ids.is_empty()
            };
            whole && status.nodes.len() == 4 && audit_of(status).is_some_and(same)
        })
        .await;
    let lives: Vec<u64> = status.shards.iter().map(|at| at.incarnation).collect();
    assert_eq!(lives, [1, 1, 1], "nothing was given up");
    writers.go_on(&cluster.runtime, 20).await;
    writers.end(&cluster).await;
}
