use super::*;

const fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn key() -> Key {
    Key {
        namespace: "",
        term: "term".to_owned(),
    }
}

fn two_increments() -> (Oracle, Ticket, Ticket) {
    let mut oracle = Oracle::new(Trace::new(false), false);
    let first = oracle.issue(&key(), at(1)).unwrap();
    let second = oracle.issue(&key(), at(1)).unwrap();
    assert_eq!((first.count(), second.count()), (1, 4));
    (oracle, first, second)
}

fn verdict(oracle: &Oracle) -> String {
    oracle.violations.join("; ")
}

#[test]
fn lost_doubled_invented_and_refused_increments_are_told_apart() {
    let read = |count| {
        let (mut oracle, first, second) = two_increments();
        oracle.written(&first, Ended::Acked(1), at(1), at(2));
        oracle.written(&second, Ended::Refused, at(1), at(2));
        oracle.read(&key(), count, Consistency::Linearizable, at(3), at(3));
        verdict(&oracle)
    };
    assert_eq!(read(1), "");
    assert!(read(0).contains("#0, visible at 2.000, is missing"));
    assert!(read(2).contains("#0 was applied 2 times"));
    assert!(read(5).contains("refused, was applied"));
    assert!(read(17).contains("nobody issued"));
}

#[test]
fn an_unknown_outcome_may_go_either_way_but_not_back() {
    let (mut oracle, first, second) = two_increments();
    oracle.written(&first, Ended::Unknown, at(1), at(2));
    oracle.written(&second, Ended::Unknown, at(1), at(2));
    let linear = Consistency::Linearizable;
    oracle.read(&key(), 0, linear, at(3), at(3));
    oracle.read(&key(), 4, linear, at(4), at(4));
    assert_eq!(verdict(&oracle), "");
    oracle.read(&key(), 0, Consistency::Stale, at(5), at(5));
    assert_eq!(verdict(&oracle), "");
    oracle.read(&key(), 0, linear, at(5), at(5));
    assert!(verdict(&oracle).contains("#1, visible at 4.000, is missing"));
}

#[test]
fn what_was_acknowledged_to_a_client_is_there_for_its_token_unless_it_was_deleted() {
    let (mut oracle, first, second) = two_increments();
    let mut shown = Shown::default();
    oracle.written(&first, Ended::Acked(1), at(1), at(2));
    shown.add(&key(), 1);
    oracle.written(&second, Ended::Acked(5), at(1), at(2));
    oracle.read(&key(), 1, Consistency::Stale, at(3), at(4));
    oracle.carried(&key(), 1, &shown, at(4));
    assert_eq!(verdict(&oracle), "");
    shown.add(&key(), 5);
    oracle.carried(&key(), 1, &shown, at(4));
    assert!(verdict(&oracle).contains("#1 is missing for the client"));
    oracle.violations.clear();
    oracle.wipe(Scope::Term(key()), at(5));
    oracle.carried(&key(), 0, &shown, at(6));
    assert_eq!(verdict(&oracle), "", "it may be deleted by now");
}

#[test]
fn what_a_client_has_deleted_does_not_come_back_for_its_token() {
    let (mut oracle, first, second) = two_increments();
    let mut shown = Shown::default();
    oracle.written(&first, Ended::Acked(1), at(1), at(2));
    shown.add(&key(), 1);
    let wipe = oracle.wipe(Scope::Term(key()), at(3));
    oracle.wiped(wipe, Wiped::Deleted { existed: true }, at(4));
    shown.delete(&key());
    oracle.written(&second, Ended::Acked(4), at(5), at(6));
    for (count, is_right) in [(0, true), (4, true), (5, false), (1, false)] {
        oracle.read(&key(), count, Consistency::Stale, at(7), at(8));
        oracle.carried(&key(), count, &shown, at(8));
        assert_eq!(verdict(&oracle).is_empty(), is_right, "{count}");
        oracle.violations.clear();
    }
}

/// Two increments of which nothing is known but what completions have shown.
fn completed(counts: &[u64]) -> (Oracle, Shown) {
    let (mut oracle, first, second) = two_increments();
    let mut shown = Shown::default();
    oracle.written(&first, Ended::Unknown, at(1), at(2));
    oracle.written(&second, Ended::Unknown, at(1), at(2));
    for count in counts {
        oracle.read(&key(), *count, Consistency::Stale, at(3), at(3));
        oracle.carried_on(&key(), *count, &mut shown, at(3));
    }
    (oracle, shown)
}

