//! A naive model to compare the dictionary with.

use std::collections::BTreeMap;

use trie_core::{Dictionary, Entry, RecordError, compare};

/// Terms with counts and display forms in a plain map; every answer is worked out from all of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    terms: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
}

impl Model {
    pub(crate) fn record(
        &mut self,
        term: &[u8],
        add: u64,
        display: Option<&[u8]>,
    ) -> Result<u64, RecordError> {
        if let Some((count, _)) = self.terms.get_mut(term) {
            let new = count
                .checked_add(add)
                .ok_or(RecordError::Overflow { count: *count, add })?;
            *count = new;
            return Ok(new);
        }
        let display = display
            .filter(|&display| display != term)
            .map(<[u8]>::to_vec);
        self.terms.insert(term.to_vec(), (add, display));
        Ok(add)
    }

    pub(crate) fn delete(&mut self, term: &[u8]) -> u64 {
        self.terms.remove(term).map_or(0, |(count, _)| count)
    }

    pub(crate) fn count(&self, term: &[u8]) -> u64 {
        self.terms.get(term).map_or(0, |(count, _)| *count)
    }

    pub(crate) fn get(&self, term: &[u8]) -> Option<Entry> {
        self.terms.get(term).map(|(count, display)| Entry {
            term: term.to_vec(),
            count: *count,
            display: display.clone(),
        })
    }

    pub(crate) fn from(&self, prefix: &[u8], after: Option<&[u8]>) -> Vec<Entry> {
        self.terms
            .keys()
            .filter(|term| {
                term.starts_with(prefix) && after.is_none_or(|after| term.as_slice() > after)
            })
            .filter_map(|term| self.get(term))
            .collect()
    }

    pub(crate) fn top_k(&self, prefix: &[u8], k: usize) -> Vec<Entry> {
        let mut all = self.from(prefix, None);
        all.sort_by(|a, b| compare((a.count, &a.term), (b.count, &b.term)));
        all.truncate(k);
        all
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), RecordError> {
        let mut sum = self.clone();
        for (term, (count, display)) in &other.terms {
            sum.record(term, *count, display.as_deref())?;
        }
        *self = sum;
        Ok(())
    }

    /// The `i`-th term, counted round and round.
    pub(crate) fn nth(&self, i: usize) -> Option<Vec<u8>> {
        let len = self.terms.len().max(1);
        self.terms.keys().nth(i % len).cloned()
    }

    /// Fails the test unless `dict` holds exactly this and is sound inside.
    pub(crate) fn assert_same(&self, dict: &Dictionary) {
        if let Err(broken) = dict.check_invariants() {
            panic!("{broken}");
        }
        assert!(dict.iter_from(b"", None).eq(self.from(b"", None)));
        assert_eq!(dict.len(), self.terms.len() as u64);
        let total: u128 = self
            .terms
            .values()
            .map(|(count, _)| u128::from(*count))
            .sum();
        assert_eq!(dict.total(), total);
        for term in self.terms.keys() {
            assert_eq!(dict.get(term), self.get(term));
        }
    }
}
