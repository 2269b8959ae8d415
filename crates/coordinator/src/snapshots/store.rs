//! The files.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::admin::v1::SnapshotInfo;
use api::{ApiError, Reason};
use bytes::Bytes;
use cluster::{Incarnation, ShardId};
use parking_lot::RwLock;
use runtime::Runtime;
use vfs::{FileReader, FileWriter, Vfs, durable};

use super::name;
use crate::Error;

/// A snapshot that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Incarnation,
    pub(crate) raft_term: u64,
    pub(crate) index: u64,
    pub(crate) bytes: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) taken_at_ms: i64,
}

impl Held {
    /// How far it reaches: later lives further than earlier ones.
    pub(crate) fn reach(&self) -> (Incarnation, u64) {
        (self.incarnation, self.index)
    }

    /// What reaches further is newer.
    fn age(&self) -> ((Incarnation, u64), i64) {
        (self.reach(), self.taken_at_ms)
    }
}

impl From<&Held> for SnapshotInfo {
    fn from(held: &Held) -> Self {
        Self {
            shard_id: held.shard.0,
            incarnation: held.incarnation.0,
            raft_term: held.raft_term,
            index: held.index,
            bytes: held.bytes,
            hash: Bytes::copy_from_slice(&held.hash),
            taken_at_ms: held.taken_at_ms,
        }
    }
}

impl TryFrom<SnapshotInfo> for Held {
    type Error = ApiError;

    fn try_from(info: SnapshotInfo) -> Result<Self, ApiError> {
        let hash = info.hash.as_ref().try_into().map_err(|_| {
            let problem = format!("has {} bytes, must have 32", info.hash.len());
            ApiError::field(Reason::BadArgument, "snapshot.hash", problem)
        })?;
        Ok(Self {
            shard: ShardId(info.shard_id),
            incarnation: Incarnation(info.incarnation),
            raft_term: info.raft_term,
            index: info.index,
            bytes: info.bytes,
            hash,
            taken_at_ms: info.taken_at_ms,
        })
    }
}

/// The held files of all shards.
#[derive(Debug)]
pub(crate) struct Store {
    runtime: Runtime,
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    kept: usize,
    /// Newest first. Changed when a file is published or removed, read by everybody.
    held: RwLock<BTreeMap<ShardId, Vec<Held>>>,
    /// Transfers that were begun.
    transfers: AtomicU64,
}

impl Store {
    /// Opens the folder, and removes what a crash left half received. Blocks.
    pub(crate) fn open(
        runtime: Runtime,
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        kept: usize,
    ) -> Result<Self, Error> {
        durable::create_dir(vfs.as_ref(), &dir)?;
        let mut held = BTreeMap::new();
        for folder in vfs.list_dir(&dir)? {
            let name = folder.name.to_string_lossy();
            let shard = name.parse().ok().map(ShardId);
            let Some(shard) = shard.filter(|_| folder.is_dir) else {
                continue;
            };
            let path = dir.join(&folder.name);
            durable::remove_temporaries(vfs.as_ref(), &path)?;
            // What is held here is given back to a shard that lost its own: it must not be in the page cache only.
            vfs.sync_dir(&path)?;
            let files = vfs.list_dir(&path)?;
            let mut found: Vec<Held> = files
                .iter()
                .filter_map(|file| name::parse(shard, &file.name.to_string_lossy(), file.len))
                .collect();
            found.sort_by_key(|held| std::cmp::Reverse(held.age()));
            held.insert(shard, found);
        }
        Ok(Self {
            runtime,
            vfs,
            dir,
            kept,
            held: RwLock::new(held),
            transfers: AtomicU64::new(0),
        })
    }

    /// Everything that is held, by shard, newest first.
    pub(crate) fn list(&self) -> Vec<Held> {
        self.held.read().values().flatten().cloned().collect()
    }

    /// What is held of a shard, newest first.
    pub(crate) fn of(&self, shard: ShardId) -> Vec<Held> {
        self.held.read().get(&shard).cloned().unwrap_or_default()
    }

