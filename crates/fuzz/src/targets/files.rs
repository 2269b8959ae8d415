//! The small files beside logs and snapshots: who somebody is, what he was told to do, and how far he has come.

use std::collections::BTreeSet;
use std::path::Path;

use api::admin::v1::{ReplicaDescriptor, ShardMap, SnapshotInfo};
use api::registry::v1::{Assignment, SyncResponse};
use prost::Message as _;
use replication::GroupId;
use replication::fuzzing::{begin_from, reopen_voters};
use vfs::{SimDisk, TwoSlot, Vfs as _, durable};

use super::log::{slots_of, two_slots};
use super::requests::shard_map_seeds;
use super::{sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "node-identity",
            run: |input| means_the_same(input, shard_server::fuzzing::identity),
            mend: mend::node_identity,
            seeds: node_identities,
            quick: 30_000,
        },
        Target {
            name: "node-orders",
            run: |input| means_the_same(input, shard_server::fuzzing::orders),
            mend: mend::orders,
            seeds: orders,
            quick: 12_000,
        },
        Target {
            name: "coordinator-identity",
            run: |input| means_the_same(input, coordinator::fuzzing::identity),
            mend: mend::last_crc,
            seeds: coordinator_identities,
            quick: 30_000,
        },
        Target {
            name: "voters-note",
            run: voters,
            mend: mend::slots,
            seeds: voters_seeds,
            quick: 3_000,
        },
        Target {
            name: "starts-list",
            run: starts,
            mend: mend::slots,
            seeds: starts_seeds,
            quick: 6_000,
        },
        Target {
            name: "cluster-file",
            run: cluster_file,
            mend: mend::nothing,
            seeds: cluster_files,
            quick: 30_000,
        },
        Target {
            name: "held-names",
            run: held_names,
            mend: mend::nothing,
            seeds: held_name_seeds,
            quick: 30_000,
        },
        Target {
            name: "load-state",
            run: load_state,
            mend: mend::nothing,
            seeds: load_states,
            quick: 9_000,
        },
    ]
}

/// What a file says is the same after it was written again.
fn means_the_same(input: &[u8], reread: fn(&[u8]) -> Option<Vec<u8>>) {
    if let Some(once) = reread(input) {
        assert_eq!(reread(&once).as_ref(), Some(&once));
    }
}

fn node_identities() -> Vec<Vec<u8>> {
    let identity = |node: u64, cluster: [u8; 16], name: &str| {
        let mut bytes = b"ACNODE01".to_vec();
        bytes.extend([5; 16]);
        bytes.extend(cluster);
        bytes.extend(node.to_le_bytes());
        // The length of the name, and the checksum behind it, which are mended.
        bytes.extend([0; 2]);
        bytes.extend(name.as_bytes());
        bytes.extend([0; 4]);
        mend::node_identity(&mut bytes);
        bytes
    };
    vec![
        identity(0, [0; 16], "shard-1"),
        identity(3, [7; 16], "zürich-2"),
    ]
}

