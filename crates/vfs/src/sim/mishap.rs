//! Everything that can go wrong once in a piece of work: each call fails in each way that it can, and the disk halts at each change.
//!
//! For tests of what is kept on a disk. Work that does the same whenever it finds the same disk is tried with all of it: what is to go
//! wrong is taken from a run in which nothing does. Nothing here judges what is found; that is for the test to say.

use std::fmt::Debug;

use super::{Effect, Fault, SimDisk};
use crate::Op;

/// Of so many items that are not durable every subset is tried.
const SUBSET_ITEMS_MAX: usize = 5;
/// Power losses that are decided by chance, which also tear blocks, and fill them with garbage.
const CHANCES: u64 = 6;

/// What went wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing.
    None,
    /// One call had an effect.
    Call {
        /// Its number among all calls of the work, from 0.
        number: u64,
        /// What was asked.
        op: Op,
        /// What happened.
        effect: Effect,
    },
    /// The disk halted.
    Halt {
        /// After so many changes of the work.
        mutations: u64,
    },
}

impl Mishap {
    /// Whether work must get to its end all the same: nothing failed, though a call may have done a part of its work.
    #[must_use]
    pub const fn is_harmless(self) -> bool {
        match self {
            Self::None => true,
            Self::Call { effect, .. } => matches!(effect, Effect::Short(_)),
            Self::Halt { .. } => false,
        }
    }
}

/// A run of a piece of work.
#[derive(Debug)]
pub struct Run<T> {
    /// What went wrong in it.
    pub mishap: Mishap,
    /// What the work returned.
    pub outcome: T,
    /// The disk that it left.
    pub disk: SimDisk,
}

impl<T> Run<T> {
    /// # Panics
    /// When the call that is to fail is not made.
    fn of(start: &SimDisk, mishap: Mishap, work: &mut impl FnMut(&SimDisk) -> T) -> Self {
        let disk = start.restart();
        match mishap {
            Mishap::None => {}
            Mishap::Call { number, effect, .. } => disk.inject(Fault::nth(number, effect)),
            Mishap::Halt { mutations } => disk.halt_after(Some(mutations)),
        }
        let outcome = work(&disk);
        assert_eq!(disk.faults_waiting(), 0, "{mishap:?} never came");
        Self {
            mishap,
            outcome,
            disk,
        }
    }

    /// What may be found after it: by another process on the same machine, and after power was lost, with every subset of what is not
    /// durable where that is little, and with blocks that are torn or hold anything.
    #[must_use]
    pub fn images(&self) -> Vec<SimDisk> {
        let mut images = vec![self.disk.restart()];
        images.extend(self.disk.crash_subsets(SUBSET_ITEMS_MAX));
        if !self.disk.pending().is_empty() {
            images.extend((0..CHANCES).map(|seed| self.disk.crash_seeded(seed)));
        }
        images
    }

    /// The plainest of [`Run::images`]: of another process, and of a machine that lost all that was not durable.
    #[must_use]
    pub fn plain_images(&self) -> [SimDisk; 2] {
        [self.disk.restart(), self.disk.crash_losing_all()]
    }
}

/// Does a piece of work over and over, each time from a copy of the same disk, and each time something else goes wrong; the first time
/// nothing. For work that does the same as long as nothing goes wrong, and makes at most as many calls as [`SimDisk::trace`] keeps.
///
/// # Panics
/// When the work makes fewer calls than the first time.
pub fn every_mishap<T>(
    start: &SimDisk,
    mut work: impl FnMut(&SimDisk) -> T,
) -> impl Iterator<Item = Run<T>> {
    let sound = Run::of(start, Mishap::None, &mut work);
    let mut mishaps = Vec::new();
    for (number, call) in (0..).zip(sound.disk.trace()) {
        let op = call.op;
        let effects = Effect::possible(op).into_iter();
        let effects = effects.map(|effect| effect.within(call.len));
        mishaps.extend(effects.map(|effect| Mishap::Call { number, op, effect }));
    }
    mishaps.extend((0..sound.disk.mutations()).map(|mutations| Mishap::Halt { mutations }));
    let others = mishaps
        .into_iter()
        .map(move |mishap| Run::of(start, mishap, &mut work));
    std::iter::once(sound).chain(others)
}

/// Lets everything go wrong once in a piece of work, and then once in the `start` after it, from what the work may leave. `promised` is
/// what others may rely on: both add to it what they have said. `judge` gets each disk that may be found, with what was promised
/// then and what went wrong. Returns how many runs there were.
///
/// # Panics
/// When one of them fails though nothing did, and as [`every_mishap`].
pub fn every_mishap_twice<P: Clone, E: Debug>(
    before: &SimDisk,
    promised: &P,
    mut work: impl FnMut(&SimDisk, &mut P) -> Result<(), E>,
    mut start: impl FnMut(&SimDisk, &mut P) -> Result<(), E>,
    mut judge: impl FnMut(&SimDisk, &P, &dyn Debug),
) -> usize {
    let mut runs = 0;
    for run in keeping_promises(before, promised, &mut work) {
        runs += 1;
        for image in run.images() {
            judge(&image, &run.outcome, &run.mishap);
        }
        for left in run.plain_images() {
            for again in keeping_promises(&left, &run.outcome, &mut start) {
                runs += 1;
                for image in again.plain_images() {
                    judge(&image, &again.outcome, &(run.mishap, again.mishap));
                }
            }
        }
    }
    runs
}

/// As [`every_mishap`], of work that makes promises.
fn keeping_promises<P: Clone, E: Debug>(
    start: &SimDisk,
    promised: &P,
    work: &mut impl FnMut(&SimDisk, &mut P) -> Result<(), E>,
) -> impl Iterator<Item = Run<P>> {
    let runs = every_mishap(start, move |disk| {
        let mut promised = promised.clone();
        let done = work(disk, &mut promised);
        (promised, done)
    });
    runs.map(|run| {
        let Run { mishap, disk, .. } = run;
        let (outcome, done) = run.outcome;
        assert!(
            done.is_ok() || !mishap.is_harmless(),
            "{mishap:?}: {done:?}"
        );
        Run {
            mishap,
            outcome,
            disk,
        }
    })
}
