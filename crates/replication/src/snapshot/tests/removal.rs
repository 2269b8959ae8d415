//! Old snapshots are removed by whoever takes new ones, and nobody else waits for the disk meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};

use vfs::{DirEntry, LockGuard, VfsFile};

use super::every_call::indices;
use super::*;

/// A disk that looks at a store whenever it is at a snapshot that is to be removed.
#[derive(Debug)]
struct Onlooker {
    disk: SimDisk,
    store: OnceLock<Weak<SnapshotStore>>,
    looks: AtomicU64,
}

impl Onlooker {
    fn look(&self, path: &Path) {
        let is_snapshot = path.extension().is_some_and(|ending| ending == "snap");
        let store = self.store.get().and_then(Weak::upgrade);
        if let Some(store) = store.filter(|_| is_snapshot) {
            let path = path.display();
            assert!(!store.is_locked(), "others wait for the removal of {path}");
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Vfs for Onlooker {
    fn create_new(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        self.disk.create_new(path)
    }

    fn open_read(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        self.disk.open_read(path)
    }

    fn open_write(&self, path: &Path) -> vfs::Result<Box<dyn VfsFile>> {
        self.look(path);
        self.disk.open_write(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> vfs::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> vfs::Result<()> {
        self.look(path);
        self.disk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> vfs::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> vfs::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> vfs::Result<Vec<DirEntry>> {
        self.disk.list_dir(path)
    }

    fn exists(&self, path: &Path) -> vfs::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> vfs::Result<()> {
        self.disk.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> vfs::Result<u64> {
        self.disk.free_space(path)
    }

    fn lock_file(&self, path: &Path) -> vfs::Result<LockGuard> {
        self.disk.lock_file(path)
    }
}

#[test]
fn who_asks_for_a_snapshot_does_not_wait_for_the_removal_of_an_old_one() {
    let (_, disk) = disk();
    let onlooker = Arc::new(Onlooker {
        disk: disk.clone(),
        store: OnceLock::new(),
        looks: AtomicU64::new(0),
    });
    let vfs = Arc::clone(&onlooker) as Arc<dyn Vfs>;
    let store = Arc::new(store(&vfs).0);
    onlooker.store.set(Arc::downgrade(&store)).unwrap();
    // So large that it is opened before it is removed.
    let oldest = take(&store, 10, &vec![1; 3 << 20]).path().to_owned();
    take(&store, 20, b"2");
    disk.inject(Fault::next(Op::RemoveFile, Effect::Io).on_path(".snap"));
    take(&store, 30, b"3");
    assert_eq!(indices(&store), [10, 20, 30], "it could not be removed");
    assert_eq!(store.purgeable(), Some(20));
    store.prune();
    assert_eq!(indices(&store), [20, 30]);
    assert!(!vfs.exists(&oldest).unwrap());
    assert_eq!(onlooker.looks.load(Ordering::Relaxed), 4);
}
