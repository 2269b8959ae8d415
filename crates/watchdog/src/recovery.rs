//! One attempt to bring one shard back: take the turn, see to it that its processes are restarted, have the coordinator diagnose and
//! repair, verify that it serves.
//!
//! What always holds: nothing is done without the turn, which only one watchdog has at a time and which coordinators with a quorum grant (see
//! [`turn`]). Nothing acknowledged is given up, whatever is found; that needs a person. An attempt ends: when the shard
//! serves, when only a person can go on, or when nothing has moved for the configured time. A process is restarted by it once at most;
//! and where it is for silence, only one that has missed enough polls and is silent still: taking the turn takes time. None is begun
//! once the turn's lease is over.
//!
//! On failure: every step may fail and is tried again until the attempt ends; the next attempt comes after the backoff.

mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::admin::v1::RecoveryAction;
use cluster::{NodeId, ShardId};
use runtime::{CancellationToken, Instant, Runtime};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::actions::{Actions, For};
use crate::coordinators::Coordinators;
use crate::detector::Observation;
use crate::fleet::{Fleet, NodeTarget};
use crate::metrics::Metrics;
use crate::prober::{Prober, Sighting};
use crate::restart::Restarts;
use turn::{Refused, Standing, Turn};

/// Time between two looks at a shard that is being recovered, at most; a shorter poll interval shortens it.
pub(crate) const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The shard serves.
    Recovered,
    /// Its data is lost or damaged, and only a person may give it up.
    NeedsAcceptLoss,
    /// Nothing moved for too long.
    TimedOut,
    /// The watchdog stops, or the shard is not there any more.
    GivenUp,
    /// Another watchdog has the turn, or had it since the shard was looked at, or enough shards are acted upon. Nothing was done.
    NotOurTurn,
    /// No coordinator grants the turn. Nothing was done.
    NobodyGrants,
}

/// An attempt that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    /// The number of the turn, where one was taken.
    pub(crate) turn: Option<u64>,
}

impl Outcome {
    /// The label of metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::NeedsAcceptLoss => "needs_accept_loss",
            Self::TimedOut => "timed_out",
            Self::GivenUp => "given_up",
            Self::NotOurTurn => "not_our_turn",
            Self::NobodyGrants => "nobody_grants",
        }
    }
}

/// What attempts share.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) runtime: Runtime,
    /// By which the coordinators tell this watchdog from others.
    pub(crate) name: String,
    pub(crate) coordinators: Coordinators,
    pub(crate) prober: Prober,
    pub(crate) restarts: Restarts,
    pub(crate) actions: Actions,
    pub(crate) attempt_timeout: Duration,
    pub(crate) poll_interval: Duration,
}

/// An attempt.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) tools: Arc<Tools>,
    pub(crate) shard: ShardId,
    /// The label of its metrics.
    pub(crate) key: Arc<str>,
    /// Why it is due.
    pub(crate) reason: String,
    /// The newest turn at the shard when that was found.
    pub(crate) known_attempt: u64,
    pub(crate) concurrent_percent: u32,
    pub(crate) metrics: Metrics,
    /// Processes that are dead by the newest poll, kept up by the polls.
    pub(crate) dead: watch::Receiver<Vec<NodeTarget>>,
    /// Processes that answer and are to be restarted all the same, since the shard stands still.
    pub(crate) stalled: Vec<NodeTarget>,
    /// The newest fleet, kept up by the polls.
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    /// Raised once the shard gets on by itself.
    pub(crate) moving: Arc<AtomicBool>,
    pub(crate) shutdown: CancellationToken,
}

