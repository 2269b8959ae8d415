//! Steps of a change of members, as a coordinator asks the leader of a shard for them.

use std::time::Duration;

use api::Reason;
use api::admin::v1::{DrainNodeRequest, GetStatusResponse, NodeStatus, PromoteReplicaRequest};
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, RegisterResponse};
use api::shard::v1::node_service_client::NodeServiceClient;
use api::shard::v1::{ChangeMembersRequest, ChangeMembersResponse, GetNodeRequest, MemberStep};
use tonic::{Code, Request, Status};

use super::harness::{Cluster, PATIENCE, Shape, reason};

const SHARD: u64 = 2;
const VOTERS: usize = 5;

/// A removal that is asked of the shard's leader, who was at a place when it was last looked.
async fn remove(cluster: &Cluster, leader: usize, node_id: u64) -> ChangeMembersResponse {
    remove_without(cluster, leader, node_id, Vec::new()).await
}

/// The same, where some members are lost.
async fn remove_without(
    cluster: &Cluster,
    leader: usize,
    node_id: u64,
    lost_node_ids: Vec<u64>,
) -> ChangeMembersResponse {
    let request = ChangeMembersRequest {
        lost_node_ids,
        ..step(MemberStep::Remove, node_id, String::new())
    };
    let tries = async {
        let mut places = (leader..VOTERS).chain(0..leader).cycle();
        loop {
            let place = places.next().unwrap();
            match ask(cluster, place, request.clone()).await {
                Ok(answer) => return answer,
                Err(status) => assert!(does_not_lead(&status), "{status}"),
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = cluster.runtime.timeout(PATIENCE, tries).await;
    answer.unwrap()
}

/// Whether somebody else is to be asked: the lead may move at any time, and who was killed has none.
fn does_not_lead(status: &Status) -> bool {
    reason(status) == Reason::NotLeader || status.code() == Code::Unavailable
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_settled_once_every_voter_has_it_and_not_before() {
    let mut cluster = Cluster::of(Shape {
        replicas: VOTERS,
        ..Shape::default()
    })
    .await;
    cluster.add_servers(VOTERS).await;
    let all_serve = |status: &GetStatusResponse| {
        let mut shards = status.shards.iter();
        shards.all(|at| at.replicas.len() == VOTERS && at.replicas.iter().all(|at| at.serving))
    };
    let status = cluster.until("all replicas serve", all_serve).await;
    let leader = cluster.leader_of(SHARD).await;
    let node_of = |place: usize| {
        let name = format!("shard-{}", place + 1);
        let node = status.nodes.iter().find(|node| node.name == name);
        node.unwrap().node_id
    };
    let others: Vec<usize> = (0..VOTERS).filter(|place| *place != leader).collect();
    // Nobody else is to take a step.
    cluster.stop_coordinator().await;

    let settled = remove(&cluster, leader, node_of(others[0])).await;
    assert!(settled.done && settled.settled, "{settled:?}");
    assert_eq!(settled.members.len(), VOTERS - 1);

    // One that is silent may come back and still count the vote of who has left meanwhile.
    cluster.kill_server(others[1]).await;
    let pending = remove(&cluster, leader, node_of(others[2])).await;
    assert!(pending.done && !pending.settled, "{pending:?}");
    assert_eq!(pending.members.len(), VOTERS - 2);
    // One that is lost for good may not.
    let lost = vec![node_of(others[1])];
    let settled = remove_without(&cluster, leader, node_of(others[2]), lost).await;
    assert!(settled.done && settled.settled, "{settled:?}");
}

/// Asks for another replica of the shard on the first server.
async fn promote(cluster: &Cluster) -> Result<(), Status> {
    let request = PromoteReplicaRequest {
        shard_id: SHARD,
        node: "shard-1".into(),
        ..PromoteReplicaRequest::default()
    };
    cluster.admin().promote_replica(request).await.map(drop)
}

/// Four servers, of which the first has left all shards while the second is away, and may not come again; and the first one's identity.
async fn one_has_left_while_another_is_away() -> (Cluster, u64) {
    let mut cluster = Cluster::replicated().await;
    cluster.record("kit", 1).await;
    cluster.add_server("shard-4").await;
    let status = cluster
        .until("four are there", |status| {
            status.nodes.iter().filter(|node| node.alive).count() == 4
        })
        .await;
    let drained = status.nodes.iter().find(|node| node.name == "shard-1");
    let drained = drained.unwrap().node_id;
    cluster.kill_server(1).await;
    let drain = |undo| DrainNodeRequest {
        node: "shard-1".into(),
        undo,
    };
    cluster.admin().drain_node(drain(false)).await.unwrap();
    cluster
        .until("it has left", |status| {
            let mut shards = status.shards.iter();
            shards.all(|shard| {
                let mut replicas = shard.replicas.iter();
                shard.change.is_none() && replicas.all(|at| at.node_id != drained)
            })
        })
        .await;
    cluster.admin().drain_node(drain(true)).await.unwrap();
    let refused = promote(&cluster).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotNeeded, "{refused}");
    assert!(
        refused.message().contains("has held the shard before"),
        "{refused}"
    );
    (cluster, drained)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_while_a_voter_was_away_comes_again_once_that_one_is_back() {
    let (mut cluster, drained) = one_has_left_while_another_is_away().await;
    cluster.start_server(1).await;
    let admitted = async {
        while promote(&cluster).await.is_err() {
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let admitted = cluster.runtime.timeout(PATIENCE, admitted).await;
    admitted.expect("nobody settles what is over");
    cluster
        .until("it holds a replica again", |status| {
            let shard = status.shards.iter().find(|shard| shard.shard_id == SHARD);
            let replicas = shard.map_or(&[][..], |shard| &shard.replicas);
            let mut replicas = replicas.iter();
            replicas.any(|at| at.node_id == drained && at.serving)
        })
        .await;
    assert_eq!(cluster.record("kit", 1).await, 2);
}

/// The name of a server that is not heard any more comes with another directory, and goes again before it can take anything.
pub(super) async fn give_name_away(cluster: &Cluster, place: usize) -> RegisterResponse {
    let request = RegisterRequest {
        node_name: format!("shard-{}", place + 1),
        address: cluster.server_address(place),
        instance_id: vec![9; 16].into(),
        ..RegisterRequest::default()
    };
    let registered = async {
        let mut registry = RegistryServiceClient::new(cluster.channel(0));
        loop {
            if let Ok(registered) = registry.register(request.clone()).await {
                return registered.into_inner();
            }
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let registered = cluster.runtime.timeout(PATIENCE, registered).await;
    registered.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_comes_again_in_the_place_of_one_that_is_lost_for_good() {
    let (cluster, drained) = one_has_left_while_another_is_away().await;
    give_name_away(&cluster, 1).await;
    cluster
        .until(
            "nobody but the first can take the place, and does",
            |status| {
                let mut shards = status.shards.iter();
                shards.all(|shard| {
                    let mut replicas = shard.replicas.iter();
                    shard.change.is_none()
                        && replicas.all(|at| at.serving)
                        && shard.replicas.iter().any(|at| at.node_id == drained)
                })
            },
        )
        .await;
    assert_eq!(cluster.record("kit", 1).await, 2);
}

/// A number that no node has.
const NOBODY: u64 = 9_999;

/// What is asked of a shard's leader, by no map.
fn step(step: MemberStep, node_id: u64, address: String) -> ChangeMembersRequest {
    ChangeMembersRequest {
        shard_id: SHARD,
        incarnation: 1,
        step: step.into(),
        node_id,
        address,
        ..ChangeMembersRequest::default()
    }
}

/// The same, by the map of an epoch.
fn by(epoch: u64, step: &ChangeMembersRequest) -> ChangeMembersRequest {
    ChangeMembersRequest {
        epoch,
        ..step.clone()
    }
}

async fn ask(
    cluster: &Cluster,
    leader: usize,
    step: ChangeMembersRequest,
) -> Result<ChangeMembersResponse, Status> {
    let mut request = Request::new(step);
    request.set_timeout(Duration::from_secs(6));
    let mut client = NodeServiceClient::new(cluster.channel_of(leader));
    let answer = client.change_members(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Asks until it is done, or the lead has moved.
async fn done(
    cluster: &Cluster,
    leader: usize,
    step: &ChangeMembersRequest,
) -> Result<ChangeMembersResponse, Status> {
    let tries = async {
        loop {
            let answer = ask(cluster, leader, step.clone()).await?;
            if answer.done {
                return Ok::<_, Status>(answer);
            }
        }
    };
    let answer = cluster.runtime.timeout(PATIENCE, tries).await;
    answer.unwrap()
}

/// Has a play that one leader must see from its beginning to its end played before whoever leads, anew where the lead has moved meanwhile.
/// The round counts from 0.
async fn before_one_leader<T>(
    cluster: &Cluster,
    first: usize,
    play: impl AsyncFn(usize, u64) -> Result<T, Status>,
) -> T {
    let rounds = async {
        let mut places = (first..3).chain(0..first).cycle();
        let mut round = 0;
        loop {
            match play(places.next().unwrap(), round).await {
                Ok(end) => return end,
                Err(status) => assert!(does_not_lead(&status), "{status}"),
            }
            round += 1;
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let end = cluster.runtime.timeout(PATIENCE, rounds).await;
    end.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_by_an_older_map_than_one_that_was_followed_is_refused() {
    let mut cluster = Cluster::replicated().await;
    let status = cluster.until("there is a status", |_| true).await;
    let leader = cluster.leader_of(SHARD).await;
    let follower = (leader + 1) % 3;
    let name = format!("shard-{}", follower + 1);
    let node = status.nodes.iter().find(|node| node.name == name);
    let node = node.unwrap().node_id;
    // Nobody else is to take a step.
    cluster.stop_coordinator().await;
    let mut asked = NodeServiceClient::new(cluster.channel_of(leader));
    let known = asked.get_node(GetNodeRequest {}).await.unwrap();
    let known = known.into_inner().epoch;
    let removal = step(MemberStep::Remove, node, String::new());
    // Who is a member already is only waited for, and nobody's removal changes nothing.
    let address = cluster.server_address(follower);
    let addition = step(MemberStep::AddLearner, node, address);
    let other_removal = step(MemberStep::Remove, NOBODY, String::new());
    before_one_leader(&cluster, leader, async |leader, round| {
        let refused = async |step: ChangeMembersRequest| {
            let refused = ask(&cluster, leader, step).await.unwrap_err();
            let is_told = reason(&refused) == Reason::StaleEpoch;
            if is_told { Ok(()) } else { Err(refused) }
        };
        refused(by(known - 1, &removal)).await?;
        // Newer than whatever this one was asked for in an earlier round.
        let epoch = known + 10 * round;
        // A leader whose own map lags behind follows a newer one, and nothing older after it.
        done(&cluster, leader, &by(epoch + 1, &addition)).await?;
        refused(by(epoch, &removal)).await?;
        // By one map a removal has the last word.
        done(&cluster, leader, &by(epoch + 1, &other_removal)).await?;
        refused(by(epoch + 1, &addition)).await?;
        let answer = done(&cluster, leader, &by(epoch + 2, &addition)).await?;
        assert_eq!(answer.members.len(), 3, "{answer:?}");
        Ok::<_, Status>(())
    })
    .await;
    // Coordinators of before name no epoch.
    let answer = before_one_leader(&cluster, leader, async |leader, _| {
        done(&cluster, leader, &removal).await
    })
    .await;
    assert_eq!(answer.members.len(), 2, "{answer:?}");
}

/// The members of the shard's group, as its leader answers to a step.
async fn members(cluster: &Cluster, step: &ChangeMembersRequest) -> Vec<u64> {
    let tries = async {
        loop {
            let leader = cluster.leader_of(SHARD).await;
            if let Ok(answer) = ask(cluster, leader, step.clone()).await {
                let nodes = answer.members.iter().map(|at| at.node_id);
                return nodes.collect::<Vec<u64>>();
            }
        }
    };
    let told = cluster.runtime.timeout(PATIENCE, tries).await;
    told.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_map_does_not_show_is_removed_before_what_is_over_is_settled() {
    let (mut cluster, _) = one_has_left_while_another_is_away().await;
    cluster.add_server("shard-5").await;
    let is_it = |node: &&NodeStatus| node.name == "shard-5" && node.alive;
    let status = cluster
        .until("a fifth is there", |status| {
            status.nodes.iter().any(|node| is_it(&node))
        })
        .await;
    let stranger = status.nodes.iter().find(is_it).unwrap().node_id;
    // Somebody asks for what nobody means any more.
    let addition = step(MemberStep::AddLearner, stranger, cluster.server_address(4));
    let taken_in = async { while !members(&cluster, &addition).await.contains(&stranger) {} };
    let taken_in = cluster.runtime.timeout(PATIENCE, taken_in).await;
    taken_in.expect("the group does not take it in");
    cluster.start_server(1).await;
    let settled = async {
        while promote(&cluster).await.is_err() {
            cluster.runtime.sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = cluster.runtime.timeout(PATIENCE, settled).await;
    settled.expect("nobody settles what is over");
    let asked = step(MemberStep::Remove, NOBODY, String::new());
    assert!(!members(&cluster, &asked).await.contains(&stranger));
    assert!(cluster.actions("remove_member", "not_in_map") >= 1);
    assert_eq!(cluster.record("kit", 1).await, 2);
}
