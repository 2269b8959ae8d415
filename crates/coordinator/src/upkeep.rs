//! What a coordinator does without being asked: places shards, says whether it is ready, remembers how far shards have come,
//! goes on with recoveries that were broken off, has replicas replaced that are lost, and spreads leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::ShardState;
use cluster::{Epoch, NodeId, ShardId};
use rpc::Health;
use rpc::health::READY_SERVICE;
use runtime::{CancellationToken, Instant, Runtime};
use telemetry::{Gauge, GaugeFamily, Metrics, MetricsError};

use crate::actions::{About, Action, Actions};
use crate::liveness::{Heard, Liveness};
use crate::meta::Meta;
use crate::metadata::{Command, ShardProgress, State};
use crate::placement::{self, Candidate, Wanted};
use crate::recovery::{Balance, Observed, Recovery, Repair};
use crate::routing::Router;
use crate::status;

/// How often it looks while the cluster is coming up, and afterwards.
const LOOK_FAST: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(500);
/// How long a start waits for shards that do not come.
const GRACE: Duration = Duration::from_secs(30);
/// How often progress is written to the metadata.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// The loop and what it works on.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) runtime: Runtime,
    pub(crate) meta: Arc<Meta>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) router: Arc<Router>,
    pub(crate) recovery: Recovery,
    pub(crate) repair: Repair,
    pub(crate) balance: Balance,
    pub(crate) health: Health,
    pub(crate) expect_nodes: usize,
    /// Where all voters stand; anywhere, if none.
    pub(crate) home_region: Option<String>,
    pub(crate) gauges: Gauges,
    pub(crate) actions: Actions,
}

/// What is shown of shards and nodes.
#[derive(Debug)]
pub(crate) struct Gauges {
    shards: GaugeFamily<1>,
    nodes: GaugeFamily<1>,
    states: GaugeFamily<1>,
    not_serving: GaugeFamily<1>,
    changes: Gauge,
    differing: GaugeFamily<1>,
    majority: Gauge,
    leads: Gauge,
}

impl Gauges {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let part = metrics.part("coordinator")?;
        Ok(Self {
            shards: part.gauges("shards_count", "Shards by state.", ["state"])?,
            nodes: part.gauges(
                "nodes_count",
                "Shard servers: alive, silent, lost.",
                ["state"],
            )?,
            states: part.gauges(
                "shard_serving_ratio",
                "1 while the shard serves, as far as this coordinator has heard, else 0.",
                ["shard_key"],
            )?,
            not_serving: part.gauges(
                "replicas_not_serving_count",
                "Replicas of the shard that do not serve, as far as this coordinator has heard.",
                ["shard_key"],
            )?,
            changes: part.gauge(
                "member_changes_count",
                "Shards whose members are being changed.",
            )?,
            differing: part.gauges(
                "differing_shards_count",
                "Shards whose replicas are not the same: refuted where a majority agrees, undecided where none does.",
                ["verdict"],
            )?,
            majority: part.gauge(
                "metadata_majority_state",
                "1 while the metadata can be changed through this coordinator, else 0.",
            )?,
            leads: part.gauge(
                "metadata_leader_state",
                "1 while this coordinator leads the metadata and holds its lease, else 0.",
            )?,
        })
    }
}

/// What the loop remembers.
#[derive(Debug, Default)]
struct Memory {
    epoch: Epoch,
    ready: bool,
    noted: BTreeMap<ShardId, u64>,
    noted_at: Instant,
    /// Shards whose replicas differ without a majority, as they were told of.
    undecided: BTreeSet<ShardId>,
}

