//! `NodeService`: what coordinators and operators ask of the node as a whole.

use std::sync::Arc;
use std::time::Duration;

use api::shard::v1 as wire;
use api::shard::v1::node_service_server::NodeService;
use api::{ApiError, Reason};
use cluster::{Incarnation, NodeId, ShardId};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use replication::SnapshotFile;
use rpc::Deadline;
use tonic::{Request, Response, Status, Streaming};

use super::snapshots::{check_announced, piece, seed_error, snapshot_error};
use super::{Services, status};
use crate::metrics::Action;
use crate::node::Replica;

/// How long a sender may take for the next piece.
const PIECE_PATIENCE: Duration = Duration::from_secs(10);

impl Services {
    async fn take(
        &self,
        request: wire::TakeSnapshotRequest,
        deadline: Deadline,
    ) -> Result<wire::TakeSnapshotResponse, ApiError> {
        let shard = ShardId(request.shard_id);
        let replica = self.node.replica(shard)?;
        let applied = replica.group().applied().map_or(0, |at| at.index);
        let reach = match request.reach {
            0 => applied,
            asked => asked.min(applied),
        };
        let place = (replica.shard(), replica.incarnation());
        let (group, hashes) = (replica.group().clone(), Arc::clone(&self.hashes));
        let runtime = self.node.runtime.clone();
        // A task of its own: it goes on when the caller's patience ends before a large snapshot is written.
        let task = self.node.runtime.spawn("snapshot-take", async move {
            let taken = group.take_snapshot_to(reach).await;
            let file = taken.map_err(|error| snapshot_error(&error))?;
            hashes.describe(&runtime, place, &file).await
        });
        let left = deadline.remaining(&self.node.runtime);
        // A little is kept, so that the answer says how to ask again, which the end of the deadline does not.
        let taken = self.node.runtime.timeout(left - left / 10, task).await;
        let goes_on = |_| {
            let message =
                format!("the snapshot of shard {shard} is still being written: ask again");
            ApiError::deadline(message).with_metadata("reach", reach.to_string())
        };
        let taken = taken.map_err(goes_on)?;
        let described = taken.map_err(|error| ApiError::internal(error.to_string()))??;
        Ok(wire::TakeSnapshotResponse {
            snapshot: Some(described),
        })
    }

    async fn describe(
        &self,
        replica: &Replica,
        file: &SnapshotFile,
    ) -> Result<api::admin::v1::SnapshotInfo, ApiError> {
        let place = (replica.shard(), replica.incarnation());
        self.hashes.describe(&self.node.runtime, place, file).await
    }

