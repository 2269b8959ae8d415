//! Goal: the dictionary answers like a naive map, whatever is done to it in whatever order.
//! Method: random operations on both, over three alphabets, with tiny buckets and lists, so that
//! buckets are divided and joined and lists refilled all the time.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use trie_core::{Dictionary, Options, snapshot};

use crate::reference::Model;

#[derive(Debug, Clone)]
enum Op {
    Record {
        term: Vec<u8>,
        add: u64,
        display: Option<Vec<u8>>,
    },
    RecordAgain {
        which: Index,
        add: u64,
    },
    Delete {
        which: Index,
    },
    DeleteAbsent {
        term: Vec<u8>,
    },
    /// The prefix is the beginning of a term that is there, sometimes with a byte more.
    TopK {
        which: Index,
        len: Index,
        more: Option<u8>,
        k: usize,
    },
    IterFrom {
        which: Index,
        len: Index,
        after: Option<Vec<u8>>,
    },
    Freeze,
    ThroughSnapshot,
    Merge {
        terms: Vec<(Vec<u8>, u64)>,
    },
}

const K: [usize; 8] = [0, 1, 2, 3, 4, 5, 40, 1_000];

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 1..4u64,
        2 => 1..200u64,
        1 => select(vec![
            u64::from(u32::MAX),
            1 << 32,
            (1 << 53) - 1,
            1 << 53,
            1 << 62,
            u64::MAX - 2,
            u64::MAX,
        ]),
    ]
}

fn display(term: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    let upper = term.to_ascii_uppercase();
    let other = [term.as_slice(), b"!"].concat();
    let form = select(vec![
        None,
        None,
        Some(term.clone()),
        Some(upper),
        Some(other),
        Some(Vec::new()),
    ]);
    (Just(term), form)
}

fn op(term: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    prop_oneof![
        12 => (term.clone().prop_flat_map(display), count())
            .prop_map(|((term, display), add)| Op::Record { term, add, display }),
        6 => (index(), count()).prop_map(|(which, add)| Op::RecordAgain { which, add }),
        5 => index().prop_map(|which| Op::Delete { which }),
        1 => term.clone().prop_map(|term| Op::DeleteAbsent { term }),
        6 => (index(), index(), proptest::option::weighted(0.2, any::<u8>()), select(K.to_vec()))
            .prop_map(|(which, len, more, k)| Op::TopK { which, len, more, k }),
        2 => (index(), index(), proptest::option::of(term.clone()))
            .prop_map(|(which, len, after)| Op::IterFrom { which, len, after }),
        1 => Just(Op::Freeze),
        1 => Just(Op::ThroughSnapshot),
        1 => vec((term, count()), 0..12).prop_map(|terms| Op::Merge { terms }),
    ]
}

fn two_letters() -> BoxedStrategy<Vec<u8>> {
    vec(select(vec![b'a', b'b']), 1..14).boxed()
}

fn printable() -> BoxedStrategy<Vec<u8>> {
    let words = select(vec![
        "new ",
        "york",
        "delhi",
        "a",
        " ",
        "the quick brown fox",
        "~",
        "zz",
        "New",
    ]);
    let joined = vec(words, 1..5).prop_map(|words| words.concat().into_bytes());
    let free = vec(32..127u8, 1..24);
    prop_oneof![3 => joined, 1 => free].boxed()
}

fn mixed_scripts() -> BoxedStrategy<Vec<u8>> {
    let letters = select(vec![
        'a', 'é', 'ß', 'я', 'ж', '日', '本', '語', '😀', '😁', '𝒜', '𠀀', ' ',
    ]);
    vec(letters, 1..8)
        .prop_map(|letters| letters.into_iter().collect::<String>().into_bytes())
        .boxed()
}

/// The beginning of a term of the model.
fn prefix(model: &Model, which: Index, len: Index, more: Option<u8>) -> Vec<u8> {
    let mut prefix = model.nth(which.index(1 << 20)).unwrap_or_default();
    prefix.truncate(len.index(prefix.len() + 1));
    prefix.extend(more);
    prefix
}

