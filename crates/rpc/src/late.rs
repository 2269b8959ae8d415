//! A service whose parts are not ready when the server begins to serve.
//!
//! A node binds first and recovers then, so that peers and health checks get an answer meanwhile. Until the service is put in,
//! every call to it ends with `STARTING`, of which a write's outcome is `NOT_APPLIED`.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use api::{ApiError, Reason};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

/// A place for a service. Clones share it.
pub struct Late<S>(Arc<OnceLock<S>>);

impl<S> Late<S> {
    /// Puts the service in. Only the first one counts.
    pub fn set(&self, service: S) {
        drop(self.0.set(service));
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Late<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: NamedService> fmt::Debug for Late<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Late")
            .field("service", &S::NAME)
            .field("is_set", &self.0.get().is_some())
            .finish()
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Late<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(service) = self.0.get() {
            return Box::pin(service.clone().call(request));
        }
        let starting = ApiError::new(Reason::Starting, "this server is opening its data");
        let response = Status::from(starting.for_write()).into_http();
        Box::pin(std::future::ready(Ok(response)))
    }
}
