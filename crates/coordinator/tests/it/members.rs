//! Replicas that are lost, damaged, drained or replaced while the cluster goes on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use api::Reason;
use api::admin::v1::{
    BeginRecoveryRequest, BeginRecoveryResponse, DrainNodeRequest, EndRecoveryRequest,
    GetMapRequest, GetStatusResponse, PromoteReplicaRequest, RecoverShardRequest, RecoveryAction,
    ReplaceReplicaRequest, ReplicaDescriptor, ReplicaRole, ReplicaStatus, ShardState, ShardStatus,
    TurnState, TurnVerdict,
};
use api::raft::v1::raft_service_client::RaftServiceClient;
use api::raft::v1::{Envelope, Vote, VoteRequest};
use api::v1::{Consistency, GetTopKRequest};
use cluster::{Incarnation, ShardId, limits};
use replication::shard_group;
use tonic::{Code, Request, Status};

use super::cli::run;
use super::damage::damage_log;
use super::harness::{Cluster, PATIENCE, Shape, all_serve, listed, reason, run_child};
use super::replicas::Writers;
use super::steps::give_name_away;
use super::wide::with_a_far_region;

/// Whether every shard has its three replicas on these nodes, at work and with nothing under way.
fn settled_on(status: &GetStatusResponse, nodes: &[u64]) -> bool {
    let is_settled = |shard: &ShardStatus| {
        let mut on: Vec<u64> = shard.replicas.iter().map(|at| at.node_id).collect();
        on.sort_unstable();
        shard.change.is_none() && on == nodes
    };
    all_serve(status) && status.shards.iter().all(is_settled)
}

async fn until_settled_on(cluster: &Cluster, nodes: &[u64]) {
    let what = format!("all shards are on {nodes:?}");
    cluster.until(&what, |at| settled_on(at, nodes)).await;
    let map = cluster.admin().get_map(GetMapRequest {}).await.unwrap();
    for shard in map.into_inner().map.unwrap().shards {
        let votes = |at: &ReplicaDescriptor| at.voter;
        assert!(shard.replicas.iter().all(votes), "{shard:?}");
    }
}

/// Waits until one recovery of each shard has been counted, which succeeded.
async fn until_recovered_once(cluster: &Cluster) {
    let is_counted = |key: &str| cluster.recoveries(key) == (1, 1);
    cluster
        .until("the recoveries are counted", |_| {
            ["", "g", "p"].into_iter().all(is_counted)
        })
        .await;
}

async fn fill(cluster: &Cluster) {
    for (term, count) in [("bee", 1), ("kit", 2), ("yak", 3)] {
        cluster.record(term, count).await;
    }
}

