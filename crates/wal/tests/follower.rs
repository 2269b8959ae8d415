//! Following a segment while it is written.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod common;

use common::{dir, entry, id, open, vote};
use proptest::prelude::*;
use vfs::{SimDisk, Vfs};
use wal::{
    GroupId, Record,
    inspect::{self, RecordInfo, SegmentFollower},
};

const G: GroupId = GroupId(4);

/// The one segment of a log, its bytes, and what a dump lists of it.
fn written() -> (std::path::PathBuf, Vec<u8>, Vec<RecordInfo>) {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    wal.append_sync(G, vec![vote(3), entry(3, 0, &[b'c'; 2000])])
        .unwrap();
    for index in 1..8 {
        wal.append_sync(G, vec![entry(3, index, b"b")]).unwrap();
    }
    wal.append_sync(G, vec![Record::Committed(id(3, 4))])
        .unwrap();
    let mut listed = Vec::new();
    inspect::dump(&disk, dir(), &mut |record| listed.push(record.clone())).unwrap();
    let names = disk.list_dir(dir()).unwrap();
    let mut segments = names.iter().map(|entry| dir().join(&entry.name));
    let path = segments
        .find(|path| SegmentFollower::of(path).is_some())
        .unwrap();
    let bytes = disk.contents(&path).unwrap();
    (path, bytes, listed)
}

proptest! {
    /// In whatever pieces a segment comes, all of it is told of once, in order.
    #[test]
    fn a_follower_tells_what_a_dump_lists(sizes in prop::collection::vec(1_usize..700, 1..40)) {
        let (path, bytes, listed) = written();
        let mut follower = SegmentFollower::of(&path).unwrap();
        let (mut told, mut offset) = (Vec::new(), 0);
        for size in sizes.iter().cycle() {
            let end = bytes.len().min(offset + size);
            let piece = &bytes[offset..end];
            follower.written(offset as u64, piece, &mut |record| told.push(record.clone()));
            offset = end;
            if offset == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(told, listed);
    }
}

#[test]
fn what_does_not_verify_is_not_told_of_until_it_does() {
    let (path, bytes, listed) = written();
    let mut follower = SegmentFollower::of(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[3_000] ^= 1;
    let mut told = Vec::new();
    let mut keep = |record: &RecordInfo| told.push(record.clone());
    follower.written(0, &damaged, &mut keep);
    follower.truncated(2_900);
    follower.written(2_900, &bytes[2_900..], &mut keep);
    assert_eq!(told, listed);
}

#[test]
fn a_segment_that_begins_anew_is_told_of_from_its_beginning() {
    let (path, bytes, listed) = written();
    let mut follower = SegmentFollower::of(&path).unwrap();
    let mut told = Vec::new();
    // Of another log, so that nothing of one verifies in the other.
    let mut other = bytes.clone();
    other[40] ^= 1;
    let mut keep = |record: &RecordInfo| told.push(record.clone());
    follower.written(0, &other, &mut keep);
    follower.written(0, &bytes, &mut keep);
    follower.truncated(100);
    follower.written(100, &bytes[100..], &mut keep);
    assert_eq!(told, [&listed[..], &listed[..]].concat());
}

#[test]
fn only_segments_are_followed() {
    for name in ["1.zdict", "mark", "x.wal"] {
        assert!(SegmentFollower::of(&dir().join(name)).is_none(), "{name}");
    }
    let (path, _, _) = written();
    assert_eq!(SegmentFollower::of(&path).unwrap().number(), 1);
}
