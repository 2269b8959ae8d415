use std::collections::BTreeMap;

use super::*;
use crate::display;

type Model = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

fn content(bucket: &Bucket) -> Model {
    let mut key = Vec::new();
    bucket
        .entries()
        .map(|entry| {
            key.truncate(entry.shared);
            key.extend_from_slice(entry.suffix);
            let display = entry.display.map(|display| display.of(&key));
            (key.clone(), (entry.count, display))
        })
        .collect()
}

fn put(bucket: &mut Bucket, model: &mut Model, term: &[u8], count: u64, shown: Option<&[u8]>) {
    let spot = bucket.find(term);
    assert_eq!(spot.count, model.get(term).map_or(0, |value| value.0));
    if spot.count > 0 {
        bucket.set_count(&spot, count);
        model.get_mut(term).unwrap().0 = count;
        return;
    }
    let code = shown.map(|shown| {
        let mut out = Vec::new();
        display::put(&mut out, term, shown);
        out
    });
    bucket.insert(term, &spot, count, code.as_deref());
    model.insert(term.to_vec(), (count, shown.map(<[u8]>::to_vec)));
}

#[test]
fn edits_equal_a_map() {
    let long = [b'x'; 300];
    let terms: [&[u8]; 12] = [
        b"m",
        b"a",
        b"ab",
        b"abc",
        b"b",
        b"aa",
        b"z",
        &long,
        &long[..20],
        b"abcdefghijklmnopqrstuvwxyz",
        b"abcdefghijklmnopqrstuvwxyz!",
        b"abcdefghijklmnopqrst",
    ];
    let mut bucket = Bucket::default();
    let mut model = Model::new();
    for (i, term) in terms.iter().enumerate() {
        let shown = (i % 3 == 0).then(|| term.to_ascii_uppercase());
        put(
            &mut bucket,
            &mut model,
            term,
            i as u64 + 1,
            shown.as_deref(),
        );
        assert_eq!(content(&bucket), model);
    }
    let frozen = bucket.clone();
    let before = model.clone();
    for (i, term) in terms.iter().enumerate() {
        put(&mut bucket, &mut model, term, u64::MAX >> (5 * i), None);
        assert_eq!(content(&bucket), model);
    }
    for term in terms {
        let spot = bucket.find(term);
        bucket.remove(&spot);
        model.remove(term);
        assert_eq!(content(&bucket), model);
    }
    assert!(bucket.is_empty());
    assert_eq!(bucket.heap_bytes(), 0);
    assert_eq!(content(&frozen), before);
}

#[test]
fn a_group_is_cut_off() {
    let mut writer = BucketWriter::new();
    let rests = [(0, b"aa".as_slice(), 1), (1, b"b", 2), (0, b"bab", 70)];
    for (shared, rest, count) in rests.into_iter().chain([(2, b"c".as_slice(), 4)]) {
        writer.push(shared, rest, count, None);
    }
    assert!(writer.shared_by_all().is_empty());
    let left = writer.take_before_group();
    assert_eq!(left.best(), 2);
    assert_eq!(
        (writer.len(), writer.shared_by_all()),
        (2, b"ba".as_slice())
    );
    let right = writer.take();
    assert_eq!(content(&right).keys().collect::<Vec<_>>(), [b"bab", b"bac"]);
    assert!(writer.take().is_empty());
}

#[test]
fn the_first_match_of_a_prefix_is_seen() {
    let mut writer = BucketWriter::new();
    for (shared, rest) in [(0, b"aa".as_slice()), (1, b"bc"), (2, b"d"), (0, b"b")] {
        writer.push(shared, rest, 1, None);
    }
    let bucket = writer.take();
    for (prefix, starts) in [
        (b"".as_slice(), true),
        (b"a", true),
        (b"ab", true),
        (b"abd", true),
        (b"abcd", false),
        (b"ac", false),
        (b"c", false),
    ] {
        assert_eq!(
            bucket.starts_with_at(&bucket.find(prefix), prefix),
            starts,
            "{prefix:?}"
        );
    }
}
