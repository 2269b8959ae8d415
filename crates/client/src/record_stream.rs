//! Batches over one stream, several in flight.
//!
//! A driver task owns the stream. Batches go out in the order they were given; each is answered once, through its [`PendingBatch`]. When the
//! stream breaks, what was not answered goes out again on a new one under the same request ids; a batch that was refused gets its
//! error and the others go on. A batch with items whose failure may pass is sent again behind the others. One whose deadline passes
//! is given up then, be it on a stream or waiting for one.
//!
//! The number of batches that are accepted and not answered is at most the window, so memory is bounded and the caller is slowed
//! down by the cluster's pace.

mod driver;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::v1;
use runtime::{Instant, Task};
use tokio::sync::{mpsc, oneshot};

use crate::ClientError;
use crate::call::Caller;
use crate::ids::{IssuedId, RequestIds};
use crate::retry::Attempts;
use driver::Driver;

const WINDOW_MAX: usize = 1_024;

type Outcome = Result<v1::RecordBatchResponse, ClientError>;

/// A batch on its way.
#[derive(Debug)]
struct Job {
    request: v1::RecordBatchRequest,
    /// When to give up.
    deadline: Instant,
    attempts: Attempts,
    reply: oneshot::Sender<Outcome>,
    /// Settles the id when the job is dropped.
    _issued: Option<IssuedId>,
}

/// A stream of batches. Dropping it lets the batches that were given go through.
#[derive(Debug)]
pub struct RecordStream {
    caller: Arc<Caller>,
    ids: Arc<RequestIds>,
    jobs: mpsc::Sender<Job>,
    driver: Task<()>,
}

impl RecordStream {
    pub(crate) fn start(
        caller: Arc<Caller>,
        ids: Arc<RequestIds>,
        window: usize,
    ) -> Result<Self, ClientError> {
        if !(1..=WINDOW_MAX).contains(&window) {
            return Err(ClientError::Options {
                field: "window",
                problem: format!("is {window}, must be 1 to {WINDOW_MAX}"),
            });
        }
        // The driver takes a job only when the window has room; this place is for the one that waits.
        let (jobs, receiver) = mpsc::channel(1);
        let driver = Driver::new(Arc::clone(&caller), receiver, window);
        let driver = caller.runtime.spawn("record stream", driver.run());
        Ok(Self {
            caller,
            ids,
            jobs,
            driver,
        })
    }

    /// Hands a batch over; waits while the window is full. The operation's deadline runs from here.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the driver has stopped.
    pub async fn send(
        &self,
        mut request: v1::RecordBatchRequest,
    ) -> Result<PendingBatch, ClientError> {
        let place = self.jobs.reserve().await.map_err(|_| ClientError::Closed)?;
        let runtime = &self.caller.runtime;
        let issued = if request.request_id.is_none() {
            let issued = self.ids.issue(runtime.wall_ms());
            request.request_id = Some(issued.id());
            Some(issued)
        } else {
            None
        };
        let (reply, answer) = oneshot::channel();
        place.send(Job {
            request,
            deadline: runtime.now() + self.caller.options.deadline,
            attempts: Attempts::new(crate::retry::Kind::Write),
            reply,
            _issued: issued,
        });
        Ok(PendingBatch(answer))
    }

    /// Waits until every batch that was given is answered.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the driver failed.
    pub async fn close(self) -> Result<(), ClientError> {
        drop(self.jobs);
        self.driver.await.map_err(|error| {
            tracing::error!(%error, "a record stream failed");
            ClientError::Closed
        })
    }
}

/// The answer to a batch, when it has come. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct PendingBatch(oneshot::Receiver<Outcome>);

impl Future for PendingBatch {
    type Output = Result<v1::RecordBatchResponse, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(ClientError::Closed)))
    }
}
