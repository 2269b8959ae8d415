//! The simulated disk as a [`Vfs`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    SimDisk,
    disk::{Disk, failed, input_output_error, place as placed},
    fault::Effect,
    inode::Inode,
    names::{NameChange, Node},
};
use crate::{DirEntry, Error, LockGuard, Op, Result, Vfs, VfsFile, durable::parent, file::Held};

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    path: PathBuf,
    writable: bool,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl SimDisk {
    fn open(&self, op: Op, path: &Path) -> Result<Box<dyn VfsFile>> {
        let mut disk = self.disk.lock();
        disk.begin(op, path, 0, 0)?;
        let Some(Node::File(inode)) = disk.visible.get(path) else {
            return Err(failed(op, path, io::ErrorKind::NotFound));
        };
        Ok(self.handle(inode, path, op == Op::OpenWrite))
    }

    fn handle(&self, inode: u64, path: &Path, writable: bool) -> Box<dyn VfsFile> {
        Box::new(SimFile {
            disk: Arc::clone(&self.disk),
            inode,
            path: path.to_owned(),
            writable,
        })
    }
}

impl Vfs for SimDisk {
    fn create_new(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let op = Op::CreateNew;
        let mut disk = self.disk.lock();
        disk.begin(op, path, 0, 0)?;
        if disk.visible.get(path).is_some() {
            return Err(failed(op, path, io::ErrorKind::AlreadyExists));
        }
        if disk.visible.get(parent(path)) != Some(Node::Dir) {
            return Err(failed(op, path, io::ErrorKind::NotFound));
        }
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode::default());
        disk.change_names(NameChange::Add(path.to_owned(), Node::File(inode)));
        Ok(self.handle(inode, path, true))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.open(Op::OpenRead, path)
    }

    fn open_write(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.open(Op::OpenWrite, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(Op::Rename, to, 0, 0)?;
        let node = disk.visible.get(from);
        let node = node.ok_or_else(|| failed(Op::Rename, from, io::ErrorKind::NotFound))?;
        if disk.visible.get(parent(to)) != Some(Node::Dir) {
            return Err(failed(Op::Rename, to, io::ErrorKind::NotFound));
        }
        if node == Node::Dir && disk.visible.below(to).len() > 1 {
            return Err(failed(Op::Rename, to, io::ErrorKind::DirectoryNotEmpty));
        }
        disk.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(Op::RemoveFile, path, 0, 0)?;
        disk.file(Op::RemoveFile, path)?;
        disk.change_names(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let op = Op::CreateDir;
        let mut disk = self.disk.lock();
        disk.begin(op, path, 0, 0)?;
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match disk.visible.get(at) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(failed(op, at, io::ErrorKind::AlreadyExists)),
                None => missing.push(at.to_owned()),
            }
            at = parent(at);
        }
        for dir in missing.into_iter().rev() {
            disk.change_names(NameChange::Add(dir, Node::Dir));
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(Op::RemoveDir, path, 0, 0)?;
        if disk.visible.get(path) != Some(Node::Dir) {
            return Err(failed(Op::RemoveDir, path, io::ErrorKind::NotFound));
        }
        for name in disk.visible.below(path).into_iter().rev() {
            disk.change_names(NameChange::Remove(name));
        }
        Ok(())
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let mut disk = self.disk.lock();
        disk.begin(Op::List, path, 0, 0)?;
        if disk.visible.get(path) != Some(Node::Dir) {
            return Err(failed(Op::List, path, io::ErrorKind::NotFound));
        }
        let mut entries: Vec<DirEntry> = disk
            .visible
            .children(path)
            .map(|(name, node)| DirEntry {
                name: name.file_name().unwrap_or_default().to_owned(),
                is_dir: node == Node::Dir,
                len: match node {
                    Node::Dir => 0,
                    Node::File(inode) => disk.inodes.get(&inode).map_or(0, Inode::len),
                },
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut disk = self.disk.lock();
        disk.begin(Op::Exists, path, 0, 0)?;
        Ok(disk.visible.get(path).is_some())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(Op::SyncDir, path, 0, 0)?;
        if disk.visible.get(path) != Some(Node::Dir) {
            return Err(failed(Op::SyncDir, path, io::ErrorKind::NotFound));
        }
        disk.sync_names(path);
        Ok(())
    }

    fn free_space(&self, path: &Path) -> Result<u64> {
        let mut disk = self.disk.lock();
        disk.begin(Op::FreeSpace, path, 0, 0)?;
        Ok(disk.free())
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard> {
        {
            let mut disk = self.disk.lock();
            disk.begin(Op::Lock, path, 0, 0)?;
            if !disk.locks.insert(path.to_owned()) {
                return Err(failed(Op::Lock, path, io::ErrorKind::WouldBlock));
            }
        }
        let held = HeldPath {
            disk: Arc::clone(&self.disk),
            path: path.to_owned(),
        };
        let exists = self.disk.lock().visible.get(path).is_some();
        if !exists {
            self.create_new(path)?;
        }
        Ok(LockGuard::new(path, Box::new(held)))
    }
}

#[derive(Debug)]
struct HeldPath {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Held for HeldPath {}

impl Drop for HeldPath {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

impl SimFile {
    /// Begins an operation and hands the file's content to `work`.
    fn with<T>(
        &self,
        op: Op,
        place: (u64, u64),
        work: impl FnOnce(&mut Inode, Option<Effect>, u64) -> io::Result<T>,
    ) -> Result<T> {
        let mut disk = self.disk.lock();
        let effect = disk.begin(op, &self.path, place.0, place.1)?;
        if !self.writable && matches!(op, Op::Write | Op::Truncate | Op::Allocate) {
            return Err(failed(op, &self.path, io::ErrorKind::PermissionDenied));
        }
        let free = disk.free();
        let inode = disk.inodes.get_mut(&self.inode);
        let inode = inode.ok_or_else(|| failed(op, &self.path, io::ErrorKind::NotFound))?;
        work(inode, effect, free)
            .map_err(|source| placed(Error::new(op, &self.path, source), place.0))
    }

    fn sync(&self, op: Op) -> Result<()> {
        let mut disk = self.disk.lock();
        let released = Arc::clone(&disk.released);
        while disk.syncs_held {
            released.wait(&mut disk);
        }
        drop(disk);
        self.with(op, (0, 0), |inode, effect, _| {
            let error = match effect {
                Some(Effect::Io) => input_output_error(),
                Some(Effect::NoSpace) => io::Error::from(io::ErrorKind::StorageFull),
                Some(Effect::Quota) => io::Error::from(io::ErrorKind::QuotaExceeded),
                Some(_) | None => {
                    inode.sync();
                    return Ok(());
                }
            };
            inode.forget_dirty();
            Err(error)
        })
    }
}

impl VfsFile for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let place = (offset, buf.len() as u64);
        self.with(Op::Read, place, |inode, effect, _| {
            let count = match effect {
                Some(Effect::Short(bytes)) => bytes.clamp(1, buf.len().max(1)).min(buf.len()),
                Some(_) | None => buf.len(),
            };
            let count = inode.sound_bytes(offset, count)?;
            Ok(inode.read(buf.get_mut(..count).unwrap_or_default(), offset))
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let place = (offset, buf.len() as u64);
        self.with(Op::Write, place, |inode, effect, free| {
            let mut count = match effect {
                Some(Effect::Short(bytes) | Effect::TornIo(bytes)) => bytes.min(buf.len()),
                Some(_) | None => buf.len(),
            };
            let room = (inode.len() + free).saturating_sub(offset);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            if room == 0 && count > 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            count = count.min(room);
            inode.write_over(offset, count)?;
            inode.write(buf.get(..count).unwrap_or_default(), offset);
            match effect {
                Some(Effect::TornIo(_)) => Err(input_output_error()),
                Some(_) | None => Ok(count),
            }
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.sync(Op::SyncData)
    }

    fn sync_all(&self) -> Result<()> {
        self.sync(Op::SyncAll)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.with(Op::Truncate, (len, 0), |inode, _, free| {
            if len.saturating_sub(inode.len()) > free {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            inode.truncate(len);
            Ok(())
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.with(Op::Allocate, (offset, len), |inode, _, free| {
            if (offset + len).saturating_sub(inode.len()) > free {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            inode.grow(offset + len);
            Ok(())
        })
    }

    fn len(&self) -> Result<u64> {
        self.with(Op::Len, (0, 0), |inode, _, _| Ok(inode.len()))
    }
}