    /// The newest held snapshot of a shard that still matches its hash.
    pub(crate) async fn newest_sound(self: &Arc<Self>, shard: ShardId) -> Option<Held> {
        for held in self.of(shard) {
            if self.is_sound(&held).await {
                return Some(held);
            }
        }
        None
    }

    /// Whether a held snapshot still matches its hash. One that does not is not held any more, so that it can be fetched again.
    pub(crate) async fn is_sound(self: &Arc<Self>, held: &Held) -> bool {
        let (shard, index) = (held.shard, held.index);
        let (store, wanted) = (Arc::clone(self), held.clone());
        let task = move || store.verify_patiently(&wanted);
        match self.runtime.spawn_blocking("snapshot-verify", task).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%shard, index, %error, "a held snapshot is damaged");
                self.forget(held);
                false
            }
            Err(error) => {
                tracing::error!(%shard, index, %error, "a held snapshot was not verified");
                false
            }
        }
    }

    /// The file stays, for whoever wants to look into it, until the same snapshot comes again; a start judges it anew.
    fn forget(&self, rotten: &Held) {
        if let Some(list) = self.held.write().get_mut(&rotten.shard) {
            list.retain(|held| held != rotten);
        }
    }

    /// As [`Self::verify`], for a verdict: what could not be read is read once more, for an older snapshot
    /// in its place lacks writes for good.
    fn verify_patiently(&self, held: &Held) -> io::Result<()> {
        match self.verify(held) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => self.verify(held),
            verdict => verdict,
        }
    }

    fn verify(&self, held: &Held) -> io::Result<()> {
        let file = self.vfs.open_read(&self.path(held))?;
        let mut reader = FileReader::new(file);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            };
        }
        if hasher.finalize() == blake3::Hash::from_bytes(held.hash) {
            Ok(())
        } else {
            let problem = "the content does not match its hash";
            Err(io::Error::new(io::ErrorKind::InvalidData, problem))
        }
    }

    /// Begins to receive a snapshot. Blocks.
    pub(crate) fn receive(&self, held: Held) -> io::Result<Receiving> {
        let path = self.path(&held);
        durable::create_dir(self.vfs.as_ref(), durable::parent(&path))?;
        let free = self.vfs.free_space(&self.dir)?;
        if held.bytes > free {
            let problem = format!("{} bytes are to come, {free} are free", held.bytes);
            return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
        }
        // The same snapshot may be on its way twice, for an operator and by itself: neither must write into the other's file.
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let temporary = durable::temporary(&path.with_added_extension(transfer.to_string()));
        let file = self.vfs.create_new(&temporary)?;
        Ok(Receiving {
            held,
            temporary,
            writer: FileWriter::new(file),
            hasher: blake3::Hasher::new(),
        })
    }

    /// Gives a received snapshot its name, and removes what is older than what is kept, but not what was received. Blocks.
    pub(crate) fn publish(&self, received: Receiving) -> io::Result<Held> {
        let Receiving {
            held,
            temporary,
            writer,
            hasher,
        } = received;
        let whole = writer.position() == held.bytes
            && hasher.finalize() == blake3::Hash::from_bytes(held.hash);
        if !whole {
            drop(writer);
            self.remove_half(&temporary);
            let problem = "what was received does not match its length and hash";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let finished = writer.finish();
        let published = finished
            .and_then(|_| durable::publish(self.vfs.as_ref(), &temporary, &self.path(&held)));
        if let Err(error) = published {
            // It comes again under another name: until the next start nobody else would remove it.
            self.remove_half(&temporary);
            return Err(error.into());
        }
        let mut all = self.held.write();
        let list = all.entry(held.shard).or_default();
        list.retain(|other| *other != held);
        list.push(held.clone());
        list.sort_by_key(|held| std::cmp::Reverse(held.age()));
        let mut old = list.split_off(list.len().min(self.kept));
        // Whoever fetched it may be about to begin a life from it, and what looks newer may be rotten: it goes with the next that comes.
        let received = old.iter().position(|other| *other == held);
        list.extend(received.map(|at| old.swap_remove(at)));
        drop(all);
        for held in old {
            // All of it at once, with the last who reads it: it may be on its way to a node just now.
            durable::remove(self.vfs.as_ref(), &self.path(&held))?;
        }
        Ok(held)
    }

    /// Removes what was received of a snapshot that broke off. Blocks.
    pub(crate) fn discard(&self, received: &Receiving) {
        self.remove_half(&received.temporary);
    }

    fn remove_half(&self, temporary: &Path) {
        match self.vfs.remove_file(temporary) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "a half received snapshot was not removed"),
        }
    }

    /// Opens a held snapshot. Blocks.
    pub(crate) fn read(&self, held: &Held) -> io::Result<FileReader> {
        Ok(FileReader::new(self.vfs.open_read(&self.path(held))?))
    }

    fn path(&self, held: &Held) -> PathBuf {
        self.dir
            .join(held.shard.to_string())
            .join(Path::new(&name::of(held)))
    }
}

