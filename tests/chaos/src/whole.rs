//! Looks at a cluster from outside until it is whole, or until its replicas hold the same.
//!
//! What always holds: only what servers have said since the wait began counts, for what they said before may no longer be true. The
//! coordinators are asked in turn, each by itself, so that none is missed because another one answers for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{
    ActionReport, GetStatusRequest, GetStatusResponse, NodeStatus, ReplicaStatus, ShardState,
    ShardStatus,
};
use runtime::{Instant, Runtime};

use crate::deployment::{Deployment, SHARDS, Shape};
use crate::faults::LOOK_INTERVAL;
use crate::oracle::Holding;

/// For one look. The coordinator that is asked waits for the others for a second at most.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Whether every shard serves, with as many replicas as it should have, by what servers said within this time, and every
/// coordinator answers.
fn is_whole(status: &GetStatusResponse, shape: Shape, within: Duration) -> bool {
    let was_heard = |node: &NodeStatus| {
        let silent = u64::try_from(node.silent_ms).map(Duration::from_millis);
        node.alive && !node.lost && silent.is_ok_and(|silent| silent < within)
    };
    let heard = status.nodes.iter().filter(|node| was_heard(node));
    let heard: BTreeSet<u64> = heard.map(|node| node.node_id).collect();
    let is_whole = |shard: &ShardStatus| {
        let replicas = &shard.replicas;
        let is_sound =
            |replica: &&ReplicaStatus| replica.serving && heard.contains(&replica.node_id);
        shard.state() == ShardState::Serving
            && replicas.len() == shape.replicas
            && replicas.iter().filter(is_sound).count() == shape.replicas
    };
    status.shards.len() == SHARDS
        && status.shards.iter().all(is_whole)
        && status.coordinators.len() == shape.coordinators
        && status.coordinators.iter().all(|at| at.reached)
}

/// What a coordinator says, and hears of the others right now. Over a connection of its own: one that stood before would say nothing of
/// whether clients can come.
async fn look(runtime: &Runtime, address: &str) -> anyhow::Result<GetStatusResponse> {
    let channel = runtime.channel(format!("http://{address}").parse()?);
    let mut coordinator = ClusterAdminServiceClient::new(channel);
    let asked = Box::pin(coordinator.get_status(GetStatusRequest {
        ask_others: true,
        ..GetStatusRequest::default()
    }));
    let answer = runtime.timeout(LOOK_PATIENCE, asked).await;
    let answer = answer.with_context(|| format!("the coordinator at {address} does not answer"))?;
    let answer = answer.with_context(|| format!("asking the coordinator at {address}"))?;
    Ok(answer.into_inner())
}

/// Waits until the cluster is whole by what its servers have said from now on.
///
/// # Errors
/// When it is not within the limit; the text has the last look.
pub async fn wait_until_whole(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    limit: Duration,
) -> anyhow::Result<()> {
    let (shape, begun) = (deployment.shape(), runtime.now());
    let missing = "not every replica serves and every coordinator answers";
    until_told(runtime, deployment, limit, missing, |status, now| {
        is_whole(status, shape, now.saturating_since(begun)).then_some(())
    })
    .await
}

