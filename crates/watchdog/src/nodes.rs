//! Looks after processes that hold no replica: those that are new, because their disk was lost, and those in reserve.
//!
//! What always holds:
//! - A process with replicas is left to its shards, whose recoveries restart it; a process that answers is left alone, whatever it
//!   answers.
//! - Backoff, jitter, the share that is acted upon at once, and the rule that nothing is begun while most look down and nobody confirms
//!   it are those of shards ([`policy`](crate::policy)). Whether most look down is judged over all nodes, and what stops recoveries of
//!   shards stops these restarts too. Each has its own places: a reserve never waits for a replay.
//!
//! Watchdogs take no turns here. A turn is a vote in the coordinators' metadata and guards a recovery, which repairs and takes minutes;
//! this is only a restart, of a process that serves nobody, so that a second one costs nothing but the time of a start. That two
//! restart the same process is made rare all the same: each waits for a random while first, and looks again; and who has a process restarted
//! in vain backs off. Without a coordinator that has a quorum nothing is begun, as with shards, which get no turn then.
//!
//! On failure: an attempt whose process does not answer in time has failed; the next one comes after the backoff, for ever, and a
//! human is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::NodeId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use runtime::{CancellationToken, Instant, TaskFailed};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::Config;
use crate::actions::For;
use crate::detector::{Detector, Health, Observation};
use crate::fleet::{Fleet, NodeTarget};
use crate::metrics::Metrics;
use crate::policy::{Freeze, Policy, SecondView};
use crate::recovery::{LOOK_INTERVAL_MAX, Tools};

/// How an attempt ended, and whose it was.
type Ended = (NodeId, Result<Outcome, TaskFailed>);

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process answers.
    Answers,
    /// It did not in all the time that it had.
    TimedOut,
    /// The watchdog stops, or nobody waits for the node any more.
    GivenUp,
}

/// What a poll found out.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Which nodes answered, with replicas or without.
    pub(crate) answers: BTreeMap<NodeId, bool>,
    /// Whether a coordinator with a quorum told of the fleet.
    pub(crate) has_quorum: bool,
    /// Why no recovery of a shard is begun.
    pub(crate) freeze: Option<Freeze>,
    /// The newest fleet, kept up by the polls.
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    pub(crate) shutdown: CancellationToken,
}

#[derive(Debug)]
struct Watched {
    name: String,
    detector: Detector,
    silent_since: Option<Instant>,
    alert: bool,
}

