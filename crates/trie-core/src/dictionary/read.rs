//! Looking up and completing.

use super::Dictionary;
use crate::bucket::{Bucket, common_prefix};
use crate::entry::Entry;
use crate::node::{Child, Node};
use crate::search;

impl Dictionary {
    /// The count of `term`; 0 if it is absent.
    #[must_use]
    pub fn count(&self, term: &[u8]) -> u64 {
        self.locate(term).count
    }

    /// The term with its count and display form, if it is there.
    #[must_use]
    pub fn get(&self, term: &[u8]) -> Option<Entry> {
        let found = self.locate(term);
        (found.count > 0).then(|| Entry {
            term: term.to_vec(),
            count: found.count,
            display: found.display.map(|display| display.of(term)),
        })
    }

    /// The `k` terms that start with `prefix` and rank first by [`compare`](crate::compare), in that order;
    /// fewer if there are fewer.
    ///
    /// Up to `cached_k` the answer is read from one node or one bucket. A larger `k` is searched for below the
    /// node, best first: the work grows with `k`, not with the number of terms.
    #[must_use]
    pub fn top_k(&self, prefix: &[u8], k: usize) -> Vec<Entry> {
        if k == 0 {
            return Vec::new();
        }
        let mut child = &self.root;
        let mut at = 0;
        loop {
            let rest = &prefix[at..];
            match child {
                Child::Bucket(bucket) => return top_of_bucket(bucket, prefix, at, k),
                Child::Node(node) => {
                    let same = common_prefix(rest, node.label());
                    if same == rest.len() {
                        let path = [&prefix[..at], node.label()].concat();
                        return self.top_of_node(node, path, k);
                    }
                    if same < node.label().len() {
                        return Vec::new();
                    }
                    at += same;
                    let Some(i) = node.slot_of(prefix[at]) else {
                        return Vec::new();
                    };
                    child = &node.slots()[i].child;
                }
            }
        }
    }

    fn top_of_node(&self, node: &Node, path: Vec<u8>, k: usize) -> Vec<Entry> {
        let cached_k = self.options.cached_k;
        // A list that is not full holds all there is.
        if k > cached_k && node.top.len() == cached_k {
            return search::best_first(node, path, k);
        }
        node.top
            .entries()
            .take(k)
            .map(|entry| {
                let term = [&path, entry.suffix].concat();
                let display = entry.display.map(|display| display.of(&term));
                Entry {
                    term,
                    count: entry.count,
                    display,
                }
            })
            .collect()
    }
}

/// Answers from the one bucket that holds all terms with `prefix`; the path to it is `prefix[..at]`.
fn top_of_bucket(bucket: &Bucket, prefix: &[u8], at: usize, k: usize) -> Vec<Entry> {
    let rest = &prefix[at..];
    let spot = bucket.find(rest);
    if !bucket.starts_with_at(&spot, rest) {
        return Vec::new();
    }
    // The matches stand side by side. First which of them, by count and place alone, then their texts.
    let (from_spot, shared) = bucket.entries_from(&spot);
    let matches = || {
        from_spot
            .clone()
            .enumerate()
            .take_while(|(i, entry)| *i == 0 || entry.shared >= rest.len())
    };
    let mut chosen: Vec<(u64, usize)> = matches().map(|(i, entry)| (entry.count, i)).collect();
    let rank = |a: &(u64, usize), b: &(u64, usize)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
    if chosen.len() > k {
        chosen.select_nth_unstable_by(k - 1, rank);
        chosen.truncate(k);
    }
    chosen.sort_unstable_by_key(|&(_, i)| i);
    let mut term = prefix[..at + shared].to_vec();
    let mut wanted = chosen.iter().peekable();
    let mut answer: Vec<Entry> = Vec::with_capacity(chosen.len());
    for (i, entry) in matches() {
        term.truncate(at + entry.shared);
        term.extend_from_slice(entry.suffix);
        if wanted.next_if(|&&(_, wanted)| wanted == i).is_some() {
            answer.push(Entry {
                term: term.as_slice().to_vec(),
                count: entry.count,
                display: entry.display.map(|display| display.of(&term)),
            });
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    answer.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    answer
}
