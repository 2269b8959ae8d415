use openraft::EntryPayload;
use proptest::prelude::*;

use super::*;
use crate::convert::{self, ConvertError};
use crate::raft::{AppendRequest, Command, Entry, log_id, vote};

const FIRST_INDEX: u64 = 7;

fn envelope() -> wire::Envelope {
    wire::Envelope {
        cluster_id: Bytes::from_static(&[7; 16]),
        group_id: 1,
        from_node: 1,
        to_node: 2,
    }
}

fn request(commands: impl IntoIterator<Item = Vec<u8>>) -> wire::AppendRequest {
    let entries = commands.into_iter().zip(FIRST_INDEX..);
    let request = AppendRequest {
        vote: vote(3, 1, true),
        prev_log_id: Some(log_id(3, FIRST_INDEX - 1)),
        entries: entries
            .map(|(command, index)| Entry {
                log_id: log_id(3, index),
                payload: EntryPayload::Normal(Command(command.into())),
            })
            .collect(),
        leader_commit: Some(log_id(3, FIRST_INDEX - 1)),
    };
    convert::append_to_wire(request, envelope())
}

/// A request that is worth a block.
fn usual() -> wire::AppendRequest {
    request((0..100).map(|number| format!("command number {number} of many").into_bytes()))
}

fn packed(request: wire::AppendRequest) -> wire::AppendRequest {
    let packed = Packer::default().pack(request, true);
    assert!(packed.block.is_some());
    packed
}

fn unpack(request: wire::AppendRequest) -> Result<wire::AppendRequest, BlockError> {
    Unpacker::default().unpack(request)
}

/// A request with a block that verifies, whatever it holds and says.
fn with_block(content: &[u8], raw_bytes: usize) -> wire::AppendRequest {
    let raw_bytes = u32::try_from(raw_bytes).unwrap();
    let data = Bytes::from(zstd::bulk::compress(content, ZSTD_LEVEL).unwrap());
    wire::AppendRequest {
        envelope: Some(envelope()),
        block: Some(wire::Block {
            crc: checksum(raw_bytes, &data),
            data,
            raw_bytes,
        }),
        ..wire::AppendRequest::default()
    }
}

proptest! {
    #[test]
    fn what_is_packed_comes_out_again(
        commands in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..200), 0..60),
        noise in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        let (packer, unpacker) = (Packer::default(), Unpacker::default());
        let requests = [request(commands.clone()), request([noise]), request(commands)];
        for request in requests {
            let sent = packer.pack(request.clone(), true);
            prop_assert!(sent.encoded_len() <= request.encoded_len());
            prop_assert!(sent.block.is_none() || sent.entries.is_empty());
            prop_assert_eq!(unpacker.unpack(sent).unwrap(), request);
        }
    }
}

#[test]
fn what_does_not_pay_is_sent_as_it_is() {
    let packer = Packer::default();
    let small = request([vec![b'a'; PACK_FROM_BYTES / 2]]);
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut random = vec![0; 10_000];
    noise.fill(&mut random);
    for request in [small, request([random]), request([])] {
        assert_eq!(packer.pack(request.clone(), true), request);
    }
    let usual = usual();
    assert_eq!(packer.pack(usual.clone(), false), usual, "not taken");
    assert!(packed(usual.clone()).encoded_len() < usual.encoded_len() / 4);
}

#[test]
fn sizes_are_told() {
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let packer = Packer::default();
    let tell = std::sync::Arc::clone(&told);
    packer.observe(Box::new(move |size| tell.lock().push(size)));
    let raw_bytes = usual().encoded_len() as u64;
    let sent_bytes = packer.pack(usual(), true).encoded_len() as u64;
    packer.pack(usual(), false);
    let size = |sent_bytes| AppendSize {
        raw_bytes,
        sent_bytes,
    };
    assert_eq!(*told.lock(), [size(sent_bytes), size(raw_bytes)]);
    assert!(sent_bytes < raw_bytes);
}

/// As programs were before there were blocks: the field is unknown and skipped.
#[test]
fn whoever_knows_no_blocks_refuses_the_request() {
    let old = wire::AppendRequest {
        block: None,
        ..packed(usual())
    };
    let read = convert::append_from_wire(old);
    assert!(matches!(read, Err(ConvertError::Missing { field: "vote" })));
}

#[test]
fn a_byte_that_changed_on_the_way_never_makes_another_batch() {
    let unpacker = Unpacker::default();
    let read = |bytes: &[u8]| -> Option<AppendRequest> {
        let message = wire::AppendRequest::decode(bytes).ok()?;
        convert::append_from_wire(unpacker.unpack(message).ok()?).ok()
    };
    let sent = packed(usual()).encode_to_vec();
    let right = format!("{:?}", read(&sent).unwrap());
    for at in 0..sent.len() {
        let mut changed = sent.clone();
        for value in 0..=u8::MAX {
            changed[at] = value;
            // A change of the envelope alone is left to whoever compares that.
            if let Some(other) = read(&changed) {
                assert_eq!(format!("{other:?}"), right, "{value} at {at}");
            }
        }
        assert!(read(&sent[..at]).is_none(), "cut at {at}");
    }
}

