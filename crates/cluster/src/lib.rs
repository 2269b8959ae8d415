//! What everybody in the cluster must agree on: ids, key ranges, the shard map, and the limits.
//!
//! Pure values; nothing here knows of clocks, files or sockets. What always holds:
//! - A [`Layout`] tiles the whole space of terms: its first range starts at the empty term, starts ascend strictly, and each
//!   range ends where the next begins. It cannot be built otherwise.
//! - [`ShardMap::epoch`] rises with every change of the map.
//! - Limits that depend on each other are compared at compile time in [`limits`].
//!
//! On failure: building a value that breaks a rule returns a [`MapError`] that says which.

mod ids;
mod layout;
pub mod limits;
mod map;
mod range;
mod token;

pub use ids::{ClusterId, Epoch, Generation, Incarnation, NamespaceId, NodeId, ShardId};
pub use layout::{Layout, MapError};
pub use map::{Ancestor, Namespace, Node, Replica, Shard, ShardMap};
pub use range::KeyRange;
pub use token::{Position, SessionToken, TokenError};

/// How the reason of a replica ends that is to begin from a snapshot which has not come to its node: by these words a coordinator knows that
/// nothing of it is there.
pub const SEED_AWAITED: &str = "has not been pushed yet";
