//! The loop: poll, judge, decide, begin attempts, take in how they ended.
//!
//! One task owns the detectors and the policy; attempts are tasks of their own and never keep the polls waiting. The list of
//! what to watch is the coordinator's; while none answers, the last one is kept.
//!
//! On failure: an attempt that panics counts as failed. The loop itself has nothing that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::admin::v1::WatchdogReport;
use cluster::{NodeId, ShardId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use runtime::{CancellationToken, Instant, Runtime, TaskFailed};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::Config;
use crate::coordinators::View;
use crate::detector::{Cause, Detector, Health};
use crate::fleet::{Fleet, NodeTarget};
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Seen};
use crate::policy::{Freeze, Policy, SecondView};
use crate::prober::Sighting;
use crate::recovery::{Finished, Outcome, Recovery, Tools};

/// How an attempt ended, and whose it was.
type Ended = (ShardId, Result<Finished, TaskFailed>);

#[derive(Debug)]
struct Watched {
    key: Arc<str>,
    detector: Detector,
    /// Since when it has not served.
    unserved_since: Option<Instant>,
    alert: bool,
    attempt: Option<Open>,
    /// The newest turn at its recovery that is known here, by whomever. None before the coordinator has told of any.
    turn: Option<u64>,
    /// The newest of them that has ended.
    ended_turn: u64,
}

/// Polls in a row without an answer that are worth a word. One is what a start or an election costs.
const UNANSWERED_MAX: u32 = 2;

/// An attempt that is under way.
#[derive(Debug)]
struct Open {
    began: Instant,
    moving: Arc<AtomicBool>,
    /// The processes of the shard that are dead by the last poll, for the attempt to restart.
    dead: watch::Sender<Vec<NodeTarget>>,
}