/// A snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Receiving {
    held: Held,
    temporary: PathBuf,
    writer: FileWriter,
    hasher: blake3::Hasher,
}

impl Receiving {
    /// Where the next chunk must begin.
    pub(crate) fn position(&self) -> u64 {
        self.writer.position()
    }

    /// Takes a chunk; more than was announced is refused. Blocks.
    pub(crate) fn take(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.position() + chunk.len() as u64 > self.held.bytes {
            let problem = "more bytes than were announced";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.hasher.update(chunk);
        io::Write::write_all(&mut self.writer, chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use vfs::SimDisk;
    use vfs::sim::{Effect, Fault, Mishap, every_mishap, every_mishap_twice};

    use super::*;

    fn open(disk: &Arc<SimDisk>) -> Arc<Store> {
        Arc::new(try_open(disk).unwrap())
    }

    fn try_open(disk: &SimDisk) -> Result<Store, Error> {
        let disk: Arc<dyn Vfs> = Arc::new(disk.clone());
        Store::open(Runtime::real(), disk, "store".into(), 2)
    }

    fn held(index: u64, content: &[u8]) -> Held {
        Held {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            raft_term: 1,
            index,
            bytes: content.len() as u64,
            hash: *blake3::hash(content).as_bytes(),
            taken_at_ms: 0,
        }
    }

    fn receive(store: &Store, index: u64, content: &[u8]) -> io::Result<Held> {
        let mut receiving = store.receive(held(index, content))?;
        content
            .chunks(3)
            .try_for_each(|chunk| receiving.take(chunk))
            .inspect_err(|_| store.discard(&receiving))?;
        store.publish(receiving)
    }

    fn indexes(store: &Store) -> Vec<u64> {
        store.list().iter().map(|at| at.index).collect()
    }

    #[test]
    fn the_newest_two_are_kept_over_a_restart() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        for index in [10, 30, 20] {
            receive(&store, index, format!("content {index}").as_bytes()).unwrap();
        }
        assert_eq!(indexes(&store), [30, 20]);
        assert_eq!(indexes(&open(&disk)), [30, 20]);
    }

    #[test]
    fn one_that_is_removed_while_it_is_read_is_read_to_its_end() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        let content = vec![7; 3 << 20];
        let mut receiving = store.receive(held(10, &content)).unwrap();
        receiving.take(&content).unwrap();
        let oldest = store.publish(receiving).unwrap();
        let mut reader = store.read(&oldest).unwrap();
        for index in [20, 30] {
            receive(&store, index, b"content").unwrap();
        }
        assert_eq!(indexes(&store), [30, 20]);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content, "{} bytes of it", read.len());
    }

