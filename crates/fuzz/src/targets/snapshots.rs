//! Snapshots: the file, and what each of the state machines and the structures in them writes into it.

use std::path::Path;
use std::sync::Arc;

use api::raft::v1 as wire;
use coordinator::metadata::Metadata;
use prost::Message as _;
use repeat_table::{ClientId, RepeatTable, RequestId};
use replication::{Applied, SnapshotFile, SnapshotView as _, StateMachine as _};
use shard_server::state::DictionaryState;
use trie_core::{Dictionary, Entry, Options};
use vfs::{SimDisk, durable};

use super::{AT, pieces, sure};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "snapshot-file",
            run: file,
            mend: mend::snapshot_file,
            seeds: file_seeds,
            quick: 9_000,
        },
        Target {
            name: "snapshot-shard",
            run: shard,
            mend: mend::state,
            seeds: shard_seeds,
            quick: 9_000,
        },
        Target {
            name: "snapshot-metadata",
            run: metadata,
            mend: mend::metadata,
            seeds: metadata_seeds,
            quick: 9_000,
        },
        Target {
            name: "snapshot-dictionary",
            run: dictionary,
            mend: mend::dictionary,
            seeds: dictionary_seeds,
            quick: 12_000,
        },
        Target {
            name: "repeat-table",
            run: repeats,
            mend: mend::nothing,
            seeds: repeat_seeds,
            quick: 18_000,
        },
    ]
}

fn file(input: &[u8]) {
    let (disk, path) = (SimDisk::new(), Path::new("/snapshot"));
    sure(durable::replace(&disk, path, input));
    let Ok(file) = SnapshotFile::open(Arc::new(disk), path) else {
        return;
    };
    assert_eq!(file.info().bytes, input.len() as u64);
    let hashed = input.len() - 8 - 32;
    let (content, rest) = input.split_at(hashed);
    assert_eq!(file.info().hash, *blake3::hash(content).as_bytes());
    assert!(rest.starts_with(&file.info().hash));
    let applied = file.info().applied;
    assert!(applied.index < u64::MAX && applied.term < u64::MAX);
}

pub(super) fn file_seeds() -> Vec<Vec<u8>> {
    let membership = wire::Membership {
        configs: vec![wire::VoterSet {
            node_ids: vec![1, 2],
        }],
        nodes: (1..=3)
            .map(|node_id| wire::Member {
                node_id,
                address: format!("host-{node_id}:1"),
            })
            .collect(),
    };
    let mut header: Vec<u8> = [9_u64, 3, 77]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    header.push(1);
    header.extend(
        [1_u64, 1, 1_700_000, 1_700_001]
            .iter()
            .flat_map(|n| n.to_le_bytes()),
    );
    header.extend(membership.encode_to_vec());
    let len = u32::try_from(header.len()).unwrap_or_default();
    let mut bytes = [
        b"ACSNAPSH".as_slice(),
        &1_u32.to_le_bytes(),
        &len.to_le_bytes(),
    ]
    .concat();
    bytes.extend(header);
    // The checksum, a body, and the footer's length and hash, which are mended.
    bytes.extend([0; 4]);
    bytes.extend(b"any body");
    bytes.extend([0; 40]);
    bytes.extend(b"ACSNAPOK");
    mend::snapshot_file(&mut bytes);
    vec![bytes]
}

fn encoded(state: &DictionaryState) -> Vec<u8> {
    let mut bytes = Vec::new();
    sure(state.view().encode(&mut bytes));
    bytes
}

fn shard(input: &[u8]) {
    let state = DictionaryState::new(Options::default());
    if state.restore(AT, &mut &*input).is_err() {
        return;
    }
    let bytes = encoded(&state);
    let again = DictionaryState::new(Options::default());
    sure(again.restore(AT, &mut bytes.as_slice()));
    assert_eq!(again.view().hash(), state.view().hash());
    assert_eq!(encoded(&again), bytes);
}

