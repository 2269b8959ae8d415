//! Messages to the cluster's own types and back, a file a noun.
//!
//! Towards the wire a conversion cannot fail. From the wire it checks everything that the type promises; what a caller
//! sent is answered with an [`ApiError`](crate::ApiError), a map that another server sent with a
//! [`MapError`](cluster::MapError).

mod action;
mod consistency;
mod map;
mod range;
mod request_id;
mod token;

pub use consistency::Consistency;
pub use request_id::{CLIENT_ID_BYTES, RequestId};

#[cfg(test)]
mod tests;
