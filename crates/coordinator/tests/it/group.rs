//! Three coordinators: each serves everybody, any one may go, and none comes back as somebody else.

use std::time::Duration;

use api::admin::v1::{ActionReport, GetStatusRequest, GetStatusResponse, WatchdogReport};
use api::meta::v1::{AdmitRequest, ProposeRequest};
use api::registry::v1::RegisterRequest;
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::v1::{
    Consistency, GetTopKRequest, RecordBatchRequest, RecordBatchResponse, RecordItem,
    RecordRequest, RequestId,
};
use api::{ApiError, Outcome, Reason};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::damage::damage_log;
use super::harness::{Cluster, PATIENCE, listed, reason};

fn record_in(namespace: &str, term: &str) -> RecordRequest {
    RecordRequest {
        term: term.into(),
        namespace: namespace.into(),
        ..RecordRequest::default()
    }
}

async fn record_at(
    cluster: &Cluster,
    place: usize,
    namespace: &str,
    term: &str,
) -> Result<u64, Status> {
    let mut client = cluster.client_at(place);
    let answer = client.record(record_in(namespace, term)).await;
    answer.map(|answer| answer.into_inner().count)
}

async fn top_at(cluster: &Cluster, place: usize, namespace: &str) -> Vec<(String, u64)> {
    let request = GetTopKRequest {
        namespace: namespace.into(),
        require_complete: true,
        ..GetTopKRequest::default()
    };
    let answer = cluster.client_at(place).get_top_k(request).await;
    let answer = answer.unwrap().into_inner();
    let listed = listed(&answer).into_iter();
    listed
        .map(|(term, count)| (term.to_owned(), count))
        .collect()
}

