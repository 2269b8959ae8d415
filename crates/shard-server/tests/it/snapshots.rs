use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::{ReplicaRole, SnapshotInfo};
use api::shard::v1::{CountRequest, ReadSnapshotRequest, SendSnapshotRequest, TakeSnapshotRequest};
use api::v1::{Consistency, RecordBatchRequest, RecordItem, RecordRequest};
use api::{ApiError, Reason};
use cluster::{Generation, Incarnation, NamespaceId, NodeId, SEED_AWAITED, ShardId, limits};
use futures::{StreamExt as _, stream};
use replication::{
    Group, GroupConfig, Host, HostDeps, HostOptions, Identity, Member, Peer, Start, shard_group,
};
use runtime::CancellationToken;
use shard_server::state::{DictionaryState, Item, Operation, Write, command};
use tonic::Code;
use vfs::sim::{Effect, Fault, TraceEntry};
use vfs::{Op, SimDisk, Vfs as _};

use crate::bad_input::HERE;
use crate::harness::{Node, PATIENCE, World, files, reason};
use crate::registry::CLUSTER;

async fn fill(node: &Node) {
    for batch in 0..10 {
        // Sixteen bytes of nothing in particular a term keep the file from shrinking below a chunk.
        let items = (0..1000_u64).map(|n| RecordItem {
            term: format!(
                "paris {}",
                blake3::hash(&(batch * 1000 + n).to_le_bytes()).to_hex()
            ),
            count: n + 1,
        });
        let batch = RecordBatchRequest {
            items: items.collect(),
            ..RecordBatchRequest::default()
        };
        node.public().record_batch(batch).await.unwrap();
    }
}

/// A snapshot of the second shard as it is now.
fn now() -> TakeSnapshotRequest {
    TakeSnapshotRequest {
        shard_id: 2,
        ..TakeSnapshotRequest::default()
    }
}

async fn pull(node: &Node, shard_id: u64, offset: u64) -> (Option<SnapshotInfo>, Vec<u8>) {
    let request = ReadSnapshotRequest { shard_id, offset };
    let mut chunks = node
        .control()
        .read_snapshot(request)
        .await
        .unwrap()
        .into_inner();
    let (mut info, mut content) = (None, Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.offset, offset + content.len() as u64);
        assert!(chunk.data.len() <= cluster::limits::SNAPSHOT_CHUNK_BYTES);
        assert_eq!(
            chunk.snapshot.is_some(),
            content.is_empty(),
            "only the first says what it is"
        );
        info = info.or(chunk.snapshot);
        content.extend_from_slice(&chunk.data);
    }
    (info, content)
}

fn pieces(info: &SnapshotInfo, content: &[u8], incarnation: u64) -> Vec<SendSnapshotRequest> {
    let mut pieces: Vec<SendSnapshotRequest> = content
        .chunks(300_000)
        .enumerate()
        .map(|(n, data)| SendSnapshotRequest {
            offset: n as u64 * 300_000,
            data: data.to_vec().into(),
            ..Default::default()
        })
        .collect();
    pieces[0].snapshot = Some(info.clone());
    pieces[0].target_incarnation = incarnation;
    pieces
}

/// Has shard 2 begun anew as incarnation 2, from a snapshot that is pushed while it waits.
async fn begin_anew(world: &World, node: &Node, info: &SnapshotInfo, content: &[u8]) {
    order_anew(world, info);
    until_it_waits(world).await;
    push_awaited(world, node, info, content).await;
}

async fn push_awaited(world: &World, node: &Node, info: &SnapshotInfo, content: &[u8]) {
    let pieces = stream::iter(pieces(info, content, 2));
    let kept = node
        .control()
        .send_snapshot(pieces)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(kept.bytes, info.bytes);
    until_begun_anew(world).await;
}

/// Tells the node that shard 2 begins anew as incarnation 2, from a snapshot.
fn order_anew(world: &World, info: &SnapshotInfo) {
    let mut state = world.registry.state.lock();
    let mut assignments = state.assignments.iter_mut();
    let assignment = assignments.find(|found| found.shard_id == 2).unwrap();
    assignment.incarnation = 2;
    assignment.seed = Some(info.clone());
    state.change_map(|map| map.shards[1].incarnation = 2);
}

async fn until_it_waits(world: &World) {
    world
        .until("it waits", || async {
            world.registry.report(1).is_some_and(|report| {
                let mut replicas = report.replicas.iter();
                let replica = replicas.find(|found| found.shard_id == 2);
                replica.is_some_and(|found| {
                    found.incarnation == 2 && found.reason.ends_with(SEED_AWAITED)
                })
            })
        })
        .await;
}