#[test]
fn what_completions_have_shown_is_there_for_their_token() {
    for (before, count, is_right) in [
        (&[][..], 0, true),
        (&[4], 4, true),
        (&[4], 5, true),
        (&[0, 4, 5], 5, true),
        (&[4], 0, false),
        (&[4], 1, false),
        (&[0, 4, 5], 4, false),
    ] {
        let (mut oracle, shown) = completed(before);
        assert_eq!(verdict(&oracle), "");
        oracle.carried(&key(), count, &shown, at(4));
        let is_silent = verdict(&oracle).is_empty();
        assert_eq!(is_silent, is_right, "{count} after {before:?}");
        oracle.violations.clear();
        // Whoever brings no token is promised nothing.
        oracle.carried(&key(), count, &Shown::default(), at(4));
        assert_eq!(verdict(&oracle), "");
    }
    let (mut oracle, mut shown) = completed(&[5]);
    oracle.carried_on(&key(), 1, &mut shown, at(4));
    assert!(verdict(&oracle).contains("#1 is missing for the client"));
}

#[test]
fn what_completions_have_shown_to_be_deleted_stays_so_for_their_token() {
    let (mut oracle, mut shown) = completed(&[5]);
    oracle.wipe(Scope::Term(key()), at(4));
    // A count that is read gives no token: another replica may not have heard of the deletion yet.
    oracle.carried(&key(), 0, &shown, at(5));
    oracle.carried(&key(), 5, &shown, at(6));
    oracle.carried_on(&key(), 0, &mut shown, at(7));
    oracle.carried(&key(), 0, &shown, at(8));
    assert_eq!(verdict(&oracle), "");
    oracle.carried(&key(), 4, &shown, at(9));
    assert!(verdict(&oracle).contains("#1 is there again for the client"));
}

#[test]
fn a_clear_is_seen_before_tokens_know_of_it() {
    let (mut oracle, mut shown) = completed(&[5]);
    oracle.wipe(Scope::Namespace(""), at(4));
    oracle.carried_on(&key(), 0, &mut shown, at(5));
    oracle.carried(&key(), 5, &shown, at(6));
    assert_eq!(verdict(&oracle), "");
}

#[test]
fn what_is_below_a_prefix_was_shown_of_its_namespace() {
    let mut shown = Shown::default();
    for (namespace, term) in [("", "ab"), ("", "b"), ("c", "ab")] {
        let term = term.to_owned();
        shown.add(&Key { namespace, term }, 1);
    }
    let below = |namespace, prefix| {
        let found = shown.below(namespace, prefix).into_iter();
        found.map(|key| key.term).collect::<Vec<_>>()
    };
    assert_eq!(below("", "a"), ["ab"]);
    assert_eq!(below("", ""), ["ab", "b"]);
    assert_eq!(below("c", "b"), [""; 0]);
}

#[test]
fn what_one_strict_read_has_shown_the_next_one_must_show() {
    let strict = [Consistency::Leader, Consistency::Linearizable];
    for (level, next) in strict.into_iter().zip(strict.into_iter().rev()) {
        for bent in [false, true] {
            let mut oracle = Oracle::new(Trace::new(false), bent);
            let ticket = oracle.issue(&key(), at(1)).unwrap();
            oracle.written(&ticket, Ended::Unknown, at(1), at(2));
            oracle.read(&key(), 1, level, at(3), at(3));
            assert_eq!(verdict(&oracle), "");
            oracle.read(&key(), 0, next, at(4), at(4));
            assert!(verdict(&oracle).contains("#0, visible at 3.000, is missing"));
        }
    }
}

#[test]
fn a_slow_clock_excuses_what_is_read_by_its_lease_and_nothing_else() {
    let shard = crate::cast::shard_of(&key().term);
    let mut shards = crate::cast::shards().into_iter();
    let other = shards.find(|other| *other != shard).unwrap();
    let passes = |asked: Asked, began, of, lease| {
        let (mut oracle, first, _) = two_increments();
        oracle.written(&first, Ended::Acked(1), at(1), at(2));
        for now in [at(4), at(4) + crate::machine::TICK] {
            oracle.doubt(of, 11, lease, now);
        }
        oracle.read(&key(), 0, asked, began, at(6));
        verdict(&oracle).is_empty()
    };
    let leader = |server| Asked {
        level: Consistency::Leader,
        server,
    };
    assert!(passes(leader(Some(11)), at(4), shard, at(3)));
    assert!(passes(leader(None), at(4), shard, at(3)));
    // Not what is older than the lease, nor what began when it had ended.
    assert!(!passes(leader(Some(11)), at(4), shard, at(1)));
    assert!(!passes(leader(Some(11)), at(5), shard, at(3)));
    assert!(!passes(leader(Some(12)), at(4), shard, at(3)));
    assert!(!passes(leader(None), at(4), other, at(3)));
    assert!(!passes(LINEAR.into(), at(4), shard, at(3)));
}

