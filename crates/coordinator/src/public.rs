//! The public interface: checks, routes, answers. What a request means is decided in [`api::validate`], where it goes in
//! [`crate::routing`].

use std::pin::Pin;
use std::sync::Arc;

use api::ApiError;
use api::v1::autocomplete_service_server::AutocompleteService;
use api::v1::{
    ClearNamespaceRequest, ClearNamespaceResponse, DeleteRequest, DeleteResponse, GetCountRequest,
    GetCountResponse, GetTopKRequest, GetTopKResponse, ListTermsRequest, ListTermsResponse,
    RecordBatchRequest, RecordBatchResponse, RecordRequest, RecordResponse,
};
use api::validate;
use cluster::limits;
use futures::Stream;
use rpc::{Deadline, Trace};
use runtime::{Instant, Runtime};
use telemetry::Metrics;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::routing::Router;

/// `AutocompleteService` for the whole dictionary.
#[derive(Debug)]
pub(crate) struct Public {
    pub(crate) runtime: Runtime,
    pub(crate) router: Arc<Router>,
    pub(crate) metrics: Metrics,
    /// Requests of one stream that are worked on at once.
    pub(crate) stream_window: usize,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AutocompleteService for Public {
    async fn record(
        &self,
        request: Request<RecordRequest>,
    ) -> Result<Response<RecordResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let record = validate::Record::try_from(request.into_inner())?;
        let answer = self.router.record(record, deadline.at()).await;
        Ok(Response::new(answer.map_err(ApiError::for_write)?))
    }

    async fn record_batch(
        &self,
        request: Request<RecordBatchRequest>,
    ) -> Result<Response<RecordBatchResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let batch = validate::RecordBatch::try_from(request.into_inner())?;
        let answer = self.router.record_batch(batch, deadline.at()).await;
        Ok(Response::new(answer.map_err(ApiError::for_write)?))
    }

    type RecordStreamStream = Answers<RecordBatchResponse>;

    async fn record_stream(
        &self,
        request: Request<Streaming<RecordBatchRequest>>,
    ) -> Result<Response<Self::RecordStreamStream>, Status> {
        let (runtime, router) = (self.runtime.clone(), Arc::clone(&self.router));
        let begin = move |message: RecordBatchRequest| {
            let (runtime, router) = (runtime.clone(), Arc::clone(&router));
            async move {
                let batch = validate::RecordBatch::try_from(message)?;
                let deadline = Deadline::after(&runtime, limits::DEADLINE_DEFAULT);
                // Here, so that the batches behind the first of a new namespace do not overtake it.
                let namespace = router.namespace_of_write(&batch.namespace, deadline.at());
                namespace.await.map_err(ApiError::for_write)?;
                Ok((batch, deadline))
            }
        };
        let router = Arc::clone(&self.router);
        let settle = move |(batch, deadline): (validate::RecordBatch, Deadline)| {
            let router = Arc::clone(&router);
            async move {
                let answer = router.record_batch(batch, deadline.at()).await;
                answer.map_err(ApiError::for_write)
            }
        };
        let method = "autocomplete.v1.AutocompleteService/RecordStream";
        let answers = rpc::streams::detached(
            &self.runtime,
            "record-stream",
            self.stream_window,
            request.into_inner(),
            |requests| self.in_order(method, requests, begin, settle),
        );
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_top_k(
        &self,
        request: Request<GetTopKRequest>,
    ) -> Result<Response<GetTopKResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let ask = validate::GetTopK::try_from(request.into_inner())?;
        Ok(Response::new(self.router.top_k(ask, deadline.at()).await?))
    }

    type TopKStreamStream = Answers<GetTopKResponse>;

    async fn top_k_stream(
        &self,
        request: Request<Streaming<GetTopKRequest>>,
    ) -> Result<Response<Self::TopKStreamStream>, Status> {
        let runtime = self.runtime.clone();
        let begin = move |message: GetTopKRequest| {
            let ask = validate::GetTopK::try_from(message);
            let deadline = Deadline::after(&runtime, limits::DEADLINE_DEFAULT);
            std::future::ready(ask.map(|ask| (ask, deadline)))
        };
        let router = Arc::clone(&self.router);
        let settle = move |(ask, deadline): (validate::GetTopK, Deadline)| {
            let router = Arc::clone(&router);
            async move { router.top_k(ask, deadline.at()).await }
        };
        let method = "autocomplete.v1.AutocompleteService/TopKStream";
        let answers = self.in_order(method, request.into_inner(), begin, settle);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_count(
        &self,
        request: Request<GetCountRequest>,
    ) -> Result<Response<GetCountResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let ask = validate::GetCount::try_from(request.into_inner())?;
        Ok(Response::new(self.router.count(ask, deadline.at()).await?))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let delete = validate::Delete::try_from(request.into_inner())?;
        let answer = self.router.delete(delete, deadline.at()).await;
        Ok(Response::new(answer.map_err(ApiError::for_write)?))
    }

    async fn clear_namespace(
        &self,
        request: Request<ClearNamespaceRequest>,
    ) -> Result<Response<ClearNamespaceResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let clear = validate::ClearNamespace::try_from(request.into_inner())?;
        let answer = self.router.clear(clear, deadline.at()).await;
        Ok(Response::new(answer.map_err(ApiError::for_write)?))
    }

    async fn list_terms(
        &self,
        request: Request<ListTermsRequest>,
    ) -> Result<Response<ListTermsResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let ask = validate::ListTerms::try_from(request.into_inner())?;
        Ok(Response::new(self.router.list(ask, deadline.at()).await?))
    }
}