async fn until_begun_anew(world: &World) {
    world
        .until("it serves again", || async {
            let report = world.registry.report(1).unwrap();
            report
                .replicas
                .iter()
                .any(|found| found.shard_id == 2 && found.incarnation == 2 && found.serving)
        })
        .await;
}

async fn take(node: &Node) -> SnapshotInfo {
    let taken = node.control().take_snapshot(now()).await.unwrap();
    taken.into_inner().snapshot.unwrap()
}

/// Where incarnation 1 of shard 2 has its snapshots.
fn earlier_life(world: &World) -> PathBuf {
    let group = shard_group(ShardId(2), Incarnation(1));
    let snapshots = world.data_dir().join("snapshots");
    snapshots.join(format!("{:016x}", group.0))
}

async fn until_the_earlier_life_is_gone(world: &World, node: &Node) {
    world
        .until("the earlier life is gone", || async {
            let is_gone = !world.vfs.exists(&earlier_life(world)).unwrap();
            is_gone && node.actions("remove_replica", "older_life") == 1
        })
        .await;
}

/// Has shard 2 take others until it has let go of a snapshot, which would not have to be pushed.
async fn let_go_of(world: &World, node: &Node, info: &SnapshotInfo) {
    let name = format!("{:016x}-", info.index);
    world
        .until("the snapshot is gone", || async {
            node.record("rome", 1).await;
            take(node).await;
            let kept = files(&earlier_life(world));
            let names = kept.iter().filter_map(|path| path.file_name());
            let mut names = names.map(|name| name.to_string_lossy());
            !names.any(|kept| kept.starts_with(&name))
        })
        .await;
}

/// Shard 2 on another node, which leads it alone.
async fn elsewhere(world: &World) -> (Host, Group<DictionaryState>) {
    let deps = HostDeps {
        runtime: world.runtime.clone(),
        vfs: Arc::new(vfs::RealDisk::new()),
        dir: world.dir.path().join("elsewhere"),
        identity: Identity {
            cluster: cluster::ClusterId(CLUSTER),
            node: NodeId(5),
        },
        options: HostOptions::default(),
    };
    let (host, _) = Host::open(deps).await.unwrap();
    let listener = world.runtime.bind(([127, 0, 0, 1], 0).into()).await;
    let listener = listener.unwrap();
    let address = listener.local_addr().to_string();
    let server = rpc::Server::new(&world.runtime, rpc::ServerConfig::internal())
        .with_service(host.raft_service());
    let serve = server.serve(listener, CancellationToken::new());
    drop(world.runtime.spawn("test-raft", serve));
    let members = vec![Member::voter(NodeId(5), address)];
    let config = GroupConfig::new(
        shard_group(ShardId(2), Incarnation(1)),
        Start::Bootstrap { members },
    );
    let state = Arc::new(DictionaryState::new(trie_core::Options::default()));
    let group = host.start_group(config, state).await.unwrap();
    (host, group)
}

/// Records "paris" there, as soon as it leads.
async fn record_elsewhere(world: &World, group: &Group<DictionaryState>, count: u64) {
    let write = Write {
        namespace: NamespaceId(1),
        generation: Generation(1),
        identity: None,
        operation: Operation::Record(vec![Item {
            number: 0,
            term: "paris".into(),
            count,
            display: None,
        }]),
    };
    world
        .until("the group has a leader", || async {
            group
                .propose(command::KIND_WRITES, command::encode_writes([&write]))
                .await
                .is_ok()
        })
        .await;
}

/// The snapshot of a state in which one term has almost as high a count as there is. Nobody could record so much in a test.
async fn almost_full(world: &World) -> (SnapshotInfo, Vec<u8>) {
    let (host, group) = elsewhere(world).await;
    record_elsewhere(world, &group, u64::MAX - 5).await;
    let file = group.take_snapshot().await.unwrap();
    let mut content = Vec::new();
    file.read().unwrap().read_to_end(&mut content).unwrap();
    host.shutdown().await.unwrap();
    let info = SnapshotInfo {
        shard_id: 2,
        incarnation: 1,
        index: file.info().applied.index,
        raft_term: file.info().applied.term,
        bytes: content.len() as u64,
        hash: blake3::hash(&content).as_bytes().to_vec().into(),
        taken_at_ms: 0,
    };
    (info, content)
}