/// The loop's state.
pub(crate) struct Watch {
    runtime: Runtime,
    config: Config,
    metrics: Metrics,
    tools: Arc<Tools>,
    policy: Policy,
    shards: BTreeMap<ShardId, Watched>,
    nodes: Nodes,
    fleet: watch::Sender<Arc<Fleet>>,
    /// Polls in a row that no coordinator answered.
    unanswered: u32,
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    freeze: Option<Freeze>,
    polled: watch::Sender<bool>,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Watch")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(
        config: Config,
        tools: Arc<Tools>,
        metrics: Metrics,
        polled: watch::Sender<bool>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            runtime: tools.runtime.clone(),
            nodes: Nodes::new(&config, Arc::clone(&tools), metrics.clone()),
            metrics,
            policy: Policy::new(config.policy),
            config,
            tools,
            shards: BTreeMap::new(),
            fleet: watch::Sender::new(Arc::default()),
            unanswered: 0,
            attempts: FuturesUnordered::new(),
            freeze: None,
            polled,
            shutdown,
        }
    }

    /// Watches until the shutdown; open attempts are given up then.
    pub(crate) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let runtime = self.runtime.clone();
        let mut next = runtime.now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some((shard, result)) = self.attempts.next() => self.attempt_ended(shard, result),
                Some((node, result)) = self.nodes.next_ended() => self.nodes.attempt_ended(node, result),
                () = runtime.sleep_until(next) => {
                    next = runtime.now() + self.config.poll_interval;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        () = self.poll() => {}
                    }
                }
            }
        }
        while self.attempts.next().await.is_some() {}
        while self.nodes.next_ended().await.is_some() {}
    }

    async fn poll(&mut self) {
        let second = self.refresh().await;
        let fleet = Arc::clone(&self.fleet.borrow());
        let prober = &self.tools.prober;
        let (sightings, idle) =
            futures::join!(prober.look_at_all(&fleet), prober.look_at_idle(&fleet));
        let now = self.runtime.now();
        self.note_turns(now, &fleet);
        let health = self.judge(now, &fleet, &sightings);
        for (&id, shard) in &self.shards {
            if shard
                .attempt
                .as_ref()
                .is_some_and(|open| open.moving.load(Ordering::Relaxed))
            {
                self.policy.release_place(id);
            }
        }
        let decision = self.policy.decide(now, &health, second);
        let seen = Seen {
            answers: nodes_that_answer(&fleet, &sightings, idle),
            has_quorum: second != SecondView::NoQuorum,
            freeze: decision.freeze,
            fleet: self.fleet.subscribe(),
            shutdown: self.shutdown.clone(),
        };
        let freeze = self.nodes.take_in(now, &seen);
        self.note_freeze(freeze);
        self.metrics.cluster(freeze.is_some(), seen.has_quorum);
        self.tell_attempts(decision.freeze, &sightings);
        for id in decision.recover {
            self.begin_attempt(now, id, &health, &fleet, &sightings);
        }
        self.note_alerts(now);
        if !fleet.shards.is_empty() {
            self.polled.send_replace(true);
        }
    }

    /// Asks for the fleet; keeps the last one, without what may have changed, if nobody answers.
    async fn refresh(&mut self) -> SecondView {
        let report = WatchdogReport {
            name: self.tools.name.clone(),
            actions: self.tools.actions.told(),
        };
        match self.tools.coordinators.view(&report).await {
            Ok(View { fleet, has_quorum }) => {
                if std::mem::take(&mut self.unanswered) >= UNANSWERED_MAX {
                    info!("a coordinator answers again");
                }
                let second = if has_quorum {
                    SecondView::Down {
                        shards: fleet.down(),
                    }
                } else {
                    SecondView::NoQuorum
                };
                self.fleet.send_replace(Arc::new(fleet));
                second
            }
            Err(status) => {
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered == UNANSWERED_MAX {
                    warn!(code = ?status.code(), message = status.message(), "no coordinator answers; the last known shards are watched");
                }
                let bare = self.fleet.borrow().without_reports();
                self.fleet.send_replace(Arc::new(bare));
                SecondView::NoQuorum
            }
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        fleet: &Fleet,
        sightings: &BTreeMap<ShardId, Sighting>,
    ) -> BTreeMap<ShardId, Health> {
        let metrics = &self.metrics;
        self.shards.retain(|id, shard| {
            let stays = fleet.shards.contains_key(id);
            if !stays {
                metrics.forget(&shard.key);
            }
            stays
        });
        let mut judged = BTreeMap::new();
        for (&id, target) in &fleet.shards {
            let Some(sighting) = sightings.get(&id) else {
                continue;
            };
            let shard = self.shards.entry(id).or_insert_with(|| Watched {
                key: Arc::clone(&target.key),
                detector: Detector::new(self.config.detector, now),
                unserved_since: Some(now),
                alert: false,
                attempt: None,
                turn: None,
                ended_turn: target.report.ended_attempt,
            });
            let before = shard.detector.health();
            let silent = sighting.silent.iter().map(|node| node.id);
            let health = shard
                .detector
                .observe_shard(now, sighting.observation, silent);
            note_change(id, &shard.key, before, health, &target.report.reason);
            if health.serves() {
                shard.unserved_since = None;
            } else {
                shard.unserved_since.get_or_insert(now);
            }
            judged.insert(id, health);
        }
        judged
    }

    /// Attempts of other watchdogs count like our own, so that a shard backs off from all of them together; and what was missed before
    /// one of theirs ended says nothing of what came of it.
    fn note_turns(&mut self, now: Instant, fleet: &Fleet) {
        let runtime = &self.runtime;
        for (&id, shard) in &mut self.shards {
            let target = fleet.shards.get(&id);
            let Some(newest) = target.and_then(|target| target.report.last_attempt) else {
                continue;
            };
            let ended = target.map_or(0, |target| target.report.ended_attempt);
            if ended > shard.ended_turn {
                shard.ended_turn = ended;
                shard.detector.look_afresh();
            }
            let is_foreign = shard.turn.is_some_and(|known| newest > known);
            shard.turn = shard.turn.max(Some(newest));
            if is_foreign && shard.attempt.is_none() {
                self.policy
                    .note_foreign(now, id, |longest| runtime.jitter(longest));
            }
        }
    }

    /// A process that dies while an attempt is open is restarted by it: the shard may serve only with that one too, and would else
    /// wait until the attempt has failed. An attempt that has given its place back restarts nothing any more.
    fn tell_attempts(&self, freeze: Option<Freeze>, sightings: &BTreeMap<ShardId, Sighting>) {
        for (id, shard) in &self.shards {
            let Some(open) = &shard.attempt else {
                continue;
            };
            let may_act = freeze.is_none() && !open.moving.load(Ordering::Relaxed);
            let sighting = sightings.get(id).filter(|_| may_act);
            open.dead.send_replace(dead(&shard.detector, sighting));
        }
    }

    fn begin_attempt(
        &mut self,
        now: Instant,
        id: ShardId,
        health: &BTreeMap<ShardId, Health>,
        fleet: &Fleet,
        sightings: &BTreeMap<ShardId, Sighting>,
    ) {
        let Some(shard) = self.shards.get_mut(&id) else {
            return;
        };
        let dead = dead(&shard.detector, sightings.get(&id));
        let stalled = stalled(id, health, fleet);
        let processes = dead.len() + stalled.len();
        let attempt = self.policy.attempts(id);
        let reason = reason(health.get(&id), &dead);
        info!(shard = %id, shard_key = %shard.key, attempt, processes, reason, "a recovery is due");
        let dead = watch::Sender::new(dead);
        let moving = Arc::new(AtomicBool::new(false));
        let recovery = Recovery {
            tools: Arc::clone(&self.tools),
            shard: id,
            key: Arc::clone(&shard.key),
            reason,
            known_attempt: fleet
                .shards
                .get(&id)
                .map_or(0, |target| target.report.ended_attempt),
            concurrent_percent: self.config.policy.concurrent_percent,
            metrics: self.metrics.clone(),
            dead: dead.subscribe(),
            stalled,
            fleet: self.fleet.subscribe(),
            moving: Arc::clone(&moving),
            shutdown: self.shutdown.clone(),
        };
        shard.attempt = Some(Open {
            began: now,
            moving,
            dead,
        });
        let task = self.runtime.spawn("recovery", recovery.run());
        self.attempts
            .push(Box::pin(async move { (id, task.await) }));
    }

    fn attempt_ended(&mut self, id: ShardId, result: Result<Finished, TaskFailed>) {
        let now = self.runtime.now();
        let runtime = &self.runtime;
        let draw = |longest| runtime.jitter(longest);
        let outcome = result.map(|finished| {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.turn = shard.turn.max(finished.turn);
                shard.ended_turn = shard.ended_turn.max(finished.turn.unwrap_or_default());
            }
            finished.outcome
        });
        if matches!(outcome, Ok(Outcome::NotOurTurn | Outcome::NobodyGrants)) {
            self.policy.forgo(now, id, draw);
        } else {
            self.policy.end_attempt(now, id, draw);
        }
        let Some(shard) = self.shards.get_mut(&id) else {
            return;
        };
        let after = shard
            .attempt
            .take()
            .map_or_else(Default::default, |open| now.saturating_since(open.began));
        match outcome {
            Ok(Outcome::Recovered) => {
                info!(shard = %id, shard_key = %shard.key, ?after, "the shard serves again");
                self.metrics.recovered(&shard.key, after);
            }
            Ok(Outcome::GivenUp | Outcome::NotOurTurn) => {}
            Ok(outcome @ Outcome::NobodyGrants) => {
                self.metrics.attempt_failed(&shard.key, Some(outcome));
                self.tools.actions.note_withheld();
            }
            Ok(outcome @ (Outcome::NeedsAcceptLoss | Outcome::TimedOut)) => {
                warn!(shard = %id, shard_key = %shard.key, ?after, outcome = outcome.as_str(), "recovery ended without success");
                self.metrics.attempt_failed(&shard.key, Some(outcome));
                if outcome == Outcome::NeedsAcceptLoss && !shard.alert {
                    shard.alert = true;
                    error!(shard = %id, shard_key = %shard.key, "the shard's data is lost or damaged: an operator must look, and decide on `coordinator recover`");
                }
            }
            Err(failed) => {
                error!(shard = %id, shard_key = %shard.key, %failed, "recovery failed");
                self.metrics.attempt_failed(&shard.key, None);
            }
        }
    }

    fn note_alerts(&mut self, now: Instant) {
        for (&id, shard) in &mut self.shards {
            let unserved = shard
                .unserved_since
                .map_or_else(Default::default, |since| now.saturating_since(since));
            let attempts = self.policy.attempts(id);
            let due = self.policy.is_alerting(id) || unserved >= self.config.alert_unserved_after;
            if due && !shard.alert {
                if shard.unserved_since.is_some() {
                    error!(shard = %id, shard_key = %shard.key, attempts, ?unserved, "the shard does not stay up: a human should look");
                } else {
                    error!(shard = %id, shard_key = %shard.key, attempts, "the shard serves, but not all of its servers stay up: a human should look");
                }
            }
            // What needs a person is over when the shard serves.
            shard.alert = due || (shard.alert && shard.unserved_since.is_some());
            self.metrics
                .shard(&shard.key, shard.detector.health(), unserved, shard.alert);
        }
    }

    fn note_freeze(&mut self, freeze: Option<Freeze>) {
        if freeze == self.freeze {
            return;
        }
        match freeze {
            Some(reason) => error!(
                ?reason,
                "most shards or nodes look down and nobody confirms it: nothing is begun"
            ),
            None => info!("recovery goes on"),
        }
        self.tools.actions.note_freeze(self.freeze, freeze);
        self.freeze = freeze;
    }
}

