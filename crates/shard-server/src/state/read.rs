//! Reads. Each takes the read lock for as long as the look-up lasts, and no longer.

use cluster::{Generation, KeyRange, NamespaceId};
use trie_core::{Dictionary, Entry, MemoryUsage};

use super::{COUNT_BYTES, DictionaryState, Inner};

/// An answer, and the entry up to which it may know of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading<T> {
    /// The answer.
    pub value: T,
    /// A replica that has applied this index sees everything that the answer saw.
    pub index: u64,
}

/// The caller's generation is older than what is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {known} is known here")]
pub struct StaleGeneration {
    /// What is known.
    pub known: Generation,
}

/// A dictionary as a caller names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The generation that the caller knows. A newer one than is known here reads as empty: the clear is on its way.
    pub generation: Generation,
}

/// A part of an ordered listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The terms, ascending.
    pub entries: Vec<Entry>,
    /// Bytes of the terms and of their display forms.
    pub bytes: usize,
    /// Whether more follow.
    pub more: bool,
}

/// Sizes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Terms of all namespaces.
    pub terms: u64,
    /// The sum of all counts, at most what 64 bits hold.
    pub total_count: u64,
    /// What the dictionaries hold, whatever it takes to hold it: the lengths of terms and display forms, and eight bytes a term for
    /// its count. The same on all replicas that applied the same entries.
    pub logical_bytes: u64,
    /// Bytes that the dictionaries allocated.
    pub memory_bytes: u64,
    /// What they were allocated for.
    pub memory: MemoryUsage,
    /// Bytes of the repeat table, as its cap counts them.
    pub repeat_table_bytes: u64,
    /// Requests in the repeat table.
    pub repeat_table_entries: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// The newest stamp that was applied, in milliseconds since 1970.
    pub stamp_ms: i64,
}

impl DictionaryState {
    /// The first `k` terms that start with a prefix, in the one order. With `within`, only terms of that range count; it
    /// costs a scan, and is for shards that own several ranges of one namespace.
    ///
    /// # Errors
    /// [`StaleGeneration`].
    pub fn top_k(
        &self,
        scope: Scope,
        prefix: &str,
        k: usize,
        within: Option<&KeyRange>,
    ) -> Result<Reading<Vec<Entry>>, StaleGeneration> {
        let inner = self.inner.read();
        let dictionary = inner.dictionary(scope)?;
        let value = match (dictionary, within) {
            (None, _) => Vec::new(),
            (Some(dictionary), None) => dictionary.top_k(prefix.as_bytes(), k),
            (Some(dictionary), Some(range)) => top_k_within(dictionary, prefix, k, range),
        };
        Ok(inner.reading(value))
    }

    /// One term.
    ///
    /// # Errors
    /// [`StaleGeneration`].
    pub fn get(&self, scope: Scope, term: &str) -> Result<Reading<Option<Entry>>, StaleGeneration> {
        let inner = self.inner.read();
        let dictionary = inner.dictionary(scope)?;
        let value = dictionary.and_then(|dictionary| dictionary.get(term.as_bytes()));
        Ok(inner.reading(value))
    }

    /// Terms that start with a prefix and come behind `after`, ascending: at most `limit`, and no more once their texts reach
    /// `limit_bytes`. At least one, if there is one. Listed from a frozen view, so writers do not wait for it.
    ///
    /// # Errors
    /// [`StaleGeneration`].
    pub fn list(
        &self,
        scope: Scope,
        prefix: &str,
        after: &str,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Reading<Page>, StaleGeneration> {
        let (frozen, index) = {
            let inner = self.inner.read();
            (inner.dictionary(scope)?.cloned(), inner.index)
        };
        let mut page = Page {
            entries: Vec::new(),
            bytes: 0,
            more: false,
        };
        let Some(frozen) = frozen else {
            return Ok(Reading { value: page, index });
        };
        let after = Some(after.as_bytes()).filter(|after| !after.is_empty());
        for entry in frozen.iter_from(prefix.as_bytes(), after) {
            let is_full = page.bytes >= limit_bytes && !page.entries.is_empty();
            if page.entries.len() >= limit || is_full {
                page.more = true;
                break;
            }
            page.bytes += entry.term.len() + entry.display.as_ref().map_or(0, Vec::len);
            page.entries.push(entry);
        }
        Ok(Reading { value: page, index })
    }

    /// Sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.inner.read();
        let mut stats = Stats {
            repeat_table_bytes: inner.repeats.bytes(),
            repeat_table_entries: inner.repeats.len() as u64,
            namespaces: inner.spaces.len() as u64,
            stamp_ms: inner.stamp_ms,
            ..Stats::default()
        };
        for space in inner.spaces.values() {
            let dictionary = &space.dictionary;
            stats.terms += dictionary.len();
            let total = u64::try_from(dictionary.total()).unwrap_or(u64::MAX);
            stats.total_count = stats.total_count.saturating_add(total);
            let memory = dictionary.memory();
            stats.memory_bytes += memory.total();
            stats.logical_bytes +=
                memory.text_bytes + memory.display_bytes + COUNT_BYTES * dictionary.len();
            stats.memory += memory;
        }
        stats
    }
}

impl Inner {
    /// The dictionary of a scope; `None` where there is none, or the scope is newer than what is known.
    fn dictionary(&self, scope: Scope) -> Result<Option<&Dictionary>, StaleGeneration> {
        let Some(space) = self.spaces.get(&scope.namespace) else {
            return Ok(None);
        };
        if space.generation > scope.generation {
            return Err(StaleGeneration {
                known: space.generation,
            });
        }
        Ok((space.generation == scope.generation).then_some(&space.dictionary))
    }

    fn reading<T>(&self, value: T) -> Reading<T> {
        Reading {
            value,
            index: self.index,
        }
    }
}

fn top_k_within(dictionary: &Dictionary, prefix: &str, k: usize, range: &KeyRange) -> Vec<Entry> {
    let start = range.start().as_bytes();
    let end = range.end().map(str::as_bytes);
    let mut best: Vec<Entry> = Vec::new();
    for entry in dictionary.iter_from(prefix.as_bytes(), None) {
        if end.is_some_and(|end| entry.term.as_slice() >= end) {
            break;
        }
        if entry.term.as_slice() < start {
            continue;
        }
        best.push(entry);
        // Sorting at twice k keeps memory bounded at a cost of O(log k) a term.
        if best.len() >= 2 * k.max(1) {
            best.sort_unstable_by(Entry::cmp_rank);
            best.truncate(k);
        }
    }
    best.sort_unstable_by(Entry::cmp_rank);
    best.truncate(k);
    best
}
