//! The task that owns the stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason, Retry, v1};
use cluster::limits;
use runtime::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Job;
use crate::ClientError;
use crate::call::{Caller, Service};
use crate::client::{answers_all, unfinished};
use crate::retry::Step;

/// How long the oldest batch on a stream may go unanswered before the stream is taken for broken.
const STALL_MAX: Duration = limits::DEADLINE_MAX;

/// Invariant: `queue.len() + sent.len() <= window`, apart from the one job that is being answered.
#[derive(Debug)]
pub(super) struct Driver {
    caller: Arc<Caller>,
    jobs: mpsc::Receiver<Job>,
    window: usize,
    /// To be sent, in order.
    queue: VecDeque<Job>,
    /// Sent on the present stream, unanswered, in order.
    sent: VecDeque<Job>,
    /// No further jobs will come.
    closed: bool,
    /// Nothing is sent before.
    resume_at: Instant,
}

/// The ends of an open stream.
struct Open {
    requests: mpsc::Sender<v1::RecordBatchRequest>,
    responses: Streaming<v1::RecordBatchResponse>,
}

/// What the driver waits for came.
enum Event {
    Job(Option<Job>),
    Answer(Result<Option<v1::RecordBatchResponse>, tonic::Status>),
    Resume,
    Stalled,
}

impl Driver {
    pub(super) fn new(caller: Arc<Caller>, jobs: mpsc::Receiver<Job>, window: usize) -> Self {
        let resume_at = caller.runtime.now();
        Self {
            caller,
            jobs,
            window,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            closed: false,
            resume_at,
        }
    }

    /// Runs until the jobs have ended and all are answered.
    pub(super) async fn run(mut self) {
        loop {
            if self.queue.is_empty() {
                // No stream stands open while there is nothing to send.
                match self.jobs.recv().await {
                    Some(job) => self.queue.push_back(job),
                    None => return,
                }
            }
            self.caller.runtime.sleep_until(self.resume_at).await;
            let Ok((coordinator, channel)) = self.caller.coordinators.preferred() else {
                return;
            };
            let result = match self.open(Service::new(channel)).await {
                Ok(open) => self.drive(open).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => return,
                Err(error) => {
                    if error.retry() != Retry::Never {
                        self.caller.coordinators.failed(coordinator);
                    }
                    self.broken(error);
                }
            }
        }
    }

    /// Opens a stream. The queue goes ahead of the answer's headers, which a server may hold back until the first message.
    async fn open(&mut self, mut service: Service) -> Result<Open, ApiError> {
        let (requests, receiver) = mpsc::channel(self.window);
        self.flush(&requests)?;
        let opening = service.record_stream(ReceiverStream::new(receiver));
        let responses = self
            .caller
            .runtime
            .timeout(self.caller.options.attempt_timeout, opening)
            .await
            .map_err(|elapsed| ApiError::deadline(format!("opening the stream: {elapsed}")))??;
        Ok(Open {
            requests,
            responses: responses.into_inner(),
        })
    }

    /// Moves jobs and answers until the stream breaks, or all is done.
    async fn drive(&mut self, mut open: Open) -> Result<(), ApiError> {
        let mut stalled_at = self.caller.runtime.now() + STALL_MAX;
        loop {
            if self.caller.runtime.now() >= self.resume_at {
                if self.sent.is_empty() {
                    stalled_at = self.caller.runtime.now() + STALL_MAX;
                }
                self.flush(&open.requests)?;
            }
            if self.closed && self.queue.is_empty() && self.sent.is_empty() {
                return Ok(());
            }
            match self.next_event(&mut open, stalled_at).await {
                Event::Job(Some(job)) => self.queue.push_back(job),
                Event::Job(None) => self.closed = true,
                Event::Resume => {}
                Event::Stalled => return Err(ApiError::deadline("the stream gave no answer")),
                Event::Answer(answer) => {
                    stalled_at = self.caller.runtime.now() + STALL_MAX;
                    let response = answer?.ok_or_else(|| {
                        ApiError::new(Reason::Disconnected, "the server ended the stream")
                    })?;
                    self.answered(response);
                }
            }
        }
    }

    async fn next_event(&mut self, open: &mut Open, stalled_at: Instant) -> Event {
        let runtime = &self.caller.runtime;
        let has_room = !self.closed && self.queue.len() + self.sent.len() < self.window;
        let is_paused = !self.queue.is_empty() && runtime.now() < self.resume_at;
        tokio::select! {
            biased;
            answer = open.responses.message() => Event::Answer(answer),
            job = self.jobs.recv(), if has_room => Event::Job(job),
            () = runtime.sleep_until(self.resume_at), if is_paused => Event::Resume,
            () = runtime.sleep_until(stalled_at), if !self.sent.is_empty() => Event::Stalled,
        }
    }

    /// Sends the queue. The channel has room for the whole window, so it is full only if the stream has gone.
    fn flush(&mut self, requests: &mpsc::Sender<v1::RecordBatchRequest>) -> Result<(), ApiError> {
        while let Some(job) = self.queue.pop_front() {
            let sent = requests.try_send(job.request.clone());
            self.sent.push_back(job);
            sent.map_err(|_| ApiError::new(Reason::Disconnected, "the stream has gone"))?;
        }
        Ok(())
    }

    /// The oldest batch got its answer.
    fn answered(&mut self, response: v1::RecordBatchResponse) {
        let Some(mut job) = self.sent.pop_front() else {
            return;
        };
        self.caller.session.see(response.token.as_ref());
        let Some(error) = unfinished(&response) else {
            let whole = answers_all(&response, job.request.items.len());
            reply(job, whole.map(|()| response));
            return;
        };
        job.attempts.may_have_applied();
        match self.step(&mut job, &error) {
            Some(resume_at) => {
                self.resume_at = self.resume_at.max(resume_at);
                self.queue.push_back(job);
            }
            None => reply(job, Ok(response)),
        }
    }

    /// The stream has gone. Its oldest batch is the one to blame; the others were cut off.
    fn broken(&mut self, error: ApiError) {
        let mut unanswered: VecDeque<Job> =
            self.sent.drain(..).chain(self.queue.drain(..)).collect();
        let Some(mut blamed) = unanswered.pop_front() else {
            return;
        };
        for job in &mut unanswered {
            job.attempts.may_have_applied();
        }
        self.queue = unanswered;
        match self.step(&mut blamed, &error) {
            Some(resume_at) => {
                self.resume_at = resume_at;
                self.queue.push_front(blamed);
            }
            None => {
                let failure = ClientError::Call {
                    error: blamed.attempts.conclude(error),
                    attempts: blamed.attempts.failed(),
                };
                reply(blamed, Err(failure));
            }
        }
    }

    /// When to send a job again; `None` when it is given up.
    fn step(&self, job: &mut Job, error: &ApiError) -> Option<Instant> {
        match job.attempts.decide(error, &self.caller.patience()) {
            Step::GiveUp => None,
            Step::Retry(pause) => {
                let resume_at = self.caller.runtime.now() + self.caller.length(pause);
                (resume_at < job.deadline).then_some(resume_at)
            }
        }
    }
}

/// Answers a job. Whoever dropped the pending batch does not want to know.
fn reply(job: Job, outcome: Result<v1::RecordBatchResponse, ClientError>) {
    let _ = job.reply.send(outcome);
}