impl Recovery {
    pub(crate) async fn run(self) -> Finished {
        let shutdown = self.shutdown.clone();
        let taken = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(Refused::Gone),
            taken = Turn::take(&self) => taken,
        };
        let outcome = match taken {
            Ok(turn) => return self.act(turn).await,
            Err(Refused::NotOurs) => Outcome::NotOurTurn,
            Err(Refused::NobodyGrants) => Outcome::NobodyGrants,
            Err(Refused::Gone) => Outcome::GivenUp,
        };
        Finished {
            outcome,
            turn: None,
        }
    }

    /// What is done with the turn, until it is given back.
    async fn act(&self, mut turn: Turn) -> Finished {
        self.metrics.attempt_began(&self.key);
        let outcome = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Outcome::GivenUp,
            outcome = self.attempt(&mut turn) => outcome,
        };
        turn.end(outcome).await;
        Finished {
            outcome,
            turn: Some(turn.number()),
        }
    }

    async fn attempt(&self, turn: &mut Turn) -> Outcome {
        let runtime = &self.tools.runtime;
        let pause = self.tools.poll_interval.min(LOOK_INTERVAL_MAX);
        let mut restarted = BTreeSet::new();
        let mut deadline = Deadline::new(runtime.now(), self.tools.attempt_timeout);
        loop {
            let Some(target) = self.fleet.borrow().shards.get(&self.shard).cloned() else {
                return Outcome::GivenUp;
            };
            let sighting = self.tools.prober.look_at(&target).await;
            if sighting.observation == Observation::Serving {
                return Outcome::Recovered;
            }
            let due = self.due(&sighting, &restarted);
            if !due.is_empty() {
                for node in &due {
                    if turn.keep(self.is_moving()).await != Standing::Ours {
                        return self.lost_turn();
                    }
                    let restarting = self.restart_process(node);
                    let done = turn.keep_during(restarting, &self.moving).await;
                    if done.is_none() {
                        return self.lost_turn();
                    }
                    restarted.insert(node.id);
                }
                // The processes have all of it, however long their restart took.
                deadline = Deadline::new(runtime.now(), self.tools.attempt_timeout);
                continue;
            }
            if let Observation::Starting {
                progress: Some(progress),
            } = sighting.observation
                && deadline.moved(runtime.now(), progress)
            {
                self.moving.store(true, Ordering::Relaxed);
            }
            if turn.keep(self.is_moving()).await != Standing::Ours {
                return self.lost_turn();
            }
            if self.diagnose().await == Some(RecoveryAction::NeedsAcceptLoss) {
                return Outcome::NeedsAcceptLoss;
            }
            if runtime.now() >= deadline.at {
                return Outcome::TimedOut;
            }
            runtime.sleep(pause).await;
        }
    }

    fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Relaxed)
    }

    fn lost_turn(&self) -> Outcome {
        warn!(shard = %self.shard, "the turn at the shard's recovery is over, or went to another watchdog");
        Outcome::GivenUp
    }

    /// The processes to restart now.
    fn due(&self, sighting: &Sighting, restarted: &BTreeSet<NodeId>) -> Vec<NodeTarget> {
        let is_silent = |node: &NodeTarget| sighting.silent.iter().any(|seen| seen.id == node.id);
        let named = self.dead.borrow();
        let dead = named.iter().filter(|node| is_silent(node));
        let all = self.stalled.iter().chain(dead);
        all.filter(|node| !restarted.contains(&node.id))
            .cloned()
            .collect()
    }

    async fn restart_process(&self, node: &NodeTarget) {
        match self
            .tools
            .restarts
            .restart(node, For::Shard(self.shard))
            .await
        {
            Ok(Some(done)) => {
                info!(shard = %self.shard, node = node.name, address = node.address, ?done, "restart of a process")
            }
            Ok(None) => {
                info!(shard = %self.shard, node = node.name, "was restarted a short while ago")
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(shard = %self.shard, node = node.name, %error, cause, "could not restart a process");
            }
        }
    }

    async fn diagnose(&self) -> Option<RecoveryAction> {
        match self.tools.coordinators.recover(self.shard).await {
            Ok(answer) => {
                let action = answer.action();
                info!(shard = %self.shard, action = action.as_str_name(), message = answer.message, "the coordinator looked at the shard");
                Some(action)
            }
            Err(status) => {
                warn!(shard = %self.shard, code = ?status.code(), message = status.message(), "no coordinator looked at the shard");
                None
            }
        }
    }
}

/// When an attempt ends, unless something moves.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    patience: Duration,
    progress: Option<u64>,
}

impl Deadline {
    fn new(now: Instant, patience: Duration) -> Self {
        Self {
            at: now + patience,
            patience,
            progress: None,
        }
    }

    /// Notes the progress; says whether it is another than before, and puts the end off if so. The first is only noted: it may be
    /// what was reported before the process died.
    fn moved(&mut self, now: Instant, progress: u64) -> bool {
        let moved = self.progress.is_some_and(|before| before != progress);
        self.progress = Some(progress);
        if moved {
            self.at = now + self.patience;
        }
        moved
    }
}

#[cfg(test)]
mod tests;
