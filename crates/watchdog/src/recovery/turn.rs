//! The turn at a shard's recovery: asked for before anything is done, prolonged while it lasts, given back at the end.
//!
//! The coordinators' metadata, where all watchdogs meet, grant it to one at a time, for as long as a lease. A watchdog to which no coordinator
//! grants anything does nothing but tell: it may be the one that is cut off, and what it would restart may be well.
//!
//! What always holds: a turn is ours from a grant until the lease that it came with is over, counted from before it was asked for. As long as
//! the clock of the coordinators' leader does not jump ahead, nobody else has it in that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::admin::v1::{BeginRecoveryRequest, EndRecoveryRequest, TurnState, TurnVerdict};
use cluster::limits;
use runtime::Instant;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::{Outcome, Recovery, Tools};

/// How long a turn lasts when its watchdog is not heard of again.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is prolonged: often enough for a try to fail.
const PROLONG_EVERY: Duration = Duration::from_secs(5);

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another watchdog has it, or had it, or enough shards are acted upon.
    NotOurs,
    /// There is no such shard any more.
    Gone,
    /// No coordinator grants it: none has a quorum, or they refuse, which the log tells.
    NobodyGrants,
}

/// Whose a turn is that was ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is ours.
    Ours,
    /// Its lease is over, and nobody prolonged it; whose it is now is not known.
    Over,
    /// It is another's, or nobody's any more.
    Lost,
}

/// What a coordinator takes of a reason, which names the processes, and each may have a long name.
pub(super) fn fitting(reason: &str) -> String {
    let end = reason.floor_char_boundary(limits::TURN_TEXT_BYTES_MAX);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// How the turn is asked for that an attempt needs.
pub(super) fn request(recovery: &Recovery) -> BeginRecoveryRequest {
    BeginRecoveryRequest {
        shard_id: recovery.shard.0,
        watchdog: recovery.tools.name.clone(),
        known_attempt: recovery.known_attempt,
        reason: fitting(&recovery.reason),
        lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
        concurrent_percent: recovery.concurrent_percent,
        watching: false,
    }
}

/// A turn that was granted.
#[derive(Debug)]
pub(super) struct Turn {
    tools: Arc<Tools>,
    request: BeginRecoveryRequest,
    number: u64,
    /// When it was last asked for, whether or not somebody answered.
    asked_at: Instant,
    ours_until: Instant,
}

impl Turn {
    pub(super) async fn take(recovery: &Recovery) -> Result<Self, Refused> {
        let tools = &recovery.tools;
        let request = request(recovery);
        let asked_at = tools.runtime.now();
        let number = match tools.coordinators.begin_turn(&request).await {
            Ok(answer) if answer.verdict() == TurnVerdict::Granted => answer.attempt,
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
                warn!(shard = request.shard_id, reason = request.reason, code = ?status.code(), message = status.message(), "no coordinator grants turns: nothing is done but to tell");
                return Err(Refused::NobodyGrants);
            }
        };
        Ok(Self::granted(recovery, request, number, asked_at))
    }

    /// The turn of this number, asked for at that time.
    pub(super) fn granted(
        recovery: &Recovery,
        request: BeginRecoveryRequest,
        number: u64,
        asked_at: Instant,
    ) -> Self {
        Self {
            tools: Arc::clone(&recovery.tools),
            request,
            number,
            asked_at,
            ours_until: asked_at + LEASE,
        }
    }

    /// The number of the turn.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Prolongs the turn when it is time, and says whose it is.
    pub(super) async fn keep(&mut self, watching: bool) -> Standing {
        if self.standing() == Standing::Over {
            return Standing::Over;
        }
        let runtime = &self.tools.runtime;
        let now = runtime.now();
        let is_due = now.saturating_since(self.asked_at) >= PROLONG_EVERY;
        if !is_due && watching == self.request.watching {
            return Standing::Ours;
        }
        self.asked_at = now;
        let request = BeginRecoveryRequest {
            watching,
            ..self.request.clone()
        };
        let left = self.ours_until.saturating_since(now);
        let asked = self.tools.coordinators.begin_turn(&request);
        let answer = runtime.timeout(left, asked).await;
        match answer.unwrap_or_else(|elapsed| Err(Status::deadline_exceeded(elapsed.to_string()))) {
            Ok(answer) if answer.verdict() == TurnVerdict::Granted => {
                self.request = request;
                self.ours_until = now + LEASE;
                Standing::Ours
            }
            Ok(_) => Standing::Lost,
            Err(status) => {
                warn!(shard = request.shard_id, code = ?status.code(), message = status.message(), "the turn was not prolonged");
                self.standing()
            }
        }
    }

    /// As far as it is known without asking.
    fn standing(&self) -> Standing {
        if self.tools.runtime.now() < self.ours_until {
            Standing::Ours
        } else {
            Standing::Over
        }
    }

    /// Does something that may take longer than the turn lasts, and prolongs it meanwhile. What is done is broken off when somebody else has
    /// the turn, which is said by `None`. Where nobody prolongs it, what was begun is ended all the same: half a restart is a process
    /// that is gone.
    pub(super) async fn keep_during<T>(
        &mut self,
        work: impl Future<Output = T>,
        moving: &AtomicBool,
    ) -> Option<T> {
        let runtime = self.tools.runtime.clone();
        let mut work = std::pin::pin!(work);
        loop {
            let prolonging = async {
                runtime.sleep(PROLONG_EVERY).await;
                self.keep(moving.load(Ordering::Relaxed)).await
            };
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                standing = prolonging => {
                    if standing == Standing::Lost {
                        return None;
                    }
                }
            }
        }
    }

    /// Gives the turn back. Where that fails it ends with its lease.
    pub(super) async fn end(&self, outcome: Outcome) {
        let state = match outcome {
            Outcome::Recovered => TurnState::Recovered,
            Outcome::NeedsAcceptLoss => TurnState::NeedsAcceptLoss,
            Outcome::TimedOut => TurnState::TimedOut,
            Outcome::GivenUp | Outcome::NotOurTurn | Outcome::NobodyGrants => TurnState::GivenUp,
        };
        let request = EndRecoveryRequest {
            shard_id: self.request.shard_id,
            watchdog: self.request.watchdog.clone(),
            attempt: self.number,
            outcome: state.into(),
        };
        if let Err(status) = self.tools.coordinators.end_turn(&request).await {
            warn!(shard = request.shard_id, code = ?status.code(), message = status.message(), "the turn was not given back");
        }
    }
}
