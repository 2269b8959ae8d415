use proptest::prelude::*;

use super::*;

const CONFIG: DetectorConfig = DetectorConfig {
    misses: 3,
    startup_grace: Duration::from_secs(30),
    stall_after: Duration::from_secs(60),
};

const SILENT: Health = Health::Dead {
    cause: Cause::Silent,
};

const DEAD_REPLICA: Health = Health::Dead {
    cause: Cause::ReplicaSilent,
};

fn at(seconds: u64) -> Instant {
    Instant::from_origin(Duration::from_secs(seconds))
}

#[test]
fn a_shard_that_lacks_a_replica_serves_and_is_helped_all_the_same() {
    let mut detector = alive();
    for misses in 1..=2 {
        let health = detector.observe(at(5), Observation::Short);
        assert_eq!(health, Health::Short { misses });
    }
    let health = detector.observe(at(10), Observation::Short);
    let cause = Cause::ReplicaSilent;
    assert_eq!(health, Health::Dead { cause });
    assert!(health.serves() && !health.looks_down());
    // Now the others go, too.
    assert_eq!(detector.observe(at(15), Observation::Silent), SILENT);
    assert!(!SILENT.serves() && SILENT.looks_down());
}

fn starting(progress: u64) -> Observation {
    Observation::Starting {
        progress: Some(progress),
    }
}

/// A detector that saw its shard serve at second 0.
fn alive() -> Detector {
    let mut detector = Detector::new(CONFIG, at(0));
    assert_eq!(detector.observe(at(0), Observation::Serving), Health::Alive);
    detector
}

#[test]
fn three_misses_in_a_row_and_not_fewer() {
    let mut detector = alive();
    assert_eq!(
        detector.observe(at(5), Observation::Silent),
        Health::Suspect { misses: 1 }
    );
    assert_eq!(
        detector.observe(at(10), Observation::Silent),
        Health::Suspect { misses: 2 }
    );
    assert_eq!(
        detector.observe(at(15), Observation::Serving),
        Health::Alive
    );
    assert_eq!(
        detector.observe(at(20), Observation::Silent),
        Health::Suspect { misses: 1 }
    );
    assert_eq!(
        detector.observe(at(25), Observation::Silent),
        Health::Suspect { misses: 2 }
    );
    assert_eq!(detector.observe(at(30), Observation::Silent), SILENT);
    assert_eq!(detector.observe(at(35), Observation::Silent), SILENT);
    assert_eq!(
        detector.observe(at(40), Observation::Serving),
        Health::Alive
    );
}

#[test]
fn what_never_answered_has_its_grace() {
    let mut detector = Detector::new(CONFIG, at(100));
    for second in [100, 110, 129] {
        assert_eq!(
            detector.observe(at(second), Observation::Silent),
            Health::WarmingUp
        );
    }
    assert_eq!(
        detector.observe(at(130), Observation::Silent),
        Health::Suspect { misses: 1 }
    );
    // What has answered once has no grace left, even early.
    let mut detector = Detector::new(CONFIG, at(100));
    detector.observe(at(101), starting(0));
    assert_eq!(
        detector.observe(at(102), Observation::Silent),
        Health::Suspect { misses: 1 }
    );
}

#[test]
fn replay_is_not_death_as_long_as_it_moves() {
    let mut detector = alive();
    for step in 0..1000 {
        let second = 5 + step * 50;
        assert_eq!(
            detector.observe(at(second), starting(step)),
            Health::WarmingUp
        );
    }
    // From here on it stands still.
    let last = 5 + 999 * 50;
    assert_eq!(
        detector.observe(at(last + 59), starting(999)),
        Health::WarmingUp
    );
    assert_eq!(
        detector.observe(at(last + 60), starting(999)),
        Health::Suspect { misses: 1 }
    );
    assert_eq!(
        detector.observe(at(last + 65), starting(999)),
        Health::Suspect { misses: 2 }
    );
    let stalled = Health::Dead {
        cause: Cause::Stalled,
    };
    assert_eq!(detector.observe(at(last + 70), starting(999)), stalled);
    // Restarted, it begins below where it was.
    assert_eq!(
        detector.observe(at(last + 75), starting(3)),
        Health::WarmingUp
    );
    assert_eq!(
        detector.observe(at(last + 134), starting(3)),
        Health::WarmingUp
    );
}

#[test]
fn unknown_progress_counts_for_the_shard() {
    let mut detector = alive();
    for second in (5..100_000).step_by(500) {
        let unknown = Observation::Starting { progress: None };
        assert_eq!(detector.observe(at(second), unknown), Health::WarmingUp);
    }
}

