//! What the other coordinators ask: who is there, a change at the leader, and whether the leader leads.

use std::sync::{Arc, OnceLock};

use api::meta::v1::metadata_service_server::MetadataService;
use api::meta::v1::{
    AdmitRequest, AdmitResponse, ConfirmRequest, ConfirmResponse, GreetRequest, GreetResponse,
    ProposeRequest, ProposeResponse,
};
use api::{ApiError, Reason};
use cluster::NodeId;
use rpc::Deadline;
use runtime::Runtime;
use tonic::{Request, Response, Status};

use super::Meta;
use crate::arrival::{Myself, bytes_of};
use crate::identity::Instance;
use crate::metadata::Command;

/// `MetadataService`. Answers greetings at once, and the rest once the metadata are open.
#[derive(Debug, Clone)]
pub(crate) struct MetadataDoor {
    runtime: Runtime,
    myself: Arc<Myself>,
    meta: Arc<OnceLock<Arc<Meta>>>,
}

impl MetadataDoor {
    pub(crate) fn new(runtime: &Runtime, myself: Arc<Myself>) -> Self {
        Self {
            runtime: runtime.clone(),
            myself,
            meta: Arc::default(),
        }
    }

    /// The metadata are open.
    pub(crate) fn open(&self, meta: &Arc<Meta>) {
        drop(self.meta.set(Arc::clone(meta)));
    }

    /// The metadata, if a message is meant for them.
    fn meta(&self, cluster: &[u8], to: u64) -> Result<&Arc<Meta>, ApiError> {
        let meta = self.meta_of(cluster)?;
        if NodeId(to) != meta.id {
            let message = format!("this is coordinator {}, not {to}", meta.id);
            return Err(ApiError::new(Reason::WrongNode, message));
        }
        Ok(meta)
    }

    /// The metadata, if they are those of a cluster.
    fn meta_of(&self, cluster: &[u8]) -> Result<&Arc<Meta>, ApiError> {
        let starting = || ApiError::new(Reason::Starting, "this coordinator is opening its data");
        let meta = self.meta.get().ok_or_else(starting)?;
        if cluster != meta.cluster.0 {
            let message = "this coordinator belongs to another cluster";
            return Err(ApiError::new(Reason::WrongCluster, message));
        }
        Ok(meta)
    }
}

/// The kind of a change that is to be proposed, and the change. What is in the log and means nothing to whoever applies it stops every
/// coordinator for good.
pub(crate) fn known_change(request: &ProposeRequest) -> Result<(u16, Command), ApiError> {
    let refused = |field, problem: &str| ApiError::field(Reason::Malformed, field, problem);
    let kind = u16::try_from(request.kind).map_err(|_| refused("kind", "is above 65535"))?;
    let change = Command::decode(kind, &request.command)
        .map_err(|error| refused("command", &error.to_string()))?;
    let unknown = || refused("kind", &format!("no change of kind {kind} is known here"));
    Ok((kind, change.ok_or_else(unknown)?))
}

/// The directory that asks for a place.
pub(crate) fn new_instance(request: &AdmitRequest) -> Result<Instance, ApiError> {
    let instance = bytes_of(&request.instance_id);
    instance.map_err(|problem| ApiError::field(Reason::Malformed, "instance_id", problem))
}

#[tonic::async_trait]
impl MetadataService for MetadataDoor {
    async fn greet(
        &self,
        _request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        Ok(Response::new(self.myself.greet()))
    }

    async fn admit(
        &self,
        request: Request<AdmitRequest>,
    ) -> Result<Response<AdmitResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let request = request.into_inner();
        let meta = self.meta_of(&request.cluster_id);
        let meta = meta.map_err(ApiError::for_write)?;
        let instance = new_instance(&request).map_err(ApiError::for_write)?;
        // Boxed: it is large, and rare.
        let admission =
            Box::pin(meta.admit(&self.myself, NodeId(request.coordinator_id), instance));
        let admitted = deadline.limit(&self.runtime, admission).await;
        admitted
            .and_then(|done| done)
            .map_err(ApiError::for_write)?;
        Ok(Response::new(AdmitResponse {}))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let request = request.into_inner();
        let meta = self.meta(&request.cluster_id, request.to_coordinator_id);
        let meta = meta.map_err(ApiError::for_write)?;
        let (kind, _) = known_change(&request).map_err(ApiError::for_write)?;
        let proposal = meta.propose_here(kind, request.command);
        let committed = deadline.limit(&self.runtime, proposal).await;
        let committed = committed
            .and_then(|done| done)
            .map_err(ApiError::for_write)?;
        Ok(Response::new(ProposeResponse {
            index: committed.index,
        }))
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let request = request.into_inner();
        let meta = self.meta(&request.cluster_id, request.to_coordinator_id)?;
        let left = deadline.remaining(&self.runtime);
        let applied_index = meta.confirm_here(left).await?;
        meta.check_place(NodeId(request.from_coordinator_id))?;
        Ok(Response::new(ConfirmResponse { applied_index }))
    }
}
