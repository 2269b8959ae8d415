//! What operators and the watchdog ask.

pub(crate) mod members;
pub(crate) mod others;
pub(crate) mod turns;
mod watchdogs;

use std::sync::Arc;

use api::admin::v1::cluster_admin_service_server::ClusterAdminService;
use api::admin::v1::{
    BeginRecoveryRequest, BeginRecoveryResponse, DrainNodeRequest, DrainNodeResponse,
    EndRecoveryRequest, EndRecoveryResponse, GetMapRequest, GetMapResponse, GetStatusRequest,
    GetStatusResponse, ListSnapshotsRequest, ListSnapshotsResponse, PromoteReplicaRequest,
    PromoteReplicaResponse, PullSnapshotRequest, PullSnapshotResponse, PushSnapshotRequest,
    PushSnapshotResponse, RecoverShardRequest, RecoverShardResponse, ReplaceReplicaRequest,
    ReplaceReplicaResponse, ReplicaRole, ReplicaStatus, ShardState, TransferLeaderRequest,
    TransferLeaderResponse,
};
use api::{ApiError, Reason};
use cluster::{Incarnation, NodeId, ShardId};
use rpc::Deadline;
use runtime::Runtime;
use tonic::{Request, Response, Status};

use crate::actions::{ASKED, About, Action, Actions};
use crate::liveness::Liveness;
use crate::meta::Meta;
use crate::metadata::ShardRecord;
use crate::nodes::Link;
use crate::recovery::{Recovery, Repair};
use crate::routing::Router;
use crate::snapshots::{Held, Pulls, Store, push};
use crate::status;
pub(crate) use watchdogs::Watchdogs;

/// `ClusterAdminService`.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) runtime: Runtime,
    pub(crate) meta: Arc<Meta>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) router: Arc<Router>,
    pub(crate) store: Arc<Store>,
    pub(crate) pulls: Pulls,
    pub(crate) recovery: Recovery,
    pub(crate) repair: Repair,
    pub(crate) actions: Actions,
    pub(crate) watchdogs: Watchdogs,
}

