//! `AutocompleteService` for what this node owns, for clients that come directly.
//!
//! A request about terms that another node owns is answered with `WRONG_SHARD`, the map and the owner's address; a prefix that is
//! owned in part is answered in part, and says which ranges are missing. There is no hop behind this server, so a write without a
//! request id is given none.

mod read;
mod write;

use api::v1 as wire;
use api::v1::autocomplete_service_server::AutocompleteService;
use api::{ApiError, validate};
use futures::stream::BoxStream;
use rpc::Deadline;
use tonic::{Request, Response, Status, Streaming};

use self::write::QueuedBatch;
use super::streams::in_order;
use super::{Services, status, write_status};

impl Services {
    async fn public_record(
        &self,
        request: wire::RecordRequest,
        deadline: Deadline,
    ) -> Result<wire::RecordResponse, ApiError> {
        self.record(validate::Record::try_from(request)?, deadline)
            .await
    }

    async fn queue(
        &self,
        request: wire::RecordBatchRequest,
        deadline: Deadline,
    ) -> Result<QueuedBatch, ApiError> {
        let sound = validate::RecordBatch::try_from(request)?;
        self.queue_batch(sound, deadline).await
    }

    async fn public_top_k(
        &self,
        request: wire::GetTopKRequest,
        deadline: Deadline,
    ) -> Result<wire::GetTopKResponse, ApiError> {
        self.get_top_k(validate::GetTopK::try_from(request)?, deadline)
            .await
    }
}

#[tonic::async_trait]
impl AutocompleteService for Services {
    type RecordStreamStream = BoxStream<'static, Result<wire::RecordBatchResponse, Status>>;
    type TopKStreamStream = BoxStream<'static, Result<wire::GetTopKResponse, Status>>;

    async fn record(
        &self,
        request: Request<wire::RecordRequest>,
    ) -> Result<Response<wire::RecordResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let answer = self.public_record(request.into_inner(), deadline).await;
        answer.map(Response::new).map_err(write_status)
    }

    async fn record_batch(
        &self,
        request: Request<wire::RecordBatchRequest>,
    ) -> Result<Response<wire::RecordBatchResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let write = async {
            let queued = self.queue(request.into_inner(), deadline).await?;
            self.settle_batch(queued).await
        };
        write.await.map(Response::new).map_err(write_status)
    }

    async fn record_stream(
        &self,
        request: Request<Streaming<wire::RecordBatchRequest>>,
    ) -> Result<Response<Self::RecordStreamStream>, Status> {
        let queueing = self.clone();
        let queue = move |request: wire::RecordBatchRequest| {
            let services = queueing.clone();
            async move {
                let deadline = services.message_deadline();
                services
                    .queue(request, deadline)
                    .await
                    .map_err(write_status)
            }
        };
        let settling = self.clone();
        let settle = move |queued: QueuedBatch| {
            let services = settling.clone();
            async move { services.settle_batch(queued).await.map_err(write_status) }
        };
        let answers = in_order(request.into_inner(), self.window(), queue, settle);
        Ok(Response::new(answers))
    }

    async fn get_top_k(
        &self,
        request: Request<wire::GetTopKRequest>,
    ) -> Result<Response<wire::GetTopKResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let answer = self.public_top_k(request.into_inner(), deadline).await;
        answer.map(Response::new).map_err(status)
    }

    async fn top_k_stream(
        &self,
        request: Request<Streaming<wire::GetTopKRequest>>,
    ) -> Result<Response<Self::TopKStreamStream>, Status> {
        let services = self.clone();
        let handle = move |request: wire::GetTopKRequest| {
            let services = services.clone();
            async move {
                let deadline = services.message_deadline();
                let answer = services.public_top_k(request, deadline).await;
                answer.map_err(status)
            }
        };
        let at_once = |request| std::future::ready(Ok(request));
        let answers = in_order(request.into_inner(), self.window(), at_once, handle);
        Ok(Response::new(answers))
    }

    async fn get_count(
        &self,
        request: Request<wire::GetCountRequest>,
    ) -> Result<Response<wire::GetCountResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let read = async {
            let sound = validate::GetCount::try_from(request.into_inner())?;
            self.get_count(sound, deadline).await
        };
        read.await.map(Response::new).map_err(status)
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let write = async {
            let sound = validate::Delete::try_from(request.into_inner())?;
            self.delete(sound, deadline).await
        };
        write.await.map(Response::new).map_err(write_status)
    }

    async fn clear_namespace(
        &self,
        request: Request<wire::ClearNamespaceRequest>,
    ) -> Result<Response<wire::ClearNamespaceResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let write = async {
            let sound = validate::ClearNamespace::try_from(request.into_inner())?;
            self.clear_namespace(sound, deadline).await
        };
        write.await.map(Response::new).map_err(write_status)
    }

    async fn list_terms(
        &self,
        request: Request<wire::ListTermsRequest>,
    ) -> Result<Response<wire::ListTermsResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let read = async {
            let sound = validate::ListTerms::try_from(request.into_inner())?;
            self.list_terms(sound, deadline).await
        };
        read.await.map(Response::new).map_err(status)
    }
}
