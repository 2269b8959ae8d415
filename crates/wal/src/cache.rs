//! Payloads kept in memory for readers: those not yet on disk, and the newest that are.
//!
//! What is not written yet is never dropped, for it can be read from nowhere else; the queue bounds it. The rest is bounded
//! by the limit that the writer gives.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What an entry costs in the cache besides its payload, so that empty payloads are bounded too.
const OVERHEAD_BYTES: usize = 64;

/// Payloads by ticket. Tickets rise with time, so the oldest goes first; what is not written yet stays.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    payloads: BTreeMap<u64, Bytes>,
    bytes: usize,
    written: u64,
}

impl Cache {
    pub(crate) fn insert(&mut self, ticket: u64, payload: Bytes) {
        self.bytes += payload.len() + OVERHEAD_BYTES;
        self.payloads.insert(ticket, payload);
    }

    pub(crate) fn get(&self, ticket: u64) -> Option<&Bytes> {
        self.payloads.get(&ticket)
    }

    pub(crate) fn remove(&mut self, ticket: u64) {
        if let Some(payload) = self.payloads.remove(&ticket) {
            self.bytes -= payload.len() + OVERHEAD_BYTES;
        }
    }

    /// Tickets up to here are on disk and may go.
    pub(crate) fn note_written(&mut self, ticket: u64, limit_bytes: usize) {
        self.written = self.written.max(ticket);
        while self.bytes > limit_bytes {
            match self.payloads.first_key_value() {
                Some((ticket, _)) if *ticket <= self.written => {
                    let ticket = *ticket;
                    self.remove(ticket);
                }
                Some(_) | None => return,
            }
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}
