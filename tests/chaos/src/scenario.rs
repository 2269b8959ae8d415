//! One run: stream, strike in the middle of the stream, wait until the cluster is whole again, judge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::v1::{GetStatusResponse, NodeStatus, ReplicaStatus, ShardState, ShardStatus};
use api::v1;
use client::Client;
use runtime::Runtime;

use crate::deployment::{self, Deployment, SHARDS, Shape};
use crate::faults::{Fault, LOOK_INTERVAL, Scene, wait_for};
use crate::history::{History, Outcome};
use crate::oracle::{self, Violation};
use crate::report::{Blow, Report};
use crate::workload::{Workload, patient_client};

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Named in the report.
    pub name: String,
    /// Chooses the victims.
    pub seed: u64,
    /// What is recorded, in order.
    pub queries: Vec<String>,
    /// Records in flight.
    pub lanes: usize,
    /// What is done to the cluster, spread evenly over the stream.
    pub faults: Vec<Fault>,
    /// How long a leader stands still.
    pub standstill: Duration,
}

/// From the start of the processes until every shard serves.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// From a fault until every replica of every shard serves again.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// For the whole stream.
const STREAM_LIMIT: Duration = Duration::from_secs(600);
/// Completions compared at the end, each for a start of a recorded query.
const PREFIXES_COMPARED: usize = 300;

/// Runs a plan against a cluster that has just been started and is empty.
///
/// # Errors
/// When the run could not prove anything: the cluster did not come up, a fault did not hit, a replica did not come back in
/// time, nothing was acknowledged. A broken promise is no error; it stands in the report.
pub async fn run(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    plan: &Plan,
) -> anyhow::Result<(Report, History)> {
    let shape = deployment.shape();
    anyhow::ensure!(
        shape.replicas > 1 || !plan.faults.iter().any(|fault| fault.needs_replicas()),
        "a shard with one replica does not come back by itself from a lost or damaged disk"
    );
    let client = patient_client(runtime, deployment.addresses())?;
    wait_until_whole(runtime, &client, shape, START_LIMIT)
        .await
        .context("the cluster did not come up")?;
    let before = deployment::recovery_attempts(deployment)?;
    let queries = plan.queries.clone();
    let workload = Workload::start(runtime, deployment, &client, queries, plan.lanes, plan.seed)?;
    let journal = workload.journal().clone();
    let scene = Scene {
        runtime,
        deployment,
        client: &client,
        journal: &journal,
        standstill: plan.standstill,
    };
    let struck = strike_all(&scene, &workload, plan).await?;
    runtime
        .timeout(STREAM_LIMIT, workload.finish())
        .await
        .context("the stream did not end")??;
    let history = journal.history();
    let standstills = struck.iter().filter_map(|at| at.blow.standstill.as_ref());
    let mut violations: Vec<Violation> = standstills.flat_map(|at| at.violations()).collect();
    let blows = struck.into_iter().map(|at| at.judged(&history)).collect();
    let counts = listed_counts(&client).await?;
    violations.extend(oracle::judge_counts(&history, &counts));
    violations.extend(oracle::judge_acknowledgements(&history));
    violations.extend(oracle::answers::judge_answers(&history));
    let (prefixes_compared, wrong) = compare_completions(&client, &history, &counts).await?;
    violations.extend(wrong);
    let (acknowledged, open, refused) = history.tally();
    anyhow::ensure!(acknowledged > 0, "nothing was acknowledged");
    let reads = history.heard();
    anyhow::ensure!(
        reads.iter().all(|heard| heard.answered > 0),
        "no read of some level was answered: {reads:?}"
    );
    let report = Report {
        deployment: plan.name.clone(),
        replicas: shape.replicas,
        seed: plan.seed,
        acknowledged,
        open,
        refused,
        repeated: repeats(&history),
        reads,
        terms_compared: counts.len(),
        prefixes_compared,
        blows,
        pace: history.pace(),
        recoveries_counted: deployment::recovery_attempts(deployment)?.saturating_sub(before),
        violations,
    };
    Ok((report, history))
}

/// Strikes by the plan, spread over the stream, each time at a cluster that is whole.
async fn strike_all(
    scene: &Scene<'_>,
    workload: &Workload,
    plan: &Plan,
) -> anyhow::Result<Vec<Struck>> {
    let mut struck = Vec::new();
    for (number, fault) in (1..).zip(&plan.faults) {
        let at = plan.queries.len() * number / (plan.faults.len() + 1);
        wait_for_progress(scene.runtime, workload, at).await?;
        let first = usize::try_from(plan.seed % SHARDS as u64)? + number;
        for place in first..first + fault.blows(SHARDS) {
            struck.push(strike(scene, workload, *fault, place).await?);
        }
    }
    Ok(struck)
}

fn repeats(history: &History) -> usize {
    let is_repeat = |outcome| matches!(outcome, Outcome::Acknowledged { repeated: true, .. });
    let operations = history.operations().iter();
    operations
        .filter(|operation| is_repeat(operation.outcome))
        .count()
}

