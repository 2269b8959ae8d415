//! One run: stream, strike in the middle of the stream, wait until the cluster is whole again, judge.
//!
//! On failure: a run that ends early leaves what there is, the history so far, its verdict, and why it ended.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::v1;
use client::Client;
use runtime::Runtime;

use crate::deployment::{self, Deployment, SHARDS, Shape};
use crate::faults::{Fault, Scene, wait_for, watchdogs_answer};
use crate::history::{History, Outcome};
use crate::journal::Journal;
use crate::oracle::{self, Violation};
use crate::report::{Blow, Report, Told};
use crate::whole::{settled_replicas, wait_until_whole};
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
    /// The file that it is from; without one the seed made it.
    pub file: Option<PathBuf>,
    /// Records in flight.
    pub lanes: usize,
    /// What is done to the cluster, spread evenly over the stream.
    pub faults: Vec<Fault>,
    /// How long a leader stands still.
    pub standstill: Duration,
}

impl Plan {
    fn told(&self, shape: Shape) -> Told {
        Told {
            coordinators: shape.coordinators,
            queries: self.file.clone(),
            records: self.queries.len(),
            lanes: self.lanes,
            faults: self.faults.clone(),
            standstill_s: self.standstill.as_secs(),
            command: self.command(shape),
        }
    }

    /// The command that does the same.
    fn command(&self, shape: Shape) -> String {
        let mut words = vec![
            format!("chaos run --deployment {} --seed {}", self.name, self.seed),
            format!("--records {} --lanes {}", self.queries.len(), self.lanes),
            format!("--standstill {}", self.standstill.as_secs()),
        ];
        if let Some(file) = &self.file {
            words.push(format!("--queries {}", file.display()));
        }
        if shape.replicas > 1 {
            words.push("--replicated".to_owned());
        }
        if self.faults.is_empty() {
            words.push("--rounds 0".to_owned());
        } else {
            let faults: Vec<String> = self.faults.iter().map(|fault| fault.name()).collect();
            words.push(format!("--rounds 1 --faults {}", faults.join(",")));
        }
        words.join(" ")
    }
}

/// From the start of the processes until every shard serves.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// From a fault until every replica of every shard serves again.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// For the whole stream.
const STREAM_LIMIT: Duration = Duration::from_secs(600);
/// Completions compared at the end, each for a start of a recorded query.
const PREFIXES_COMPARED: usize = 300;

/// Runs a plan against a cluster that has just been started and is empty, until its end or until it is interrupted.
///
/// A broken promise stands in the report as a violation. Its error says why the run could not prove anything: the cluster did not come
/// up, a fault did not hit, a replica did not come back in time, nothing was acknowledged, or it was interrupted. The report then has
/// what had happened by that time.
pub async fn run(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    plan: &Plan,
    interrupted: impl Future<Output = ()>,
) -> (Report, History) {
    let mut course = Course {
        report: Report {
            deployment: plan.name.clone(),
            replicas: deployment.shape().replicas,
            seed: plan.seed,
            plan: plan.told(deployment.shape()),
            ..Report::default()
        },
        journal: None,
        struck: Vec::new(),
        attempts_before: 0,
    };
    let outcome = tokio::select! {
        outcome = Box::pin(course.run(runtime, deployment, plan)) => outcome,
        () = interrupted => Err(anyhow::anyhow!("it was interrupted")),
    };
    let outcome = match deployment.started_again() {
        Ok(times) => {
            course.report.started_again = times;
            outcome
        }
        Err(error) => outcome.and(Err(error)),
    };
    course.ended(outcome)
}

/// A run under way, and what it leaves behind wherever it ends.
struct Course {
    report: Report,
    /// None before the stream begins.
    journal: Option<Journal>,
    struck: Vec<Struck>,
    /// Recovery attempts that the watchdogs had counted when they were last asked.
    attempts_before: u64,
}

