//! The task that owns the stream.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Outcome, Reason, Retry, v1};
use cluster::limits;
use runtime::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Job;
use crate::ClientError;
use crate::call::{Caller, Service, TRY_MIN};
use crate::client::{answers_all, unfinished};
use crate::retry::Step;

#[cfg(test)]
mod tests;

/// How long the oldest batch on a stream may go unanswered before the stream is taken for broken.
const STALL_MAX: Duration = limits::DEADLINE_MAX;

/// The first deadline where no job waits.
const NEVER: Instant = Instant::from_origin(Duration::MAX);

/// Invariants: `queue.len() + sent.len() <= window`, apart from the one job that is being answered; no job in them has a deadline before
/// `expires_at`.
#[derive(Debug)]
pub(super) struct Driver {
    caller: Arc<Caller>,
    jobs: mpsc::Receiver<Job>,
    window: usize,
    /// To be sent, in order.
    queue: VecDeque<Job>,
    /// Sent on the present stream, unanswered, in order; `None` in the place of a job that was given up since, as its answer may come.
    sent: VecDeque<Option<Job>>,
    /// No further jobs will come.
    closed: bool,
    /// Nothing is sent before.
    resume_at: Instant,
    /// When to look for jobs whose time is over: the first deadline of all that were looked at or came since. That job may be answered.
    expires_at: Instant,
    /// Why the last stream broke, until an answer comes.
    trouble: Option<ApiError>,
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
    Time,
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
            expires_at: NEVER,
            trouble: None,
        }
    }

    /// Runs until the jobs have ended and all are answered.
    pub(super) async fn run(mut self) {
        while self.has_work().await {
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

    /// Waits until there is something to send and the time for it has come. False when there will be nothing any more.
    async fn has_work(&mut self) -> bool {
        loop {
            self.expire();
            if self.queue.is_empty() {
                // No stream stands open while there is nothing to send.
                match self.jobs.recv().await {
                    Some(job) => self.accept(job),
                    None => return false,
                }
            } else if self.caller.runtime.now() >= self.resume_at {
                return true;
            } else {
                let wake_at = self.resume_at.min(self.expires_at);
                self.caller.runtime.sleep_until(wake_at).await;
            }
        }
    }

    /// Opens a stream. The queue goes ahead of the answer's headers, which a server may hold back until the first message.
    async fn open(&mut self, mut service: Service) -> Result<Open, ApiError> {
        let (requests, receiver) = mpsc::channel(self.window);
        self.flush(&requests)?;
        let runtime = self.caller.runtime.clone();
        let limit = self.caller.options.attempt_timeout;
        let opening = service.record_stream(ReceiverStream::new(receiver));
        let mut opening = pin!(runtime.timeout(limit, opening));
        let opened = loop {
            tokio::select! {
                biased;
                opened = &mut opening => break opened,
                () = runtime.sleep_until(self.expires_at) => self.expire(),
            }
            if !self.has_waiting() {
                let message = "the stream was not open in time for any batch";
                return Err(ApiError::deadline(message));
            }
        };
        let responses = opened
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
            self.expire();
            if self.caller.runtime.now() >= self.resume_at {
                if self.sent.is_empty() {
                    stalled_at = self.caller.runtime.now() + STALL_MAX;
                }
                self.flush(&open.requests)?;
            }
            if self.closed && !self.has_waiting() {
                return Ok(());
            }
            match self.next_event(&mut open, stalled_at).await {
                Event::Job(Some(job)) => self.accept(job),
                Event::Job(None) => self.closed = true,
                Event::Time => {
                    if !self.sent.is_empty() && self.caller.runtime.now() >= stalled_at {
                        return Err(ApiError::deadline("the stream gave no answer"));
                    }
                }
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
        let mut wake_at = self.expires_at;
        if !self.queue.is_empty() {
            wake_at = wake_at.min(self.resume_at);
        }
        if !self.sent.is_empty() {
            wake_at = wake_at.min(stalled_at);
        }
        tokio::select! {
            biased;
            answer = open.responses.message() => Event::Answer(answer),
            job = self.jobs.recv(), if has_room => Event::Job(job),
            () = runtime.sleep_until(wake_at), if wake_at < NEVER => Event::Time,
        }
    }

    fn accept(&mut self, job: Job) {
        self.expires_at = self.expires_at.min(job.deadline);
        self.queue.push_back(job);
    }

    /// Whether anybody waits for an answer.
    fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.sent.iter().any(Option::is_some)
    }

    /// Gives up the jobs whose time is over. What is on the stream may have been applied; what waits in the queue, by an earlier try only.
    fn expire(&mut self) {
        let now = self.caller.runtime.now();
        if now < self.expires_at {
            return;
        }
        let patience = self.caller.patience();
        let unanswered = self.late("the batch was not answered before its deadline");
        for place in &mut self.sent {
            if let Some(mut job) = place.take_if(|job| job.deadline <= now) {
                job.attempts.decide(&unanswered, &patience);
                give_up(job, unanswered.clone());
            }
        }
        let unsent = self
            .late("the deadline passed before the batch was sent")
            .with_outcome(Outcome::NotApplied);
        let (in_time, late): (VecDeque<Job>, VecDeque<Job>) =
            self.queue.drain(..).partition(|job| job.deadline > now);
        self.queue = in_time;
        for job in late {
            give_up(job, unsent.clone());
        }
        let waiting = self.sent.iter().flatten().chain(&self.queue);
        self.expires_at = waiting.map(|job| job.deadline).min().unwrap_or(NEVER);
    }

    fn late(&self, what: &str) -> ApiError {
        ApiError::deadline(match &self.trouble {
            Some(error) => format!("{what}; the stream had broken: {error}"),
            None => what.to_owned(),
        })
    }

    /// Sends the queue. The channel has room for the whole window, so it is full only if the stream has gone.
    fn flush(&mut self, requests: &mpsc::Sender<v1::RecordBatchRequest>) -> Result<(), ApiError> {
        while let Some(job) = self.queue.pop_front() {
            let sent = requests.try_send(job.request.clone());
            self.sent.push_back(Some(job));
            sent.map_err(|_| ApiError::new(Reason::Disconnected, "the stream has gone"))?;
        }
        Ok(())
    }

    /// The oldest batch got its answer.
    fn answered(&mut self, mut response: v1::RecordBatchResponse) {
        self.trouble = None;
        self.caller.session.see(response.token.as_ref());
        let Some(mut job) = self.sent.pop_front().flatten() else {
            return;
        };
        let Some(error) = unfinished(&response) else {
            let whole = answers_all(&response, job.request.items.len());
            job.attempts.cover(&mut response.results);
            reply(job, whole.map(|()| response));
            return;
        };
        let patience = self.caller.patience();
        let step = job
            .attempts
            .decide_in_part(&response.results, &error, &patience);
        match self.resumes(step, job.deadline) {
            Some(resume_at) => {
                self.resume_at = self.resume_at.max(resume_at);
                self.queue.push_back(job);
            }
            None => {
                job.attempts.cover(&mut response.results);
                reply(job, Ok(response));
            }
        }
    }

    /// The stream has gone. The oldest batch on it is the one to blame, also where it was given up before; the others were cut off.
    fn broken(&mut self, error: ApiError) {
        let mut places = std::mem::take(&mut self.sent);
        let blamed = places.pop_front().flatten();
        let mut unanswered: VecDeque<Job> = places.into_iter().flatten().collect();
        for job in &mut unanswered {
            job.attempts.may_have_applied();
        }
        // What is in the queue was not on the stream.
        unanswered.append(&mut self.queue);
        self.queue = unanswered;
        self.trouble = Some(error.clone());
        let Some(mut blamed) = blamed else {
            return;
        };
        let step = blamed.attempts.decide(&error, &self.caller.patience());
        match self.resumes(step, blamed.deadline) {
            Some(resume_at) => {
                self.resume_at = resume_at;
                self.queue.push_front(blamed);
            }
            None => give_up(blamed, error),
        }
    }

    /// When to send a job again; `None` when it is given up.
    fn resumes(&self, step: Step, deadline: Instant) -> Option<Instant> {
        match step {
            Step::GiveUp => None,
            Step::Retry(pause) => {
                let resume_at = self.caller.runtime.now() + self.caller.length(pause);
                (resume_at + TRY_MIN <= deadline).then_some(resume_at)
            }
        }
    }
}

fn give_up(job: Job, error: ApiError) {
    let failure = ClientError::Call {
        error: job.attempts.conclude(error),
        attempts: job.attempts.failed(),
    };
    reply(job, Err(failure));
}

/// Answers a job. Whoever dropped the pending batch does not want to know.
fn reply(job: Job, outcome: Result<v1::RecordBatchResponse, ClientError>) {
    let _ = job.reply.send(outcome);
}
