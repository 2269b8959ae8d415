use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn applied(count: u64) -> ItemOutcome {
    ItemOutcome::Applied { count }
}

#[test]
fn a_retry_of_a_batch_applies_what_was_not_applied() {
    let mut subject = Subject::new();
    let id = identity(1, 1, 5);
    let first = subject.write(record(Some(id), vec![item(0, "a", 1), item(2, "c", 3)]));
    assert_eq!(first, WriteOutcome::Recorded(vec![applied(1), applied(3)]));
    // The range of "b" came to this shard between the two tries.
    let all = vec![item(0, "a", 1), item(1, "b", 2), item(2, "c", 3)];
    let second = subject.write(record(Some(id), all.clone()));
    let repeated = |count| ItemOutcome::Repeated { count };
    assert_eq!(
        second,
        WriteOutcome::Recorded(vec![repeated(1), applied(2), repeated(3)])
    );
    let third = subject.write(record(Some(id), all));
    assert_eq!(
        third,
        WriteOutcome::Recorded(vec![repeated(1), repeated(2), repeated(3)])
    );
    assert_eq!(subject.state.counts().repeats, 5);
}

#[test]
fn the_same_id_twice_in_one_command_takes_effect_once() {
    let mut subject = Subject::new();
    let write = record(Some(identity(1, 1, 5)), vec![item(0, "a", 4)]);
    let outcomes = subject.writes(&[write.clone(), write]);
    let expected = [applied(4), ItemOutcome::Repeated { count: 4 }];
    assert_eq!(
        outcomes,
        expected.map(|outcome| WriteOutcome::Recorded(vec![outcome]))
    );
}

#[test]
fn an_overflow_refuses_its_item_alone_and_may_be_tried_again() {
    let mut subject = Subject::new();
    subject.write(record(None, vec![item(0, "a", u64::MAX - 1)]));
    let write = record(
        Some(identity(1, 1, 5)),
        vec![item(0, "a", 2), item(1, "b", 1)],
    );
    let full = ItemOutcome::Overflow {
        count: u64::MAX - 1,
    };
    assert_eq!(
        subject.write(write.clone()),
        WriteOutcome::Recorded(vec![full, applied(1)])
    );
    subject.write(delete(None, "a"));
    assert_eq!(
        subject.write(write),
        WriteOutcome::Recorded(vec![applied(2), ItemOutcome::Repeated { count: 1 }])
    );
}

#[test]
fn a_repeated_delete_answers_as_the_first_did_and_changes_nothing() {
    let mut subject = Subject::new();
    subject.write(record(None, vec![item(0, "a", 1)]));
    let first = delete(Some(identity(1, 1, 5)), "a");
    let answer = |existed, repeated| WriteOutcome::Deleted { existed, repeated };
    assert_eq!(subject.write(first.clone()), answer(true, false));
    subject.write(record(None, vec![item(0, "a", 7)]));
    assert_eq!(subject.write(first), answer(true, true));
    assert_eq!(subject.count(1, "a"), 7);
    let absent = delete(Some(identity(1, 2, 5)), "x");
    assert_eq!(subject.write(absent.clone()), answer(false, false));
    assert_eq!(subject.write(absent), answer(false, true));
}

#[test]
fn a_newer_generation_empties_the_namespace_and_an_older_one_is_refused() {
    let mut subject = Subject::new();
    subject.write(record(None, vec![item(0, "a", 1)]));
    let newer = Write {
        generation: Generation(3),
        ..record(None, vec![item(0, "b", 1)])
    };
    subject.write(newer);
    assert_eq!((subject.count(3, "a"), subject.count(3, "b")), (0, 1));
    let known = Generation(3);
    assert_eq!(
        subject.write(record(Some(identity(1, 1, 5)), vec![item(0, "a", 1)])),
        WriteOutcome::Refused(Refusal::StaleGeneration { known })
    );
    assert_eq!(
        subject.state.get(scope(2), "b"),
        Err(StaleGeneration { known })
    );
    // Not lost: routed again, it is applied.
    let again = Write {
        generation: known,
        ..record(Some(identity(1, 1, 5)), vec![item(0, "a", 1)])
    };
    assert_eq!(
        subject.write(again),
        WriteOutcome::Recorded(vec![applied(1)])
    );
    // The clear that caused the newer generation may come late; it changes nothing any more.
    let clear = command::encode_clear(NamespaceId(1), Generation(2));
    let response = subject.command(command::KIND_CLEAR, &clear).unwrap();
    assert_eq!(response, Response::Cleared(known));
    assert_eq!(subject.count(3, "b"), 1);
}

