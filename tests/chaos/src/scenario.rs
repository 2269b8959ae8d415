//! One run: stream, kill in the middle of the stream, wait for the watchdog, judge.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use api::admin::v1::{GetStatusResponse, ShardState};
use api::v1;
use client::Client;
use runtime::Runtime;

use crate::deployment::{self, Deployment};
use crate::history::{History, Outcome};
use crate::oracle::{self, Violation};
use crate::report::{Kill, Report};
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
    /// Shard servers killed, spread evenly over the stream.
    pub kills: usize,
}

/// From the start of the processes until every shard serves.
const START_LIMIT: Duration = Duration::from_secs(60);
/// From a kill until every shard serves again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// For the whole stream.
const STREAM_LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Completions compared at the end, each for a start of a recorded query.
const PREFIXES_COMPARED: usize = 300;

/// Runs a plan against a cluster that has just been started and is empty.
///
/// # Errors
/// When the run could not prove anything: the cluster did not come up, a kill did not hit, a shard did not come back in
/// time, nothing was acknowledged. A broken promise is no error; it stands in the report.
pub async fn run(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    plan: &Plan,
) -> anyhow::Result<(Report, History)> {
    let client = patient_client(runtime, deployment.coordinator())?;
    wait_until_serving(runtime, &client, START_LIMIT)
        .await
        .context("the cluster did not come up")?;
    let before = deployment::recovery_attempts(deployment)?;
    let workload = Workload::start(runtime, &client, plan.queries.clone(), plan.lanes);
    let mut kills = Vec::new();
    for number in 1..=plan.kills {
        let at = plan.queries.len() * number / (plan.kills + 1);
        wait_for_progress(runtime, &workload, at).await?;
        kills.push(kill(runtime, deployment, &client, &workload, plan, number).await?);
    }
    let history = runtime
        .timeout(STREAM_LIMIT, workload.finish())
        .await
        .context("the stream did not end")??;
    let counts = listed_counts(&client).await?;
    let mut violations = oracle::judge_counts(&history, &counts);
    violations.extend(oracle::judge_acknowledgements(&history));
    let (prefixes_compared, wrong) = compare_completions(&client, &history, &counts).await?;
    violations.extend(wrong);
    let (acknowledged, open, refused) = history.tally();
    anyhow::ensure!(acknowledged > 0, "nothing was acknowledged");
    let report = Report {
        deployment: plan.name.clone(),
        seed: plan.seed,
        acknowledged,
        open,
        refused,
        repeated: repeats(&history),
        terms_compared: counts.len(),
        prefixes_compared,
        kills,
        recoveries_counted: deployment::recovery_attempts(deployment)?.saturating_sub(before),
        violations,
    };
    Ok((report, history))
}

fn repeats(history: &History) -> usize {
    let is_repeat = |outcome| matches!(outcome, Outcome::Acknowledged { repeated: true, .. });
    let operations = history.operations().iter();
    operations
        .filter(|operation| is_repeat(operation.outcome))
        .count()
}

async fn kill(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    client: &Client,
    workload: &Workload,
    plan: &Plan,
    number: usize,
) -> anyhow::Result<Kill> {
    let nodes = deployment.shard_servers();
    let choice = usize::try_from(plan.seed % nodes.len() as u64)? + number;
    let node = nodes
        .get(choice % nodes.len())
        .context("there are shard servers")?;
    let pid = deployment
        .pid(node)?
        .with_context(|| format!("{node} is not running"))?;
    let (settled, total) = workload.progress();
    anyhow::ensure!(settled < total, "the stream ended before kill {number}");
    let begun = runtime.now();
    pid.kill()?;
    // Until it is gone, the old process could be taken for the recovered one.
    wait_for(runtime, RECOVERY_LIMIT, || Ok(!pid.is_alive())).await?;
    wait_for(runtime, RECOVERY_LIMIT, || {
        Ok(deployment.pid(node)?.is_some_and(|new| new != pid))
    })
    .await
    .with_context(|| format!("nobody restarted {node}"))?;
    wait_until_serving(runtime, client, RECOVERY_LIMIT)
        .await
        .with_context(|| format!("{node} did not serve again"))?;
    let took = runtime.now().saturating_since(begun);
    Ok(Kill {
        node: node.clone(),
        after_records: settled,
        recovered_after_ms: u64::try_from(took.as_millis())?,
    })
}

/// Waits for a condition; the interval only bounds how late it is noticed.
async fn wait_for(
    runtime: &Runtime,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = runtime.now() + limit;
    while !condition()? {
        anyhow::ensure!(runtime.now() < deadline, "not within {limit:?}");
        runtime.sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn wait_for_progress(
    runtime: &Runtime,
    workload: &Workload,
    records: usize,
) -> anyhow::Result<()> {
    wait_for(runtime, STREAM_LIMIT, || {
        Ok(workload.progress().0 >= records)
    })
    .await
    .with_context(|| format!("the stream did not reach {records} records"))
}

fn is_serving(status: &GetStatusResponse) -> bool {
    !status.shards.is_empty()
        && status
            .shards
            .iter()
            .all(|shard| shard.state() == ShardState::Serving)
}

async fn wait_until_serving(
    runtime: &Runtime,
    client: &Client,
    limit: Duration,
) -> anyhow::Result<()> {
    let deadline = runtime.now() + limit;
    loop {
        let status = client.status().await;
        if status.as_ref().is_ok_and(is_serving) {
            return Ok(());
        }
        anyhow::ensure!(
            runtime.now() < deadline,
            "not every shard serves after {limit:?}: {status:?}"
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
