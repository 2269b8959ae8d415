//! Calls to the coordinators. For most any of them will do, and the one that answered last is asked first; reports go to all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::{ApiError, Outcome, Reason};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rpc::Deadline;
use rpc::channel::{Pool, PoolConfig};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// How long one coordinator may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client of the registry.
#[derive(Debug)]
pub(crate) struct RegistryClient {
    runtime: Runtime,
    coordinators: Vec<String>,
    pool: Pool,
    preferred: AtomicUsize,
}

impl RegistryClient {
    pub(crate) fn new(runtime: &Runtime, coordinators: Vec<String>) -> Self {
        let config = PoolConfig {
            connections_per_peer: 1,
            connect_timeout: PATIENCE,
            ..PoolConfig::default()
        };
        Self {
            runtime: runtime.clone(),
            pool: Pool::new(runtime, config),
            coordinators,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Asks the coordinators one after another until one answers, each at most once. An error that another coordinator would
    /// repeat ends it at once.
    pub(crate) async fn call<M, T, F>(
        &self,
        deadline: Deadline,
        message: M,
        call: impl Fn(RegistryServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<T, ApiError>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = ApiError::new(Reason::Disconnected, "no coordinator is known");
        // What one is asked to change it may have changed, whatever the next one says.
        let mut said: fn(ApiError) -> ApiError = std::convert::identity;
        let first = self.preferred.load(Ordering::Relaxed);
        for offset in 0..self.coordinators.len() {
            let place = (first + offset) % self.coordinators.len();
            let Some(address) = self.coordinators.get(place) else {
                continue;
            };
            if deadline.has_passed(&self.runtime) {
                break;
            }
            let channel = self.pool.get(address)?;
            let left = deadline.remaining(&self.runtime);
            let patience = Deadline::after(&self.runtime, left.min(PATIENCE));
            let request = patience.request(&self.runtime, message.clone())?;
            match patience
                .call(&self.runtime, call(client_of(channel), request))
                .await
            {
                Ok(response) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Err(error) if another_may_do(&error) => {
                    if error.clone().for_write().outcome() == Some(Outcome::Unknown) {
                        said = ApiError::after_unknown;
                    }
                    last = error;
                }
                Err(error) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Err(said(error));
                }
            }
        }
        Err(said(last))
    }
}

impl RegistryClient {
    /// Asks all coordinators at the same time. Answers come as they arrive, each within `patience`.
    pub(crate) fn call_each<'a, M, T, F>(
        &'a self,
        patience: Duration,
        message: &M,
        call: impl Fn(RegistryServiceClient<Channel>, Request<M>) -> F + Copy + Send + 'a,
    ) -> FuturesUnordered<BoxFuture<'a, Result<T, ApiError>>>
    where
        M: Clone + Send + 'a,
        T: Send + 'a,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'a,
    {
        let deadline = Deadline::after(&self.runtime, patience);
        let calls = self.coordinators.iter().map(|address| {
            let message = message.clone();
            async move {
                let request = deadline.request(&self.runtime, message)?;
                let client = client_of(self.pool.get(address)?);
                let answer = deadline.call(&self.runtime, call(client, request)).await;
                answer.map(Response::into_inner)
            }
            .boxed()
        });
        calls.collect()
    }
}

fn client_of(channel: Channel) -> RegistryServiceClient<Channel> {
    RegistryServiceClient::new(channel)
        .max_decoding_message_size(cluster::limits::RAFT_MESSAGE_BYTES_MAX)
}

fn another_may_do(error: &ApiError) -> bool {
    matches!(
        error.code(),
        tonic::Code::Unavailable
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Cancelled
            | tonic::Code::Unknown
            | tonic::Code::ResourceExhausted
    )
}