#[tokio::test]
async fn an_overflow_is_refused_item_by_item_and_changes_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("oslo", 1).await;
    let (info, content) = almost_full(&world).await;
    begin_anew(&world, &node, &info, &content).await;
    assert_eq!(node.count("paris").await, u64::MAX - 5);
    let record = RecordRequest {
        term: "paris".into(),
        count: 6,
        ..RecordRequest::default()
    };
    let refused = node.public().record(record).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::OutOfRange, Reason::CountOverflow)
    );
    let items = [("oslo", 1), ("paris", 6), ("paris", 5)];
    let batch = RecordBatchRequest {
        items: items
            .map(|(term, count)| RecordItem {
                term: term.into(),
                count,
            })
            .to_vec(),
        ..RecordBatchRequest::default()
    };
    let results = node
        .public()
        .record_batch(batch)
        .await
        .unwrap()
        .into_inner()
        .results;
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.count, result.code))
        .collect();
    assert_eq!(told, [(1, 0), (0, Code::OutOfRange as i32), (u64::MAX, 0)]);
    assert_eq!(node.count("paris").await, u64::MAX);
}

#[tokio::test]
async fn a_snapshot_is_taken_pulled_pushed_and_begun_from() {
    let world = World::new().await;
    let node = world.start().await;
    let refused = node
        .control()
        .read_snapshot(ReadSnapshotRequest {
            shard_id: 2,
            offset: 0,
        })
        .await;
    assert_eq!(reason(&refused.unwrap_err()), Reason::UnknownSnapshot);
    fill(&node).await;
    let best = node.top("", 100).await;
    let taken = node.control().take_snapshot(now()).await.unwrap();
    let taken = taken.into_inner().snapshot.unwrap();
    let (info, content) = pull(&node, 2, 0).await;
    let info = info.unwrap();
    assert_eq!(info, taken);
    assert_eq!(info.bytes, content.len() as u64);
    assert_eq!(info.hash, blake3::hash(&content).as_bytes().as_slice());
    let (_, tail) = pull(&node, 2, 1000).await;
    assert_eq!(tail, content[1000..]);
    // Nothing was applied since, so it is the same one.
    let again = node.control().take_snapshot(now()).await.unwrap();
    assert_eq!(again.into_inner().snapshot, Some(info.clone()));

    let send = |pieces: Vec<SendSnapshotRequest>| {
        let mut control = node.control();
        async move { control.send_snapshot(stream::iter(pieces)).await }
    };
    let refused = send(pieces(&info, &content, 1)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "it serves");
    let mut damaged = content.clone();
    damaged[content.len() / 2] ^= 1;
    let refused = send(pieces(&info, &damaged, 2)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss, "the hash differs");

    let_go_of(&world, &node, &info).await;
    begin_anew(&world, &node, &info, &content).await;
    assert_eq!(node.top("", 100).await, best);
    node.record("paris", 7).await;
    node.kill();
    let node = world.start().await;
    assert_eq!(node.count("paris").await, 7);
    assert_eq!(node.top("paris ", 100).await, best);
}

