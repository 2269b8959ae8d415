use std::time::Duration;

use super::*;
use crate::actions::Actions;
use crate::coordinators::Coordinators;
use crate::detector::Observation;
use crate::fleet::{Report, Target, fleet_of, node};
use crate::prober::Prober;
use crate::restart::{External, Restarts};

const SHARD: ShardId = ShardId(1);

fn at(poll: u64) -> Instant {
    Instant::from_origin(Duration::from_secs(5 * poll))
}

fn ids(nodes: &[NodeTarget]) -> Vec<u64> {
    nodes.iter().map(|node| node.id.0).collect()
}

/// A watchdog that is told what its polls see: of a shard with the replicas 1, 2 and 3, of which two make it serve.
struct Told {
    watch: Watch,
    fleet: Fleet,
    polls: u64,
}

impl Told {
    /// One that has seen all three serve.
    fn new() -> Self {
        let runtime = Runtime::real();
        let config = Config::default();
        let metrics = telemetry::Metrics::new(&runtime).unwrap();
        let actions = Actions::of_a_test(&runtime);
        let tools = Tools {
            name: "watchdog-1".to_owned(),
            coordinators: Coordinators::new(runtime.clone(), &[], config.probe_timeout).unwrap(),
            prober: Prober::new(runtime.clone(), config.probe_timeout),
            restarts: Restarts::new(
                runtime.clone(),
                Arc::new(External),
                config.attempt_timeout,
                actions.clone(),
            ),
            actions,
            attempt_timeout: config.attempt_timeout,
            poll_interval: config.poll_interval,
            runtime,
        };
        let watch = Watch::new(
            config,
            Arc::new(tools),
            Metrics::new(&metrics).unwrap(),
            watch::Sender::new(false),
            CancellationToken::new(),
        );
        let fleet = fleet_of(SHARD, (1..=3).map(node).collect());
        let mut told = Self {
            watch,
            fleet,
            polls: 0,
        };
        assert_eq!(told.poll(&[]), None);
        told
    }

    /// A poll in which these did not answer. Says what the attempt is to restart that is open after it; none where none is open.
    fn poll(&mut self, silent: &[u64]) -> Option<Vec<u64>> {
        let now = at(self.polls);
        self.polls += 1;
        let observation = match silent.len() {
            0 => Observation::Serving,
            1 => Observation::Short,
            _ => Observation::Silent,
        };
        let silent = silent.iter().map(|&id| node(id)).collect();
        let sighting = Sighting {
            observation,
            silent,
        };
        let sightings = BTreeMap::from([(SHARD, sighting)]);
        let health = self.watch.judge(now, &self.fleet, &sightings);
        // The coordinator sees it too.
        let second = SecondView::Down { shards: 1 };
        let decision = self.watch.policy.decide(now, &health, second);
        self.watch.tell_attempts(decision.freeze, &sightings);
        for id in decision.recover {
            self.watch
                .begin_attempt(now, id, &health, &self.fleet, &sightings);
        }
        self.named()
    }

    /// What the open attempt is to restart.
    fn named(&self) -> Option<Vec<u64>> {
        let open = self.watch.shards.get(&SHARD)?.attempt.as_ref()?;
        Some(ids(&open.dead.borrow()))
    }
}

#[tokio::test]
async fn a_process_that_missed_one_poll_is_not_restarted_with_one_that_is_dead() {
    let mut told = Told::new();
    assert_eq!(told.poll(&[1]), None);
    assert_eq!(told.poll(&[1]), None);
    assert_eq!(told.poll(&[1, 2]), Some(vec![1]));
}

#[tokio::test]
async fn a_rolling_restart_kills_nobody() {
    let mut told = Told::new();
    for silent in [1, 2, 3, 1, 2, 3] {
        assert_eq!(told.poll(&[silent]), None);
    }
    // The last of them does not come back.
    assert_eq!(told.poll(&[3]), None);
    assert_eq!(told.poll(&[3]), Some(vec![3]));
}

