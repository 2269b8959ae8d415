//! Comparing replicas: the leader has an entry written now and then at which everybody hashes its state.
//!
//! The entry is one that changes nothing, the setting that is in force already ([`command::encode_configure`]), so that every version
//! of the program can apply it. Whoever applies it keeps a view, which is cheap, and this task hashes it later, a piece at a time with
//! pauses, one dictionary after another. The last hashes go into each report; the coordinators compare them, and name the hash that a
//! majority has. A replica that had another one stops as damaged, and is rebuilt from its peers like one whose log is rotten.
//!
//! Nothing is written where nothing was applied since the last time, or where nobody else votes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::admin::v1::ReplicaAudit;
use api::registry::v1::AgreedAudit;
use cluster::{Incarnation, ShardId, limits};
use replication::Role;
use rpc::Deadline;
use runtime::Instant;

use super::pace::STEP_TERMS;
use super::{Node, Replica};
use crate::metrics::Action;
use crate::state::{Hashing, command};

const EVERY: Duration = Duration::from_millis(500);
/// Hashes that a replica remembers and reports.
const KEPT: usize = 4;
/// The rule by which states are hashed. A program that hashes otherwise has another number, so that the two are not compared.
const VERSION: u32 = 1;

/// The last hashes of a replica, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Audits(Vec<ReplicaAudit>);

impl Audits {
    pub(super) fn all(&self) -> Vec<ReplicaAudit> {
        self.0.clone()
    }

    fn newest(&self) -> u64 {
        self.0.last().map_or(0, |audit| audit.index)
    }

    fn add(&mut self, index: u64, hash: [u8; 32]) {
        self.0.push(ReplicaAudit {
            index,
            version: VERSION,
            hash: hash.to_vec().into(),
        });
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
    }

    /// Whether something else was found here than a majority has.
    fn contradicts(&self, agreed: &ReplicaAudit) -> bool {
        self.0.iter().any(|own| {
            (own.index, own.version) == (agreed.index, agreed.version) && own.hash != agreed.hash
        })
    }
}

/// When a shard was last compared, as this node knows.
#[derive(Debug, Clone, Copy)]
struct Last {
    index: u64,
    at: Instant,
}

/// The task that hashes, and asks for the next comparison, until the node stops.
pub(super) async fn run(node: Arc<Node>) {
    let mut known: BTreeMap<(ShardId, Incarnation), Last> = BTreeMap::new();
    loop {
        for replica in node.replicas() {
            hash(&node, &replica).await;
            let now = node.runtime.now();
            let place = (replica.shard(), replica.incarnation());
            let last = known.entry(place).or_insert(Last { index: 0, at: now });
            let newest = replica.audits().lock().newest();
            if newest > last.index {
                *last = Last {
                    index: newest,
                    at: now,
                };
            }
            propose(&node, &replica, last).await;
        }
        tokio::select! {
            () = node.closing.cancelled() => return,
            () = node.runtime.sleep(EVERY) => {}
        }
    }
}

/// Hashes the state that was put aside, if any was.
async fn hash(node: &Node, replica: &Replica) {
    let Some((index, mut hashing)) = replica.state().take_audit() else {
        return;
    };
    loop {
        let step = |hashing: &mut Hashing| hashing.step(STEP_TERMS);
        let Some((back, done)) = node.piece("audit-hash", hashing, step).await else {
            return;
        };
        if let Some(hash) = done {
            replica.audits().lock().add(index, hash);
            tracing::debug!(shard = %replica.shard(), index, "the state is hashed");
            node.sync_now.notify_one();
            return;
        }
        hashing = back;
    }
}

/// Has an entry written at which all replicas are compared, where that is due.
async fn propose(node: &Node, replica: &Replica, last: &mut Last) {
    let Some(interval) = node.config.state.audit_interval else {
        return;
    };
    let status = replica.group().status();
    let voters = status.members.iter().filter(|at| at.voter).count();
    let has_changed = status.applied.is_some_and(|at| at.index > last.index);
    let waited = node.runtime.now().saturating_since(last.at);
    if status.role != Role::Leader || voters < 2 || !has_changed || waited < interval {
        return;
    }
    let deadline = Deadline::after(&node.runtime, limits::DEADLINE_DEFAULT);
    let command = command::encode_configure(node.config.state.repeat_table_bytes);
    let done = replica.command(command::KIND_CONFIGURE, command, deadline);
    if let Err(error) = done.await {
        tracing::debug!(shard = %replica.shard(), %error, "a comparison waits for another try");
    }
}

impl Node {
    /// Stops replicas whose state is not the one that a majority of their shard has.
    pub(super) async fn judge(&self, agreed: Vec<AgreedAudit>) {
        for at in agreed {
            let place = (ShardId(at.shard_id), Incarnation(at.incarnation));
            let replicas = self.replicas();
            let mut here = replicas.iter();
            let here = here.find(|own| (own.shard(), own.incarnation()) == place);
            let (Some(replica), Some(audit)) = (here, at.audit) else {
                continue;
            };
            let is_refuted = replica.audits().lock().contradicts(&audit);
            if !is_refuted || replica.group().status().stopped.is_some() {
                continue;
            }
            let (shard, index) = (replica.shard(), audit.index);
            tracing::error!(%shard, index, "the state of this replica is not what a majority has, it stops and must be rebuilt");
            let reason = format!("its state at entry {index} is not what a majority has");
            replica.group().condemn(&reason).await;
            let done: Result<(), ApiError> = Ok(());
            self.metrics
                .count_action(Action::StopReplica, "differs", Some(shard), &done);
            self.refresh_health();
            self.sync_now.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_hash_of_the_same_entry_by_the_same_rule_contradicts() {
        let mut audits = Audits::default();
        for index in 1..=6 {
            audits.add(index, [7; 32]);
        }
        assert_eq!(audits.all().len(), KEPT);
        let agreed = |index, version, hash: u8| ReplicaAudit {
            index,
            version,
            hash: vec![hash; 32].into(),
        };
        assert!(audits.contradicts(&agreed(6, VERSION, 8)));
        assert!(!audits.contradicts(&agreed(6, VERSION, 7)));
        assert!(!audits.contradicts(&agreed(6, VERSION + 1, 8)));
        assert!(!audits.contradicts(&agreed(2, VERSION, 8)), "forgotten");
    }
}
