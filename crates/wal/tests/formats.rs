//! Logs of every format version that was ever released can be read.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![expect(
    clippy::disallowed_methods,
    reason = "fixtures are read from the source tree, not through the simulated disk"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::dir;
use vfs::{SimDisk, Vfs, durable};
use wal::{GroupId, Identity, LogId, Wal, WalOptions, Writer, inspect, inspect::Verdict};

/// The files of a fixture on a simulated disk.
fn load(version: &str) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(dir()).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version);
    for file in std::fs::read_dir(&from).unwrap() {
        let file = file.unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        durable::replace(&disk, &dir().join(file.file_name()), &bytes).unwrap();
    }
    disk
}

#[test]
fn version_1_opens() {
    let disk = load("v1");
    let report = inspect::verify(&disk, dir(), None).unwrap();
    assert_eq!(report.verdict, Verdict::Clean);
    assert!(report.segments >= 5);
    let identity = Identity {
        cluster_id: *b"fixture cluster.",
        node_id: 42,
    };
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    let (wal, _) = Wal::open(vfs, dir(), identity, WalOptions::small(), Writer::Inline).unwrap();
    let id = |term, index| LogId {
        term,
        node: 2,
        index,
    };
    assert_eq!(wal.groups(), [GroupId(1), GroupId(2)]);
    let one = wal.group(GroupId(1));
    assert_eq!(one.purged, Some(id(1, 49)));
    assert_eq!(one.last, Some(id(9, 290)));
    assert_eq!(one.committed, Some(id(1, 280)));
    assert_eq!(one.chain, V1_CHAIN);
    let vote = one.vote.unwrap();
    assert_eq!((vote.term, vote.node, vote.committed), (9, 3, true));
    let entries = wal.read(GroupId(1), 0..1000, u64::MAX).unwrap();
    assert_eq!(entries.len(), 241);
    for entry in &entries[..240] {
        let index = entry.id.index;
        let city = index * 7919 % 997;
        let text = format!("fixture term=city-{city} count={index}");
        assert_eq!(entry.payload, text.as_bytes());
        assert_eq!((entry.kind, entry.id.term), (1, 1));
    }
    assert_eq!(entries[240].payload, &b"another leader's"[..]);
    let two = wal.group(GroupId(2));
    assert_eq!(
        (two.purged, two.last),
        (Some(id(5, 1000)), Some(id(5, 1001)))
    );
    assert!(!two.chain_rebased);
    let entries = wal.read(GroupId(2), 0..2000, u64::MAX).unwrap();
    assert_eq!(entries[0].payload, vec![b'z'; 5000]);
}

/// The logical chain of group 1 at its end, as the first program wrote it.
const V1_CHAIN: u32 = 4_240_584_035;