#[test]
fn an_answer_holds_its_own_increment_and_all_before_it() {
    let (mut oracle, first, second) = two_increments();
    oracle.written(&first, Ended::Acked(1), at(1), at(2));
    oracle.written(&second, Ended::Acked(4), at(3), at(4));
    assert!(verdict(&oracle).contains("#0, visible at 2.000, is missing"));
    let third = oracle.issue(&key(), at(5)).unwrap();
    oracle.written(&third, Ended::Acked(5), at(5), at(6));
    assert!(verdict(&oracle).contains("lacks the increment itself"));
}

/// Two increments acknowledged at 2 and at 4, and a deletion issued at 5.
fn deleted() -> (Oracle, WipeTicket) {
    let mut oracle = Oracle::new(Trace::new(false), false);
    let first = oracle.issue(&key(), at(1)).unwrap();
    oracle.written(&first, Ended::Acked(1), at(1), at(2));
    let second = oracle.issue(&key(), at(3)).unwrap();
    oracle.written(&second, Ended::Acked(5), at(3), at(4));
    let wipe = oracle.wipe(Scope::Term(key()), at(5));
    (oracle, wipe)
}

const LINEAR: Consistency = Consistency::Linearizable;
const EXISTED: Wiped = Wiped::Deleted { existed: true };

#[test]
fn what_was_deleted_is_gone_for_good_and_what_comes_later_stays() {
    let (mut oracle, wipe) = deleted();
    oracle.read(&key(), 5, LINEAR, at(6), at(6));
    oracle.read(&key(), 0, LINEAR, at(7), at(7));
    oracle.wiped(wipe, EXISTED, at(8));
    let third = oracle.issue(&key(), at(9)).unwrap();
    oracle.written(&third, Ended::Acked(16), at(9), at(10));
    oracle.read(&key(), 16, LINEAR, at(11), at(11));
    assert_eq!(verdict(&oracle), "");
    oracle.read(&key(), 0, LINEAR, at(12), at(12));
    assert!(verdict(&oracle).contains("#2, visible at 10.000, is missing"));
    oracle.violations.clear();
    oracle.read(&key(), 17, LINEAR, at(13), at(13));
    assert!(verdict(&oracle).contains("#0, gone at 7.000, is there again"));
}

#[test]
fn a_deletion_that_was_acknowledged_has_happened() {
    let (mut oracle, wipe) = deleted();
    oracle.wiped(wipe, EXISTED, at(6));
    oracle.read(&key(), 5, LINEAR, at(7), at(7));
    assert!(verdict(&oracle).contains("#0 is there in spite of what was deleted at 5.000"));
}

#[test]
fn a_deletion_takes_what_came_first_before_what_came_later() {
    let (mut oracle, _) = deleted();
    oracle.read(&key(), 1, LINEAR, at(6), at(6));
    assert!(verdict(&oracle).contains("#1 is missing, and #0, which came before it, is there"));
}

#[test]
fn a_deletion_that_nobody_knows_of_excuses_until_it_was_seen() {
    let (mut oracle, _) = deleted();
    let third = oracle.issue(&key(), at(7)).unwrap();
    oracle.written(&third, Ended::Acked(21), at(7), at(8));
    oracle.read(&key(), 0, LINEAR, at(9), at(10));
    let fourth = oracle.issue(&key(), at(11)).unwrap();
    oracle.written(&fourth, Ended::Acked(64), at(11), at(12));
    assert_eq!(verdict(&oracle), "");
    oracle.read(&key(), 0, LINEAR, at(13), at(13));
    assert!(verdict(&oracle).contains("#3, visible at 12.000, is missing"));
}

#[test]
fn a_refused_deletion_excuses_nothing() {
    let (mut oracle, wipe) = deleted();
    oracle.wiped(wipe, Wiped::Refused, at(6));
    oracle.read(&key(), 0, LINEAR, at(7), at(7));
    assert!(verdict(&oracle).contains("#0, visible at 2.000, is missing"));
}

