//! How long nobody can write after the death of a leader: the leader of one shard after another is killed, and what is asked of
//! that shard right then is timed.
//!
//! What always holds: nothing else is done to the cluster, every round begins with a cluster that has been whole for
//! two seconds, and a round whose Record
//! was not acknowledged, or whose victim did not lead, fails the measurement. Completions are asked all the while, by several readers at a time
//! and each of them once: whatever a coordinator does not answer counts as failed. All of them are told of, and how long the slowest took.

#![expect(
    clippy::disallowed_methods,
    reason = "a report is not data that must survive"
)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::v1::{GetStatusResponse, NodeStatus, ReplicaRole, ShardStatus};
use api::v1;
use client::Client;
use runtime::{Runtime, Task};
use serde::Serialize;

use crate::deployment::Deployment;
use crate::faults::wait_for;
use crate::history::nearest_rank;
use crate::scenario::{RECOVERY_LIMIT, START_LIMIT};
use crate::whole::wait_until_whole;
use crate::workload::{hasty_client, patient_client};

/// Who ask for completions at the same time, spread over the coordinators.
const READERS: usize = 16;
/// What a reader pauses after a completion: all of them together must leave the machine to the cluster.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// For one completion, which is asked for once.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// How long a cluster is left alone once it is whole. A replica that has just started does not vote for most of a second, which is
/// part of what two deaths in a row cost and not of what one does.
const SETTLED: Duration = Duration::from_secs(2);

/// What one death cost.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The shard whose leader was killed.
    pub shard: u64,
    /// The server that was killed.
    pub node: String,
    /// From the kill until a Record that was sent right after it was acknowledged, milliseconds.
    pub unwritten_ms: u64,
    /// The longest that a completion of that shard was waited for, whether it was answered or not, milliseconds.
    pub slowest_read_ms: u64,
    /// Completions that were asked until the Record was acknowledged, by all readers together.
    pub reads: u64,
    /// Those that were not answered, or not in full. None was asked for again.
    pub failed_reads: u64,
    /// Why the first of these failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What all of them cost.
#[derive(Debug, Clone, Serialize)]
pub struct Failover {
    /// In the order of the deaths.
    pub rounds: Vec<Round>,
}

impl Failover {
    /// Writes `failover.json` into a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(folder.join("failover.json"), text)?;
        Ok(())
    }

    /// The time that so many of the rounds did not exceed, milliseconds.
    fn unwritten_ms(&self, percent: usize) -> u64 {
        let mut times: Vec<u64> = self.rounds.iter().map(|round| round.unwritten_ms).collect();
        times.sort_unstable();
        nearest_rank(&times, percent)
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads: u64 = self.rounds.iter().map(|round| round.reads).sum();
        let failed: u64 = self.rounds.iter().map(|round| round.failed_reads).sum();
        let slowest = self.rounds.iter().map(|round| round.slowest_read_ms).max();
        write!(
            formatter,
            "{} leaders killed: first write acknowledged after {} ms (p50), {} ms (p90), {} ms (p99), {} ms (longest); \
             {failed} of {reads} completions of {READERS} readers failed, each asked once, the slowest took {} ms",
            self.rounds.len(),
            self.unwritten_ms(50),
            self.unwritten_ms(90),
            self.unwritten_ms(99),
            self.unwritten_ms(100),
            slowest.unwrap_or_default()
        )
    }
}

/// Kills leaders, one a round.
///
/// # Errors
/// When the cluster does not come up or back, or a round proves nothing.
pub async fn measure(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    rounds: usize,
) -> anyhow::Result<Failover> {
    let writer = patient_client(runtime, deployment.addresses())?;
    let readers = readers(runtime, deployment.addresses())?;
    wait_until_whole(runtime, deployment, START_LIMIT)
        .await
        .context("the cluster did not come up")?;
    let mut done = Vec::new();
    for number in 0..rounds {
        runtime.sleep(SETTLED).await;
        done.push(round(runtime, deployment, &writer, &readers, number).await?);
        wait_until_whole(runtime, deployment, RECOVERY_LIMIT)
            .await
            .with_context(|| format!("the cluster was not whole again after {done:?}"))?;
    }
    Ok(Failover { rounds: done })
}

/// Clients that ask once, each of them another coordinator first.
fn readers(runtime: &Runtime, coordinators: &[String]) -> anyhow::Result<Vec<Client>> {
    let reader = |number: usize| {
        let mut endpoints = coordinators.to_vec();
        endpoints.rotate_left(number.checked_rem(coordinators.len()).unwrap_or(0));
        hasty_client(runtime, &endpoints, READ_PATIENCE)
    };
    (0..READERS).map(reader).collect()
}