    #[test]
    fn what_does_not_match_its_hash_is_not_kept() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        let mut receiving = store.receive(held(1, b"right")).unwrap();
        receiving.take(b"wrong").unwrap();
        assert!(store.publish(receiving).is_err());
        let mut receiving = store.receive(held(1, b"right")).unwrap();
        assert!(receiving.take(b"much too long").is_err());
        store.discard(&receiving);
        let short = store.receive(held(1, b"right")).unwrap();
        assert!(store.publish(short).is_err());
        assert!(store.list().is_empty());
        assert!(disk.list_dir(Path::new("store/1")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_snapshot_that_comes_twice_at_once_is_whole() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        let [mut first, second] = [(); 2].map(|()| store.receive(held(7, b"content")).unwrap());
        first.take(b"content").unwrap();
        let published = store.publish(first).unwrap();
        assert_eq!(store.newest_sound(ShardId(1)).await, Some(published));
        store.discard(&second);
        assert_eq!(store.list().len(), 1);
        assert_eq!(disk.list_dir(Path::new("store/1")).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_rotten_file_is_passed_over() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        receive(&store, 1, b"older").unwrap();
        let newest = receive(&store, 2, b"newer").unwrap();
        assert_eq!(store.newest_sound(ShardId(1)).await.unwrap().index, 2);
        let file = disk.open_write(&store.path(&newest)).unwrap();
        file.write_all_at(b"X", 2).unwrap();
        assert_eq!(store.newest_sound(ShardId(1)).await.unwrap().index, 1);
        assert_eq!(store.newest_sound(ShardId(2)).await, None);
    }

    #[tokio::test]
    async fn what_has_rotted_is_not_held_until_it_comes_again() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        let held = receive(&store, 2, b"newer").unwrap();
        receive(&store, 1, b"older").unwrap();
        let file = disk.open_write(&store.path(&held)).unwrap();
        file.write_all_at(b"X", 2).unwrap();
        assert!(!store.is_sound(&held).await);
        assert_eq!(indexes(&store), [1]);
        receive(&store, 2, b"newer").unwrap();
        assert!(store.is_sound(&held).await);
        assert_eq!(indexes(&open(&disk)), [2, 1]);
    }

    #[test]
    fn what_was_just_received_stays_until_the_next_comes() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        for (index, expected) in [
            (20, &[20][..]),
            (30, &[30, 20]),
            (10, &[30, 20, 10]),
            (40, &[40, 30]),
        ] {
            receive(&store, index, &content(index)).unwrap();
            assert_eq!(indexes(&store), expected);
        }
        assert_eq!(disk.list_dir(Path::new("store/1")).unwrap().len(), 2);
    }

