//! Looking into a log from outside.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod common;

use common::{contents, dir, entry, id, open, open_with, payload, vote};
use vfs::{SimDisk, Vfs};
use wal::{
    GroupId, OpenError, Record, WalOptions,
    inspect::{self, Compression, RecordKind, Verdict},
};

const G: GroupId = GroupId(4);

fn records(disk: &SimDisk) -> Vec<RecordKind> {
    let mut kinds = Vec::new();
    inspect::dump(disk, dir(), &mut |record| kinds.push(record.kind.clone())).unwrap();
    kinds
}

fn name(kind: &RecordKind) -> &'static str {
    match kind {
        RecordKind::Segment { .. } => "segment",
        RecordKind::Entry {
            compression: Compression::Zstd,
            ..
        } => "compressed entry",
        RecordKind::Entry { .. } => "entry",
        RecordKind::Vote { .. } => "vote",
        RecordKind::Committed { .. } => "committed",
        RecordKind::Truncate { .. } => "truncate",
        RecordKind::Purge { .. } => "purge",
        RecordKind::Remove { .. } => "remove",
        RecordKind::State { .. } => "state",
        RecordKind::Marker { .. } => "marker",
        RecordKind::Damage { .. } => "damage",
    }
}

#[test]
fn a_dump_lists_what_was_written_in_order_and_covers_every_byte() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(
        G,
        vec![vote(3), entry(3, 0, &[b'c'; 2000]), entry(3, 1, b"b")],
    )
    .unwrap();
    wal.append_sync(G, vec![Record::Truncate { from_index: 1 }])
        .unwrap();
    wal.append_sync(G, vec![Record::Committed(id(3, 0))])
        .unwrap();
    wal.append_sync(
        G,
        vec![Record::Purge {
            upto: id(3, 0),
            chain: None,
        }],
    )
    .unwrap();
    wal.append_sync(G, vec![Record::Remove]).unwrap();
    let names: Vec<&str> = records(&disk).iter().map(name).collect();
    let expected = [
        "segment",
        "marker",
        "vote",
        "compressed entry",
        "entry",
        "marker",
        "truncate",
        "marker",
        "purge",
        "committed",
        "marker",
        "remove",
        "marker",
    ];
    assert_eq!(names, expected);
    let mut end = 0;
    inspect::dump(&disk, dir(), &mut |record| {
        assert_eq!(record.place.offset, end);
        end += record.bytes;
    })
    .unwrap();
    let path = dir().join("00000000000000000001.wal");
    assert_eq!(end, disk.contents(&path).unwrap().len() as u64);

    disk.edit(&path, |bytes| bytes.extend_from_slice(b"torn"))
        .unwrap();
    assert!(matches!(
        records(&disk).last(),
        Some(RecordKind::Damage { .. })
    ));
    let report = inspect::verify(&disk, dir(), None).unwrap();
    assert!(matches!(report.verdict, Verdict::Torn { bytes: 4, .. }));
}

#[test]
fn verify_and_train_want_something_to_look_at() {
    let disk = SimDisk::new();
    disk.create_dir_all(dir()).unwrap();
    let report = inspect::verify(&disk, dir(), None).unwrap();
    assert_eq!((report.verdict, report.segments), (Verdict::Clean, 0));
    let error = inspect::train(&disk, dir(), 10).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Options {
            option: "dictionary_bytes",
            ..
        }
    ));
    let error = inspect::train(&disk, dir(), 4096).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Options {
            option: "samples",
            ..
        }
    ));
}

#[test]
fn verify_reports_groups_and_changes_nothing() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![entry(1, 7, &payload(4, 7, 100)), vote(2)])
        .unwrap();
    let mutations = disk.mutations();
    let report = inspect::verify(&disk, dir(), Some(common::identity())).unwrap();
    assert_eq!(report.entries, 1);
    assert_eq!(report.groups, [(G, wal.group(G))]);
    assert_eq!(disk.mutations(), mutations);
}

#[test]
fn a_log_written_with_other_options_opens_alike() {
    let disk = SimDisk::new();
    let mut before = None;
    for (number, align_bytes) in [4096, 512, 4096].into_iter().enumerate() {
        let options = WalOptions {
            align_bytes,
            zstd_level: number as i32,
            preallocate_bytes: 4096 * number as u64,
            ..WalOptions::small()
        };
        let (wal, _) = open_with(&disk, options).unwrap();
        if let Some(before) = before {
            assert_eq!(contents(&wal), before);
        }
        let index = number as u64;
        wal.append_sync(G, vec![entry(1, index, &[b'o'; 1500])])
            .unwrap();
        before = Some(contents(&wal));
        wal.shutdown().unwrap();
    }
}
