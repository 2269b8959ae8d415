//! The targets, by what they decode.

mod answers;
mod arrivals;
mod clients;
mod errors;
mod files;
mod headers;
mod log;
mod machines;
mod operators;
mod peers;
mod requests;
mod services;
mod shards;
mod snapshots;
mod status;
mod text;
mod transfers;

use prost::Message;
use replication::Applied;

use crate::Target;

/// How far a state reaches that is taken over from a snapshot.
const AT: Applied = Applied { index: 9, term: 2 };

pub(crate) fn all() -> Vec<Target> {
    let parts = [
        answers::targets(),
        arrivals::targets(),
        clients::targets(),
        errors::targets(),
        files::targets(),
        headers::targets(),
        log::targets(),
        machines::targets(),
        operators::targets(),
        peers::targets(),
        requests::targets(),
        services::targets(),
        shards::targets(),
        snapshots::targets(),
        status::targets(),
        text::targets(),
        transfers::targets(),
    ];
    parts.concat()
}

/// Cuts an input into pieces of a kind and up to 65,535 bytes each: kind (1 byte), length (2), content.
fn pieces(mut input: &[u8]) -> Vec<(u8, &[u8])> {
    let mut pieces = Vec::new();
    while let Some(([kind, low, high], rest)) = input.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, after) = rest.split_at(len);
        pieces.push((*kind, content));
        input = after;
    }
    pieces
}

/// The input that [`pieces`] cuts into these.
fn join<'a>(pieces: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut input = Vec::new();
    for (kind, content) in pieces {
        input.push(kind);
        let len = u16::try_from(content.len()).unwrap_or(u16::MAX);
        input.extend_from_slice(&len.to_le_bytes());
        input.extend_from_slice(content);
    }
    input
}

/// An input of pieces, each of which is a message, and all of the same kind.
fn joined<M: Message>(kind: u8, messages: &[M]) -> Vec<u8> {
    let encoded: Vec<Vec<u8>> = messages.iter().map(M::encode_to_vec).collect();
    join(encoded.iter().map(|bytes| (kind, bytes.as_slice())))
}

/// The kind of an input's first piece, and the messages that all of its pieces are; nothing if it has none, or one is no message.
fn decoded<M: Message + Default>(input: &[u8]) -> Option<(u8, Vec<M>)> {
    let pieces = pieces(input);
    let (kind, _) = *pieces.first()?;
    let messages = pieces.iter().map(|(_, bytes)| M::decode(*bytes).ok());
    Some((kind, messages.collect::<Option<_>>()?))
}

/// An input of one message of a kind.
fn tagged(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], content].concat()
}

/// What a real encoder gave, which cannot fail where it is used here.
fn sure<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("a seed could not be made: {error:?}"))
}