#[test]
fn every_bit_of_a_block_is_watched() {
    let sent = packed(usual());
    let block = sent.block.clone().unwrap();
    let refused = |block| {
        let block = Some(block);
        let error = unpack(wire::AppendRequest {
            block,
            ..sent.clone()
        });
        matches!(
            error,
            Err(BlockError::Damaged { .. } | BlockError::TooLarge { .. })
        )
    };
    for bit in 0..block.data.len() * 8 {
        let mut data = block.data.to_vec();
        data[bit / 8] ^= 1 << (bit % 8);
        let data = Bytes::from(data);
        assert!(refused(wire::Block {
            data,
            ..block.clone()
        }));
    }
    for bit in 0..32 {
        let (raw_bytes, crc) = (block.raw_bytes ^ (1 << bit), block.crc ^ (1 << bit));
        let block = block.clone();
        assert!(refused(wire::Block {
            raw_bytes,
            ..block.clone()
        }));
        assert!(refused(wire::Block { crc, ..block }));
    }
}

#[test]
fn a_size_that_lies_is_refused() {
    let content = wire::AppendRequest {
        envelope: None,
        ..usual()
    };
    let raw = content.encode_to_vec();
    assert_eq!(unpack(with_block(&raw, raw.len())).unwrap(), usual());
    for size in [0, 1, raw.len() - 1, raw.len() + 1, RAFT_MESSAGE_BYTES_MAX] {
        let error = unpack(with_block(&raw, size)).unwrap_err();
        assert!(
            matches!(error, BlockError::Damaged { .. }),
            "{size}: {error}"
        );
    }
    for size in [RAFT_MESSAGE_BYTES_MAX + 1, u32::MAX as usize] {
        let error = unpack(with_block(&raw, size)).unwrap_err();
        assert!(
            matches!(error, BlockError::TooLarge { .. }),
            "{size}: {error}"
        );
    }
    // A frame that would fill much more than it says is cut off.
    let bomb = vec![0; 8 * RAFT_MESSAGE_BYTES_MAX];
    let error = unpack(with_block(&bomb, RAFT_MESSAGE_BYTES_MAX)).unwrap_err();
    assert!(matches!(error, BlockError::Damaged { .. }), "{error}");
}

#[test]
fn a_request_is_in_its_block_or_beside_it() {
    let block = packed(usual()).block;
    let both = wire::AppendRequest {
        block: block.clone(),
        ..usual()
    };
    let vote = wire::AppendRequest {
        vote: usual().vote,
        ..packed(usual())
    };
    let empty = wire::AppendRequest {
        block: Some(wire::Block::default()),
        ..usual()
    };
    for twice in [both, vote, empty] {
        let error = unpack(twice).unwrap_err();
        assert!(matches!(error, BlockError::Beside), "{error}");
    }
    let inside = [
        usual(),
        wire::AppendRequest {
            block,
            ..wire::AppendRequest::default()
        },
    ];
    for content in inside {
        let raw = content.encode_to_vec();
        let error = unpack(with_block(&raw, raw.len())).unwrap_err();
        assert!(matches!(error, BlockError::Nested), "{error}");
    }
    let error = unpack(with_block(b"no request", 10)).unwrap_err();
    assert!(matches!(error, BlockError::Content(_)), "{error}");
}

/// Searches for places as a shard writes them into its log: beside the text sixteen bytes a record, of which the eight of
/// the fingerprint are random; names that are searched more often are searched more.
fn searches(records: u64, first: u64, names: &[&str]) -> Vec<u8> {
    let mut command = vec![1, 1, 1];
    command.extend(blake3::hash(&(first % 8).to_le_bytes()).as_bytes()[..16].iter());
    for number in first..first + records {
        let dice = blake3::hash(&number.to_le_bytes());
        let (chance, fingerprint) = dice.as_bytes().split_at(4);
        let chance = f64::from(u32::from_le_bytes(chance.try_into().unwrap())) / 2_f64.powi(32);
        let name = names[(chance.powi(3) * names.len() as f64) as usize];
        command.extend([13, 0, 2, 4, 0]);
        command.extend(&fingerprint[..8]);
        command.push(name.len() as u8 * 2);
        command.extend(name.as_bytes());
        command.push(1);
    }
    command
}

#[test]
fn batches_of_searches_become_as_small_as_is_said() {
    let places = include_bytes!("../../../../../data/places.tsv.zst");
    let places = String::from_utf8(zstd::decode_all(places.as_slice()).unwrap()).unwrap();
    let names: Vec<&str> = places
        .lines()
        .filter_map(|line| line.split('\t').next())
        .filter(|name| name.len() < 64)
        .collect();
    // Records an entry, entries, and the most that is left in hundredths.
    for (records, entries, most) in [(1, 50, 75), (1, 400, 60), (1, 1000, 55), (64, 400, 85)] {
        let commands = (0..entries).map(|entry| searches(records, entry * records, &names));
        let raw = request(commands);
        let sent = packed(raw.clone());
        let (sent, raw) = (sent.encoded_len(), raw.encoded_len());
        assert!(
            sent * 100 <= raw * most,
            "{entries} of {records}: {raw} bytes become {sent}"
        );
    }
}
