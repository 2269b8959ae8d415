//! Checks everything that the modules say always holds. For tests: the work is quadratic.

use super::Dictionary;
use crate::bucket::Bucket;
use crate::cursor::Cursor;
use crate::display::Display;
use crate::memory::MemoryUsage;
use crate::node::{Child, Node};

/// A child that is still to be checked.
struct Piece<'a> {
    child: &'a Child,
    path: Vec<u8>,
    /// First bytes that belong to it: from, and up to but without.
    first: (u16, u16),
}

impl Dictionary {
    /// Checks all invariants, and the sums against a recount.
    ///
    /// # Errors
    /// Says what does not hold. That is a defect of this crate.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut sums = MemoryUsage::default();
        let (mut len, mut total) = (0, 0);
        let mut cursor = self.cursor();
        let mut before = Vec::new();
        while let Some((term, count, display)) = cursor.next_coded() {
            ensure(term > before.as_slice() && count > 0, || {
                format!("order or count at {term:?}")
            })?;
            ensure(
                display.is_none_or(|form| form.is_canonical_for(term)),
                || format!("display of {term:?}"),
            )?;
            len += 1;
            total += u128::from(count);
            sums.text_bytes += term.len() as u64;
            sums.display_bytes += display.map_or(0, |form| form.len_for(term.len())) as u64;
            before = term.to_vec();
        }
        ensure((len, total) == (self.len, self.total), || {
            format!("sums: {len} terms, {total} in all")
        })?;
        let mut ahead = vec![Piece {
            child: &self.root,
            path: Vec::new(),
            first: (0, 256),
        }];
        while let Some(piece) = ahead.pop() {
            match piece.child {
                Child::Bucket(bucket) => {
                    sums.bucket_bytes += bucket.heap_bytes();
                    self.check_bucket(bucket, &piece)?;
                }
                Child::Node(node) => {
                    node.weigh(&mut sums);
                    self.check_node(node, &piece, &mut ahead)?;
                }
            }
        }
        ensure(sums == self.memory, || {
            format!("memory: counted {sums:?}, kept {:?}", self.memory)
        })
    }

    fn check_bucket(&self, bucket: &Bucket, piece: &Piece<'_>) -> Result<(), String> {
        let path = &piece.path;
        ensure(!bucket.is_empty() || path.is_empty(), || {
            format!("empty bucket at {path:?}")
        })?;
        let fits = bucket.used_bytes() <= self.options.bucket_bytes || !bucket.is_divisible();
        ensure(fits, || {
            format!("bucket of {} bytes at {path:?}", bucket.used_bytes())
        })?;
        let mut first = 0;
        for entry in bucket.entries() {
            if entry.shared == 0 {
                first = entry
                    .suffix
                    .first()
                    .map_or(u16::MAX, |&first| u16::from(first));
            }
            let belongs = (piece.first.0..piece.first.1).contains(&first);
            ensure(belongs, || {
                format!("first byte {first} in the wrong bucket at {path:?}")
            })?;
        }
        Ok(())
    }

    fn check_node<'a>(
        &self,
        node: &'a Node,
        piece: &Piece<'a>,
        ahead: &mut Vec<Piece<'a>>,
    ) -> Result<(), String> {
        let path = [piece.path.as_slice(), node.label()].concat();
        let is_root = piece.path.is_empty() && piece.first == (0, 256);
        let label_fits = node.label().first().map_or(is_root, |&first| {
            is_root || u16::from(first) == piece.first.0
        });
        ensure(label_fits, || format!("label at {path:?}"))?;
        ensure(!node.slots().is_empty() || node.terminal.is_some(), || {
            format!("empty node at {path:?}")
        })?;
        ensure(node.slots().len() == node.firsts().len(), || {
            format!("first bytes at {path:?}")
        })?;
        for (i, (&lowest, slot)) in node.firsts().iter().zip(node.slots()).enumerate() {
            let end = node
                .firsts()
                .get(i + 1)
                .map_or(256, |&next| u16::from(next));
            let first = (u16::from(lowest), end);
            ensure(first.0 < first.1, || format!("order of slots at {path:?}"))?;
            ensure(slot.best == slot.child.best() && slot.best > 0, || {
                format!("best of a slot at {path:?}")
            })?;
            ahead.push(Piece {
                child: &slot.child,
                path: path.clone(),
                first,
            });
        }
        self.check_list(node, &path)
    }

    /// Compares the list with all terms below, sorted.
    fn check_list(&self, node: &Node, path: &[u8]) -> Result<(), String> {
        type Ranked = (u64, Vec<u8>, Option<Vec<u8>>);
        let shown = |display: Option<Display<'_>>, term: &[u8]| display.map(|form| form.of(term));
        let mut expected: Vec<Ranked> = Vec::new();
        let mut cursor = Cursor::at(&self.root, path);
        while let Some((term, count, display)) = cursor.next_coded() {
            if !term.starts_with(path) {
                break;
            }
            expected.push((count, term.to_vec(), shown(display, term)));
        }
        expected.sort_by(|a, b| crate::compare((a.0, &a.1), (b.0, &b.1)));
        expected.truncate(self.options.cached_k);
        let list: Vec<Ranked> = node
            .top
            .entries()
            .map(|entry| {
                let term = [path, entry.suffix].concat();
                let display = shown(entry.display, &term);
                (entry.count, term, display)
            })
            .collect();
        ensure(list == expected, || {
            format!("list at {path:?}: {list:?}, should be {expected:?}")
        })
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
