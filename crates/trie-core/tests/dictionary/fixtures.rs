//! Goal: snapshots of every released format open for ever.
//! The files were written once by the program that introduced the format and are never written again.

use trie_core::snapshot::{self, SnapshotError};
use trie_core::{Dictionary, Entry, Options, TERM_BYTES_MAX};

/// Kept as it is, because compression would not make it shorter.
const V1_STORED: &[u8] = include_bytes!("../fixtures/v1-stored.trie");
/// Two compressed blocks.
const V1_BLOCKS: &[u8] = include_bytes!("../fixtures/v1-blocks.trie");

fn entry(term: &[u8], count: u64, display: Option<&str>) -> Entry {
    Entry {
        term: term.to_vec(),
        count,
        display: display.map(|display| display.as_bytes().to_vec()),
    }
}

fn v1_stored() -> Vec<Entry> {
    vec![
        entry(b"new york", 5, Some("New York")),
        entry(b"newark", 1 << 40, None),
        entry(b"strasse", u64::MAX, Some("Straße")),
        entry("東京".as_bytes(), 1, None),
    ]
}

fn v1_blocks() -> Vec<Entry> {
    let mut all: Vec<Entry> = (b'a'..=b'f')
        .map(|byte| entry(&[byte; TERM_BYTES_MAX], u64::from(byte), None))
        .collect();
    all.extend((0..200u16).map(|n| {
        let shown = format!("Number {n:03}");
        entry(
            format!("number {n:03}").as_bytes(),
            u64::from(n) + 1,
            Some(&shown),
        )
    }));
    all.sort_by(|a, b| a.term.cmp(&b.term));
    all
}

fn content(dict: &Dictionary) -> Vec<Entry> {
    dict.check_invariants().unwrap();
    dict.iter_from(b"", None).collect()
}

#[test]
fn version_1_opens() {
    for (bytes, expected, blocks) in [(V1_STORED, v1_stored(), 1), (V1_BLOCKS, v1_blocks(), 2)] {
        let dict = snapshot::decode(bytes, Options::default()).unwrap();
        assert_eq!(content(&dict), expected);
        let mut decoder = snapshot::Decoder::new(bytes).unwrap();
        while decoder.next_entry().unwrap().is_some() {}
        assert_eq!(decoder.summary().blocks, blocks);
        assert_eq!(decoder.summary().stored_bytes, bytes.len() as u64);
    }
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = V1_STORED.to_vec();
    bytes[8] = 2;
    let check = {
        let mut hasher = crc32fast::Hasher::new_with_initial(snapshot::CRC_SEED);
        hasher.update(&bytes[..12]);
        hasher.finalize()
    };
    bytes[12..16].copy_from_slice(&check.to_le_bytes());
    let refused = snapshot::decode(bytes.as_slice(), Options::default());
    assert!(matches!(
        refused,
        Err(SnapshotError::Version {
            found: 2,
            supported: 1
        })
    ));
}

#[test]
fn swapped_and_missing_blocks_are_refused() {
    // The first block's frame is behind the header; its stored length is at offset 16 of the frame.
    let stored = u32::from_le_bytes(V1_BLOCKS[32..36].try_into().unwrap()) as usize;
    let first_end = 16 + 28 + stored;
    let without_first = [&V1_BLOCKS[..16], &V1_BLOCKS[first_end..]].concat();
    assert!(snapshot::decode(without_first.as_slice(), Options::default()).is_err());
    let twice = [&V1_BLOCKS[..first_end], &V1_BLOCKS[16..]].concat();
    assert!(snapshot::decode(twice.as_slice(), Options::default()).is_err());
    // A footer with the right place but from another snapshot.
    let foreign = [&V1_BLOCKS[..first_end], &V1_STORED[V1_STORED.len() - 76..]].concat();
    assert!(snapshot::decode(foreign.as_slice(), Options::default()).is_err());
}

#[test]
fn what_is_not_a_snapshot_is_refused() {
    let refused = snapshot::decode(b"term\tcount\nnewark\t3\n".as_slice(), Options::default());
    assert!(matches!(refused, Err(SnapshotError::NotASnapshot)));
    assert!(snapshot::decode([0; 256].as_slice(), Options::default()).is_err());
}
