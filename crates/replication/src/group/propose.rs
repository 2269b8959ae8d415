//! Proposing commands. What was submitted goes on whatever becomes of the caller; an error says whether it may have been applied.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::raft::ClientWriteResult;
use tokio::sync::oneshot;

use super::{Group, Inner};
use crate::raft::{Answer, Command, TypeConfig, term_of};
use crate::status::{Halt, StopCause};
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

/// What became of a command.
pub type Proposed<R> = Result<Committed<R>, ProposeError>;

/// Is told what became of a command, by the task that applies or whoever else learns it: it must neither block nor panic.
pub type Done<R> = Box<dyn FnOnce(Proposed<R>) + Send>;

/// A command that was handed to Raft; await it for its outcome. Dropping it takes nothing back.
pub struct Pending<R> {
    answer: oneshot::Receiver<Proposed<R>>,
    halt: Arc<Halt>,
}

impl<R> fmt::Debug for Pending<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<S: StateMachine> Group<S> {
    /// Proposes a command and waits until it is applied here. Once it was submitted it goes on even if this future is
    /// dropped.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::outcome`] says whether it may have been applied.
    pub async fn propose(&self, kind: u16, command: Bytes) -> Proposed<S::Response> {
        self.submit(kind, command).await?.await
    }

    /// Hands a command to Raft and returns as soon as it is in its queue. Commands submitted one after another are in the
    /// log in that order; any number may be pending, though only so many wait in the queue before this waits too.
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was submitted then.
    pub async fn submit(
        &self,
        kind: u16,
        command: Bytes,
    ) -> Result<Pending<S::Response>, ProposeError> {
        self.inner.check_writable(command.len())?;
        let (done, answer) = oneshot::channel();
        // The proposer may have gone away; the entry was applied all the same.
        let done = move |proposed| drop(done.send(proposed));
        self.inner.hand_over(kind, &command, Box::new(done)).await;
        Ok(Pending {
            answer,
            halt: Arc::clone(&self.inner.shared.halt),
        })
    }

    /// As [`Group::submit`], and calls `done` with what became of the command, a refusal included, once and whatever happens. Nobody is
    /// woken in between.
    pub async fn submit_then(&self, kind: u16, command: Bytes, done: Done<S::Response>) {
        match self.inner.check_writable(command.len()) {
            Ok(()) => self.inner.hand_over(kind, &command, done).await,
            Err(error) => done(Err(error)),
        }
    }
}

impl<S: StateMachine> Inner<S> {
    async fn hand_over(&self, kind: u16, command: &[u8], done: Done<S::Response>) {
        let stamp_ms = self.stamps.next(self.shared.progress.stamp_ms());
        let envelope = command::encode(kind, stamp_ms, command);
        let waiting = Waiting {
            halt: Arc::clone(&self.shared.halt),
            done: Some(done),
        };
        let answer = Answer(Box::new(move |written| waiting.settle(written)));
        let handed_over = self.raft.client_write_ff(Command(envelope), Some(answer));
        if let Err(fatal) = handed_over.await {
            // Whoever waits was told when the answer was dropped.
            let halt = &self.shared.halt;
            halt.set(StopCause::Internal, &fatal.to_string());
        }
    }

    fn check_writable(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.shared.halt.is_set() {
            return Err(stopped(&self.shared.halt, Outcome::NotApplied));
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
}

fn stopped(halt: &Halt, outcome: Outcome) -> ProposeError {
    ProposeError::Stopped {
        reason: halt.why(),
        outcome,
    }
}

fn refused(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => match to.reason {
            ForwardReason::LeaseExpired => ProposeError::LeaseExpired,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                ProposeError::NotLeader {
                    leader: convert::peer(to.leader_id, to.leader_node.as_ref()),
                }
            }
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

impl<R> Future for Pending<R> {
    type Output = Proposed<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(stopped(&self.halt, Outcome::Unknown))))
    }
}

/// Whoever is to be told of a command. Dropped untold, for Raft has ended, it says that nobody knows.
struct Waiting<R> {
    halt: Arc<Halt>,
    done: Option<Done<R>>,
}

impl<R: 'static> Waiting<R> {
    fn settle(mut self, written: ClientWriteResult<TypeConfig>) {
        let proposed = match written {
            Ok(written) => {
                let response = written.data.0.and_then(|reply| reply.downcast().ok());
                response
                    .map(|response| Committed {
                        index: written.log_id.index(),
                        term: term_of(&written.log_id),
                        response: *response,
                    })
                    // Every applied command leaves a response of this type; without one it was not applied here.
                    .ok_or_else(|| stopped(&self.halt, Outcome::Unknown))
            }
            Err(error) => Err(refused(error)),
        };
        if let Some(done) = self.done.take() {
            done(proposed);
        }
    }
}

impl<R> Drop for Waiting<R> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(stopped(&self.halt, Outcome::Unknown)));
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::errors::ForwardToLeader;

    use super::*;

    #[test]
    fn a_leader_without_a_lease_is_not_said_not_to_lead() {
        let said = |reason| {
            let to = ForwardToLeader::<TypeConfig>::empty().with_reason(reason);
            refused(ClientWriteError::ForwardToLeader(to))
        };
        let expired = said(ForwardReason::LeaseExpired);
        assert_eq!(expired, ProposeError::LeaseExpired);
        assert_eq!(expired.outcome(), Outcome::NotApplied);
        let elsewhere = ProposeError::NotLeader { leader: None };
        assert_eq!(said(ForwardReason::NotLeader), elsewhere);
        assert_eq!(said(ForwardReason::LeadershipTransfer), elsewhere);
    }
}
