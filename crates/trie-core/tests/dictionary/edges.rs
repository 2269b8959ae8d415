//! Goal: the borders hold. Each test names one.

use trie_core::{
    Builder, DISPLAY_BYTES_MAX, Dictionary, Options, RecordError, TERM_BYTES_MAX, snapshot,
};

use crate::reference::Model;

const SMALL: Options = Options {
    cached_k: 10,
    bucket_bytes: 64,
};

/// Deterministic numbers that look random.
fn scatter(n: u64) -> u64 {
    let mixed = (n ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

/// Many terms with many ties.
fn many(options: Options, len: u64) -> (Dictionary, Model) {
    let mut dict = Dictionary::new(options);
    let mut model = Model::default();
    for n in 0..len {
        let term = format!("{:x} {}", scatter(n) % 4_096, n % 7).into_bytes();
        let add = scatter(n) % 3 + 1;
        assert_eq!(
            dict.record(&term, add, None),
            model.record(&term, add, None)
        );
    }
    (dict, model)
}

#[test]
fn every_k_around_the_cached_one_is_exact() {
    let (dict, model) = many(SMALL, 4_000);
    model.assert_same(&dict);
    for prefix in ["", "a", "1", "f0", "12", "123", "123 ", "123 4", "zzz"] {
        for k in [0, 1, 9, 10, 11, 100, 1_000, 100_000] {
            let prefix = prefix.as_bytes();
            assert_eq!(
                dict.top_k(prefix, k),
                model.top_k(prefix, k),
                "{prefix:?} {k}"
            );
        }
    }
}

#[test]
fn ties_at_the_last_place_go_by_bytes() {
    let mut dict = Dictionary::new(SMALL);
    let names: Vec<String> = (0..40).map(|n| format!("tie {n:02}")).collect();
    for name in names.iter().rev() {
        dict.record(name.as_bytes(), 7, None).unwrap();
    }
    for k in [9, 10, 11, 39, 40] {
        let found: Vec<String> = dict
            .top_k(b"tie", k)
            .into_iter()
            .map(|entry| String::from_utf8(entry.term).unwrap())
            .collect();
        assert_eq!(found, names[..k]);
    }
    // One more count lifts the last of them above all others.
    dict.record(b"tie 39", 1, None).unwrap();
    assert_eq!(dict.top_k(b"", 2)[0].term, b"tie 39");
    assert_eq!(dict.top_k(b"", 2)[1].term, b"tie 00");
    dict.check_invariants().unwrap();
}

#[test]
fn deleting_what_is_cached_refills_until_nothing_is_left() {
    let (mut dict, mut model) = many(SMALL, 1_500);
    let mut round = 0;
    while !dict.is_empty() {
        let cached = dict.top_k(b"", 10);
        assert_eq!(cached, model.top_k(b"", 10));
        for entry in cached {
            assert_eq!(dict.delete(&entry.term), entry.count);
            model.delete(&entry.term);
        }
        if round % 16 == 0 {
            model.assert_same(&dict);
        }
        round += 1;
    }
    assert_eq!(dict.memory(), Dictionary::new(SMALL).memory());
    assert_eq!((dict.len(), dict.total()), (0, 0));
}

#[test]
fn counts_cross_every_width_and_stop_at_the_last() {
    let mut dict = Dictionary::new(SMALL);
    for count in [1 << 32, 1 << 53, u64::MAX - 1] {
        for add in [count - 1, 1] {
            let before = dict.count(b"term");
            let Some(sum) = before.checked_add(add) else {
                assert_eq!(
                    dict.record(b"term", add, None),
                    Err(RecordError::Overflow { count: before, add })
                );
                continue;
            };
            assert_eq!(dict.record(b"term", add, None), Ok(sum));
        }
    }
    let left = u64::MAX - dict.count(b"term");
    assert_eq!(dict.record(b"term", left, None), Ok(u64::MAX));
    let frozen = dict.clone();
    assert_eq!(
        dict.record(b"term", 1, None),
        Err(RecordError::Overflow {
            count: u64::MAX,
            add: 1
        })
    );
    assert_eq!(dict.memory(), frozen.memory());
    assert_eq!(dict.top_k(b"", 1)[0].count, u64::MAX);
    dict.record(b"other", u64::MAX, None).unwrap();
    assert_eq!(dict.total(), 2 * u128::from(u64::MAX));
    dict.check_invariants().unwrap();
}

#[test]
fn refused_writes_change_nothing() {
    let mut dict = Dictionary::new(SMALL);
    let too_long = vec![b'x'; TERM_BYTES_MAX + 1];
    let max = TERM_BYTES_MAX;
    assert_eq!(
        dict.record(b"", 1, None),
        Err(RecordError::TermLength { len: 0, max })
    );
    assert_eq!(
        dict.record(&too_long, 1, None),
        Err(RecordError::TermLength { len: max + 1, max })
    );
    assert_eq!(dict.record(b"a", 0, None), Err(RecordError::ZeroCount));
    let refused = dict.record(b"a", 1, Some(&too_long));
    assert_eq!(
        refused,
        Err(RecordError::DisplayLength {
            len: max + 1,
            max: DISPLAY_BYTES_MAX
        })
    );
    assert_eq!(dict.delete(b"a"), 0);
    assert!(dict.is_empty() && dict.top_k(b"", 10).is_empty());

    dict.record(b"a", u64::MAX, None).unwrap();
    let mut other = Dictionary::new(SMALL);
    other.record(b"a", 1, None).unwrap();
    other.record(b"b", 1, None).unwrap();
    assert_eq!(
        dict.merge(&other),
        Err(RecordError::Overflow {
            count: u64::MAX,
            add: 1
        })
    );
    assert_eq!(dict.count(b"b"), 0);
}

#[test]
fn the_longest_terms_overflow_no_stack() {
    let long = vec![b'a'; TERM_BYTES_MAX];
    let mut dict = Dictionary::new(Options {
        cached_k: 1,
        bucket_bytes: 64,
    });
    // Each of these is a prefix of the next, so each lies one node deeper.
    for len in (1..3_000).chain([TERM_BYTES_MAX]) {
        dict.record(&long[..len], 1, None).unwrap();
    }
    assert_eq!(dict.len(), 3_000);
    assert_eq!(dict.top_k(b"", 2_000).len(), 2_000);
    assert_eq!(dict.top_k(&long, 5)[0].term, long);
    assert_eq!(dict.iter_from(&long[..2_990], None).count(), 11);
    let mut bytes = Vec::new();
    snapshot::encode(dict.clone(), &mut bytes).unwrap();
    let loaded = snapshot::decode(bytes.as_slice(), dict.options()).unwrap();
    assert!(loaded.iter_from(b"", None).eq(dict.iter_from(b"", None)));
    let frozen = dict.clone();
    for len in (1..3_000).step_by(2) {
        assert_eq!(dict.delete(&long[..len]), 1);
    }
    assert_eq!(dict.delete(&long), 1);
    assert_eq!((dict.len(), frozen.len()), (1_499, 3_000));
}

#[test]
fn a_chain_as_deep_as_the_longest_term_is_dropped() {
    let long = vec![b'a'; 20_000];
    let mut builder = Builder::new(Options {
        cached_k: 1,
        bucket_bytes: 64,
    });
    let mut term = Vec::new();
    for _ in 0..long.len() {
        term.push(b'a');
        builder.push(&term, 1, None).unwrap();
    }
    let dict = builder.finish();
    assert_eq!(dict.len(), 20_000);
    assert_eq!(dict.count(&long), 1);
    let handle = std::thread::Builder::new().stack_size(128 * 1_024);
    // A small stack makes any recursion show.
    handle.spawn(move || drop(dict)).unwrap().join().unwrap();
}

#[test]
fn terms_around_the_escape_lengths_come_back() {
    let mut dict = Dictionary::new(Options::default());
    let mut model = Model::default();
    let long = [b'k'; 400];
    for len in [1, 14, 15, 16, 29, 30, 31, 127, 128, 142, 143, 144, 300, 400] {
        for last in [b'a', b'z'] {
            let term = [&long[..len], &[last]].concat();
            let shown = term.to_ascii_uppercase();
            assert_eq!(
                dict.record(&term, 3, Some(&shown)),
                model.record(&term, 3, Some(&shown))
            );
        }
    }
    model.assert_same(&dict);
}

#[test]
fn display_forms_stay_until_the_term_goes() {
    let mut dict = Dictionary::new(SMALL);
    dict.record(b"paris", 1, Some(b"Paris")).unwrap();
    dict.record(b"paris", 1, Some(b"PARIS")).unwrap();
    assert_eq!(dict.top_k(b"p", 1)[0].shown(), b"Paris");
    assert_eq!(dict.memory().display_bytes, 5);
    dict.delete(b"paris");
    assert_eq!(dict.memory().display_bytes, 0);
    dict.record(b"paris", 1, Some(b"PARIS")).unwrap();
    assert_eq!(dict.get(b"paris").unwrap().shown(), b"PARIS");
    dict.record(b"oslo", 1, Some(b"oslo")).unwrap();
    assert_eq!(dict.get(b"oslo").unwrap().display, None);
}

#[test]
fn a_term_with_a_long_display_form_is_not_joined_into_too_large_a_bucket() {
    let mut dict = Dictionary::new(SMALL);
    let long = b"a form that has little to do with the term it stands for";
    dict.record(b"ab", 1, Some(long)).unwrap();
    for last in b'a'..=b'z' {
        dict.record(&[b'a', b'b', last], 1, None).unwrap();
    }
    for last in b'b'..=b'z' {
        dict.delete(&[b'a', b'b', last]);
        dict.check_invariants().unwrap();
    }
    assert_eq!(dict.get(b"ab").unwrap().shown(), long);
}

#[test]
fn a_bulk_load_refuses_what_is_out_of_order() {
    let mut builder = Builder::new(SMALL);
    builder.push(b"b", 1, None).unwrap();
    for term in [b"b".as_slice(), b"a"] {
        assert_eq!(
            builder.push(term, 1, None),
            Err(RecordError::OutOfOrder { position: 1 })
        );
    }
    builder.push(b"c", 1, None).unwrap();
    let dict = builder.finish();
    assert_eq!(dict.len(), 2);
    dict.check_invariants().unwrap();
}

#[test]
fn a_bulk_load_equals_recording_and_fills_buckets() {
    let (dict, model) = many(Options::default(), 30_000);
    let mut bytes = Vec::new();
    snapshot::encode(dict.clone(), &mut bytes).unwrap();
    let loaded = snapshot::decode(bytes.as_slice(), Options::default()).unwrap();
    assert!(loaded.iter_from(b"", None).eq(model.from(b"", None)));
    assert_eq!(loaded.top_k(b"", 1_000), model.top_k(b"", 1_000));
    assert!(loaded.memory().bucket_bytes <= dict.memory().bucket_bytes);
    assert_eq!(loaded.memory().text_bytes, dict.memory().text_bytes);
}

#[test]
fn draining_takes_small_steps_and_leaves_clones_alone() {
    let (mut dict, model) = many(SMALL, 5_000);
    let frozen = dict.clone();
    let mut alone = dict.clone();
    let mut steps = 0;
    while !alone.drain_some(100) {
        assert!(alone.is_empty() && alone.total() == 0);
        assert!(alone.top_k(b"", 10).is_empty());
        steps += 1;
    }
    assert!(steps < 5, "shared pieces are not walked: {steps} steps");
    drop(frozen);
    model.assert_same(&dict);
    while !dict.drain_some(100) {
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
    dict.record(b"again", 1, None).unwrap();
    assert_eq!(dict.len(), 1);
    dict.check_invariants().unwrap();
}

#[test]
fn a_small_dictionary_costs_little() {
    assert!(size_of::<Dictionary>() <= 160);
    let mut dict = Dictionary::new(Options::default());
    assert_eq!(dict.memory().total(), 0);
    dict.record(b"one", 1, None).unwrap();
    assert!(dict.memory().total() <= 64);
}

#[test]
fn readers_on_other_threads_see_frozen_views() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (dict, _) = many(SMALL, 10);
    shared(&dict);
}
