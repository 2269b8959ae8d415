//! Faults as a test writes them down, and the trace by which it sees what was asked.
//!
//! A fault fires once, at the first operation that fits after those it lets pass.

use std::path::PathBuf;

use crate::Op;

/// A scripted fault: fires once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The operation that fails; `None` for any, those that only read included.
    pub op: Option<Op>,
    /// Only for paths whose text contains this.
    pub path_contains: Option<String>,
    /// How many matching operations pass before.
    pub skip: u64,
    /// What happens then.
    pub effect: Effect,
}

impl Fault {
    /// The next operation of this kind has this effect.
    #[must_use]
    pub const fn next(op: Op, effect: Effect) -> Self {
        Self::after(op, 0, effect)
    }

    /// After `skip` operations of this kind, the following one has this effect.
    #[must_use]
    pub const fn after(op: Op, skip: u64, effect: Effect) -> Self {
        Self {
            op: Some(op),
            path_contains: None,
            skip,
            effect,
        }
    }

    /// After `skip` operations of whatever kind, the following one has this effect.
    #[must_use]
    pub const fn nth(skip: u64, effect: Effect) -> Self {
        Self {
            op: None,
            path_contains: None,
            skip,
            effect,
        }
    }

    /// Only for paths whose text contains `part`.
    #[must_use]
    pub fn on_path(mut self, part: &str) -> Self {
        self.path_contains = Some(part.to_owned());
        self
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Fails with an input/output error. A sync that fails marks its blocks clean and loses them.
    Io,
    /// Fails for want of space, without effect. A sync loses its blocks as with [`Effect::Io`]: where blocks are found
    /// only when they are written back, it is the sync that hears of it.
    NoSpace,
    /// Fails because a quota is reached; otherwise as [`Effect::NoSpace`].
    Quota,
    /// Fails because the file would be too large, without effect.
    FileTooLarge,
    /// Is interrupted, without effect.
    Interrupted,
    /// Is something this file system cannot do.
    Unsupported,
    /// A write or read takes only this many bytes, and succeeds.
    Short(usize),
    /// A write takes this many bytes and then the disk fails with an input/output error.
    TornIo(usize),
    /// The caller panics, as it would over a bug. Nothing is done.
    Panic,
    /// The disk halts before the operation: it and all later ones fail.
    Halt,
}

impl Effect {
    /// What can befall an operation while the disk works on: an error, no room where it changes something, and a part of its work where
    /// it moves bytes. For tests that let every call fail once.
    #[must_use]
    pub fn possible(op: Op) -> Vec<Self> {
        let mut effects = vec![Self::Io];
        if op.is_mutation() {
            effects.push(Self::NoSpace);
        }
        if matches!(op, Op::Read | Op::Write) {
            effects.push(Self::Short(100));
        }
        if op == Op::Write {
            effects.push(Self::TornIo(700));
        }
        effects
    }

    /// As it befalls a call that moves so many bytes: what does a part of its work does not do all of it.
    pub(super) fn within(self, bytes: u64) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        match self {
            Self::Short(most) => Self::Short(most.min(half).max(1)),
            Self::TornIo(most) => Self::TornIo(most.min(half)),
            Self::Io
            | Self::NoSpace
            | Self::Quota
            | Self::FileTooLarge
            | Self::Interrupted
            | Self::Unsupported
            | Self::Panic
            | Self::Halt => self,
        }
    }
}

/// One operation that was asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// The operation.
    pub op: Op,
    /// Of which file or directory.
    pub path: PathBuf,
    /// For reads, writes, allocations: where. For a truncation: the length.
    pub offset: u64,
    /// For reads, writes, allocations: how many bytes were asked for.
    pub len: u64,
    /// The fault that hit it.
    pub fault: Option<Effect>,
}
