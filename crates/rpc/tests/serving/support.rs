//! A server whose handler does what the term of the request says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::autocomplete_service_server::AutocompleteService;
use api::v1::{
    ClearNamespaceRequest, ClearNamespaceResponse, DeleteRequest, DeleteResponse, GetCountRequest,
    GetCountResponse, GetTopKRequest, GetTopKResponse, ListTermsRequest, ListTermsResponse,
    RecordBatchRequest, RecordBatchResponse, RecordRequest, RecordResponse,
};
use futures::stream::{BoxStream, StreamExt as _};
use rpc::channel::{PoolConfig, connect};
use rpc::{Call, Deadline, Drained, Health, Server, ServerConfig};
use runtime::{CancellationToken, Listener, Runtime, Task};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// Terms with a meaning; every other one is answered at once with its length as the count.
pub(crate) const HANG: &str = "hang";
pub(crate) const PANIC: &str = "panic";
pub(crate) const LEFT: &str = "milliseconds left";
pub(crate) const WAIT: &str = "wait for release";

#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    runtime: Runtime,
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) dropped: Arc<AtomicUsize>,
    pub(crate) release: Arc<Semaphore>,
}

/// Counts a handler's end, also when its future is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AutocompleteService for Scripted {
    async fn record(&self, request: Request<RecordRequest>) -> Answer<RecordResponse> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(Arc::clone(&self.dropped));
        let deadline = Deadline::of(&request, &self.runtime);
        let count = match request.get_ref().term.as_str() {
            HANG => std::future::pending().await,
            PANIC => panic!("as asked"),
            LEFT => deadline.remaining(&self.runtime).as_millis() as u64,
            WAIT => {
                self.release.acquire().await.unwrap().forget();
                1
            }
            term => term.len() as u64,
        };
        Ok(Response::new(RecordResponse {
            count,
            ..Default::default()
        }))
    }

    async fn record_batch(&self, _: Request<RecordBatchRequest>) -> Answer<RecordBatchResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    type RecordStreamStream = BoxStream<'static, Result<RecordBatchResponse, Status>>;

    async fn record_stream(
        &self,
        request: Request<Streaming<RecordBatchRequest>>,
    ) -> Answer<Self::RecordStreamStream> {
        let answers = request.into_inner().map(|message| {
            let message = message?;
            assert!(message.namespace != PANIC, "as asked");
            Ok(RecordBatchResponse {
                results: vec![Default::default(); message.items.len()],
                ..Default::default()
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_top_k(&self, _: Request<GetTopKRequest>) -> Answer<GetTopKResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    type TopKStreamStream = BoxStream<'static, Result<GetTopKResponse, Status>>;

    async fn top_k_stream(
        &self,
        _: Request<Streaming<GetTopKRequest>>,
    ) -> Answer<Self::TopKStreamStream> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_count(&self, _: Request<GetCountRequest>) -> Answer<GetCountResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn clear_namespace(
        &self,
        _: Request<ClearNamespaceRequest>,
    ) -> Answer<ClearNamespaceResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_terms(&self, _: Request<ListTermsRequest>) -> Answer<ListTermsResponse> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// A call as the observer saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) code: Code,
    pub(crate) streaming: bool,
}

pub(crate) struct Running {
    pub(crate) runtime: Runtime,
    pub(crate) address: String,
    pub(crate) script: Scripted,
    pub(crate) health: Health,
    pub(crate) stop: CancellationToken,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    serving: Task<Drained>,
}

pub(crate) async fn start(config: ServerConfig) -> Running {
    let runtime = Runtime::real();
    let listener = runtime
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    start_on(runtime, listener, config)
}

pub(crate) fn start_on(runtime: Runtime, listener: Listener, config: ServerConfig) -> Running {
    let script = Scripted {
        runtime: runtime.clone(),
        begun: Arc::default(),
        dropped: Arc::default(),
        release: Arc::new(Semaphore::new(0)),
    };
    let health = Health::new();
    let stop = CancellationToken::new();
    let (tell, seen) = mpsc::unbounded_channel();
    let observer = move |call: Call<'_>| {
        // A test that does not look has dropped the other end.
        let _unseen = tell.send(Seen {
            method: call.method.to_owned(),
            code: call.code,
            streaming: call.streaming,
        });
    };
    let address = listener.local_addr().to_string();
    let server = Server::new(&runtime, config)
        .with_service(rpc::services::autocomplete(script.clone()))
        .with_health(&health)
        .with_reflection()
        .with_grpc_web()
        .with_observer(Arc::new(observer));
    let serving = runtime.spawn("server", server.serve(listener, stop.clone()));
    Running {
        runtime,
        address,
        script,
        health,
        stop,
        seen,
        serving,
    }
}

/// Long enough for anything that happens at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

impl Running {
    pub(crate) fn channel(&self) -> Channel {
        connect(&self.runtime, &self.address, &PoolConfig::default()).unwrap()
    }

    pub(crate) fn client(&self) -> AutocompleteServiceClient<Channel> {
        AutocompleteServiceClient::new(self.channel())
    }

    /// Waits for something that must become true.
    pub(crate) async fn until(&self, what: &str, check: impl Fn() -> bool) {
        let waiting = async {
            while !check() {
                self.runtime.sleep(Duration::from_millis(2)).await;
            }
        };
        self.runtime
            .timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub(crate) async fn stopped(self) -> Drained {
        self.stop.cancel();
        self.runtime
            .timeout(PATIENCE, self.serving)
            .await
            .expect("the server ends")
            .unwrap()
    }
}

pub(crate) fn record(term: &str) -> RecordRequest {
    RecordRequest {
        term: term.to_owned(),
        ..Default::default()
    }
}
