//! The names of a simulated disk, and the changes of them that a crash may undo.
//!
//! Paths are compared as they are given. A change applied twice, or to a name that is gone, does nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::durable::parent;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A change of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

impl NameChange {
    /// Whether a sync of `dir` makes the change durable. A rename across directories counts as one
    /// change, made durable by a sync of the directory it went to.
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => {
                parent(path) == dir
            }
        }
    }
}

impl NameChange {
    /// Follows a directory that was renamed.
    pub(super) fn move_with(&mut self, from: &Path, to: &Path) {
        let paths = match self {
            Self::Add(path, _) | Self::Remove(path) => [Some(path), None],
            Self::Rename(source, target, _) => [Some(source), Some(target)],
        };
        for path in paths.into_iter().flatten() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = below(to, rest);
            }
        }
    }
}

/// A path in a directory, or the directory itself.
fn below(dir: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        dir.to_owned()
    } else {
        dir.join(rest)
    }
}

/// All names of a disk.
#[derive(Debug, Clone)]
pub(super) struct Names(BTreeMap<PathBuf, Node>);

impl Names {
    pub(super) fn new() -> Self {
        let roots = [PathBuf::from("/"), PathBuf::from(".")];
        Self(roots.into_iter().map(|root| (root, Node::Dir)).collect())
    }

    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        self.0.get(path).copied()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.0.iter().filter_map(|(path, node)| match node {
            Node::Dir => None,
            Node::File(inode) => Some((path.as_path(), *inode)),
        })
    }

    /// The names directly in a directory.
    pub(super) fn children<'a>(
        &'a self,
        dir: &'a Path,
    ) -> impl Iterator<Item = (&'a Path, Node)> + 'a {
        let all = self.0.iter().map(|(path, node)| (path.as_path(), *node));
        all.filter(move |(path, _)| path.file_name().is_some() && parent(path) == dir)
    }

    /// A path and all below it.
    pub(super) fn below(&self, path: &Path) -> Vec<PathBuf> {
        let names = self.0.keys().filter(|name| name.starts_with(path));
        names.cloned().collect()
    }

    pub(super) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Add(path, node) => {
                self.0.insert(path.clone(), *node);
            }
            NameChange::Remove(path) => {
                self.0.remove(path);
            }
            NameChange::Rename(from, to, node) => {
                for name in self.below(from) {
                    let Some(moved) = self.0.remove(&name) else {
                        continue;
                    };
                    let rest = name.strip_prefix(from).unwrap_or(Path::new(""));
                    self.0.insert(below(to, rest), moved);
                }
                // The old name may never have become durable; the new one leads to the file all the same.
                self.0.insert(to.clone(), *node);
            }
        }
    }

    /// Drops names whose directory does not exist: nobody can reach them.
    pub(super) fn prune(&mut self) {
        loop {
            let lost: Vec<PathBuf> = self
                .0
                .keys()
                .filter(|path| path.file_name().is_some())
                .filter(|path| self.0.get(parent(path)) != Some(&Node::Dir))
                .cloned()
                .collect();
            if lost.is_empty() {
                return;
            }
            for path in lost {
                self.0.remove(&path);
            }
        }
    }
}
