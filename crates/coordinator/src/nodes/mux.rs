//! Many requests over one long-lived stream.
//!
//! A session is one stream; requests are numbered in the order in which they are queued, answers carry the number of their
//! request and may overtake each other. When a stream breaks, everything that waits on it fails at once, and the next request
//! opens a new one.
//!
//! What always holds: a request that fails before its stream took it out of the queue is reported as not applied, and is never
//! sent; one that was taken may have been applied. The queue and the number of waiting requests are bounded by the same number, and a full one refuses.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use api::{ApiError, Outcome, Reason};
use futures::Stream;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::silence::Silence;

/// When a full queue is worth another try.
const QUEUE_RETRY: Duration = Duration::from_millis(50);

/// A call of the shard service that is served as a stream.
pub(crate) trait Protocol: Debug + Send + Sync + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Writes the number of a request into it.
    fn number(request: &mut Self::Request, correlation: u64);
    /// The number of the request that this answers.
    fn correlation(response: &Self::Response) -> u64;
    /// Opens a stream.
    fn open(
        channel: Channel,
        requests: Requests<Self>,
    ) -> BoxFuture<'static, Result<Streaming<Self::Response>, Status>>
    where
        Self: Sized;
}

/// The requests of a session as the transport takes them.
pub(crate) struct Requests<P: Protocol> {
    queue: mpsc::Receiver<(u64, P::Request)>,
    session: Arc<Session<P>>,
}

impl<P: Protocol> Debug for Requests<P> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl<P: Protocol> Stream for Requests<P> {
    type Item = P::Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<P::Request>> {
        while let Some((number, request)) = ready!(self.queue.poll_recv(context)) {
            let waiting = self.session.waiting.lock();
            // Whoever gave up was told that nothing happened.
            if waiting.answers.contains_key(&number) {
                let taken_below = &self.session.taken_below;
                taken_below.store(number + 1, Ordering::Release);
                return Poll::Ready(Some(request));
            }
        }
        Poll::Ready(None)
    }
}

type Answer<P> = Result<<P as Protocol>::Response, ApiError>;

/// One stream.
struct Session<P: Protocol> {
    silence: Arc<Silence>,
    /// Requests below this number were handed to the transport, unless nobody waited for them any more. Raised under the lock.
    taken_below: AtomicU64,
    /// Callers hold it to enter or leave, the transport to take a request, the reader to answer.
    waiting: Mutex<Waiting<P>>,
}

struct Waiting<P: Protocol> {
    next: u64,
    /// `None` once the session is closed, which also ends the stream of requests.
    queue: Option<mpsc::Sender<(u64, P::Request)>>,
    answers: HashMap<u64, oneshot::Sender<Answer<P>>>,
}

/// A stream to one node that is opened when it is needed.
pub(crate) struct Lane<P: Protocol> {
    runtime: Runtime,
    channel: Channel,
    queue_max: usize,
    /// Of the connection that this goes over.
    silence: Arc<Silence>,
    /// The stream in use. Held while a caller enters, never across an await.
    session: Mutex<Option<Arc<Session<P>>>>,
}

impl<P: Protocol> Debug for Lane<P> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lane").finish_non_exhaustive()
    }
}

