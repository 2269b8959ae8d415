//! A client that retries safely, carries session tokens and routes by a cached map.
//!
//! [`Client`] talks to coordinators, and where asked to ([`ClientOptions::direct`]) straight to the shard that owns a term. Requests and
//! answers are the messages of [`api::v1`]; the client fills in what the caller left out: the request id of a write, the session token of a
//! read.
//!
//! What always holds:
//! - *One id, one write.* Every try of a write carries the id of its first try, `issued_at_ms` included, so a retry is never counted twice.
//!   `acked_below` is the lowest sequence of this client that is not settled, at the time of the first try.
//! - *Nothing is retried that cannot succeed.* What may be tried again, and when, follows from the reason of the error alone
//!   ([`api::Retry`]). Pauses double and are drawn with full jitter; retries end at [`ClientOptions::retries`] or the deadline.
//! - *What this client wrote or read, its later reads see*: it keeps the highest position of each shard and sends them along.
//! - The number of requests in flight on a stream, of connections and of remembered positions is bounded.
//!
//! On failure: [`ClientError`] says why, and for writes whether they may have been applied. A future that is dropped gives its write up;
//! whether it was applied is then unknown.

mod call;
mod client;
mod connections;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod options;
mod pages;
mod record_stream;
mod retry;
mod routing;
mod session;
mod typing;

pub use client::Client;
pub use error::ClientError;
pub use options::ClientOptions;
pub use pages::TermPages;
pub use record_stream::{PendingBatch, RecordStream};
pub use typing::TypingSession;
