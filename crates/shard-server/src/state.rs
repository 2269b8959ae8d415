//! The replicated state of a shard: its dictionaries and its repeat table.
//!
//! [`DictionaryState`] is the state machine under a shard's Raft group. It knows no clock, no randomness, no files and no
//! async: the same commands in the same order give the same state on every replica, and [`StateView::hash`] tells whether they did.
//!
//! What always holds:
//! - *Exactly once*: a write with an identity takes effect item by item at most once, whatever repeats arrive, in whatever
//!   batches ([`repeat_table`] has the rules).
//! - *Generations only rise*: a command with a newer generation than known empties the namespace first; a write with an older one is
//!   refused, never applied and never lost.
//! - A command is decoded as a whole before any of it is applied.
//!
//! Locks: one `RwLock` around everything. `apply` lets waiting readers in after every [`ITEMS_A_TURN`] items; a reader may
//! therefore see half of a batch, which is no promise broken, for batches are not atomic. Its answer then carries the index of the
//! entry that is half applied, so that nobody who brings that index along sees less. A view for a snapshot is a clone of shared
//! structure, taken between two commands.
//!
//! What a generation or a restored snapshot replaced is freed by [`DictionaryState::reclaim`] in small steps, outside the lock.
//!
//! On failure: `apply` errs only for commands that no program of this version writes; the replica stops then.

mod apply;
pub mod command;
mod rarest;
mod read;
mod snapshot;
#[cfg(test)]
mod tests;
mod varint;
mod write;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::{Generation, NamespaceId};
use parking_lot::{Mutex, RwLock};
use repeat_table::RepeatTable;
use replication::{Applied, ApplyError, RestoreError, StateMachine};
use trie_core::{Dictionary, Entry, Options};

pub use rarest::{Rare, Rarest};
pub use read::{Page, Reading, Scope, StaleGeneration, Stats};
pub use snapshot::{Hashing, StateView};
pub use varint::Malformed;
pub use write::{Identity, Item, ItemOutcome, Operation, Refusal, Response, Write, WriteOutcome};

/// Items that are applied before waiting readers get their turn.
pub const ITEMS_A_TURN: usize = 64;

/// What a term weighs beside its text in the logical bytes of a state: its count.
const COUNT_BYTES: u64 = 8;

/// Logical bytes of a term.
fn term_weight(entry: &Entry) -> u64 {
    let display = entry.display.as_ref().map_or(0, Vec::len);
    (entry.term.len() + display) as u64 + COUNT_BYTES
}

/// The state machine of one shard.
#[derive(Debug)]
pub struct DictionaryState {
    options: Options,
    inner: RwLock<Inner>,
    /// What nobody reads any more. Filled under the write lock, emptied outside of it.
    retired: Mutex<Vec<Dictionary>>,
    /// The state as of the newest entry at which replicas are compared, until somebody takes it.
    audit: Mutex<Option<(u64, StateView)>>,
    counters: Counters,
}

/// Everything that is replicated, and the index it was reached at.
#[derive(Debug)]
struct Inner {
    spaces: BTreeMap<NamespaceId, Space>,
    repeats: RepeatTable,
    /// The newest stamp.
    stamp_ms: i64,
    /// The entry that is being applied, or was applied last.
    index: u64,
}

/// One namespace.
#[derive(Debug, Clone)]
struct Space {
    generation: Generation,
    dictionary: Dictionary,
}

/// What happened since the process began. Not replicated.
#[derive(Debug, Default)]
struct Counters {
    items: AtomicU64,
    repeats: AtomicU64,
    refused: AtomicU64,
}

/// Counts since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyCounts {
    /// Items and deletes that took effect.
    pub items: u64,
    /// Items and deletes that had taken effect before.
    pub repeats: u64,
    /// Writes and items that were refused.
    pub refused: u64,
}

impl DictionaryState {
    /// An empty state. The options shape memory and speed, never an answer, and may differ between replicas.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            inner: RwLock::new(Inner {
                spaces: BTreeMap::new(),
                repeats: RepeatTable::new(repeat_table::DEFAULT_CAP_BYTES),
                stamp_ms: 0,
                index: 0,
            }),
            retired: Mutex::default(),
            audit: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Frees about `terms` terms of what was replaced. True when nothing is left to free.
    pub fn reclaim(&self, terms: usize) -> bool {
        let Some(mut dictionary) = self.retired.lock().pop() else {
            return true;
        };
        if dictionary.drain_some(terms) {
            return self.retired.lock().is_empty();
        }
        self.retired.lock().push(dictionary);
        false
    }

    /// The state as of the newest entry at which replicas are compared, and the entry's index, to be hashed. Each is taken once; one
    /// that nobody has taken is replaced by the next.
    pub fn take_audit(&self) -> Option<(u64, Hashing)> {
        let (index, view) = self.audit.lock().take()?;
        Some((index, view.hashing()))
    }

    /// What was applied since the process began.
    #[must_use]
    pub fn counts(&self) -> ApplyCounts {
        ApplyCounts {
            items: self.counters.items.load(Ordering::Relaxed),
            repeats: self.counters.repeats.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
        }
    }

    /// The cap of the repeat table, in bytes. Part of the state: see [`command::encode_configure`].
    #[must_use]
    pub fn repeat_table_cap_bytes(&self) -> u64 {
        self.inner.read().repeats.cap_bytes()
    }

    /// Whether all items of a record are remembered as applied, by its id.
    #[must_use]
    pub fn is_applied(&self, write: &Write) -> bool {
        let (Some(identity), Operation::Record(items)) = (&write.identity, &write.operation) else {
            return false;
        };
        let inner = self.inner.read();
        let mut items = items.iter();
        items.all(|item| inner.repeats.is_applied(&identity.id, item.number))
    }

    /// The generation of each namespace that is known here.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<NamespaceId, Generation> {
        let inner = self.inner.read();
        let of = |(id, space): (&NamespaceId, &Space)| (*id, space.generation);
        inner.spaces.iter().map(of).collect()
    }

    /// Whether a namespace is known here in this generation or a later one.
    #[must_use]
    pub fn knows(&self, scope: Scope) -> bool {
        let inner = self.inner.read();
        let space = inner.spaces.get(&scope.namespace);
        space.is_some_and(|space| space.generation >= scope.generation)
    }

    fn retire(&self, dictionaries: impl IntoIterator<Item = Dictionary>) {
        let worth = |dictionary: &Dictionary| !dictionary.is_empty();
        self.retired
            .lock()
            .extend(dictionaries.into_iter().filter(worth));
    }
}

impl StateMachine for DictionaryState {
    type Response = Response;
    type View = StateView;

    fn apply(
        &self,
        at: Applied,
        stamp_ms: i64,
        kind: u16,
        command: &[u8],
    ) -> Result<Response, ApplyError> {
        apply::apply(self, at, stamp_ms, kind, command)
    }

    fn view(&self) -> StateView {
        let inner = self.inner.read();
        StateView {
            stamp_ms: inner.stamp_ms,
            spaces: inner.spaces.clone(),
            repeats: inner.repeats.view(),
        }
    }

    fn restore(&self, at: Applied, input: &mut dyn Read) -> Result<(), RestoreError> {
        let restored = snapshot::decode(input, at.index, self.options)?;
        let old = std::mem::replace(&mut *self.inner.write(), restored);
        self.retire(old.spaces.into_values().map(|space| space.dictionary));
        Ok(())
    }
}