    async fn read(
        &self,
        request: wire::ReadSnapshotRequest,
    ) -> Result<BoxStream<'static, Result<wire::SnapshotChunk, Status>>, ApiError> {
        let replica = self.node.replica(ShardId(request.shard_id))?;
        let file = replica
            .group()
            .latest_snapshot()
            .ok_or_else(|| ApiError::new(Reason::UnknownSnapshot, "no snapshot was taken yet"))?;
        let described = self.describe(&replica, &file).await?;
        if request.offset > described.bytes {
            let problem = format!(
                "{} is behind the end at {}",
                request.offset, described.bytes
            );
            return Err(ApiError::field(Reason::BadArgument, "offset", problem));
        }
        let node = Arc::clone(&self.node);
        let first = (Some(described), request.offset);
        let chunks = stream::try_unfold(first, move |(described, offset)| {
            let (node, file) = (Arc::clone(&node), file.clone());
            async move {
                let vfs = Arc::clone(&node.vfs);
                let read = move || piece(vfs.as_ref(), &file, offset);
                let data = node
                    .runtime
                    .spawn_blocking("snapshot-read", read)
                    .await
                    .map_err(|error| ApiError::internal(error.to_string()))?
                    .map_err(|error| snapshot_error(&error.into()))?;
                if data.is_empty() && described.is_none() {
                    return Ok(None);
                }
                let next = offset + data.len() as u64;
                let chunk = wire::SnapshotChunk {
                    snapshot: described,
                    offset,
                    data,
                };
                Ok(Some((chunk, (None, next))))
            }
        });
        let closing = self.node.closing.clone();
        Ok(chunks
            .map_err(status)
            .take_until(closing.cancelled_owned())
            .boxed())
    }

    async fn send(
        &self,
        mut pieces: Streaming<wire::SendSnapshotRequest>,
    ) -> Result<wire::SendSnapshotResponse, ApiError> {
        let first = self
            .next_piece(&mut pieces)
            .await?
            .ok_or_else(|| ApiError::malformed("the stream is empty"))?;
        let announced = first.snapshot.clone().ok_or_else(|| {
            ApiError::field(
                Reason::BadArgument,
                "snapshot",
                "must be set in the first message",
            )
        })?;
        let shard = ShardId(announced.shard_id);
        let incarnation = Incarnation(first.target_incarnation);
        self.check_push(shard, incarnation, &announced)?;
        self.make_room(shard, incarnation, &announced).await?;
        let runtime = &self.node.runtime;
        let task_failed = |error: runtime::TaskFailed| ApiError::internal(error.to_string());
        let seeds = self.node.seeds.clone();
        let begin = move || seeds.receive(shard, incarnation, &announced);
        let mut incoming = runtime
            .spawn_blocking("seed-begin", begin)
            .await
            .map_err(task_failed)?
            .map_err(|error| seed_error(&error))?;
        let mut next = Some(first);
        while let Some(message) = next {
            let write = move || {
                let written = incoming.piece(message.offset, &message.data);
                written.map(|()| incoming)
            };
            incoming = runtime
                .spawn_blocking("seed-piece", write)
                .await
                .map_err(task_failed)?
                .map_err(|error| seed_error(&error))?;
            next = self.next_piece(&mut pieces).await?;
        }
        let bytes = runtime
            .spawn_blocking("seed-finish", move || incoming.finish())
            .await
            .map_err(task_failed)?
            .map_err(|error| seed_error(&error))?;
        tracing::info!(%shard, %incarnation, bytes, "a snapshot was pushed");
        self.node.sync_now.notify_one();
        Ok(wire::SendSnapshotResponse { bytes })
    }

    async fn next_piece(
        &self,
        pieces: &mut Streaming<wire::SendSnapshotRequest>,
    ) -> Result<Option<wire::SendSnapshotRequest>, ApiError> {
        let next = tokio::select! {
            () = self.node.closing.cancelled() => {
                return Err(ApiError::new(Reason::Stopped, "this node is stopping"));
            }
            next = self.node.runtime.timeout(PIECE_PATIENCE, pieces.message()) => next,
        };
        let message = next.map_err(|_| ApiError::deadline("the next piece did not come"))?;
        Ok(message?)
    }

    /// Refuses a push that makes no sense, or is for a shard that serves here or has begun.
    fn check_push(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        announced: &api::admin::v1::SnapshotInfo,
    ) -> Result<(), ApiError> {
        check_announced(incarnation, announced)?;
        let slots = self.node.slots();
        let serves = slots.get(&shard).is_some_and(|slot| {
            let running = slot.running();
            slot.incarnation >= incarnation
                && running.is_some_and(|replica| Replica::is_serving(&replica.group().status()))
        });
        if serves {
            let message = format!("shard {shard} serves on this node");
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        if self.node.has_begun(shard, incarnation) {
            let message = format!("life {incarnation} of shard {shard} has begun on this node");
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        Ok(())
    }

    /// Refuses a push that does not fit the disk, with what the shard had here before or, if it comes to that, without.
    async fn make_room(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        announced: &api::admin::v1::SnapshotInfo,
    ) -> Result<(), ApiError> {
        let is_full = || {
            let free = self.node.vfs.free_space(self.node.data_dir());
            free.is_ok_and(|free| free < announced.bytes)
        };
        if is_full() {
            self.node
                .make_room_for_seed(shard, incarnation, &announced.hash)
                .await;
        }
        if is_full() {
            let message = format!("no room for a snapshot of {} bytes", announced.bytes);
            return Err(ApiError::new(Reason::DiskFull, message));
        }
        Ok(())
    }

    async fn transfer(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, ApiError> {
        let replica = self.node.replica(ShardId(request.shard_id))?;
        let to = Some(NodeId(request.to_node_id)).filter(|node| node.0 != 0);
        let leader = if request.take {
            let here = replica.group().status().node;
            if to.is_some_and(|to| to != here) {
                let problem = format!("is not node {here}, which is to take the lead");
                return Err(ApiError::field(Reason::BadArgument, "to_node_id", problem));
            }
            let taken = replica.take_lead().await;
            self.node.metrics.count_action(
                Action::TakeLead,
                "asked",
                Some(replica.shard()),
                &taken,
            );
            taken?
        } else {
            let handed = replica.hand_over(to).await;
            self.node.metrics.count_action(
                Action::HandOverLead,
                "asked",
                Some(replica.shard()),
                &handed,
            );
            handed?
        };
        tracing::info!(shard = request.shard_id, %leader, "the lead has moved as asked");
        self.node.sync_now.notify_one();
        Ok(wire::TransferLeaderResponse {
            leader_node_id: leader.0,
        })
    }

    async fn give_up(
        &self,
        request: wire::GiveUpDataRequest,
    ) -> Result<wire::GiveUpDataResponse, ApiError> {
        let identity = self.node.identity();
        let Some(identity) = identity.filter(|known| known.node.0 == request.node_id) else {
            let message = format!("this is not node {}", request.node_id);
            return Err(ApiError::new(Reason::WrongNode, message));
        };
        if request.cluster_id != identity.cluster.0.as_slice() {
            return Err(ApiError::new(
                Reason::WrongCluster,
                "this is another cluster",
            ));
        }
        if !self.node.has_damage() {
            let message = "the data of this node is not damaged";
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        let node = Arc::clone(&self.node);
        // A task of its own: what was begun is seen through when the caller goes away.
        let moved_to = self
            .node
            .runtime
            .spawn("give-up-data", async move { node.give_up_data().await })
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| {
                tracing::error!(%error, "the damaged data cannot be moved aside");
                ApiError::internal("the data cannot be moved aside")
            })?;
        Ok(wire::GiveUpDataResponse { moved_to })
    }
}

#[tonic::async_trait]
impl NodeService for Services {
    type ReadSnapshotStream = BoxStream<'static, Result<wire::SnapshotChunk, Status>>;

    async fn take_snapshot(
        &self,
        request: Request<wire::TakeSnapshotRequest>,
    ) -> Result<Response<wire::TakeSnapshotResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let taken = self.take(request.into_inner(), deadline).await;
        taken.map(Response::new).map_err(status)
    }

    async fn read_snapshot(
        &self,
        request: Request<wire::ReadSnapshotRequest>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        let chunks = self.read(request.into_inner()).await;
        chunks.map(Response::new).map_err(status)
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<wire::SendSnapshotRequest>>,
    ) -> Result<Response<wire::SendSnapshotResponse>, Status> {
        let kept = self.send(request.into_inner()).await;
        kept.map(Response::new).map_err(status)
    }

    async fn change_members(
        &self,
        request: Request<wire::ChangeMembersRequest>,
    ) -> Result<Response<wire::ChangeMembersResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let changed = Self::change_members(self, request.into_inner(), deadline).await;
        changed.map(Response::new).map_err(status)
    }

    async fn give_up_data(
        &self,
        request: Request<wire::GiveUpDataRequest>,
    ) -> Result<Response<wire::GiveUpDataResponse>, Status> {
        let moved = self.give_up(request.into_inner()).await;
        moved.map(Response::new).map_err(status)
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let handed = self.transfer(request.into_inner()).await;
        handed.map(Response::new).map_err(status)
    }

    async fn get_node(
        &self,
        _request: Request<wire::GetNodeRequest>,
    ) -> Result<Response<wire::GetNodeResponse>, Status> {
        let identity = self.node.identity();
        let damage = self.node.damage();
        Ok(Response::new(wire::GetNodeResponse {
            node_id: identity.map_or(0, |known| known.node.0),
            cluster_id: identity
                .map_or_else(Default::default, |known| known.cluster.0.to_vec().into()),
            replicas: self.node.replica_reports(),
            epoch: self.node.view().epoch().0,
            data_loss: damage.is_some(),
            reason: damage.unwrap_or_default(),
            opening_bytes: self.node.opening_bytes(),
        }))
    }
}
