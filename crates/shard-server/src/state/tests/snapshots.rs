use replication::SnapshotView;

use super::*;

fn filled() -> Subject {
    let mut subject = Subject::new();
    for n in 0..40_u64 {
        let mut first = item(0, &format!("new york {n}"), n + 1);
        first.display = Some(format!("New York {n}"));
        let write = record(
            Some(identity((n % 3) as u8, n, n)),
            vec![first, item(5, "newark", 2)],
        );
        let other = Write {
            namespace: NamespaceId(9),
            generation: Generation(4),
            ..write.clone()
        };
        subject.writes(&[write, other]);
    }
    subject
}

#[test]
fn a_restored_state_is_the_same_state() {
    let original = filled();
    let bytes = original.encoded();
    let copy = Subject::new();
    copy.state.restore(&mut bytes.as_slice()).unwrap();
    assert_eq!(copy.state.view().hash(), original.state.view().hash());
    assert_eq!(copy.encoded(), bytes);
    assert_eq!(copy.state.generations(), original.state.generations());
    let expected = Stats {
        memory_bytes: copy.state.stats().memory_bytes,
        ..original.state.stats()
    };
    assert_eq!(copy.state.stats(), expected);
}

#[test]
fn a_view_does_not_see_what_comes_after_it() {
    let mut subject = filled();
    let view = subject.state.view();
    let before = view.hash();
    subject.write(record(None, vec![item(0, "newark", 1)]));
    subject.write(delete(None, "new york 3"));
    assert_eq!(view.hash(), before);
    assert_ne!(subject.state.view().hash(), before);
    let mut bytes = Vec::new();
    view.encode(&mut bytes).unwrap();
    let copy = Subject::new();
    copy.state.restore(&mut bytes.as_slice()).unwrap();
    assert_eq!(copy.state.view().hash(), before);
}

#[test]
fn a_restore_replaces_everything() {
    let small = filled();
    let mut other = Subject::new();
    other.write(Write {
        namespace: NamespaceId(77),
        ..record(Some(identity(8, 8, 8)), vec![item(0, "gone", 1)])
    });
    other
        .state
        .restore(&mut small.encoded().as_slice())
        .unwrap();
    assert_eq!(other.state.view().hash(), small.state.view().hash());
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused_and_leaves_the_state_as_it_was() {
    let mut small = Subject::new();
    small.write(record(
        Some(identity(1, 1, 1)),
        vec![item(0, "a", 1), item(1, "b", 2)],
    ));
    let bytes = small.encoded();
    let target = filled();
    let before = target.state.view().hash();
    for len in 0..bytes.len() {
        assert!(
            target.state.restore(&mut &bytes[..len]).is_err(),
            "cut at {len}"
        );
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            target.state.restore(&mut damaged.as_slice()).is_err(),
            "bit {bit}"
        );
    }
    assert_eq!(target.state.view().hash(), before);
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = filled().encoded();
    bytes[8] = 2;
    let restore = |bytes: &[u8]| {
        let error = Subject::new().state.restore(&mut &*bytes).unwrap_err();
        error.to_string()
    };
    assert!(restore(&bytes).contains("does not verify"));
    let check = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&check.to_le_bytes());
    let told = "format version 2, this program knows up to 1";
    assert!(restore(&bytes).contains(told), "{}", restore(&bytes));
}

#[test]
fn not_a_byte_behind_the_end_is_taken() {
    let bytes = filled().encoded();
    let joined = [bytes.as_slice(), b"tail"].concat();
    let mut input = joined.as_slice();
    Subject::new().state.restore(&mut input).unwrap();
    assert_eq!(input, b"tail");
}

#[test]
fn large_sections_span_frames() {
    let mut subject = Subject::new();
    for n in 0..300_u64 {
        let items = (0..1000).map(|i| {
            item(
                i,
                &format!("{:x}-{n}-{i}", n.wrapping_mul(0x9E37_79B9) ^ u64::from(i)),
                1,
            )
        });
        subject.write(record(
            Some(identity((n % 200) as u8, n, n)),
            items.collect(),
        ));
    }
    let bytes = subject.encoded();
    assert!(bytes.len() > 300_000, "{} bytes", bytes.len());
    let copy = Subject::new();
    copy.state.restore(&mut bytes.as_slice()).unwrap();
    assert_eq!(copy.state.view().hash(), subject.state.view().hash());
}
