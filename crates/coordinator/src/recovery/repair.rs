//! Does what the repair planner finds due: members of shards come and go, and damaged data is set aside.
//!
//! Done by the coordinator that leads, from upkeep, one bounded step at a time. What is meant stands in the map before a group hears
//! of it, each step may be repeated, and each names the version of the members that it was made for: whoever leads next goes on from the
//! map alone, and of two who do one is refused.
//!
//! On failure: a step that fails is tried again after a pause, as long as the planner finds it due.

mod standstill;
pub(crate) mod steps;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::{NodeId, Replica, ShardId};
use parking_lot::Mutex;
use runtime::{Instant, Runtime, Task};

use self::standstill::Standstills;
use super::observed::Observed;
use crate::actions::{ASKED, About, Action, Actions};
use crate::liveness::Liveness;
use crate::meta::Meta;
use crate::metadata::{Command, Intent, NewReplicas, ShardRecord};
use crate::placement::repair::{self, Cause, Pending, Plan, Rules, ShardView, Step};
use crate::routing::Router;

/// After a step that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Share of the shards whose members may change at once, in percent; one always may.
const CONCURRENT_PERCENT: usize = 10;

/// What an operator has set.
#[derive(Debug, Clone)]
pub(crate) struct RepairSettings {
    /// How long a node may be gone before others take its place.
    pub(crate) replace_after: Option<Duration>,
    /// Where all voters stand.
    pub(crate) home_region: Option<String>,
}

/// Repairs the membership of shards.
#[derive(Debug, Clone)]
pub(crate) struct Repair {
    runtime: Runtime,
    meta: Arc<Meta>,
    liveness: Arc<Liveness>,
    router: Arc<Router>,
    settings: RepairSettings,
    actions: Actions,
    work: Arc<Mutex<Work>>,
}

/// What is being done.
#[derive(Debug, Default)]
struct Work {
    /// The step of each shard that is under way, or was the last.
    shards: HashMap<ShardId, Attempt>,
    /// Newcomers that do not get on.
    standstills: Standstills,
    /// The data that is being given up.
    give_up: Option<Attempt>,
}

/// A step that is under way, or has ended.
#[derive(Debug)]
struct Attempt {
    task: Task<()>,
    /// Nothing further is begun before.
    not_before: Arc<Mutex<Instant>>,
}

impl Attempt {
    fn is_open(&self, now: Instant) -> bool {
        !self.task.is_finished() || now < *self.not_before.lock()
    }
}

/// What an operator is told of a change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) done: bool,
    pub(crate) message: String,
    /// Who comes.
    pub(crate) newcomer: NodeId,
}

