//! What is lost and what comes back: a server away, a disk lost, a log damaged.

use std::time::Duration;

use api::admin::v1::{
    GetStatusResponse, ListSnapshotsRequest, PullSnapshotRequest, PushSnapshotRequest,
    RecoverShardRequest, RecoverShardResponse, RecoveryAction, ShardState, SnapshotInfo,
};
use api::v1::{Consistency, GetTopKRequest, RecordRequest, SessionToken, TermRange};
use api::{Outcome, Reason};
use tonic::{Code, Status};

use super::audit::newest_snapshot;
use super::cli::{run, run_through};
use super::harness::{Cluster, Shape, all_serve, listed, reason};

async fn recover(
    cluster: &Cluster,
    accept_loss: bool,
    confirmation: &str,
) -> Result<RecoverShardResponse, Status> {
    let request = RecoverShardRequest {
        shard_id: 2,
        accept_loss,
        confirmation: confirmation.into(),
        accept_empty: false,
    };
    let answer = cluster.admin().recover_shard(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Asks until the recovery has ended.
async fn recover_to_the_end(cluster: &Cluster) -> RecoverShardResponse {
    for _ in 0..60 {
        let done = recover(cluster, true, "lose shard 2").await.unwrap();
        if done.action() != RecoveryAction::WaitForProcess {
            return done;
        }
        cluster.runtime.sleep(Duration::from_millis(500)).await;
    }
    panic!("the recovery does not end");
}

async fn ask(
    cluster: &Cluster,
    prefix: &str,
    require_complete: bool,
) -> Result<api::v1::GetTopKResponse, Status> {
    let request = GetTopKRequest {
        prefix: prefix.into(),
        require_complete,
        ..GetTopKRequest::default()
    };
    let answer = cluster.client().get_top_k(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Has a coordinator fetch a snapshot of the second shard.
async fn pull(cluster: &Cluster, place: usize) -> SnapshotInfo {
    let request = PullSnapshotRequest { shard_id: 2 };
    let pulled = cluster.admin_at(place).pull_snapshot(request).await;
    pulled.unwrap().into_inner().snapshot.unwrap()
}

/// Has a snapshot of the second shard fetched, and then records what it does not contain.
async fn lemons_since_the_snapshot(cluster: &Cluster) {
    pull(cluster, 0).await;
    for _ in 0..20 {
        cluster.record("lemon", 1).await;
    }
}

async fn until_state(cluster: &Cluster, state: ShardState) {
    cluster
        .until(&format!("shard 2 is {state:?}"), |status| {
            status
                .shards
                .get(1)
                .is_some_and(|shard| shard.state() == state)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_shard_says_what_is_missing() {
    let mut cluster = Cluster::start().await;
    for (term, count) in [("ant", 1), ("kiwi", 2), ("zoo", 3)] {
        cluster.record(term, count).await;
    }
    cluster.stop_server(1).await;
    let partial = ask(&cluster, "", false).await.unwrap();
    assert_eq!(listed(&partial), [("zoo", 3), ("ant", 1)]);
    let completeness = partial.completeness.unwrap();
    assert_eq!(
        (
            completeness.shards_attempted,
            completeness.shards_succeeded,
            completeness.shards_failed
        ),
        (3, 2, 1)
    );
    let hole = TermRange {
        start: "g".into(),
        end: "p".into(),
    };
    assert_eq!(completeness.missing, [hole]);

    let refused = ask(&cluster, "", true).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(reason(&refused), Reason::Incomplete);
    let refused = ask(&cluster, "k", false).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nobody else has it");
    assert_eq!(
        listed(&ask(&cluster, "z", true).await.unwrap()),
        [("zoo", 3)]
    );

    until_state(&cluster, ShardState::Unreachable).await;
    let waits = recover(&cluster, false, "").await.unwrap();
    assert_eq!(waits.action(), RecoveryAction::WaitForProcess);
    let waits = recover(&cluster, true, "lose shard 2").await.unwrap();
    assert_eq!(
        waits.action(),
        RecoveryAction::WaitForProcess,
        "nothing is given up: {waits:?}"
    );

    cluster.start_server(1).await;
    cluster.until_serving().await;
    let whole = ask(&cluster, "", true).await.unwrap();
    assert_eq!(listed(&whole), [("zoo", 3), ("kiwi", 2), ("ant", 1)]);
    let none = recover(&cluster, false, "").await.unwrap();
    assert_eq!(none.action(), RecoveryAction::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_given_up_only_by_word_and_comes_back_from_the_snapshot() {
    let mut cluster = Cluster::start().await;
    for (term, count) in [("ant", 1), ("kiwi", 2), ("zoo", 3)] {
        cluster.record(term, count).await;
    }
    let mut admin = cluster.admin();
    let pulled = admin
        .pull_snapshot(PullSnapshotRequest { shard_id: 2 })
        .await;
    let pulled = pulled.unwrap().into_inner().snapshot.unwrap();
    let held = admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap();
    assert_eq!(held.into_inner().snapshots, std::slice::from_ref(&pulled));
    let refused = admin
        .push_snapshot(PushSnapshotRequest { shard_id: 2 })
        .await;
    assert_eq!(
        refused.unwrap_err().code(),
        Code::FailedPrecondition,
        "it serves"
    );
    assert_eq!(cluster.actions("pull_snapshot", "asked"), 1);
    assert_eq!(cluster.actions("push_snapshot", "asked"), 0, "it failed");

    let late = RecordRequest {
        term: "lemon".into(),
        count: 9,
        ..RecordRequest::default()
    };
    let token: Option<SessionToken> = cluster
        .client()
        .record(late)
        .await
        .unwrap()
        .into_inner()
        .token;

    // The disk is lost: the server comes back under its name, with nothing.
    cluster.stop_server(1).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    cluster.start_server(1).await;
    until_state(&cluster, ShardState::DataLoss).await;
    let lost = ask(&cluster, "k", false).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    let lost = RecordRequest {
        term: "kiwi".into(),
        ..RecordRequest::default()
    };
    let lost = cluster.client().record(lost).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    let outcome = api::ApiError::from_status(&lost).outcome();
    assert_eq!(outcome, Some(Outcome::NotApplied));

    let needs = recover(&cluster, false, "").await.unwrap();
    assert_eq!(needs.action(), RecoveryAction::NeedsAcceptLoss);
    for wrong in ["", "yes", "lose shard 1", "Lose shard 2"] {
        let refused = recover(&cluster, true, wrong).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::ConfirmationRequired, "{wrong:?}");
    }
    until_state(&cluster, ShardState::DataLoss).await;

    let done = recover_to_the_end(&cluster).await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation, "{done:?}");
    assert_eq!((done.incarnation, done.snapshot_index), (2, pulled.index));
    let again = recover(&cluster, true, "lose shard 2").await.unwrap();
    assert_eq!(again, done, "the report is still there");

    let whole = ask(&cluster, "", true).await.unwrap();
    assert_eq!(
        listed(&whole),
        [("zoo", 3), ("kiwi", 2), ("ant", 1)],
        "lemon came later"
    );
    assert_eq!(cluster.record("kiwi", 1).await, 3);
    // Whoever has seen the lost write is not shown the past.
    let request = GetTopKRequest {
        prefix: "l".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetTopKRequest::default()
    };
    let refused = cluster.client().get_top_k(request).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::UnknownIncarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_set_aside_when_its_loss_is_accepted() {
    let mut cluster = Cluster::start().await;
    for term in ["ant", "kiwi", "zoo"] {
        cluster.record(term, 5).await;
    }
    lemons_since_the_snapshot(&cluster).await;
    cluster.stop_server(1).await;
    damage_log(cluster.server_dir(1));
    cluster.start_server(1).await;
    until_state(&cluster, ShardState::DataLoss).await;
    let needs = recover(&cluster, false, "").await.unwrap();
    assert_eq!(needs.action(), RecoveryAction::NeedsAcceptLoss);

    let recovering = recover(&cluster, true, "lose shard 2").await.unwrap();
    assert_eq!(
        recovering.action(),
        RecoveryAction::WaitForProcess,
        "{recovering:?}"
    );
    let ended = cluster.server_ended(1).await.unwrap_err();
    assert!(
        matches!(ended, shard_server::RunError::GaveUpData { .. }),
        "{ended}"
    );
    cluster.start_server(1).await;
    let done = recover_to_the_end(&cluster).await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation);
    assert_eq!(cluster.actions("set_data_aside", "loss_accepted"), 1);
    assert_eq!(cluster.actions("begin_anew", "from_snapshot"), 1);
    assert_eq!(cluster.recoveries("g"), (1, 1));
    let whole = ask(&cluster, "", true).await.unwrap();
    assert_eq!(listed(&whole), [("ant", 5), ("kiwi", 5), ("zoo", 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_sound_replica_is_what_a_shard_begins_anew_from() {
    let mut cluster = Cluster::replicated().await;
    cluster.record("kiwi", 5).await;
    lemons_since_the_snapshot(&cluster).await;
    for place in [0, 1] {
        cluster.stop_server(place).await;
        std::fs::remove_dir_all(cluster.server_dir(place)).unwrap();
        cluster.start_server(place).await;
    }
    until_state(&cluster, ShardState::DataLoss).await;
    let done = recover_to_the_end(&cluster).await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation, "{done:?}");
    assert_eq!(cluster.actions("begin_anew", "from_replica"), 1);
    assert_eq!(cluster.actions("begin_anew", "from_snapshot"), 0);
    for (prefix, whole) in [("k", ("kiwi", 5)), ("l", ("lemon", 20))] {
        let kept = ask(&cluster, prefix, false).await.unwrap();
        assert_eq!(listed(&kept), [whole], "none of it was lost");
    }
}

/// Three replicas of each shard, in which no entry is written but what somebody asks for, with something in the second shard of which
/// the coordinator holds an older snapshot. All replicas have told of all of it.
async fn with_an_older_snapshot() -> Cluster {
    let mut cluster = Cluster::of(Shape {
        replicas: 3,
        audit_interval: None,
        ..Shape::default()
    })
    .await;
    cluster.add_servers(3).await;
    cluster.until("all replicas serve", all_serve).await;
    cluster.record("kiwi", 5).await;
    lemons_since_the_snapshot(&cluster).await;
    cluster
        .until("all replicas have all", |status| {
            let mut replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
            all_serve(status) && replicas.all(|at| at.shard_id != 2 || at.total_count == 25)
        })
        .await;
    cluster
}

/// The folder of the snapshots of the second shard that a coordinator holds.
fn held_dir(cluster: &mut Cluster, place: usize) -> std::path::PathBuf {
    let dir = &cluster.coordinator_config(place).data_dir;
    dir.join("held-snapshots").join("2")
}

/// Flips a bit in a snapshot of the second shard that the first coordinator holds.
fn rot_held(cluster: &mut Cluster, held: &SnapshotInfo) {
    let name = format!("{}-{}-", held.incarnation, held.index);
    let entries = std::fs::read_dir(held_dir(cluster, 0)).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(&name)
    };
    let path = paths.find(is_it).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

/// The disks of all but the leader of the second shard are lost; what its replica has is all there, when the loss was accepted.
async fn the_leader_is_what_the_shard_begins_anew_from(cluster: &mut Cluster) {
    let leader = cluster.leader_of(2).await;
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    cluster.kill_servers(&others).await;
    for place in others {
        std::fs::remove_dir_all(cluster.server_dir(place)).unwrap();
        cluster.start_server(place).await;
    }
    until_state(cluster, ShardState::DataLoss).await;
    let done = recover_to_the_end(cluster).await;
    assert_eq!(done.action(), RecoveryAction::NewIncarnation, "{done:?}");
    assert_eq!(cluster.actions("begin_anew", "from_replica"), 1);
    assert_eq!(cluster.actions("begin_anew", "from_snapshot"), 0);
    for (prefix, whole) in [("k", ("kiwi", 5)), ("l", ("lemon", 20))] {
        let kept = ask(cluster, prefix, false).await.unwrap();
        assert_eq!(listed(&kept), [whole], "none of it was lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_replica_is_not_given_up_for_a_rotten_snapshot_of_the_same_entries() {
    let mut cluster = with_an_older_snapshot().await;
    let newest = pull(&cluster, 0).await;
    rot_held(&mut cluster, &newest);
    the_leader_is_what_the_shard_begins_anew_from(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_snapshot_that_says_to_reach_further_gives_no_sound_replica_up() {
    let mut cluster = with_an_older_snapshot().await;
    // What is held is known by its name until it is read.
    let name = format!("1-999999-1-0-{}.snapshot", "ab".repeat(32));
    cluster.stop_coordinator().await;
    std::fs::write(held_dir(&mut cluster, 0).join(name), b"rotten").unwrap();
    cluster.start_coordinator().await;
    cluster.until("all replicas serve", all_serve).await;
    the_leader_is_what_the_shard_begins_anew_from(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn less_than_a_person_was_told_of_is_begun_from_only_when_they_ask_again() {
    let mut cluster = Cluster::start().await;
    cluster.record("kiwi", 5).await;
    let older = pull(&cluster, 0).await;
    cluster.record("lemon", 20).await;
    let newest = pull(&cluster, 0).await;
    cluster.stop_server(1).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    rot_held(&mut cluster, &newest);
    cluster.start_server(1).await;
    until_state(&cluster, ShardState::DataLoss).await;
    let refused = recover(&cluster, true, "lose shard 2").await.unwrap_err();
    assert_eq!(reason(&refused), Reason::UnknownSnapshot, "{refused}");
    assert!(
        refused.message().contains(&newest.index.to_string()),
        "{refused}"
    );
    until_state(&cluster, ShardState::DataLoss).await;
    let done = recover_to_the_end(&cluster).await;
    assert_eq!(done.snapshot_index, older.index, "{done:?}");
    let kept = ask(&cluster, "", false).await.unwrap();
    assert_eq!(listed(&kept), [("kiwi", 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_begins_empty_only_where_that_was_accepted_in_words_of_its_own() {
    let mut cluster = Cluster::start().await;
    for (term, count) in [("ant", 1), ("kiwi", 2), ("zoo", 3)] {
        cluster.record(term, count).await;
    }
    cluster.stop_server(1).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    cluster.start_server(1).await;
    until_state(&cluster, ShardState::DataLoss).await;
    let refused = recover(&cluster, true, "lose shard 2").await.unwrap_err();
    assert_eq!(reason(&refused), Reason::UnknownSnapshot, "{refused}");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(refused.message().contains("snapshot list"), "{refused}");
    until_state(&cluster, ShardState::DataLoss).await;

    let ask_for = async |options: &[&str]| {
        let arguments = [&["recover", "2", "--accept-loss"][..], options].concat();
        run(&cluster, &arguments).await
    };
    let (code, told, refused) = ask_for(&["--confirm", "lose shard 2"]).await;
    assert_eq!(code, Some(1), "{refused}");
    assert!(told.contains("EMPTY: no snapshot is held"), "{told}");
    assert!(refused.contains("UNKNOWN_SNAPSHOT"), "{refused}");
    let (code, _, refused) = ask_for(&["--accept-empty", "--confirm", "lose shard 2"]).await;
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("CONFIRMATION_REQUIRED"), "{refused}");
    until_state(&cluster, ShardState::DataLoss).await;
    let words = "lose all of shard 2";
    let (code, told, refused) = ask_for(&["--accept-empty", "--confirm", words]).await;
    assert_eq!(code, Some(0), "{told} {refused}");
    assert!(told.contains("begun empty"), "{told}");
    let whole = ask(&cluster, "", true).await.unwrap();
    assert_eq!(listed(&whole), [("zoo", 3), ("ant", 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_recovered_through_the_coordinator_that_holds_a_snapshot() {
    let mut cluster = Cluster::of_three().await;
    cluster.record("kiwi", 5).await;
    let held = pull(&cluster, 1).await;
    cluster.stop_server(1).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    cluster.start_server(1).await;
    until_state(&cluster, ShardState::DataLoss).await;
    // The first coordinator comes back with an empty directory, and nobody is left from whom it could fetch what it held.
    cluster.stop_coordinators(&[0]).await;
    let config = cluster.coordinator_config(0);
    config.data_dir = config.data_dir.with_extension("empty");
    let addresses: Vec<String> = config.group.peers.values().cloned().collect();
    cluster.start_coordinator_at(0).await;
    cluster
        .until_at(0, "it is taken in", |status| {
            let shard = status.shards.iter().find(|at| at.shard_id == 2);
            let is_lost = shard.is_some_and(|at| at.state() == ShardState::DataLoss);
            status.metadata_available && is_lost
        })
        .await;
    let refused = recover(&cluster, true, "lose shard 2").await.unwrap_err();
    assert_eq!(reason(&refused), Reason::UnknownSnapshot, "{refused}");

    let coordinators = addresses.join(",");
    let through_all = async |arguments: &[&str]| {
        let (code, told, said) = run_through(&cluster, &coordinators, arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {told} {said}");
        told
    };
    let table = through_all(&["snapshot", "list"]).await;
    let holds = |address: &str| table.contains(address);
    assert!(holds(&addresses[1]) && !holds(&addresses[0]), "{table}");
    let arguments = ["recover", "2", "--accept-loss", "--confirm", "lose shard 2"];
    let told = through_all(&arguments).await;
    let begins = format!("the snapshot of index {} of its life 1", held.index);
    assert!(told.contains(&begins), "{told}");
    let holder = format!("which {} holds", addresses[1]);
    assert!(told.contains(&holder), "{told}");
    let request = GetTopKRequest {
        prefix: "k".into(),
        ..GetTopKRequest::default()
    };
    let kept = cluster.client_at(1).get_top_k(request).await.unwrap();
    assert_eq!(listed(kept.get_ref()), [("kiwi", 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_replica_of_three_is_no_lost_data_while_the_others_start() {
    let mut cluster = Cluster::replicated().await;
    for _ in 0..20 {
        cluster.record("kiwi", 1).await;
    }
    for place in 0..3 {
        cluster.stop_server(place).await;
    }
    damage_log(cluster.server_dir(2));
    cluster.start_server(2).await;
    cluster
        .until("the damage is all that is heard", |status| {
            let mut nodes = status.nodes.iter();
            nodes.any(|node| node.alive && !node.reason.is_empty())
                && status.shards[1].state() != ShardState::Serving
        })
        .await;
    // A person who is asked to accept a loss now would give up what the others have.
    let waits = recover(&cluster, true, "lose shard 2").await.unwrap();
    assert_eq!(waits.action(), RecoveryAction::WaitForProcess, "{waits:?}");
    for place in 0..2 {
        cluster.start_server(place).await;
    }
    cluster
        .until("shard 2 serves", |status| {
            let mut shards = status.shards.iter();
            shards.any(|shard| shard.shard_id == 2 && shard.state() == ShardState::Serving)
        })
        .await;
    assert_eq!(
        listed(&ask(&cluster, "k", true).await.unwrap()),
        [("kiwi", 20)]
    );
}

/// The first segment of a node's log that has something, and its bytes.
fn first_segment(dir: &std::path::Path) -> (std::path::PathBuf, Vec<u8>) {
    let wal = dir.join("wal");
    let mut segments: Vec<_> = std::fs::read_dir(&wal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::metadata(path).unwrap().len() > 4096)
        .collect();
    segments.sort();
    let path = segments.swap_remove(0);
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

/// Flips bits in the middle of what is surely written.
pub(super) fn damage_log(dir: &std::path::Path) {
    let (path, mut bytes) = first_segment(dir);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_goes_without_a_rotten_snapshot_is_told_of() {
    let mut cluster = Cluster::start().await;
    for _ in 0..2 {
        cluster.record("kiwi", 1).await;
        let request = PullSnapshotRequest { shard_id: 2 };
        cluster.admin().pull_snapshot(request).await.unwrap();
    }
    cluster.record("kiwi", 1).await;
    cluster.kill_server(1).await;
    let newest = newest_snapshot(cluster.server_dir(1));
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    cluster.start_server(1).await;
    let told = |status: &GetStatusResponse| {
        let mut actions = status.actions.iter();
        actions.any(|at| at.kind == "pass_over_snapshot" && at.shard_id == Some(2))
    };
    cluster.until("the status tells of it", told).await;
    cluster.until_serving().await;
    assert_eq!(cluster.server_actions(1, "pass_over_snapshot", "rotten"), 1);
    let answer = cluster.top("k", 1).await;
    assert_eq!(listed(&answer), [("kiwi", 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_snapshots_are_fetched_unasked() {
    let cluster = Cluster::start().await;
    cluster.record("kiwi", 1).await;
    let mut admin = cluster.admin();
    admin
        .pull_snapshot(PullSnapshotRequest { shard_id: 2 })
        .await
        .unwrap();
    cluster.record("kiwi", 1).await;
    // Taken at the shard alone: the coordinator hears of it by the report.
    let node = cluster.until("the map is there", |_| true).await.nodes;
    let address = &node
        .iter()
        .find(|node| node.name == "shard-2")
        .unwrap()
        .address;
    let channel = rpc::channel::connect(&cluster.runtime, address, &Default::default()).unwrap();
    let taken = api::shard::v1::node_service_client::NodeServiceClient::new(channel)
        .take_snapshot(api::shard::v1::TakeSnapshotRequest {
            shard_id: 2,
            reach: 0,
        })
        .await
        .unwrap()
        .into_inner()
        .snapshot
        .unwrap();
    let fetched = async {
        loop {
            let held = admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap();
            if held.into_inner().snapshots.contains(&taken) {
                return;
            }
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    cluster
        .runtime
        .timeout(Duration::from_secs(30), fetched)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rotten_on_all_voters_stops_the_shards_and_no_election_mends_it() {
    let mut cluster = Cluster::replicated().await;
    for _ in 0..20 {
        cluster.record("kiwi", 1).await;
    }
    for place in 0..3 {
        cluster.stop_server(place).await;
    }
    let dirs: Vec<_> = (0..3).map(|at| cluster.server_dir(at).to_owned()).collect();
    dirs.iter().for_each(|dir| damage_log(dir));
    let left: Vec<_> = dirs.iter().map(|dir| first_segment(dir)).collect();
    for place in 0..3 {
        cluster.start_server(place).await;
    }
    let is_damaged = |status: &GetStatusResponse| {
        let nodes = status.nodes.iter();
        let damaged = nodes.filter(|node| node.alive && !node.reason.is_empty());
        damaged.count() == 3
    };
    cluster.until("all tell of the damage", is_damaged).await;
    until_state(&cluster, ShardState::DataLoss).await;
    let record = RecordRequest {
        term: "kiwi".into(),
        ..RecordRequest::default()
    };
    let refused = cluster.client().record(record).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss, "{refused}");
    let refused = ask(&cluster, "k", false).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::DataLoss, "{refused}");
    // Nobody gives anything up unless a person says so, however often it is looked at; all that is left stays as it is.
    for _ in 0..4 {
        let needs = recover(&cluster, false, "").await.unwrap();
        assert_eq!(needs.action(), RecoveryAction::NeedsAcceptLoss, "{needs:?}");
        // Four seconds are longer than anybody counts as alive without a word.
        cluster.runtime.sleep(Duration::from_secs(1)).await;
    }
    let refused = recover(&cluster, true, "lose shard 1").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(cluster.actions("set_data_aside", "damaged"), 0);
    for place in 0..3 {
        let aside = cluster.server_actions(place, "set_data_aside", "damaged");
        assert_eq!(aside, 0, "server {place}");
    }
    let found: Vec<_> = dirs.iter().map(|dir| first_segment(dir)).collect();
    assert_eq!(found, left);
}
