//! A door to the decoders of peers' messages, of stored entries and of the note of shared groups, for `crates/fuzz`: bytes in,
//! bytes out, so that the types between them stay what they are, ours alone.
//!
//! On failure: what does not decode gives nothing. Nothing here sends anything, and files are kept only on the disk that is given.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use api::raft::v1 as wire;
use prost::Message as _;
use vfs::Vfs;
use wal::{GroupId, Place};

use crate::convert::ConvertError;
use crate::host::{FoundStarts, FoundVoters, VotersNote};
use crate::log::NodeFault;
use crate::network::block::Unpacker;
use crate::network::service::announced;
use crate::network::{Offer, said_to_offer};
use crate::raft::{Entry, Vote, log_id};
use crate::snapshot::{Announced, Receiver, SnapshotFile, SnapshotStore};
use crate::{OpenError, command, convert};

/// What bytes are to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A leader's entries, as a peer receives them, in a block or not.
    Append,
    /// The answer to them.
    AppendAnswer,
    /// The members of a group, as they stand in snapshots and entries.
    Membership,
    /// An entry of the log: its kind (1 byte), then its payload.
    StoredEntry,
    /// A command with its envelope, as it stands in an entry.
    Command,
    /// What a candidate asks for.
    Vote,
    /// The answer to it.
    VoteAnswer,
    /// A leader's word to another voter that it is to lead.
    TransferLeader,
    /// A snapshot that a leader has.
    Offer,
    /// The answer to it, where the file has [`OFFERED_BYTES`].
    OfferAnswer,
    /// The answer to a snapshot that was sent.
    InstallAnswer,
}

/// The length of the file that [`Message::OfferAnswer`] is about.
pub const OFFERED_BYTES: u64 = 5_000;

/// Reads a message and writes what it means; nothing if it means nothing.
#[must_use]
pub fn reread(message: Message, bytes: &[u8]) -> Option<Vec<u8>> {
    match message {
        Message::Append => append(bytes),
        Message::AppendAnswer => append_answer(bytes),
        Message::Membership => membership(bytes),
        Message::StoredEntry => stored_entry(bytes),
        Message::Command => command_again(bytes),
        Message::Vote => vote(bytes),
        Message::VoteAnswer => vote_answer(bytes),
        Message::TransferLeader => transfer_leader(bytes),
        Message::Offer => offer(bytes),
        Message::OfferAnswer => offer_answer(bytes),
        Message::InstallAnswer => install_answer(bytes),
    }
}

fn append(bytes: &[u8]) -> Option<Vec<u8>> {
    let message = wire::AppendRequest::decode(bytes).ok()?;
    let message = Unpacker::default().unpack(message).ok()?;
    let request = convert::append_from_wire(message).ok()?;
    let envelope = wire::Envelope::default();
    Some(convert::append_to_wire(request, envelope).encode_to_vec())
}

fn append_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let answer = wire::AppendResponse::decode(bytes).ok()?;
    let (prev, last) = (Some(log_id(2, 5)), Some(log_id(3, 9)));
    let granted = answer.granted_lease_ms;
    let standing = answer.standing.unwrap_or_default();
    let result = convert::append_result_from_wire(answer, prev, last).ok()?;
    Some(convert::append_result_to_wire(&result, granted, standing).encode_to_vec())
}

fn membership(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::Membership::decode(bytes).ok()?;
    let membership = convert::membership_from_wire(found).ok()?;
    Some(convert::membership_to_wire(&membership).encode_to_vec())
}

fn stored_entry(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, payload) = bytes.split_first()?;
    let id = convert::log_id_to_wal(&log_id(3, 7));
    let stored = wal::Entry {
        id,
        kind: *kind,
        payload: payload.to_vec().into(),
    };
    let entry: Entry = convert::entry_from_wal(stored).ok()?;
    let stored = convert::entry_to_wal(entry);
    Some([&[stored.kind], stored.payload.as_ref()].concat())
}

fn command_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = command::decode(bytes).ok()?;
    Some(command::encode(envelope.kind, envelope.stamp_ms, envelope.command).into())
}

fn vote(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::VoteRequest::decode(bytes).ok()?;
    let again = wire::VoteRequest {
        envelope: None,
        vote: Some(again_vote(found.vote, convert::candidate_from_wire)?),
        last_log_id: again_log_id(found.last_log_id)?,
        ..found
    };
    Some(again.encode_to_vec())
}

fn vote_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::VoteResponse::decode(bytes).ok()?;
    let again = wire::VoteResponse {
        vote: Some(again_vote(found.vote, convert::vote_from_wire)?),
        last_log_id: again_log_id(found.last_log_id)?,
        ..found
    };
    Some(again.encode_to_vec())
}

fn transfer_leader(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::TransferLeaderRequest::decode(bytes).ok()?;
    let again = wire::TransferLeaderRequest {
        envelope: None,
        from_leader: Some(again_vote(found.from_leader, convert::leader_from_wire)?),
        last_log_id: again_log_id(found.last_log_id)?,
        ..found
    };
    Some(again.encode_to_vec())
}

