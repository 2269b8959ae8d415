//! The name of a write, checked.

use bytes::Bytes;

use crate::{ApiError, Reason, v1};

/// Bytes of a client id.
pub const CLIENT_ID_BYTES: usize = 16;

/// Names one logical write, the same in all its retries. Its `acked_below` never lies above its sequence: a write that
/// is still sent is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Drawn once by a client process.
    pub client: [u8; CLIENT_ID_BYTES],
    /// Numbers the client's writes.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch at the first try, by the client's clock; not negative.
    pub issued_at_ms: i64,
    /// Every lower sequence of this client is settled.
    pub acked_below: u64,
}

impl RequestId {
    /// Checks the parts of an id. That it does not come from the future is checked by the leader, which has the
    /// time that counts.
    ///
    /// # Errors
    /// `BAD_REQUEST_ID`, with the field below `request_id` that is at fault.
    pub fn from_parts(
        client_id: &[u8],
        sequence: u64,
        issued_at_ms: i64,
        acked_below: u64,
    ) -> Result<Self, ApiError> {
        let bad = |field: &str, problem: String| {
            ApiError::field(Reason::BadRequestId, format!("request_id.{field}"), problem)
        };
        let client = client_id.try_into().map_err(|_| {
            bad(
                "client_id",
                format!("has {} bytes, must have {CLIENT_ID_BYTES}", client_id.len()),
            )
        })?;
        if issued_at_ms < 0 {
            return Err(bad(
                "issued_at_ms",
                format!("{issued_at_ms} lies before the Unix epoch"),
            ));
        }
        if acked_below > sequence {
            return Err(bad(
                "acked_below",
                format!("{acked_below} is above the sequence {sequence} of this very write"),
            ));
        }
        Ok(Self {
            client,
            sequence,
            issued_at_ms,
            acked_below,
        })
    }
}

impl TryFrom<&v1::RequestId> for RequestId {
    type Error = ApiError;

    fn try_from(wire: &v1::RequestId) -> Result<Self, ApiError> {
        Self::from_parts(
            &wire.client_id,
            wire.sequence,
            wire.issued_at_ms,
            wire.acked_below,
        )
    }
}

impl From<RequestId> for v1::RequestId {
    fn from(id: RequestId) -> Self {
        Self {
            client_id: Bytes::copy_from_slice(&id.client),
            sequence: id.sequence,
            issued_at_ms: id.issued_at_ms,
            acked_below: id.acked_below,
        }
    }
}