async fn round(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    writer: &Client,
    readers: &[Client],
    number: usize,
) -> anyhow::Result<Round> {
    let status = writer.status().await?;
    let at = number.checked_rem(status.shards.len());
    let shard = at.and_then(|at| status.shards.get(at));
    let shard = shard.context("there are shards")?;
    let leader = leader_of(&status, shard).context("a whole shard has a leader")?;
    let node = leader.name.clone();
    let term = format!("{}0", shard.shard_key);
    // Both ways are warm, and the victim is known to answer.
    add_one(writer, &term).await?;
    let asked = Asked::start(runtime, readers, &term);
    asked.until_warm(runtime).await?;
    let pid = deployment.pid(&node)?.context("a leader is a process")?;
    pid.kill()?;
    let killed = runtime.now();
    add_one(writer, &term).await?;
    let unwritten = runtime.now().saturating_since(killed);
    let heard = asked.finish().await?;
    Ok(Round {
        shard: shard.shard_id,
        node,
        unwritten_ms: u64::try_from(unwritten.as_millis())?,
        slowest_read_ms: u64::try_from(heard.slowest.as_millis())?,
        reads: heard.reads,
        failed_reads: heard.failed,
        why: heard.why,
    })
}

/// The server that leads a shard.
pub(crate) fn leader_of<'a>(
    status: &'a GetStatusResponse,
    shard: &ShardStatus,
) -> Option<&'a NodeStatus> {
    let leads = |role| role == ReplicaRole::Leader;
    let mut replicas = shard.replicas.iter();
    let leader = replicas.find(|replica| replica.serving && leads(replica.role()))?;
    let mut nodes = status.nodes.iter();
    nodes.find(|node| node.node_id == leader.node_id)
}

async fn add_one(client: &Client, term: &str) -> anyhow::Result<()> {
    let request = v1::RecordRequest {
        term: term.to_owned(),
        count: 1,
        ..v1::RecordRequest::default()
    };
    client.record(request).await.context("a Record failed")?;
    Ok(())
}

/// What was heard of completions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Heard {
    reads: u64,
    failed: u64,
    /// Why the first of them failed.
    why: Option<String>,
    slowest: Duration,
}

impl Heard {
    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// What readers are told, and tell, while they ask.
#[derive(Debug, Default)]
struct Signs {
    is_over: AtomicBool,
    /// Readers that have asked for the first time.
    warm: AtomicUsize,
}

/// Completions that are asked all the while.
#[derive(Debug)]
struct Asked {
    signs: Arc<Signs>,
    readers: Vec<Task<Heard>>,
}

impl Asked {
    fn start(runtime: &Runtime, readers: &[Client], prefix: &str) -> Self {
        let signs = Arc::new(Signs::default());
        let request = v1::GetTopKRequest {
            prefix: prefix.to_owned(),
            k: 10,
            require_complete: true,
            ..v1::GetTopKRequest::default()
        };
        let start = |reader: &Client| {
            let signs = Arc::clone(&signs);
            let reading = ask(runtime.clone(), reader.clone(), request.clone(), signs);
            runtime.spawn("chaos reads", reading)
        };
        let readers = readers.iter().map(start).collect();
        Self { signs, readers }
    }

    /// Waits until every reader has its connection, so that none is made anew when the leader dies.
    async fn until_warm(&self, runtime: &Runtime) -> anyhow::Result<()> {
        let readers = self.readers.len();
        wait_for(runtime, START_LIMIT, || {
            Ok(self.signs.warm.load(Ordering::Relaxed) == readers)
        })
        .await
        .context("the readers are not answered")
    }

    async fn finish(self) -> anyhow::Result<Heard> {
        self.signs.is_over.store(true, Ordering::Relaxed);
        let mut heard = Heard::default();
        for reader in self.readers {
            heard.add(reader.await?);
        }
        Ok(heard)
    }
}

/// Asks for completions, one after another, until it is over. The first one is not counted.
async fn ask(
    runtime: Runtime,
    client: Client,
    request: v1::GetTopKRequest,
    signs: Arc<Signs>,
) -> Heard {
    let _ = client.top_k(request.clone()).await;
    signs.warm.fetch_add(1, Ordering::Relaxed);
    let mut heard = Heard::default();
    while !signs.is_over.load(Ordering::Relaxed) {
        let begun = runtime.now();
        let answer = client.top_k(request.clone()).await;
        heard.add(Heard {
            reads: 1,
            failed: u64::from(answer.is_err()),
            why: answer.err().map(|error| error.to_string()),
            slowest: runtime.now().saturating_since(begun),
        });
        runtime.sleep(ASK_INTERVAL).await;
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_counted_together() {
        let heard = |reads, failed, millis| Heard {
            reads,
            failed,
            why: None,
            slowest: Duration::from_millis(millis),
        };
        let mut all = heard(3, 1, 20);
        all.add(heard(4, 0, 700));
        all.add(heard(5, 2, 9));
        assert_eq!(all, heard(12, 3, 700));
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let round = |unwritten_ms| Round {
            shard: 1,
            node: "shard-1".to_owned(),
            unwritten_ms,
            slowest_read_ms: 1,
            reads: 2,
            failed_reads: 0,
            why: None,
        };
        let failover = Failover {
            rounds: [700, 300, 500, 400].map(round).to_vec(),
        };
        assert_eq!(failover.unwritten_ms(50), 400);
        assert_eq!(failover.unwritten_ms(99), 700);
        assert_eq!(failover.unwritten_ms(100), 700);
        assert_eq!(Failover { rounds: vec![] }.unwritten_ms(50), 0);
    }
}
