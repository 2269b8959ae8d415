//! An exact top-K dictionary: counts, completion and snapshots, as a plain library.
//!
//! A [`Dictionary`] maps terms (byte strings) to exact 64-bit counts and answers at once which `k`
//! terms that start with a prefix have the highest counts. It knows no files, no clock, no threads
//! and no randomness: bytes in, bytes out, and the same calls give the same result.
//!
//! ```
//! use trie_core::{Dictionary, Options};
//!
//! let mut dict = Dictionary::new(Options::default());
//! dict.record(b"new york", 5, Some(b"New York"))?;
//! dict.record(b"newark", 2, None)?;
//! dict.record(b"new delhi", 5, None)?;
//! assert_eq!(dict.record(b"newark", 1, None)?, 3);
//!
//! let answer = dict.top_k(b"new", 2);
//! let terms: Vec<&[u8]> = answer.iter().map(|entry| entry.term.as_slice()).collect();
//! // Equal counts stand in byte order.
//! assert_eq!(terms, [b"new delhi".as_slice(), b"new york"]);
//! assert_eq!(answer[1].shown(), b"New York");
//!
//! // A clone is a frozen view; it costs nothing until one of the two is written.
//! let frozen = dict.clone();
//! assert_eq!(dict.delete(b"new york"), 5);
//! assert_eq!(frozen.count(b"new york"), 5);
//!
//! let mut bytes = Vec::new();
//! trie_core::snapshot::encode(frozen.clone(), &mut bytes)?;
//! let loaded = trie_core::snapshot::decode(bytes.as_slice(), Options::default())?;
//! assert_eq!(loaded.top_k(b"", 10), frozen.top_k(b"", 10));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - **Exact.** Counts are sums, never estimates; an answer is what sorting all matching terms by
//!   [`compare`] would give, for any `k`. A sum that does not fit 64 bits is refused.
//! - **All or nothing.** A write that returns an error has changed nothing.
//! - **Plain bytes.** Terms are compared byte by byte; nothing is normalised here. A term has 1 to
//!   [`TERM_BYTES_MAX`] bytes, a display form at most [`DISPLAY_BYTES_MAX`].
//! - **Bounded stack.** Nothing recurses on the length of a term, not even freeing memory.
//!
//! # How it works
//!
//! The dictionary is a *burst trie*: a few inner nodes above many leaf buckets.
//!
//! ```text
//!                       (root)  list: the, new york, google, …
//!                     a-m /   n |        \ o-z
//!               [bucket]   node "ne"      [bucket]
//!                          list: new york, newark, …
//!                          a-v /    w |
//!                      [bucket]    node "w"
//!                                  list: new york, newark, new delhi, …
//!                                    " " |      \ a-z
//!                                 [bucket]      [bucket]  ark, castle, s, …
//! ```
//!
//! A **bucket** holds some hundred terms in order, in one piece of memory of one to two kilobytes: of each what
//! the path does not say and the term before does not share, and the count as a short integer. That
//! is why ten million terms take less memory than their text. To find a term is to scan its
//! bucket, which takes about as long as fetching it from memory.
//!
//! A **node** holds the bytes its terms have in common and, ready to be read, the list of the first
//! [`cached_k`](Options::cached_k) terms below it. So:
//!
//! - `top_k` of a prefix that ends in a node copies that node's list; one that ends in a bucket
//!   scans that bucket. There is no third case, except for a `k` above `cached_k`, which is searched for best first.
//! - `record` walks down one path, puts the new count into the lists it passes, and writes one
//!   bucket. Counts only rise, so a list changes without a look below its node.
//! - `delete` walks back up the path. A list that lost an entry is made anew from the lists and
//!   buckets one level below.
//! - A bucket that grows too large is cut between two first bytes, or, if all its terms begin with the same
//!   byte, becomes a node with buckets of its own. Deletes join what has become small.
//!
//! Nodes and buckets are reference-counted and copied when written while somebody else holds them.
//! That makes clones constant-time frozen views, from which a [`snapshot`] can be written while the
//! original goes on.
//!
//! # Where to look
//!
//! `bucket` and `bucket::raw` have the layout of a leaf, `top_list` that of a list, `node` what always
//! holds in the tree; `assembler` builds and divides, `dictionary::record` and
//! `dictionary::delete` write, `search` looks for large `k`, and [`snapshot`] specifies the stored
//! format. [`Dictionary::check_invariants`] checks all that the modules promise.

mod assembler;
mod bucket;
mod builder;
mod cursor;
mod dictionary;
mod display;
mod entry;
mod error;
mod iter;
mod memory;
mod node;
mod options;
mod order;
mod ranking;
mod release;
mod search;
pub mod snapshot;
mod top_list;
mod varint;

pub use builder::Builder;
pub use dictionary::Dictionary;
pub use entry::Entry;
pub use error::{DISPLAY_BYTES_MAX, RecordError, TERM_BYTES_MAX};
pub use iter::Iter;
pub use memory::MemoryUsage;
pub use options::Options;
pub use order::compare;
