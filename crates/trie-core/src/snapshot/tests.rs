use super::*;
use crate::{Dictionary, Options};

fn small() -> Dictionary {
    let mut dict = Dictionary::new(Options::default());
    dict.record(b"new york", 5, Some(b"New York")).unwrap();
    dict.record(b"newark", 1 << 40, None).unwrap();
    dict.record(b"strasse", u64::MAX, Some("Straße".as_bytes()))
        .unwrap();
    for n in 0..40u32 {
        dict.record(
            format!("term number {n}").as_bytes(),
            u64::from(n) + 1,
            None,
        )
        .unwrap();
    }
    dict
}

fn bytes_of(dict: &Dictionary) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let summary = encode(dict.clone(), &mut bytes).unwrap();
    (bytes, summary)
}

#[test]
fn what_was_written_is_read() {
    for dict in [Dictionary::new(Options::default()), small()] {
        let (bytes, summary) = bytes_of(&dict);
        assert_eq!(summary.stored_bytes, bytes.len() as u64);
        assert_eq!((summary.terms, summary.total), (dict.len(), dict.total()));
        let loaded = decode(bytes.as_slice(), Options::default()).unwrap();
        assert!(loaded.iter_from(b"", None).eq(dict.iter_from(b"", None)));
        assert_eq!(bytes_of(&loaded).0, bytes);
    }
}

#[test]
fn several_stand_behind_one_another() {
    let (one, _) = bytes_of(&small());
    let joined = [one.as_slice(), &one, b"tail"].concat();
    let mut input = joined.as_slice();
    for _ in 0..2 {
        assert_eq!(decode(&mut input, Options::default()).unwrap().len(), 43);
    }
    assert_eq!(input, b"tail");
}

#[test]
fn every_flipped_bit_is_detected() {
    let (bytes, _) = bytes_of(&small());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            decode(damaged.as_slice(), Options::default()).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn every_cut_is_detected() {
    let (bytes, _) = bytes_of(&small());
    for len in 0..bytes.len() {
        let error = decode(&bytes[..len], Options::default()).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Truncated { .. }),
            "{len}: {error}"
        );
    }
}

#[test]
fn zeroed_ranges_are_detected() {
    let (bytes, _) = bytes_of(&small());
    for start in (0..bytes.len()).step_by(4) {
        let mut damaged = bytes.clone();
        damaged[start..].fill(0);
        if damaged != bytes {
            assert!(
                decode(damaged.as_slice(), Options::default()).is_err(),
                "{start}"
            );
        }
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let (mut bytes, _) = bytes_of(&small());
    bytes[8] = 2;
    let read = |bytes: &[u8]| decode(bytes, Options::default()).unwrap_err();
    let error = read(&bytes);
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
    let mut crc = crc32fast::Hasher::new_with_initial(CRC_SEED);
    crc.update(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
    let error = read(&bytes);
    let is_newer = matches!(
        error,
        SnapshotError::Version {
            found: 2,
            supported: 1
        }
    );
    assert!(is_newer, "{error}");
}
