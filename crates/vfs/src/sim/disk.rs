//! The state behind all handles of a simulated disk: files, names, faults that wait, and the trace.
//!
//! Every operation begins with [`Disk::begin`], which counts it and decides whether a fault hits it; nothing is
//! changed before that. The trace is bounded, its oldest part goes first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Condvar;

use super::{
    fault::{Effect, Fault, TraceEntry},
    inode::Inode,
    names::{NameChange, Names, Node},
};
use crate::{Error, Op, Result};

const TRACE_ENTRIES_MAX: usize = 65_536;

/// The state behind all handles of one simulated disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) visible: Names,
    pub(super) durable: Names,
    /// Changes of names that no sync of a directory has made durable, oldest first.
    pub(super) changes: Vec<NameChange>,
    pub(super) next_inode: u64,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) halt_at: Option<u64>,
    pub(super) halted: bool,
    pub(super) mutations: u64,
    pub(super) counts: BTreeMap<Op, u64>,
    pub(super) trace: VecDeque<TraceEntry>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) syncs_held: bool,
    /// Tells who waits for [`Disk::syncs_held`] to end.
    pub(super) released: Arc<Condvar>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            inodes: BTreeMap::new(),
            visible: Names::new(),
            durable: Names::new(),
            changes: Vec::new(),
            next_inode: 1,
            capacity: None,
            faults: Vec::new(),
            halt_at: None,
            halted: false,
            mutations: 0,
            counts: BTreeMap::new(),
            trace: VecDeque::new(),
            locks: BTreeSet::new(),
            syncs_held: false,
            released: Arc::default(),
        }
    }

    pub(super) fn restarted(&self) -> Self {
        let mut disk = Self::new();
        disk.inodes = self.inodes.clone();
        disk.visible = self.visible.clone();
        disk.durable = self.durable.clone();
        disk.changes = self.changes.clone();
        disk.next_inode = self.next_inode;
        disk.capacity = self.capacity;
        disk
    }

    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.visible.files().map(|(_, inode)| inode).collect();
        let sizes = named.iter().filter_map(|inode| self.inodes.get(inode));
        sizes.map(Inode::len).sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity
            .map_or(u64::MAX / 4, |all| all.saturating_sub(self.used()))
    }

    /// Counts and records an operation, and lets a fault that waits for it fire.
    pub(super) fn begin(
        &mut self,
        op: Op,
        path: &Path,
        offset: u64,
        len: u64,
    ) -> Result<Option<Effect>> {
        if self.halt_at.is_some_and(|at| self.mutations >= at) && op.is_mutation() {
            self.halted = true;
        }
        let fault = self.due_fault(op, path);
        *self.counts.entry(op).or_default() += 1;
        self.mutations += u64::from(op.is_mutation());
        if self.trace.len() == TRACE_ENTRIES_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(TraceEntry {
            op,
            path: path.to_owned(),
            offset,
            len,
            fault,
        });
        if fault == Some(Effect::Halt) {
            self.halted = true;
        }
        if self.halted {
            let source = io::Error::other("the simulated disk has halted");
            return Err(Error::new(op, path, source));
        }
        match fault {
            None | Some(Effect::Halt) => Ok(None),
            #[expect(clippy::panic, reason = "what the test asked for")]
            Some(Effect::Panic) => panic!("scripted panic at {op} of {}", path.display()),
            Some(Effect::Short(_) | Effect::TornIo(_)) => Ok(fault),
            Some(Effect::Io | Effect::NoSpace | Effect::Quota)
                if matches!(op, Op::SyncData | Op::SyncAll) =>
            {
                Ok(fault)
            }
            Some(Effect::Io) => Err(place(Error::new(op, path, input_output_error()), offset)),
            Some(Effect::NoSpace) => Err(failed(op, path, io::ErrorKind::StorageFull)),
            Some(Effect::Quota) => Err(failed(op, path, io::ErrorKind::QuotaExceeded)),
            Some(Effect::FileTooLarge) => Err(failed(op, path, io::ErrorKind::FileTooLarge)),
            Some(Effect::Interrupted) => Err(failed(op, path, io::ErrorKind::Interrupted)),
            Some(Effect::Unsupported) => Err(failed(op, path, io::ErrorKind::Unsupported)),
        }
    }

    fn due_fault(&mut self, op: Op, path: &Path) -> Option<Effect> {
        let text = path.to_string_lossy();
        let mut due = None;
        for (number, fault) in self.faults.iter_mut().enumerate() {
            let kind = fault.op.is_none_or(|wanted| wanted == op);
            let place = fault.path_contains.as_ref();
            if !kind || place.is_some_and(|part| !text.contains(part)) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() {
                due = Some(number);
            }
        }
        due.map(|number| self.faults.remove(number).effect)
    }

    pub(super) fn file(&self, op: Op, path: &Path) -> Result<&Inode> {
        let Some(Node::File(inode)) = self.visible.get(path) else {
            return Err(failed(op, path, io::ErrorKind::NotFound));
        };
        let inode = self.inodes.get(&inode);
        inode.ok_or_else(|| failed(op, path, io::ErrorKind::NotFound))
    }

    pub(super) fn file_mut(&mut self, op: Op, path: &Path) -> Result<&mut Inode> {
        let Some(Node::File(inode)) = self.visible.get(path) else {
            return Err(failed(op, path, io::ErrorKind::NotFound));
        };
        let inode = self.inodes.get_mut(&inode);
        inode.ok_or_else(|| failed(op, path, io::ErrorKind::NotFound))
    }

    pub(super) fn change_names(&mut self, change: NameChange) {
        self.visible.apply(&change);
        self.changes.push(change);
    }

    pub(super) fn sync_names(&mut self, dir: &Path) {
        for change in std::mem::take(&mut self.changes) {
            if !change.is_in(dir) {
                self.changes.push(change);
                continue;
            }
            self.durable.apply(&change);
            if let NameChange::Rename(from, to, Node::Dir) = &change {
                // What waits in a directory goes where it goes.
                for waiting in &mut self.changes {
                    waiting.move_with(from, to);
                }
            }
        }
    }
}

/// Says where, of those operations whose place is known on a real disk, too.
pub(super) fn place(error: Error, offset: u64) -> Error {
    if error.op == Op::Read {
        error.at(offset)
    } else {
        error
    }
}

pub(super) fn failed(op: Op, path: &Path, kind: io::ErrorKind) -> Error {
    Error::new(op, path, io::Error::from(kind))
}

pub(super) fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}
