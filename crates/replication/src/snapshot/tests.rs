mod every_call;
mod power_lost;
mod removal;
mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use vfs::sim::{Effect, Fault};
use vfs::{Op, SimDisk, Vfs};

use super::format::{FIXED_BYTES, MAGIC};
use super::*;
use crate::raft::{Membership, StoredMembership, log_id};
use crate::{GroupId, SnapshotError, SnapshotView};

const GROUP: GroupId = GroupId(3);

struct Bytes(Vec<u8>);

impl SnapshotView for Bytes {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        // In pieces, as a real encoder does.
        self.0
            .chunks(1000)
            .try_for_each(|piece| out.write_all(piece))
    }
}

fn header(index: u64) -> Header {
    let nodes = BTreeMap::from([(1, openraft::BasicNode::new("a:1"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    Header {
        group: GROUP,
        last: log_id(4, index),
        membership: StoredMembership::new(Some(log_id(1, 0)), membership),
        stamp_ms: 1_700_000_000_123,
        taken_at_ms: -5,
    }
}

pub(crate) fn disk() -> (Arc<dyn Vfs>, SimDisk) {
    let disk = SimDisk::new();
    (Arc::new(disk.clone()), disk)
}

pub(crate) fn store(vfs: &Arc<dyn Vfs>) -> (SnapshotStore, Found) {
    SnapshotStore::open(Arc::clone(vfs), Path::new("/snapshots"), GROUP).unwrap()
}

pub(crate) fn take(store: &SnapshotStore, index: u64, body: &[u8]) -> SnapshotFile {
    let temporary = store.temporary();
    let view = Bytes(body.to_vec());
    let info = write(store.vfs().as_ref(), &temporary, &header(index), view).unwrap();
    store.publish(&temporary, header(index), info).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(body in proptest::collection::vec(any::<u8>(), 0..20_000), index: u32) {
        let (vfs, _) = disk();
        let (store, _) = store(&vfs);
        let file = take(&store, u64::from(index), &body);
        let found = verify(vfs.as_ref(), file.path()).unwrap();
        prop_assert_eq!(&found.header, &header(u64::from(index)));
        prop_assert_eq!(&found.info, file.info());
        let mut read = Vec::new();
        found.body(vfs.as_ref(), file.path()).unwrap().read_to_end(&mut read).unwrap();
        prop_assert_eq!(read, body);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500), begin: bool) {
        let (vfs, _) = disk();
        let path = PathBuf::from("/file");
        let mut content = if begin { [MAGIC.as_slice(), &[1, 0, 0, 0]].concat() } else { Vec::new() };
        content.extend(bytes);
        vfs::durable::replace(vfs.as_ref(), &path, &content).unwrap();
        prop_assert!(verify(vfs.as_ref(), &path).is_err());
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (vfs, disk) = disk();
    let (store, _) = store(&vfs);
    let file = take(&store, 9, b"a small body");
    let whole = disk.contents(file.path()).unwrap();
    for bit in 0..whole.len() as u64 * 8 {
        disk.flip_bit(file.path(), bit).unwrap();
        assert!(verify(vfs.as_ref(), file.path()).is_err(), "bit {bit}");
        disk.flip_bit(file.path(), bit).unwrap();
    }
    verify(vfs.as_ref(), file.path()).unwrap();
    for length in 0..whole.len() {
        disk.edit(file.path(), |bytes| bytes.truncate(length))
            .unwrap();
        assert!(
            verify(vfs.as_ref(), file.path()).is_err(),
            "length {length}"
        );
        disk.edit(file.path(), |bytes| bytes.clone_from(&whole))
            .unwrap();
    }
    disk.edit(file.path(), |bytes| bytes.push(0)).unwrap();
    assert!(verify(vfs.as_ref(), file.path()).is_err());
}

#[test]
fn a_newer_format_is_not_guessed_at() {
    let (vfs, disk) = disk();
    let (store, _) = store(&vfs);
    let file = take(&store, 9, b"body");
    // Only the version: that is rot.
    disk.edit(file.path(), |bytes| bytes[8] = 2).unwrap();
    let error = verify(vfs.as_ref(), file.path()).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    disk.edit(file.path(), |bytes| {
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let (header, rest) = bytes.split_at_mut(FIXED_BYTES + length);
        rest[..4].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    })
    .unwrap();
    let before = disk.contents(file.path()).unwrap();
    let older = take(&store, 8, b"an older one");
    let opened = SnapshotStore::open(Arc::clone(&vfs), Path::new("/snapshots"), GROUP);
    for error in [
        verify(vfs.as_ref(), file.path()).unwrap_err(),
        opened.map(drop).unwrap_err(),
    ] {
        let is_newer = matches!(
            error,
            SnapshotError::Version {
                version: 2,
                known: 1,
                ..
            }
        );
        assert!(is_newer, "{error}");
    }
    assert_eq!(disk.contents(file.path()).unwrap(), before);
    assert!(vfs.exists(older.path()).unwrap());
}

#[test]
fn a_generation_that_the_disk_does_not_give_back_is_damaged() {
    let (vfs, disk) = disk();
    let (first, _) = store(&vfs);
    let older = take(&first, 10, &[1; 9000]);
    let newer = take(&first, 20, &[2; 9000]);
    for (bad, good) in [(&older, &newer), (&newer, &older)] {
        let len = disk.contents(bad.path()).unwrap().len() as u64;
        for from in (0..len).step_by(512) {
            let disk = disk.restart();
            disk.make_unreadable(bad.path(), from..from + 1).unwrap();
            let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
            let (again, found) = store(&vfs);
            assert!(
                matches!(found.damaged.as_slice(), [SnapshotError::Damaged { .. }]),
                "byte {from}: {found:?}"
            );
            assert_eq!(again.newest().unwrap().path(), good.path());
            assert!(vfs.exists(bad.path()).unwrap());
        }
    }
    // One read that failed is none.
    disk.inject(Fault::next(Op::Read, Effect::Io));
    let (again, found) = store(&vfs);
    assert_eq!((again.sound().len(), found.damaged.len()), (2, 0));
    assert_eq!(disk.faults_waiting(), 0);
    // What is about names or the process says nothing of the bytes.
    disk.inject(Fault::next(Op::OpenRead, Effect::Io));
    let opened = SnapshotStore::open(Arc::clone(&vfs), Path::new("/snapshots"), GROUP);
    assert!(matches!(opened.unwrap_err(), SnapshotError::Disk(_)));
    // A peer doubts one that can be read no more.
    disk.make_unreadable(newer.path(), 4096..4097).unwrap();
    newer.reconsider();
    assert!(newer.is_rotten() && !older.is_rotten());
}

/// The format of version 1, byte by byte. It must never change.
#[test]
fn version_1_is_as_documented() {
    let (vfs, disk) = disk();
    let (store, _) = store(&vfs);
    let file = take(&store, 0x0102, b"body");
    let bytes = disk.contents(file.path()).unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (start, rest) = bytes.split_at(FIXED_BYTES);
    assert_eq!(hex(start), "4143534e415053480100000047000000");
    let (numbers, rest) = rest.split_at(57);
    assert_eq!(
        hex(numbers),
        "030000000000000004000000000000000201000000000000\
         0101000000000000000000000000000000\
         7b68e5cf8b010000fbffffffffffffff"
    );
    let (membership, rest) = rest.split_at(0x47 - 57);
    assert_eq!(hex(membership), "0a030a0101120708011203613a31");
    let (_checksum, rest) = rest.split_at(4);
    assert_eq!(hex(&rest[..4]), hex(b"body"));
    assert_eq!(hex(&rest[4..12]), "0400000000000000");
    assert_eq!(
        &rest[12..44],
        blake3::hash(&bytes[..bytes.len() - 40]).as_bytes()
    );
    assert_eq!(&rest[44..], b"ACSNAPOK");
}

#[test]
fn two_generations_are_kept_and_held_ones_stay() {
    let (vfs, _) = disk();
    let (store, _) = store(&vfs);
    assert_eq!(store.purgeable(), None);
    let held = take(&store, 10, b"1");
    assert_eq!(store.purgeable(), None);
    take(&store, 20, b"2");
    assert_eq!(store.purgeable(), Some(10));
    take(&store, 30, b"3");
    assert_eq!(store.purgeable(), Some(20));
    assert!(vfs.exists(held.path()).unwrap(), "somebody reads it");
    let path = held.path().to_owned();
    drop(held);
    let newest = take(&store, 40, b"4");
    assert!(!vfs.exists(&path).unwrap());
    assert_eq!(
        vfs.list_dir(Path::new("/snapshots/0000000000000003"))
            .unwrap()
            .len(),
        2
    );
    assert_eq!(store.newest().unwrap().info(), newest.info());
    assert_eq!(store.purgeable(), Some(30));
}

#[test]
fn the_log_reaches_back_to_the_older_of_two_sound_generations() {
    let (vfs, _) = disk();
    let (store, _) = store(&vfs);
    take(&store, 10, b"1");
    // It is held, so that it stays beside what takes its place.
    let rotten = take(&store, 20, b"2");
    assert_eq!(store.purgeable(), Some(10));
    rotten.mark_rotten("told to");
    assert_eq!(store.purgeable(), None);
    take(&store, 30, b"3");
    assert!(store.has_rotten());
    assert_eq!(store.purgeable(), Some(10));
    take(&store, 40, b"4");
    assert_eq!(store.purgeable(), Some(30));
}

#[test]
fn one_that_is_being_read_stays_and_then_goes() {
    let (vfs, disk) = disk();
    let (store, _) = store(&vfs);
    let file = take(&store, 10, &vec![1; 3 << 20]);
    let path = file.path().to_owned();
    let whole = disk.contents(&path).unwrap();
    let mut reader = file.read().unwrap();
    drop(file);
    take(&store, 20, b"body");
    take(&store, 30, b"body");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == whole, "{} bytes of it", read.len());
    drop(reader);
    store.prune();
    assert!(!vfs.exists(&path).unwrap());
}

#[test]
fn a_start_removes_what_is_half_written_and_keeps_what_is_damaged() {
    let (vfs, disk) = disk();
    let (first, _) = store(&vfs);
    let older = take(&first, 10, b"1");
    let newer = take(&first, 20, b"2");
    write(
        vfs.as_ref(),
        &first.temporary(),
        &header(30),
        Bytes(vec![1]),
    )
    .unwrap();
    disk.flip_bit(newer.path(), 200).unwrap();
    let (again, found) = store(&vfs);
    assert_eq!(found.temporaries, 1);
    assert_eq!(found.damaged.len(), 1);
    assert_eq!(again.newest().unwrap().path(), older.path());
    assert!(vfs.exists(newer.path()).unwrap());
}

#[test]
fn what_was_damaged_at_a_start_goes_when_two_sound_ones_are_there_and_one_is_newer() {
    let (vfs, disk) = disk();
    let (first, _) = store(&vfs);
    take(&first, 10, b"1");
    let damaged = take(&first, 20, &vec![2; 3 << 20]).path().to_owned();
    disk.flip_bit(&damaged, 200).unwrap();
    let (again, found) = store(&vfs);
    assert_eq!(found.damaged.len(), 1);
    again.prune();
    assert!(vfs.exists(&damaged).unwrap(), "there is one sound one");
    take(&again, 15, b"3");
    assert!(vfs.exists(&damaged).unwrap(), "none is newer");
    let fault = Fault::next(Op::RemoveFile, Effect::Io);
    disk.inject(fault.on_path(&damaged.to_string_lossy()));
    take(&again, 30, b"4");
    assert_eq!(disk.faults_waiting(), 0);
    assert!(vfs.exists(&damaged).unwrap(), "it could not be removed");
    again.prune();
    assert!(!vfs.exists(&damaged).unwrap());
    assert_eq!(again.purgeable(), Some(15));
    let (after, found) = store(&vfs);
    assert_eq!((after.sound().len(), found.damaged.len()), (2, 0));
}

#[test]
fn a_sound_one_that_has_taken_the_name_of_a_damaged_one_stays() {
    let (vfs, disk) = disk();
    let (first, _) = store(&vfs);
    take(&first, 10, b"1");
    let path = take(&first, 20, b"2").path().to_owned();
    disk.flip_bit(&path, 200).unwrap();
    let (again, found) = store(&vfs);
    assert_eq!(found.damaged.len(), 1);
    assert_eq!(take(&again, 20, b"2").path(), path);
    take(&again, 30, b"3");
    assert!(vfs.exists(&path).unwrap());
    assert_eq!(store(&vfs).0.purgeable(), Some(20));
}

#[test]
fn a_snapshot_of_another_group_is_not_used() {
    let (vfs, _) = disk();
    let (mine, _) = store(&vfs);
    let file = take(&mine, 10, b"1");
    let other = Path::new("/snapshots/0000000000000004");
    vfs.create_dir_all(other).unwrap();
    vfs.rename(file.path(), &other.join(file.path().file_name().unwrap()))
        .unwrap();
    let root = Path::new("/snapshots");
    let (store, found) = SnapshotStore::open(vfs, root, GroupId(4)).unwrap();
    assert!(store.newest().is_none());
    assert_eq!(found.damaged.len(), 1);
}

#[test]
fn a_file_is_received_in_order_and_by_its_hash() {
    let (vfs, _) = disk();
    let (from, _) = store(&vfs);
    let body: Vec<u8> = (0..100_000_u32)
        .map(|number| number.to_le_bytes()[1])
        .collect();
    let sent = take(&from, 10, &body);
    let mut bytes = Vec::new();
    sent.read().unwrap().read_to_end(&mut bytes).unwrap();
    let root = Path::new("/elsewhere");
    let (to, _) = SnapshotStore::open(Arc::clone(&vfs), root, GROUP).unwrap();
    let dir = Path::new("/elsewhere/0000000000000003");
    let hash = sent.info().hash;
    let numbers = std::cell::Cell::new(0);
    let receiver_of = |bytes, hash| {
        let announced = Announced {
            bytes,
            hash,
            index: 10,
        };
        Receiver::begin(&to, announced, 0, numbers.replace(numbers.get() + 1)).unwrap()
    };
    let receiver = |bytes| receiver_of(bytes, hash);
    let length = bytes.len() as u64;
    let feed = |receiver: &mut Receiver, bytes: &[u8]| {
        let mut offset = 0;
        bytes.chunks(3000).try_for_each(|piece| {
            receiver.take(offset, piece)?;
            offset += piece.len() as u64;
            Ok::<_, SnapshotError>(())
        })
    };

    let mut right = receiver(length);
    feed(&mut right, &bytes).unwrap();
    right.verify().unwrap();
    let file = right.into_file().unwrap();
    assert_eq!(file.info(), sent.info());
    let path = file.path().to_owned();
    assert!(vfs.exists(&path).unwrap());
    drop(file);
    assert!(
        !vfs.exists(&path).unwrap(),
        "a file that nobody installs is removed"
    );

    let mut short = receiver(length);
    feed(&mut short, &bytes[..bytes.len() - 1]).unwrap();
    assert!(short.verify().is_err());
    drop(short);
    let mut long = receiver(length - 1);
    assert!(feed(&mut long, &bytes).is_err());
    drop(long);
    let mut gap = receiver(length);
    gap.take(0, &bytes[..10]).unwrap();
    assert!(gap.take(11, &bytes[11..20]).is_err());
    drop(gap);
    let mut other = receiver_of(length, [0; 32]);
    feed(&mut other, &bytes).unwrap();
    assert!(other.verify().is_err());
    drop(other);
    let mut rotten = bytes.clone();
    rotten[5000] ^= 1;
    let mut damaged = receiver(length);
    feed(&mut damaged, &rotten).unwrap();
    assert!(damaged.verify().is_err());
    drop(damaged);
    assert_eq!(
        vfs.list_dir(dir).unwrap(),
        [],
        "nothing is left of failures"
    );
}

#[test]
fn every_flipped_bit_is_found_when_a_snapshot_is_read_again() {
    let (vfs, disk) = disk();
    let (store, _) = store(&vfs);
    let file = take(&store, 9, b"a small body");
    let reread = || {
        let mut reread = Reread::new(&file)?;
        while reread.step(50)?.is_some() {}
        Ok::<_, SnapshotError>(())
    };
    reread().unwrap();
    for bit in 0..file.info().bytes * 8 {
        disk.flip_bit(file.path(), bit).unwrap();
        assert!(reread().is_err(), "bit {bit}");
        disk.flip_bit(file.path(), bit).unwrap();
    }
    disk.edit(file.path(), |bytes| bytes.push(0)).unwrap();
    assert!(reread().is_err());
}

#[test]
fn what_an_earlier_life_was_writing_takes_nothing_of_the_next_one() {
    let (vfs, _) = disk();
    let before = store(&vfs).0.in_life(1);
    let unfinished = before.temporary();
    vfs.create_new(&unfinished).unwrap();
    // The group begins anew, and what was half written is removed.
    let (after, found) = store(&vfs);
    assert_eq!(found.temporaries, 1);
    let after = after.in_life(2);
    let half = after.temporary();
    vfs.create_new(&half).unwrap();
    assert_ne!(half, unfinished);
    super::file::discard(vfs.as_ref(), &unfinished);
    assert!(vfs.exists(&half).unwrap());
}
