//! The turn at a shard's recovery: asked for before anything is done, prolonged while it lasts, given back at the end.
//!
//! The coordinators' metadata, where all watchdogs meet, grant it to one at a time. Where no coordinator answers there is nobody to
//! grant anything, and a process that died is brought back all the same: that may be what the coordinators wait for, and
//! restarting is safe to repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::admin::v1::{BeginRecoveryRequest, EndRecoveryRequest, TurnState, TurnVerdict};
use cluster::limits;
use runtime::Instant;
use tonic::Code;
use tracing::{info, warn};

use super::{Outcome, Recovery, Tools};

/// How long a turn lasts when its watchdog is not heard of again.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is prolonged: often enough for two tries to fail.
const PROLONG_EVERY: Duration = Duration::from_secs(5);

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another watchdog has it, or had it, or enough shards are acted upon.
    NotOurs,
    /// There is no such shard any more.
    Gone,
}

/// What a coordinator takes of a reason, which names the processes, and each may have a long name.
pub(super) fn fitting(reason: &str) -> String {
    let end = reason.floor_char_boundary(limits::TURN_TEXT_BYTES_MAX);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// A turn; or, where no coordinator answered, the need to do without.
#[derive(Debug)]
pub(super) struct Turn {
    tools: Arc<Tools>,
    request: BeginRecoveryRequest,
    /// None without a coordinator.
    number: Option<u64>,
    asked_at: Instant,
}

impl Turn {
    pub(super) async fn take(recovery: &Recovery) -> Result<Self, Refused> {
        let tools = Arc::clone(&recovery.tools);
        let request = BeginRecoveryRequest {
            shard_id: recovery.shard.0,
            watchdog: tools.name.clone(),
            known_attempt: recovery.known_attempt,
            reason: fitting(&recovery.reason),
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            concurrent_percent: recovery.concurrent_percent,
            watching: false,
        };
        let asked_at = tools.runtime.now();
        let number = match tools.coordinators.begin_turn(&request).await {
            Ok(answer) if answer.verdict() == TurnVerdict::Granted => Some(answer.attempt),
            Ok(answer) => {
                let verdict = answer.verdict().as_str_name();
                info!(
                    shard = request.shard_id,
                    verdict,
                    holder = answer.holder,
                    attempt = answer.attempt,
                    "left to others"
                );
                return Err(Refused::NotOurs);
            }
            Err(status) if status.code() == Code::NotFound => return Err(Refused::Gone),
            Err(status) => {
                warn!(shard = request.shard_id, code = ?status.code(), message = status.message(), "no coordinator grants turns, going on without");
                None
            }
        };
        Ok(Self {
            tools,
            request,
            number,
            asked_at,
        })
    }

    /// The number of the turn.
    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }

    /// Prolongs the turn when it is time. Says whether it is still ours; one that nobody can tell about is.
    pub(super) async fn keep(&mut self, watching: bool) -> bool {
        let now = self.tools.runtime.now();
        let is_due = now.saturating_since(self.asked_at) >= PROLONG_EVERY;
        if self.number.is_none() || (!is_due && watching == self.request.watching) {
            return true;
        }
        self.asked_at = now;
        let request = BeginRecoveryRequest {
            watching,
            ..self.request.clone()
        };
        match self.tools.coordinators.begin_turn(&request).await {
            Ok(answer) => {
                self.request = request;
                answer.verdict() == TurnVerdict::Granted
            }
            Err(status) => {
                warn!(shard = request.shard_id, code = ?status.code(), message = status.message(), "the turn was not prolonged");
                true
            }
        }
    }

    /// Does something that may take longer than the turn lasts, and prolongs it meanwhile. What is done is broken off when the turn is
    /// lost, which is said by `None`.
    pub(super) async fn keep_during<T>(
        &mut self,
        work: impl Future<Output = T>,
        moving: &AtomicBool,
    ) -> Option<T> {
        let runtime = self.tools.runtime.clone();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = runtime.sleep(PROLONG_EVERY) => {}
            }
            if !self.keep(moving.load(Ordering::Relaxed)).await {
                return None;
            }
        }
    }

    /// Gives the turn back. Where that fails it ends with its lease.
    pub(super) async fn end(&self, outcome: Outcome) {
        let Some(attempt) = self.number else {
            return;
        };
        let state = match outcome {
            Outcome::Recovered => TurnState::Recovered,
            Outcome::NeedsAcceptLoss => TurnState::NeedsAcceptLoss,
            Outcome::TimedOut => TurnState::TimedOut,
            Outcome::GivenUp | Outcome::NotOurTurn => TurnState::GivenUp,
        };
        let request = EndRecoveryRequest {
            shard_id: self.request.shard_id,
            watchdog: self.request.watchdog.clone(),
            attempt,
            outcome: state.into(),
        };
        if let Err(status) = self.tools.coordinators.end_turn(&request).await {
            warn!(shard = request.shard_id, code = ?status.code(), message = status.message(), "the turn was not given back");
        }
    }
}