/// Of every node that somebody waits for, whether it answered: those with replicas when they were asked for these.
fn nodes_that_answer(
    fleet: &Fleet,
    sightings: &BTreeMap<ShardId, Sighting>,
    idle: BTreeMap<NodeId, bool>,
) -> BTreeMap<NodeId, bool> {
    let silent = sightings.values().flat_map(|seen| &seen.silent);
    let silent: BTreeSet<NodeId> = silent.map(|node| node.id).collect();
    let hosts = fleet.nodes.values().filter(|node| node.has_replicas);
    let hosts = hosts.map(|node| (node.target.id, !silent.contains(&node.target.id)));
    hosts.chain(idle).collect()
}

/// Of the processes that were silent in the last poll, those that were so long enough to be dead. The others have missed a poll or two,
/// and may be what the shard still has.
fn dead(detector: &Detector, sighting: Option<&Sighting>) -> Vec<NodeTarget> {
    let silent = sighting
        .map(|seen| seen.silent.as_slice())
        .unwrap_or_default();
    let dead = silent.iter().filter(|node| detector.holds_dead(node.id));
    dead.cloned().collect()
}

/// The processes to restart for a shard that stands still: those that serve no other shard. A replica that has stopped for a fault
/// is not helped by it.
fn stalled(id: ShardId, health: &BTreeMap<ShardId, Health>, fleet: &Fleet) -> Vec<NodeTarget> {
    let stands_still = Health::Dead {
        cause: Cause::Stalled,
    };
    let target = fleet.shards.get(&id);
    let Some(target) = target.filter(|_| health.get(&id) == Some(&stands_still)) else {
        return Vec::new();
    };
    let serves_another = |node: &NodeTarget| {
        let mut others = fleet.shards.values().filter(|other| other.id != id);
        others.any(|other| {
            health.get(&other.id).is_some_and(|at| at.serves())
                && other.nodes.iter().any(|host| host.id == node.id)
        })
    };
    let nodes = target.nodes.iter();
    nodes
        .filter(|node| !node.replaced && !serves_another(node))
        .cloned()
        .collect()
}

