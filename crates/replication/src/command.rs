//! The envelope of a command: what the log holds for every proposal.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 2 | kind, given by the state machine |
//! | 3 | 8 | the leader's stamp, milliseconds since the Unix epoch |
//! | 11 | | the command |
//!
//! Integers are little endian. The stamp is the only notion of time that `apply` has: it is written once, by the leader,
//! and [`crate::StateMachine::apply`] sees the largest stamp so far, so that it never goes back. A version that is
//! not known stops the replica: a newer program wrote it, and guessing would let replicas diverge.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the command.
pub(crate) const HEADER_BYTES: usize = 11;

const VERSION: u8 = 1;

/// A decoded envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) kind: u16,
    pub(crate) stamp_ms: i64,
    pub(crate) command: &'a [u8],
}

/// Why an envelope cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("command of {bytes} bytes has no room for its header")]
    Short { bytes: usize },
    #[error("command of version {version}, this program knows {VERSION}")]
    Version { version: u8 },
}

pub(crate) fn encode(kind: u16, stamp_ms: i64, command: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + command.len());
    bytes.put_u8(VERSION);
    bytes.put_u16_le(kind);
    bytes.put_i64_le(stamp_ms);
    bytes.put_slice(command);
    bytes.freeze()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let short = EnvelopeError::Short { bytes: bytes.len() };
    let (header, command) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
    let [version, k0, k1, stamp @ ..] = *header;
    if version != VERSION {
        return Err(EnvelopeError::Version { version });
    }
    Ok(Envelope {
        kind: u16::from_le_bytes([k0, k1]),
        stamp_ms: i64::from_le_bytes(stamp),
        command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(kind: u16, stamp_ms: i64, command: Vec<u8>) {
            let bytes = encode(kind, stamp_ms, &command);
            prop_assert_eq!(decode(&bytes), Ok(Envelope { kind, stamp_ms, command: &command }));
        }

        #[test]
        fn short_or_newer_envelopes_are_refused(mut bytes: Vec<u8>) {
            if let Some(version) = bytes.first_mut()
                && *version == VERSION
            {
                *version = 2;
            }
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
