//! When each node was last heard, and what it said. In memory only: every node reports to every coordinator each second, so that
//! each knows of itself who is alive, also when it has just been started.
//!
//! Time is the monotonic clock's, so that no jump of a wall clock makes a node look dead.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::v1::{ActionReport, ReplicaRole, ReplicaStatus};
use cluster::{Incarnation, NodeId, Shard, ShardId};
use parking_lot::RwLock;
use runtime::{Instant, Runtime};

use crate::placement::audit::{Audit, Voice};

/// What a node last reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) replicas: Vec<ReplicaStatus>,
    pub(crate) process_memory_bytes: u64,
    pub(crate) disk_free_bytes: u64,
    /// It has no room for writes.
    pub(crate) disk_full: bool,
    /// Its disk does not answer.
    pub(crate) disk_stalled: bool,
    /// The whole node's data is damaged.
    pub(crate) data_loss: bool,
    pub(crate) reason: String,
    /// What it did lately, the newest last.
    pub(crate) actions: Vec<ActionReport>,
}

impl Report {
    fn tells_of_damage(&self) -> bool {
        self.data_loss || self.replicas.iter().any(|replica| replica.data_loss)
    }
}

/// A node as it was last heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) silent: Duration,
    pub(crate) alive: bool,
    pub(crate) report: Report,
    /// Records and reads per second, by shard, between the last two reports.
    pub(crate) rates: BTreeMap<u64, Rates>,
    /// It has told of damage for so short a time that others may count as alive who have not been heard since.
    pub(crate) damage_is_news: bool,
}

/// How busy a replica is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) records: f64,
    pub(crate) reads: f64,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    report: Report,
    rates: BTreeMap<u64, Rates>,
    /// Since when all of its reports have told of damage.
    damaged_since: Option<Instant>,
}

/// Everybody who was heard since the start.
#[derive(Debug)]
pub(crate) struct Liveness {
    runtime: Runtime,
    silent_after: Duration,
    /// Since when it is listened.
    since: Instant,
    /// Written by each report, read by each look at the status.
    heard: RwLock<BTreeMap<NodeId, Entry>>,
}

impl Liveness {
    pub(crate) fn new(runtime: &Runtime, silent_after: Duration) -> Self {
        Self {
            runtime: runtime.clone(),
            silent_after,
            since: runtime.now(),
            heard: RwLock::default(),
        }
    }

    /// A node reported.
    pub(crate) fn hear(&self, node: NodeId, report: Report) {
        let now = self.runtime.now();
        let mut heard = self.heard.write();
        let before = heard.get(&node);
        let rates = match before {
            Some(before) => rates_between(before, &report, now),
            None => BTreeMap::new(),
        };
        let damaged_before = before.and_then(|before| before.damaged_since);
        let entry = Entry {
            at: now,
            rates,
            damaged_since: report
                .tells_of_damage()
                .then(|| damaged_before.unwrap_or(now)),
            report,
        };
        heard.insert(node, entry);
    }

