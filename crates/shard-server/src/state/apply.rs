//! Applies commands.

use std::sync::atomic::Ordering;

use cluster::{Generation, NamespaceId, limits};
use parking_lot::RwLockWriteGuard;
use repeat_table::{AppliedItems, RequestId, Verdict};
use replication::{Applied, ApplyError, StateMachine as _};
use trie_core::{Dictionary, RecordError};

use super::command::{self, Eviction, ItemRef, WriteRef, Writes};
use super::{
    DictionaryState, ITEMS_A_TURN, Identity, Inner, ItemOutcome, Malformed, Refusal, Response,
    Space, WriteOutcome,
};

/// What the repeat table keeps beside a delete that found its term. Any other write keeps 0.
const OUTCOME_EXISTED: u8 = 1;

pub(super) fn apply(
    state: &DictionaryState,
    at: Applied,
    stamp_ms: i64,
    kind: u16,
    bytes: &[u8],
) -> Result<Response, ApplyError> {
    let malformed = |error: Malformed| ApplyError::Malformed {
        kind,
        problem: error.to_string(),
    };
    match kind {
        command::KIND_WRITES => {
            let writes = Writes::decode(bytes).map_err(malformed)?;
            let mut turn = Turn::begin(state, at, stamp_ms);
            let outcomes: Result<_, _> = writes
                .iter()
                .map(|write| turn.write(write, writes.items(write)))
                .collect();
            turn.end();
            outcomes.map(Response::Writes)
        }
        command::KIND_CLEAR => {
            let (namespace, generation) = command::clear(bytes).map_err(malformed)?;
            let mut turn = Turn::begin(state, at, stamp_ms);
            let known = turn.raise(namespace, generation);
            turn.end();
            Ok(Response::Cleared(known))
        }
        command::KIND_CONFIGURE => {
            let cap_bytes = command::configure(bytes).map_err(malformed)?;
            let mut turn = Turn::begin(state, at, stamp_ms);
            turn.inner.repeats.set_cap_bytes(cap_bytes);
            turn.end();
            *state.audit.lock() = Some((at.index, state.view()));
            Ok(Response::Configured)
        }
        command::KIND_EVICT => {
            let eviction = Eviction::decode(bytes).map_err(malformed)?;
            let mut turn = Turn::begin(state, at, stamp_ms);
            let evicted = turn.evict(&eviction);
            turn.end();
            Ok(Response::Evicted(evicted))
        }
        kind => Err(ApplyError::UnknownKind { kind }),
    }
}

/// The write lock while one command is applied, given to waiting readers now and then.
struct Turn<'a> {
    state: &'a DictionaryState,
    inner: RwLockWriteGuard<'a, Inner>,
    items_since: usize,
    retired: Vec<Dictionary>,
    applied: u64,
    repeated: u64,
    refused: u64,
}

impl<'a> Turn<'a> {
    fn begin(state: &'a DictionaryState, at: Applied, stamp_ms: i64) -> Self {
        let mut inner = state.inner.write();
        inner.index = at.index;
        inner.stamp_ms = inner.stamp_ms.max(stamp_ms);
        Self {
            state,
            inner,
            items_since: 0,
            retired: Vec::new(),
            applied: 0,
            repeated: 0,
            refused: 0,
        }
    }

    fn end(self) {
        drop(self.inner);
        self.state.retire(self.retired);
        let counters = &self.state.counters;
        counters.items.fetch_add(self.applied, Ordering::Relaxed);
        counters.repeats.fetch_add(self.repeated, Ordering::Relaxed);
        counters.refused.fetch_add(self.refused, Ordering::Relaxed);
    }

    fn write(
        &mut self,
        write: &WriteRef,
        items: &[ItemRef<'_>],
    ) -> Result<WriteOutcome, ApplyError> {
        let known = match self.admit(write.identity.as_ref()) {
            Ok(known) => known,
            Err(refusal) => return Ok(self.refuse(refusal)),
        };
        // A repeat of which nothing is left to do answers, whatever became of the generation it was routed with.
        if !known.covers(items) {
            let generation = self.raise(write.namespace, write.generation);
            if generation > write.generation {
                return Ok(self.refuse(Refusal::StaleGeneration { known: generation }));
            }
        }
        if write.is_delete {
            return self.delete(write, items, &known);
        }
        let outcomes: Vec<ItemOutcome> = items
            .iter()
            .map(|item| self.item(write.namespace, item, &known))
            .collect();
        let is_applied = |outcome: &ItemOutcome| matches!(outcome, ItemOutcome::Applied { .. });
        let applied = items
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| is_applied(outcome))
            .map(|(item, _)| item.number);
        self.remember(write.identity.as_ref(), &known, applied, 0)?;
        Ok(WriteOutcome::Recorded(outcomes))
    }

    /// What is known of a write, or why it is refused.
    fn admit(&self, identity: Option<&Identity>) -> Result<Known, Refusal> {
        let Some(identity) = identity else {
            return Ok(Known::Nothing);
        };
        let ahead_ms = identity.id.issued_at_ms.saturating_sub(self.inner.stamp_ms);
        if i128::from(ahead_ms) > limits::ISSUED_AHEAD_MAX.as_millis().cast_signed() {
            return Err(Refusal::IssuedAhead { ahead_ms });
        }
        match self.inner.repeats.check(&identity.id, identity.fingerprint) {
            Verdict::New => Ok(Known::Nothing),
            Verdict::Repeat { items, outcome } => Ok(Known::Before { items, outcome }),
            Verdict::OtherPayload => Err(Refusal::OtherPayload),
            Verdict::Expired { mark_ms } => Err(Refusal::Expired { mark_ms }),
        }
    }

