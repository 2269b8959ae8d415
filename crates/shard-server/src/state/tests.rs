//! The state against a naive model, and its rules one by one.

mod eviction;
mod model;
mod rules;
mod snapshots;

use cluster::{Generation, NamespaceId};
use repeat_table::{ClientId, RequestId};
use replication::{Applied, ApplyError, StateMachine};
use trie_core::Options;

use super::*;

pub(super) const STAMP_MS: i64 = 1_790_000_000_000;
/// Up to where a snapshot reaches.
pub(super) const AT: Applied = Applied { index: 77, term: 3 };

/// A state with the log that it was made of.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) state: DictionaryState,
    pub(super) index: u64,
    pub(super) stamp_ms: i64,
}

impl Subject {
    pub(super) fn new() -> Self {
        Self {
            state: DictionaryState::new(Options::default()),
            index: 0,
            stamp_ms: STAMP_MS,
        }
    }

    pub(super) fn command(&mut self, kind: u16, bytes: &[u8]) -> Result<Response, ApplyError> {
        self.index += 1;
        let at = Applied {
            index: self.index,
            term: 1,
        };
        self.state.apply(at, self.stamp_ms, kind, bytes)
    }

    pub(super) fn writes(&mut self, writes: &[Write]) -> Vec<WriteOutcome> {
        let bytes = command::encode_writes(writes);
        match self.command(command::KIND_WRITES, &bytes).unwrap() {
            Response::Writes(outcomes) => outcomes,
            other @ (Response::Cleared(_) | Response::Configured | Response::Evicted(_)) => {
                panic!("{other:?}")
            }
        }
    }

    pub(super) fn write(&mut self, write: Write) -> WriteOutcome {
        self.writes(&[write]).pop().unwrap()
    }

    pub(super) fn count(&self, generation: u64, term: &str) -> u64 {
        let entry = self.state.get(scope(generation), term).unwrap().value;
        entry.map_or(0, |entry| entry.count)
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        replication::SnapshotView::encode(self.state.view(), &mut bytes).unwrap();
        bytes
    }
}

pub(super) fn scope(generation: u64) -> Scope {
    Scope {
        namespace: NamespaceId(1),
        generation: Generation(generation),
    }
}

pub(super) fn identity(client: u8, sequence: u64, fingerprint: u64) -> Identity {
    Identity {
        id: RequestId {
            client: ClientId([client; 16]),
            sequence,
            issued_at_ms: STAMP_MS,
            acked_below: 0,
        },
        fingerprint,
    }
}

pub(super) fn item(number: u32, term: &str, count: u64) -> Item {
    Item {
        number,
        term: term.to_owned(),
        count,
        display: None,
    }
}

pub(super) fn record(identity: Option<Identity>, items: Vec<Item>) -> Write {
    Write {
        namespace: NamespaceId(1),
        generation: Generation(1),
        identity,
        operation: Operation::Record(items),
    }
}

pub(super) fn delete(identity: Option<Identity>, term: &str) -> Write {
    Write {
        namespace: NamespaceId(1),
        generation: Generation(1),
        identity,
        operation: Operation::Delete {
            term: term.to_owned(),
        },
    }
}