    /// A node is known to have ended.
    pub(crate) fn forget(&self, node: NodeId) {
        self.heard.write().remove(&node);
    }

    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        let now = self.runtime.now();
        let heard = self.heard.read();
        let entry = heard.get(&node);
        entry.is_some_and(|entry| now.saturating_since(entry.at) < self.silent_after)
    }

    /// Whether a node has been silent for so long that it counts as not alive. Who has only begun to listen does not know.
    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        let listened = self.runtime.now().saturating_since(self.since);
        listened >= self.silent_after && !self.is_alive(node)
    }

    /// How long a node has not been heard of; `None` while it is alive. Who has only begun to listen knows of no longer silence.
    pub(crate) fn silent_for(&self, node: NodeId) -> Option<Duration> {
        let now = self.runtime.now();
        let heard = self.heard.read();
        let since = heard.get(&node).map_or(self.since, |entry| entry.at);
        let silent = now.saturating_since(since);
        (silent >= self.silent_after || !heard.contains_key(&node)).then_some(silent)
    }

    /// A node as it was last heard; `None` if it never was.
    pub(crate) fn of(&self, node: NodeId) -> Option<Heard> {
        let now = self.runtime.now();
        let heard = self.heard.read();
        heard.get(&node).map(|entry| self.view(entry, now))
    }

    /// What the replicas of a shard's present life were last heard to be, as of entries at which they are compared.
    pub(crate) fn voices(&self, shard: &Shard) -> Vec<Voice> {
        let heard = self.heard.read();
        voices(shard, |node| heard.get(&node).map(|entry| &entry.report))
    }

    /// Everybody as they were last heard.
    pub(crate) fn all(&self) -> BTreeMap<NodeId, Heard> {
        let now = self.runtime.now();
        let heard = self.heard.read();
        heard
            .iter()
            .map(|(node, entry)| (*node, self.view(entry, now)))
            .collect()
    }

    fn view(&self, entry: &Entry, now: Instant) -> Heard {
        let silent = now.saturating_since(entry.at);
        let alive = silent < self.silent_after;
        let damaged = entry.damaged_since;
        let damaged = damaged.map(|since| now.saturating_since(since));
        Heard {
            silent,
            alive,
            damage_is_news: damaged.is_some_and(|damaged| damaged < self.silent_after),
            report: entry.report.clone(),
            rates: if alive {
                entry.rates.clone()
            } else {
                BTreeMap::new()
            },
        }
    }
}

/// What the replicas of a shard's present life say of themselves, by the last report of each node.
pub(crate) fn voices<'a>(
    shard: &Shard,
    report: impl Fn(NodeId) -> Option<&'a Report>,
) -> Vec<Voice> {
    let voice = |at: &cluster::Replica| {
        let said = report(at.node).and_then(|said| said.replica(shard.id, shard.incarnation));
        let audits = said.into_iter().flat_map(|replica| &replica.audits);
        let audits = audits.map(|audit| Audit {
            index: audit.index,
            version: audit.version,
            hash: audit.hash.to_vec(),
        });
        Voice {
            node: at.node,
            voter: at.voter,
            audits: audits.collect(),
        }
    };
    shard.replicas.iter().map(voice).collect()
}

impl Report {
    /// What it says of a replica of a shard's present life.
    pub(crate) fn replica(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
    ) -> Option<&ReplicaStatus> {
        self.replicas
            .iter()
            .find(|at| at.shard_id == shard.0 && at.incarnation == incarnation.0)
    }
}

/// Counters begin anew with each process; a rate is never below zero.
fn rates_between(before: &Entry, after: &Report, now: Instant) -> BTreeMap<u64, Rates> {
    let seconds = now.saturating_since(before.at).as_secs_f64();
    if seconds < MEASURED_MIN.as_secs_f64() {
        return before.rates.clone();
    }
    let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
    // A life that is still to be removed is told of as well, and does nothing.
    let is_newest = |at: &&ReplicaStatus| {
        let mut of_shard = after
            .replicas
            .iter()
            .filter(|other| other.shard_id == at.shard_id);
        of_shard.all(|other| other.incarnation <= at.incarnation)
    };
    let pairs = after.replicas.iter().filter(is_newest).filter_map(|at| {
        let same =
            |old: &&ReplicaStatus| old.shard_id == at.shard_id && old.incarnation == at.incarnation;
        let old = before.report.replicas.iter().find(same)?;
        // What a follower applies may be old: one that catches up does so by the ten thousand.
        let leads = [old, at].iter().all(|at| at.role() == ReplicaRole::Leader);
        let records = rate(old.records_total, at.records_total);
        let rates = Rates {
            records: if leads { records } else { 0.0 },
            reads: rate(old.reads_total, at.reads_total),
        };
        Some((at.shard_id, rates))
    });
    pairs.collect()
}