/// Records until it is done, as a client would that is told to come back.
async fn record_patiently(cluster: &Cluster, place: usize, namespace: &str, term: &str) -> u64 {
    let tries = async {
        loop {
            match record_at(cluster, place, namespace, term).await {
                Ok(count) => return count,
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status}");
                    let outcome = ApiError::from_status(&status).outcome();
                    assert_eq!(outcome, Some(Outcome::NotApplied), "{status}");
                }
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    cluster.runtime.timeout(PATIENCE, tries).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_through_one_is_seen_through_all_at_once() {
    let cluster = Cluster::of_three().await;
    let mut ids = Vec::new();
    for place in 0..3 {
        let what = "everybody is there";
        let status = cluster
            .until_at(place, what, |status| {
                status.metadata_available && status.nodes.iter().all(|node| node.alive)
            })
            .await;
        assert_eq!(status.coordinators.len(), 3);
        assert_eq!(status.nodes.len(), 3);
        assert!(status.coordinators[place].answers);
        ids.push(status.cluster_id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one cluster: {ids:?}");

    for place in 0..3 {
        // The namespace is new each time: whoever does not lead must have the leader create it, and the others learn of it.
        for round in 0..5 {
            let namespace = format!("through-{place}-{round}");
            let count = record_at(&cluster, place, &namespace, "kiwi").await;
            assert_eq!(count.unwrap(), 1);
            for other in 0..3 {
                let seen = top_at(&cluster, other, &namespace).await;
                assert_eq!(seen, [("kiwi".to_owned(), 1)], "{place} by {other}");
            }
        }
    }
}

type Open = (
    mpsc::Sender<RecordBatchRequest>,
    Streaming<RecordBatchResponse>,
);

/// One batch over a stream, which is kept for the next when all went well.
async fn exchange(
    cluster: &Cluster,
    place: usize,
    open: &mut Option<Open>,
    batch: RecordBatchRequest,
) -> Result<RecordBatchResponse, Status> {
    let ended = || Status::unavailable("the stream ended");
    let (requests, mut answers) = match open.take() {
        Some((requests, answers)) => {
            requests.send(batch).await.map_err(|_| ended())?;
            (requests, answers)
        }
        None => {
            let (requests, receiver) = mpsc::channel(1);
            requests.send(batch).await.map_err(|_| ended())?;
            let stream = ReceiverStream::new(receiver);
            let answers = cluster.client_at(place).record_stream(stream).await?;
            (requests, answers.into_inner())
        }
    };
    let answer = answers.message().await?.ok_or_else(ended)?;
    *open = Some((requests, answers));
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_goes_while_a_stream_runs_through_another() {
    let mut cluster = Cluster::of_three().await;
    record_at(&cluster, 0, "", "begun").await.unwrap();
    let leader = cluster.leader_at(0).await;
    let place = (leader + 1) % 3;
    let batches = 60_u64;
    let issued_at_ms = cluster.runtime.wall_ms();
    let batch = |number: u64| RecordBatchRequest {
        items: ["ant", "kiwi", "zoo"]
            .map(|term| RecordItem {
                term: term.into(),
                count: 1,
            })
            .to_vec(),
        request_id: Some(RequestId {
            client_id: vec![5; 16].into(),
            sequence: number,
            issued_at_ms,
            acked_below: number,
        }),
        ..RecordBatchRequest::default()
    };
    let mut open = None;
    for number in 1..=batches {
        let answer = loop {
            match exchange(&cluster, place, &mut open, batch(number)).await {
                Ok(answer) => break answer,
                // A busy machine; the same request again is what a client would send, too.
                Err(status) => assert!(
                    matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable),
                    "{status}"
                ),
            }
        };
        for result in &answer.results {
            assert_eq!((result.code, result.count), (0, number), "{result:?}");
        }
        if number == batches / 2 {
            cluster.stop_coordinators(&[leader]).await;
        }
    }
    // A new leader takes over what only a leader can do.
    assert_eq!(record_patiently(&cluster, place, "later", "fig").await, 1);
    let other = (leader + 2) % 3;
    assert_eq!(
        top_at(&cluster, other, "later").await,
        [("fig".to_owned(), 1)]
    );
    let seen = top_at(&cluster, other, "").await;
    assert!(seen.contains(&("kiwi".to_owned(), batches)), "{seen:?}");

    cluster.start_coordinator_at(leader).await;
    let is_back = cluster.until_at(leader, "it has caught up", |status| {
        status.metadata_available && status.namespaces == 2
    });
    is_back.await;
    assert_eq!(
        record_at(&cluster, leader, "", "kiwi").await.unwrap(),
        batches + 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_last_map_still_routes_and_nothing_is_created() {
    let mut cluster = Cluster::of_three().await;
    assert_eq!(record_at(&cluster, 0, "", "kiwi").await.unwrap(), 1);
    // The two others were enough to create the namespace: the one that stays learns of it while somebody can tell.
    assert_eq!(top_at(&cluster, 2, "").await, [("kiwi".to_owned(), 1)]);
    cluster.stop_coordinators(&[0, 1]).await;
    let lost = "the loss is noticed";
    cluster
        .until_at(2, lost, |status| !status.metadata_available)
        .await;
    let mut client = cluster.client_at(2);
    let answer = client.record(record_in("", "kiwi")).await.unwrap();
    let (count, token) = (answer.get_ref().count, answer.into_inner().token);
    assert_eq!(count, 2);
    assert_eq!(top_at(&cluster, 2, "").await, [("kiwi".to_owned(), 2)]);
    let refused = record_at(&cluster, 2, "new", "kiwi").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let outcome = ApiError::from_status(&refused).outcome();
    assert_eq!(outcome, Some(Outcome::NotApplied));
    // Whether a namespace that is not known here exists, nobody can tell now: that is no empty answer.
    let unknown = GetTopKRequest {
        namespace: "new".into(),
        ..GetTopKRequest::default()
    };
    let refused = cluster
        .client_at(2)
        .get_top_k(unknown.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    // Nor is it where any state will do, if the caller has seen a later one.
    let any = |token| GetTopKRequest {
        consistency: Consistency::Stale.into(),
        token,
        ..unknown.clone()
    };
    let before = cluster.client_at(2).get_top_k(any(None)).await;
    assert_eq!(listed(&before.unwrap().into_inner()), []);
    let refused = cluster.client_at(2).get_top_k(any(token)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    cluster.start_coordinator_at(0).await;
    assert_eq!(record_patiently(&cluster, 2, "new", "kiwi").await, 1);
    assert_eq!(top_at(&cluster, 0, "new").await, [("kiwi".to_owned(), 1)]);
}

/// A status for which these coordinators answered, and no others: on a busy machine one may be late for a question.
async fn told_of_all(cluster: &Cluster, place: usize, expected: &[u64]) -> GetStatusResponse {
    let mut admin = cluster.admin_at(place);
    let tries = async {
        loop {
            let request = GetStatusRequest {
                ask_others: true,
                ..GetStatusRequest::default()
            };
            let status = admin.get_status(request).await.unwrap().into_inner();
            let reached = status.coordinators.iter().filter(|at| at.reached);
            let reached: Vec<u64> = reached.map(|at| at.coordinator_id).collect();
            if reached == expected {
                return status;
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let told = cluster.runtime.timeout(PATIENCE, tries).await;
    told.expect("the coordinators do not all answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_coordinator_tells_what_the_others_did_and_which_do_not_answer() {
    let mut cluster = Cluster::of_three().await;
    let nodes = cluster
        .until_at(2, "all have registered", |status| status.nodes.len() == 3)
        .await;
    // Whoever did it, and whoever is asked.
    for place in 0..3 {
        let status = told_of_all(&cluster, place, &[1, 2, 3]).await;
        let is_new = |at: &&ActionReport| {
            let is_first = matches!(at.reason.as_str(), "new" | "again");
            at.kind == "admit_node" && is_first && at.error.is_empty()
        };
        let admitted = status.actions.iter().filter(is_new);
        let mut admitted: Vec<u64> = admitted.map(|at| at.node_id).collect();
        admitted.sort_unstable();
        // One that did not hear in time that it is admitted asks again.
        admitted.dedup();
        let expected: Vec<u64> = nodes.nodes.iter().map(|node| node.node_id).collect();
        assert_eq!(admitted, expected, "{:?}", status.actions);
        let is_placed = |at: &ActionReport| at.kind == "place_shards" && at.error.is_empty();
        assert!(status.actions.iter().any(is_placed), "{:?}", status.actions);
        let whens: Vec<i64> = status.actions.iter().map(|at| at.last_ms).collect();
        assert!(whens.is_sorted(), "{whens:?}");
    }
    // And what watchdogs told one of them, the newest once, though another was told it, too.
    for (place, times) in [(2, 1), (1, 3)] {
        let action = ActionReport::of("freeze", "no_quorum", (None, None), "");
        let report = WatchdogReport {
            name: "watchdog-7".to_owned(),
            actions: vec![action.seen(times, 1_000, 1_000 + i64::try_from(times).unwrap())],
        };
        let request = GetStatusRequest {
            watchdog: Some(report),
            ..GetStatusRequest::default()
        };
        cluster.admin_at(place).get_status(request).await.unwrap();
    }
    for place in 0..3 {
        let status = told_of_all(&cluster, place, &[1, 2, 3]).await;
        let told = status
            .actions
            .iter()
            .filter(|at| at.watchdog == "watchdog-7");
        let told: Vec<_> = told.map(|at| (at.reason.as_str(), at.times)).collect();
        assert_eq!(told, [("no_quorum", 3)]);
    }
    cluster.stop_coordinators(&[0]).await;
    let status = told_of_all(&cluster, 2, &[2, 3]).await;
    for at in status.coordinators {
        assert_eq!(at.reached, at.reason.is_empty(), "{at:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_ends_with_any_of_its_tasks() {
    let mut cluster = Cluster::without_servers().await;
    let tasks = [
        "grpc",
        "http",
        "snapshot-puller",
        "upkeep",
        "group-reads",
        "host-maintain",
    ];
    for task in tasks {
        // Some begin when others are served already.
        let begun = async {
            while !cluster.faults.running().contains(&task) {
                cluster.runtime.sleep(Duration::from_millis(5)).await;
            }
        };
        let begun = cluster.runtime.timeout(PATIENCE, begun).await;
        begun.unwrap_or_else(|_| panic!("{task}: {:?}", cluster.faults.running()));
        assert!(cluster.faults.strike(task), "{task}");
        let ended = cluster.coordinator_ended(0).await.unwrap_err().to_string();
        assert!(ended.contains(task), "{ended}");
        // Its supervisor starts it again.
        cluster.start_coordinator().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_coordinators_restart_at_once() {
    let mut cluster = Cluster::of_three().await;
    for place in 0..3 {
        record_at(&cluster, place, "fruit", "kiwi").await.unwrap();
    }
    let before = cluster.until_at(0, "a status", |_| true).await;
    cluster.stop_coordinators(&[0, 1, 2]).await;
    for place in [2, 0, 1] {
        cluster.start_coordinator_at(place).await;
    }
    for place in 0..3 {
        assert_eq!(
            record_patiently(&cluster, place, "fruit", "kiwi").await,
            4 + place as u64
        );
        let namespace = format!("after-{place}");
        assert_eq!(
            record_patiently(&cluster, place, &namespace, "kiwi").await,
            1
        );
    }
    let after = cluster.until_at(1, "a status", |_| true).await;
    assert_eq!(after.cluster_id, before.cluster_id);
    let nodes = |status: &api::admin::v1::GetStatusResponse| {
        let nodes = status.nodes.iter();
        nodes
            .map(|node| (node.node_id, node.name.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(nodes(&after), nodes(&before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_lost_its_disk_is_taken_in_as_another_without_a_word() {
    let mut cluster = Cluster::of_three().await;
    record_at(&cluster, 0, "", "kiwi").await.unwrap();
    let leader = cluster.leader_at(0).await;
    // One that follows, the one that led, and one that was taken in before.
    let follower = (leader + 1) % 3;
    for (round, place) in [follower, leader, follower].into_iter().enumerate() {
        cluster.stop_coordinators(&[place]).await;
        let lost = cluster.coordinator_config(place).data_dir.clone();
        let empty = lost.with_extension(format!("empty-{round}"));
        cluster.coordinator_config(place).data_dir = empty.clone();
        let changes = cluster.member_changes();
        let status = cluster.start_newcomer_at(place, changes).await;
        let numbers = status.coordinators.iter().map(|at| at.coordinator_id);
        assert_eq!(numbers.collect::<Vec<u64>>(), [1, 2, 3]);
        // It counts: with one of the others away it is half of the majority.
        let other = (place + 1) % 3;
        cluster.stop_coordinators(&[other]).await;
        let namespace = format!("round-{round}");
        let count = record_patiently(&cluster, place, &namespace, "kiwi").await;
        assert_eq!(count, 1);
        cluster.start_coordinator_at(other).await;
        assert_eq!(
            record_patiently(&cluster, other, &namespace, "kiwi").await,
            2
        );
        // And the directory that was lost is nobody's any more, should it turn up again.
        cluster.stop_coordinators(&[place]).await;
        cluster.coordinator_config(place).data_dir = lost;
        cluster.start_coordinator_at(place).await;
        let ended = cluster.coordinator_ended(place).await.unwrap_err();
        let is_right = matches!(ended, coordinator::Error::DirectoryReplaced { .. });
        assert!(is_right, "{ended}");
        cluster.coordinator_config(place).data_dir = empty;
        cluster.start_coordinator_at(place).await;
        assert_eq!(
            record_patiently(&cluster, place, &namespace, "kiwi").await,
            3
        );
    }
    for (kind, reason) in [
        ("admit_coordinator", "lost_directory"),
        ("change_coordinators", "planned"),
    ] {
        assert!(cluster.actions(kind, reason) >= 1, "{kind} {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_metadata_are_damaged_comes_back_as_another_without_a_word() {
    let mut cluster = Cluster::of_three().await;
    for number in 0..20 {
        record_at(&cluster, 0, &format!("space-{number}"), "kiwi")
            .await
            .unwrap();
    }
    let place = cluster.leader_at(0).await;
    cluster.stop_coordinators(&[place]).await;
    let dir = cluster.coordinator_config(place).data_dir.clone();
    damage_log(&dir);
    // Without a majority of the others nothing is given up.
    let other = (place + 1) % 3;
    cluster.stop_coordinators(&[other]).await;
    cluster.start_coordinator_at(place).await;
    assert!(dir.join("wal").exists());
    // With a majority, others may take it in before it has ended.
    let changes = cluster.member_changes();
    cluster.start_coordinator_at(other).await;
    let ended = cluster.coordinator_ended(place).await.unwrap_err();
    let coordinator::Error::GaveUpData { moved_to, .. } = ended else {
        panic!("{ended}");
    };
    assert!(dir.join(moved_to).join("wal").exists(), "it is kept");
    // Its supervisor starts it again.
    cluster.start_newcomer_at(place, changes).await;
    // It counts: with one of the others away it is half of the majority.
    cluster.stop_coordinators(&[other]).await;
    assert_eq!(
        record_patiently(&cluster, place, "space-3", "kiwi").await,
        2
    );
    assert_eq!(record_patiently(&cluster, place, "new", "kiwi").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_does_not_get_the_place_of_one_that_is_at_work() {
    let cluster = Cluster::of_three().await;
    record_at(&cluster, 0, "", "kiwi").await.unwrap();
    let status = cluster.until_at(0, "a status", |_| true).await;
    let mut asked = cluster.metadata_at(cluster.leader_at(0).await);
    for (number, reason) in [
        (1, Reason::NotNeeded),
        (2, Reason::NotNeeded),
        (3, Reason::NotNeeded),
        (4, Reason::NotFound),
    ] {
        let request = AdmitRequest {
            cluster_id: status.cluster_id.clone(),
            coordinator_id: number,
            instance_id: vec![9; 16].into(),
        };
        let refused = asked.admit(request).await.unwrap_err();
        assert_eq!(ApiError::from_status(&refused).reason(), reason, "{number}");
    }
    let request = AdmitRequest {
        cluster_id: status.cluster_id.clone(),
        coordinator_id: 2,
        instance_id: vec![9; 15].into(),
    };
    let refused = asked.admit(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_means_nothing_does_not_get_into_the_log() {
    let cluster = Cluster::of_three().await;
    let status = cluster.until_at(0, "a status", |_| true).await;
    let leader = cluster.leader_at(0).await;
    let mut metadata = cluster.metadata_at(leader);
    for (kind, field) in [(1, "command"), (60_000, "kind"), (70_000, "kind")] {
        let request = ProposeRequest {
            cluster_id: status.cluster_id.clone(),
            to_coordinator_id: leader as u64 + 1,
            kind,
            command: b"nonsense".to_vec().into(),
        };
        let refused = metadata.propose(request).await.unwrap_err();
        let error = ApiError::from_status(&refused);
        assert_eq!(error.reason(), Reason::Malformed, "{refused}");
        assert_eq!(error.field_name(), Some(field), "{refused}");
    }
    // A namespace is a change of the metadata.
    record_at(&cluster, 0, "new", "kiwi").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_back_with_a_foreign_directory() {
    let mut cluster = Cluster::of_three().await;
    // Another one's directory, and one that was begun with others.
    cluster.stop_coordinators(&[2]).await;
    let kept = cluster.coordinator_config(2).data_dir.clone();
    cluster.coordinator_config(2).data_dir = cluster.coordinator_config(1).data_dir.clone();
    cluster.start_coordinator_at(2).await;
    let ended = cluster.coordinator_ended(2).await.unwrap_err();
    assert!(
        matches!(ended, coordinator::Error::Identity { .. }),
        "{ended}"
    );
    cluster.coordinator_config(2).data_dir = kept;
    cluster.coordinator_config(2).group.peers.clear();
    cluster.start_coordinator_at(2).await;
    let ended = cluster.coordinator_ended(2).await.unwrap_err();
    assert!(
        matches!(ended, coordinator::Error::OtherMembers { .. }),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_node_is_gone_is_decided_by_the_coordinator_that_leads() {
    let mut cluster = Cluster::of_three().await;
    cluster.kill_server(0).await;
    for place in 0..3 {
        let silent = cluster.until_at(place, "it is silent everywhere", |status| {
            let mut nodes = status.nodes.iter();
            nodes.any(|node| node.name == "shard-1" && !node.alive)
        });
        silent.await;
    }
    // Another server of its name, with an empty directory, asks whoever is there.
    let register = async |place: usize| {
        let request = RegisterRequest {
            node_name: "shard-1".into(),
            address: cluster.server_address(0),
            region: String::new(),
            instance_id: vec![9; 16].into(),
        };
        let mut client = RegistryServiceClient::new(cluster.channel(place));
        client.register(request).await
    };
    // The one that leads last.
    let leader = cluster.leader_at(0).await;
    let asked = async {
        let mut place = leader;
        loop {
            place = (place + 1) % 3;
            match register(place).await {
                Ok(taken) => return (place, taken.into_inner()),
                Err(refused) => assert_eq!(reason(&refused), Reason::Starting, "{refused}"),
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = cluster.runtime.timeout(PATIENCE, asked).await;
    let (place, taken) = asked.expect("one of them takes it");
    assert_eq!(place, cluster.leader_at(place).await);
    // Everybody finds it then, without having heard of it.
    for place in 0..3 {
        let again = register(place).await.unwrap().into_inner();
        assert_eq!(again.node_id, taken.node_id);
    }
}