fn shard_seeds() -> Vec<Vec<u8>> {
    let commands = super::machines::targets();
    let commands = commands
        .iter()
        .find(|target| target.name == "shard-commands");
    let inputs = commands.map(|target| (target.seeds)()).unwrap_or_default();
    let state = |input: &Vec<u8>| {
        let state = DictionaryState::new(Options::default());
        for (index, (kind, command)) in (1..).zip(pieces(input)) {
            let at = Applied { index, term: 1 };
            sure(state.apply(at, 5_000, kind.into(), command));
        }
        encoded(&state)
    };
    inputs.iter().map(state).collect()
}

fn metadata(input: &[u8]) {
    let metadata = Metadata::default();
    if metadata.restore(AT, &mut &*input).is_err() {
        return;
    }
    let encode = |metadata: &Metadata| {
        let mut bytes = Vec::new();
        sure(metadata.view().encode(&mut bytes));
        bytes
    };
    let bytes = encode(&metadata);
    let again = Metadata::default();
    sure(again.restore(AT, &mut bytes.as_slice()));
    assert_eq!(encode(&again), bytes);
    assert_eq!(again.map(), metadata.map());
}

fn metadata_seeds() -> Vec<Vec<u8>> {
    let fixtures = [
        include_bytes!("../../../coordinator/fixtures/metadata-v1.snapshot").to_vec(),
        include_bytes!("../../../coordinator/fixtures/metadata-v2.snapshot").to_vec(),
        include_bytes!("../../../coordinator/fixtures/metadata-v3.snapshot").to_vec(),
        include_bytes!("../../../coordinator/fixtures/metadata-v4.snapshot").to_vec(),
    ];
    fixtures.to_vec()
}

fn dictionary(input: &[u8]) {
    let decode = |mut bytes: &[u8]| trie_core::snapshot::decode(&mut bytes, Options::default());
    let Ok(dictionary) = decode(input) else {
        return;
    };
    let checked = dictionary.check_invariants();
    assert_eq!(checked, Ok(()));
    let mut bytes = Vec::new();
    let summary = sure(trie_core::snapshot::encode(dictionary.clone(), &mut bytes));
    assert_eq!(
        (summary.terms, summary.total),
        (dictionary.len(), dictionary.total())
    );
    let again = sure(decode(&bytes));
    let entries =
        |dictionary: &Dictionary| -> Vec<Entry> { dictionary.iter_from(b"", None).collect() };
    assert_eq!(entries(&again), entries(&dictionary));
    assert_eq!(again.top_k(b"", 10), dictionary.top_k(b"", 10));
}

fn dictionary_seeds() -> Vec<Vec<u8>> {
    let encode = |terms: u64| {
        let mut dictionary = Dictionary::new(Options::default());
        for number in 0..terms {
            let term = format!("city {}", number * 7919 % 997);
            let display = match number % 3 {
                0 => None,
                1 => Some(term.to_uppercase()),
                _ => Some(format!("Ćity {number}")),
            };
            let display = display.as_ref().map(String::as_bytes);
            sure(dictionary.record(term.as_bytes(), number + 1, display));
        }
        let mut bytes = Vec::new();
        sure(trie_core::snapshot::encode(dictionary, &mut bytes));
        bytes
    };
    vec![encode(0), encode(2), encode(300)]
}

fn repeats(input: &[u8]) {
    let Ok(table) = RepeatTable::decode(input) else {
        return;
    };
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert_eq!(bytes, input, "one state has one code");
}

fn repeat_seeds() -> Vec<Vec<u8>> {
    let mut table = RepeatTable::new(1 << 16);
    let mut encoded = vec![Vec::new()];
    table.encode(&mut encoded[0]);
    for number in 0..12_u8 {
        let id = RequestId {
            client: ClientId([number % 3; 16]),
            sequence: number.into(),
            issued_at_ms: i64::from(number) * 100,
            acked_below: u64::from(number / 6),
        };
        sure(table.remember(&id, number.into(), [0, u32::from(number) * 80], number % 4));
    }
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    // So small that the oldest are dropped, which leaves a mark.
    table.set_cap_bytes(600);
    let mut small = Vec::new();
    table.encode(&mut small);
    encoded.extend([bytes, small]);
    encoded
}
