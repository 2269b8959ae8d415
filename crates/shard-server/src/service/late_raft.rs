//! Raft's service from the moment on when the log is open; until then peers are told that the node is starting.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use api::raft::v1::raft_service_server::RaftServiceServer;
use api::{ApiError, Reason};
use replication::RaftServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

type Raft = RaftServiceServer<RaftServer>;

/// A place for Raft's service. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LateRaft(Arc<OnceLock<Raft>>);

impl LateRaft {
    /// Puts the service in, once.
    pub(crate) fn set(&self, raft: Raft) {
        drop(self.0.set(raft));
    }
}

impl NamedService for LateRaft {
    const NAME: &'static str = Raft::NAME;
}

impl Service<http::Request<Body>> for LateRaft {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Some(raft) = self.0.get() {
            return raft.clone().call(request);
        }
        let starting = ApiError::new(Reason::Starting, "this node is opening its log");
        let response = Status::from(starting).into_http();
        Box::pin(std::future::ready(Ok(response)))
    }
}
