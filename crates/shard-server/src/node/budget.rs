//! Keeping dictionaries within their memory.
//!
//! A shard may have a budget in logical bytes ([`Stats::logical_bytes`](crate::state::Stats)), which all its replicas count alike; a node may have
//! one in allocated bytes for all its dictionaries. Leaders refuse records while a dictionary is above, deletes pass. Where the operator
//! has opted in, the leader of a shard above its budget gives up the rarest terms instead: it picks them in the background and
//! proposes their removal, so that every replica gives up the same ones. This is the one exception to exact counts.
//!
//! On failure: what was not given up is picked anew. Records are refused where giving up does not keep pace.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::limits;
use replication::Role;
use rpc::Deadline;

use super::pace::STEP_TERMS;
use super::{Node, Replica};
use crate::config::AtBudget;
use crate::state::{Operation, Rare, Response, Write, command};

const EVERY: Duration = Duration::from_millis(500);
/// Terms of one command: about as long as a batch of records takes to apply.
const COMMAND_TERMS: usize = 512;
/// When to come back after a refusal.
const RETRY: Duration = Duration::from_secs(5);
/// The part of a budget that is made free when it was reached, and by which it may be exceeded while that is done.
const SLACK: u64 = 16;

impl Node {
    /// Refuses records while the dictionaries are above their budget. Deletes pass, and so do repeats of what was applied, which add
    /// nothing: to be told that it was not would have their caller count twice.
    ///
    /// Only who holds the lease judges, for it leads and has applied all that was acknowledged. Any other lets everything pass, and the
    /// queue takes it or says who leads: how much room there is on a node that would not take the write helps nobody, and a repeat table that
    /// is behind does not know what was applied. So the budget is exceeded by what comes while a leader is new, hands its lead over, or
    /// has no lease for a moment, as it may under load. That is little: nothing is committed without answers of a majority, which renew
    /// the lease, unless they take longer than it lasts; then the leader does not serve reads either.
    pub(crate) fn check_budget(&self, replica: &Replica, writes: &[Write]) -> Result<(), ApiError> {
        let records = |write: &&Write| matches!(write.operation, Operation::Record(_));
        let mut records = writes.iter().filter(records).peekable();
        if records.peek().is_none() {
            return Ok(());
        }
        let Err(refusal) = self.is_within_budget(replica) else {
            return Ok(());
        };
        // Asked before the look-up and after it: only then was nothing missing that had been acknowledged.
        let judges = || replica.group().lease_check().is_ok();
        let adds = judges() && !records.all(|write| replica.state().is_applied(write));
        if adds && judges() {
            return Err(refusal);
        }
        Ok(())
    }

    fn is_within_budget(&self, replica: &Replica) -> Result<(), ApiError> {
        let config = &self.config.state;
        if let Some(limit) = config.shard_bytes_max {
            let used = replica.state().stats().logical_bytes;
            let allowed = match config.at_budget {
                AtBudget::Refuse => limit,
                AtBudget::Evict => limit.saturating_add(limit / SLACK),
            };
            if used > allowed {
                let shard = replica.shard();
                return Err(exceeded(format!(
                    "shard {shard} holds {used} logical bytes, shard-bytes-max is {limit}"
                )));
            }
        }
        if let Some(limit) = config.memory_bytes_max {
            let replicas = self.replicas();
            let bytes = |at: &Arc<Replica>| at.state().stats().memory_bytes;
            let used: u64 = replicas.iter().map(bytes).sum();
            if used > limit {
                return Err(exceeded(format!(
                    "the dictionaries of this node take {used} bytes, memory-bytes-max is {limit}"
                )));
            }
        }
        Ok(())
    }
}

fn exceeded(message: String) -> ApiError {
    let error = ApiError::new(Reason::MemoryBudget, message).with_retry_after(RETRY);
    error.for_write()
}

/// The task that gives up rare terms, until the node stops; does nothing where that was not asked for.
pub(super) async fn run(node: Arc<Node>) {
    let config = &node.config.state;
    let (Some(limit), AtBudget::Evict) = (config.shard_bytes_max, config.at_budget) else {
        return node.closing.cancelled().await;
    };
    loop {
        for replica in node.replicas() {
            keep(&node, &replica, limit).await;
        }
        tokio::select! {
            () = node.closing.cancelled() => return,
            () = node.runtime.sleep(EVERY) => {}
        }
    }
}

/// Brings a shard that is led from here below its budget.
async fn keep(node: &Node, replica: &Replica, limit: u64) {
    let used = replica.state().stats().logical_bytes;
    if used <= limit || replica.group().status().role != Role::Leader {
        return;
    }
    let shard = replica.shard();
    let wanted = used - limit + limit / SLACK;
    let mut rarest = replication::StateMachine::view(replica.state()).rarest(wanted);
    let (mut evicted, mut rarer_than) = (0, 0);
    loop {
        let step = |rarest: &mut crate::state::Rarest| rarest.step(STEP_TERMS);
        let Some((next, Some(picked))) = node.piece("budget", rarest, step).await else {
            break;
        };
        rarest = next;
        for rare in picked {
            rarer_than = rare.count_max.saturating_add(1);
            match evict(node, replica, &rare).await {
                Ok(terms) => evicted += terms,
                Err(error) => {
                    tracing::debug!(%shard, %error, "rare terms wait for another try");
                    return;
                }
            }
        }
    }
    tracing::warn!(%shard, used, limit, evicted, rarer_than, "the shard had outgrown its budget, its rarest terms were given up");
}

async fn evict(node: &Node, replica: &Replica, rare: &Rare) -> Result<u64, ApiError> {
    let mut evicted = 0;
    for terms in rare.terms.chunks(COMMAND_TERMS) {
        let part = Rare {
            terms: terms.to_vec(),
            ..*rare
        };
        let deadline = Deadline::after(&node.runtime, limits::DEADLINE_DEFAULT);
        let command = command::encode_evict(&part);
        let done = replica.command(command::KIND_EVICT, command, deadline);
        if let Response::Evicted(terms) = done.await?.response {
            evicted += terms;
            replica.metrics().evicted.add(terms);
        }
    }
    Ok(evicted)
}
