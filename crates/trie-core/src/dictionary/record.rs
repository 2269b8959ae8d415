//! Recording: counts rise.
//!
//! The term is looked up first, so that everything that can refuse the write does so before anything
//! changes. Then one walk down the path puts the new count into the lists of the nodes it passes and into
//! the bucket or node where the term ends. Counts only rise here, so each list is changed without
//! looking below its node.

use std::sync::Arc;

use super::Dictionary;
use crate::assembler::Assembler;
use crate::bucket::{Bucket, Spot, common_prefix};
use crate::display;
use crate::error::{RecordError, check};
use crate::memory::MemoryUsage;
use crate::node::{Child, Node, Slots, Terminal};
use crate::options::Options;
use crate::top_list::Rise;

impl Dictionary {
    /// Adds `add` to the count of `term` and returns the new count. `display` is kept if the
    /// term is new and differs from it.
    ///
    /// # Errors
    /// [`RecordError`]; nothing was changed then.
    pub fn record(
        &mut self,
        term: &[u8],
        add: u64,
        display: Option<&[u8]>,
    ) -> Result<u64, RecordError> {
        check(term, add, display)?;
        let found = self.locate(term);
        let old = found.count;
        let Some(new) = old.checked_add(add) else {
            return Err(RecordError::Overflow { count: old, add });
        };
        let mut code = Vec::new();
        if old > 0 {
            if let Some(form) = found.display {
                form.put_again(&mut code);
            }
        } else if let Some(form) = display.filter(|&form| form != term) {
            display::put(&mut code, term, form);
        }
        let spot = found.spot;
        if old == 0 {
            self.len += 1;
            self.memory.text_bytes += term.len() as u64;
            if !code.is_empty() {
                self.memory.display_bytes += display.map_or(0, <[u8]>::len) as u64;
            }
        }
        self.total += u128::from(add);
        let display = (!code.is_empty()).then_some(code.as_slice());
        self.raise(term, spot, &Rise { old, new, display });
        Ok(new)
    }

    /// Writes the new count of `term`, which was looked up, to its place and into the lists on the way.
    fn raise(&mut self, term: &[u8], spot: Option<Spot>, rise: &Rise<'_>) {
        let options = self.options;
        let memory = &mut self.memory;
        let mut child = &mut self.root;
        let mut rest = term;
        // A bucket at the root has no slot to be divided in.
        if let Child::Bucket(bucket) = child {
            if let Some(slots) = write(bucket, rest, spot, rise, options, memory) {
                self.root = self.join(slots);
            }
            return;
        }
        while let Child::Node(shared) = child {
            let same = common_prefix(rest, shared.label());
            if same < shared.label().len() {
                divide_label(shared, same, memory);
            }
            let node = Arc::make_mut(shared);
            rest = &rest[same..];
            memory.cached_list_bytes -= node.top.heap_bytes();
            node.top.raise(options.cached_k, rest, rise);
            memory.cached_list_bytes += node.top.heap_bytes();
            let Some(&first) = rest.first() else {
                end_in(node, rise, memory);
                return;
            };
            let table_before = node.table_bytes();
            let i = node.slot_of_or_new(first);
            memory.node_bytes += (node.table_bytes() - table_before) as u64;
            let slot = &mut node.slots_mut()[i];
            slot.best = slot.best.max(rise.new);
            if let Child::Bucket(bucket) = &mut slot.child {
                if let Some(slots) = write(bucket, rest, spot, rise, options, memory) {
                    let table_before = node.table_bytes();
                    node.replace_slots(i, i + 1, slots);
                    memory.node_bytes += (node.table_bytes() - table_before) as u64;
                }
                return;
            }
            child = &mut node.slots_mut()[i].child;
        }
    }
}

/// Writes a term into the bucket responsible for it. If that grows too large, returns the slots it is divided into.
fn write(
    bucket: &mut Bucket,
    rest: &[u8],
    spot: Option<Spot>,
    rise: &Rise<'_>,
    options: Options,
    memory: &mut MemoryUsage,
) -> Option<Slots> {
    // There is no spot if a node was put in, or a bucket begun, since the term was looked up.
    let spot = spot.unwrap_or_else(|| bucket.find(rest));
    memory.bucket_bytes -= bucket.heap_bytes();
    if rise.old > 0 {
        bucket.set_count(&spot, rise.new);
    } else {
        bucket.insert(rest, &spot, rise.new, rise.display);
    }
    if bucket.used_bytes() <= options.bucket_bytes || !bucket.is_divisible() {
        memory.bucket_bytes += bucket.heap_bytes();
        return None;
    }
    let mut assembler = Assembler::relaxed(options);
    let mut term = Vec::new();
    for entry in bucket.entries() {
        term.truncate(entry.shared);
        term.extend_from_slice(entry.suffix);
        assembler.push(&term, entry.shared, entry.count, entry.display);
    }
    let (slots, weight) = assembler.finish();
    memory.bucket_bytes += weight.bucket_bytes;
    memory.node_bytes += weight.node_bytes;
    memory.cached_list_bytes += weight.cached_list_bytes;
    Some(slots)
}

/// Puts a node above the one in `place` that takes the first `len` bytes of its label.
fn divide_label(place: &mut Arc<Node>, len: usize, memory: &mut MemoryUsage) {
    place.unweigh(memory);
    let lower = Arc::make_mut(place);
    let label = lower.label().to_vec();
    let (above, below) = label.split_at(len);
    lower.set_label(below);
    lower.weigh(memory);
    let top = lower.top.prefixed(below);
    let slots = vec![(below[0], Child::Node(Arc::clone(place)).into())];
    let mut upper = Node::new(above, slots);
    upper.top = top;
    upper.weigh(memory);
    *place = Arc::new(upper);
}

/// Writes the count of the term that ends in `node`.
fn end_in(node: &mut Node, rise: &Rise<'_>, memory: &mut MemoryUsage) {
    if let Some(terminal) = &mut node.terminal {
        terminal.count = rise.new;
        return;
    }
    node.unweigh(memory);
    node.terminal = Some(Box::new(Terminal {
        count: rise.new,
        display: rise.display.map(Into::into),
    }));
    node.weigh(memory);
}