impl Repair {
    pub(crate) fn new(
        runtime: &Runtime,
        meta: Arc<Meta>,
        liveness: Arc<Liveness>,
        router: Arc<Router>,
        settings: RepairSettings,
        actions: Actions,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            meta,
            liveness,
            router,
            settings,
            actions,
            work: Arc::default(),
        }
    }

    /// Begins what is due and not begun. Returns at once.
    pub(crate) fn look(&self, observed: &mut Observed) {
        let (rules, now) = (self.rules(), self.runtime.now());
        let mut work = self.work.lock();
        work.standstills.note(now, &mut observed.shards);
        let Plan { steps, give_up } = repair::plan(&observed.nodes, &observed.shards, rules);
        for step in steps {
            let shard = shard_of(step);
            if work.shards.get(&shard).is_none_or(|at| !at.is_open(now)) {
                let attempt = self.attempt(move |repair| async move { repair.take(step).await });
                work.shards.insert(shard, attempt);
            }
        }
        if let Some(node) = give_up
            && work.give_up.as_ref().is_none_or(|at| !at.is_open(now))
        {
            let attempt = self.attempt(move |repair| async move {
                let given =
                    super::give_up(&repair.meta, &repair.liveness, &repair.router, node).await;
                repair
                    .actions
                    .count(Action::SetDataAside, "damaged", About::node(node), &given);
                given
            });
            work.give_up = Some(attempt);
        }
    }

    fn attempt<F>(&self, work: impl FnOnce(Self) -> F) -> Attempt
    where
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let not_before = Arc::new(Mutex::new(self.runtime.now()));
        let (repair, later) = (self.clone(), Arc::clone(&not_before));
        let step = work(self.clone());
        let task = self.runtime.spawn("repair-step", async move {
            if let Err(error) = step.await {
                tracing::warn!(%error, "a step of a repair failed, trying again");
                *later.lock() = repair.runtime.now() + PAUSE;
            }
        });
        Attempt { task, not_before }
    }

    fn observe(&self) -> Observed {
        Observed::of(&self.meta, &self.liveness)
    }

    fn rules(&self) -> Rules {
        let (replicas, shards) = self.meta.read(|state| (state.replicas, state.shards.len()));
        Rules {
            replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
            home: self.settings.home_region.clone(),
            replace_after: self.settings.replace_after,
            changes_max: (shards * CONCURRENT_PERCENT / 100).max(1),
        }
    }

    fn record(&self, shard: ShardId) -> Result<ShardRecord, ApiError> {
        let record = self.meta.read(|state| state.shards.get(&shard).cloned());
        record.ok_or_else(|| {
            ApiError::new(Reason::UnknownShard, format!("there is no shard {shard}"))
        })
    }

    async fn take(&self, step: Step) -> Result<(), ApiError> {
        match step {
            Step::Begin {
                shard,
                change,
                cause,
            } => {
                let record = self.record(shard)?;
                // Something came first: look again.
                if record.members.change.is_some() {
                    return Ok(());
                }
                self.begin(&record, change, cause.label(), self.reason(cause, change))
                    .await
            }
            Step::GoOn { shard } => self.go_on(shard).await,
            Step::Settle { shard } => self.settle(shard).await,
            Step::TakeBack { shard, newcomer } => {
                let record = self.record(shard)?;
                let change = departure(newcomer);
                let cause = Cause::NewcomerFailed;
                self.begin(&record, change, cause.label(), self.reason(cause, change))
                    .await
            }
        }
    }

    fn shard_key(&self, shard: ShardId) -> String {
        self.meta
            .read(|state| crate::status::shard_key(state, shard))
    }

    /// Writes down what is meant.
    async fn begin(
        &self,
        record: &ShardRecord,
        change: Pending,
        label: &'static str,
        reason: String,
    ) -> Result<(), ApiError> {
        let shard = record.shard.id;
        tracing::warn!(%shard, add = ?change.add, remove = ?change.remove, reason, "the members of a shard change");
        let mut replicas = record.shard.replicas.clone();
        replicas.extend(change.add.map(|node| Replica { node, voter: false }));
        let intent = Intent {
            add: change.add,
            votes: change.votes,
            remove: change.remove,
            reason,
        };
        let restores = self.restores(record, &intent);
        let begun = self.propose(record, replicas, Some(intent)).await;
        let about = About::shard(shard).with_node(change.add.or(change.remove));
        self.actions
            .count(Action::ChangeMembers, label, about, &begun);
        if restores && begun.is_ok() {
            self.actions.recovery_begun(&self.shard_key(shard));
        }
        begun
    }

    async fn propose(
        &self,
        record: &ShardRecord,
        replicas: Vec<Replica>,
        intent: Option<Intent>,
    ) -> Result<(), ApiError> {
        let command = Command::ChangeReplicas(NewReplicas {
            shard: record.shard.id,
            incarnation: record.shard.incarnation,
            expected: record.members.version,
            replicas,
            intent,
            settled: false,
        });
        self.meta.propose(&command).await.map(drop)
    }

    fn reason(&self, cause: Cause, change: Pending) -> String {
        let known = |node: Option<NodeId>| {
            let node = node.unwrap_or_default();
            let known = self.meta.read(|state| {
                let record = state.nodes.get(&node);
                record.map(|record| (record.node.name.clone(), record.loss))
            });
            let (name, loss) = known.unwrap_or_default();
            (format!("node {node} ({name})"), loss)
        };
        let name = |node| known(node).0;
        match cause {
            Cause::Lost => {
                let (name, loss) = known(change.remove);
                format!("{name} {}", loss.words())
            }
            Cause::Gone => format!("{} has been gone for long", name(change.remove)),
            Cause::Draining => format!("{} is being drained", name(change.remove)),
            Cause::Abroad => format!("{} stands outside the home region", name(change.remove)),
            Cause::RegionLacks => format!("the region of {} has no replica", name(change.add)),
            Cause::TooFew => "the shard has too few replicas".to_owned(),
            Cause::LeftOver => format!("{} belongs to no change", name(change.remove)),
            Cause::NewcomerFailed => format!("{} came and failed", name(change.remove)),
        }
    }

    /// Replicas of a node that nobody could take now.
    pub(crate) fn stuck_on(&self, node: NodeId) -> usize {
        let (Observed { nodes, shards }, rules) = (self.observe(), self.rules());
        let taken = |shard: &ShardView| {
            repair::newcomer(&nodes, &shards, rules.clone(), shard, Some(node), None)
        };
        let holds = |shard: &&ShardView| shard.members.iter().any(|at| at.node == node);
        let held = shards.iter().filter(holds);
        held.filter(|shard| taken(shard).is_err()).count()
    }

    /// What an operator asked for: a replica more, or one in the place of another. Begins it, or says how far it is.
    pub(crate) async fn ask(
        &self,
        shard: ShardId,
        leaving: Option<NodeId>,
        newcomer: Option<NodeId>,
    ) -> Result<Asked, ApiError> {
        let record = self.record(shard)?;
        let holds = |node: NodeId| record.shard.replicas.iter().find(|at| at.node == node);
        let votes = |node: NodeId| holds(node).is_some_and(|at| at.voter);
        if let Some(change) = &record.members.change {
            let asked_for = change.intent.remove == leaving
                && newcomer.is_none_or(|node| change.intent.add.is_none_or(|add| add == node));
            let message = format!("under way: {}", describe(&change.intent));
            if !asked_for {
                let message = format!("another change of shard {shard} is {message}");
                return Err(ApiError::new(Reason::NotNeeded, message));
            }
            return Ok(Asked {
                done: false,
                message,
                newcomer: newcomer.or(change.intent.add).unwrap_or_default(),
            });
        }
        if let Some(newcomer) = newcomer.filter(|node| votes(*node))
            && leaving.is_none_or(|node| holds(node).is_none())
        {
            return Ok(Asked {
                done: true,
                message: format!("node {newcomer} holds a voting replica of shard {shard}"),
                newcomer,
            });
        }
        if let Some(node) = leaving.filter(|node| holds(*node).is_none()) {
            let message = format!("node {node} holds no replica of shard {shard}");
            return Err(ApiError::new(Reason::NotFound, message));
        }
        // Another in its place would vote, and stand elsewhere.
        if let Some(node) = leaving.filter(|node| !votes(*node)) {
            let message = format!(
                "node {node} holds a replica of shard {shard} that does not vote: drain it, and its region gets another"
            );
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        let observed = self.observe();
        let newcomer = fitting(&observed, self.rules(), shard, leaving, newcomer)?;
        let change = Pending {
            add: Some(newcomer),
            votes: true,
            remove: leaving,
        };
        let reason = "an operator asked for it".to_owned();
        self.begin(&record, change, ASKED, reason).await?;
        Ok(Asked {
            done: false,
            message: format!("node {newcomer} is given a replica of shard {shard}"),
            newcomer,
        })
    }
}

