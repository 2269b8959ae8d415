//! Which steps of a change of members come too late to be taken.
//!
//! A coordinator that stands still in the middle of a change may ask for its next step when another one has long turned the change round, or
//! made the next. Each step says by which epoch of the map it was asked for, and whatever is older than what is known is refused.
//!
//! What always holds: what a map of some epoch has removed comes again by a map of a newer one only, so that at the same epoch a removal
//! has the last word.
//!
//! On failure: it goes with the replica, and another leader knows only its map. A coordinator that finds a member that the map does not show has
//! it removed.

use api::{ApiError, Reason};
use cluster::Epoch;

/// A step by its age; of a replica the newest that it has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fence {
    epoch: Epoch,
    removes: bool,
}

impl Fence {
    /// A step that is asked for by a map; by none that is known where the epoch is 0.
    pub(crate) fn of(epoch: Epoch, removes: bool) -> Self {
        Self { epoch, removes }
    }

    /// Lets a step pass, and from then on none that is older. `known` is the epoch of the map here.
    pub(crate) fn pass(&mut self, step: Self, known: Epoch) -> Result<(), ApiError> {
        if step.epoch == Epoch::default() {
            return Ok(());
        }
        let newest = Self::of(known, false).max(*self);
        if step < newest {
            let (theirs, ours) = (step.epoch, newest.epoch);
            let message = format!(
                "asked for by epoch {theirs} of the shard map, and something newer was done or is known here, by epoch {ours}"
            );
            return Err(ApiError::new(Reason::StaleEpoch, message).with_epoch(ours));
        }
        *self = step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDS: bool = false;
    const REMOVES: bool = true;

    /// Whether steps that are asked for one after the other pass where the map has epoch 5.
    fn passed<const COUNT: usize>(steps: [(u64, bool); COUNT]) -> [bool; COUNT] {
        let mut fence = Fence::default();
        steps.map(|(epoch, removes)| {
            let passed = fence.pass(Fence::of(Epoch(epoch), removes), Epoch(5));
            if let Err(refused) = &passed {
                assert_eq!(refused.reason(), Reason::StaleEpoch, "{refused}");
            }
            passed.is_ok()
        })
    }

    #[test]
    fn what_is_older_than_the_map_or_than_what_was_done_is_refused() {
        assert_eq!(passed([(4, REMOVES), (4, ADDS)]), [false, false]);
        assert_eq!(passed([(5, ADDS), (5, REMOVES)]), [true, true]);
        // A leader whose map lags behind.
        let steps = [(8, ADDS), (7, REMOVES), (8, ADDS), (9, REMOVES), (8, ADDS)];
        assert_eq!(passed(steps), [true, false, true, true, false]);
    }

    #[test]
    fn what_was_removed_comes_again_by_a_newer_map_only() {
        let steps = [(5, REMOVES), (5, ADDS), (5, REMOVES), (6, ADDS)];
        assert_eq!(passed(steps), [true, false, true, true]);
    }

    #[test]
    fn whoever_names_no_epoch_is_not_refused_and_has_nobody_refused() {
        let steps = [(0, REMOVES), (5, ADDS), (9, REMOVES), (0, ADDS)];
        assert_eq!(passed(steps), [true, true, true, true]);
    }
}