/// Asks one coordinator after another for the status until it tells what is looked for, by the time at which it was asked.
async fn until_told<T>(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    limit: Duration,
    missing: &str,
    mut told: impl FnMut(&GetStatusResponse, Instant) -> Option<T>,
) -> anyhow::Result<T> {
    let begun = runtime.now();
    let mut turns = deployment.addresses().iter().cycle();
    loop {
        let now = runtime.now();
        let address = turns.next().context("there are coordinators")?;
        let status = look(runtime, address).await;
        if let Some(found) = status.as_ref().ok().and_then(|status| told(status, now)) {
            return Ok(found);
        }
        anyhow::ensure!(
            now.saturating_since(begun) < limit,
            "after {limit:?} {missing}: {status:?}"
        );
        runtime.sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until all replicas of each shard have applied the same entries, and tells what they hold then.
///
/// A replica tells its place in the log a moment before its counts, and each at another time. What two looks in a row tell alike, with a
/// report of every server between them, is what they hold.
///
/// # Errors
/// When they do not come to that within the limit; the text has the last look.
pub(crate) async fn settled_replicas(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    limit: Duration,
) -> anyhow::Result<Vec<Holding>> {
    let shape = deployment.shape();
    let (mut since, mut before) = (runtime.now(), Vec::new());
    let missing = "the replicas of a shard have not applied the same";
    until_told(runtime, deployment, limit, missing, |status, now| {
        if !is_whole(status, shape, now.saturating_since(since)) {
            return None;
        }
        let held = holdings(status);
        if held == before && are_level(&held) {
            return Some(held);
        }
        (since, before) = (runtime.now(), held);
        None
    })
    .await
}

/// Waits until the group of the coordinators has been changed so often, by what all of them but the one of the number `but` did since they
/// were started: each member that leaves or comes is one change. Tells how often it was.
///
/// # Errors
/// When it was not within the limit; the text has the last look.
pub(crate) async fn until_coordinators_changed(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    (but, at_least): (u64, u64),
    limit: Duration,
) -> anyhow::Result<u64> {
    let shape = deployment.shape();
    let missing = format!("the coordinators have not changed {at_least} times");
    until_told(runtime, deployment, limit, &missing, |status, _| {
        coordinator_changes(status, shape, but).filter(|changes| *changes >= at_least)
    })
    .await
}

/// How often the group of the coordinators was changed, where all of them answer.
fn coordinator_changes(status: &GetStatusResponse, shape: Shape, but: u64) -> Option<u64> {
    let coordinators = &status.coordinators;
    let are_there =
        coordinators.len() == shape.coordinators && coordinators.iter().all(|at| at.reached);
    let is_change = |action: &&ActionReport| {
        action.kind == "change_coordinators"
            && action.error.is_empty()
            && action.coordinator_id != but
    };
    let changes = status.actions.iter().filter(is_change);
    are_there.then(|| changes.map(|action| action.times).sum())
}

/// What every replica says that it holds, in an order that does not depend on who was asked.
fn holdings(status: &GetStatusResponse) -> Vec<Holding> {
    let replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
    let mut held: Vec<Holding> = replicas
        .map(|replica| Holding {
            shard: replica.shard_id,
            node: replica.node_id,
            incarnation: replica.incarnation,
            applied_index: replica.applied_index,
            terms: replica.terms,
            total_count: replica.total_count,
        })
        .collect();
    held.sort_unstable_by_key(|at| (at.shard, at.node));
    held
}

/// Whether all replicas of each shard are at the same entry of the same life.
fn are_level(held: &[Holding]) -> bool {
    let mut places: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    held.iter().all(|at| {
        let place = (at.incarnation, at.applied_index);
        *places.entry(at.shard).or_insert(place) == place
    })
}

#[cfg(test)]
mod tests {
    use api::admin::v1::CoordinatorStatus;

    use super::*;

    fn replica(shard_id: u64, node_id: u64, applied_index: u64) -> ReplicaStatus {
        ReplicaStatus {
            shard_id,
            node_id,
            applied_index,
            serving: true,
            ..ReplicaStatus::default()
        }
    }

    /// Three replicas of each shard, and three coordinators, all heard of a second ago.
    fn status() -> GetStatusResponse {
        let node = |node_id| NodeStatus {
            node_id,
            alive: true,
            silent_ms: 1_000,
            ..NodeStatus::default()
        };
        let shard = |shard_id| ShardStatus {
            shard_id,
            state: ShardState::Serving.into(),
            replicas: (1..=3).rev().map(|at| replica(shard_id, at, 7)).collect(),
            ..ShardStatus::default()
        };
        let coordinator = |coordinator_id| CoordinatorStatus {
            coordinator_id,
            reached: true,
            ..CoordinatorStatus::default()
        };
        GetStatusResponse {
            nodes: (1..=3).map(node).collect(),
            shards: (1..=3).map(shard).collect(),
            coordinators: (1..=3).map(coordinator).collect(),
            ..GetStatusResponse::default()
        }
    }

    fn is_whole_with(change: impl FnOnce(&mut GetStatusResponse)) -> bool {
        let mut status = status();
        change(&mut status);
        is_whole(&status, Shape::REPLICATED, Duration::from_secs(2))
    }

    #[test]
    fn a_cluster_is_whole_with_all_its_replicas_and_coordinators() {
        assert!(is_whole_with(|_| {}));
        assert!(!is_whole_with(|status| status.nodes[0].silent_ms = 2_000));
        assert!(!is_whole_with(|status| status.nodes[0].silent_ms = -1));
        assert!(!is_whole_with(
            |status| status.shards[1].replicas[2].serving = false
        ));
        assert!(!is_whole_with(|status| drop(
            status.shards[1].replicas.pop()
        )));
        assert!(!is_whole_with(
            |status| status.coordinators[2].reached = false
        ));
        assert!(!is_whole_with(|status| drop(status.coordinators.pop())));
    }

    #[test]
    fn changes_of_the_coordinators_are_counted_where_all_answer() {
        let action = |coordinator_id, kind: &str, error: &str, times| ActionReport {
            coordinator_id,
            kind: kind.to_owned(),
            error: error.to_owned(),
            times,
            ..ActionReport::default()
        };
        let mut status = status();
        status.actions = vec![
            action(1, "change_coordinators", "", 2),
            action(2, "change_coordinators", "", 3),
            action(3, "change_coordinators", "", 7),
            action(1, "change_coordinators", "it took too long", 11),
            action(1, "promote", "", 13),
        ];
        let changes =
            |status: &GetStatusResponse| coordinator_changes(status, Shape::REPLICATED, 3);
        assert_eq!(changes(&status), Some(5));
        status.coordinators[1].reached = false;
        assert_eq!(changes(&status), None);
        status.coordinators.remove(1);
        assert_eq!(changes(&status), None);
    }

    #[test]
    fn replicas_are_level_at_one_entry_of_one_life() {
        let held = holdings(&status());
        let order: Vec<(u64, u64)> = held.iter().map(|at| (at.shard, at.node)).collect();
        assert!(order.is_sorted() && order.len() == 9, "{order:?}");
        assert!(are_level(&held));
        let with = |change: fn(&mut Holding)| {
            let mut held = held.clone();
            change(&mut held[4]);
            are_level(&held)
        };
        assert!(!with(|at| at.applied_index += 1));
        assert!(!with(|at| at.incarnation += 1));
        // That is for the judge.
        assert!(with(|at| at.total_count += 1));
    }
}
