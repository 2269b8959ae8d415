//! Proposing commands. What was submitted goes on whatever becomes of the caller; an error says whether it may have been applied.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::oneshot;

use super::{Group, Inner};
use crate::raft::{Answer, Command, TypeConfig, term_of};
use crate::status::StopCause;
use crate::{Outcome, ProposeError, StateMachine, command, convert};

/// A command that was committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<R> {
    /// The index of its entry.
    pub index: u64,
    /// The Raft term of its entry.
    pub term: u64,
    /// What the state machine answered.
    pub response: R,
}

/// A command that was handed to Raft; await it for its outcome. Dropping it takes nothing back.
pub struct Pending<S: StateMachine> {
    answer: oneshot::Receiver<ClientWriteResult<TypeConfig>>,
    inner: Arc<Inner<S>>,
    response: PhantomData<fn() -> S::Response>,
}

impl<S: StateMachine> fmt::Debug for Pending<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pending")
            .field("group", &self.inner.shared.group)
            .finish_non_exhaustive()
    }
}

impl<S: StateMachine> Group<S> {
    /// Proposes a command and waits until it is applied here. Once it was submitted it goes on even if this future is
    /// dropped.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::outcome`] says whether it may have been applied.
    pub async fn propose(
        &self,
        kind: u16,
        command: Bytes,
    ) -> Result<Committed<S::Response>, ProposeError> {
        self.submit(kind, command).await?.await
    }

    /// Hands a command to Raft and returns as soon as it is in its queue. Commands submitted one after another are in the
    /// log in that order; any number may be pending, though only so many wait in the queue before this waits too.
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was submitted then.
    pub async fn submit(&self, kind: u16, command: Bytes) -> Result<Pending<S>, ProposeError> {
        let inner = &self.inner;
        inner.check_writable(command.len())?;
        let stamp_ms = inner.clock.next(inner.shared.progress.stamp_ms());
        let envelope = command::encode(kind, stamp_ms, &command);
        let (answer, receiver) = oneshot::channel();
        inner
            .raft
            .client_write_ff(Command(envelope), Some(Answer(answer)))
            .await
            .map_err(|fatal| {
                inner
                    .shared
                    .halt
                    .set(StopCause::Internal, &fatal.to_string());
                inner.stopped(Outcome::NotApplied)
            })?;
        Ok(Pending {
            answer: receiver,
            inner: Arc::clone(inner),
            response: PhantomData,
        })
    }
}

impl<S: StateMachine> Inner<S> {
    fn check_writable(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.shared.halt.is_set() {
            return Err(self.stopped(Outcome::NotApplied));
        }
        {
            let metrics = self.metrics.borrow_watched();
            if metrics.state != ServerState::Leader {
                let leader = self.leader_in(&metrics);
                return Err(ProposeError::NotLeader { leader });
            }
        }
        if bytes > self.command_bytes_max {
            return Err(ProposeError::TooLarge {
                bytes,
                limit: self.command_bytes_max,
            });
        }
        self.wal
            .admit(bytes as u64)
            .map_err(|_| ProposeError::DiskFull)
    }

    fn stopped(&self, outcome: Outcome) -> ProposeError {
        ProposeError::Stopped {
            reason: self.stop_reason(),
            outcome,
        }
    }

    fn refused(&self, error: ClientWriteError<TypeConfig>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader {
                leader: convert::peer(to.leader_id, to.leader_node.as_ref()),
            },
            ClientWriteError::LogEntryDiscarded(to) => ProposeError::LeadLost {
                leader: convert::peer(to.leader_id, to.leader_node.as_ref()),
            },
            // Neither is an answer to a command; whatever it means, the entry may exist.
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)) => ProposeError::Stopped {
                reason: error.to_string(),
                outcome: Outcome::Unknown,
            },
        }
    }
}

impl<S: StateMachine> Future for Pending<S> {
    type Output = Result<Committed<S::Response>, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(match answer {
            Ok(Ok(written)) => {
                let response = written.data.0.and_then(|reply| reply.downcast().ok());
                response
                    .map(|response| Committed {
                        index: written.log_id.index(),
                        term: term_of(&written.log_id),
                        response: *response,
                    })
                    // Every applied command leaves a response of this type; without one it was not applied here.
                    .ok_or_else(|| self.inner.stopped(Outcome::Unknown))
            }
            Ok(Err(error)) => Err(self.inner.refused(error)),
            Err(_) => Err(self.inner.stopped(Outcome::Unknown)),
        })
    }
}
