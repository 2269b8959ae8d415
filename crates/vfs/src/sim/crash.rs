//! What may be found after a power loss.

use std::path::PathBuf;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::{
    BLOCK_BYTES,
    content::index,
    disk::Disk,
    inode::Inode,
    names::{NameChange, Node},
};

/// One thing that is not durable yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The file or name, under the name it has now or had last.
    pub path: PathBuf,
    /// What about it.
    pub kind: PendingKind,
}

/// What is undecided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingKind {
    /// The content of a block.
    Block {
        /// Its number, in units of [`BLOCK_BYTES`].
        block: u64,
        /// How many versions were written since the last sync.
        versions: usize,
    },
    /// The length of a file.
    Len {
        /// How many lengths it had since the last sync.
        versions: usize,
    },
    /// A creation, removal or rename.
    Name,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The old state.
    Lost,
    /// The newest state.
    Kept,
    /// For blocks and lengths: the state of this number, from 0, oldest first; too large means the newest.
    Version(usize),
    /// For blocks: bytes made from this seed. Else as [`Fate::Kept`].
    Garbage(u64),
    /// For blocks: this many bytes of the newest state, then the old. Else as [`Fate::Kept`].
    Torn(usize),
}

pub(super) fn pending(disk: &Disk) -> Vec<Pending> {
    let mut items = Vec::new();
    for (path, inode) in named(disk) {
        let Some(content) = disk.inodes.get(&inode) else {
            continue;
        };
        if !content.lens.is_empty() {
            let versions = content.lens.len();
            let kind = PendingKind::Len { versions };
            items.push(Pending {
                path: path.clone(),
                kind,
            });
        }
        for (block, versions) in &content.dirty {
            let kind = PendingKind::Block {
                block: *block,
                versions: versions.len(),
            };
            items.push(Pending {
                path: path.clone(),
                kind,
            });
        }
    }
    for change in &disk.changes {
        let path = match change {
            NameChange::Add(path, _)
            | NameChange::Remove(path)
            | NameChange::Rename(_, path, _) => path.clone(),
        };
        let kind = PendingKind::Name;
        items.push(Pending { path, kind });
    }
    items
}

/// Every inode that a name may lead to after a crash, once, in the order of inode numbers.
fn named(disk: &Disk) -> Vec<(PathBuf, u64)> {
    let mut paths = std::collections::BTreeMap::new();
    for change in &disk.changes {
        match change {
            NameChange::Add(path, Node::File(inode))
            | NameChange::Rename(_, path, Node::File(inode)) => {
                paths.insert(*inode, path.clone());
            }
            NameChange::Add(_, Node::Dir)
            | NameChange::Rename(_, _, Node::Dir)
            | NameChange::Remove(_) => {}
        }
    }
    for (path, inode) in disk.durable.files().chain(disk.visible.files()) {
        paths.insert(inode, path.to_owned());
    }
    let named = paths.into_iter();
    named.map(|(inode, path)| (path, inode)).collect()
}

pub(super) fn image(disk: &Disk, fate: impl FnMut(&Pending) -> Fate) -> Disk {
    let items = pending(disk);
    let mut fates = items.iter().map(fate);
    let mut after = Disk::new();
    after.next_inode = disk.next_inode;
    for (_, number) in named(disk) {
        let Some(inode) = disk.inodes.get(&number) else {
            continue;
        };
        after.inodes.insert(number, crashed(inode, &mut fates));
    }
    let mut names = disk.durable.clone();
    for change in &disk.changes {
        if fates.next().is_some_and(|fate| fate != Fate::Lost) {
            names.apply(change);
        }
    }
    names.prune();
    after.visible = names.clone();
    after.durable = names;
    after
}

fn crashed(inode: &Inode, fates: &mut impl Iterator<Item = Fate>) -> Inode {
    let mut bytes = inode.durable.clone();
    if !inode.lens.is_empty() {
        let newest = inode.lens.last().copied();
        let len = match fates.next().unwrap_or(Fate::Lost) {
            Fate::Lost => None,
            Fate::Version(number) => inode.lens.get(number).copied().or(newest),
            Fate::Kept | Fate::Garbage(_) | Fate::Torn(_) => newest,
        };
        if let Some(len) = len {
            bytes.resize(len);
        }
    }
    for (block, versions) in &inode.dirty {
        let Some(newest) = versions.last() else {
            continue;
        };
        let content = match fates.next().unwrap_or(Fate::Lost) {
            Fate::Lost => continue,
            Fate::Kept => newest.clone(),
            Fate::Version(number) => versions.get(number).unwrap_or(newest).clone(),
            Fate::Garbage(seed) => garbage(seed),
            Fate::Torn(kept) => {
                let mut content = bytes.block(*block);
                let kept = kept.min(content.len());
                if let (Some(to), Some(from)) = (content.get_mut(..kept), newest.get(..kept)) {
                    to.copy_from_slice(from);
                }
                content
            }
        };
        bytes.put_block(*block, &content);
    }
    let mut crashed = Inode {
        data: bytes,
        unreadable: inode.unreadable.clone(),
        ..Inode::default()
    };
    crashed.settle();
    crashed
}

fn garbage(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..BLOCK_BYTES)
        .map(|_| dice.next().to_le_bytes()[0])
        .collect()
}

/// A small generator, so that a seed names one crash for ever.
#[derive(Debug)]
pub(super) struct Dice(SplitMix64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Mostly lost or kept, sometimes an earlier version, torn or garbage.
    pub(super) fn fate(&mut self, item: &Pending) -> Fate {
        let number = self.next();
        let detail = index(self.next() >> 32);
        match (&item.kind, number % 16) {
            (_, 0..=6) => Fate::Lost,
            (PendingKind::Block { versions, .. } | PendingKind::Len { versions }, 7..=8) => {
                Fate::Version(detail % versions.max(&1))
            }
            (PendingKind::Block { .. }, 9) => Fate::Garbage(number),
            (PendingKind::Block { .. }, 10) => Fate::Torn(detail % index(BLOCK_BYTES)),
            (PendingKind::Block { .. } | PendingKind::Len { .. } | PendingKind::Name, _) => {
                Fate::Kept
            }
        }
    }
}