#[test]
fn a_clear_shows_at_once_and_is_reclaimed_in_steps() {
    let mut subject = Subject::new();
    for n in 0..10 {
        let items = (0..1000).map(|i| item(i, &format!("term {n} {i}"), 1));
        subject.write(record(None, items.collect()));
    }
    let clear = command::encode_clear(NamespaceId(1), Generation(2));
    subject.command(command::KIND_CLEAR, &clear).unwrap();
    assert_eq!(subject.state.stats().terms, 0);
    let top = subject.state.top_k(scope(2), "", 10, None).unwrap();
    assert_eq!(top.value, []);
    let mut steps = 1;
    while !subject.state.reclaim(1000) {
        steps += 1;
        assert!(steps < 1000, "reclaiming does not end");
    }
    assert!(steps > 1, "ten thousand terms were freed in one step");
}

#[test]
fn a_retry_of_what_was_applied_before_a_clear_answers_and_does_not_count_again() {
    let mut subject = Subject::new();
    let write = record(Some(identity(1, 1, 5)), vec![item(0, "a", 1)]);
    subject.write(write.clone());
    let clear = command::encode_clear(NamespaceId(1), Generation(2));
    subject.command(command::KIND_CLEAR, &clear).unwrap();
    let repeated = WriteOutcome::Recorded(vec![ItemOutcome::Repeated { count: 0 }]);
    assert_eq!(subject.write(write.clone()), repeated);
    let routed_again = Write {
        generation: Generation(2),
        ..write
    };
    assert_eq!(subject.write(routed_again), repeated);
}

#[test]
fn ids_from_the_future_and_from_the_forgotten_past_are_refused() {
    let mut subject = Subject::new();
    let mut future = identity(1, 1, 5);
    future.id.issued_at_ms = STAMP_MS + 300_001;
    let ahead = WriteOutcome::Refused(Refusal::IssuedAhead { ahead_ms: 300_001 });
    assert_eq!(
        subject.write(record(Some(future), vec![item(0, "a", 1)])),
        ahead
    );
    future.id.issued_at_ms -= 1;
    assert_eq!(
        subject.write(record(Some(future), vec![item(0, "a", 1)])),
        WriteOutcome::Recorded(vec![applied(1)])
    );

    let small = command::encode_configure(4096);
    subject.command(command::KIND_CONFIGURE, &small).unwrap();
    assert_eq!(subject.state.repeat_table_cap_bytes(), 4096);
    for sequence in 0..100 {
        let mut id = identity(2, sequence, 5);
        id.id.issued_at_ms = STAMP_MS + sequence as i64;
        subject.write(record(Some(id), vec![item(0, "b", 1)]));
    }
    assert!(subject.state.stats().repeat_table_bytes <= 4096);
    let outcome = subject.write(record(Some(identity(2, 0, 5)), vec![item(0, "b", 1)]));
    assert!(
        matches!(
            outcome,
            WriteOutcome::Refused(Refusal::Expired { mark_ms: Some(_) })
        ),
        "{outcome:?}"
    );
    assert_eq!(subject.count(1, "b"), 100);
}

#[test]
fn what_the_client_settled_is_expired() {
    let mut subject = Subject::new();
    subject.write(record(Some(identity(1, 1, 5)), vec![item(0, "a", 1)]));
    let mut next = identity(1, 2, 5);
    next.id.acked_below = 2;
    subject.write(record(Some(next), vec![item(0, "a", 1)]));
    let late = subject.write(record(Some(identity(1, 1, 5)), vec![item(0, "a", 1)]));
    let expired = Refusal::Expired { mark_ms: None };
    assert_eq!(late, WriteOutcome::Refused(expired));
}

#[test]
fn commands_that_nobody_writes_stop_the_replica_and_change_nothing() {
    let mut subject = Subject::new();
    subject.write(record(None, vec![item(0, "a", 1)]));
    let before = subject.state.view().hash();
    let good = command::encode_writes(&[record(None, vec![item(0, "b", 1)])]);
    let cut = &good[..good.len() - 1];
    let error = subject.command(command::KIND_WRITES, cut).unwrap_err();
    assert!(
        matches!(error, ApplyError::Malformed { kind: 1, .. }),
        "{error}"
    );
    assert_eq!(
        subject.command(77, &good),
        Err(ApplyError::UnknownKind { kind: 77 })
    );
    assert_eq!(subject.state.view().hash(), before);
}