fn fitting(
    observed: &Observed,
    rules: Rules,
    shard: ShardId,
    leaving: Option<NodeId>,
    newcomer: Option<NodeId>,
) -> Result<NodeId, ApiError> {
    let view: Option<&ShardView> = observed.shards.iter().find(|at| at.id == shard);
    let view = view.ok_or_else(|| {
        let message = format!("shard {shard} waits for enough nodes");
        ApiError::new(Reason::Starting, message)
    })?;
    if !repair::has_majority(view) {
        let message = format!("shard {shard} has no majority at work");
        return Err(ApiError::new(Reason::NoQuorum, message));
    }
    let fitting = repair::newcomer(
        &observed.nodes,
        &observed.shards,
        rules,
        view,
        leaving,
        newcomer,
    );
    fitting.map_err(|problem| {
        let message = newcomer.map_or_else(
            || problem.to_owned(),
            |node| format!("node {node} {problem}"),
        );
        ApiError::new(Reason::NotNeeded, message)
    })
}

fn shard_of(step: Step) -> ShardId {
    match step {
        Step::Begin { shard, .. }
        | Step::GoOn { shard }
        | Step::TakeBack { shard, .. }
        | Step::Settle { shard } => shard,
    }
}

/// A node leaves, and nobody comes.
fn departure(node: NodeId) -> Pending {
    Pending {
        add: None,
        votes: false,
        remove: Some(node),
    }
}

/// A change for people.
fn describe(intent: &Intent) -> String {
    let mut text = String::new();
    if let Some(node) = intent.add {
        // Writing to a string cannot fail.
        let _ = write!(text, "node {node} comes, ");
    }
    if let Some(node) = intent.remove {
        let _ = write!(text, "node {node} leaves, ");
    }
    text + &intent.reason
}