impl<P: Protocol> Lane<P> {
    pub(crate) fn new(
        runtime: &Runtime,
        channel: &Channel,
        queue_max: usize,
        silence: &Arc<Silence>,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            channel: channel.clone(),
            queue_max,
            silence: Arc::clone(silence),
            session: Mutex::new(None),
        }
    }

    /// Sends a request and waits for its answer, at most for `limit`.
    pub(crate) async fn call(&self, request: P::Request, limit: Duration) -> Answer<P> {
        let (session, number, answer) = self.enter(request)?;
        self.silence.asked(self.runtime.now());
        let leave = Leave {
            session: &session,
            number,
        };
        let answered = self.runtime.timeout(limit, answer).await;
        let was_taken = leave.now();
        match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(_closed)) => Err(lost(was_taken, "the stream was closed")),
            Err(elapsed) => {
                let message = format!("no answer from the shard within {:?}", elapsed.limit);
                let error = ApiError::deadline(message);
                Err(error.with_outcome(outcome(was_taken)))
            }
        }
    }

    /// Queues a request on the stream in use, or on a new one.
    #[expect(
        clippy::type_complexity,
        reason = "the three things a caller waits with"
    )]
    fn enter(
        &self,
        mut request: P::Request,
    ) -> Result<(Arc<Session<P>>, u64, oneshot::Receiver<Answer<P>>), ApiError> {
        let mut slot = self.session.lock();
        let session = match slot.as_ref().filter(|session| session.is_open()) {
            Some(session) => Arc::clone(session),
            None => {
                let session = self.open();
                *slot = Some(Arc::clone(&session));
                session
            }
        };
        drop(slot);
        let (sender, answer) = oneshot::channel();
        let mut waiting = session.waiting.lock();
        let number = waiting.next;
        P::number(&mut request, number);
        let Some(queue) = &waiting.queue else {
            return Err(lost(false, "the stream was closed"));
        };
        if waiting.answers.len() >= self.queue_max {
            return Err(self.full());
        }
        match queue.try_send((number, request)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(self.full()),
            Err(TrySendError::Closed(_)) => return Err(lost(false, "the stream was closed")),
        }
        waiting.next += 1;
        waiting.answers.insert(number, sender);
        drop(waiting);
        Ok((session, number, answer))
    }

    fn full(&self) -> ApiError {
        let message = format!("{} requests to one node are waiting", self.queue_max);
        ApiError::overloaded(message, QUEUE_RETRY).with_outcome(Outcome::NotApplied)
    }

    fn open(&self) -> Arc<Session<P>> {
        let (sender, receiver) = mpsc::channel(self.queue_max);
        let session = Arc::new(Session {
            silence: Arc::clone(&self.silence),
            taken_below: AtomicU64::new(0),
            waiting: Mutex::new(Waiting {
                next: 0,
                queue: Some(sender),
                answers: HashMap::new(),
            }),
        });
        let requests = Requests {
            queue: receiver,
            session: Arc::clone(&session),
        };
        let (reader, left) = (Arc::clone(&session), Arc::clone(&session));
        let opening = P::open(self.channel.clone(), requests);
        let read = async move {
            let end = match opening.await {
                Ok(answers) => reader.read(answers).await,
                Err(status) => status,
            };
            reader.close(&end);
        };
        self.runtime
            .spawn_guarded("node-stream", read, move |end| async move {
                // After a panic nobody else would answer those who wait.
                if let Err(failed) = end {
                    left.close(&Status::unavailable(failed.to_string()));
                }
            });
        session
    }
}

impl<P: Protocol> Drop for Lane<P> {
    fn drop(&mut self) {
        // Ends the stream of requests; the reader of answers ends when the peer has seen that.
        if let Some(session) = self.session.get_mut().take() {
            session.close(&Status::unavailable("the connection is no longer used"));
        }
    }
}

impl<P: Protocol> Session<P> {
    /// Whether requests can still be sent. The transport lets go of the queue when a connection breaks, which is before the
    /// reader of answers is told.
    fn is_open(&self) -> bool {
        let waiting = self.waiting.lock();
        let queue = waiting.queue.as_ref();
        queue.is_some_and(|queue| !queue.is_closed())
    }

    fn was_taken(&self, number: u64) -> bool {
        number < self.taken_below.load(Ordering::Acquire)
    }