fn orders() -> Vec<Vec<u8>> {
    let map = shard_map_seeds();
    let map = map.first().map(|bytes| ShardMap::decode(bytes.as_slice()));
    let told = SyncResponse {
        assignments: vec![Assignment {
            shard_id: 2,
            incarnation: 1,
            replicas: vec![ReplicaDescriptor {
                node_id: 2,
                voter: true,
            }],
            bootstrap: true,
            seed: Some(SnapshotInfo {
                shard_id: 2,
                hash: vec![9; 32].into(),
                ..SnapshotInfo::default()
            }),
            ..Assignment::default()
        }],
        map: map.map(sure),
        epoch: 5,
        ..SyncResponse::default()
    };
    let file = |told: &SyncResponse, begun: &[(u64, u64)]| {
        let told = told.encode_to_vec();
        let mut bytes = b"ACORDR01".to_vec();
        bytes.extend(u32::try_from(told.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(told);
        // The length of the groups, and the checksum behind them, which are mended.
        bytes.extend([0; 4]);
        for (shard, incarnation) in begun {
            bytes.extend(shard.to_le_bytes());
            bytes.extend(incarnation.to_le_bytes());
        }
        bytes.extend([0; 4]);
        mend::orders(&mut bytes);
        bytes
    };
    vec![
        file(&SyncResponse::default(), &[]),
        file(&told, &[(2, 1), (7, 3)]),
    ]
}

fn coordinator_identities() -> Vec<Vec<u8>> {
    let identity = |stage: u16, members: u64| {
        let mut bytes = b"ACCI".to_vec();
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(stage.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend([2; 16]);
        bytes.extend(if stage == 0 { [0; 16] } else { [9; 16] });
        bytes.extend(members.to_le_bytes());
        for member in 1..=members {
            bytes.extend(member.to_le_bytes());
            bytes.extend([u8::try_from(member).unwrap_or_default(); 16]);
        }
        bytes.extend([0; 4]);
        mend::last_crc(&mut bytes);
        bytes
    };
    vec![identity(0, 0), identity(1, 1), identity(2, 3)]
}

// --- the note of shared groups --------------------------------------------------------------------------------------

const VOTERS_MAGIC: [u8; 8] = *b"ACVOTERS";
const VOTERS_SLOT_BYTES: usize = 16 << 10;

/// What was noted stays noted, and where nothing can be believed every group of the log is noted.
fn voters(input: &[u8]) {
    let (disk, dir) = (SimDisk::new(), Path::new("/log"));
    sure(durable::create_dir(&disk, dir));
    let file = two_slots(input, VOTERS_SLOT_BYTES);
    sure(durable::replace(&disk, &dir.join("voters"), &file));
    let known = [GroupId(3), GroupId(4)];
    // Only where the numbers of the slots have come to their end.
    let Ok((before, after)) = reopen_voters(&disk, dir, &known) else {
        return;
    };
    let expected = before.unwrap_or_else(|| BTreeSet::from(known));
    assert_eq!(after.as_ref(), Some(&expected));
    let again = sure(reopen_voters(&disk.crash_losing_all(), dir, &[]));
    assert_eq!(again, (after.clone(), after), "it is durable");
}

fn voters_seeds() -> Vec<Vec<u8>> {
    let note = |groups: &[u64]| {
        let mut body = vec![1, 0, 0, 0];
        body.extend(
            u32::try_from(groups.len())
                .unwrap_or_default()
                .to_le_bytes(),
        );
        body.extend(groups.iter().flat_map(|group| group.to_le_bytes()));
        body
    };
    let (disk, path) = (SimDisk::new(), Path::new("/voters"));
    let slot_bytes = VOTERS_SLOT_BYTES as u64;
    let created = TwoSlot::create(&disk, path, VOTERS_MAGIC, slot_bytes, 1, &note(&[]));
    let mut slots = sure(created);
    let none = slots_of(&sure(disk.contents(path)), VOTERS_SLOT_BYTES);
    sure(slots.write(&note(&[3, 70, u64::MAX])));
    vec![
        none,
        slots_of(&sure(disk.contents(path)), VOTERS_SLOT_BYTES),
    ]
}

// --- the list of starts ---------------------------------------------------------------------------------------------

const STARTS_MAGIC: [u8; 8] = *b"ACSTARTS";
const STARTS_SLOT_BYTES: usize = 4 << 10;

/// Each start is known to all later ones, until it is too long ago.
fn starts(input: &[u8]) {
    let (disk, dir) = (SimDisk::new(), Path::new("/log"));
    sure(durable::create_dir(&disk, dir));
    let file = two_slots(input, STARTS_SLOT_BYTES);
    sure(durable::replace(&disk, &dir.join("starts"), &file));
    let place = |segment| wal::Place { segment, offset: 7 };
    // Only where the numbers of the slots have come to their end, or a newer program wrote it.
    let Ok(before) = begin_from(&disk, dir, place(8), 1) else {
        return;
    };
    let Ok(after) = begin_from(&disk.crash_losing_all(), dir, place(9), 2) else {
        return;
    };
    let forgotten = (before.len() + 1).saturating_sub(after.len());
    let kept = after.split_last().map(|(_, kept)| kept);
    assert_eq!(kept, before.get(forgotten..), "it is durable");
    assert_eq!(after.last().map(|(_, found)| *found), Some(place(9)));
}

fn starts_seeds() -> Vec<Vec<u8>> {
    let list = |starts: &[[u64; 3]]| {
        let mut body = vec![1, 0, 0, 0];
        body.extend(
            u32::try_from(starts.len())
                .unwrap_or_default()
                .to_le_bytes(),
        );
        body.extend(starts.iter().flatten().flat_map(|word| word.to_le_bytes()));
        body
    };
    let (disk, path) = (SimDisk::new(), Path::new("/starts"));
    let slot_bytes = STARTS_SLOT_BYTES as u64;
    let first = [(1 << 32) | 5, 0, 0];
    let created = TwoSlot::create(&disk, path, STARTS_MAGIC, slot_bytes, 1, &list(&[first]));
    let mut slots = sure(created);
    let one = slots_of(&sure(disk.contents(path)), STARTS_SLOT_BYTES);
    sure(slots.write(&list(&[first, [(2 << 32) | 9, 1, 4_096]])));
    vec![one, slots_of(&sure(disk.contents(path)), STARTS_SLOT_BYTES)]
}

// --- the names of held snapshots --------------------------------------------------------------------------------------

/// A name that says what is held is the name of what it says, and the other way round.
fn held_names(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    if *kind == 0 {
        let name = String::from_utf8_lossy(bytes);
        if let Some(info) = coordinator::fuzzing::held_of(3, &name, 77) {
            assert_eq!((info.shard_id, info.bytes), (3, 77));
            assert_eq!(sure(coordinator::fuzzing::held_name(info)), name);
        }
    } else if let Ok(info) = SnapshotInfo::decode(bytes)
        && let Ok(name) = coordinator::fuzzing::held_name(info.clone())
    {
        let found = coordinator::fuzzing::held_of(info.shard_id, &name, info.bytes);
        assert_eq!(found, Some(info));
    }
}

fn held_name_seeds() -> Vec<Vec<u8>> {
    let info = |taken_at_ms| SnapshotInfo {
        shard_id: 3,
        incarnation: 2,
        raft_term: 4,
        index: 500,
        bytes: 77,
        hash: vec![0xab; 32].into(),
        taken_at_ms,
    };
    let name = |taken_at_ms| sure(coordinator::fuzzing::held_name(info(taken_at_ms)));
    vec![
        tagged(0, name(1_700_000_000_000).as_bytes()),
        tagged(0, name(-1).as_bytes()),
        tagged(1, &info(1_700_000_000_000).encode_to_vec()),
        tagged(1, &info(-1).encode_to_vec()),
    ]
}

// --- files of the command -------------------------------------------------------------------------------------------

/// What is begun from a file is a cluster that can be.
fn cluster_file(input: &[u8]) {
    if let Some([shards, replicas, servers]) = autocomplete::fuzzing::cluster_file(input) {
        assert!((1..=64).contains(&shards) && (1..=7).contains(&replicas));
        assert!((replicas..=64).contains(&servers));
    }
}

fn cluster_files() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"version":1,"shards":2}"#,
        r#"{"version":2,"shards":2,"replicas":3}"#,
        r#"{"version":3,"shards":3,"replicas":5,"servers":6}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A load that is taken up goes on, and one that is begun again counts the file once more.
fn load_state(input: &[u8]) {
    let (disk, path) = (SimDisk::new(), Path::new("/state/load.json"));
    sure(disk.create_dir_all(Path::new("/state")));
    sure(durable::replace(&disk, path, input));
    if let Some(told) = autocomplete::fuzzing::load_goes_on(&disk, path) {
        let [(done, times), after, again] = told;
        assert_eq!((after, again), ((done + 1, times), (0, times + 1)));
    }
}

fn load_states() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"version":1,"file":"terms.tsv","again":0,"done_below":0,"reserved":[]}"#,
        r#"{"version":1,"file":"t","again":2,"done_below":1400,"reserved":[
{"from":1000,"to":2000,"issued_at_ms":77},{"from":2000,"to":3000,"issued_at_ms":-1}]}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
