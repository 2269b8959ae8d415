//! Rules one by one; `tests/model.rs` compares long runs with a naive model.

use super::*;
use crate::DecodeError;

const CAP: u64 = 1 << 20;

fn id(client: u8, sequence: u64, issued_at_ms: i64) -> RequestId {
    RequestId {
        client: ClientId([client; 16]),
        sequence,
        issued_at_ms,
        acked_below: 0,
    }
}

fn acked(client: u8, sequence: u64, issued_at_ms: i64, acked_below: u64) -> RequestId {
    RequestId {
        acked_below,
        ..id(client, sequence, issued_at_ms)
    }
}

fn encoded(table: &RepeatTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

/// A table that holds `entries` small entries of one client.
fn room_for(entries: u64) -> RepeatTable {
    RepeatTable::new(CLIENT_BYTES + entries * ENTRY_BYTES)
}

#[test]
fn a_repeat_is_recognised_and_says_what_was_applied() {
    let mut table = RepeatTable::new(CAP);
    let first = id(1, 5, 100);
    assert_eq!(table.check(&first, 7), Verdict::New);
    table.remember(&first, 7, [0, 2], 9).unwrap();
    let items = AppliedItems::new([0, 2]).unwrap();
    assert_eq!(
        table.check(&first, 7),
        Verdict::Repeat { items, outcome: 9 }
    );
    assert!(table.is_applied(&first, 2) && !table.is_applied(&first, 1));
    assert_eq!(
        table.check(&id(2, 5, 100), 7),
        Verdict::New,
        "another client"
    );
    assert_eq!(table.check(&id(1, 3, 100), 7), Verdict::New, "a gap below");
}

#[test]
fn parts_of_a_batch_add_up_and_the_first_outcome_stays() {
    let mut table = RepeatTable::new(CAP);
    table.remember(&id(1, 1, 100), 7, [0, 999], 1).unwrap();
    table.remember(&id(1, 1, 100), 7, [500], 2).unwrap();
    let items = AppliedItems::new([0, 500, 999]).unwrap();
    assert_eq!(
        table.check(&id(1, 1, 100), 7),
        Verdict::Repeat { items, outcome: 1 }
    );
    assert_eq!(table.len(), 1);
    assert_eq!(table.bytes(), CLIENT_BYTES + ENTRY_BYTES + LARGE_SET_BYTES);
}

#[test]
fn another_payload_is_refused_without_effect() {
    let mut table = RepeatTable::new(CAP);
    table.remember(&id(1, 1, 100), 7, [0], 0).unwrap();
    let before = encoded(&table);
    assert_eq!(table.check(&id(1, 1, 100), 8), Verdict::OtherPayload);
    assert_eq!(
        table.remember(&id(1, 1, 100), 8, [1], 0),
        Err(RememberError::OtherPayload)
    );
    let too_high = RememberError::ItemOutOfRange {
        item: 1000,
        limit: 1000,
    };
    assert_eq!(table.remember(&id(1, 2, 100), 8, [1000], 0), Err(too_high));
    assert_eq!(encoded(&table), before);
}

#[test]
fn settling_drops_entries_but_neither_raises_the_mark_nor_lets_them_in_again() {
    let mut table = RepeatTable::new(CAP);
    for sequence in 0..10 {
        table.remember(&id(1, sequence, 100), 7, [0], 0).unwrap();
    }
    table.remember(&id(2, 3, 100), 7, [0], 0).unwrap();
    table.remember(&acked(1, 10, 100, 8), 7, [0], 0).unwrap();
    assert_eq!(
        (table.len(), table.clients(), table.mark_ms()),
        (4, 2, None)
    );
    assert_eq!(
        table.check(&id(1, 7, 100), 7),
        Verdict::Expired { mark_ms: None }
    );
    assert_eq!(
        table.check(&id(1, 7, 9_999), 7),
        Verdict::Expired { mark_ms: None }
    );
    assert!(matches!(
        table.check(&id(1, 8, 100), 7),
        Verdict::Repeat { .. }
    ));
    assert!(matches!(
        table.check(&id(2, 3, 100), 7),
        Verdict::Repeat { .. }
    ));
    // An older request that arrives late takes nothing back.
    table.remember(&acked(1, 11, 100, 2), 7, [0], 0).unwrap();
    assert_eq!(
        table.check(&id(1, 7, 100), 7),
        Verdict::Expired { mark_ms: None }
    );
}

#[test]
fn a_request_that_settles_itself_is_expired() {
    let mut table = RepeatTable::new(CAP);
    assert!(!acked(1, 5, 100, 6).is_well_formed());
    assert_eq!(
        table.check(&acked(1, 5, 100, 6), 7),
        Verdict::Expired { mark_ms: None }
    );
    assert_eq!(
        table.remember(&acked(1, 5, 100, 6), 7, [0], 0),
        Err(RememberError::Expired)
    );
    assert!(table.is_empty());
}

#[test]
fn the_cap_drops_what_was_issued_first_and_expires_what_is_as_old() {
    let mut table = room_for(3);
    for (sequence, issued_at_ms) in [(0, 300), (1, 100), (2, 200), (3, 400)] {
        table
            .remember(&id(1, sequence, issued_at_ms), 7, [0], 0)
            .unwrap();
    }
    assert_eq!((table.len(), table.mark_ms()), (3, Some(100)));
    let expired = Verdict::Expired { mark_ms: Some(100) };
    assert_eq!(table.check(&id(1, 1, 100), 7), expired);
    assert_eq!(table.check(&id(9, 1, 100), 7), expired);
    assert_eq!(table.check(&id(9, 1, 101), 7), Verdict::New);
    assert!(matches!(
        table.check(&id(1, 2, 200), 7),
        Verdict::Repeat { .. }
    ));
    assert!(table.bytes() <= table.cap_bytes());
}

#[test]
fn a_clock_that_is_ahead_expires_nobody_else() {
    let mut table = room_for(3);
    table.remember(&id(1, 0, 300_000), 7, [0], 0).unwrap();
    for sequence in 1..100 {
        let issued_at_ms = 1000 + sequence as i64;
        let now = id(1, sequence, issued_at_ms);
        assert_eq!(table.check(&now, 7), Verdict::New);
        table.remember(&now, 7, [0], 0).unwrap();
    }
    assert_eq!(table.mark_ms(), Some(1097));
    assert!(matches!(
        table.check(&id(1, 0, 300_000), 7),
        Verdict::Repeat { .. }
    ));
}

#[test]
fn a_client_without_entries_is_refused_until_the_mark_covers_it() {
    let mut table = RepeatTable::new(CLIENT_BYTES * 2 + ENTRY_BYTES * 2);
    table.remember(&id(1, 0, 500), 7, [0], 0).unwrap();
    table.remember(&acked(1, 1, 400, 1), 7, [0], 0).unwrap();
    assert_eq!((table.len(), table.clients()), (1, 1));
    // The client's last entry is dropped at 400, but it settled one of 500.
    table.remember(&id(2, 0, 450), 7, [0], 0).unwrap();
    table.remember(&id(2, 1, 460), 7, [0], 0).unwrap();
    assert_eq!(
        (table.len(), table.clients(), table.mark_ms()),
        (2, 2, Some(400))
    );
    assert_eq!(
        table.check(&id(1, 0, 500), 7),
        Verdict::Expired { mark_ms: Some(400) }
    );
    assert_eq!(
        table.check(&id(1, 1, 400), 7),
        Verdict::Expired { mark_ms: Some(400) }
    );
    for sequence in 2..10 {
        table
            .remember(&id(2, sequence, 600 + sequence as i64), 7, [0], 0)
            .unwrap();
    }
    assert_eq!(
        table.clients(),
        1,
        "the idle client went when its turn came"
    );
    assert!(table.mark_ms() >= Some(500));
    assert!(matches!(
        table.check(&id(1, 0, 500), 7),
        Verdict::Expired { .. }
    ));
}

#[test]
fn a_request_older_than_all_others_may_be_dropped_at_once() {
    let mut table = room_for(1);
    table.remember(&id(1, 1, 200), 7, [0], 0).unwrap();
    table.remember(&id(1, 2, 100), 7, [0], 0).unwrap();
    assert_eq!((table.len(), table.mark_ms()), (1, Some(100)));
    assert!(matches!(
        table.check(&id(1, 2, 100), 7),
        Verdict::Expired { .. }
    ));
    let mut none = RepeatTable::new(0);
    none.remember(&id(1, 1, 200), 7, [0], 0).unwrap();
    assert_eq!(
        (none.len(), none.clients(), none.bytes(), none.mark_ms()),
        (0, 0, 0, Some(200))
    );
    assert!(matches!(
        none.check(&id(1, 1, 200), 7),
        Verdict::Expired { .. }
    ));
}

#[test]
fn a_smaller_cap_drops_at_once() {
    let mut table = RepeatTable::new(CAP);
    for sequence in 0..100 {
        table
            .remember(&id(1, sequence, sequence as i64), 7, [0], 0)
            .unwrap();
    }
    table.set_cap_bytes(CLIENT_BYTES + 10 * ENTRY_BYTES);
    assert_eq!((table.len(), table.mark_ms()), (10, Some(89)));
}

#[test]
fn a_view_stays_as_it_was() {
    let mut table = RepeatTable::new(CAP);
    for sequence in 0..1000 {
        table
            .remember(&id(1, sequence, sequence as i64), 7, [0], 0)
            .unwrap();
    }
    let view = table.view();
    let before = encoded(&table);
    table
        .remember(&acked(1, 1000, 1000, 990), 7, [0], 0)
        .unwrap();
    table.remember(&id(2, 0, 1000), 7, [0], 0).unwrap();
    let mut bytes = Vec::new();
    view.encode(&mut bytes);
    assert!(bytes == before && encoded(&table) != before);
}

#[test]
fn union_knows_what_either_knew() {
    let mut left = RepeatTable::new(CAP);
    let mut right = RepeatTable::new(CAP);
    left.remember(&id(1, 1, 100), 7, [0, 1], 1).unwrap();
    right.remember(&id(1, 1, 100), 7, [2, 70], 1).unwrap();
    left.remember(&id(2, 1, 100), 7, [0], 0).unwrap();
    right.remember(&acked(2, 9, 100, 9), 7, [0], 0).unwrap();
    right.remember(&id(3, 1, 100), 8, [0], 0).unwrap();
    let mut united = left.clone();
    united.union(&right);
    let items = AppliedItems::new([0, 1, 2, 70]).unwrap();
    assert_eq!(
        united.check(&id(1, 1, 100), 7),
        Verdict::Repeat { items, outcome: 1 }
    );
    assert_eq!(
        united.check(&id(2, 1, 100), 7),
        Verdict::Expired { mark_ms: None },
        "settled in the other half"
    );
    assert_eq!(united.check(&id(3, 1, 100), 7), Verdict::OtherPayload);
    right.union(&left);
    assert_eq!(encoded(&right), encoded(&united));
    right.union(&left);
    assert_eq!(encoded(&right), encoded(&united));
}

#[test]
fn version_1_is_read_for_ever() {
    let fixture: Vec<u8> = [
        b"ACRT\x01\0\x01\0".as_slice(),
        &(-5_i64).to_le_bytes(),
        &4096_u64.to_le_bytes(),
        &2_u64.to_le_bytes(),
        &[1; 16],
        &3_u64.to_le_bytes(),
        &100_i64.to_le_bytes(),
        &2_u32.to_le_bytes(),
        &3_u64.to_le_bytes(),
        &0x0102_0304_0506_0708_u64.to_le_bytes(),
        &90_i64.to_le_bytes(),
        &[4, 1],
        &0b101_u64.to_le_bytes(),
        &u64::MAX.to_le_bytes(),
        &6_u64.to_le_bytes(),
        &100_i64.to_le_bytes(),
        &[0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &(1_u64 << 63).to_le_bytes(),
        &[2; 16],
        &8_u64.to_le_bytes(),
        &99_i64.to_le_bytes(),
        &0_u32.to_le_bytes(),
    ]
    .concat();
    let table = RepeatTable::decode(&fixture).unwrap();
    assert_eq!(
        (
            table.len(),
            table.clients(),
            table.mark_ms(),
            table.cap_bytes()
        ),
        (2, 2, Some(-5), 4096)
    );
    let items = AppliedItems::new([0, 2]).unwrap();
    assert_eq!(
        table.check(&id(1, 3, 90), 0x0102_0304_0506_0708),
        Verdict::Repeat { items, outcome: 4 }
    );
    assert!(table.is_applied(&id(1, u64::MAX, 100), 127));
    assert_eq!(
        table.check(&id(2, 7, 1000), 0),
        Verdict::Expired { mark_ms: Some(-5) }
    );
    assert_eq!(encoded(&table), fixture);
    for length in 0..fixture.len() {
        assert!(
            matches!(
                RepeatTable::decode(&fixture[..length]),
                Err(DecodeError::Read(_))
            ),
            "cut at {length}"
        );
    }
    let with_more = [fixture.as_slice(), &[0]].concat();
    assert!(matches!(
        RepeatTable::decode(&with_more),
        Err(DecodeError::Malformed { client: 2, .. })
    ));
}

#[test]
fn damage_never_gives_another_spelling_or_a_panic() {
    let mut table = RepeatTable::new(CAP);
    for sequence in 5..9 {
        table
            .remember(&acked(1, sequence, 100, 5), 7, [0, 999], 0)
            .unwrap();
        table
            .remember(&acked(2, sequence, 100, 5), 7, [63], 0)
            .unwrap();
    }
    let good = encoded(&table);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            if let Ok(other) = RepeatTable::decode(&bad) {
                assert_eq!(encoded(&other), bad, "byte {at} bit {bit}");
            }
        }
    }
    let mut other_version = good.clone();
    other_version[4] = 2;
    assert!(matches!(
        RepeatTable::decode(&other_version),
        Err(DecodeError::UnknownVersion { found: 2, known: 1 })
    ));
    let mut other_magic = good;
    other_magic[0] = b'B';
    assert!(matches!(
        RepeatTable::decode(&other_magic),
        Err(DecodeError::BadMagic {
            found: [b'B', b'C', b'R', b'T']
        })
    ));
}
