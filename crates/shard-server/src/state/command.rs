//! The commands of a shard as bytes: what stands in the log behind replication's envelope.
//!
//! # Format
//!
//! The envelope gives the kind. Every command begins with one byte, its format version, 1. `n` is a LEB128 varint, `z` one whose
//! sign stands in the lowest bit, `x*` means repeated. Each number is preceded by nothing and followed by nothing; bytes
//! behind the end are an error, as is any number that does not fit.
//!
//! **Kind 1, writes.**
//!
//! | field | code |
//! |---|---|
//! | clients in this command | `n`, then 16 bytes each, by first use |
//! | writes | `n`, then each as below |
//!
//! A write:
//!
//! | field | code | present |
//! |---|---|---|
//! | flags | 1 byte: 1 identity, 2 delete, 4 the namespace and generation of the write before, 8 one item with number 0 | always |
//! | namespace, generation | `n n` | without flag 4 |
//! | client | `n`, its place in the table | flag 1 |
//! | sequence | `z`, less the sequence of this client's write before (0) | flag 1 |
//! | `issued_at_ms` | `z`, less that of the identified write before (0) | flag 1 |
//! | sequence less `acked_below` | `n` | flag 1 |
//! | fingerprint | 8 bytes, little-endian | flag 1 |
//! | number of items | `n` | without flags 2 and 8 |
//! | items | as below, one for a delete | always |
//!
//! An item:
//!
//! | field | code | present |
//! |---|---|---|
//! | number, less that of the item before less one (-1) | `n` | without flags 2 and 8 |
//! | bytes of the term, and whether there is a display form | `n`: length * 2 + display | always |
//! | term | bytes, UTF-8 | always |
//! | count | `n` | without flag 2 |
//! | display form | `n`, then bytes, UTF-8 | as said |
//!
//! A record of one term costs about 16 bytes beside its text: flags, client, sequence, time, settled, length and count take one or two
//! each, the fingerprint eight.
//!
//! **Kind 2, clear**: namespace `n`, generation `n`. **Kind 3, configure**: cap of the repeat table in bytes `n`. Every replica
//! puts its state as of such an entry aside to be hashed and compared; one with the cap that is in force already does nothing else,
//! and is how a comparison is asked for, so that programs which know nothing of comparisons can apply it.
//!
//! **Kind 4, evict**: namespace `n`, generation `n`, the highest count at which a term still goes `n`, number of terms `n`, and each as
//! length `n` and bytes, UTF-8. A term that was recorded beyond that count in the meantime stays, and a namespace of
//! another generation is left alone.
//!
//! On failure: [`Malformed`](super::Malformed) with the place. The log is checksummed, so what does not decode was written by a faulty or
//! newer program, and the replica stops.

mod decode;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;
use cluster::{Generation, NamespaceId};
use repeat_table::ClientId;

pub(crate) use decode::{Eviction, ItemRef, WriteRef, Writes, clear, configure};

use super::rarest::Rare;
use super::varint::{put, put_bytes, put_signed};
use super::write::{Identity, Item, Operation, Write};

/// The kind of a command that holds writes.
pub const KIND_WRITES: u16 = 1;
/// The kind of a command that raises a generation.
pub const KIND_CLEAR: u16 = 2;
/// The kind of a command that changes settings which are part of the state.
pub const KIND_CONFIGURE: u16 = 3;
/// The kind of a command that gives up rare terms.
pub const KIND_EVICT: u16 = 4;

/// The format version of every kind.
const VERSION: u8 = 1;

const FLAG_IDENTITY: u8 = 1;
const FLAG_DELETE: u8 = 2;
const FLAG_SAME_NAMESPACE: u8 = 4;
const FLAG_SINGLE: u8 = 8;

/// Encodes writes into one command of kind [`KIND_WRITES`].
#[must_use]
pub fn encode_writes<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Bytes {
    let mut encoder = Encoder::default();
    for write in writes {
        encoder.push(write);
    }
    encoder.finish()
}

/// Encodes a command of kind [`KIND_CLEAR`].
#[must_use]
pub fn encode_clear(namespace: NamespaceId, generation: Generation) -> Bytes {
    let mut out = vec![VERSION];
    put(&mut out, u64::from(namespace.0));
    put(&mut out, generation.0);
    out.into()
}

