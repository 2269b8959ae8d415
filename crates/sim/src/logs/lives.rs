//! What outlives a server's process: what its node has promised; and what does not outlive its disk: the copies on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::NodeId;
use wal::Vote;

use super::{Cluster, Key, Logs};
use crate::net::HostId;
use crate::trace;

/// One disk of a host, by how many the host has lost before.
pub(super) type Life = (HostId, u32);

/// How long what was synced still counts when its disk is gone. It may have been acknowledged before, and been committed since by a leader that
/// stood still, or whose disk is slow, and says so in its log only now.
const AFTERGLOW: Duration = Duration::from_secs(10);

/// The disks that were lost.
#[derive(Debug, Default)]
pub(super) struct Lives {
    lost: BTreeMap<HostId, u32>,
    ended: BTreeMap<Life, Duration>,
    /// The nodes whose logs were on each.
    nodes: BTreeMap<Life, BTreeSet<NodeId>>,
}

impl Lives {
    /// The disk that a host has now.
    pub(super) fn of(&self, host: HostId) -> Life {
        let lost = self.lost.get(&host);
        (host, lost.copied().unwrap_or_default())
    }

    /// A host has lost its disk.
    pub(super) fn end(&mut self, host: HostId) {
        let life = self.of(host);
        self.ended.insert(life, trace::now());
        *self.lost.entry(host).or_default() += 1;
    }

    /// A disk has a node's log.
    pub(super) fn belongs(&mut self, life: Life, node: u64) {
        self.nodes.entry(life).or_default().insert(NodeId(node));
    }

    /// Of some disks those that count.
    fn counting<'a>(
        &'a self,
        synced: Option<&'a BTreeSet<Life>>,
    ) -> impl Iterator<Item = &'a Life> {
        let now = trace::now();
        let counts = move |life: &&Life| {
            let ended = self.ended.get(*life);
            ended.is_none_or(|ended| now < *ended + AFTERGLOW)
        };
        synced.into_iter().flatten().filter(counts)
    }

    /// How many hosts have something that was synced on some disks.
    pub(super) fn hosts(&self, synced: Option<&BTreeSet<Life>>) -> usize {
        let lives = self.counting(synced);
        let hosts: BTreeSet<HostId> = lives.map(|(host, _)| *host).collect();
        hosts.len()
    }

    /// The nodes that have it.
    pub(super) fn nodes(&self, synced: Option<&BTreeSet<Life>>) -> BTreeSet<NodeId> {
        let lives = self.counting(synced);
        let nodes = lives.filter_map(|life| self.nodes.get(life));
        nodes.flatten().copied().collect()
    }
}

/// For whom each node has voted or whom it has followed, in which terms, by all that it has synced. Whoever leaves a group and comes back
/// under the same number is still bound by it.
#[derive(Debug, Default)]
pub(super) struct Promises(BTreeMap<(Key, u64), BTreeSet<(u64, u64)>>);

impl Promises {
    /// A node has synced that it votes for a candidate in a term.
    pub(super) fn keep(&mut self, group: Key, node: u64, term: u64, candidate: u64) {
        let kept = self.0.entry((group, node)).or_default();
        kept.insert((term, candidate));
    }

    /// The term and the candidate of a promise that a vote breaks. What is written anew as it was breaks none, and following one that has won does not.
    pub(super) fn broken(&self, group: Key, node: u64, vote: Vote) -> Option<(u64, u64)> {
        let kept = self.0.get(&(group, node))?;
        if vote.committed || kept.contains(&(vote.term, vote.node)) {
            return None;
        }
        let mut breaks = kept.range((vote.term, 0)..);
        breaks.next_back().copied()
    }

    /// A node has forgotten what it promised, and others remember it.
    fn forget(&mut self, cluster: Cluster, node: u64) {
        self.0
            .retain(|((of, _), owner), _| (*of, *owner) != (cluster, node));
    }
}

impl Logs {
    /// A host's disk is gone. One that comes back as it was before is still the same node's, which the others know to have forgotten something.
    pub(super) fn lose(&mut self, host: HostId, comes_back: bool) {
        self.lives.end(host);
        if let Some(disk) = self.disks.get(&host).filter(|_| comes_back) {
            self.promises.forget(disk.cluster, disk.node);
        }
    }
}