    /// Brings a namespace to a generation, emptying it if that is newer than what is known. Returns the generation now.
    fn raise(&mut self, namespace: NamespaceId, generation: Generation) -> Generation {
        let options = self.state.options;
        let space = self.inner.spaces.entry(namespace).or_insert_with(|| Space {
            generation,
            dictionary: Dictionary::new(options),
        });
        if generation > space.generation {
            space.generation = generation;
            let old = std::mem::replace(&mut space.dictionary, Dictionary::new(options));
            self.retired.push(old);
        }
        space.generation
    }

    fn item(&mut self, namespace: NamespaceId, item: &ItemRef<'_>, known: &Known) -> ItemOutcome {
        self.give_way();
        let Some(space) = self.inner.spaces.get_mut(&namespace) else {
            // Only a repeat of which nothing is left to do comes here for a namespace that is gone.
            self.repeated += 1;
            return ItemOutcome::Repeated { count: 0 };
        };
        let term = item.term.as_bytes();
        if known.contains(item.number) {
            self.repeated += 1;
            return ItemOutcome::Repeated {
                count: space.dictionary.count(term),
            };
        }
        let display = item.display.map(str::as_bytes);
        match space.dictionary.record(term, item.count, display) {
            Ok(count) => {
                self.applied += 1;
                ItemOutcome::Applied { count }
            }
            Err(RecordError::Overflow { count, add: _ }) => {
                self.refused += 1;
                ItemOutcome::Overflow { count }
            }
            Err(
                RecordError::ZeroCount
                | RecordError::TermLength { .. }
                | RecordError::DisplayLength { .. }
                | RecordError::OutOfOrder { .. },
            ) => {
                self.refused += 1;
                ItemOutcome::Unusable
            }
        }
    }

    fn delete(
        &mut self,
        write: &WriteRef,
        items: &[ItemRef<'_>],
        known: &Known,
    ) -> Result<WriteOutcome, ApplyError> {
        self.give_way();
        if let Known::Before { items: _, outcome } = known {
            self.repeated += 1;
            return Ok(WriteOutcome::Deleted {
                existed: *outcome == OUTCOME_EXISTED,
                repeated: true,
            });
        }
        let term = items.first().map_or("", |item| item.term);
        let space = self.inner.spaces.get_mut(&write.namespace);
        let existed = space.is_some_and(|space| space.dictionary.delete(term.as_bytes()) > 0);
        self.applied += 1;
        let outcome = if existed { OUTCOME_EXISTED } else { 0 };
        self.remember(write.identity.as_ref(), known, [0], outcome)?;
        Ok(WriteOutcome::Deleted {
            existed,
            repeated: false,
        })
    }

    /// Gives up terms that are still rare. Returns how many.
    fn evict(&mut self, eviction: &Eviction<'_>) -> u64 {
        let mut evicted = 0;
        for term in &eviction.terms {
            self.give_way();
            let space = self.inner.spaces.get_mut(&eviction.namespace);
            let Some(space) = space.filter(|at| at.generation == eviction.generation) else {
                break;
            };
            let count = space.dictionary.count(term.as_bytes());
            if (1..=eviction.count_max).contains(&count) {
                space.dictionary.delete(term.as_bytes());
                evicted += 1;
            }
        }
        evicted
    }

    fn remember(
        &mut self,
        identity: Option<&Identity>,
        known: &Known,
        applied: impl IntoIterator<Item = u32>,
        outcome: u8,
    ) -> Result<(), ApplyError> {
        let Some(Identity { id, fingerprint }) = identity else {
            return Ok(());
        };
        let mut applied = applied.into_iter().peekable();
        // A repeat that changed nothing leaves no trace.
        if applied.peek().is_none() && matches!(known, Known::Before { .. }) {
            return Ok(());
        }
        self.inner
            .repeats
            .remember(id, *fingerprint, applied, outcome)
            .map_err(|error| not_remembered(id, &error))
    }

    fn refuse(&mut self, refusal: Refusal) -> WriteOutcome {
        self.refused += 1;
        WriteOutcome::Refused(refusal)
    }

    /// Lets waiting readers in after every so many items.
    fn give_way(&mut self) {
        self.items_since += 1;
        if self.items_since > ITEMS_A_TURN {
            self.items_since = 1;
            RwLockWriteGuard::bump(&mut self.inner);
        }
    }
}

fn not_remembered(id: &RequestId, error: &repeat_table::RememberError) -> ApplyError {
    ApplyError::Invariant {
        problem: format!(
            "request {} of client {} was admitted and then not remembered: {error}",
            id.sequence, id.client
        ),
    }
}

/// What the repeat table knows of a write.
enum Known {
    /// It has no identity, or was never seen.
    Nothing,
    /// It was seen, and these items were applied.
    Before { items: AppliedItems, outcome: u8 },
}

impl Known {
    fn contains(&self, number: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Before { items, outcome: _ } => items.contains(number),
        }
    }

    fn covers(&self, items: &[ItemRef<'_>]) -> bool {
        items.iter().all(|item| self.contains(item.number))
    }
}
