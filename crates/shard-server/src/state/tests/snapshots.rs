use std::io::{self, Read};

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
    copy.state.restore(AT, &mut bytes.as_slice()).unwrap();
    assert_eq!(copy.state.view().hash(), original.state.view().hash());
    assert_eq!(copy.encoded(), bytes);
    assert_eq!(copy.state.generations(), original.state.generations());
    let expected = Stats {
        memory_bytes: copy.state.stats().memory_bytes,
        ..original.state.stats()
    };
    assert_eq!(copy.state.stats(), expected);
}

/// A reader may come before the replica has said that it has applied so much.
#[test]
fn whoever_sees_a_restored_state_is_told_how_far_it_reaches() {
    let original = filled();
    let mut copy = Subject::new();
    copy.write(record(None, vec![item(0, "newark", 1)]));
    copy.state
        .restore(AT, &mut original.encoded().as_slice())
        .unwrap();
    let state = &copy.state;
    let indexes = [
        state.get(scope(1), "newark").unwrap().index,
        state.top_k(scope(1), "new", 1, None).unwrap().index,
        state.list(scope(1), "new", "", 1, 1).unwrap().index,
    ];
    assert_eq!(indexes, [AT.index; 3]);
}

/// A snapshot that is looked up beside whenever a piece of it is read.
struct LookedUpBeside<'a> {
    bytes: &'a [u8],
    subject: &'a Subject,
    seen: Vec<u64>,
}

impl Read for LookedUpBeside<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = &self.subject.state;
        assert!(state.inner.try_read().is_some(), "readers have to wait");
        self.seen.push(self.subject.count(1, "newark"));
        self.bytes.read(buffer)
    }
}

#[test]
fn reads_are_answered_from_the_old_state_until_the_new_one_is_whole() {
    let original = filled();
    let mut copy = Subject::new();
    copy.write(record(None, vec![item(0, "newark", 1)]));
    let mut input = LookedUpBeside {
        bytes: &original.encoded(),
        subject: &copy,
        seen: Vec::new(),
    };
    copy.state.restore(AT, &mut input).unwrap();
    let seen = input.seen;
    assert!(seen.len() > 1 && seen.iter().all(|count| *count == 1));
    assert_eq!(copy.count(1, "newark"), original.count(1, "newark"));
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
    copy.state.restore(AT, &mut bytes.as_slice()).unwrap();
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
        .restore(AT, &mut small.encoded().as_slice())
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
            target.state.restore(AT, &mut &bytes[..len]).is_err(),
            "cut at {len}"
        );
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            target.state.restore(AT, &mut damaged.as_slice()).is_err(),
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
        let error = Subject::new().state.restore(AT, &mut &*bytes).unwrap_err();
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
    Subject::new().state.restore(AT, &mut input).unwrap();
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
    copy.state.restore(AT, &mut bytes.as_slice()).unwrap();
    assert_eq!(copy.state.view().hash(), subject.state.view().hash());
}

#[test]
fn the_hash_covers_all_that_is_replicated() {
    let plain = || Write {
        namespace: NamespaceId(5),
        ..record(None, vec![item(0, "a", 1)])
    };
    let of = |item| Write {
        operation: Operation::Record(vec![item]),
        ..plain()
    };
    let by = |fingerprint| Write {
        identity: Some(identity(1, 1, fingerprint)),
        ..plain()
    };
    let mut shown = item(0, "a", 1);
    shown.display = Some("A".into());
    let writes = [
        plain(),
        by(5),
        by(6),
        of(shown),
        of(item(0, "a", 2)),
        of(item(0, "b", 1)),
        Write {
            generation: Generation(2),
            ..plain()
        },
        Write {
            namespace: NamespaceId(6),
            ..plain()
        },
    ];
    let hash = |write: &Write| {
        let mut subject = Subject::new();
        // Another namespace comes first.
        subject.writes(&[record(None, vec![item(0, "z", 1)]), write.clone()]);
        subject.state.view().hash()
    };
    let hashes: std::collections::BTreeSet<_> = writes.iter().map(hash).collect();
    assert_eq!(hashes.len(), writes.len());
}

/// What an older program wrote must be read for ever.
#[test]
fn version_1_is_as_documented() {
    let mut subject = Subject::new();
    subject.write(record(Some(identity(1, 1, 1)), vec![item(0, "a", 1)]));
    let bytes = subject.encoded();
    let (header, mut rest) = bytes.split_at(16);
    assert_eq!(&header[..12], b"ACSTATE\n\x01\0\0\0");
    let mut chain = crc32fast::hash(&header[..12]);
    assert_eq!(header[12..], chain.to_le_bytes());
    let mut sections = Vec::new();
    while !rest.is_empty() {
        let (frame, behind) = rest.split_at(12);
        let len = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
        let (content, behind) = behind.split_at(len);
        let mut crc = crc32fast::Hasher::new_with_initial(chain);
        crc.update(&frame[..8]);
        crc.update(content);
        chain = crc.finalize();
        assert_eq!(frame[8..], chain.to_le_bytes());
        assert_eq!(frame[1..4], [1, 0, 0]);
        sections.push((frame[0], content));
        rest = behind;
    }
    let [(1, state), (2, repeats), (3, space), (4, end)] = sections[..] else {
        panic!("{sections:?}");
    };
    assert_eq!(state, STAMP_MS.to_le_bytes());
    assert!(repeats.starts_with(b"ACRT"));
    let id_generation_magic = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x89, b'T'];
    assert!(space.starts_with(&id_generation_magic));
    assert_eq!(end, 1_u64.to_le_bytes());
}
