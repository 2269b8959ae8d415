//! The snapshots of one group: which are kept, in which order they are published and removed.
//!
//! A snapshot is complete and durable before anybody sees it, and one is never removed before a newer one is durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use vfs::durable::Nameless;
use vfs::{Vfs, durable};

use super::file::discard;
use super::intake::{Announced, Intake};
use super::{Header, SnapshotFile, SnapshotInfo};
use crate::raft::term_of;
use crate::{Applied, GroupId, SnapshotError};

/// Complete snapshots that are kept of each group.
pub(crate) const GENERATIONS: usize = 2;
const SUFFIX: &str = ".snap";

/// The snapshots of one group, in a directory of its own.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// Verified or just written, ascending by index.
    kept: Mutex<Vec<SnapshotFile>>,
    /// Found damaged when the directory was opened, and still there.
    damaged: Mutex<Vec<DamagedFile>>,
    temporaries: AtomicU64,
    /// Which life of the group in this process it is: what an earlier one was writing may be finished only now.
    life: u64,
    /// What peers send.
    intake: Arc<Intake>,
}

/// What a directory held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Half-written files of a crash, removed.
    pub(crate) temporaries: usize,
    /// Files that do not verify, or that the disk does not give back, left as they are for now.
    pub(crate) damaged: Vec<SnapshotError>,
}

/// A file that is of no use, by its name a snapshot.
#[derive(Debug)]
struct DamagedFile {
    path: PathBuf,
    index: u64,
    bytes: u64,
}

