//! An ordered map in shared chunks: a clone costs an atomic increment for each chunk, and a write to a clone copies one chunk.
//!
//! The chunks' borders depend on history and never show: all that can be seen is the ordered contents.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Most elements in a chunk.
const CHUNK_MAX: usize = 128;

#[derive(Debug, Clone)]
pub(crate) struct ChunkMap<K, V> {
    /// By a lower bound of the chunk's keys, which is above all keys of the chunk before. No chunk is empty; each is sorted.
    chunks: BTreeMap<K, Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> Default for ChunkMap<K, V> {
    fn default() -> Self {
        Self {
            chunks: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Copy, V: Clone> ChunkMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (_, chunk) = self.chunks.range(..=key).next_back()?;
        let at = find(chunk, key).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// The value to be changed in place; its chunk is no longer shared after.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (_, chunk) = self.chunks.range_mut(..=key).next_back()?;
        let at = find(chunk, key).ok()?;
        unshare(chunk).get_mut(at).map(|(_, value)| value)
    }

    /// Puts a value in, and hands out the one that it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(mut bound) = self.bound_of(&key) else {
            self.chunks.insert(key, Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        if key < bound {
            // Below everything: the first chunk takes it, under a lower bound.
            if let Some(chunk) = self.chunks.remove(&bound) {
                self.chunks.insert(key, chunk);
            }
            bound = key;
        }
        let shared = self.chunks.get_mut(&bound)?;
        let chunk = unshare(shared);
        let at = match find(chunk, &key) {
            Ok(at) => {
                return chunk
                    .get_mut(at)
                    .map(|(_, old)| std::mem::replace(old, value));
            }
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < CHUNK_MAX {
            chunk.insert(at, (key, value));
            return None;
        }
        // What grows at its end, as times and sequences do, is left full.
        let cut = if at == CHUNK_MAX { at } else { CHUNK_MAX / 2 };
        let mut upper = chunk.split_off(cut);
        if at < cut {
            chunk.insert(at, (key, value));
        } else {
            upper.insert(at - cut, (key, value));
        }
        if let Some(&(first, _)) = upper.first() {
            self.chunks.insert(first, Arc::new(upper));
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (&bound, shared) = self.chunks.range_mut(..=key).next_back()?;
        let at = find(shared, key).ok()?;
        let chunk = unshare(shared);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(&bound);
        } else if chunk.len() < CHUNK_MAX / 4 {
            let before = self
                .chunks
                .range(..bound)
                .next_back()
                .map(|(&before, _)| before);
            self.join_with_next(bound);
            if let Some(before) = before {
                self.join_with_next(before);
            }
        }
        Some(value)
    }

    /// Keeps small chunks from piling up.
    fn join_with_next(&mut self, bound: K) {
        let above = (Bound::Excluded(bound), Bound::Unbounded);
        let Some((&next_bound, next)) = self.chunks.range(above).next() else {
            return;
        };
        let length = self
            .chunks
            .get(&bound)
            .map_or(CHUNK_MAX, |chunk| chunk.len());
        if length + next.len() > CHUNK_MAX * 3 / 4 {
            return;
        }
        let next = self.chunks.remove(&next_bound).map(Arc::unwrap_or_clone);
        if let (Some(chunk), Some(next)) = (self.chunks.get_mut(&bound), next) {
            unshare(chunk).extend(next);
        }
    }

    pub(crate) fn first(&self) -> Option<&(K, V)> {
        self.chunks.values().next()?.first()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.values().flat_map(|chunk| chunk.iter())
    }

    /// The elements of a range, ascending.
    pub(crate) fn range(&self, range: Range<K>) -> impl Iterator<Item = &(K, V)> {
        let from = self
            .chunks
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&bound, _)| bound);
        let start = range.start;
        let end = range.end;
        self.chunks
            .range(from..)
            .flat_map(move |(_, chunk)| {
                let at = chunk.partition_point(|(key, _)| *key < start);
                chunk.iter().skip(at)
            })
            .take_while(move |(key, _)| *key < end)
    }

    /// The bound of the chunk that a key belongs to.
    fn bound_of(&self, key: &K) -> Option<K> {
        let at_or_below = self.chunks.range(..=key).next_back();
        at_or_below
            .or_else(|| self.chunks.first_key_value())
            .map(|(&bound, _)| bound)
    }
}

/// The chunk to be changed, as a copy if it is shared. Keeps to the size that a full chunk needs, where `Arc::make_mut` and the
/// push that follows would take twice that.
fn unshare<T: Clone>(shared: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::get_mut(shared).is_none() {
        let mut copy = Vec::with_capacity(CHUNK_MAX);
        copy.extend_from_slice(shared);
        *shared = Arc::new(copy);
    }
    // Not shared any more: nothing is copied here.
    Arc::make_mut(shared)
}

fn find<K: Ord, V>(chunk: &[(K, V)], key: &K) -> Result<usize, usize> {
    chunk.binary_search_by(|(other, _)| other.cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_shape(map: &ChunkMap<u16, u32>) {
        let mut below: Option<u16> = None;
        for (&bound, chunk) in &map.chunks {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_MAX);
            assert!(chunk.iter().all(|&(key, _)| key >= bound));
            assert!(below.is_none_or(|below| below < bound));
            below = chunk.last().map(|&(key, _)| key);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree_and_clones_stay_as_they_were(
            steps in prop::collection::vec((0_u8..10, 0_u16..1500, any::<u32>()), 1..3000),
            range in (0_u16..1500, 0_u16..1500),
        ) {
            let mut map = ChunkMap::default();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (step, (what, key, value)) in steps.into_iter().enumerate() {
                match what {
                    0..=4 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    5..=7 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    8 => prop_assert_eq!(map.get_mut(&key).map(|v| { *v ^= 1; *v }), model.get_mut(&key).map(|v| { *v ^= 1; *v })),
                    _ => prop_assert_eq!(map.get(&key), model.get(&key)),
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.first().map(|&(k, v)| (k, v)), model.first_key_value().map(|(&k, &v)| (k, v)));
                if step % 500 == 250 {
                    kept.push((map.clone(), model.clone()));
                }
            }
            let found: Vec<_> = map.range(range.0..range.1).copied().collect();
            let expected: Vec<_> = model.iter().filter(|&(&k, _)| k >= range.0 && k < range.1).map(|(&k, &v)| (k, v)).collect();
            prop_assert_eq!(found, expected);
            kept.push((map, model));
            for (map, model) in kept {
                check_shape(&map);
                prop_assert!(map.iter().copied().eq(model));
            }
        }
    }

    #[test]
    fn ascending_keys_fill_their_chunks() {
        let mut map = ChunkMap::default();
        for key in 0..10_000_u32 {
            map.insert(key, ());
        }
        assert_eq!(map.chunks.len(), 10_000_usize.div_ceil(CHUNK_MAX));
        for key in (0..10_000).filter(|key| key % 100 != 0) {
            map.remove(&key);
        }
        assert_eq!(map.len(), 100);
        assert!(map.chunks.len() <= 8, "{} chunks", map.chunks.len());
    }
}
