//! What peers of a Raft group send, and what of it stands in the log.
//!
//! What a replica sends to be given the lead, `YieldLeader`, is an envelope and nothing else, whose numbers are compared with those of who
//! gets it; the answers to it and to `TransferLeader` say nothing. How much of an offered snapshot is there already is tried with
//! the transfers.

use api::raft::v1 as wire;
use prost::Message as _;
use replication::fuzzing::{Message, OFFERED_BYTES, reread};

use super::{sure, tagged};
use crate::{Target, mend};

const MESSAGES: [Message; 11] = [
    Message::Append,
    Message::AppendAnswer,
    Message::Membership,
    Message::StoredEntry,
    Message::Command,
    Message::Vote,
    Message::VoteAnswer,
    Message::TransferLeader,
    Message::Offer,
    Message::OfferAnswer,
    Message::InstallAnswer,
];

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "raft-messages",
        run: messages,
        mend: mend::append_block,
        seeds,
        quick: 24_000,
    }]
}

/// What means something means the same after it was written and read again.
fn messages(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let Some(message) = MESSAGES.get(usize::from(*kind)) else {
        return;
    };
    if let Some(once) = reread(*message, bytes) {
        assert_eq!(reread(*message, &once).as_ref(), Some(&once));
    }
}

fn membership() -> wire::Membership {
    wire::Membership {
        configs: vec![
            wire::VoterSet {
                node_ids: vec![1, 2],
            },
            wire::VoterSet { node_ids: vec![2] },
        ],
        nodes: (1..=3)
            .map(|node_id| wire::Member {
                node_id,
                address: format!("host-{node_id}:1"),
            })
            .collect(),
    }
}

const fn id(term: u64, index: u64) -> wire::LogId {
    wire::LogId {
        term,
        node_id: 0,
        index,
    }
}