    #[test]
    fn a_snapshot_of_an_ended_life_is_older_whatever_its_index() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        for (life, index) in [(1, 9000), (1, 9500), (2, 40)] {
            let content = format!("content {index}");
            let held = Held {
                incarnation: Incarnation(life),
                ..held(index, content.as_bytes())
            };
            let mut receiving = store.receive(held).unwrap();
            receiving.take(content.as_bytes()).unwrap();
            store.publish(receiving).unwrap();
        }
        let places = |store: &Store| {
            let list = store.list();
            let place = |at: &Held| (at.incarnation.0, at.index);
            list.iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places(&store), [(2, 40), (1, 9500)]);
        assert_eq!(places(&open(&disk)), [(2, 40), (1, 9500)]);
    }

    /// Of some blocks, another one for each index.
    fn content(index: u64) -> Vec<u8> {
        (0..700_u64).map(|byte| (byte * index) as u8).collect()
    }

    const INDEXES: [u64; 3] = [10, 20, 30];

    /// What others rely on.
    #[derive(Debug, Clone, Default)]
    struct Promised {
        /// The newest that was said to be held.
        held: u64,
        /// The newest that may be.
        begun: u64,
    }

    fn receive_all(disk: &SimDisk, promised: &mut Promised) -> io::Result<()> {
        let store = try_open(disk).map_err(io::Error::other)?;
        for index in INDEXES {
            promised.begun = index;
            receive(&store, index, &content(index))?;
            promised.held = index;
        }
        Ok(())
    }

    /// What is held is whole and not less than was promised, nothing half received is left, and a loss of power takes nothing of it.
    fn judge(image: &SimDisk, promised: &Promised, what: &dyn Debug) -> Vec<u64> {
        let store = try_open(image).unwrap_or_else(|error| panic!("{what:?}: {error}"));
        let found = indexes(&store);
        let newest = found.first().copied().unwrap_or(0);
        assert!(
            (promised.held..=promised.begun).contains(&newest),
            "{what:?}: {found:?}"
        );
        // The one before it too: who was promised two has two.
        let before = INDEXES.into_iter().rfind(|index| *index < newest);
        assert!(before.is_none_or(|before| found.contains(&before)));
        for held in store.list() {
            store.verify(&held).unwrap();
            let kept = image.contents(&store.path(&held)).unwrap();
            assert_eq!(kept, content(held.index), "{what:?}");
        }
        let files = image.list_dir(Path::new("store/1")).unwrap_or_default();
        assert_eq!(files.len(), found.len(), "{what:?}: {files:?}");
        let after = image.crash_losing_all();
        assert_eq!(indexes(&try_open(&after).unwrap()), found, "{what:?}");
        found
    }

    #[test]
    fn whatever_goes_wrong_while_snapshots_are_received_the_newest_promised_are_held() {
        let start = |disk: &SimDisk, promised: &mut Promised| {
            let store = try_open(disk).map_err(io::Error::other)?;
            let newest = indexes(&store).first().copied();
            promised.held = promised.held.max(newest.unwrap_or(0));
            Ok(())
        };
        let runs = every_mishap_twice(
            &SimDisk::new(),
            &Promised::default(),
            receive_all,
            start,
            |image, promised, what| {
                judge(image, promised, what);
                let mut anew = Promised::default();
                receive_all(image, &mut anew).unwrap();
                assert_eq!(judge(&image.crash_losing_all(), &anew, what), [30, 20]);
            },
        );
        assert!(runs > 1000, "{runs} runs");
    }

    /// As the transfers go that are tried again, without a start between.
    #[test]
    fn a_snapshot_that_was_not_kept_comes_again_and_leaves_nothing_half_received() {
        let disk = SimDisk::new();
        drop(try_open(&disk).unwrap());
        let runs = every_mishap(&disk, |disk| {
            // The start failed: there is nobody to try again.
            let Ok(store) = try_open(disk) else { return };
            for index in INDEXES {
                let content = content(index);
                let done = receive(&store, index, &content);
                if done.is_ok() || disk.is_halted() {
                    continue;
                }
                receive(&store, index, &content).unwrap();
            }
            if !disk.is_halted() {
                assert_eq!(indexes(&store), [30, 20]);
            }
        });
        for run in runs {
            let files = run.disk.restart().list_dir(Path::new("store/1"));
            let files = files.unwrap_or_default().into_iter();
            let mut names = files.map(|file| file.name.into_string().unwrap());
            let half = names.find(|name| name.ends_with(durable::TEMPORARY_SUFFIX));
            let is_halt = matches!(run.mishap, Mishap::Halt { .. });
            assert!(half.is_none() || is_halt, "{:?}: {half:?}", run.mishap);
        }
    }

    #[tokio::test]
    async fn a_call_that_fails_once_does_not_make_an_older_snapshot_the_newest() {
        let disk = Arc::new(SimDisk::new());
        let store = open(&disk);
        for index in INDEXES {
            receive(&store, index, &content(index)).unwrap();
        }
        for effect in [Effect::Io, Effect::Short(100)] {
            for number in 0.. {
                disk.inject(Fault::nth(number, effect));
                let newest = store.newest_sound(ShardId(1)).await;
                let is_over = disk.take_back_faults() > 0;
                assert_eq!(newest.map(|held| held.index), Some(30), "call {number}");
                if is_over {
                    assert!(number > 1, "{number} calls");
                    break;
                }
            }
        }
    }
}