/// Encodes a command of kind [`KIND_CONFIGURE`].
#[must_use]
pub fn encode_configure(repeat_table_bytes: u64) -> Bytes {
    let mut out = vec![VERSION];
    put(&mut out, repeat_table_bytes);
    out.into()
}

/// Encodes a command of kind [`KIND_EVICT`].
#[must_use]
pub fn encode_evict(rare: &Rare) -> Bytes {
    let mut out = vec![VERSION];
    put(&mut out, u64::from(rare.namespace.0));
    put(&mut out, rare.generation.0);
    put(&mut out, rare.count_max);
    put(&mut out, rare.terms.len() as u64);
    for term in &rare.terms {
        put_bytes(&mut out, term);
    }
    out.into()
}

#[derive(Debug, Default)]
struct Encoder {
    clients: Vec<ClientId>,
    /// The place of each client in the table, and the sequence of its last write.
    known: HashMap<ClientId, (u64, u64)>,
    last_namespace: Option<(NamespaceId, Generation)>,
    last_issued_ms: i64,
    writes: u64,
    body: Vec<u8>,
}

impl Encoder {
    fn push(&mut self, write: &Write) {
        let namespace = (write.namespace, write.generation);
        let same = self.last_namespace == Some(namespace);
        let mut flags = 0;
        if write.identity.is_some() {
            flags |= FLAG_IDENTITY;
        }
        if same {
            flags |= FLAG_SAME_NAMESPACE;
        }
        flags |= match &write.operation {
            Operation::Delete { term: _ } => FLAG_DELETE,
            Operation::Record(items) if is_single(items) => FLAG_SINGLE,
            Operation::Record(_) => 0,
        };
        self.body.push(flags);
        if !same {
            put(&mut self.body, u64::from(write.namespace.0));
            put(&mut self.body, write.generation.0);
            self.last_namespace = Some(namespace);
        }
        if let Some(identity) = &write.identity {
            self.put_identity(identity);
        }
        match &write.operation {
            Operation::Delete { term } => {
                put(&mut self.body, (term.len() as u64) << 1);
                self.body.extend_from_slice(term.as_bytes());
            }
            Operation::Record(items) => self.put_items(items),
        }
        self.writes += 1;
    }

    fn put_identity(&mut self, identity: &Identity) {
        let id = &identity.id;
        let next = self.clients.len() as u64;
        let (place, last_sequence) = self.known.entry(id.client).or_insert_with(|| {
            self.clients.push(id.client);
            (next, 0)
        });
        put(&mut self.body, *place);
        put_signed(
            &mut self.body,
            id.sequence.wrapping_sub(*last_sequence).cast_signed(),
        );
        *last_sequence = id.sequence;
        put_signed(
            &mut self.body,
            id.issued_at_ms.wrapping_sub(self.last_issued_ms),
        );
        self.last_issued_ms = id.issued_at_ms;
        put(&mut self.body, id.sequence.wrapping_sub(id.acked_below));
        self.body
            .extend_from_slice(&identity.fingerprint.to_le_bytes());
    }

    fn put_items(&mut self, items: &[Item]) {
        let single = is_single(items);
        if !single {
            put(&mut self.body, items.len() as u64);
        }
        let mut next = 0;
        for item in items {
            if !single {
                put(&mut self.body, u64::from(item.number.wrapping_sub(next)));
                next = item.number.wrapping_add(1);
            }
            let has_display = u64::from(item.display.is_some());
            put(&mut self.body, (item.term.len() as u64) << 1 | has_display);
            self.body.extend_from_slice(item.term.as_bytes());
            put(&mut self.body, item.count);
            if let Some(display) = &item.display {
                put_bytes(&mut self.body, display.as_bytes());
            }
        }
    }

    fn finish(self) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + self.clients.len() * 16 + 12);
        out.push(VERSION);
        put(&mut out, self.clients.len() as u64);
        for client in &self.clients {
            out.extend_from_slice(&client.0);
        }
        put(&mut out, self.writes);
        out.extend_from_slice(&self.body);
        out.into()
    }
}

fn is_single(items: &[Item]) -> bool {
    matches!(items, [item] if item.number == 0)
}
