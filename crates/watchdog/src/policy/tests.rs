use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::detector::Cause;

const CONFIG: PolicyConfig = PolicyConfig {
    backoff_min: Duration::from_secs(1),
    backoff_max: Duration::from_secs(60),
    concurrent_percent: 10,
    alert_after_attempts: 5,
    stable_after: Duration::from_secs(60),
};

const DEAD: Health = Health::Dead {
    cause: Cause::Silent,
};
const ALL_FINE: SecondView = SecondView::Down { shards: 0 };

fn at(seconds: u64) -> Instant {
    Instant::from_origin(Duration::from_secs(seconds))
}

fn cluster(total: u64, dead: &[u64]) -> BTreeMap<ShardId, Health> {
    (1..=total)
        .map(|id| {
            (
                ShardId(id),
                if dead.contains(&id) {
                    DEAD
                } else {
                    Health::Alive
                },
            )
        })
        .collect()
}

fn ids(ids: &[u64]) -> Vec<ShardId> {
    ids.iter().copied().map(ShardId).collect()
}

#[test]
fn a_dead_shard_is_recovered_at_once_and_only_once() {
    let mut policy = Policy::new(CONFIG);
    let health = cluster(3, &[2]);
    assert_eq!(
        policy.decide(at(0), &health, ALL_FINE),
        Decision {
            recover: ids(&[2]),
            freeze: None
        }
    );
    assert_eq!(policy.decide(at(5), &health, ALL_FINE).recover, []);
    policy.end_attempt(at(10), ShardId(2), |longest| longest);
    assert_eq!(policy.decide(at(10), &health, ALL_FINE).recover, []);
    assert_eq!(policy.decide(at(11), &health, ALL_FINE).recover, ids(&[2]));
    assert_eq!(policy.attempts(ShardId(2)), 2);
}

#[test]
fn what_another_watchdog_does_is_not_counted_twice_and_backed_off_from() {
    let mut policy = Policy::new(CONFIG);
    let health = cluster(3, &[2]);
    assert_eq!(policy.decide(at(0), &health, ALL_FINE).recover, ids(&[2]));
    policy.forgo(at(0), ShardId(2), |longest| longest);
    assert_eq!(policy.attempts(ShardId(2)), 0, "nothing was begun");
    policy.note_foreign(at(0), ShardId(2), |longest| longest);
    policy.note_foreign(at(0), ShardId(2), |longest| longest);
    assert_eq!(policy.attempts(ShardId(2)), 2);
    assert_eq!(policy.decide(at(1), &health, ALL_FINE).recover, []);
    assert_eq!(policy.decide(at(2), &health, ALL_FINE).recover, ids(&[2]));
}

#[test]
fn suspicion_and_warming_up_are_no_reason_to_act() {
    let mut policy = Policy::new(CONFIG);
    let mut health = cluster(5, &[]);
    health.insert(ShardId(1), Health::Suspect { misses: 2 });
    health.insert(ShardId(2), Health::WarmingUp);
    assert_eq!(policy.decide(at(0), &health, ALL_FINE).recover, []);
}