fn offer(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::OfferSnapshotRequest::decode(bytes).ok()?;
    let (vote, file) = offered(&found)?;
    let header = wire::SnapshotHeader {
        last_log_id: Some(wire::LogId {
            index: file.index,
            ..wire::LogId::default()
        }),
        bytes: file.bytes,
        hash: file.hash.to_vec().into(),
        ..wire::SnapshotHeader::default()
    };
    let again = wire::OfferSnapshotRequest {
        envelope: None,
        vote: Some(convert::vote_to_wire(&vote)),
        header: Some(header),
    };
    Some(again.encode_to_vec())
}

fn offer_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::OfferSnapshotResponse::decode(bytes).ok()?;
    let again = match said_to_offer(found, OFFERED_BYTES).ok()? {
        Offer::Outvoted(higher) => wire::OfferSnapshotResponse {
            higher_vote: Some(convert::vote_to_wire(&higher)),
            offset: 0,
        },
        Offer::From(offset) => wire::OfferSnapshotResponse {
            higher_vote: None,
            offset,
        },
    };
    Some(again.encode_to_vec())
}

fn install_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = wire::InstallSnapshotResponse::decode(bytes).ok()?;
    let again = wire::InstallSnapshotResponse {
        vote: Some(again_vote(found.vote, convert::vote_from_wire)?),
    };
    Some(again.encode_to_vec())
}

fn again_vote(
    found: Option<wire::Vote>,
    read: fn(Option<wire::Vote>) -> Result<Vote, ConvertError>,
) -> Option<wire::Vote> {
    let vote = read(found).ok()?;
    Some(convert::vote_to_wire(&vote))
}

fn again_log_id(found: Option<wire::LogId>) -> Option<Option<wire::LogId>> {
    let id = convert::optional_log_id(found.as_ref()).ok()?;
    Some(id.as_ref().map(convert::log_id_to_wire))
}

/// The leader that offers a file, and what it says of it.
fn offered(offer: &wire::OfferSnapshotRequest) -> Option<(Vote, Announced)> {
    let vote = convert::leader_from_wire(offer.vote).ok()?;
    Some((vote, announced(offer.header.as_ref()).ok()?))
}

/// A replica that takes in what it is sent of snapshots, on the disk that is given.
#[derive(Debug)]
pub struct Replica {
    store: SnapshotStore,
    transfers: u64,
}

impl Replica {
    /// One that has nothing yet; nothing if the disk fails.
    #[must_use]
    pub fn new(vfs: &Arc<dyn Vfs>, root: &Path) -> Option<Self> {
        let (store, _) = SnapshotStore::open(Arc::clone(vfs), root, GroupId(1)).ok()?;
        Some(Self {
            store,
            transfers: 0,
        })
    }

    /// Takes in the messages of one transfer as a peer does; the file, if it is accepted, for as long as it is held. What came of one
    /// that breaks off is kept.
    #[must_use]
    pub fn receive(&mut self, messages: &[&[u8]]) -> Option<SnapshotFile> {
        let decode = |bytes: &&[u8]| wire::InstallSnapshotRequest::decode(*bytes).ok();
        let (first, rest) = messages.split_first()?;
        let first = decode(first)?;
        convert::leader_from_wire(first.vote).ok()?;
        let announced = announced(first.header.as_ref()).ok()?;
        self.transfers += 1;
        let mut file =
            Receiver::begin(&self.store, announced, first.offset, self.transfers).ok()?;
        file.take(first.offset, &first.data).ok()?;
        for piece in rest {
            let piece = decode(piece)?;
            file.take(piece.offset, &piece.data).ok()?;
        }
        file.verify().ok()?;
        file.into_file().ok()
    }

    /// The first byte that it lacks of a snapshot that is offered; nothing if the offer is refused.
    #[must_use]
    pub fn lacks(&self, offer: &[u8]) -> Option<u64> {
        let offer = wire::OfferSnapshotRequest::decode(offer).ok()?;
        let (_, announced) = offered(&offer)?;
        self.store.kept_of(&announced)
    }
}

/// The groups that a note names; `None` where nothing can be believed.
pub type NotedGroups = Option<BTreeSet<GroupId>>;

/// Goes on with the note of shared groups in a log's directory as a start does, `known` being the groups of the log. The groups
/// that were noted, unless nothing could be believed, and those that are noted then.
///
/// # Errors
/// When the disk fails, the numbers of the slots have come to their end, or a newer program wrote the note.
pub fn reopen_voters(
    vfs: &dyn Vfs,
    dir: &Path,
    known: &[GroupId],
) -> Result<(NotedGroups, NotedGroups), OpenError> {
    let found = FoundVoters::read(vfs, dir)?;
    let before = found.groups().cloned();
    drop(VotersNote::open(vfs, found, known, NodeFault::new())?);
    let after = FoundVoters::read(vfs, dir)?.groups().cloned();
    Ok((before, after))
}

/// Adds a start that found the log to reach so far to the list in a log's directory. All starts that are known then, oldest first: the
/// life of each, and what it found.
///
/// # Errors
/// When the disk fails, the numbers of the slots have come to their end, or a newer program wrote the list.
pub fn begin_from(
    vfs: &dyn Vfs,
    dir: &Path,
    found: Place,
    drawn: u32,
) -> Result<Vec<(u64, Place)>, OpenError> {
    let starts = FoundStarts::read(vfs, dir)?.begin(vfs, found, drawn)?;
    Ok(starts.all())
}