fn apply(dict: &mut Dictionary, model: &mut Model, frozen: &mut Vec<(Dictionary, Model)>, op: Op) {
    match op {
        Op::Record { term, add, display } => {
            let display = display.as_deref();
            assert_eq!(
                dict.record(&term, add, display),
                model.record(&term, add, display)
            );
            assert_eq!(dict.count(&term), model.count(&term));
        }
        Op::RecordAgain { which, add } => {
            if let Some(term) = model.nth(which.index(1 << 20)) {
                assert_eq!(
                    dict.record(&term, add, Some(b"late")),
                    model.record(&term, add, None)
                );
            }
        }
        Op::Delete { which } => {
            if let Some(term) = model.nth(which.index(1 << 20)) {
                assert_eq!(dict.delete(&term), model.delete(&term));
                assert_eq!(dict.get(&term), None);
            }
        }
        Op::DeleteAbsent { term } => assert_eq!(dict.delete(&term), model.delete(&term)),
        Op::TopK {
            which,
            len,
            more,
            k,
        } => {
            let prefix = prefix(model, which, len, more);
            assert_eq!(
                dict.top_k(&prefix, k),
                model.top_k(&prefix, k),
                "{prefix:?} {k}"
            );
        }
        Op::IterFrom { which, len, after } => {
            let prefix = prefix(model, which, len, None);
            let after = after.or_else(|| model.nth(len.index(1 << 20)));
            let found: Vec<_> = dict.iter_from(&prefix, after.as_deref()).collect();
            assert_eq!(found, model.from(&prefix, after.as_deref()));
        }
        Op::Freeze => {
            if frozen.len() < 3 {
                frozen.push((dict.clone(), model.clone()));
            }
        }
        Op::ThroughSnapshot => {
            let mut bytes = Vec::new();
            snapshot::encode(dict.clone(), &mut bytes).unwrap();
            let options = dict.options();
            *dict = snapshot::decode(bytes.as_slice(), options).unwrap();
            model.assert_same(dict);
        }
        Op::Merge { terms } => {
            let mut other = (Dictionary::new(dict.options()), Model::default());
            for (term, count) in terms {
                let refused = other.1.record(&term, count, None);
                assert_eq!(other.0.record(&term, count, None), refused);
            }
            assert_eq!(dict.merge(&other.0), model.merge(&other.1));
        }
    }
}

fn run(options: Options, ops: Vec<Op>) {
    let mut dict = Dictionary::new(options);
    let mut model = Model::default();
    let mut frozen = Vec::new();
    for (i, op) in ops.into_iter().enumerate() {
        apply(&mut dict, &mut model, &mut frozen, op);
        if i % 8 == 0 {
            dict.check_invariants().unwrap();
        }
    }
    model.assert_same(&dict);
    for prefix in [b"".as_slice(), b"a", b"new", "日".as_bytes()] {
        for k in K {
            assert_eq!(dict.top_k(prefix, k), model.top_k(prefix, k));
        }
    }
    for (dict, model) in frozen {
        model.assert_same(&dict);
    }
}

fn options() -> impl Strategy<Value = Options> {
    (1..5usize, select(vec![64, 96, 1_024])).prop_map(|(cached_k, bucket_bytes)| Options {
        cached_k,
        bucket_bytes,
    })
}

proptest! {
    #[test]
    fn two_letters_equal_the_model(options in options(), ops in vec(op(two_letters()), 1..300)) {
        run(options, ops);
    }

    #[test]
    fn printable_ascii_equals_the_model(options in options(), ops in vec(op(printable()), 1..300)) {
        run(options, ops);
    }

    #[test]
    fn mixed_scripts_equal_the_model(options in options(), ops in vec(op(mixed_scripts()), 1..300)) {
        run(options, ops);
    }
}
