//! A typing session over one stream.

use std::pin::pin;
use std::sync::Arc;

use api::{ApiError, Reason, Retry, v1};
use futures::future::{Either, ready, select};
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
        request: v1::GetTopKRequest,
    ) -> Result<v1::GetTopKResponse, ClientError> {
        let mut answers = self.ask_all(vec![request]).await?;
        answers.pop().ok_or_else(|| ClientError::Call {
            error: ended(),
            attempts: 1,
        })
    }

    /// Sends all requests at once, and waits for all answers, which come in the order of the requests. For many small questions this
    /// is several times the rate of one after the other. The deadline is that of all together.
    ///
    /// # Errors
    /// When one of them was not answered by any try. The session can be used on.
    pub async fn ask_all(
        &mut self,
        mut requests: Vec<v1::GetTopKRequest>,
    ) -> Result<Vec<v1::GetTopKResponse>, ClientError> {
        for request in &mut requests {
            if request.token.is_none() {
                request.token = self.caller.session.token();
            }
        }
        let deadline = self.caller.runtime.now() + self.caller.options.deadline;
        let mut attempts = Attempts::new(Kind::Read);
        let mut answers = Vec::with_capacity(requests.len());
        while let Some(open @ [_, ..]) = requests.get(answers.len()..) {
            let Err(error) = self.attempt(open, &mut answers, deadline).await? else {
                break;
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
        for answer in &answers {
            self.caller.session.see(answer.token.as_ref());
        }
        Ok(answers)
    }

    /// One try; what it is answered is kept if it fails behind that. The stream is kept only when all answers to these very requests have
    /// come.
    async fn attempt(
        &mut self,
        wanted: &[v1::GetTopKRequest],
        answers: &mut Vec<v1::GetTopKResponse>,
        deadline: Instant,
    ) -> Result<Result<(), ApiError>, ClientError> {
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
            let (requests, opened) = match (open, channel) {
                (Some(open), _) => (open.requests, Either::Left(ready(Ok(open.responses)))),
                (None, Some(channel)) => {
                    let (requests, receiver) = mpsc::channel(WAITING);
                    let opened = async move {
                        let stream = ReceiverStream::new(receiver);
                        let response = Service::new(channel).top_k_stream(stream).await?;
                        Ok::<_, ApiError>(response.into_inner())
                    };
                    (requests, Either::Right(opened))
                }
                (None, None) => return Err(ended()),
            };
            let send = async {
                for request in wanted {
                    // That the stream has ended, and why, is said where its answers are read.
                    let _ = requests.send(request.clone()).await;
                }
            };
            let receive = async {
                let mut responses = opened.await?;
                for _ in wanted {
                    answers.push(responses.message().await?.ok_or_else(ended)?);
                }
                Ok::<_, ApiError>(responses)
            };
            let responses = match select(pin!(receive), pin!(send)).await {
                Either::Left((received, _)) => received,
                Either::Right(((), receive)) => receive.await,
            };
            Ok(Open {
                coordinator,
                requests,
                responses: responses?,
            })
        };
        let result = match runtime.timeout(limit, exchange).await {
            Ok(result) => result,
            Err(elapsed) => Err(ApiError::deadline(elapsed.to_string())),
        };
        Ok(match result {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
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

/// Requests that wait to be sent. As many as a server works on at once.
const WAITING: usize = 32;

fn ended() -> ApiError {
    ApiError::new(Reason::Disconnected, "the stream ended before the answer")
}
