use proptest::prelude::*;

use super::*;

fn ask(shard: u64, watchdog: &str, known: u64) -> TurnRequest {
    TurnRequest {
        shard: ShardId(shard),
        watchdog: watchdog.into(),
        known,
        reason: "no answer".into(),
        lease_ms: 100,
        concurrent_percent: 10,
        acts: true,
    }
}

fn end(shard: u64, watchdog: &str, attempt: u64, outcome: TurnOutcome) -> TurnEnd {
    TurnEnd {
        shard: ShardId(shard),
        watchdog: watchdog.into(),
        attempt,
        outcome,
    }
}

fn verdict(recoveries: &mut Recoveries, now_ms: i64, asked: TurnRequest) -> (TurnVerdict, u64) {
    let answer = recoveries.begin(now_ms, 3, asked);
    (answer.verdict, answer.attempt)
}

#[test]
fn a_turn_that_is_asked_for_again_for_less_ends_no_sooner() {
    let mut recoveries = Recoveries::default();
    recoveries.begin(0, 3, ask(1, "a", 0));
    let shorter = TurnRequest {
        lease_ms: 10,
        ..ask(1, "a", 0)
    };
    let granted = |attempt| (TurnVerdict::Granted, attempt);
    assert_eq!(verdict(&mut recoveries, 20, shorter), granted(1));
    let taken = (TurnVerdict::Taken, 1);
    assert_eq!(verdict(&mut recoveries, 99, ask(1, "b", 1)), taken);
    assert_eq!(verdict(&mut recoveries, 100, ask(1, "b", 1)), granted(2));
}

#[test]
fn of_two_who_saw_the_same_one_gets_the_turn_and_the_other_looks_again() {
    let mut recoveries = Recoveries::default();
    let granted = (TurnVerdict::Granted, 1);
    assert_eq!(verdict(&mut recoveries, 0, ask(1, "a", 0)), granted);
    let taken = recoveries.begin(1, 3, ask(1, "b", 0));
    assert_eq!(
        (taken.verdict, taken.holder.as_str()),
        (TurnVerdict::Taken, "a")
    );
    assert_eq!(
        verdict(&mut recoveries, 2, ask(1, "a", 0)),
        granted,
        "a lost answer is asked for again"
    );
    let over =
        |recoveries: &mut Recoveries| recoveries.end(3, &end(1, "a", 1, TurnOutcome::Recovered));
    assert!(over(&mut recoveries));
    assert!(over(&mut recoveries), "a lost answer is asked for again");
    assert_eq!(
        verdict(&mut recoveries, 4, ask(1, "b", 0)),
        (TurnVerdict::Stale, 1),
        "what b saw is older than a's turn"
    );
    assert_eq!(
        verdict(&mut recoveries, 5, ask(1, "b", 1)),
        (TurnVerdict::Granted, 2)
    );
}

#[test]
fn the_turn_of_a_dead_watchdog_ends_with_its_lease() {
    let mut recoveries = Recoveries::default();
    recoveries.begin(0, 3, ask(1, "a", 0));
    recoveries.begin(50, 3, ask(1, "a", 0));
    assert_eq!(
        verdict(&mut recoveries, 149, ask(1, "b", 1)),
        (TurnVerdict::Taken, 1),
        "it was prolonged"
    );
    assert_eq!(
        verdict(&mut recoveries, 150, ask(1, "b", 1)),
        (TurnVerdict::Granted, 2)
    );
    let turns = recoveries.of(ShardId(1)).unwrap();
    assert_eq!(turns.ended[0].outcome, TurnOutcome::Expired);
    assert_eq!(turns.ended[0].ended_ms, 150);
    assert_eq!(
        verdict(&mut recoveries, 151, ask(1, "a", 0)),
        (TurnVerdict::Taken, 2),
        "it lost the turn"
    );
    assert!(!recoveries.end(152, &end(1, "a", 2, TurnOutcome::Recovered)));
}

#[test]
fn only_so_many_are_acted_upon_at_once_and_who_only_watches_takes_no_place() {
    let mut recoveries = Recoveries::default();
    recoveries.begin(0, 3, ask(1, "a", 0));
    let crowded = (TurnVerdict::Crowded, 0);
    assert_eq!(verdict(&mut recoveries, 1, ask(2, "b", 0)), crowded);
    let half = TurnRequest {
        concurrent_percent: 70,
        ..ask(2, "b", 0)
    };
    assert_eq!(
        verdict(&mut recoveries, 2, half),
        (TurnVerdict::Granted, 1),
        "two of three"
    );
    let watching = TurnRequest {
        acts: false,
        ..ask(1, "a", 0)
    };
    recoveries.begin(3, 3, watching);
    recoveries.end(4, &end(2, "b", 1, TurnOutcome::TimedOut));
    assert_eq!(
        verdict(&mut recoveries, 5, ask(3, "b", 0)),
        (TurnVerdict::Granted, 1)
    );
    assert_eq!(
        verdict(&mut recoveries, 6, ask(1, "a", 0)),
        (TurnVerdict::Crowded, 1),
        "the place was given away"
    );
}

proptest! {
    /// Whatever is asked when: nobody acts on a shard beside another, no more act than allowed, and what is kept is bounded.
    #[test]
    fn turns_are_exclusive_and_bounded(
        asked in proptest::collection::vec((1u64..6, 0usize..3, 0u64..6, 0i64..60, any::<bool>(), any::<bool>()), 0..200)
    ) {
        let names = ["a", "b", "c"];
        let mut recoveries = Recoveries::default();
        let mut now = 0;
        for (shard, who, known, wait, acts, ends) in asked {
            now += wait;
            let name = names[who];
            let before = recoveries.of(ShardId(shard)).cloned().unwrap_or_default();
            if ends {
                recoveries.end(now, &end(shard, name, known, TurnOutcome::TimedOut));
            } else {
                let request = TurnRequest { acts, ..ask(shard, name, known) };
                let answer = recoveries.begin(now, 5, request);
                let held = before.open.as_ref().filter(|open| open.until_ms > now);
                if answer.verdict == TurnVerdict::Granted {
                    prop_assert!(held.is_none_or(|open| open.watchdog == name));
                    prop_assert_eq!(answer.attempt, known + 1);
                    prop_assert_eq!(&answer.holder, name);
                }
            }
            let open: Vec<&Turn> = recoveries.0.values().filter_map(|turns| turns.open.as_ref()).collect();
            prop_assert!(open.iter().filter(|turn| turn.acts && turn.until_ms > now).count() <= 1);
            for turns in recoveries.0.values() {
                prop_assert!(turns.ended.len() <= ENDED_MAX);
                prop_assert!(turns.open.as_ref().is_none_or(|turn| turn.attempt == turns.attempts));
            }
            let mut out = Writer::default();
            write(&mut out, &recoveries);
            prop_assert_eq!(&read(&mut Reader(&out.0)).unwrap(), &recoveries);
        }
    }
}