async fn strike(
    scene: &Scene<'_>,
    workload: &Workload,
    fault: Fault,
    place: usize,
) -> anyhow::Result<Struck> {
    let (runtime, shape) = (scene.runtime, scene.deployment.shape());
    let after_records = workload.settled();
    let begun = runtime.now();
    let from_us = scene.journal.now_us();
    let hit = fault.strike(scene, place).await?;
    wait_until_whole(runtime, scene.client, shape, RECOVERY_LIMIT)
        .await
        .with_context(|| format!("the cluster was not whole again after {fault:?} of {hit:?}"))?;
    let took = runtime.now().saturating_since(begun);
    Ok(Struck {
        blow: Blow {
            fault,
            nodes: hit.nodes,
            after_records,
            whole_after_ms: u64::try_from(took.as_millis())?,
            longest_wait_ms: 0,
            standstill: hit.standstill,
        },
        from_us,
        to_us: scene.journal.now_us(),
    })
}

/// A blow, and when it was felt by the history's clock.
struct Struck {
    blow: Blow,
    from_us: u64,
    to_us: u64,
}

impl Struck {
    /// With what only the whole history tells.
    fn judged(self, history: &History) -> Blow {
        let longest = history.longest_wait_us(self.from_us, self.to_us);
        Blow {
            longest_wait_ms: longest / 1000,
            ..self.blow
        }
    }
}

async fn wait_for_progress(
    runtime: &Runtime,
    workload: &Workload,
    records: usize,
) -> anyhow::Result<()> {
    wait_for(runtime, STREAM_LIMIT, || Ok(workload.settled() >= records))
        .await
        .with_context(|| format!("the stream did not reach {records} records"))
}

/// Whether every shard serves, with as many replicas as it should have, by what servers said within this time.
fn is_whole(status: &GetStatusResponse, shape: Shape, within: Duration) -> bool {
    let was_heard = |node: &NodeStatus| {
        let silent = u64::try_from(node.silent_ms).map(Duration::from_millis);
        node.alive && !node.lost && silent.is_ok_and(|silent| silent < within)
    };
    let heard = status.nodes.iter().filter(|node| was_heard(node));
    let heard: BTreeSet<u64> = heard.map(|node| node.node_id).collect();
    let is_whole = |shard: &ShardStatus| {
        let replicas = &shard.replicas;
        let is_sound =
            |replica: &&ReplicaStatus| replica.serving && heard.contains(&replica.node_id);
        shard.state() == ShardState::Serving
            && replicas.len() == shape.replicas
            && replicas.iter().filter(is_sound).count() == shape.replicas
    };
    status.shards.len() == SHARDS && status.shards.iter().all(is_whole)
}

/// Waits until the cluster is whole by what its servers have said from now on: what they said before may no longer be true.
pub(crate) async fn wait_until_whole(
    runtime: &Runtime,
    client: &Client,
    shape: Shape,
    limit: Duration,
) -> anyhow::Result<()> {
    let begun = runtime.now();
    loop {
        let passed = runtime.now().saturating_since(begun);
        let status = client.status().await;
        if status.as_ref().is_ok_and(|at| is_whole(at, shape, passed)) {
            return Ok(());
        }
        anyhow::ensure!(
            passed < limit,
            "not every replica serves after {limit:?}: {status:?}"
        );
        runtime.sleep(LOOK_INTERVAL).await;
    }
}

async fn listed_counts(client: &Client) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let mut pages = client.list_terms(v1::ListTermsRequest::default());
    while let Some(page) = pages.next().await? {
        for listed in page {
            let before = counts.insert(listed.term.clone(), listed.count);
            anyhow::ensure!(before.is_none(), "{:?} was listed twice", listed.term);
        }
    }
    Ok(counts)
}

async fn compare_completions(
    client: &Client,
    history: &History,
    counts: &BTreeMap<String, u64>,
) -> anyhow::Result<(usize, Vec<Violation>)> {
    let operations = history.operations();
    let step = (operations.len() / PREFIXES_COMPARED).max(1);
    let mut compared = 0;
    let mut violations = Vec::new();
    for (number, operation) in operations.iter().step_by(step).enumerate() {
        let prefix: String = operation.term.chars().take(number % 6).collect();
        let k = [1, 9, 10, 11, 100][number % 5];
        let response = client
            .top_k(v1::GetTopKRequest {
                prefix: prefix.clone(),
                k,
                require_complete: true,
                ..v1::GetTopKRequest::default()
            })
            .await?;
        let answered: Vec<(String, u64)> = response
            .suggestions
            .into_iter()
            .map(|suggestion| (suggestion.term, suggestion.count))
            .collect();
        violations.extend(oracle::judge_top_k(
            counts,
            &prefix,
            usize::try_from(k)?,
            &answered,
        ));
        compared += 1;
    }
    Ok((compared, violations))
}