const FILLED: [(&str, u64); 3] = [("yak", 3), ("kit", 2), ("bee", 1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_rebuilt_from_the_peers_without_a_word() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    let writers = Writers::start(&cluster);
    writers.go_on(&cluster.runtime, 20).await;
    cluster.kill_server(1).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    cluster.start_server(1).await;
    // It comes back as a new node, never as the one whose promises it has forgotten.
    let status = cluster
        .until("a node is lost", |status| {
            status.nodes.iter().any(|node| node.lost)
        })
        .await;
    let lost: Vec<u64> = status
        .nodes
        .iter()
        .filter(|node| node.lost)
        .map(|node| node.node_id)
        .collect();
    let now: Vec<u64> = (1..=4).filter(|node| !lost.contains(node)).collect();
    assert_eq!(lost.len(), 1);
    until_settled_on(&cluster, &now).await;
    until_recovered_once(&cluster).await;
    for (kind, reason, times) in [
        ("admit_node", "new", 1),
        ("admit_node", "lost_directory", 1),
        ("place_shards", "unplaced", 1),
        ("change_members", "lost", 3),
        ("add_learner", "planned", 3),
        ("promote", "planned", 3),
        ("remove_member", "planned", 3),
    ] {
        let counted = cluster.actions(kind, reason);
        assert!(counted >= times, "{kind} {reason}: {counted}");
    }
    writers.go_on(&cluster.runtime, 20).await;
    // What was rebuilt carries its part of a majority.
    cluster.kill_server(0).await;
    writers.go_on(&cluster.runtime, 20).await;
    writers.end(&cluster).await;
    let answer = cluster.top("y", 1).await;
    assert_eq!(listed(&answer), [("yak", 3)]);
}

/// Its process may still run, or its disk turn up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_in_the_name_of_a_lost_node_no_server_of_its_groups_hears() {
    let mut cluster = Cluster::replicated().await;
    let status = cluster.until("there is a status", |_| true).await;
    let node_of = |place: usize| {
        let name = format!("shard-{}", place + 1);
        let node = status.nodes.iter().find(|node| node.name == name);
        node.unwrap().node_id
    };
    let (lost, others) = (2, [0, 1]);
    cluster.kill_server(lost).await;
    // Whether it would be voted for, which changes nothing.
    let asks = async |place: usize| {
        let request = VoteRequest {
            envelope: Some(Envelope {
                cluster_id: status.cluster_id.clone(),
                group_id: shard_group(ShardId(2), Incarnation::FIRST).0,
                from_node: node_of(lost),
                to_node: node_of(place),
            }),
            vote: Some(Vote {
                term: 1,
                node_id: node_of(lost),
                committed: false,
            }),
            pre_vote: true,
            ..VoteRequest::default()
        };
        let request = rpc::request(request, limits::DEADLINE_MAX);
        let mut client = RaftServiceClient::new(cluster.channel_of(place));
        client.vote(request).await.map(drop)
    };
    for place in others {
        asks(place).await.unwrap();
    }
    give_name_away(&cluster, lost).await;
    let is_lost = |status: &Status| reason(status) == Reason::NodeLost;
    let refused = async {
        for place in others {
            // Each is told with its next report.
            while !asks(place).await.is_err_and(|status| is_lost(&status)) {
                cluster.runtime.sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let refused = cluster.runtime.timeout(PATIENCE, refused).await;
    refused.expect("the lost node is heard for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_emptied_under_a_running_server_is_noticed_and_rebuilt() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    let writers = Writers::start(&cluster);
    writers.go_on(&cluster.runtime, 20).await;
    std::fs::remove_dir_all(cluster.server_dir(1)).unwrap();
    std::fs::create_dir(cluster.server_dir(1)).unwrap();
    let ended = cluster.server_ended(1).await.unwrap_err();
    assert!(
        matches!(ended, shard_server::RunError::DiskFailed { .. }),
        "{ended}"
    );
    assert!(ended.to_string().contains("was removed"), "{ended}");
    cluster.start_server(1).await;
    let status = cluster
        .until("a node is lost", |status| {
            status.nodes.iter().any(|node| node.lost)
        })
        .await;
    let sound = status.nodes.iter().filter(|node| !node.lost);
    let sound: Vec<u64> = sound.map(|node| node.node_id).collect();
    assert!(sound.contains(&4), "{sound:?}");
    until_settled_on(&cluster, &sound).await;
    cluster.kill_server(0).await;
    writers.go_on(&cluster.runtime, 20).await;
    cluster
        .until("what is away is told", |status| {
            let away = "1 of 3 replicas do not serve: shard-1";
            status.shards.iter().all(|shard| shard.reason == away)
        })
        .await;
    let is_counted = |key: &str| {
        let name = "autocomplete_coordinator_replicas_not_serving_count";
        let line = format!("{name}{{shard_key={key:?}}} 1\n");
        cluster.metrics().contains(&line)
    };
    cluster
        .until("what is away is counted", |_| {
            ["", "g", "p"].into_iter().all(is_counted)
        })
        .await;
    writers.end(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_log_of_one_of_three_is_set_aside_and_rebuilt_without_a_word() {
    set_aside_and_rebuilt(damage_log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_kept_its_name_but_not_its_log_is_rebuilt_without_a_word() {
    set_aside_and_rebuilt(|dir| {
        for part in ["wal", "snapshots"] {
            std::fs::remove_dir_all(dir.join(part)).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_vanished_is_missed_by_every_shard_that_was_on_it() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    for _ in 0..20 {
        cluster.record("kit", 1).await;
    }
    for place in 0..3 {
        cluster.stop_server(place).await;
    }
    for part in ["wal", "snapshots"] {
        std::fs::remove_dir_all(cluster.server_dir(2).join(part)).unwrap();
    }
    // The others, who could tell it what it had, are away.
    cluster.start_server(2).await;
    cluster
        .until("all its replicas are lost", |status| {
            let is_lost = |shard: &ShardStatus| shard.replicas.iter().any(|at| at.data_loss);
            status.shards.len() == 3 && status.shards.iter().all(is_lost)
        })
        .await;
    for place in [0, 1] {
        cluster.start_server(place).await;
    }
    is_rebuilt(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_set_back_is_rebuilt_without_a_word() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    let dir = cluster.server_dir(2).to_owned();
    let older = tempfile::tempdir().unwrap();
    cluster.stop_server(2).await;
    let mut copy = Command::new("cp");
    let copied = run_child(copy.arg("-a").args([dir.as_path(), older.path()]));
    assert!(copied.status.success());
    cluster.start_server(2).await;
    for _ in 0..20 {
        cluster.record("kit", 1).await;
    }
    cluster
        .until("it has heard of them", |status| {
            // What is known of it may be from before it was stopped.
            let mut replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
            let has_all = replicas.all(|at| at.shard_id != 2 || at.total_count == 22);
            has_all && settled_on(status, &[1, 2, 3])
        })
        .await;
    cluster.stop_server(2).await;
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(older.path().join(dir.file_name().unwrap()), &dir).unwrap();
    cluster.start_server(2).await;
    let ended = cluster.server_ended(2).await.unwrap_err();
    let shard_server::RunError::DiskFailed { reason } = ended else {
        panic!("{ended}");
    };
    assert!(reason.contains("lost what it had on its disk"), "{reason}");
    cluster.start_server(2).await;
    is_rebuilt(&mut cluster).await;
}

/// One of three servers comes back with its data damaged.
async fn set_aside_and_rebuilt(damage: impl FnOnce(&Path)) {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    for _ in 0..20 {
        cluster.record("kit", 1).await;
    }
    cluster.stop_server(2).await;
    damage(cluster.server_dir(2));
    cluster.start_server(2).await;
    is_rebuilt(&mut cluster).await;
}

/// The data of the third of three servers is set aside, and what is missing there comes from the others.
async fn is_rebuilt(cluster: &mut Cluster) {
    let ended = cluster.server_ended(2).await.unwrap_err();
    let shard_server::RunError::GaveUpData { moved_to } = ended else {
        panic!("{ended}");
    };
    let aside = cluster.server_dir(2).join(moved_to);
    assert!(aside.join("wal").exists(), "it is kept for inspection");
    // Its supervisor starts it again.
    cluster.start_server(2).await;
    let status = cluster
        .until("its successor is whole", |status| {
            status.nodes.len() == 4
                && settled_on(
                    status,
                    &status
                        .nodes
                        .iter()
                        .filter(|node| !node.lost)
                        .map(|node| node.node_id)
                        .collect::<Vec<_>>(),
                )
        })
        .await;
    assert_eq!(cluster.actions("set_data_aside", "damaged"), 1);
    let by_itself = cluster.server_actions(2, "set_data_aside", "damaged");
    assert_eq!(by_itself, 1);
    let incarnations: Vec<u64> = status.shards.iter().map(|at| at.incarnation).collect();
    assert_eq!(incarnations, [1, 1, 1], "nothing was given up");
    let answer = cluster.top("", 3).await;
    assert_eq!(listed(&answer), [("kit", 22), ("yak", 3), ("bee", 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_gives_everything_away_while_writes_go_on() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    cluster.add_server("shard-4").await;
    let alive = |status: &GetStatusResponse| status.nodes.iter().filter(|at| at.alive).count();
    let status = cluster
        .until("it is there", |status| alive(status) == 4)
        .await;
    let drained = status
        .nodes
        .iter()
        .find(|node| node.name == "shard-1")
        .unwrap()
        .node_id;
    let rest: Vec<u64> = (1..=4).filter(|node| *node != drained).collect();
    let writers = Writers::start(&cluster);
    let (code, said, _) = run(&cluster, &["drain", "shard-1"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("holds 3 replicas"), "{said}");
    until_settled_on(&cluster, &rest).await;
    writers.go_on(&cluster.runtime, 20).await;
    // The coordinator that leads next finds it so, and leaves it.
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    until_settled_on(&cluster, &rest).await;
    let (_, said, _) = run(&cluster, &["drain", "shard-1"]).await;
    assert!(said.contains("holds nothing"), "{said}");
    let (_, json, _) = run(&cluster, &["status", "--json"]).await;
    assert!(json.contains("\"draining\": true"), "{json}");
    // What was done is told with its reason, also by a coordinator that has been started since.
    let why = format!("node {drained} (shard-1) is being drained");
    assert_eq!(json.matches(&why).count(), 3, "{json}");
    let (_, text, _) = run(&cluster, &["status"]).await;
    assert!(text.contains(&why), "{text}");
    assert_eq!(cluster.actions("drain", "asked"), 2);
    assert_eq!(cluster.actions("change_members", "draining"), 3);
    cluster.stop_server(0).await;
    let request = DrainNodeRequest {
        node: drained.to_string(),
        undo: true,
    };
    cluster.admin().drain_node(request).await.unwrap();
    let request = DrainNodeRequest {
        node: "nobody".into(),
        undo: false,
    };
    let refused = cluster.admin().drain_node(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    drop(writers);
    let answer = cluster.top("y", 1).await;
    assert_eq!(listed(&answer), [FILLED[0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_replaces_and_adds_replicas_and_is_told_what_cannot_be() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    cluster.add_server("shard-4").await;
    cluster.until("it is there", four_are_alive).await;
    let replace = async |node: &str, with: &str| {
        let request = ReplaceReplicaRequest {
            shard_id: 1,
            node: node.into(),
            with: with.into(),
        };
        let answer = cluster.admin().replace_replica(request).await;
        answer.map(tonic::Response::into_inner)
    };
    for (node, with, expected) in [
        ("shard-1", "shard-2", Reason::NotNeeded),
        ("shard-4", "", Reason::NotFound),
        ("nobody", "", Reason::NotFound),
        ("", "", Reason::BadArgument),
    ] {
        let refused = replace(node, with).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{node} {with}: {refused}");
    }
    // The leader's replica goes: it hands over first.
    let leader = cluster.leader_of(1).await;
    let name = format!("shard-{}", leader + 1);
    let begun = replace(&name, "").await.unwrap();
    assert!(!begun.done);
    let other = format!("shard-{}", (leader + 1) % 3 + 1);
    let refused = replace(&other, "").await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    let (code, said, _) = run(&cluster, &["replace", "1", &name, "--with", "shard-4"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("holds a voting replica of shard 1"), "{said}");
    assert_eq!(cluster.actions("change_members", "asked"), 1);
    assert!(cluster.server_actions(leader, "hand_over_lead", "leaving") >= 1);
    // The one that left may come again, as soon as everybody is known to know that it left; the shard has four then.
    let admitted = async {
        while run(&cluster, &["promote", "1", &name]).await.0 != Some(0) {
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let admitted = cluster.runtime.timeout(PATIENCE, admitted).await;
    admitted.expect("it may come again");
    let promote = |accept_loss| PromoteReplicaRequest {
        shard_id: 1,
        node: name.clone(),
        accept_loss,
        confirmation: "lose shard 1".into(),
    };
    let again = cluster.admin().promote_replica(promote(false)).await;
    assert!(again.unwrap().into_inner().done);
    let refused = cluster.admin().promote_replica(promote(true)).await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    assert_eq!(cluster.record("bee", 1).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_has_put_in_the_place_of_a_dead_replica_counts_as_recovered() {
    let mut cluster = Cluster::replicated().await;
    cluster.add_server("shard-4").await;
    cluster.until("it is there", four_are_alive).await;
    cluster.kill_server(2).await;
    let goes_on_without = |status: &GetStatusResponse| {
        let mut nodes = status.nodes.iter();
        let shard = status.shards.iter().find(|at| at.shard_id == 1);
        nodes.any(|node| node.name == "shard-3" && !node.alive)
            && shard.is_some_and(|at| at.state() == ShardState::Serving)
    };
    cluster.until("it is missed", goes_on_without).await;
    let (code, said, told) = run(&cluster, &["replace", "1", "shard-3"]).await;
    assert_eq!(code, Some(0), "{said} {told}");
    let is_counted = |_: &GetStatusResponse| cluster.recoveries("") == (1, 1);
    cluster.until("the recovery is counted", is_counted).await;
    // Those that nobody has replaced wait for the server.
    for key in ["g", "p"] {
        assert_eq!(cluster.recoveries(key), (0, 0), "{key}");
    }
}

fn four_are_alive(status: &GetStatusResponse) -> bool {
    status.nodes.iter().filter(|at| at.alive).count() == 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_broken_off_is_finished_from_the_map() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    // The newcomer is not there yet when the change begins and the coordinator goes.
    cluster.add_server("shard-4").await;
    cluster.until("it is there", four_are_alive).await;
    let request = ReplaceReplicaRequest {
        shard_id: 2,
        node: "shard-1".into(),
        with: "shard-4".into(),
    };
    cluster.admin().replace_replica(request).await.unwrap();
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    cluster
        .until("the change is finished", |status| {
            let shard = status.shards.iter().find(|at| at.shard_id == 2);
            shard.is_some_and(|at| {
                let came = at.replicas.iter().any(|at| at.node_id == 4 && at.serving);
                at.change.is_none() && at.replicas.len() == 3 && came
            })
        })
        .await;
    assert_eq!(cluster.record("kit", 1).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_for_long_is_replaced_by_a_spare() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    cluster.add_server("spare").await;
    cluster.until("it is there", four_are_alive).await;
    cluster.coordinator_config(0).replace_after = Some(Duration::from_secs(4));
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    cluster.until("all replicas serve", all_serve).await;
    let gone = cluster.until("there is a status", |_| true).await;
    let gone = gone.nodes.iter().find(|node| node.name == "shard-3");
    let gone = gone.unwrap().node_id;
    cluster.kill_server(2).await;
    let rest: Vec<u64> = (1..=4).filter(|node| *node != gone).collect();
    until_settled_on(&cluster, &rest).await;
    until_recovered_once(&cluster).await;
    // It comes back, finds that it holds nothing any more, and is the spare now.
    cluster.start_server(2).await;
    cluster.until("it is back", four_are_alive).await;
    until_settled_on(&cluster, &rest).await;
    let answer = cluster.top("", 3).await;
    assert_eq!(listed(&answer), FILLED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_without_a_majority_begins_anew_from_a_survivor_by_word_only() {
    let mut cluster = Cluster::replicated().await;
    fill(&cluster).await;
    cluster.until("all replicas serve", all_serve).await;
    // The survivor is told of the last commits a little later than who asked for them, and says so in its own time, so it is asked itself.
    let had = GetTopKRequest {
        prefix: "k".into(),
        consistency: Consistency::Stale.into(),
        token: cluster.top("", 3).await.token,
        ..GetTopKRequest::default()
    };
    let had = cluster.client_of(0).get_top_k(had).await.unwrap();
    assert_eq!(listed(had.get_ref()), [("kit", 2)]);
    for place in [1, 2] {
        cluster.kill_server(place).await;
    }
    cluster
        .until("nothing serves", |status| {
            let mut shards = status.shards.iter();
            shards.all(|at| at.state() != ShardState::Serving)
        })
        .await;
    // Whoever only asks what is wrong is told what helps, as soon as the others are not counted on any more.
    let status = cluster.until("there is a status", |_| true).await;
    let mut nodes = status.nodes.iter();
    let survivor = nodes.find(|node| node.name == "shard-1").unwrap().node_id;
    let verb = format!("`coordinator promote 2 {survivor} --accept-loss`");
    let told = async {
        loop {
            let request = RecoverShardRequest {
                shard_id: 2,
                ..RecoverShardRequest::default()
            };
            let answer = cluster.admin().recover_shard(request).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.action(), RecoveryAction::WaitForProcess);
            if answer.message.contains(&verb) {
                return;
            }
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let told = cluster.runtime.timeout(PATIENCE, told).await;
    told.expect("the verb that helps is named");
    let promote = async |confirmation: &str, accept_loss: bool| {
        let mut request = Request::new(PromoteReplicaRequest {
            shard_id: 2,
            node: "shard-1".into(),
            accept_loss,
            confirmation: confirmation.into(),
        });
        request.set_timeout(Duration::from_secs(8));
        let answer = cluster.admin().promote_replica(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let refused = promote("", false).await.unwrap();
    assert!(refused.done, "it votes already: {refused:?}");
    let refused = promote("yes", true).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ConfirmationRequired);
    let finished = async {
        while !promote("lose shard 2", true).await.unwrap().done {
            cluster.runtime.sleep(Duration::from_millis(100)).await;
        }
    };
    let finished = cluster.runtime.timeout(PATIENCE, finished).await;
    finished.expect("the shard begins anew");
    assert_eq!(cluster.record("kit", 1).await, 3, "what it had is there");
    // The others come back with data of a life that has ended, and are filled anew.
    for place in [1, 2] {
        cluster.start_server(place).await;
    }
    until_settled_on(&cluster, &[1, 2, 3]).await;
    // It began anew, and got two voters that it lacked.
    cluster
        .until("the recoveries are counted", |_| {
            let (begun, succeeded) = cluster.recoveries("g");
            begun >= 3 && succeeded >= 3
        })
        .await;
    assert_eq!(cluster.recoveries("p"), (0, 0));
    assert_eq!(cluster.record("kit", 1).await, 4);
    assert_eq!(listed(&cluster.top("b", 1).await), [("bee", 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_nobody_can_follow_says_so_and_the_leads_go() {
    let cluster = Cluster::replicated().await;
    fill(&cluster).await;
    let (code, _, said) = run(&cluster, &["transfer-leader", "1", "--to", "2"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said, _) = run(&cluster, &["drain", "2"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("start another"), "{said}");
    let leads = |shard: &ShardStatus| {
        let leader = |at: &&ReplicaStatus| at.role() == ReplicaRole::Leader;
        shard.replicas.iter().find(leader).map(|at| at.node_id)
    };
    cluster
        .until("the drained node leads nothing", |status| {
            let mut leaders = status.shards.iter().map(leads);
            leaders.all(|leader| leader.is_some_and(|node| node != 2))
        })
        .await;
    assert!(cluster.actions("move_lead", "draining") >= 1);
    // Nothing is given up for want of a server.
    cluster.until("it holds what it held", all_serve).await;
    let (code, _, _) = run(&cluster, &["drain", "2", "--undo"]).await;
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_moves_where_its_node_is_drained() {
    let mut cluster = Cluster::of(Shape::default()).await;
    cluster.add_servers(3).await;
    cluster.until_serving().await;
    fill(&cluster).await;
    let writers = Writers::start(&cluster);
    let (code, _, _) = run(&cluster, &["drain", "shard-2"]).await;
    assert_eq!(code, Some(0));
    cluster
        .until("shard 2 has moved", |status| {
            let node = status.nodes.iter().find(|at| at.name == "shard-2");
            let drained = node.map(|at| at.node_id);
            let shards = status.shards.iter();
            shards.clone().all(|at| at.change.is_none())
                && shards
                    .flat_map(|at| &at.replicas)
                    .all(|at| Some(at.node_id) != drained && at.serving)
        })
        .await;
    writers.go_on(&cluster.runtime, 20).await;
    writers.end(&cluster).await;
    cluster.stop_server(1).await;
    let answer = cluster.top("", 10).await;
    let told = listed(&answer);
    assert!(FILLED.iter().all(|at| told.contains(at)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_region_follows_and_answers_what_may_be_stale() {
    let (mut cluster, far) = with_a_far_region(Shape::default()).await;
    fill(&cluster).await;
    let token = cluster.top("", 3).await.token;
    // Whoever stands far away asks there: it waits for what was seen elsewhere, and says how old it may be.
    let mut client = cluster.client_of(far);
    let request = GetTopKRequest {
        prefix: "y".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetTopKRequest::default()
    };
    let answer = client.get_top_k(request).await.unwrap().into_inner();
    assert_eq!(listed(&answer), [("yak", 3)]);
    let strict = GetTopKRequest {
        prefix: "y".into(),
        ..GetTopKRequest::default()
    };
    let refused = client.get_top_k(strict).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotLeader);
    // It carries no majority, and none is lost with it.
    cluster.kill_server(far).await;
    assert_eq!(cluster.record("yak", 1).await, 4);
}

fn ask(watchdog: &str, known_attempt: u64) -> BeginRecoveryRequest {
    BeginRecoveryRequest {
        shard_id: 2,
        watchdog: watchdog.into(),
        known_attempt,
        reason: "no answer".into(),
        lease_ms: 1_000,
        ..BeginRecoveryRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchdogs_take_turns_through_any_coordinator() {
    let cluster = Cluster::of(Shape {
        coordinators: 3,
        ..Shape::default()
    })
    .await;
    let begin = async |place: usize, request: BeginRecoveryRequest| {
        let answer = cluster.admin_at(place).begin_recovery(request).await;
        answer.map(tonic::Response::into_inner)
    };
    // Both have seen the same; whoever comes first has the turn.
    let (one, two) = futures::join!(begin(0, ask("a", 0)), begin(1, ask("b", 0)));
    let verdicts = [&one, &two].map(|answer| answer.as_ref().unwrap().verdict());
    let granted = verdicts.iter().filter(|at| **at == TurnVerdict::Granted);
    assert_eq!(granted.count(), 1, "{one:?} {two:?}");
    assert!(verdicts.contains(&TurnVerdict::Taken));
    let holder = one.unwrap().holder;
    let end = EndRecoveryRequest {
        shard_id: 2,
        watchdog: holder.clone(),
        attempt: 1,
        outcome: TurnState::Recovered.into(),
    };
    cluster.admin_at(2).end_recovery(end.clone()).await.unwrap();
    cluster.admin_at(0).end_recovery(end.clone()).await.unwrap();
    let foreign = EndRecoveryRequest { attempt: 7, ..end };
    let refused = cluster.admin_at(0).end_recovery(foreign).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded);
    let stale: BeginRecoveryResponse = begin(1, ask("b", 0)).await.unwrap();
    assert_eq!((stale.verdict(), stale.attempt), (TurnVerdict::Stale, 1));
    // The next one dies with its turn; the lease ends it.
    let next = begin(1, ask("b", 1)).await.unwrap();
    assert_eq!((next.verdict(), next.attempt), (TurnVerdict::Granted, 2));
    let after = async {
        loop {
            let next = BeginRecoveryRequest {
                lease_ms: 60_000,
                ..ask("a", 2)
            };
            let answer = begin(2, next).await.unwrap();
            if answer.verdict() == TurnVerdict::Granted {
                return answer.attempt;
            }
            assert_eq!(answer.holder, "b");
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let after = cluster.runtime.timeout(PATIENCE, after).await;
    assert_eq!(after.expect("the lease ends"), 3);
    let status = cluster
        .until("the turn is known", |status| {
            status.shards[1].last_attempt == 3
        })
        .await;
    let shard = &status.shards[1];
    let states: Vec<TurnState> = shard.turns.iter().map(|turn| turn.state()).collect();
    assert_eq!(
        states,
        [TurnState::Recovered, TurnState::Expired, TurnState::Open]
    );
    let (_, table, _) = run(&cluster, &["status"]).await;
    assert!(
        table.contains("no answer") && table.contains("running"),
        "{table}"
    );
    let bad = BeginRecoveryRequest {
        lease_ms: 1,
        ..ask("a", 3)
    };
    let refused = begin(0, bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let nowhere = BeginRecoveryRequest {
        shard_id: 9,
        ..ask("a", 0)
    };
    let refused = begin(0, nowhere).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::UnknownShard);
}
