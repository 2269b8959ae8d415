//! A typing session over one stream.

use std::sync::Arc;

use api::{ApiError, Reason, Retry, v1};
use runtime::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::ClientError;
use crate::call::{Caller, Service};
use crate::retry::{Attempts, Kind, Step};

/// One stream of prefixes and their answers, opened by the first question and again after it broke.
#[derive(Debug)]
pub struct TypingSession {
    caller: Arc<Caller>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    coordinator: usize,
    requests: mpsc::Sender<v1::GetTopKRequest>,
    responses: Streaming<v1::GetTopKResponse>,
}

impl TypingSession {
    pub(crate) fn new(caller: Arc<Caller>) -> Self {
        Self { caller, open: None }
    }

    /// Asks and waits for the answer. Dropping the future ends the stream, so that a late answer is never taken for the next one.
    ///
    /// # Errors
    /// When no try was answered. The session can be used on.
    pub async fn ask(
        &mut self,
        mut request: v1::GetTopKRequest,
    ) -> Result<v1::GetTopKResponse, ClientError> {
        if request.token.is_none() {
            request.token = self.caller.session.token();
        }
        let deadline = self.caller.runtime.now() + self.caller.options.deadline;
        let mut attempts = Attempts::new(Kind::Read);
        loop {
            let error = match self.attempt(&request, deadline).await? {
                Ok(response) => {
                    self.caller.session.see(response.token.as_ref());
                    return Ok(response);
                }
                Err(error) => error,
            };
            let go_on = match attempts.decide(&error, &self.caller.patience()) {
                Step::GiveUp => false,
                Step::Retry(pause) => self.caller.pause(pause, deadline).await,
            };
            if !go_on {
                return Err(ClientError::Call {
                    error: attempts.conclude(error),
                    attempts: attempts.failed(),
                });
            }
        }
    }

    /// One try. The stream is kept only when the answer to this very request has come.
    async fn attempt(
        &mut self,
        request: &v1::GetTopKRequest,
        deadline: Instant,
    ) -> Result<Result<v1::GetTopKResponse, ApiError>, ClientError> {
        let runtime = &self.caller.runtime;
        let limit = deadline
            .saturating_since(runtime.now())
            .min(self.caller.options.attempt_timeout);
        let (coordinator, channel) = match &self.open {
            Some(open) => (open.coordinator, None),
            None => self
                .caller
                .coordinators
                .preferred()
                .map(|(index, channel)| (index, Some(channel)))?,
        };
        let open = self.open.take();
        let exchange = async {
            let mut open = match (open, channel) {
                (Some(open), _) => {
                    let sent = open.requests.send(request.clone()).await;
                    sent.map_err(|_| ended())?;
                    open
                }
                (None, Some(channel)) => {
                    let (requests, receiver) = mpsc::channel(1);
                    requests.send(request.clone()).await.map_err(|_| ended())?;
                    let stream = ReceiverStream::new(receiver);
                    let responses = Service::new(channel).top_k_stream(stream).await?;
                    Open {
                        coordinator,
                        requests,
                        responses: responses.into_inner(),
                    }
                }
                (None, None) => return Err(ended()),
            };
            let response = open.responses.message().await?.ok_or_else(ended)?;
            Ok((open, response))
        };
        let result = match runtime.timeout(limit, exchange).await {
            Ok(result) => result,
            Err(elapsed) => Err(ApiError::deadline(elapsed.to_string())),
        };
        Ok(match result {
            Ok((open, response)) => {
                self.open = Some(open);
                Ok(response)
            }
            Err(error) => {
                if error.retry() != Retry::Never {
                    self.caller.coordinators.failed(coordinator);
                }
                Err(error)
            }
        })
    }
}

fn ended() -> ApiError {
    ApiError::new(Reason::Disconnected, "the stream ended before the answer")
}