#[tokio::test]
async fn a_shard_that_does_not_serve_is_helped_as_soon_as_one_of_its_processes_is_dead() {
    let mut told = Told::new();
    for silent in [[1, 2], [2, 3], [3, 1]] {
        assert_eq!(told.poll(&silent), None);
    }
    assert_eq!(told.poll(&[1, 2]), None);
    assert_eq!(told.poll(&[1, 2]), Some(vec![1]));
}

#[tokio::test]
async fn what_dies_while_an_attempt_is_open_is_named_to_it() {
    let mut told = Told::new();
    assert_eq!(told.poll(&[1]), None);
    assert_eq!(told.poll(&[1, 2]), None);
    assert_eq!(told.poll(&[1, 2]), Some(vec![1]));
    assert_eq!(told.poll(&[1, 2]), Some(vec![1, 2]));
    assert_eq!(told.poll(&[2]), Some(vec![2]));
    assert_eq!(told.poll(&[1, 2]), Some(vec![2]));
    // Nothing is begun while nobody confirms it, nor by an attempt that has given its place back.
    let none = BTreeMap::new();
    let frozen = Some(Freeze::NoQuorum);
    told.watch.tell_attempts(frozen, &none);
    assert_eq!(told.named(), Some(Vec::new()));
    assert_eq!(told.poll(&[2]), Some(vec![2]));
    let open = told.watch.shards[&SHARD].attempt.as_ref().unwrap();
    open.moving.store(true, Ordering::Relaxed);
    assert_eq!(told.poll(&[2]), Some(Vec::new()));
}

#[test]
fn who_serves_another_shard_is_not_restarted_for_one_that_stands_still() {
    let target = |id: u64, nodes: [u64; 2]| Target {
        id: ShardId(id),
        key: "key".into(),
        nodes: nodes.into_iter().map(node).collect(),
        report: Report::default(),
    };
    let shards = [target(1, [1, 2]), target(2, [2, 3])].map(|at| (at.id, at));
    let fleet = Fleet {
        shards: shards.into(),
        ..Fleet::default()
    };
    let still = Health::Dead {
        cause: Cause::Stalled,
    };
    let mut health = BTreeMap::from([(ShardId(1), still), (ShardId(2), Health::Alive)]);
    assert_eq!(ids(&stalled(ShardId(1), &health, &fleet)), [1]);
    health.insert(ShardId(2), Health::Suspect { misses: 1 });
    assert_eq!(ids(&stalled(ShardId(1), &health, &fleet)), [1, 2]);
}

#[tokio::test]
async fn a_freeze_is_told_when_it_begins_and_when_it_ends() {
    let mut told = Told::new();
    let frozen = Some(Freeze::NoQuorum);
    for freeze in [None, frozen, frozen, None, None] {
        told.watch.note_freeze(freeze);
    }
    let actions = told.watch.tools.actions.told();
    let words = actions
        .iter()
        .map(|at| (at.kind.as_str(), at.reason.as_str(), at.times));
    let words: Vec<_> = words.collect();
    let expected = [("freeze", "no_quorum", 1), ("end_freeze", "no_quorum", 1)];
    assert_eq!(words, expected);
}

#[tokio::test]
async fn what_was_missed_before_anothers_turn_ended_does_not_count() {
    let mut told = Told::new();
    assert_eq!(told.poll(&[1]), None);
    assert_eq!(told.poll(&[1]), None);
    let report = &mut told.fleet.shards.get_mut(&SHARD).unwrap().report;
    (report.last_attempt, report.ended_attempt) = (Some(1), 1);
    told.watch.note_turns(at(told.polls), &told.fleet);
    assert_eq!(told.poll(&[1]), None, "it is seen anew");
    assert_eq!(told.poll(&[1]), None);
    assert_eq!(told.poll(&[1]), Some(vec![1]));
}

#[test]
fn whose_place_another_has_is_not_restarted_for_a_shard_that_stands_still() {
    let mut nodes = vec![node(1), node(2)];
    nodes[0].replaced = true;
    let fleet = fleet_of(SHARD, nodes);
    let still = Health::Dead {
        cause: Cause::Stalled,
    };
    let health = BTreeMap::from([(SHARD, still)]);
    assert_eq!(ids(&stalled(SHARD, &health, &fleet)), [2]);
}
