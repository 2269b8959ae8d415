use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn evict(subject: &mut Subject, rare: &Rare) -> u64 {
    let command = command::encode_evict(rare);
    match subject.command(command::KIND_EVICT, &command).unwrap() {
        Response::Evicted(terms) => terms,
        other @ (Response::Cleared(_) | Response::Configured | Response::Writes(_)) => {
            panic!("{other:?}")
        }
    }
}

/// All that a search picks, one term after another.
fn rarest(subject: &Subject, wanted: u64, step: usize) -> Vec<Rare> {
    let mut search = subject.state.view().rarest(wanted);
    let mut picked = Vec::new();
    while let Some(some) = search.step(step) {
        picked.extend(some);
    }
    picked
}

fn rare(generation: u64, count_max: u64, terms: &[&str]) -> Rare {
    Rare {
        namespace: NamespaceId(1),
        generation: Generation(generation),
        count_max,
        terms: terms.iter().map(|term| term.as_bytes().to_vec()).collect(),
    }
}

#[test]
fn a_term_that_was_searched_for_meanwhile_stays() {
    let mut subject = Subject::new();
    let items = [("a", 1), ("b", 1), ("c", 1), ("d", 9)]
        .into_iter()
        .zip(0..);
    let items = items.map(|((term, count), number)| item(number, term, count));
    subject.write(record(None, items.collect()));
    subject.write(record(None, vec![item(0, "b", 1)]));
    let gone = evict(&mut subject, &rare(1, 1, &["a", "b", "never"]));
    assert_eq!(gone, 1);
    assert_eq!([subject.count(1, "a"), subject.count(1, "b")], [0, 2]);
    // Another life of the namespace is not touched.
    for generation in [0, 2] {
        assert_eq!(evict(&mut subject, &rare(generation, 9, &["c", "d"])), 0);
    }
    // What was given up begins anew.
    subject.write(record(None, vec![item(0, "a", 5)]));
    assert_eq!(subject.count(1, "a"), 5);
}

proptest! {
    #[test]
    fn the_rarest_go_and_no_more_than_needed(
        terms in proptest::collection::btree_map("[a-c]{1,6}", 1_u64..6, 1..60),
        share in 0.0_f64..1.2,
        step in 1_usize..20,
    ) {
        let mut subject = Subject::new();
        let items = terms.iter().zip(0..).map(|((term, count), number)| item(number, term, *count));
        subject.write(record(None, items.collect()));
        let before = subject.state.stats().logical_bytes;
        let weight = |term: &str| term.len() as u64 + 8;
        prop_assert_eq!(before, terms.keys().map(|term| weight(term)).sum::<u64>());
        let wanted = (before as f64 * share) as u64;

        let picked = rarest(&subject, wanted, step);
        let mut gone = BTreeMap::new();
        for rare in &picked {
            for term in &rare.terms {
                let term = String::from_utf8(term.clone()).unwrap();
                let count = terms[&term];
                prop_assert!(count <= rare.count_max);
                prop_assert!(gone.insert(term, count).is_none());
            }
        }
        let freed: u64 = gone.keys().map(|term| weight(term)).sum();
        prop_assert!(freed >= wanted.min(before));
        // Without the last one that was picked of the highest count it would not have been enough.
        let last = gone.iter().max_by_key(|(term, count)| (**count, (*term).clone()));
        if let Some((last, highest)) = last {
            prop_assert!(freed - weight(last) < wanted);
            let stays = terms.iter().filter(|(term, _)| !gone.contains_key(*term));
            for (term, count) in stays {
                prop_assert!((count, term) > (highest, last), "{term} is rarer");
            }
        }
        let evicted: u64 = picked.iter().map(|rare| evict(&mut subject, rare)).sum();
        prop_assert_eq!(evicted, gone.len() as u64);
        prop_assert_eq!(subject.state.stats().logical_bytes, before - freed);
    }
}

#[test]
fn rare_terms_are_given_up_where_they_stand() {
    let mut subject = Subject::new();
    for namespace in 1..4_u32 {
        let count = u64::from(namespace);
        let items = ["a", "b", "c"].iter().zip(0..);
        let items = items.map(|(term, number)| item(number, term, count));
        subject.write(Write {
            namespace: NamespaceId(namespace),
            generation: Generation(count),
            ..record(None, items.collect())
        });
    }
    // Nine bytes each: all three of the first, two of the second.
    let picked = rarest(&subject, 40, 100).into_iter();
    let picked: Vec<_> = picked
        .map(|rare| (rare.namespace.0, rare.generation.0, rare.terms.concat()))
        .collect();
    assert_eq!(picked, [(1, 1, b"abc".to_vec()), (2, 2, b"ab".to_vec())]);
}

#[test]
fn display_forms_have_their_weight() {
    let mut subject = Subject::new();
    let mut shown = item(0, "paris", 1);
    shown.display = Some("Paris!".into());
    subject.write(record(None, vec![shown, item(1, "rome", 1)]));
    let paris = 5 + 6 + 8;
    assert_eq!(subject.state.stats().logical_bytes, paris + 4 + 8);
    let picked = rarest(&subject, paris, 100);
    assert_eq!(picked, [rare(1, 1, &["paris"])]);
}