impl Upkeep {
    /// Runs until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let begun = self.runtime.now();
        loop {
            let pause = if memory.ready { LOOK } else { LOOK_FAST };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.runtime.sleep(pause) => {}
            }
            let heard = self.liveness.all();
            // What only one may do is done by the one that leads. Should another begin to lead meanwhile: every command names
            // what it expects to find, and the second of two is refused.
            if self.meta.leads() {
                self.place(&heard).await;
                self.note_progress(&heard, &mut memory).await;
                let mut observed = Observed::of(&self.meta, &self.liveness);
                self.repair.look(&mut observed);
                self.balance.look(&observed);
            }
            self.recovery.resume();
            let epoch = self.meta.read(|state| state.epoch);
            if epoch != memory.epoch {
                memory.epoch = epoch;
                self.router.map_changed();
            }
            memory.ready |= self.meta.read(|state| {
                let waited = self.runtime.now().saturating_since(begun);
                is_ready(state, &heard, waited)
            });
            // Without a majority of the coordinators it still routes, by the last map.
            let ready = memory.ready && !stop.is_cancelled();
            self.health.set(READY_SERVICE, ready);
            self.show(&heard);
            self.show_differences(&heard, &mut memory);
            let majority = self.meta.is_available();
            self.gauges.majority.set_count(majority.into());
            self.gauges.leads.set_count(self.meta.leads().into());
        }
    }

    async fn place(&self, heard: &BTreeMap<NodeId, Heard>) {
        let plan = self.meta.read(|state| {
            let wanted = Wanted {
                nodes: self.expect_nodes,
                replicas: usize::try_from(state.replicas).unwrap_or(usize::MAX),
            };
            plan(state, heard, wanted, self.home_region.as_deref())
        });
        if plan.is_empty() {
            return;
        }
        tracing::info!(?plan, "placing shards");
        let placed = self.meta.propose(&Command::PlaceShards(plan)).await;
        let about = About::default();
        self.actions
            .count(Action::PlaceShards, "unplaced", about, &placed);
        if let Err(error) = placed {
            tracing::warn!(%error, "shards were not placed, trying again");
        }
    }

    async fn note_progress(&self, heard: &BTreeMap<NodeId, Heard>, memory: &mut Memory) {
        let now = self.runtime.now();
        if now.saturating_since(memory.noted_at) < NOTE_EVERY {
            return;
        }
        memory.noted_at = now;
        let progress = self.meta.read(|state| progress(state, heard));
        let changed: Vec<ShardProgress> = progress
            .into_iter()
            .filter(|at| memory.noted.get(&at.shard) != Some(&at.index))
            .collect();
        if changed.is_empty() {
            return;
        }
        match self
            .meta
            .propose(&Command::NoteProgress(changed.clone()))
            .await
        {
            Ok(_) => memory
                .noted
                .extend(changed.iter().map(|at| (at.shard, at.index))),
            Err(error) => tracing::warn!(%error, "the shards' progress was not noted"),
        }
    }

    /// Shows and tells of replicas that are not the same. Where a majority agrees, the registry has the others stop; where none
    /// does, only a person can choose.
    fn show_differences(&self, heard: &BTreeMap<NodeId, Heard>, memory: &mut Memory) {
        let (mut refuted, mut undecided) = (0, BTreeSet::new());
        self.meta.read(|state| {
            for record in state.shards.values() {
                match status::compared(heard, record) {
                    Some(verdict) if verdict.is_undecided() => {
                        undecided.insert(record.shard.id);
                    }
                    Some(verdict) => refuted += u64::from(!verdict.differing.is_empty()),
                    None => {}
                }
            }
        });
        for shard in undecided.difference(&memory.undecided) {
            tracing::error!(%shard, "the replicas differ and no majority agrees: nobody is chosen, a person must look");
        }
        let count = |verdict, count| self.gauges.differing.with([verdict]).set_count(count);
        count("refuted", refuted);
        count("undecided", undecided.len() as u64);
        memory.undecided = undecided;
    }

    fn show(&self, heard: &BTreeMap<NodeId, Heard>) {
        let mut shards: BTreeMap<&str, u64> =
            STATES.iter().map(|state| (label(*state), 0)).collect();
        let mut nodes: BTreeMap<&str, u64> =
            ["alive", "silent", "lost"].map(|state| (state, 0)).into();
        self.meta.read(|state| {
            for record in state.shards.values() {
                let (judged, _) = status::judge(state, heard, record);
                *shards.entry(label(judged)).or_default() += 1;
                let key = status::shard_key(state, record.shard.id);
                let serving = judged == ShardState::Serving;
                self.gauges
                    .states
                    .with([&key])
                    .set_count(u64::from(serving));
                let away = status::not_serving(heard, record) as u64;
                self.gauges.not_serving.with([&key]).set_count(away);
            }
            for (id, record) in &state.nodes {
                let alive = heard.get(id).is_some_and(|heard| heard.alive);
                let label = match (record.node.lost, alive) {
                    (true, _) => "lost",
                    (false, true) => "alive",
                    (false, false) => "silent",
                };
                *nodes.entry(label).or_default() += 1;
            }
        });
        let changes = self.meta.read(|state| {
            let shards = state.shards.values();
            shards.filter(|at| at.members.change.is_some()).count()
        });
        self.gauges.changes.set_count(changes as u64);
        for (state, count) in shards {
            self.gauges.shards.with([state]).set_count(count);
        }
        for (state, count) in nodes {
            self.gauges.nodes.with([state]).set_count(count);
        }
    }
}