#[test]
fn what_a_deletion_says_it_found_is_judged() {
    let (mut oracle, wipe) = deleted();
    oracle.wiped(wipe, Wiped::Deleted { existed: false }, at(6));
    assert!(verdict(&oracle).contains("a deletion that found nothing"));
    let (mut oracle, wipe) = deleted();
    oracle.wiped(wipe, EXISTED, at(6));
    let again = oracle.wipe(Scope::Term(key()), at(7));
    oracle.wiped(again, EXISTED, at(8));
    assert!(verdict(&oracle).contains("was not there when it was deleted"));
}

#[test]
fn a_repeat_may_come_after_a_deletion_and_a_first_answer_may_not() {
    for (ended, faults) in [(Ended::Repeated(0), 0), (Ended::Acked(0), 1)] {
        let (mut oracle, first, _) = two_increments();
        oracle.written(&first, Ended::Unknown, at(1), at(2));
        let wipe = oracle.wipe(Scope::Term(key()), at(3));
        oracle.wiped(wipe, EXISTED, at(4));
        oracle.written(&first, ended, at(1), at(5));
        assert_eq!(oracle.violations.len(), faults, "{}", verdict(&oracle));
    }
}

#[test]
fn a_clear_takes_the_terms_of_its_namespace_one_after_another() {
    let cleared = |term: &str| Key {
        namespace: "c",
        term: term.to_owned(),
    };
    let mut oracle = Oracle::new(Trace::new(false), false);
    for term in ["a", "b"] {
        let ticket = oracle.issue(&cleared(term), at(1)).unwrap();
        oracle.written(&ticket, Ended::Acked(1), at(1), at(2));
    }
    let wipe = oracle.wipe(Scope::Namespace("c"), at(3));
    oracle.read(&cleared("a"), 0, LINEAR, at(4), at(4));
    oracle.read(&cleared("b"), 1, LINEAR, at(5), at(5));
    // Until the shard has it, a clear is seen only by those who were told of it.
    oracle.read(&cleared("a"), 1, LINEAR, at(6), at(6));
    oracle.wiped(wipe, Wiped::Cleared, at(7));
    oracle.absent(("c", ""), &["b".to_owned()], LINEAR, at(8), at(8));
    assert_eq!(verdict(&oracle), "");
    oracle.read(&cleared("b"), 1, LINEAR, at(9), at(9));
    assert!(verdict(&oracle).contains("#0 is there in spite of what was deleted at 3.000"));
}

#[test]
fn what_was_refused_may_be_applied_once_where_it_is_delivered_again_and_only_there() {
    let read = |again, count| {
        let (mut oracle, first, second) = two_increments();
        oracle.written(&first, Ended::Refused, at(1), at(2));
        oracle.sent_again(again);
        oracle.written(&second, Ended::Refused, at(1), at(3));
        oracle.read(&key(), count, Consistency::Linearizable, at(4), at(4));
        verdict(&oracle)
    };
    assert_eq!(read(at(1), 1), "");
    assert_eq!(read(at(1), 5), "");
    assert!(read(at(1), 2).contains("#0 was applied 2 times"));
    assert!(read(Duration::ZERO, 1).contains("refused, was applied"));
    assert!(read(Duration::ZERO, 4).contains("refused, was applied"));
}

/// Terms that have had so many increments each, all of them acknowledged at 2.
fn written(terms: &[(&str, usize)]) -> Oracle {
    let mut oracle = Oracle::new(Trace::new(false), false);
    for (term, increments) in terms {
        let mut count = 0;
        for _ in 0..*increments {
            let ticket = oracle.issue(&key_of(term), at(1)).unwrap();
            count += ticket.count();
            oracle.written(&ticket, Ended::Acked(count), at(1), at(2));
        }
    }
    oracle
}

fn key_of(term: &str) -> Key {
    let term = term.to_owned();
    Key { term, ..key() }
}

/// What is said of the first `k` below "t", asked for at 3.
fn said(
    oracle: &mut Oracle,
    (k, level): (usize, Consistency),
    found: &[(&str, u64)],
    shown: &mut Shown,
) -> String {
    let top = Top {
        namespace: "",
        prefix: "t",
        k,
        asked: level.into(),
        began: at(3),
        now: at(4),
    };
    let found = found
        .iter()
        .map(|(term, count)| ((*term).to_owned(), *count));
    let found: Vec<(String, u64)> = found.collect();
    oracle.completed(&top, &found, true, shown);
    verdict(oracle)
}