/// Why a recovery is due, for people.
fn reason(health: Option<&Health>, dead: &[NodeTarget]) -> String {
    let names: Vec<&str> = dead.iter().map(|node| node.name.as_str()).collect();
    let names = names.join(", ");
    match health {
        Some(Health::Dead { cause }) => match cause {
            Cause::ReplicaSilent => format!("serves, but {names} does not answer"),
            Cause::Silent => format!("{names} does not answer"),
            Cause::Stalled => "gets nowhere".to_owned(),
            Cause::Stopped => "a replica has stopped for a fault".to_owned(),
        },
        Some(
            Health::WarmingUp
            | Health::Alive
            | Health::Short { misses: _ }
            | Health::Suspect { misses: _ },
        )
        | None => String::new(),
    }
}

fn note_change(id: ShardId, key: &str, before: Health, health: Health, reason: &str) {
    if before == health {
        return;
    }
    match health {
        Health::Alive | Health::WarmingUp => {
            info!(shard = %id, shard_key = key, ?health, ?before, "shard health")
        }
        Health::Short { misses: _ } | Health::Suspect { misses: _ } | Health::Dead { cause: _ } => {
            warn!(shard = %id, shard_key = key, ?health, ?before, reason, "shard health");
        }
    }
}

#[cfg(test)]
mod tests;
