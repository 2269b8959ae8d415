//! A door to the decoders of peers' messages and of stored entries, for `crates/fuzz`: bytes in, bytes out, so that the types
//! between them stay what they are, ours alone.
//!
//! On failure: what does not decode gives nothing. Nothing here keeps or sends anything.

use api::raft::v1 as wire;
use prost::Message as _;

use crate::network::block::Unpacker;
use crate::raft::{Entry, log_id};
use crate::{command, convert};

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
}

/// Reads a message and writes what it means; nothing if it means nothing.
#[must_use]
pub fn reread(message: Message, bytes: &[u8]) -> Option<Vec<u8>> {
    match message {
        Message::Append => {
            let message = wire::AppendRequest::decode(bytes).ok()?;
            let message = Unpacker::default().unpack(message).ok()?;
            let request = convert::append_from_wire(message).ok()?;
            let envelope = wire::Envelope::default();
            Some(convert::append_to_wire(request, envelope).encode_to_vec())
        }
        Message::AppendAnswer => {
            let answer = wire::AppendResponse::decode(bytes).ok()?;
            let (prev, last) = (Some(log_id(2, 5)), Some(log_id(3, 9)));
            let granted = answer.granted_lease_ms;
            let result = convert::append_result_from_wire(answer, prev, last).ok()?;
            Some(convert::append_result_to_wire(&result, granted).encode_to_vec())
        }
        Message::Membership => {
            let found = wire::Membership::decode(bytes).ok()?;
            let membership = convert::membership_from_wire(found).ok()?;
            Some(convert::membership_to_wire(&membership).encode_to_vec())
        }
        Message::StoredEntry => {
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
        Message::Command => {
            let envelope = command::decode(bytes).ok()?;
            Some(command::encode(envelope.kind, envelope.stamp_ms, envelope.command).into())
        }
    }
}
