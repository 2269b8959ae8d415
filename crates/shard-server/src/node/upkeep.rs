//! Small chores, each second and whenever something changed: gauges, groups that were joined, clears that a shard has not heard of, settings that are part of
//! the state, starts that are due again, and freeing what generations left behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Generation, NamespaceId, limits};
use replication::{Role, Rotten, shard_of};
use rpc::Deadline;

use super::{Node, Replica};
use crate::metrics::Action;
use crate::state::command;

const EVERY: Duration = Duration::from_secs(1);
/// Terms freed before other tasks get their turn.
const RECLAIM_TERMS: usize = 4096;

/// The task that does the chores until the node stops.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        for replica in node.replicas() {
            replica.metrics().set(&replica);
            node.note_joined(&replica).await;
            if replica.group().status().role == Role::Leader {
                lead(&node, &replica).await;
            }
            reclaim(&node, &replica).await;
        }
        node.metrics.set_damaged(node.has_damage());
        if let Some(host) = node.host() {
            node.metrics.set_log(&host.wal_stats());
            node.metrics.set_scrub(host.scrub_stats());
            host.take_rotten().into_iter().for_each(|rotten| {
                let (action, group) = match rotten {
                    Rotten::Reread(group) => (Action::ReplaceSnapshot, group),
                    Rotten::Started(group) => (Action::PassOverSnapshot, group),
                };
                let (shard, done) = (shard_of(group), Ok::<(), Infallible>(()));
                node.metrics.count_action(action, "rotten", shard, &done);
            });
            let resumed = host.resumed_snapshot_bytes();
            node.metrics.set_resumed_snapshot_bytes(resumed);
        }
        // Also where no coordinator answers: what could not start, or has stopped for want of room, is tried again.
        node.reconcile();
        tokio::select! {
            () = node.closing.cancelled() => return,
            () = node.upkeep_now.notified() => {}
            () = node.runtime.sleep(EVERY) => {}
        }
    }
}

/// What the leader of a shard proposes of its own accord.
async fn lead(node: &Node, replica: &Replica) {
    let deadline = Deadline::after(&node.runtime, limits::DEADLINE_DEFAULT);
    let cap_bytes = node.config.state.repeat_table_bytes;
    if replica.state().repeat_table_cap_bytes() != cap_bytes {
        let command = command::encode_configure(cap_bytes);
        let done = replica
            .command(command::KIND_CONFIGURE, command, deadline)
            .await;
        if let Err(error) = done {
            tracing::debug!(shard = %replica.shard(), %error, "settings wait for another try");
            return;
        }
    }
    for (namespace, generation) in cleared(node, replica) {
        let command = command::encode_clear(namespace, generation);
        let done = replica
            .command(command::KIND_CLEAR, command, deadline)
            .await;
        match done {
            Ok(_) => {
                replica.metrics().clear.increment();
                tracing::info!(shard = %replica.shard(), %namespace, %generation, "cleared");
            }
            Err(error) => {
                tracing::debug!(shard = %replica.shard(), %error, "a clear waits for another try");
                return;
            }
        }
    }
}

/// The namespaces that hold terms here of a lower generation than the map knows.
fn cleared(node: &Node, replica: &Replica) -> Vec<(NamespaceId, Generation)> {
    let here = replica.state().generations();
    let is_behind = |(id, generation): &(NamespaceId, Generation)| {
        here.get(id).is_some_and(|known| known < generation)
    };
    node.view().generations().filter(is_behind).collect()
}

/// Frees what was replaced, in steps, away from the async workers.
async fn reclaim(node: &Node, replica: &Arc<Replica>) {
    let replica = Arc::clone(replica);
    let closing = node.closing.clone();
    let free = move || {
        while !replica.state().reclaim(RECLAIM_TERMS) {
            if closing.is_cancelled() {
                return;
            }
        }
    };
    if let Err(error) = node.runtime.spawn_blocking("reclaim", free).await {
        tracing::error!(%error, "what was replaced is not freed");
    }
}
