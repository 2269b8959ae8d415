//! How a change of the metadata gets to the coordinator that leads, and its answer back.
//!
//! What always holds:
//! - A change is passed on once, straight to the leader, who never passes it on: there are no circles.
//! - The answer is handed out only when the change is applied here too, so that whoever asked sees it in what it reads next.
//! - A change that may have been made is proposed again only when making it twice is making it once; an error
//!   says whether any try may have made it.

use std::time::Duration;

use api::meta::v1::ProposeRequest;
use api::{ApiError, Outcome, Reason};
use bytes::Bytes;
use cluster::NodeId;
use replication::{Committed, ProposeError, ReadError};
use runtime::{Instant, Runtime};

use super::Meta;
use crate::arrival::Client;
use crate::metadata::{Command, Refusal, Response};

/// How long a change may look for a leader. An election takes less, and a caller's deadline is longer.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long one try at another coordinator may take.
const FORWARD_PATIENCE: Duration = Duration::from_secs(1);
/// How long a majority may take to store what was proposed here.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
pub(super) const PAUSE: Duration = Duration::from_millis(25);

impl Meta {
    /// Proposes a change and waits until it is applied here. A refusal by the rules is an error.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Response, ApiError> {
        let (kind, bytes) = (command.kind(), Bytes::from(command.encode()));
        let once = |until| self.propose_once(kind, bytes.clone(), until);
        patiently(&self.runtime, command, once).await
    }

    async fn propose_once(
        &self,
        kind: u16,
        command: Bytes,
        until: Instant,
    ) -> Result<Response, ApiError> {
        match self.leader() {
            Some((leader, address)) => self.forward(leader, &address, kind, command, until).await,
            None => Ok(self.propose_here(kind, command).await?.response),
        }
    }

    /// Another coordinator that leads as far as is known here, and where it is. `None` where this one leads, or nobody.
    pub(super) fn leader(&self) -> Option<(NodeId, String)> {
        let leader = self.group.status().leader?;
        if leader.node == self.id {
            return None;
        }
        // The configuration knows best where it is now.
        let configured = self.arrival.address(leader.node).cloned();
        Some((leader.node, configured.unwrap_or(leader.address)))
    }

    /// Proposes at this replica, if it leads a majority.
    pub(super) async fn propose_here(
        &self,
        kind: u16,
        command: Bytes,
    ) -> Result<Committed<Response>, ApiError> {
        self.group.lease_check().map_err(|error| unready(&error))?;
        let proposal = self.group.propose(kind, command);
        match self.runtime.timeout(STORE_PATIENCE, proposal).await {
            Ok(committed) => committed.map_err(|error| unproposed(&error)),
            Err(_) => Err(
                no_quorum("no majority of the coordinators stored the change in time")
                    .with_outcome(Outcome::Unknown),
            ),
        }
    }

    async fn forward(
        &self,
        leader: NodeId,
        address: &str,
        kind: u16,
        command: Bytes,
        until: Instant,
    ) -> Result<Response, ApiError> {
        let left = until.saturating_since(self.runtime.now());
        let patience = left.min(FORWARD_PATIENCE);
        let message = ProposeRequest {
            cluster_id: self.cluster.0.to_vec().into(),
            to_coordinator_id: leader.0,
            kind: u32::from(kind),
            command,
        };
        let propose = |mut peer: Client, request| async move { peer.propose(request).await };
        let arrival = &self.arrival;
        let answer = arrival.call(address, patience, message, propose).await?;
        let index = answer.index;
        let here = || {
            ApiError::new(
                Reason::Deadline,
                "the change was made, and is not known here yet",
            )
            .with_outcome(Outcome::Unknown)
        };
        let applied = self.group.wait_applied(index, FORWARD_PATIENCE).await;
        applied.map_err(|_| here())?;
        self.group.machine().answer(index).ok_or_else(here)
    }
}

