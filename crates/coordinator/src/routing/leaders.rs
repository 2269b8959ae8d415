//! What is known of the replicas from one request to the next: who leads which shard, as far as anybody has said, and which nodes
//! failed lately. Hints: wrong ones cost a try.

use std::collections::HashMap;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::{Incarnation, NodeId, ShardId, ShardMap};
use parking_lot::RwLock;
use runtime::{Instant, Runtime};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::choice::Failure;
use super::rounds::kind_of;

/// For how long a node that could not be reached is asked after the others.
const SUSPECT_FOR: Duration = Duration::from_secs(2);

/// How many waiting requests may ask often who leads.
const SCOUTS: usize = 8;

/// The newest word on the leader of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Lead {
    node: Option<NodeId>,
    /// The newest life of the shard and term in it that a report came from; what an older one says is history.
    from: (Incarnation, u64),
}

/// The newest hints; as many as there are shards and nodes.
#[derive(Debug)]
pub(crate) struct Leaders {
    runtime: Runtime,
    leads: RwLock<HashMap<ShardId, Lead>>,
    failed: RwLock<HashMap<NodeId, Instant>>,
    found: Notify,
    scouts: Semaphore,
}

impl Leaders {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.clone(),
            leads: RwLock::default(),
            failed: RwLock::default(),
            found: Notify::new(),
            scouts: Semaphore::new(SCOUTS),
        }
    }

    pub(crate) fn of(&self, shard: ShardId) -> Option<NodeId> {
        self.leads.read().get(&shard)?.node
    }

    /// A request was answered as only a leader does, or a replica named the leader.
    pub(crate) fn learn(&self, shard: ShardId, leader: NodeId) {
        if self.of(shard) != Some(leader) {
            self.leads.write().entry(shard).or_default().node = Some(leader);
            self.found.notify_waiters();
        }
    }

    /// A replica reported whom it follows, and in which life of the shard and term.
    pub(crate) fn report(&self, shard: ShardId, leader: NodeId, from: (Incarnation, u64)) {
        let is_news = |lead: &Lead| from > lead.from || (from == lead.from && lead.node.is_none());
        if self.leads.read().get(&shard).is_some_and(|at| !is_news(at)) {
            return;
        }
        let mut leads = self.leads.write();
        let lead = leads.entry(shard).or_default();
        if is_news(lead) {
            *lead = Lead {
                node: Some(leader),
                from,
            };
            self.found.notify_waiters();
        }
    }

    /// Ends when somebody finds a leader, of any shard, that was not known when this was called.
    pub(crate) fn found(&self) -> Notified<'_> {
        self.found.notified()
    }

    /// The right to ask often who leads, if it is free.
    pub(crate) fn scout(&self) -> Option<SemaphorePermit<'_>> {
        self.scouts.try_acquire().ok()
    }

    /// A node does not lead a shard and does not know who does.
    pub(crate) fn does_not_lead(&self, shard: ShardId, node: NodeId) {
        if self.of(shard) == Some(node) {
            self.leads.write().entry(shard).or_default().node = None;
        }
    }

    /// A node could not be reached, or did not answer in time.
    pub(crate) fn failed(&self, node: NodeId) {
        self.failed.write().insert(node, self.runtime.now());
    }

    /// A node has answered.
    pub(crate) fn answered(&self, node: NodeId) {
        if self.failed.read().contains_key(&node) {
            self.failed.write().remove(&node);
        }
    }

    /// Learns from an error of a node who leads the shard, and who does not answer.
    pub(super) fn heed(&self, shard: ShardId, node: NodeId, error: &ApiError) {
        match kind_of(error) {
            Failure::Broken | Failure::Silent => self.failed(node),
            Failure::Damaged => {
                self.failed(node);
                self.does_not_lead(shard, node);
            }
            // The queue to a node fills while it is silent, and refuses in its place: that is no word of it.
            Failure::Refused { leader: _ } if error.reason() == Reason::Overloaded => {}
            Failure::Refused { leader } => {
                self.answered(node);
                if error.reason() != Reason::NotLeader {
                    return;
                }
                match leader {
                    // Followers name a leader that has died until they have elected another.
                    Some(leader) if self.is_suspect(leader) => {}
                    Some(leader) => self.learn(shard, leader),
                    None => self.does_not_lead(shard, node),
                }
            }
        }
    }

    /// Whether a node failed a short time ago and was not heard since.
    pub(crate) fn is_suspect(&self, node: NodeId) -> bool {
        let failed = self.failed.read().get(&node).copied();
        failed.is_some_and(|at| self.runtime.now().saturating_since(at) < SUSPECT_FOR)
    }

    /// Forgets what the map does not have any more.
    pub(crate) fn keep(&self, map: &ShardMap) {
        self.leads
            .write()
            .retain(|shard, _| map.shards.contains_key(shard));
        self.failed
            .write()
            .retain(|node, _| map.nodes.contains_key(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1);

    #[test]
    fn a_report_of_an_older_term_is_history() {
        let leaders = Leaders::new(&Runtime::real());
        let report = |node, life, term| {
            leaders.report(SHARD, NodeId(node), (Incarnation(life), term));
        };
        report(1, 1, 3);
        report(2, 1, 2);
        assert_eq!(leaders.of(SHARD), Some(NodeId(1)));
        report(2, 1, 4);
        assert_eq!(leaders.of(SHARD), Some(NodeId(2)));
        // Who answers leads, whatever was said.
        leaders.learn(SHARD, NodeId(3));
        report(2, 1, 4);
        assert_eq!(leaders.of(SHARD), Some(NodeId(3)));
        // The terms of the next life begin anew.
        report(1, 2, 1);
        assert_eq!(leaders.of(SHARD), Some(NodeId(1)));
        report(2, 1, 5);
        assert_eq!(leaders.of(SHARD), Some(NodeId(1)));
    }

    #[test]
    fn only_the_leader_itself_denies_that_it_leads() {
        let leaders = Leaders::new(&Runtime::real());
        leaders.learn(SHARD, NodeId(1));
        leaders.does_not_lead(SHARD, NodeId(2));
        assert_eq!(leaders.of(SHARD), Some(NodeId(1)));
        leaders.does_not_lead(SHARD, NodeId(1));
        assert_eq!(leaders.of(SHARD), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_suspect_for_a_while_or_until_it_answers() {
        let runtime = Runtime::real();
        let leaders = Leaders::new(&runtime);
        leaders.failed(NodeId(1));
        leaders.failed(NodeId(2));
        leaders.answered(NodeId(2));
        assert!(leaders.is_suspect(NodeId(1)));
        assert!(!leaders.is_suspect(NodeId(2)));
        runtime.sleep(SUSPECT_FOR).await;
        assert!(!leaders.is_suspect(NodeId(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_to_a_node_is_no_word_of_it() {
        let leaders = Leaders::new(&Runtime::real());
        let node = NodeId(1);
        leaders.learn(SHARD, node);
        leaders.heed(SHARD, node, &ApiError::deadline("test"));
        assert!(leaders.is_suspect(node));
        let full = ApiError::overloaded("test", Duration::from_millis(50));
        leaders.heed(SHARD, node, &full);
        assert!(leaders.is_suspect(node));
        assert_eq!(leaders.of(SHARD), Some(node));
        leaders.heed(SHARD, node, &ApiError::new(Reason::Starting, "test"));
        assert!(!leaders.is_suspect(node));
        leaders.heed(SHARD, node, &ApiError::not_leader(None));
        assert_eq!(leaders.of(SHARD), None);
    }
}
