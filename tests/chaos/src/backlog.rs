//! What a leader keeps in memory for a follower that hears nothing: one shard server stands still, with all its connections, while far more is
//! written than a leader may keep for it.
//!
//! What always holds: the same terms are recorded again and again, so that logs grow and dictionaries do not; nobody ends the server that stands
//! still; it goes on in the end, and the measurement fails unless the cluster is whole then.

use std::collections::BTreeMap;

use anyhow::Context as _;
use api::v1::{RecordBatchRequest, RecordItem};
use client::Client;
use runtime::Runtime;

use crate::deployment::Deployment;
use crate::faults::running;
use crate::scenario::{RECOVERY_LIMIT, START_LIMIT};
use crate::whole::wait_until_whole;
use crate::workload::patient_client;

/// Terms of a batch, and their bytes, of which compression leaves two thirds.
const BATCH: usize = 500;
const TERM_BYTES: usize = 200;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Batches after which nothing grows any more that does so at work.
const WARM_BATCHES: usize = 200;
/// Servers say so often how much memory they take.
const LOOK_EVERY: usize = 50;

/// What was written beside the follower, and what that cost.
#[derive(Debug, Clone)]
pub struct Backlog {
    /// Bytes of terms that were acknowledged while it stood still.
    pub written_bytes: u64,
    /// By how many bytes the memory of each other server was above what it was before, at most.
    pub growth: BTreeMap<String, u64>,
}

/// Writes so many batches beside a shard server that stands still.
///
/// # Errors
/// When the cluster does not come up or back, or a batch is not acknowledged in full.
pub async fn measure(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    batches: usize,
) -> anyhow::Result<Backlog> {
    let client = patient_client(runtime, deployment.addresses())?;
    wait_until_whole(runtime, deployment, START_LIMIT)
        .await
        .context("the cluster did not come up")?;
    let items = items(runtime);
    for _ in 0..WARM_BATCHES {
        write(&client, &items).await?;
    }
    let before = memory(&client).await?;
    let victim = deployment.shard_servers().first();
    let victim = victim.context("there are shard servers")?;
    let pid = running(deployment, victim)?;
    deployment.guard(victim, true)?;
    pid.pause()?;
    let beside = beside(&client, &items, batches, &before).await;
    pid.resume()?;
    let whole = wait_until_whole(runtime, deployment, RECOVERY_LIMIT).await;
    // A watchdog may hold it for dead until then.
    deployment.guard(victim, false)?;
    let mut growth = beside?;
    growth.remove(victim);
    whole.with_context(|| format!("{victim} did not catch up"))?;
    anyhow::ensure!(pid.is_alive(), "somebody ended {victim}");
    Ok(Backlog {
        written_bytes: u64::try_from(batches * BATCH * TERM_BYTES)?,
        growth,
    })
}

/// Terms of all shards, with characters that no two have in common for long.
fn items(runtime: &Runtime) -> Vec<RecordItem> {
    let item = |first: u8| {
        let mut term = char::from(first).to_string();
        let letters = std::iter::repeat_with(|| runtime.random_u64() % LETTERS.len() as u64);
        let letters = letters.filter_map(|at| LETTERS.get(usize::try_from(at).ok()?));
        term.extend(letters.take(TERM_BYTES - 1).map(|byte| char::from(*byte)));
        RecordItem { term, count: 1 }
    };
    (b'a'..=b'z').cycle().take(BATCH).map(item).collect()
}

async fn write(client: &Client, items: &[RecordItem]) -> anyhow::Result<()> {
    let request = RecordBatchRequest {
        items: items.to_vec(),
        ..RecordBatchRequest::default()
    };
    let answer = client.record_batch(request).await?;
    let failed = answer.results.iter().find(|result| result.code != 0);
    anyhow::ensure!(failed.is_none(), "an item was not acknowledged: {failed:?}");
    Ok(())
}

/// Writes, and looks now and then by how much the servers have grown.
async fn beside(
    client: &Client,
    items: &[RecordItem],
    batches: usize,
    before: &BTreeMap<String, u64>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut growth: BTreeMap<String, u64> = BTreeMap::new();
    for number in 1..=batches {
        write(client, items).await?;
        if number % LOOK_EVERY != 0 {
            continue;
        }
        for (name, bytes) in memory(client).await? {
            let before = before.get(&name).copied().unwrap_or_default();
            let most = growth.entry(name).or_default();
            *most = bytes.saturating_sub(before).max(*most);
        }
    }
    Ok(growth)
}

/// Resident memory of the shard servers, by name, as they said last.
async fn memory(client: &Client) -> anyhow::Result<BTreeMap<String, u64>> {
    let nodes = client.status().await?.nodes.into_iter();
    let said: BTreeMap<String, u64> = nodes
        .map(|node| (node.name, node.process_memory_bytes))
        .collect();
    anyhow::ensure!(
        said.values().all(|&bytes| bytes > 0),
        "a server does not say how much memory it takes: {said:?}"
    );
    Ok(said)
}