/// Tries to make a change until that has come to something. `once` is told how long it may try.
async fn patiently<F>(
    runtime: &Runtime,
    command: &Command,
    once: impl Fn(Instant) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Response, ApiError>>,
{
    let until = runtime.now() + PATIENCE;
    let mut maybe_applied = false;
    loop {
        let error = match once(until).await {
            Ok(response) => return accepted(response),
            Err(error) => error.for_write(),
        };
        let unknown = error.outcome() == Some(Outcome::Unknown);
        maybe_applied |= unknown;
        let may_repeat = is_passing(&error) && (!unknown || command.is_idempotent());
        if !may_repeat || runtime.now() + PAUSE >= until {
            return Err(concluded(error, maybe_applied));
        }
        runtime.sleep(PAUSE).await;
    }
}

/// What a response means to whoever proposed.
fn accepted(response: Response) -> Result<Response, ApiError> {
    match &response {
        Response::Refused(refusal) => Err(refused(refusal)),
        Response::Done
        | Response::Node { .. }
        | Response::Namespace
        | Response::Generation { .. }
        | Response::Incarnation { .. }
        | Response::Turn(_) => Ok(response),
    }
}

/// Whether a failure is one of the moment.
fn is_passing(error: &ApiError) -> bool {
    matches!(
        error.reason(),
        Reason::NotLeader
            | Reason::NoQuorum
            | Reason::Starting
            | Reason::Stopped
            | Reason::Disconnected
            | Reason::WrongNode
            | Reason::Deadline
    )
}

/// The error of all tries together. Who leads the metadata is nothing to callers.
pub(super) fn concluded(error: ApiError, maybe_applied: bool) -> ApiError {
    let leaderless = matches!(
        error.reason(),
        Reason::NotLeader | Reason::WrongNode | Reason::Disconnected | Reason::Deadline
    );
    let error = if leaderless {
        no_quorum(&format!(
            "no leader of the metadata is there: {}",
            error.message()
        ))
    } else {
        error
    };
    error.with_outcome(if maybe_applied {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    })
}

fn no_quorum(message: &str) -> ApiError {
    ApiError::new(Reason::NoQuorum, message)
}

/// Why nothing was proposed at this replica.
pub(super) fn unready(error: &ReadError) -> ApiError {
    let api = match error {
        ReadError::NotLeader { leader } => {
            ApiError::not_leader(leader.as_ref().map(|peer| peer.node))
        }
        ReadError::LeaseExpired | ReadError::NoQuorum => {
            no_quorum("the coordinators have no majority")
        }
        ReadError::NotReady | ReadError::Timeout { .. } => {
            ApiError::new(Reason::Starting, format!("the metadata: {error}"))
        }
        ReadError::Stopped { .. } => {
            ApiError::new(Reason::Stopped, format!("the metadata: {error}"))
        }
    };
    api.with_outcome(Outcome::NotApplied)
}

fn unproposed(error: &ProposeError) -> ApiError {
    let outcome = match error.outcome() {
        replication::Outcome::NotApplied => Outcome::NotApplied,
        replication::Outcome::Unknown => Outcome::Unknown,
    };
    let reason = match error {
        ProposeError::NotLeader { .. } => Reason::NotLeader,
        ProposeError::DiskFull => Reason::DiskFull,
        ProposeError::TooLarge { .. } => Reason::MessageTooLarge,
        ProposeError::LeaseExpired | ProposeError::LeadLost { .. } => Reason::NoQuorum,
        ProposeError::Stopped { .. } => Reason::Stopped,
    };
    ApiError::new(reason, format!("the metadata: {error}")).with_outcome(outcome)
}

fn refused(refusal: &Refusal) -> ApiError {
    let reason = match refusal {
        Refusal::NotInitialised => Reason::Starting,
        Refusal::Initialised { .. } => Reason::AlreadyExists,
        Refusal::UnknownNode { .. } => Reason::NotFound,
        Refusal::NodeLost { .. } => Reason::NodeLost,
        Refusal::TooManyNodes => Reason::Overloaded,
        Refusal::UnknownShard { .. } => Reason::UnknownShard,
        Refusal::StaleIncarnation { .. } => Reason::StaleIncarnation,
        // Another change came first: look again.
        Refusal::StaleMembers { .. } => Reason::Aborted,
        Refusal::BadMembers { .. } | Refusal::NotYourTurn => Reason::NotNeeded,
        Refusal::ForeignSeed => Reason::UnknownSnapshot,
        Refusal::TooManyNamespaces => Reason::TooManyNamespaces,
        Refusal::BadNamespace => Reason::BadNamespace,
        Refusal::SessionExpired => Reason::SessionExpired,
        Refusal::RequestIdReused => Reason::RequestIdReused,
        Refusal::IssuedAhead => Reason::BadRequestId,
    };
    // Whether an expired call was applied long ago, nobody can tell.
    let outcome = if *refusal == Refusal::SessionExpired {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    };
    ApiError::new(reason, refusal.to_string()).with_outcome(outcome)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use cluster::Generation;
    use repeat_table::{ClientId, RequestId};

    use super::*;

    type Try = Result<Response, ApiError>;

    /// What comes of a change whose tries end like these, and how many of them are left.
    async fn tried(command: &Command, tries: Vec<Try>) -> (Try, usize) {
        let tries = RefCell::new(tries.into_iter());
        let once = |_: Instant| ready(tries.borrow_mut().next().unwrap());
        let ended = patiently(&Runtime::real(), command, once).await;
        (ended, tries.into_inner().count())
    }

    fn failed(reason: Reason, outcome: Outcome) -> Try {
        Err(ApiError::new(reason, "no answer").with_outcome(outcome))
    }

    fn raised() -> Try {
        let generation = Generation(2);
        Ok(Response::Generation { generation })
    }

    fn clear(request: Option<(RequestId, u64)>) -> Command {
        let name = "fruit".to_owned();
        Command::RaiseGeneration { name, request }
    }

    /// A clear that is remembered by its id.
    fn clear_once() -> Command {
        let id = RequestId {
            client: ClientId([7; 16]),
            sequence: 1,
            issued_at_ms: 0,
            acked_below: 0,
        };
        clear(Some((id, 9)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_made_is_made_again_only_where_twice_is_once() {
        let lost = || vec![failed(Reason::NoQuorum, Outcome::Unknown), raised()];
        let (ended, left) = tried(&clear(None), lost()).await;
        assert_eq!(ended.unwrap_err().outcome(), Some(Outcome::Unknown));
        assert_eq!(left, 1, "it would take what was recorded since the first");
        assert_eq!(tried(&clear_once(), lost()).await, (raised(), 0));
        let refused = vec![failed(Reason::NoQuorum, Outcome::NotApplied), raised()];
        assert_eq!(tried(&clear(None), refused).await, (raised(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_try_may_have_made_no_later_one_unmakes() {
        // One that is tried until the time is up, and one that ends it.
        for reason in [Reason::NoQuorum, Reason::DiskFull] {
            let later = vec![failed(reason, Outcome::NotApplied); 100];
            let (ended, left) = tried(&clear_once(), later.clone()).await;
            assert_eq!(ended.unwrap_err().outcome(), Some(Outcome::NotApplied));
            assert!(left > 0, "{reason:?}");
            let first = vec![failed(Reason::NoQuorum, Outcome::Unknown)];
            let (ended, left) = tried(&clear_once(), [first, later].concat()).await;
            let error = ended.unwrap_err();
            assert_eq!(error.reason(), reason);
            assert_eq!(error.outcome(), Some(Outcome::Unknown), "{reason:?}");
            assert!(left > 0, "{reason:?}");
        }
    }

    #[test]
    fn what_is_not_remembered_any_more_may_have_been_done() {
        let outcome = |refusal| refused(&refusal).outcome();
        assert_eq!(outcome(Refusal::SessionExpired), Some(Outcome::Unknown));
        assert_eq!(outcome(Refusal::RequestIdReused), Some(Outcome::NotApplied));
    }
}