/// Reports that follow each other closer than this say nothing about rates.
const MEASURED_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn report(records: u64) -> Report {
        Report {
            replicas: vec![ReplicaStatus {
                shard_id: 1,
                incarnation: 1,
                role: ReplicaRole::Leader.into(),
                records_total: records,
                ..ReplicaStatus::default()
            }],
            ..Report::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_alive_until_it_has_been_silent_for_long() {
        let runtime = Runtime::real();
        let liveness = Liveness::new(&runtime, Duration::from_secs(3));
        let node = NodeId(1);
        assert!(!liveness.is_alive(node));
        assert!(
            !liveness.is_gone(node),
            "it may not have had the time to report"
        );
        liveness.hear(node, report(0));
        runtime.sleep(Duration::from_millis(2_900)).await;
        assert!(liveness.is_alive(node));
        assert!(!liveness.is_gone(node));
        runtime.sleep(Duration::from_millis(200)).await;
        assert!(!liveness.is_alive(node));
        assert!(!liveness.of(node).unwrap().alive);
        assert!(liveness.is_gone(node));
        assert_eq!(
            liveness.silent_for(node),
            Some(Duration::from_millis(3_100))
        );
        assert_eq!(
            liveness.silent_for(NodeId(2)),
            Some(Duration::from_millis(3_100)),
            "it was not heard since the start"
        );
        liveness.hear(node, report(0));
        assert_eq!(liveness.silent_for(node), None);
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_news_until_whoever_is_alive_has_been_heard_since() {
        let runtime = Runtime::real();
        let liveness = Liveness::new(&runtime, Duration::from_secs(3));
        let node = NodeId(1);
        let is_news = || liveness.of(node).unwrap().damage_is_news;
        let mut damaged = report(0);
        damaged.replicas[0].data_loss = true;
        let lost = Report {
            data_loss: true,
            ..Report::default()
        };
        liveness.hear(node, report(0));
        assert!(!is_news());
        for damage in [damaged, lost] {
            // That it was damaged before it was whole again counts for nothing.
            liveness.hear(node, report(0));
            for _ in 0..3 {
                liveness.hear(node, damage.clone());
                assert!(is_news());
                runtime.sleep(Duration::from_secs(1)).await;
            }
            assert!(!is_news());
            liveness.hear(node, damage);
            assert!(!is_news());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_the_last_interval_and_survive_a_restart_of_the_counters() {
        let runtime = Runtime::real();
        let liveness = Liveness::new(&runtime, Duration::from_secs(3));
        let node = NodeId(1);
        let rate = || {
            liveness
                .of(node)
                .unwrap()
                .rates
                .get(&1)
                .map(|at| at.records)
        };
        liveness.hear(node, report(100));
        assert_eq!(rate(), None);
        runtime.sleep(Duration::from_secs(2)).await;
        liveness.hear(node, report(300));
        assert_eq!(rate(), Some(100.0));
        runtime.sleep(Duration::from_secs(1)).await;
        liveness.hear(node, report(5));
        assert_eq!(rate(), Some(0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_is_still_to_be_removed_does_not_stand_for_the_present_one() {
        let runtime = Runtime::real();
        let liveness = Liveness::new(&runtime, Duration::from_secs(3));
        let node = NodeId(1);
        let with_an_earlier_one = |records| {
            let mut both = report(records);
            both.replicas[0].incarnation = 2;
            both.replicas.append(&mut report(7).replicas);
            both
        };
        liveness.hear(node, with_an_earlier_one(0));
        runtime.sleep(Duration::from_secs(1)).await;
        liveness.hear(node, with_an_earlier_one(100));
        assert_eq!(liveness.of(node).unwrap().rates[&1].records, 100.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_follower_catches_up_with_is_nobodys_rate() {
        let runtime = Runtime::real();
        let liveness = Liveness::new(&runtime, Duration::from_secs(3));
        let node = NodeId(1);
        let mut follower = report(0);
        follower.replicas[0].role = ReplicaRole::Follower.into();
        liveness.hear(node, follower);
        runtime.sleep(Duration::from_secs(1)).await;
        liveness.hear(node, report(30_000));
        assert_eq!(liveness.of(node).unwrap().rates[&1].records, 0.0);
        runtime.sleep(Duration::from_secs(1)).await;
        liveness.hear(node, report(30_100));
        assert_eq!(liveness.of(node).unwrap().rates[&1].records, 100.0);
    }
}