/// What a leader sends, in a block or not.
fn appends() -> Vec<Vec<u8>> {
    let payloads = [
        wire::entry::Payload::Blank(true),
        wire::entry::Payload::Command(b"a command".as_slice().into()),
        wire::entry::Payload::Membership(membership()),
    ];
    let entries = payloads
        .into_iter()
        .zip(7..)
        .map(|(payload, index)| wire::Entry {
            log_id: Some(id(3, index)),
            payload: Some(payload),
        });
    let append = wire::AppendRequest {
        envelope: None,
        vote: Some(wire::Vote {
            term: 3,
            node_id: 1,
            committed: true,
        }),
        prev_log_id: Some(id(3, 6)),
        entries: entries.collect(),
        leader_commit: Some(id(3, 8)),
        block: None,
        standings: vec![STANDING],
    };
    let one = wire::AppendRequest {
        entries: append.entries.iter().take(1).cloned().collect(),
        ..append.clone()
    };
    // An entry at the end of all numbers.
    let far = wire::AppendRequest {
        prev_log_id: Some(id(3, u64::MAX - 1)),
        ..one.clone()
    };
    let raw = append.encode_to_vec();
    let length = u32::try_from(raw.len()).unwrap_or(0);
    let block = |raw_bytes| {
        let data = sure(zstd::bulk::compress(&raw, 1));
        let crc = mend::crc(raw_bytes, &[&data]);
        wire::AppendRequest {
            block: Some(wire::Block {
                data: data.into(),
                raw_bytes,
                crc,
            }),
            ..wire::AppendRequest::default()
        }
    };
    let beside = wire::AppendRequest {
        block: block(length).block,
        ..one.clone()
    };
    vec![
        tagged(0, &block(length).encode_to_vec()),
        tagged(0, &block(length + 1).encode_to_vec()),
        tagged(0, &block(u32::MAX).encode_to_vec()),
        tagged(0, &beside.encode_to_vec()),
        tagged(0, &append.encode_to_vec()),
        tagged(0, &one.encode_to_vec()),
        tagged(0, &far.encode_to_vec()),
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    [appends(), others()].concat()
}

/// What means something, each.
fn others() -> Vec<Vec<u8>> {
    let answer = |result| wire::AppendResponse {
        granted_lease_ms: 262,
        takes_blocks: true,
        result: Some(result),
        standing: Some(STANDING),
        wants_entry: false,
    };
    use wire::append_response::Result as Answer;
    let higher = wire::Vote {
        term: 9,
        node_id: 2,
        committed: false,
    };
    let membership = membership().encode_to_vec();
    vec![
        tagged(1, &answer(Answer::Success(true)).encode_to_vec()),
        tagged(1, &answer(Answer::PartialSuccess(id(3, 7))).encode_to_vec()),
        tagged(1, &answer(Answer::Conflict(true)).encode_to_vec()),
        tagged(1, &answer(Answer::HigherVote(higher)).encode_to_vec()),
        tagged(2, &membership),
        tagged(3, &[&[0], membership.as_slice()].concat()),
        tagged(3, &[&[1], membership.as_slice()].concat()),
        tagged(3, &[&[2], membership.as_slice()].concat()),
        tagged(4, b"\x01\x01\x00\x10\x20\x30\x40\x50\x00\x00\x00a command"),
        tagged(5, &candidate().encode_to_vec()),
        tagged(6, &granted().encode_to_vec()),
        tagged(7, &handed_over().encode_to_vec()),
        tagged(8, &offered().encode_to_vec()),
        tagged(9, &outvoted().encode_to_vec()),
        tagged(9, &here(OFFERED_BYTES).encode_to_vec()),
        tagged(9, &here(OFFERED_BYTES + 1).encode_to_vec()),
        tagged(10, &installed().encode_to_vec()),
    ]
}

const LAST: wire::LogId = wire::LogId {
    term: 3,
    node_id: 0,
    index: 9,
};
const VOTE: wire::Vote = wire::Vote {
    term: 4,
    node_id: 2,
    committed: false,
};
const LEADER: wire::Vote = wire::Vote {
    committed: true,
    ..VOTE
};
const STANDING: wire::Standing = wire::Standing {
    node_id: 2,
    life: u64::MAX,
    segment: 3,
    offset: 4_096,
    found_segment: 2,
    found_offset: 512,
    crc: 7,
};

fn candidate() -> wire::VoteRequest {
    wire::VoteRequest {
        envelope: None,
        vote: Some(VOTE),
        last_log_id: Some(LAST),
        pre_vote: true,
        leadership_transfer: true,
        standings: vec![STANDING],
    }
}

fn granted() -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(VOTE),
        last_log_id: Some(LAST),
        granted: true,
        standing: Some(STANDING),
    }
}

fn handed_over() -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        envelope: None,
        from_leader: Some(LEADER),
        to_node: 3,
        last_log_id: Some(LAST),
    }
}

fn offered() -> wire::OfferSnapshotRequest {
    wire::OfferSnapshotRequest {
        envelope: None,
        vote: Some(LEADER),
        header: Some(wire::SnapshotHeader {
            last_log_id: Some(LAST),
            membership: Some(membership()),
            bytes: OFFERED_BYTES,
            hash: vec![6; 32].into(),
            ..wire::SnapshotHeader::default()
        }),
    }
}

fn outvoted() -> wire::OfferSnapshotResponse {
    wire::OfferSnapshotResponse {
        higher_vote: Some(VOTE),
        offset: 0,
    }
}

fn here(offset: u64) -> wire::OfferSnapshotResponse {
    wire::OfferSnapshotResponse {
        higher_vote: None,
        offset,
    }
}

fn installed() -> wire::InstallSnapshotResponse {
    wire::InstallSnapshotResponse { vote: Some(VOTE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_mean_something() {
        for seed in others() {
            let message = MESSAGES[usize::from(seed[0])];
            assert!(reread(message, &seed[1..]).is_some(), "{message:?}");
        }
    }

    #[test]
    fn the_checksum_of_a_block_is_made_right() {
        let right = seeds().swap_remove(0);
        assert!(reread(Message::Append, &right[1..]).is_some());
        let mut changed = right.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(reread(Message::Append, &changed[1..]).is_none());
        mend::append_block(&mut changed);
        assert_eq!(changed, right);
    }
}