#[test]
fn a_stopped_replica_needs_no_patience_beyond_the_misses() {
    let mut detector = Detector::new(CONFIG, at(0));
    assert_eq!(
        detector.observe(at(0), Observation::Stopped),
        Health::Suspect { misses: 1 }
    );
    assert_eq!(
        detector.observe(at(5), Observation::Silent),
        Health::Suspect { misses: 2 }
    );
    let stopped = Health::Dead {
        cause: Cause::Stopped,
    };
    assert_eq!(detector.observe(at(10), Observation::Stopped), stopped);
    assert!(stopped.looks_down() && Health::Suspect { misses: 1 }.looks_down());
    assert!(!Health::Alive.looks_down() && !Health::WarmingUp.looks_down());
}

/// A poll in which these processes of a shard were silent; it serves where it has two of three.
fn poll(detector: &mut Detector, second: u64, silent: &[u64]) -> Health {
    let observation = match silent.len() {
        0 => Observation::Serving,
        1 => Observation::Short,
        _ => Observation::Silent,
    };
    let silent = silent.iter().copied().map(NodeId);
    detector.observe_shard(at(second), observation, silent)
}

#[test]
fn only_a_process_that_missed_enough_polls_itself_is_dead() {
    let mut detector = alive();
    let (a, b) = (NodeId(1), NodeId(2));
    for (second, misses) in [(5, 1), (10, 2)] {
        let health = poll(&mut detector, second, &[1]);
        assert_eq!(health, Health::Short { misses });
        assert!(!detector.holds_dead(a));
    }
    assert_eq!(poll(&mut detector, 15, &[1, 2]), SILENT);
    assert!(detector.holds_dead(a) && !detector.holds_dead(b));
    assert_eq!(poll(&mut detector, 20, &[1, 2]), SILENT);
    assert_eq!(poll(&mut detector, 25, &[1, 2]), SILENT);
    assert!(detector.holds_dead(a) && detector.holds_dead(b));
    // One answer, and it begins anew.
    poll(&mut detector, 30, &[1]);
    poll(&mut detector, 35, &[1, 2]);
    assert!(detector.holds_dead(a) && !detector.holds_dead(b));
    detector.look_afresh();
    assert_eq!(
        poll(&mut detector, 40, &[1]),
        Health::Short { misses: 1 },
        "somebody else has acted"
    );
    assert!(!detector.holds_dead(a));
}

#[test]
fn what_a_stopped_replica_was_missed_before_somebody_acted_does_not_count() {
    let mut detector = alive();
    for seconds in [5, 10] {
        detector.observe(at(seconds), Observation::Stopped);
    }
    detector.look_afresh();
    let health = detector.observe(at(15), Observation::Stopped);
    assert_eq!(health, Health::Suspect { misses: 1 });
}

#[test]
fn processes_that_are_silent_in_turn_do_not_make_a_shard_dead() {
    let mut detector = alive();
    let rolling: [(&[u64], Health); 7] = [
        (&[1], Health::Short { misses: 1 }),
        (&[2], Health::Short { misses: 2 }),
        (&[3], Health::Short { misses: 1 }),
        (&[3, 1], Health::Suspect { misses: 2 }),
        (&[1, 2], Health::Suspect { misses: 2 }),
        (&[1], DEAD_REPLICA),
        (&[], Health::Alive),
    ];
    for (second, (silent, health)) in (5..).step_by(5).zip(rolling) {
        assert_eq!(poll(&mut detector, second, silent), health);
        assert_eq!(detector.health(), health);
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::Serving),
        prop::option::of(0_u64..4).prop_map(|progress| Observation::Starting { progress }),
        Just(Observation::Stopped),
        Just(Observation::Silent),
    ]
}

proptest! {
    #[test]
    fn dead_only_after_enough_misses_and_alive_only_if_serving(seen in prop::collection::vec((observation(), 1_u64..40), 1..200)) {
        let mut detector = Detector::new(CONFIG, at(0));
        let mut now = 0;
        let mut without_good_news = 0;
        for (observation, later) in seen {
            now += later;
            let health = detector.observe(at(now), observation);
            prop_assert_eq!(health, detector.health());
            prop_assert_eq!(health == Health::Alive, observation == Observation::Serving);
            without_good_news = if health == Health::Alive { 0 } else { without_good_news + 1 };
            if matches!(health, Health::Dead { .. }) {
                prop_assert!(without_good_news >= CONFIG.misses);
            }
            if let Observation::Starting { progress: None } = observation {
                prop_assert_eq!(health, Health::WarmingUp);
            }
        }
    }
}
