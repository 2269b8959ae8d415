use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use api::admin::v1::cluster_admin_service_server::ClusterAdminService;
use api::admin::v1::{
    DrainNodeRequest, DrainNodeResponse, EndRecoveryResponse, GetMapResponse, GetStatusResponse,
    ListSnapshotsRequest, ListSnapshotsResponse, PromoteReplicaRequest, PromoteReplicaResponse,
    PullSnapshotRequest, PullSnapshotResponse, PushSnapshotRequest, PushSnapshotResponse,
    ReplaceReplicaRequest, ReplaceReplicaResponse, ReplicaDescriptor, ShardDescriptor, ShardMap,
    TransferLeaderRequest, TransferLeaderResponse, TurnVerdict,
};
use rpc::{Server, ServerConfig};
use runtime::CancellationToken;
use tonic::{Request, Response};

use super::*;

/// A coordinator whose map has one shard, by which its answers are known.
#[derive(Clone, Default)]
pub(crate) struct Stub {
    shard: u64,
    has_quorum: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// What happens before a turn is granted; without it none is.
    before_grants: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Stub {
    async fn start(runtime: &Runtime, shard: u64, has_quorum: bool) -> (Self, String) {
        let stub = Self {
            shard,
            ..Self::default()
        };
        stub.set_quorum(has_quorum);
        let address = stub.serve(runtime).await;
        (stub, address)
    }

    /// One that grants whatever turn is asked for, when something has happened first.
    pub(crate) async fn granting(
        runtime: &Runtime,
        before_grants: impl Fn() + Send + Sync + 'static,
    ) -> String {
        let stub = Self {
            before_grants: Some(Arc::new(before_grants)),
            ..Self::default()
        };
        stub.serve(runtime).await
    }

    /// Serves on a port that the system chooses, until the test ends.
    async fn serve(&self, runtime: &Runtime) -> String {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = runtime.bind(anywhere).await.unwrap();
        let address = listener.local_addr().to_string();
        let server = Server::new(runtime, ServerConfig::internal())
            .with_service(rpc::services::admin(self.clone()));
        runtime.spawn("server", server.serve(listener, CancellationToken::new()));
        address
    }

    fn set_quorum(&self, has_quorum: bool) {
        self.has_quorum.store(has_quorum, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn no_business<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a view has no business here"))
}

#[tonic::async_trait]
impl ClusterAdminService for Stub {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(GetStatusResponse {
            metadata_available: self.has_quorum.load(Ordering::SeqCst),
            ..GetStatusResponse::default()
        }))
    }

    async fn get_map(&self, _: Request<GetMapRequest>) -> Result<Response<GetMapResponse>, Status> {
        let shard = ShardDescriptor {
            shard_id: self.shard,
            replicas: vec![ReplicaDescriptor {
                node_id: 1,
                voter: true,
            }],
            ..ShardDescriptor::default()
        };
        let map = ShardMap {
            shards: vec![shard],
            ..ShardMap::default()
        };
        Ok(Response::new(GetMapResponse { map: Some(map) }))
    }

    async fn recover_shard(
        &self,
        _: Request<RecoverShardRequest>,
    ) -> Result<Response<RecoverShardResponse>, Status> {
        no_business()
    }

    async fn begin_recovery(
        &self,
        request: Request<BeginRecoveryRequest>,
    ) -> Result<Response<BeginRecoveryResponse>, Status> {
        let Some(happens) = &self.before_grants else {
            return no_business();
        };
        happens();
        Ok(Response::new(BeginRecoveryResponse {
            verdict: TurnVerdict::Granted.into(),
            attempt: 1,
            holder: request.into_inner().watchdog,
        }))
    }

    async fn end_recovery(
        &self,
        _: Request<EndRecoveryRequest>,
    ) -> Result<Response<EndRecoveryResponse>, Status> {
        no_business()
    }

    async fn drain_node(
        &self,
        _: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        no_business()
    }

    async fn promote_replica(
        &self,
        _: Request<PromoteReplicaRequest>,
    ) -> Result<Response<PromoteReplicaResponse>, Status> {
        no_business()
    }

    async fn replace_replica(
        &self,
        _: Request<ReplaceReplicaRequest>,
    ) -> Result<Response<ReplaceReplicaResponse>, Status> {
        no_business()
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        no_business()
    }

    async fn pull_snapshot(
        &self,
        _: Request<PullSnapshotRequest>,
    ) -> Result<Response<PullSnapshotResponse>, Status> {
        no_business()
    }

    async fn push_snapshot(
        &self,
        _: Request<PushSnapshotRequest>,
    ) -> Result<Response<PushSnapshotResponse>, Status> {
        no_business()
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        no_business()
    }
}

/// Whose view it is, and whether that one has a quorum.
async fn view(coordinators: &Coordinators) -> (u64, bool) {
    let view = coordinators.view(&WatchdogReport::default()).await.unwrap();
    let shards: Vec<u64> = view.fleet.shards.keys().map(|shard| shard.0).collect();
    assert_eq!(shards.len(), 1, "never a mixture");
    (shards[0], view.has_quorum)
}

/// Longer than anything here takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_without_a_quorum_is_believed_only_if_no_other_has_one() {
    let runtime = Runtime::real();
    let (one, at_one) = Stub::start(&runtime, 1, false).await;
    let (two, at_two) = Stub::start(&runtime, 2, false).await;
    let (three, at_three) = Stub::start(&runtime, 3, true).await;
    let addresses = [at_one, at_two, at_three];
    let coordinators = Coordinators::new(runtime, &addresses, PATIENCE).unwrap();
    assert_eq!(view(&coordinators).await, (3, true));
    let asked = one.asked();
    assert_eq!(asked, 1);
    // It is asked first from now on, and the others not at all.
    for _ in 0..3 {
        assert_eq!(view(&coordinators).await, (3, true));
    }
    assert_eq!((one.asked(), three.asked()), (asked, 4));
    // None has a quorum: what the one that is asked first knows is better than nothing.
    three.set_quorum(false);
    for _ in 0..2 {
        assert_eq!(view(&coordinators).await, (3, false));
    }
    two.set_quorum(true);
    assert_eq!(view(&coordinators).await, (2, true));
    three.set_quorum(true);
    assert_eq!(view(&coordinators).await, (2, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_without_a_quorum_is_believed_where_the_others_are_away() {
    let runtime = Runtime::real();
    let (_one, at_one) = Stub::start(&runtime, 1, false).await;
    // A port on which nobody listens.
    let away = "127.0.0.1:1".to_owned();
    for addresses in [[at_one.clone(), away.clone()], [away, at_one]] {
        let coordinators = Coordinators::new(runtime.clone(), &addresses, PATIENCE).unwrap();
        assert_eq!(view(&coordinators).await, (1, false));
    }
}
