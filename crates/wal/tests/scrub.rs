//! Reading a running log again: what is sound passes, and every flipped bit is found where it is.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{dir, entry, id, open_with, payload, vote};
use vfs::SimDisk;
use wal::{GroupId, Place, ReadError, Record, ScrubPosition, Wal, WalOptions};

const G: GroupId = GroupId(1);

fn segment(number: u64) -> std::path::PathBuf {
    dir().join(format!("{number:020}.wal"))
}

/// A log of several segments, with records of all sizes.
fn build(disk: &SimDisk) -> Wal {
    let options = WalOptions {
        segment_bytes: 4 << 10,
        ..WalOptions::small()
    };
    let (wal, _) = open_with(disk, options).unwrap();
    wal.append_sync(G, vec![vote(1)]).unwrap();
    for index in 0..8 {
        let bytes = payload(1, index, 700);
        wal.append_sync(G, vec![entry(1, index, &bytes)]).unwrap();
    }
    wal
}

/// A whole pass in steps of a size; the bytes that were read.
fn pass(wal: &Wal, step_bytes: u64) -> Result<u64, ReadError> {
    let (mut at, mut bytes) = (Some(ScrubPosition::default()), 0);
    while let Some(from) = at {
        let step = wal.scrub(from, step_bytes)?;
        bytes += step.bytes;
        at = step.next;
    }
    Ok(bytes)
}

#[test]
fn a_sound_log_passes_whole_in_steps_of_any_size() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let log_bytes = wal.stats().log_bytes;
    assert!(wal.stats().segments >= 3);
    for step_bytes in [1, 100, 1000, 5000, u64::MAX] {
        assert_eq!(pass(&wal, step_bytes).unwrap(), log_bytes, "{step_bytes}");
    }
    // A record larger than what is read at once.
    let large = payload(1, 8, 1 << 20);
    wal.append_sync(G, vec![entry(1, 8, &large)]).unwrap();
    assert_eq!(pass(&wal, 1000).unwrap(), wal.stats().log_bytes);
    wal.shutdown().unwrap();
}

#[test]
fn a_pass_ends_however_much_is_written_meanwhile() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let log_bytes = wal.stats().log_bytes;
    let (mut at, mut bytes, mut index) = (Some(ScrubPosition::default()), 0, 8);
    while let Some(from) = at {
        assert!(index < 200, "it follows what is written");
        let more = payload(1, index, 2000);
        wal.append_sync(G, vec![entry(1, index, &more)]).unwrap();
        index += 1;
        let step = wal.scrub(from, 500).unwrap();
        bytes += step.bytes;
        at = step.next;
    }
    // What was there when the pass began, with the first of the new ones.
    assert!((log_bytes..log_bytes + 4000).contains(&bytes), "{bytes}");
    wal.shutdown().unwrap();
}

#[test]
fn every_flipped_bit_is_found_under_a_running_log() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let mut flipped = 0;
    for number in 1..=wal.stats().segments {
        let path = segment(number);
        let bits = disk.contents(&path).unwrap().len() as u64 * 8;
        for bit in (0..bits).step_by(7) {
            disk.flip_bit(&path, bit).unwrap();
            let Err(ReadError::Rotten { place, .. }) = pass(&wal, 1000) else {
                panic!("bit {bit} of segment {number} is not noticed");
            };
            let until = Place {
                segment: number,
                offset: bit / 8,
            };
            assert!(place.segment == number && place <= until, "{bit}: {place}");
            disk.flip_bit(&path, bit).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 5_000, "{flipped} bits");
    pass(&wal, 1000).unwrap();
    disk.edit(&segment(2), |bytes| bytes.truncate(1000))
        .unwrap();
    assert!(matches!(pass(&wal, 1000), Err(ReadError::Rotten { .. })));
}

#[test]
fn a_pass_goes_on_while_the_log_grows_and_old_segments_go() {
    let disk = SimDisk::new();
    let wal = build(&disk);
    let first = wal.scrub(ScrubPosition::default(), 500).unwrap();
    let purge = Record::Purge {
        upto: id(1, 7),
        chain: None,
    };
    wal.append_sync(G, vec![purge, entry(1, 8, b"more")])
        .unwrap();
    assert!(wal.stats().segments_deleted > 0);
    let mut at = first.next;
    while let Some(from) = at {
        at = wal.scrub(from, 500).unwrap().next;
    }
    assert_eq!(pass(&wal, 500).unwrap(), wal.stats().log_bytes);
}