    async fn read(&self, mut answers: Streaming<P::Response>) -> Status {
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    self.silence.heard();
                    let number = P::correlation(&answer);
                    let caller = self.waiting.lock().answers.remove(&number);
                    if let Some(caller) = caller {
                        // A caller that has gone away does not want it.
                        let _ = caller.send(Ok(answer));
                    }
                }
                Ok(None) => return Status::unavailable("the node ended the stream"),
                Err(status) => return status,
            }
        }
    }

    /// Fails everybody who waits. Nobody enters any more.
    fn close(&self, status: &Status) {
        self.silence.heard();
        let mut waiting = self.waiting.lock();
        waiting.queue = None;
        let answers = std::mem::take(&mut waiting.answers);
        drop(waiting);
        for (number, caller) in answers {
            let error = ApiError::from_status(status);
            let error = match error.outcome() {
                Some(_) => error,
                None => error.with_outcome(outcome(self.was_taken(number))),
            };
            let _ = caller.send(Err(error));
        }
    }
}

/// Takes a caller off the list when it stops waiting, for whatever cause.
struct Leave<'a, P: Protocol> {
    session: &'a Session<P>,
    number: u64,
}

impl<P: Protocol> Leave<'_, P> {
    /// Leaves, and says whether the request was taken before. If not, it never will be.
    fn now(self) -> bool {
        let mut waiting = self.session.waiting.lock();
        waiting.answers.remove(&self.number);
        let was_taken = self.session.was_taken(self.number);
        drop(waiting);
        was_taken
    }
}

impl<P: Protocol> Drop for Leave<'_, P> {
    fn drop(&mut self) {
        self.session.waiting.lock().answers.remove(&self.number);
    }
}

fn outcome(was_taken: bool) -> Outcome {
    if was_taken {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    }
}

fn lost(was_taken: bool, message: &str) -> ApiError {
    ApiError::new(Reason::Disconnected, message).with_outcome(outcome(was_taken))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    /// Hands the requests of each stream to the test, and answers nothing.
    #[derive(Debug)]
    struct Silent;

    type Taken = mpsc::UnboundedSender<Requests<Silent>>;

    #[derive(Debug)]
    struct Request {
        name: &'static str,
        to: Taken,
    }

    impl Protocol for Silent {
        type Request = Request;
        type Response = ();

        fn number(_request: &mut Request, _correlation: u64) {}

        fn correlation(_response: &()) -> u64 {
            0
        }

        fn open(
            _channel: Channel,
            requests: Requests<Self>,
        ) -> BoxFuture<'static, Result<Streaming<()>, Status>> {
            // The transport is as slow as the peer that it waits for.
            Box::pin(async move {
                let mut requests = requests;
                let runtime = Runtime::real();
                runtime.sleep(Duration::from_secs(1)).await;
                let first = requests.next().await;
                if let Some(first) = first {
                    let _ = first.to.send(requests);
                    assert_eq!(first.name, "patient");
                }
                std::future::pending().await
            })
        }
    }

    fn lane(channel: &Channel) -> Lane<Silent> {
        Lane::new(&Runtime::real(), channel, 8, &Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_the_transport_let_go_is_not_a_full_one() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let lane = lane(&channel);
        let (to, mut taken) = mpsc::unbounded_channel();
        for _stream in 0..2 {
            let request = Request {
                name: "patient",
                to: to.clone(),
            };
            let error = lane.call(request, Duration::from_secs(2)).await;
            assert_eq!(error.unwrap_err().reason(), Reason::Deadline);
            let requests = taken.try_recv();
            drop(requests.expect("the transport took it from a stream of its own"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_before_it_was_taken_is_never_sent() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let lane = lane(&channel);
        let (to, mut taken) = mpsc::unbounded_channel();
        let request = |name| Request {
            name,
            to: to.clone(),
        };
        let early = lane.call(request("hasty"), Duration::from_millis(500));
        let late = lane.call(request("patient"), Duration::from_secs(2));
        let (early, late) = tokio::join!(early, late);
        assert_eq!(early.unwrap_err().outcome(), Some(Outcome::NotApplied));
        assert_eq!(late.unwrap_err().outcome(), Some(Outcome::Unknown));
        assert!(taken.try_recv().is_ok(), "the patient one was sent");
    }
}
