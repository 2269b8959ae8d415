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
