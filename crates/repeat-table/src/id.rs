//! What names a request.

use std::fmt;

/// Sixteen random bytes that a client draws when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 16]);

impl ClientId {
    /// The smallest id, for ranges.
    pub const MIN: Self = Self([0; 16]);

    /// Takes the bytes of a message; nothing if there are not exactly sixteen.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// Names one write of one client, the same in every retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Who sent it.
    pub client: ClientId,
    /// Its number among the client's requests. Gaps are allowed.
    pub sequence: u64,
    /// When it was first sent, in milliseconds since 1970 by the client's clock.
    pub issued_at_ms: i64,
    /// The client has an answer to all lower sequences, or has given them up, and sends none of them again.
    pub acked_below: u64,
}

impl RequestId {
    /// Whether the request is not itself among those it says are settled. The edge refuses one that is; the table takes it
    /// for expired.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.acked_below <= self.sequence
    }
}