#[test]
fn items_that_no_dictionary_takes_are_refused_one_by_one() {
    let mut subject = Subject::new();
    let outcome = subject.write(record(
        None,
        vec![item(0, "", 1), item(1, "a", 0), item(2, "a", 1)],
    ));
    let unusable = ItemOutcome::Unusable;
    assert_eq!(
        outcome,
        WriteOutcome::Recorded(vec![unusable, unusable, applied(1)])
    );
}

#[test]
fn readings_carry_the_index_of_the_newest_entry() {
    let mut subject = Subject::new();
    for n in 1..=3 {
        subject.write(record(None, vec![item(0, "a", 1)]));
        let reading = subject.state.top_k(scope(1), "a", 1, None).unwrap();
        assert_eq!(reading.index, n);
    }
    // A scope that is newer than what is known reads as empty: the clear is on its way.
    let reading = subject.state.top_k(scope(2), "a", 1, None).unwrap();
    assert_eq!(reading.value, []);
}

/// Whether a reader sees a batch of which a part is applied. Each entry counts each term once more, so that a term's count is the
/// newest entry that is seen of it.
fn sees_a_part(state: &DictionaryState, terms: usize) -> bool {
    let seen = state.top_k(scope(1), "", terms, None).unwrap();
    let counts = || seen.value.iter().map(|entry| entry.count);
    let newest = counts().max().unwrap_or(0);
    assert!(seen.index >= newest, "{newest} is seen at {}", seen.index);
    seen.value.len() < terms || counts().any(|count| count < newest)
}

#[test]
fn whoever_sees_a_part_of_a_batch_is_told_the_index_of_its_entry() {
    const TERMS: u32 = 4 * ITEMS_A_TURN as u32;
    const ENTRIES_MAX: u64 = 100_000;
    let items = (0..TERMS).map(|n| item(n, &format!("term {n}"), 1));
    let batch = command::encode_writes(&[record(None, items.collect())]);
    let state = DictionaryState::new(Options::default());
    let apply = |index| {
        let at = Applied { index, term: 1 };
        state.apply(at, STAMP_MS, command::KIND_WRITES, &batch)
    };
    apply(1).unwrap();
    let is_over = AtomicBool::new(false);
    let saw_a_part = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                if sees_a_part(&state, TERMS as usize) {
                    return true;
                }
            }
            false
        });
        // When the reader is let in is not up to the test: entries follow until it was at the right moment.
        let mut entries = 2..ENTRIES_MAX;
        while !reader.is_finished()
            && let Some(index) = entries.next()
        {
            apply(index).unwrap();
        }
        is_over.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert!(saw_a_part, "no reader was let in");
}

#[test]
fn a_range_limits_what_is_found() {
    let mut subject = Subject::new();
    let terms = ["aa", "ab", "ac", "ad", "b"];
    let items = terms
        .iter()
        .zip(0..)
        .map(|(term, n)| item(n, term, 10 + u64::from(n)));
    subject.write(record(None, items.collect()));
    let range = cluster::KeyRange::new("ab".into(), Some("ad".into())).unwrap();
    let found = |k| {
        let reading = subject.state.top_k(scope(1), "a", k, Some(&range)).unwrap();
        let text = |entry: trie_core::Entry| String::from_utf8(entry.term).unwrap();
        reading.value.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(found(10), ["ac", "ab"]);
    assert_eq!(found(1), ["ac"]);
    assert_eq!(found(0), Vec::<String>::new());
}

#[test]
fn a_listing_pages_through_everything_once() {
    let mut subject = Subject::new();
    let items = (0..500).map(|n| item(n, &format!("term {n:04}"), 1));
    subject.write(record(None, items.collect()));
    for (limit, limit_bytes) in [(7, usize::MAX), (1000, 50), (500, usize::MAX), (1, 0)] {
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = subject
                .state
                .list(scope(1), "term", &after, limit, limit_bytes)
                .unwrap()
                .value;
            let more = page.more;
            seen.extend(page.entries.into_iter().map(|entry| entry.term));
            after = String::from_utf8(seen.last().unwrap().clone()).unwrap();
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 500, "limit {limit}, {limit_bytes} bytes");
        assert!(seen.is_sorted());
    }
}
