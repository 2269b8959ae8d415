//! Streams of requests with a bounded number of them in work.

use futures::future::{Either, ready};
use futures::stream::{BoxStream, StreamExt as _};
use runtime::CancellationToken;
use tonic::{Status, Streaming};

/// How a stream is worked on.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Requests in work at once.
    pub(super) size: usize,
    /// Ends the stream: no further request is taken, those in work are answered.
    pub(super) closing: CancellationToken,
}

/// Answers may overtake each other. A request that cannot be decoded ends the stream.
pub(super) fn overtaking<Q, A, F>(
    requests: Streaming<Q>,
    window: Window,
    handle: impl Fn(Q) -> F + Send + 'static,
) -> BoxStream<'static, Result<A, Status>>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    requests
        .take_until(window.closing.cancelled_owned())
        .map(move |request| match request {
            Ok(request) => Either::Left(handle(request)),
            Err(status) => Either::Right(ready(Err(status))),
        })
        .buffer_unordered(window.size)
        .boxed()
}

/// Requests are begun one after another, and settled side by side; answers come in the order of the requests. The first error ends
/// the stream.
pub(super) fn in_order<Q, B, A, Begin, Settle>(
    requests: Streaming<Q>,
    window: Window,
    begin: impl Fn(Q) -> Begin + Send + 'static,
    settle: impl Fn(B) -> Settle + Send + 'static,
) -> BoxStream<'static, Result<A, Status>>
where
    Q: Send + 'static,
    B: Send + 'static,
    A: Send + 'static,
    Begin: Future<Output = Result<B, Status>> + Send + 'static,
    Settle: Future<Output = Result<A, Status>> + Send + 'static,
{
    let requests = requests.take_until(window.closing.cancelled_owned());
    rpc::streams::in_order(requests, window.size, begin, settle).boxed()
}
