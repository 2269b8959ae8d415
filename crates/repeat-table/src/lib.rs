//! The replicated table that makes retried writes take effect once.
//!
//! Each shard has one in its replicated state. A write that carries a [`RequestId`] is looked up before it is applied and
//! remembered after; a retry finds itself and has no effect. The table knows no clock and no randomness: the same calls in the
//! same order give the same table on every replica, whether a replica ran from the start or began with a snapshot.
//!
//! # Use, in `apply`
//!
//! 1. [`RepeatTable::check`] says [`Verdict::New`], [`Verdict::Repeat`] with the items that were applied before,
//!    [`Verdict::OtherPayload`] or [`Verdict::Expired`]. The last two have no effect.
//! 2. Items that are not in the set are applied. They are numbered in the whole batch as the caller sent it, so that a batch
//!    whose range moved between two tries, and which therefore arrives in parts, loses and doubles nothing.
//! 3. [`RepeatTable::remember`] adds the items that were applied.
//!
//! # What is kept, and what happens to ids that are not
//!
//! *Invariant `remembered_or_refused`*: an id that was ever remembered is either still in the table, or refused as expired. No
//! sequence of calls makes it new again. Three rules see to it:
//!
//! - A request carries `acked_below`: all lower sequences of its client are settled and will not be sent again. Their entries are
//!   dropped at once. The client's record keeps the number, and an id below it is expired.
//! - Above the cap in bytes, what was issued longest ago goes first ([`RequestId::issued_at_ms`], then client, then sequence). The table's
//!   *mark* is the newest `issued_at_ms` it dropped so; an unknown id at or below the mark is expired, above it is new.
//! - A client without entries keeps its record until the newest `issued_at_ms` seen from it comes up for dropping by the cap, and the mark
//!   then covers all that it ever sent here.
//!
//! Why by time of issue and not by arrival: the mark can then never pass what is still in the table. One client whose clock is minutes
//! ahead would otherwise, once dropped, expire everybody's new requests until the clocks had caught up. It also leaves nothing to
//! order but the contents, so that two tables can be united in any order.
//!
//! # Cost
//!
//! Every call is a few binary searches, amortised; settling drops each entry once. [`RepeatTable::bytes`] is a sum of
//! constants per entry and per client, measured to be within about a tenth of what they occupy, and part of the format: replicas
//! must agree on what to drop. The contents are in shared chunks, so that [`RepeatTable::view`] and a clone cost an atomic increment
//! for each chunk (about a hundred entries), and a later write copies the chunk it touches. A full table of 64 MiB, some
//! 400,000 requests, is viewed in a third of a millisecond, and the view is encoded in 15 to 25 milliseconds beside running writes.
//!
//! # Format, version 1
//!
//! All numbers are little-endian. The caller adds a checksum.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `ACRT` |
//! | 2 | version, 1 |
//! | 1 | 1 if there is a mark, else 0 |
//! | 1 | zero |
//! | 8 | mark in milliseconds since 1970, signed; 0 if there is none |
//! | 8 | cap in bytes |
//! | 8 | number of clients |
//! | ... | the clients, by ascending id |
//!
//! A client:
//!
//! | bytes | field |
//! |---|---|
//! | 16 | id |
//! | 8 | `acked_below` |
//! | 8 | newest `issued_at_ms` seen, signed |
//! | 4 | number of entries |
//! | ... | the entries, by ascending sequence |
//!
//! An entry:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | sequence |
//! | 8 | fingerprint |
//! | 8 | `issued_at_ms`, signed |
//! | 1 | outcome |
//! | 1 | number of words in the set of items, 0 to 16 |
//! | 8 each | the words; item `i` is bit `i % 64` of word `i / 64`; the last is not zero |
//!
//! The same table always gives the same bytes. Decoding refuses every other spelling of it.

#![forbid(unsafe_code)]

mod call;
mod chunk_map;
mod codec;
mod error;
mod fingerprint;
mod id;
mod items;
mod table;

pub use call::{clear_fingerprint, delete_fingerprint, record_fingerprint};
pub use codec::FORMAT_VERSION;
pub use error::{DecodeError, RememberError};
pub use fingerprint::{Fingerprint, fingerprint};
pub use id::{ClientId, RequestId};
pub use items::{AppliedItems, ITEMS_MAX};
pub use table::{RepeatTable, TableView, Verdict};

/// Cap of a shard's table where nothing else is configured, in bytes.
pub const DEFAULT_CAP_BYTES: u64 = 64 << 20;
