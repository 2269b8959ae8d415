//! The answer of a streaming call on its way out, and what is still on its way in of a call that is refused.
//!
//! Frames of an answer are passed on unchanged, but the stream is ended with a status when the server stops or the handler's stream panics.
//! Statuses of the library are rewritten, and the call is reported when the stream ended or the caller went away.

use std::future::{Future as _, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use api::{ApiError, Reason};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::{Code, Status};

use super::edge::Report;
use super::lifecycle::Busy;
use super::verdict;

/// Reads to its end what a caller still sends of a call that is not begun, at most so many bytes.
pub(super) async fn skip(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

pub(super) struct StreamBody {
    inner: Body,
    /// Ready when the server has waited long enough for streams to end.
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    report: Report,
    /// Keeps the connection from counting as idle.
    _busy: Option<Busy>,
}

impl StreamBody {
    pub(super) fn new(
        inner: Body,
        end: WaitForCancellationFutureOwned,
        report: Report,
        busy: Option<Busy>,
    ) -> Self {
        Self {
            inner,
            end: Box::pin(end),
            ended: false,
            report,
            _busy: busy,
        }
    }

    fn end_with(&mut self, error: ApiError) -> Option<Result<Frame<Bytes>, Status>> {
        self.ended = true;
        self.report.code = error.code();
        let mut trailers = HeaderMap::new();
        verdict::put(error.into(), &mut trailers);
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.end.as_mut().poll(context).is_ready() {
            let stopped = ApiError::new(Reason::Stopped, "the server is shutting down");
            return Poll::Ready(this.end_with(stopped));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut this.inner).poll_frame(context)
        }));
        match polled {
            Err(_) => {
                tracing::error!(method = this.report.method(), "a handler's stream panicked");
                Poll::Ready(this.end_with(ApiError::internal("the handler panicked")))
            }
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(None)) => {
                this.ended = true;
                this.report.code = Code::Ok;
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Err(status)))) => {
                this.ended = true;
                this.report.code = status.code();
                Poll::Ready(Some(Err(status)))
            }
            Ok(Poll::Ready(Some(Ok(mut frame)))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.ended = true;
                    this.report.code = verdict::rewrite(trailers).unwrap_or(Code::Unknown);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