const STATES: [ShardState; 5] = [
    ShardState::Unplaced,
    ShardState::Recovering,
    ShardState::Serving,
    ShardState::Unreachable,
    ShardState::DataLoss,
];

/// A state as metrics, the page and the command line call it.
pub(crate) fn label(state: ShardState) -> &'static str {
    match state {
        ShardState::Unspecified => "unknown",
        ShardState::Unplaced => "unplaced",
        ShardState::Recovering => "recovering",
        ShardState::Serving => "serving",
        ShardState::Unreachable => "unreachable",
        ShardState::DataLoss => "data loss",
    }
}

/// Ready when every shard was seen serving, or is known to wait for a person. A shard that stays away holds the others up for
/// [`GRACE`] only: answers then say what they lack.
fn is_ready(state: &State, heard: &BTreeMap<NodeId, Heard>, waited: Duration) -> bool {
    let judged: Vec<ShardState> = state
        .shards
        .values()
        .map(|record| status::judge(state, heard, record).0)
        .collect();
    let settled = |at: &ShardState| matches!(at, ShardState::Serving | ShardState::DataLoss);
    let placed = |at: &ShardState| *at != ShardState::Unplaced;
    let any_serves = judged.contains(&ShardState::Serving);
    let all_settled = judged.iter().all(settled) && any_serves;
    all_settled || (waited >= GRACE && any_serves && judged.iter().all(placed))
}

fn plan(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    wanted: Wanted,
    home: Option<&str>,
) -> Vec<(ShardId, Vec<NodeId>)> {
    let unplaced: Vec<ShardId> = state
        .shards
        .values()
        .filter(|record| record.shard.replicas.is_empty())
        .map(|record| record.shard.id)
        .collect();
    if unplaced.is_empty() {
        return Vec::new();
    }
    let is_alive = |id: &NodeId| heard.get(id).is_some_and(|heard| heard.alive);
    let candidates: Vec<Candidate> = state
        .nodes
        .values()
        .filter(|record| !record.draining)
        .filter(|record| home.is_none_or(|home| record.node.region == home))
        .map(|record| &record.node)
        .filter(|node| !node.lost && is_alive(&node.id))
        .map(|node| Candidate {
            id: node.id,
            name: node.name.clone(),
            replicas: state.replicas_on(node.id),
        })
        .collect();
    placement::plan(&unplaced, &candidates, wanted)
}

/// How far each shard's present life has come, by the best of its replicas.
fn progress(state: &State, heard: &BTreeMap<NodeId, Heard>) -> Vec<ShardProgress> {
    let furthest = |record| {
        let reports = status::replicas(heard, record);
        reports.into_iter().map(|at| at.applied_index).max()
    };
    state
        .shards
        .values()
        .filter_map(|record| {
            let index = furthest(record)?;
            (index > record.last_known_index).then_some(ShardProgress {
                shard: record.shard.id,
                incarnation: record.shard.incarnation,
                index,
            })
        })
        .collect()
}