#[tonic::async_trait]
impl ClusterAdminService for Admin {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let GetStatusRequest {
            ask_others,
            watchdog,
        } = request.into_inner();
        if let Some(report) = watchdog {
            self.watchdogs.hear(&self.runtime, report)?;
        }
        let mut status = cluster_status(&self.meta, &self.liveness);
        let myself = status.coordinators.iter().find(|at| at.answers);
        let myself = myself.map_or(0, |at| at.coordinator_id);
        status.actions.extend(self.actions.told(myself));
        status.actions.extend(self.watchdogs.told());
        if ask_others {
            others::ask(self.meta.arrival(), &mut status).await;
        } else {
            status.actions.sort_by_key(|action| action.last_ms);
        }
        Ok(Response::new(status))
    }

    async fn get_map(
        &self,
        _request: Request<GetMapRequest>,
    ) -> Result<Response<GetMapResponse>, Status> {
        let map = self.meta.map().ok_or_else(starting)?;
        Ok(Response::new(GetMapResponse {
            map: Some(map.as_ref().into()),
        }))
    }

    async fn recover_shard(
        &self,
        request: Request<RecoverShardRequest>,
    ) -> Result<Response<RecoverShardResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let done = self
            .recovery
            .recover(request.into_inner(), deadline)
            .await?;
        Ok(Response::new(done))
    }

    async fn begin_recovery(
        &self,
        request: Request<BeginRecoveryRequest>,
    ) -> Result<Response<BeginRecoveryResponse>, Status> {
        let answer = turns::begin(&self.meta, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn end_recovery(
        &self,
        request: Request<EndRecoveryRequest>,
    ) -> Result<Response<EndRecoveryResponse>, Status> {
        let answer = turns::end(&self.meta, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        let answer = members::drain(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn promote_replica(
        &self,
        request: Request<PromoteReplicaRequest>,
    ) -> Result<Response<PromoteReplicaResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let answer = members::promote(self, request.into_inner(), deadline).await?;
        Ok(Response::new(answer))
    }

    async fn replace_replica(
        &self,
        request: Request<ReplaceReplicaRequest>,
    ) -> Result<Response<ReplaceReplicaResponse>, Status> {
        let answer = members::replace(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_snapshots(
        &self,
        _request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let snapshots = self.store.list().iter().map(Into::into).collect();
        Ok(Response::new(ListSnapshotsResponse { snapshots }))
    }

    async fn pull_snapshot(
        &self,
        request: Request<PullSnapshotRequest>,
    ) -> Result<Response<PullSnapshotResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let shard = ShardId(request.into_inner().shard_id);
        let run = match self.pulls.run_of(shard) {
            Some(run) => Ok(run),
            None => self.source(shard).map(|link| self.pulls.start(shard, link)),
        };
        if run.is_err() {
            let about = About::shard(shard);
            self.actions.count(Action::PullSnapshot, ASKED, about, &run);
        }
        let held = self.pulls.follow(shard, run?, deadline).await?;
        Ok(Response::new(PullSnapshotResponse {
            snapshot: Some((&held).into()),
        }))
    }

    async fn push_snapshot(
        &self,
        request: Request<PushSnapshotRequest>,
    ) -> Result<Response<PushSnapshotResponse>, Status> {
        let shard = ShardId(request.into_inner().shard_id);
        let pushed = self.push(shard).await;
        let about = About::shard(shard).with_node(pushed.as_ref().ok().map(|(_, node)| *node));
        self.actions
            .count(Action::PushSnapshot, ASKED, about, &pushed);
        let (held, node) = pushed?;
        Ok(Response::new(PushSnapshotResponse {
            snapshot: Some((&held).into()),
            node_id: node.0,
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let request = request.into_inner();
        let shard = ShardId(request.shard_id);
        let to = Some(NodeId(request.to_node_id)).filter(|node| node.0 != 0);
        let handed = self.router.transfer_leader(shard, to, deadline.at()).await;
        let about = About::shard(shard).with_node(handed.as_ref().ok().copied().or(to));
        self.actions.count(Action::MoveLead, ASKED, about, &handed);
        let leader = handed?;
        tracing::info!(%shard, %leader, "the lead of a shard was handed over");
        Ok(Response::new(TransferLeaderResponse {
            leader_node_id: leader.0,
        }))
    }
}

impl Admin {
    fn shard(&self, shard: ShardId) -> Result<(ShardRecord, ShardState), ApiError> {
        let heard = self.liveness.all();
        self.meta.read(|state| {
            let record = state.shards.get(&shard).ok_or_else(|| {
                ApiError::new(Reason::UnknownShard, format!("there is no shard {shard}"))
            })?;
            Ok((record.clone(), status::judge(state, &heard, record).0))
        })
    }

    /// Who takes a snapshot of a shard.
    fn source(&self, shard: ShardId) -> Result<Arc<Link>, ApiError> {
        let (record, state) = self.shard(shard)?;
        if state != ShardState::Serving {
            let message = format!("shard {shard} does not serve");
            return Err(ApiError::new(Reason::ShardUnavailable, message));
        }
        let heard = self.liveness.all();
        let node = best_source(status::replicas(&heard, &record));
        let node = node.or(record.shard.replicas.first().map(|at| at.node));
        let node = node.ok_or_else(starting)?;
        self.router.link(node)
    }

    async fn push(&self, shard: ShardId) -> Result<(Held, NodeId), ApiError> {
        let (record, state) = self.shard(shard)?;
        if state == ShardState::Serving {
            let message = format!("shard {shard} serves");
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        let (held, target) = match record.seed.as_ref().filter(|_| !record.begun) {
            Some(seed) => (Held::of_seed(shard, seed), record.shard.incarnation),
            None => {
                let newest = self.store.newest_sound(shard).await.ok_or_else(|| {
                    let message = format!("no snapshot of shard {shard} is held here");
                    ApiError::new(Reason::UnknownSnapshot, message)
                })?;
                (newest, Incarnation(record.shard.incarnation.0 + 1))
            }
        };
        let nodes = record.shard.replicas.iter().map(|at| at.node);
        let mut alive = nodes.filter(|node| self.liveness.is_alive(*node));
        let node = alive.next().ok_or_else(|| {
            let message = format!("no node of shard {shard} is there to take it");
            ApiError::new(Reason::ShardUnavailable, message)
        })?;
        let link = self.router.link(node)?;
        push(&self.runtime, &self.store, &link, &held, target).await?;
        Ok((held, node))
    }
}

/// Who is asked for a snapshot: of those that serve the one that leads, else the one that has come furthest.
fn best_source(replicas: Vec<&ReplicaStatus>) -> Option<NodeId> {
    let serving = replicas.into_iter().filter(|replica| replica.serving);
    let leads = |replica: &ReplicaStatus| replica.role() == ReplicaRole::Leader;
    let best = serving.max_by_key(|replica| (leads(replica), replica.applied_index))?;
    Some(NodeId(best.node_id))
}

/// The whole cluster as it looks from here.
pub(crate) fn cluster_status(meta: &Meta, liveness: &Liveness) -> GetStatusResponse {
    let heard = liveness.all();
    let metadata_available = meta.is_available();
    let coordinators = meta.coordinators();
    let now_ms = meta.now_ms();
    meta.read(|state| GetStatusResponse {
        cluster_id: state.cluster.unwrap_or_default().0.to_vec().into(),
        epoch: state.epoch.0,
        nodes: state
            .nodes
            .iter()
            .map(|(id, record)| status::node_status(record, heard.get(id)))
            .collect(),
        shards: state
            .shards
            .values()
            .map(|record| status::shard_status(state, &heard, record, now_ms))
            .collect(),
        namespaces: state.namespaces.len() as u64,
        metadata_available,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        coordinators,
        actions: heard
            .iter()
            .flat_map(|(node, heard)| status::actions_of(*node, heard))
            .collect(),
    })
}

fn starting() -> ApiError {
    ApiError::new(Reason::Starting, "the metadata is not readable yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_from_the_leader_or_from_whoever_has_come_furthest() {
        let replica = |node_id, role: ReplicaRole, serving, applied_index| ReplicaStatus {
            node_id,
            role: role.into(),
            serving,
            applied_index,
            ..ReplicaStatus::default()
        };
        let of = |replicas: &[ReplicaStatus]| best_source(replicas.iter().collect());
        let mut replicas = [
            replica(1, ReplicaRole::Learner, true, 7),
            replica(2, ReplicaRole::Leader, true, 40),
            replica(3, ReplicaRole::Follower, true, 39),
            replica(4, ReplicaRole::Follower, false, 50),
            replica(5, ReplicaRole::Follower, true, 41),
        ];
        assert_eq!(of(&replicas), Some(NodeId(2)), "its report is older");
        replicas[1].serving = false;
        assert_eq!(of(&replicas), Some(NodeId(5)));
        assert_eq!(of(&replicas[..1]), Some(NodeId(1)));
        assert_eq!(of(&replicas[3..4]), None);
    }
}