#[tokio::test]
async fn a_snapshot_that_takes_longer_than_a_call_is_found_by_the_next_one_whatever_was_written_since()
 {
    let disk = SimDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    world.config.log.stall_abort = None;
    let node = world.start().await;
    node.record("paris", 1).await;
    let take = async |reach: u64, patience: Duration| {
        let request = TakeSnapshotRequest { reach, ..now() };
        let request = rpc::request(request, patience);
        let taken = node.control().take_snapshot(request).await;
        taken.map(|taken| taken.into_inner().snapshot.unwrap())
    };
    let begun = || {
        let calls = disk.trace();
        let is_new = |at: &&TraceEntry| {
            let path = at.path.to_string_lossy();
            at.op == Op::CreateNew && path.contains("snapshots")
        };
        calls.iter().filter(is_new).count()
    };
    let before = begun();
    disk.hold_syncs(true);
    // Where the machine is busy, the end of the deadline may be told before the answer.
    let told = async {
        loop {
            let late = take(0, Duration::from_secs(2)).await.unwrap_err();
            let late = ApiError::from_status(&late);
            assert_eq!(late.reason(), Reason::Deadline, "{late}");
            if let Some(reach) = late.metadata().get("reach") {
                return reach.parse::<u64>().unwrap();
            }
        }
    };
    let reach = world.runtime.timeout(PATIENCE, told).await.unwrap();
    let is_begun = || std::future::ready(begun() > before);
    world.until("it is being written", is_begun).await;
    disk.hold_syncs(false);
    node.record("paris", 1).await;
    let found = take(reach, limits::DEADLINE_MAX).await.unwrap();
    let newer = take(0, limits::DEADLINE_MAX).await.unwrap();
    assert!(
        reach <= found.index && found.index < newer.index,
        "{reach}: {found:?}, {newer:?}"
    );
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_could_not_take_over_a_snapshot_comes_back_and_is_sent_it_again() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    for assigned in &mut world.registry.state.lock().assignments {
        assigned.bootstrap = assigned.shard_id != 2;
    }
    let node = world.launch().await;
    world
        .until("it waits to be taken in", || async {
            let report = world.registry.report(1).unwrap_or_default();
            let mut replicas = report.replicas.iter();
            replicas.any(|at| at.shard_id == 2 && at.role() == ReplicaRole::Learner)
        })
        .await;
    let (host, group) = elsewhere(&world).await;
    // Its log does not reach back to the beginning, so that whoever joins is sent a snapshot.
    for _ in 0..3 {
        record_elsewhere(&world, &group, 1).await;
        group.take_snapshot().await.unwrap();
    }
    world
        .until("the log begins later", || async {
            group.status().purged.is_some()
        })
        .await;
    disk.inject(Fault::next(Op::Rename, Effect::Io).on_path(".snap"));
    let peer = Peer {
        node: NodeId(1),
        address: node.address.clone(),
    };
    group.add_learner(peer, PATIENCE).await.unwrap();
    assert_eq!(disk.faults_waiting(), 0);
    world
        .until("the start is counted", || async {
            node.actions("restart_replica", "fault") >= 1
        })
        .await;
    let count = CountRequest {
        route: Some(HERE),
        namespace_id: 1,
        generation: 1,
        term: "paris".into(),
        consistency: Consistency::Stale.into(),
        ..CountRequest::default()
    };
    let seen = node.shards().count(count).await.unwrap().into_inner();
    assert_eq!(seen.count, 3);
    node.stop().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_life_begins_from_what_the_last_one_took_here_though_nobody_pushes_it() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 3).await;
    let taken = take(&node).await;
    node.record("paris", 4).await;
    order_anew(&world, &taken);
    until_begun_anew(&world).await;
    assert_eq!(node.count("paris").await, 3);
    until_the_earlier_life_is_gone(&world, &node).await;
    assert_eq!(node.record("paris", 1).await, 4);
    node.kill();
    let node = world.start().await;
    assert_eq!(node.count("paris").await, 4);
}

#[tokio::test]
async fn what_an_earlier_life_had_stays_and_serves_nobody_until_the_next_has_what_it_begins_from() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 3).await;
    take(&node).await;
    let (info, content) = almost_full(&world).await;
    order_anew(&world, &info);
    until_it_waits(&world).await;
    let stays = || world.vfs.exists(&earlier_life(&world)).unwrap();
    assert!(stays());
    node.kill();
    world.registry.state.lock().reports.clear();
    let node = world.launch().await;
    until_it_waits(&world).await;
    assert!(stays());
    let record = RecordRequest {
        term: "paris".into(),
        ..RecordRequest::default()
    };
    let refused = node.public().record(record).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Starting, "{refused}");
    push_awaited(&world, &node, &info, &content).await;
    assert_eq!(node.count("paris").await, u64::MAX - 5);
    until_the_earlier_life_is_gone(&world, &node).await;
}

#[tokio::test]
async fn an_earlier_life_that_ends_has_a_snapshot_of_its_last_entry_and_keeps_those_it_had() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 3).await;
    let older = take(&node).await;
    node.record("paris", 4).await;
    let newer = take(&node).await;
    node.record("paris", 5).await;
    let (info, _) = almost_full(&world).await;
    order_anew(&world, &info);
    until_it_waits(&world).await;
    let kept: Vec<String> = files(&earlier_life(&world))
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let has = |index: u64| {
        let name = format!("{index:016x}-");
        kept.iter().any(|kept| kept.starts_with(&name))
    };
    assert!(has(older.index) && has(newer.index), "{kept:?}");
    let last = format!("{:016x}-", newer.index + 1);
    assert!(kept.iter().any(|kept| *kept >= last), "{kept:?}");
    // The oldest of them is what the next life is to begin from after all.
    order_anew(&world, &older);
    until_begun_anew(&world).await;
    assert_eq!(node.count("paris").await, 3);
    until_the_earlier_life_is_gone(&world, &node).await;
}

