//! A node as a program of an older version serves it: without the calls that came later.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

/// Answers `UNIMPLEMENTED` to calls that an older version does not have, where it is one.
#[derive(Debug, Clone)]
pub(crate) struct Older<S> {
    pub(crate) inner: S,
    pub(crate) is_older: bool,
}

impl<S: NamedService> NamedService for Older<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Older<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.is_older && request.uri().path().ends_with("/OfferSnapshot") {
            let status = Status::unimplemented("");
            return Either::Left(ready(Ok(status.into_http())));
        }
        Either::Right(self.inner.call(request))
    }
}
