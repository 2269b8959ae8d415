//! A walk over all terms, in ascending byte order, that lets go of what it has passed.
//!
//! Whoever holds a clone of a dictionary makes the other one copy whatever it changes, and what was copied is freed only with the clone. This
//! walk holds nothing but what is still to come. Where the other one goes on being written, that spares the copies of all that the walk
//! has passed, and what was copied before is freed as the walk comes by, for the next copies to use.

use crate::display::Display;
use crate::node::Child;

/// Calls `visit` with each term at or below `root`, its count and its display form. Ends with its first error.
pub(crate) fn walk<E>(
    root: Child,
    mut visit: impl FnMut(&[u8], u64, Option<Display<'_>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut key = Vec::new();
    // What is still to come, the next one last, each with the length of the path to it.
    let mut ahead = vec![(0, root)];
    while let Some((depth, child)) = ahead.pop() {
        key.truncate(depth);
        match child {
            Child::Bucket(bucket) => {
                for entry in bucket.entries() {
                    key.truncate(depth + entry.shared);
                    key.extend_from_slice(entry.suffix);
                    visit(&key, entry.count, entry.display)?;
                }
            }
            Child::Node(node) => {
                key.extend_from_slice(node.label());
                if let Some(terminal) = &node.terminal {
                    visit(&key, terminal.count, terminal.display())?;
                }
                let children = node.slots().iter().rev();
                ahead.extend(children.map(|slot| (key.len(), slot.child.clone())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::*;
    use crate::{Dictionary, Options};

    /// Buckets below that somebody else holds too, by themselves or by a node above them.
    fn held(root: &Child) -> usize {
        let mut held = 0;
        let mut ahead = vec![(root, false)];
        while let Some((child, is_held)) = ahead.pop() {
            match child {
                Child::Bucket(bucket) => held += usize::from(is_held || bucket.holders() > 1),
                Child::Node(node) => {
                    let is_held = is_held || Arc::strong_count(node) > 1;
                    ahead.extend(node.slots().iter().map(|slot| (&slot.child, is_held)));
                }
            }
        }
        held
    }

    #[test]
    fn what_was_passed_is_not_held_any_more() {
        let mut dict = Dictionary::new(Options::default());
        for number in 0..20_000_u32 {
            // Multiplied by an odd number, so that they do not come in order.
            let term = format!("{:08x}", number.wrapping_mul(0x9e37_79b1));
            dict.record(term.as_bytes(), 1, None).unwrap();
        }
        let clone = dict.clone();
        let all = held(dict.root());
        let (mut seen, mut now) = (0, Vec::new());
        let Ok(()) = walk::<Infallible>(clone.into_root(), |_, _, _| {
            seen += 1;
            if seen % 2_000 == 0 {
                now.push(held(dict.root()));
            }
            Ok(())
        });
        assert_eq!(seen, 20_000);
        let expected = (1..=10).map(|tenths| all - all * tenths / 10);
        for (now, expected) in now.into_iter().zip(expected) {
            // Buckets do not hold equally many terms.
            assert!(
                now.abs_diff(expected) <= all / 20 + 1,
                "{now} of {all}, {expected}"
            );
        }
        assert_eq!(held(dict.root()), 0);
    }

    #[test]
    fn an_error_ends_it() {
        let mut dict = Dictionary::new(Options::default());
        for term in ["a", "b", "c"] {
            dict.record(term.as_bytes(), 1, None).unwrap();
        }
        let ended = walk(dict.into_root(), |term, _, _| match term {
            b"b" => Err("enough"),
            _ => Ok(()),
        });
        assert_eq!(ended, Err("enough"));
    }
}