/// The same, for a client without a token, of 5 ta, and 1 each of tb, tc and u.
fn said_of(k: usize, found: &[(&str, u64)]) -> String {
    let mut oracle = written(&[("ta", 2), ("tb", 1), ("tc", 1), ("u", 3)]);
    said(&mut oracle, (k, LINEAR), found, &mut Shown::default())
}

#[test]
fn a_term_that_ranks_before_the_last_completion_is_among_them() {
    assert_eq!(said_of(2, &[("ta", 5), ("tb", 1)]), "");
    let without = said_of(2, &[("tb", 1), ("tc", 1)]);
    let fault = "ta is 0x5 or more, and not in 2 completions";
    assert!(without.contains(fault), "{without}");
}

#[test]
fn a_term_that_ranks_behind_the_last_completion_need_not_be_among_them() {
    assert_eq!(said_of(1, &[("ta", 5)]), "");
    // What nobody knows of may be in it, and need not.
    let mut oracle = written(&[("ta", 1), ("tb", 1)]);
    let unknown = oracle.issue(&key_of("tb"), at(1)).unwrap();
    oracle.written(&unknown, Ended::Unknown, at(1), at(2));
    for found in [("ta", 1), ("tb", 5)] {
        let said = said(&mut oracle, (1, LINEAR), &[found], &mut Shown::default());
        assert_eq!(said, "");
    }
}

#[test]
fn of_equal_counts_the_first_by_bytes_is_among_the_completions() {
    let both = [("tb", 1), ("tc", 1)];
    let of = |found: &[(&str, u64)]| {
        let mut oracle = written(&both.map(|(term, _)| (term, 1)));
        said(&mut oracle, (1, LINEAR), found, &mut Shown::default())
    };
    assert_eq!(of(&both[..1]), "");
    let wrong = of(&both[1..]);
    assert!(wrong.contains("tb is 0x1 or more"), "{wrong}");
}

#[test]
fn completions_are_no_more_than_were_asked_for_each_once_below_the_prefix_and_in_order() {
    for (k, found, fault) in [
        (1, &[("ta", 5), ("tb", 1)][..], "2 completions where 1 were"),
        (3, &[("ta", 5), ("tc", 1), ("tb", 1)], "not in order"),
        (2, &[("tb", 1), ("ta", 5)], "not in order"),
        (4, &[("ta", 5), ("tb", 1), ("tb", 1)], "a term is twice"),
        (4, &[("u", 21), ("ta", 5), ("tb", 1)], "u is a completion"),
    ] {
        let said = said_of(k, found);
        assert!(said.contains(fault), "{fault}: {said}");
    }
}

#[test]
fn fewer_completions_than_were_asked_for_are_all_that_there_are() {
    for k in [4, 1_000] {
        assert_eq!(said_of(k, &[("ta", 5), ("tb", 1), ("tc", 1)]), "");
        let few = said_of(k, &[("ta", 5), ("tb", 1)]);
        assert!(few.contains("tc = 0x0"), "{few}");
    }
}

#[test]
fn what_a_deletion_may_have_taken_need_not_be_among_the_completions() {
    let found = [("tb", 1)];
    let mut oracle = written(&[("ta", 2), ("tb", 1)]);
    let wipe = oracle.wipe(Scope::Term(key_of("ta")), at(3));
    let shown = &mut Shown::default();
    shown.add(&key_of("ta"), 5);
    assert_eq!(said(&mut oracle, (1, LINEAR), &found, shown), "");
    // It is not known to be gone either: its count was not told.
    oracle.read(&key_of("ta"), 5, LINEAR, at(4), at(5));
    assert_eq!(verdict(&oracle), "");
    oracle.wiped(wipe, Wiped::Refused, at(6));
    let said = said(&mut oracle, (1, LINEAR), &found, shown);
    assert!(said.contains("ta is 0x5 or more"), "{said}");
}

#[test]
fn stale_completions_lack_nothing_that_the_token_stands_for() {
    let found = [("tb", 1)];
    let stale = (1, Consistency::Stale);
    let mut oracle = written(&[("ta", 2), ("tb", 1)]);
    let shown = &mut Shown::default();
    assert_eq!(said(&mut oracle, stale, &found, shown), "");
    shown.add(&key_of("ta"), 4);
    let said = said(&mut oracle, stale, &found, shown);
    assert!(said.contains("ta is 0x4 or more"), "{said}");
}
