use proptest::prelude::*;
use repeat_table::RequestId;

use super::*;

fn owned(writes: &Writes<'_>) -> Vec<Write> {
    let operation = |write: &WriteRef| {
        let items = writes.items(write);
        if write.is_delete {
            return Operation::Delete {
                term: items[0].term.to_owned(),
            };
        }
        Operation::Record(
            items
                .iter()
                .map(|item| Item {
                    number: item.number,
                    term: item.term.to_owned(),
                    count: item.count,
                    display: item.display.map(str::to_owned),
                })
                .collect(),
        )
    };
    writes
        .iter()
        .map(|write| Write {
            namespace: write.namespace,
            generation: write.generation,
            identity: write.identity,
            operation: operation(write),
        })
        .collect()
}

fn identity() -> impl Strategy<Value = Identity> {
    let sequence = prop_oneof![0_u64..5, Just(u64::MAX), any::<u64>()];
    (0_u8..3, sequence, any::<i64>(), any::<u64>(), any::<u64>()).prop_map(
        |(client, sequence, issued_at_ms, acked_below, fingerprint)| Identity {
            id: RequestId {
                client: ClientId([client; 16]),
                sequence,
                issued_at_ms,
                acked_below,
            },
            fingerprint,
        },
    )
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (
        "[a-zé🦀]{1,8}",
        1_u64..,
        proptest::option::of("[A-ZÉ]{1,8}"),
    );
    proptest::collection::btree_map(prop_oneof![0_u32..3, 0_u32..1000], item, 0..6).prop_map(
        |items| {
            items
                .into_iter()
                .map(|(number, (term, count, display))| Item {
                    number,
                    term,
                    count,
                    display,
                })
                .collect()
        },
    )
}

fn write() -> impl Strategy<Value = Write> {
    let operation = prop_oneof![
        3 => items().prop_map(Operation::Record),
        1 => "[a-z]{1,8}".prop_map(|term| Operation::Delete { term }),
    ];
    (
        0_u32..3,
        0_u64..3,
        proptest::option::of(identity()),
        operation,
    )
        .prop_map(|(namespace, generation, identity, operation)| Write {
            namespace: NamespaceId(namespace),
            generation: Generation(generation),
            identity,
            operation,
        })
}

proptest! {
    #[test]
    fn writes_come_back(writes in proptest::collection::vec(write(), 0..12)) {
        let command = encode_writes(&writes);
        let decoded = Writes::decode(&command).unwrap();
        prop_assert_eq!(owned(&decoded), writes.clone());
        let weight: usize = writes.iter().map(Write::weight).sum();
        prop_assert!(command.len() <= weight + 16, "{} bytes, weight {}", command.len(), weight);
    }

    #[test]
    fn cut_or_extended_commands_are_refused(writes in proptest::collection::vec(write(), 1..4)) {
        let command = encode_writes(&writes);
        for end in 0..command.len() {
            prop_assert!(Writes::decode(&command[..end]).is_err());
        }
        prop_assert!(Writes::decode(&[&command[..], &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(mut bytes: Vec<u8>) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let _: Result<_, _> = Writes::decode(&bytes);
        let _: Result<_, _> = clear(&bytes);
        let _: Result<_, _> = configure(&bytes);
        let _: Result<_, _> = Eviction::decode(&bytes);
    }
}

#[test]
fn small_commands_come_back() {
    let command = encode_clear(NamespaceId(7), Generation(u64::MAX));
    assert_eq!(clear(&command), Ok((NamespaceId(7), Generation(u64::MAX))));
    assert_eq!(configure(&encode_configure(1 << 26)), Ok(1 << 26));
    let rare = Rare {
        namespace: NamespaceId(7),
        generation: Generation(3),
        count_max: 300,
        terms: vec![b"a".to_vec(), "zürich".into()],
    };
    let command = encode_evict(&rare);
    let eviction = Eviction::decode(&command).unwrap();
    assert_eq!(
        (eviction.namespace, eviction.generation),
        (rare.namespace, rare.generation)
    );
    assert_eq!(
        (eviction.count_max, eviction.terms),
        (300, vec!["a", "zürich"])
    );
    for end in 0..command.len() {
        assert!(Eviction::decode(&command[..end]).is_err());
    }
    let newer = [VERSION + 1, 0, 0];
    assert!(Writes::decode(&newer).is_err());
    assert!(clear(&newer).is_err());
}

/// The bytes that logs already hold.
#[test]
fn the_format_does_not_change() {
    let write = Write {
        namespace: NamespaceId(1),
        generation: Generation(2),
        identity: Some(Identity {
            id: RequestId {
                client: ClientId([0xab; 16]),
                sequence: 3,
                issued_at_ms: 100,
                acked_below: 2,
            },
            fingerprint: 0x0102_0304_0506_0708,
        }),
        operation: Operation::Record(vec![Item {
            number: 0,
            term: "paris".to_owned(),
            count: 300,
            display: Some("Paris".to_owned()),
        }]),
    };
    let delete = Write {
        identity: None,
        operation: Operation::Delete {
            term: "rome".to_owned(),
        },
        ..write.clone()
    };
    let mut expected = vec![1, 1];
    expected.extend([0xab; 16]);
    expected.extend([2, 0b1001, 1, 2, 0, 6, 200, 1, 1]);
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
    expected.extend(b"\x0bparis\xac\x02\x05Paris");
    expected.extend(b"\x06\x08rome");
    assert_eq!(encode_writes([&write, &delete]), expected);
}

#[test]
fn a_recorded_term_costs_about_sixteen_bytes_beside_its_text() {
    let writes: Vec<Write> = (0..500_u64)
        .map(|n| Write {
            namespace: NamespaceId(1),
            generation: Generation(1),
            identity: Some(Identity {
                id: RequestId {
                    client: ClientId([(n % 4) as u8; 16]),
                    sequence: 1_000_000 + n / 4,
                    issued_at_ms: 1_790_000_000_000 + n as i64 / 10,
                    acked_below: 1_000_000 + n / 4 - 20,
                },
                fingerprint: n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            }),
            operation: Operation::Record(vec![Item {
                number: 0,
                term: format!("a query of people {n:03}"),
                count: 1,
                display: None,
            }]),
        })
        .collect();
    let text = 21 * writes.len();
    let overhead = (encode_writes(&writes).len() - text) as f64 / writes.len() as f64;
    assert!(overhead <= 16.0, "{overhead} bytes a term");
}
