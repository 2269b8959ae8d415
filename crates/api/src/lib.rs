//! Generated wire types, the strict codec, and conversions to the cluster's own types.
//!
//! - [`v1`], [`shard`], [`raft`], [`admin`], [`registry`]: what `proto/` says, messages, clients and servers.
//! - [`codec`]: bytes that are no valid message are the caller's fault, and are answered so.
//! - [`error`]: the one place where an error for the wire is built and read.
//! - [`convert`]: messages to the cluster's own types and back.
//! - [`validate`]: what a public request means, once it is known to be sound.
//!
//! What this crate must not know: the dictionary, the log, sockets, clocks. It never sees a file.

pub mod codec;
pub mod convert;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
#[expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated from proto/, where the comments are"
)]
mod generated;
pub mod validate;

pub use convert::{Consistency, RequestId};
pub use error::{ApiError, Outcome, Reason, Retry};
pub use generated::{FILE_DESCRIPTOR_SET, admin, meta, raft, registry, shard, v1};
