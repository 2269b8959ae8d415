//! What is written to a shard, and what becomes of it.

use cluster::{Generation, NamespaceId};
use repeat_table::RequestId;

/// One write of one caller, as it is to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The dictionary.
    pub namespace: NamespaceId,
    /// The generation that the write was routed with.
    pub generation: Generation,
    /// By what a repeat is known; `None` where the caller gave no id.
    pub identity: Option<Identity>,
    /// What is to be done.
    pub operation: Operation,
}

impl Write {
    /// Terms that it touches.
    #[must_use]
    pub fn items(&self) -> usize {
        match &self.operation {
            Operation::Record(items) => items.len(),
            Operation::Delete { term: _ } => 1,
        }
    }

    /// Bytes of text in it, with a little for everything else.
    #[must_use]
    pub fn weight(&self) -> usize {
        let text = match &self.operation {
            Operation::Record(items) => items.iter().map(Item::weight).sum(),
            Operation::Delete { term } => term.len(),
        };
        text + WRITE_WEIGHT
    }
}

/// More than the codec adds to a write (flags, namespace, identity); see [`super::command`].
const WRITE_WEIGHT: usize = 64;
/// More than the codec adds to an item.
const ITEM_WEIGHT: usize = 20;

/// A request id and the fingerprint of the whole call that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub id: RequestId,
    /// The fingerprint, made before the call was split over shards.
    pub fingerprint: u64,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds to counts. The items' numbers ascend.
    Record(Vec<Item>),
    /// Removes a term.
    Delete {
        /// The term.
        term: String,
    },
}

/// One item of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place in the whole call, below [`repeat_table::ITEMS_MAX`].
    pub number: u32,
    /// The normalised term.
    pub term: String,
    /// What is added, at least 1.
    pub count: u64,
    /// How the term was written, where that differs.
    pub display: Option<String>,
}

impl Item {
    fn weight(&self) -> usize {
        self.term.len() + self.display.as_ref().map_or(0, String::len) + ITEM_WEIGHT
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// A record, item by item in the order of the write.
    Recorded(Vec<ItemOutcome>),
    /// A delete.
    Deleted {
        /// Whether the term was there (when the delete took effect).
        existed: bool,
        /// Whether it had taken effect before, so that this one changed nothing.
        repeated: bool,
    },
    /// Refused as a whole; nothing of it was applied by this write.
    Refused(Refusal),
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Added; the count now.
    Applied {
        /// The count of the term.
        count: u64,
    },
    /// It had been added before, and this write changed nothing; the count now.
    Repeated {
        /// The count of the term.
        count: u64,
    },
    /// The sum would pass 64 bits; nothing was added.
    Overflow {
        /// The count of the term.
        count: u64,
    },
    /// No term, display form or count that a dictionary takes. The edge refuses such items before the log.
    Unusable,
}

/// Why a write was refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request id is known with another payload.
    OtherPayload,
    /// The request id is settled, or so old that nobody can tell whether it was applied.
    Expired {
        /// What was issued up to here, and is not known, is expired.
        mark_ms: Option<i64>,
    },
    /// The request id was issued too far in the future.
    IssuedAhead {
        /// How far ahead of the entry's stamp.
        ahead_ms: i64,
    },
    /// The namespace was cleared since the write was routed.
    StaleGeneration {
        /// The generation here.
        known: Generation,
    },
}

/// What [`super::DictionaryState`] answers to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To writes: one outcome each, in their order.
    Writes(Vec<WriteOutcome>),
    /// To a clear: the generation now, which may be higher than the one asked for.
    Cleared(Generation),
    /// To a change of the settings that are part of the state.
    Configured,
    /// To an eviction: how many terms went.
    Evicted(u64),
}