impl Course {
    async fn run(
        &mut self,
        runtime: &Runtime,
        deployment: &dyn Deployment,
        plan: &Plan,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            deployment.shape().replicas > 1
                || !plan.faults.iter().any(|fault| fault.needs_replicas()),
            "what there is one of, a replica of a shard or a coordinator, does not come back by itself from a lost or damaged disk"
        );
        let client = patient_client(runtime, deployment.addresses())?;
        wait_until_whole(runtime, deployment, START_LIMIT)
            .await
            .context("the cluster did not come up")?;
        watchdogs_answer(runtime, deployment, START_LIMIT).await?;
        self.attempts_before = deployment::recovery_attempts(deployment)?;
        let queries = plan.queries.clone();
        let (lanes, seed) = (plan.lanes, plan.seed);
        let workload = Workload::start(runtime, deployment, &client, queries, lanes, seed).await?;
        let journal = self.journal.insert(workload.journal().clone()).clone();
        let scene = Scene {
            runtime,
            deployment,
            client: &client,
            journal: &journal,
            standstill: plan.standstill,
        };
        self.strike_all(&scene, &workload, plan).await?;
        runtime
            .timeout(STREAM_LIMIT, workload.finish())
            .await
            .context("the stream did not end")??;
        self.count_recoveries(deployment)?;
        self.judge_what_is_held(&scene).await?;
        let history = journal.history();
        let (acknowledged, _, _) = history.tally();
        anyhow::ensure!(acknowledged > 0, "nothing was acknowledged");
        let reads = history.heard();
        anyhow::ensure!(
            reads.iter().all(|heard| heard.answered > 0),
            "no read of some level was answered: {reads:?}"
        );
        Ok(())
    }

    /// Strikes by the plan, spread over the stream, each time at a cluster that is whole.
    async fn strike_all(
        &mut self,
        scene: &Scene<'_>,
        workload: &Workload,
        plan: &Plan,
    ) -> anyhow::Result<()> {
        for (number, fault) in (1..).zip(&plan.faults) {
            let at = plan.queries.len() * number / (plan.faults.len() + 1);
            wait_for_progress(scene.runtime, workload, at).await?;
            let first = usize::try_from(plan.seed % SHARDS as u64)? + number;
            for place in first..first + fault.blows(SHARDS) {
                if fault.ends_watchdogs() {
                    // Those that come after them count anew.
                    self.count_recoveries(scene.deployment)?;
                    self.attempts_before = 0;
                }
                let struck = strike(scene, workload, *fault, place).await?;
                self.struck.push(struck);
            }
        }
        Ok(())
    }

    /// Adds what the watchdogs have counted since they were last asked.
    fn count_recoveries(&mut self, deployment: &dyn Deployment) -> anyhow::Result<()> {
        let attempts = deployment::recovery_attempts(deployment)?;
        self.report.recoveries_counted += attempts.saturating_sub(self.attempts_before);
        self.attempts_before = attempts;
        Ok(())
    }

    /// Judges what the cluster holds now that nobody writes: what it answers, and its replicas among themselves.
    async fn judge_what_is_held(&mut self, scene: &Scene<'_>) -> anyhow::Result<()> {
        let history = scene.journal.history();
        let report = &mut self.report;
        let counts = listed_counts(scene.client).await?;
        report.terms_compared = counts.len();
        let judged = oracle::judge_counts(&history, &counts);
        report.violations.extend(judged);
        let (compared, wrong) = compare_completions(scene.client, &history, &counts).await?;
        report.prefixes_compared = compared;
        report.violations.extend(wrong);
        let held = settled_replicas(scene.runtime, scene.deployment, RECOVERY_LIMIT)
            .await
            .context("the replicas were not compared")?;
        report.replicas_compared = held.len();
        report.violations.extend(oracle::judge_replicas(&held));
        Ok(())
    }

    /// Adds what the history tells, which may be cut off anywhere: what was under way then is open in it.
    fn ended(self, outcome: anyhow::Result<()>) -> (Report, History) {
        let Self {
            mut report,
            journal,
            struck,
            ..
        } = self;
        let history = journal.map_or_else(History::default, |journal| journal.history());
        report.error = outcome.err().map(|error| format!("{error:#}"));
        let standstills = struck.iter().filter_map(|at| at.blow.standstill.as_ref());
        let broken: Vec<Violation> = standstills.flat_map(|at| at.violations()).collect();
        report.violations.extend(broken);
        let acknowledgements = oracle::judge_acknowledgements(&history);
        report.violations.extend(acknowledgements);
        let answers = oracle::answers::judge_answers(&history);
        report.violations.extend(answers);
        report.blows = struck.into_iter().map(|at| at.judged(&history)).collect();
        (report.acknowledged, report.open, report.refused) = history.tally();
        report.repeated = repeats(&history);
        (report.batches, report.deletions) = (history.batches(), history.deletions());
        report.reads = history.heard();
        report.pace = history.pace();
        (report, history)
    }
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
    let (runtime, deployment) = (scene.runtime, scene.deployment);
    workload.ensure_flowing()?;
    let after_records = workload.settled();
    let begun = runtime.now();
    let from_us = scene.journal.now_us();
    let hit = fault.strike(scene, place).await?;
    wait_until_whole(runtime, deployment, RECOVERY_LIMIT)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(faults: &[Fault]) -> Plan {
        Plan {
            name: "processes".to_owned(),
            seed: 7,
            queries: vec!["a".to_owned(), "b".to_owned()],
            file: None,
            lanes: 16,
            faults: faults.to_vec(),
            standstill: Duration::from_secs(12),
        }
    }

    #[test]
    fn a_report_says_how_to_run_it_again() {
        let told = plan(&[Fault::KillAll, Fault::Kill]).told(Shape::REPLICATED);
        assert_eq!(
            told.command,
            "chaos run --deployment processes --seed 7 --records 2 --lanes 16 --standstill 12 \
             --replicated --rounds 1 --faults kill-all,kill"
        );
        assert_eq!(told.faults, [Fault::KillAll, Fault::Kill]);
        let from_a_file = Plan {
            file: Some("queries.zst".into()),
            ..plan(&[])
        };
        assert_eq!(
            from_a_file.told(Shape::SINGLE).command,
            "chaos run --deployment processes --seed 7 --records 2 --lanes 16 --standstill 12 \
             --queries queries.zst --rounds 0"
        );
    }
}