#[tokio::test]
async fn an_earlier_life_that_cannot_be_removed_is_reported_and_removed_later() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let node = world.start().await;
    node.record("paris", 3).await;
    let taken = take(&node).await;
    disk.inject(Fault::next(Op::RemoveDir, Effect::Io));
    order_anew(&world, &taken);
    world
        .until("what stays is reported", || async {
            let report = world.registry.report(1).unwrap_or_default();
            let serves = |life| {
                let mut replicas = report.replicas.iter();
                let found = replicas.find(|at| at.shard_id == 2 && at.incarnation == life);
                found.map(|found| found.serving)
            };
            disk.faults_waiting() == 0 && (serves(2), serves(1)) == (Some(true), Some(false))
        })
        .await;
    until_the_earlier_life_is_gone(&world, &node).await;
    assert_eq!(node.count("paris").await, 3);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_was_joined_and_never_noted_is_removed_when_its_shard_is_elsewhere() {
    let world = World::new().await;
    let node = world.start().await;
    node.stop().await.unwrap();
    let deps = HostDeps {
        runtime: world.runtime.clone(),
        vfs: Arc::clone(&world.vfs),
        dir: world.data_dir(),
        identity: Identity {
            cluster: cluster::ClusterId(CLUSTER),
            node: NodeId(1),
        },
        options: HostOptions::default(),
    };
    let (host, _) = Host::open(deps).await.unwrap();
    // The memory knows nothing of it.
    let group = shard_group(ShardId(3), Incarnation(1));
    let members = vec![Member::voter(NodeId(1), "127.0.0.1:1")];
    let config = GroupConfig::new(group, Start::Bootstrap { members });
    let state = Arc::new(DictionaryState::new(trie_core::Options::default()));
    let begun = host.start_group(config, state).await.unwrap();
    world
        .until("it has something in the log", || async {
            begun.status().applied.is_some()
        })
        .await;
    drop(begun);
    host.shutdown().await.unwrap();
    drop(host);
    let node = world.start().await;
    world
        .until("it is removed", || async {
            node.actions("remove_replica", "reassigned") == 1
        })
        .await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_earlier_life_gives_way_to_what_the_next_begins_from_where_both_do_not_fit() {
    let disk = SimDisk::new();
    let world = World::on(Arc::new(disk.clone())).await;
    let node = world.start().await;
    fill(&node).await;
    take(&node).await;
    let (info, content) = almost_full(&world).await;
    order_anew(&world, &info);
    until_it_waits(&world).await;
    disk.set_capacity(Some(disk.used_bytes() + info.bytes / 2));
    // What the shard does not wait for drives nothing out.
    let other = SnapshotInfo {
        hash: vec![9; 32].into(),
        ..info.clone()
    };
    let pushed = stream::iter(pieces(&other, &content, 2));
    let refused = node.control().send_snapshot(pushed).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DiskFull, "{refused}");
    assert!(disk.exists(&earlier_life(&world)).unwrap());
    push_awaited(&world, &node, &info, &content).await;
    assert!(!disk.exists(&earlier_life(&world)).unwrap());
    assert_eq!(node.count("paris").await, u64::MAX - 5);
}

#[tokio::test]
async fn a_second_push_of_a_snapshot_is_refused_while_the_first_is_under_way() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 3).await;
    let (info, content) = almost_full(&world).await;
    order_anew(&world, &info);
    until_it_waits(&world).await;
    let (begin, rest) = content.split_at(content.len() / 2);
    let begin = pieces(&info, begin, 2).remove(0);
    let rest = SendSnapshotRequest {
        offset: begin.data.len() as u64,
        data: rest.to_vec().into(),
        ..SendSnapshotRequest::default()
    };
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    sender.unbounded_send(begin).unwrap();
    let mut control = node.control();
    let push = async move { control.send_snapshot(receiver).await };
    let first = world.runtime.spawn("first-push", push);
    let seeds = world.data_dir().join("seeds");
    world
        .until("the first has begun", || async {
            !files(&seeds).is_empty()
        })
        .await;
    let second = stream::iter(pieces(&info, &content, 2));
    let refused = node.control().send_snapshot(second).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    sender.unbounded_send(rest).unwrap();
    drop(sender);
    let kept = first.await.unwrap().unwrap().into_inner();
    assert_eq!(kept.bytes, info.bytes);
    until_begun_anew(&world).await;
    assert_eq!(node.count("paris").await, u64::MAX - 5);
}