#[test]
fn backoff_doubles_from_a_second_to_a_minute_and_is_drawn_in_full() {
    let mut policy = Policy::new(CONFIG);
    let health = cluster(3, &[1]);
    let mut longest_waits = Vec::new();
    let mut now = 0;
    for _ in 0..9 {
        assert_eq!(policy.decide(at(now), &health, ALL_FINE).recover, ids(&[1]));
        policy.end_attempt(at(now), ShardId(1), |longest| {
            longest_waits.push(longest.as_secs());
            Duration::ZERO
        });
        now += 1;
    }
    assert_eq!(longest_waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    for _ in 0..1000 {
        policy.decide(at(now), &health, ALL_FINE);
        policy.end_attempt(at(now), ShardId(1), |longest| {
            assert_eq!(longest, CONFIG.backoff_max);
            Duration::ZERO
        });
    }
    assert!(policy.is_alerting(ShardId(1)) && !policy.is_alerting(ShardId(2)));
}

#[test]
fn attempts_are_forgotten_only_after_a_stable_time() {
    let mut policy = Policy::new(CONFIG);
    let (down, up) = (cluster(3, &[1]), cluster(3, &[]));
    for round in 0..5 {
        // It is recovered, serves for 55 seconds, and dies again.
        let began = 200 * round;
        assert_eq!(policy.decide(at(began), &down, ALL_FINE).recover, ids(&[1]));
        policy.end_attempt(at(began + 1), ShardId(1), |_| Duration::ZERO);
        policy.decide(at(began + 5), &up, ALL_FINE);
        policy.decide(at(began + 60), &up, ALL_FINE);
        assert_eq!(u64::from(policy.attempts(ShardId(1))), round + 1);
    }
    assert!(policy.is_alerting(ShardId(1)));
    policy.decide(at(1000), &up, ALL_FINE);
    assert!(!policy.is_alerting(ShardId(1)));
    assert_eq!(policy.attempts(ShardId(1)), 0);
}

#[test]
fn no_more_than_a_tenth_at_once_and_always_one() {
    for (total, places) in [(1, 1), (3, 1), (19, 1), (20, 2), (100, 10), (109, 10)] {
        let mut policy = Policy::new(CONFIG);
        let dead: Vec<u64> = (1..=total).collect();
        let second = SecondView::Down { shards: dead.len() };
        let decision = policy.decide(at(0), &cluster(total, &dead), second);
        assert_eq!(
            (decision.recover.len(), policy.places()),
            (places, places),
            "of {total}"
        );
    }
}

#[test]
fn shards_do_not_hold_each_other_up() {
    let mut policy = Policy::new(CONFIG);
    let health = cluster(4, &[1, 2]);
    assert_eq!(policy.decide(at(0), &health, ALL_FINE).recover, ids(&[1]));
    // The first replays for long: the second has its turn, though the first is still open.
    policy.release_place(ShardId(1));
    assert_eq!(policy.decide(at(1), &health, ALL_FINE).recover, ids(&[2]));
    assert_eq!(policy.decide(at(2), &health, ALL_FINE).recover, []);
    policy.end_attempt(at(3), ShardId(2), |longest| longest);
    assert_eq!(policy.decide(at(3), &health, ALL_FINE).recover, []);
    policy.end_attempt(at(3), ShardId(1), |longest| longest);
    // Both are due; who waited longer goes first.
    assert_eq!(policy.decide(at(9), &health, ALL_FINE).recover, ids(&[1]));
    policy.end_attempt(at(10), ShardId(1), |_| Duration::ZERO);
    assert_eq!(policy.decide(at(10), &health, ALL_FINE).recover, ids(&[2]));
}

#[test]
fn freezes_only_when_most_look_down_and_nobody_confirms_it() {
    let cases = [
        (2, SecondView::NoQuorum, None),
        (2, SecondView::Down { shards: 0 }, None),
        (3, SecondView::NoQuorum, Some(Freeze::NoQuorum)),
        (
            3,
            SecondView::Down { shards: 0 },
            Some(Freeze::SecondViewDisagrees),
        ),
        (
            3,
            SecondView::Down { shards: 2 },
            Some(Freeze::SecondViewDisagrees),
        ),
        (3, SecondView::Down { shards: 3 }, None),
        (4, SecondView::Down { shards: 4 }, None),
    ];
    for (dead, second, freeze) in cases {
        let dead: Vec<u64> = (1..=dead).collect();
        let decision = Policy::new(CONFIG).decide(at(0), &cluster(4, &dead), second);
        assert_eq!(decision.freeze, freeze, "{dead:?} {second:?}");
        assert_eq!(
            decision.recover.is_empty(),
            freeze.is_some(),
            "{dead:?} {second:?}"
        );
    }
}

#[test]
fn a_shard_that_is_gone_is_forgotten() {
    let mut policy = Policy::new(CONFIG);
    policy.decide(at(0), &cluster(3, &[3]), ALL_FINE);
    policy.decide(at(1), &cluster(2, &[]), ALL_FINE);
    assert_eq!(policy.attempts(ShardId(3)), 0);
    policy.end_attempt(at(2), ShardId(3), |longest| longest);
    assert_eq!(
        policy.decide(at(3), &cluster(3, &[3]), ALL_FINE).recover,
        ids(&[3])
    );
}

#[derive(Debug, Clone)]
enum Step {
    Decide(BTreeSet<u64>),
    Release(u64),
    End(u64),
}

proptest! {
    #[test]
    fn places_are_never_exceeded_and_nobody_starves(
        total in 1_u64..40,
        steps in prop::collection::vec(
            prop_oneof![
                3 => prop::collection::btree_set(1_u64..40, 0..40).prop_map(Step::Decide),
                1 => (1_u64..40).prop_map(Step::Release),
                2 => (1_u64..40).prop_map(Step::End),
            ],
            1..200,
        ),
    ) {
        let mut policy = Policy::new(CONFIG);
        let mut acting = BTreeSet::new();
        let mut open = BTreeSet::new();
        let mut now = 0;
        for step in steps {
            now += 1;
            match step {
                Step::Decide(dead) => {
                    let dead: Vec<u64> = dead.into_iter().collect();
                    let second = SecondView::Down { shards: total as usize };
                    for id in policy.decide(at(now), &cluster(total, &dead), second).recover {
                        prop_assert!(dead.contains(&id.0));
                        prop_assert!(open.insert(id.0) && acting.insert(id.0));
                    }
                    prop_assert!(acting.len() <= policy.places());
                }
                Step::Release(id) => {
                    policy.release_place(ShardId(id));
                    acting.remove(&id);
                }
                Step::End(id) => {
                    policy.end_attempt(at(now), ShardId(id), |longest| longest / 2);
                    acting.remove(&id);
                    open.remove(&id);
                }
            }
        }
        // Whatever happened: once every attempt is over and the waits are up, each dead shard has its turn.
        for id in 1..=total {
            policy.end_attempt(at(now), ShardId(id), |longest| longest);
        }
        let dead: Vec<u64> = (1..=total).collect();
        let mut had_a_turn = BTreeSet::new();
        for _ in 0..total {
            now += 61;
            let second = SecondView::Down { shards: total as usize };
            for id in policy.decide(at(now), &cluster(total, &dead), second).recover {
                had_a_turn.insert(id.0);
                policy.end_attempt(at(now), id, |longest| longest);
            }
        }
        prop_assert_eq!(had_a_turn.len() as u64, total);
    }
}

#[test]
fn processes_are_treated_like_shards() {
    use cluster::NodeId;
    let mut policy = Policy::<NodeId>::new(CONFIG);
    let health = BTreeMap::from([(NodeId(4), DEAD), (NodeId(5), DEAD)]);
    let frozen = Some(Freeze::NoQuorum);
    assert_eq!(policy.decide_unless(at(0), &health, frozen).recover, []);
    let begin = |policy: &mut Policy<NodeId>, seconds| {
        policy.decide_unless(at(seconds), &health, None).recover
    };
    assert_eq!(begin(&mut policy, 1), [NodeId(4)], "one at a time");
    policy.end_attempt(at(2), NodeId(4), |longest| longest);
    assert_eq!(begin(&mut policy, 3), [NodeId(5)], "each in turn");
    policy.end_attempt(at(4), NodeId(5), |longest| longest);
    assert_eq!(begin(&mut policy, 4), [NodeId(4)]);
    policy.end_attempt(at(4), NodeId(4), |longest| longest);
    assert_eq!(begin(&mut policy, 5), [NodeId(5)]);
    assert_eq!(begin(&mut policy, 5), [], "4 backs off for two seconds");
}

#[test]
fn most_are_held_to_be_down_only_when_another_says_so_too() {
    let (down_2, down_1) = (
        SecondView::Down { shards: 2 },
        SecondView::Down { shards: 1 },
    );
    assert_eq!(Freeze::judge(3, 1, SecondView::NoQuorum), None);
    assert_eq!(Freeze::judge(0, 0, SecondView::NoQuorum), None);
    assert_eq!(
        Freeze::judge(3, 2, SecondView::NoQuorum),
        Some(Freeze::NoQuorum)
    );
    assert_eq!(
        Freeze::judge(3, 2, down_1),
        Some(Freeze::SecondViewDisagrees)
    );
    assert_eq!(Freeze::judge(3, 2, down_2), None);
}

#[test]
fn a_time_of_serving_that_an_outage_broke_is_not_stable() {
    let mut policy = Policy::new(CONFIG);
    let (down, up) = (cluster(3, &[1]), cluster(3, &[]));
    assert_eq!(policy.decide(at(0), &down, ALL_FINE).recover, ids(&[1]));
    policy.end_attempt(at(1), ShardId(1), |_| Duration::from_secs(50));
    policy.decide(at(5), &up, ALL_FINE);
    assert_eq!(policy.decide(at(30), &down, ALL_FINE).recover, []);
    policy.decide(at(40), &up, ALL_FINE);
    policy.decide(at(70), &up, ALL_FINE);
    assert_eq!(policy.attempts(ShardId(1)), 1);
    policy.decide(at(100), &up, ALL_FINE);
    assert_eq!(policy.attempts(ShardId(1)), 0);
}