/// All nodes that somebody waits for.
pub(crate) struct Nodes {
    config: Config,
    tools: Arc<Tools>,
    metrics: Metrics,
    policy: Policy<NodeId>,
    nodes: BTreeMap<NodeId, Watched>,
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Nodes {
    pub(crate) fn new(config: &Config, tools: Arc<Tools>, metrics: Metrics) -> Self {
        Self {
            config: config.clone(),
            tools,
            metrics,
            policy: Policy::new(config.policy),
            nodes: BTreeMap::new(),
            attempts: FuturesUnordered::new(),
        }
    }

    /// The next attempt that ends; none while none is open.
    pub(crate) async fn next_ended(&mut self) -> Option<Ended> {
        self.attempts.next().await
    }

    /// Judges, decides and begins what is due; says why nothing is begun, if so.
    pub(crate) fn take_in(&mut self, now: Instant, seen: &Seen) -> Option<Freeze> {
        let fleet = Arc::clone(&seen.fleet.borrow());
        let health = self.judge(now, &fleet, &seen.answers);
        let freeze = seen
            .freeze
            .or_else(|| Freeze::among(&health, second_view(&fleet, seen.has_quorum)));
        let is_idle = |id: &NodeId| fleet.nodes.get(id).is_some_and(|node| !node.has_replicas);
        let idle: BTreeMap<NodeId, Health> =
            health.into_iter().filter(|(id, _)| is_idle(id)).collect();
        let held_back = freeze.or((!seen.has_quorum).then_some(Freeze::NoQuorum));
        for id in self.policy.decide_unless(now, &idle, held_back).recover {
            self.begin_attempt(id, &fleet, seen);
        }
        self.note_alerts(now, &fleet);
        freeze
    }

    fn judge(
        &mut self,
        now: Instant,
        fleet: &Fleet,
        answers: &BTreeMap<NodeId, bool>,
    ) -> BTreeMap<NodeId, Health> {
        let metrics = &self.metrics;
        self.nodes.retain(|id, node| {
            let stays = fleet.nodes.contains_key(id);
            if !stays {
                metrics.forget_node(&node.name);
            }
            stays
        });
        let mut judged = BTreeMap::new();
        for (&id, known) in &fleet.nodes {
            let Some(&answers) = answers.get(&id) else {
                continue;
            };
            let node = self.nodes.entry(id).or_insert_with(|| Watched {
                name: known.target.name.clone(),
                detector: Detector::new(self.config.detector, now),
                silent_since: None,
                alert: false,
            });
            let before = node.detector.health();
            let (observation, silent_since) = if answers {
                (Observation::Serving, None)
            } else {
                (Observation::Silent, node.silent_since.or(Some(now)))
            };
            node.silent_since = silent_since;
            let health = node.detector.observe(now, observation);
            // Of those with replicas the log tells as of their shards.
            if health != before && !known.has_replicas {
                let name = &node.name;
                match health {
                    Health::Alive | Health::WarmingUp | Health::Short { misses: _ } => {
                        info!(node = %id, name, ?health, ?before, "node health");
                    }
                    Health::Suspect { misses: _ } | Health::Dead { cause: _ } => {
                        warn!(node = %id, name, ?health, ?before, "node health");
                    }
                }
            }
            judged.insert(id, health);
        }
        judged
    }

    fn begin_attempt(&mut self, id: NodeId, fleet: &Fleet, seen: &Seen) {
        let Some(node) = fleet.nodes.get(&id) else {
            return;
        };
        let attempt = self.policy.attempts(id);
        let (name, address) = (&node.target.name, &node.target.address);
        info!(node = %id, name, address, attempt, "a process without replicas does not answer");
        let attempt = Attempt {
            tools: Arc::clone(&self.tools),
            metrics: self.metrics.clone(),
            node: id,
            pause_max: self.config.policy.backoff_min,
            fleet: seen.fleet.clone(),
        };
        let shutdown = seen.shutdown.clone();
        let task = self.tools.runtime.spawn("node-restart", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => Outcome::GivenUp,
                outcome = attempt.run() => outcome,
            }
        });
        self.attempts
            .push(Box::pin(async move { (id, task.await) }));
    }

    /// Takes in how an attempt ended.
    pub(crate) fn attempt_ended(&mut self, id: NodeId, result: Result<Outcome, TaskFailed>) {
        let runtime = &self.tools.runtime;
        let draw = |longest| runtime.jitter(longest);
        self.policy.end_attempt(runtime.now(), id, draw);
        let name = self.nodes.get(&id).map_or("", |node| node.name.as_str());
        match result {
            Ok(Outcome::Answers) => info!(node = %id, name, "the process answers again"),
            Ok(Outcome::TimedOut) => warn!(node = %id, name, "the process was not brought back"),
            Ok(Outcome::GivenUp) => {}
            Err(failed) => error!(node = %id, name, %failed, "restarting failed"),
        }
    }

    fn note_alerts(&mut self, now: Instant, fleet: &Fleet) {
        for (&id, node) in &mut self.nodes {
            let has_replicas = fleet.nodes.get(&id).is_some_and(|node| node.has_replicas);
            let silent = node
                .silent_since
                .map_or_else(Default::default, |since| now.saturating_since(since));
            let attempts = self.policy.attempts(id);
            let is_due = self.policy.is_alerting(id) || silent >= self.config.alert_unserved_after;
            // Of those with replicas the shards tell.
            let alert = is_due && !has_replicas;
            if alert && !node.alert {
                let name = &node.name;
                error!(node = %id, name, attempts, ?silent, "the process does not stay up: a human should look");
            }
            node.alert = alert;
            let up = node.silent_since.is_none();
            self.metrics.node(&node.name, up, alert);
        }
    }
}

fn second_view(fleet: &Fleet, has_quorum: bool) -> SecondView {
    if has_quorum {
        SecondView::Down {
            shards: fleet.silent_nodes(),
        }
    } else {
        SecondView::NoQuorum
    }
}

/// One attempt to bring one process back.
#[derive(Debug)]
struct Attempt {
    tools: Arc<Tools>,
    metrics: Metrics,
    node: NodeId,
    /// The longest wait before the second look.
    pause_max: Duration,
    fleet: watch::Receiver<Arc<Fleet>>,
}

impl Attempt {
    async fn run(self) -> Outcome {
        let Tools {
            runtime, prober, ..
        } = &*self.tools;
        // Other watchdogs have seen the same; the one that waits least is the one that acts.
        runtime.sleep(runtime.jitter(self.pause_max)).await;
        let deadline = runtime.now() + self.tools.attempt_timeout;
        let pause = self.tools.poll_interval.min(LOOK_INTERVAL_MAX);
        let mut was_restarted = false;
        loop {
            let Some(target) = self.target() else {
                return Outcome::GivenUp;
            };
            if prober.answers(&target.address).await {
                return Outcome::Answers;
            }
            if !was_restarted {
                self.restart(&target).await;
                was_restarted = true;
            }
            if runtime.now() >= deadline {
                return Outcome::TimedOut;
            }
            runtime.sleep(pause).await;
        }
    }

    /// Where the node is reached now; none if nobody waits for it any more.
    fn target(&self) -> Option<NodeTarget> {
        let fleet = self.fleet.borrow();
        fleet.nodes.get(&self.node).map(|node| node.target.clone())
    }

    async fn restart(&self, node: &NodeTarget) {
        let (name, address) = (&node.name, &node.address);
        match self.tools.restarts.restart(node, For::Reserve).await {
            Ok(Some(done)) => {
                self.metrics.node_restarted(name);
                info!(node = %node.id, name, address, ?done, "restart of a process without replicas");
            }
            Ok(None) => info!(node = %node.id, name, "was restarted a short while ago"),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(node = %node.id, name, %error, cause, "could not restart a process");
            }
        }
    }
}