impl Public {
    /// [`rpc::streams::in_order`] over our window, with each request measured as a call of its own.
    fn in_order<Q, B, A, Begin, Settle>(
        &self,
        method: &'static str,
        requests: impl Stream<Item = Result<Q, Status>> + Send + 'static,
        begin: impl Fn(Q) -> Begin + Send + 'static,
        settle: impl Fn(B) -> Settle + Send + 'static,
    ) -> impl Stream<Item = Result<A, Status>> + Send + 'static
    where
        Q: Send + 'static,
        B: Send + 'static,
        A: Send + 'static,
        Begin: Future<Output = Result<B, ApiError>> + Send + 'static,
        Settle: Future<Output = Result<A, ApiError>> + Send + 'static,
    {
        // One for the stream. What is in it is shared by the whole process: clones of it for each request would have the threads of
        // connections take the same few counters from each other.
        let call = Arc::new(Measured {
            method,
            runtime: self.runtime.clone(),
            metrics: self.metrics.clone(),
            trace: Trace::current(),
        });
        let of_settle = Arc::clone(&call);
        let begin = move |request| {
            let (began, begun) = (call.runtime.now(), begin(request));
            let call = Arc::clone(&call);
            async move {
                match call.follow(begun).await {
                    Ok(begun) => Ok((began, begun)),
                    Err(error) => call.ended(began, Err(error)),
                }
            }
        };
        let settle = move |(began, begun)| {
            let (call, settled) = (Arc::clone(&of_settle), settle(begun));
            async move {
                let settled = call.follow(settled).await;
                call.ended(began, settled)
            }
        };
        rpc::streams::in_order(requests, self.stream_window, begin, settle)
    }
}

/// Tells the metrics how the requests of a stream ended.
struct Measured {
    method: &'static str,
    runtime: Runtime,
    metrics: Metrics,
    /// That of the stream.
    trace: Option<Trace>,
}

impl Measured {
    fn follow<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        rpc::trace::follow(self.trace, self.method, work)
    }

    fn ended<A>(&self, began: Instant, answer: Result<A, ApiError>) -> Result<A, Status> {
        let took = self.runtime.now().saturating_since(began);
        let answer = answer.map_err(Status::from);
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let code = rpc::code_name(code);
        if let Some(trace) = self.trace {
            trace.ended(self.method, code, took);
        }
        self.metrics.rpc_ended(self.method, code, took);
        answer
    }
}