impl SnapshotStore {
    /// Opens the directory of a group, creates it if it is missing, removes half-written files and verifies all others. One of a newer
    /// format is an error.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        root: &Path,
        group: GroupId,
    ) -> Result<(Self, Found), SnapshotError> {
        let dir = dir_of(root, group);
        durable::create_dir(vfs.as_ref(), &dir)?;
        let mut found = Found {
            temporaries: durable::remove_temporaries(vfs.as_ref(), &dir)?,
            ..Found::default()
        };
        // A process that ended between rename and sync leaves names that the page cache alone knows, and once a snapshot
        // counts here, the log before it may go.
        vfs.sync_dir(&dir)?;
        let (mut kept, mut damaged) = (Vec::new(), Vec::new());
        for entry in vfs.list_dir(&dir)? {
            if entry.is_dir || !entry.name.to_string_lossy().ends_with(SUFFIX) {
                continue;
            }
            let path = dir.join(&entry.name);
            match SnapshotFile::open(Arc::clone(&vfs), &path) {
                Ok(file) if file.info().group == group => kept.push(file),
                Ok(file) => found.damaged.push(SnapshotError::Damaged {
                    name: entry.name.to_string_lossy().into_owned(),
                    problem: format!("it belongs to group {}", file.info().group),
                }),
                Err(error @ SnapshotError::Damaged { .. }) => {
                    let (index, bytes) = (index_of(&entry.name.to_string_lossy()), entry.len);
                    damaged.extend(index.map(|index| DamagedFile { path, index, bytes }));
                    found.damaged.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        kept.sort_by_key(|file| file.info().applied.index);
        let store = Self {
            vfs,
            dir,
            kept: Mutex::new(kept),
            damaged: Mutex::new(damaged),
            temporaries: AtomicU64::new(0),
            life: 0,
            intake: Arc::default(),
        };
        Ok((store, found))
    }

    /// Tells the files that it writes from those of earlier lives.
    pub(crate) fn in_life(self, life: u64) -> Self {
        Self { life, ..self }
    }

    /// Whether a group has a directory with any snapshot in it, damaged ones included.
    pub(crate) fn any(vfs: &dyn Vfs, root: &Path, group: GroupId) -> Result<bool, vfs::Error> {
        let dir = dir_of(root, group);
        if !vfs.exists(&dir)? {
            return Ok(false);
        }
        let entries = vfs.list_dir(&dir)?;
        Ok(entries
            .iter()
            .any(|entry| entry.name.to_string_lossy().ends_with(SUFFIX)))
    }

    /// A group's snapshot as of an entry, wherever it is not open; nothing where there is none, or one that does not verify.
    pub(crate) fn find(
        vfs: &Arc<dyn Vfs>,
        root: &Path,
        group: GroupId,
        applied: Applied,
    ) -> Result<Option<SnapshotFile>, SnapshotError> {
        let path = dir_of(root, group).join(name_at(applied));
        if !vfs.exists(&path)? {
            return Ok(None);
        }
        match SnapshotFile::open(Arc::clone(vfs), &path) {
            Ok(file) => Ok(Some(file)),
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::warn!(%group, %error, "a snapshot cannot be used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Of a group's sound snapshots that reach to an index, wherever the group is not open, the one that is so many from the newest, counted
    /// from 1; nothing where there are fewer. It is durable. May block, for those that are as new are read.
    pub(crate) fn reaching(
        vfs: &Arc<dyn Vfs>,
        root: &Path,
        group: GroupId,
        index: u64,
        place: usize,
    ) -> Result<Option<SnapshotFile>, SnapshotError> {
        let dir = dir_of(root, group);
        if !vfs.exists(&dir)? {
            return Ok(None);
        }
        // As where it is opened: the page cache alone may know a name.
        vfs.sync_dir(&dir)?;
        let mut named: Vec<(u64, PathBuf)> = Vec::new();
        for entry in vfs.list_dir(&dir)? {
            let name = entry.name.to_string_lossy();
            if entry.is_dir || !name.ends_with(SUFFIX) {
                continue;
            }
            let reaches = index_of(&name).filter(|found| *found >= index);
            named.extend(reaches.map(|found| (found, dir.join(&entry.name))));
        }
        if named.len() < place {
            return Ok(None);
        }
        named.sort_unstable_by(|one, other| other.cmp(one));
        let mut sound = 0;
        for (_, path) in named {
            match SnapshotFile::open(Arc::clone(vfs), &path) {
                Ok(file) if file.info().group == group => {
                    sound += 1;
                    if sound == place {
                        return Ok(Some(file));
                    }
                }
                Ok(_) => {}
                Err(error @ SnapshotError::Damaged { .. }) => {
                    tracing::warn!(%group, %error, "a snapshot stands for no log");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Removes the directory of a group with all that is in it.
    pub(crate) fn remove(vfs: &dyn Vfs, root: &Path, group: GroupId) -> Result<(), vfs::Error> {
        let dir = dir_of(root, group);
        if vfs.exists(&dir)? {
            vfs.remove_dir_all(&dir)?;
        }
        // Also where it is gone: an earlier attempt may have failed here.
        vfs.sync_dir(root)
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// The newest that is not known to be rotten.
    pub(crate) fn newest(&self) -> Option<SnapshotFile> {
        let kept = self.kept.lock();
        kept.iter().rev().find(|file| !file.is_rotten()).cloned()
    }

    /// The newest, rotten or not.
    pub(crate) fn newest_of_all(&self) -> Option<SnapshotFile> {
        self.kept.lock().last().cloned()
    }

    /// All that are kept and not known to be rotten, oldest first.
    pub(crate) fn sound(&self) -> Vec<SnapshotFile> {
        let kept = self.kept.lock();
        kept.iter()
            .filter(|file| !file.is_rotten())
            .cloned()
            .collect()
    }

    /// Whether one of those that are kept was found rotten, so that a new one is wanted.
    pub(crate) fn has_rotten(&self) -> bool {
        self.kept.lock().iter().any(SnapshotFile::is_rotten)
    }

    /// Reads all that count as sound again: where one is rotten, the disk is to be doubted. May block.
    pub(crate) fn reconsider(&self) {
        for file in self.sound() {
            file.reconsider();
        }
    }

    /// The index up to which the log may be purged: that of the older generation, once there are two sound ones.
    pub(crate) fn purgeable(&self) -> Option<u64> {
        let sound = self.sound();
        let older = sound.len().checked_sub(GENERATIONS)?;
        sound.get(older).map(|file| file.info().applied.index)
    }

    /// How large the next snapshot will be, by the one before; 0 where there is none.
    pub(crate) fn expected_bytes(&self) -> u64 {
        self.newest_of_all().map_or(0, |file| file.info().bytes)
    }

    /// Refuses where there is no room for another file of so many bytes.
    pub(crate) fn require_space(&self, bytes: u64) -> Result<(), SnapshotError> {
        Ok(durable::require_space(self.vfs.as_ref(), &self.dir, bytes)?)
    }

    /// A fresh temporary path.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}{}", self.life, durable::TEMPORARY_SUFFIX);
        self.dir.join(name)
    }

    /// The temporary path of a file from a peer. One that is left over from an earlier life of the group may be removed late, so the
    /// number is of those that are never used again, whoever opened the directory.
    pub(super) fn received(&self, number: u64) -> PathBuf {
        let name = format!("received-{number}{}", durable::TEMPORARY_SUFFIX);
        self.dir.join(name)
    }

    pub(super) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// A snapshot that a peer has and that is here, too.
    pub(crate) fn same_as(&self, announced: &Announced) -> Option<SnapshotFile> {
        let same = |file: &SnapshotFile| file.info().hash == announced.hash;
        self.sound().into_iter().find(same)
    }

    /// How many bytes of a peer's file are here: all of them, or what came before its transfer broke off. `None` while one is being
    /// received.
    pub(crate) fn kept_of(&self, announced: &Announced) -> Option<u64> {
        match self.same_as(announced) {
            Some(_) => Some(announced.bytes),
            None => self.intake.kept(announced),
        }
    }

    /// The replica has ended: what is left of a broken transfer is removed.
    pub(crate) fn end_intake(&self) {
        self.intake.end();
    }

    /// Names a written and synced file durably and publishes it; removes what is older than two generations.
    pub(crate) fn publish(
        &self,
        temporary: &Path,
        header: Header,
        info: SnapshotInfo,
    ) -> Result<SnapshotFile, SnapshotError> {
        let path = self.dir.join(name_of(&header));
        durable::publish(self.vfs.as_ref(), temporary, &path)?;
        // Its name is that of a sound one now.
        self.damaged.lock().retain(|old| old.path != path);
        let file = SnapshotFile::new(Arc::clone(&self.vfs), path, header, info);
        let index = file.info().applied.index;
        let mut kept = self.kept.lock();
        kept.retain(|old| old.info().applied.index != index);
        kept.push(file.clone());
        kept.sort_by_key(|file| file.info().applied.index);
        drop(kept);
        self.intake.forget(index);
        self.prune();
        Ok(file)
    }

    /// Discards a temporary file; what cannot be removed now is removed at the next start.
    pub(crate) fn discard(&self, temporary: &Path) {
        discard(self.vfs.as_ref(), temporary);
    }

    /// Removes generations beyond the kept ones, and rotten ones once a sound one replaces them, unless somebody reads them; and those that
    /// were damaged at the start, once there is no want of sound ones. May block for as long as the disk takes to free them; who asks for a
    /// snapshot meanwhile does not wait for that.
    pub(crate) fn prune(&self) {
        let mut removed = Vec::new();
        for file in self.take_obsolete() {
            if self.is_left(file.path(), file.info().bytes, &mut removed) {
                self.put_back(file);
            }
        }
        for file in self.take_replaced() {
            if self.is_left(&file.path, file.bytes, &mut removed) {
                self.damaged.lock().push(file);
            }
        }
        for nameless in removed {
            nameless.free(self.vfs.as_ref());
        }
    }

    /// Takes a file's name. Whether it is left for another time, for the disk did not do it.
    fn is_left(&self, path: &Path, bytes: u64, removed: &mut Vec<Nameless>) -> bool {
        match durable::unname(self.vfs.as_ref(), path, bytes) {
            Ok(nameless) => {
                removed.push(nameless);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "an old snapshot could not be removed");
                !error.is_not_found()
            }
        }
    }

    /// Takes out what is to be removed: nobody holds it, and nobody can come to hold it any more.
    fn take_obsolete(&self) -> Vec<SnapshotFile> {
        let mut kept = self.kept.lock();
        let sound = kept.iter().filter(|file| !file.is_rotten());
        let newest = sound.clone().map(|file| file.info().applied.index).max();
        let mut surplus = sound.count().saturating_sub(GENERATIONS);
        let obsolete = kept.extract_if(.., |file| {
            let is_obsolete = if file.is_rotten() {
                newest.is_some_and(|newest| newest > file.info().applied.index)
            } else {
                let beyond = surplus > 0;
                surplus = surplus.saturating_sub(1);
                beyond
            };
            is_obsolete && file.is_idle()
        });
        obsolete.collect()
    }

    /// Takes out those damaged at the start that a newer one of as many sound ones as are kept stands for.
    fn take_replaced(&self) -> Vec<DamagedFile> {
        let sound = self.sound();
        let newest = sound.last().map_or(0, |file| file.info().applied.index);
        let is_enough = sound.len() >= GENERATIONS;
        let mut damaged = self.damaged.lock();
        let replaced = damaged.extract_if(.., |file| is_enough && file.index < newest);
        replaced.collect()
    }

    /// Keeps a file after all that could not be removed.
    fn put_back(&self, file: SnapshotFile) {
        let mut kept = self.kept.lock();
        kept.push(file);
        kept.sort_by_key(|file| file.info().applied.index);
    }

    /// Whether whoever asks for a snapshot has to wait now.
    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.kept.is_locked()
    }
}

pub(super) fn dir_of(root: &Path, group: GroupId) -> PathBuf {
    root.join(format!("{:016x}", group.0))
}

fn name_of(header: &Header) -> String {
    name_at(Applied {
        index: header.last.index(),
        term: term_of(&header.last),
    })
}

fn name_at(Applied { index, term }: Applied) -> String {
    format!("{index:016x}-{term:016x}{SUFFIX}")
}

/// The index in a name; `None` in one that is not of here.
fn index_of(name: &str) -> Option<u64> {
    let (index, _term) = name.split_once('-')?;
    u64::from_str_radix(index, 16).ok()
}
