//! Snapshots that a coordinator pushed, kept beside this node's own until a new incarnation begins from them.
//!
//! A file's name says which shard and incarnation it is meant for and which BLAKE3 hash the whole of it has; names are made here,
//! from numbers. A file gets its name when all of it has arrived, its length and hash are as announced, and it is synced. Nothing
//! that is already here is touched before. Of the same snapshot for the same incarnation one push is taken at a time: everybody who holds it
//! may send it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::admin::v1::SnapshotInfo;
use cluster::limits::SNAPSHOT_CHUNK_BYTES;
use cluster::{Incarnation, ShardId};
use parking_lot::Mutex;
use replication::{SnapshotError, SnapshotFile};
use vfs::{FileWriter, Vfs, durable};

const DIR: &str = "seeds";
const SUFFIX: &str = ".snap";

/// A pushed snapshot was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    #[error("writing the snapshot: {0}")]
    Write(#[from] std::io::Error),
    #[error("a piece begins at byte {found}, expected was {expected}")]
    Order { found: u64, expected: u64 },
    #[error("{found} bytes were sent, {expected} were announced")]
    Length { found: u64, expected: u64 },
    #[error("the content has another hash than was announced")]
    Hash,
    #[error("the content is no snapshot: {0}")]
    Content(#[from] SnapshotError),
    #[error("the same snapshot is on its way here already")]
    UnderWay,
}

/// The directory of pushed snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Seeds {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    arriving: Arriving,
}

/// The files that are being taken in, by their final names. Clones share them.
type Arriving = Arc<Mutex<BTreeSet<PathBuf>>>;

/// The right to take a file in, until it is dropped.
#[derive(Debug)]
struct Turn {
    arriving: Arriving,
    path: PathBuf,
}

impl Turn {
    fn take(arriving: &Arriving, path: PathBuf) -> Result<Self, SeedError> {
        if !arriving.lock().insert(path.clone()) {
            return Err(SeedError::UnderWay);
        }
        Ok(Self {
            arriving: Arc::clone(arriving),
            path,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.arriving.lock().remove(&self.path);
    }
}

impl Seeds {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, data_dir: &Path) -> Self {
        Self {
            vfs,
            dir: data_dir.join(DIR),
            arriving: Arriving::default(),
        }
    }

    /// Makes the directory and what is in it durable, and removes what a crash left half-written.
    pub(crate) fn open(&self) -> Result<(), vfs::Error> {
        durable::create_dir(self.vfs.as_ref(), &self.dir)?;
        durable::remove_temporaries(self.vfs.as_ref(), &self.dir)?;
        // A shard may begin from what is found here: it must not be in the page cache only.
        self.vfs.sync_dir(&self.dir)
    }

    fn path(&self, shard: ShardId, incarnation: Incarnation, hash: &[u8]) -> PathBuf {
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!(
            "{:016x}-{:016x}-{hash}{SUFFIX}",
            shard.0, incarnation.0
        ))
    }

    /// The snapshot that an incarnation is to begin from, if it has arrived.
    pub(crate) fn find(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        hash: &[u8],
    ) -> Result<Option<SnapshotFile>, SnapshotError> {
        let path = self.path(shard, incarnation, hash);
        if !self.vfs.exists(&path)? {
            return Ok(None);
        }
        SnapshotFile::open(Arc::clone(&self.vfs), &path).map(Some)
    }

    /// Begins to take a snapshot in. One that is on its way already is refused.
    pub(crate) fn receive(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        announced: &SnapshotInfo,
    ) -> Result<Incoming, SeedError> {
        let path = self.path(shard, incarnation, &announced.hash);
        let temporary = durable::temporary(&path);
        let turn = Turn::take(&self.arriving, path)?;
        match self.vfs.remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Incoming {
            vfs: Arc::clone(&self.vfs),
            writer: FileWriter::new(self.vfs.create_new(&temporary)?),
            hasher: blake3::Hasher::new(),
            temporary,
            turn,
            bytes: announced.bytes,
            hash: announced.hash.to_vec(),
        })
    }

    /// Removes what was pushed for a shard up to an incarnation that has begun.
    pub(crate) fn remove(&self, shard: ShardId, upto: Incarnation) -> Result<(), vfs::Error> {
        let of_shard = format!("{:016x}-", shard.0);
        for entry in self.vfs.list_dir(&self.dir)? {
            let name = entry.name.to_string_lossy();
            let incarnation = name
                .strip_prefix(&of_shard)
                .and_then(|rest| rest.get(..16))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if incarnation.is_some_and(|found| found <= upto.0) {
                durable::remove(self.vfs.as_ref(), &self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

/// A snapshot that is arriving. Dropped before [`Incoming::finish`], nothing of it stays for longer than until it is pushed again, or the next
/// start.
#[derive(Debug)]
pub(crate) struct Incoming {
    vfs: Arc<dyn Vfs>,
    writer: FileWriter,
    hasher: blake3::Hasher,
    temporary: PathBuf,
    turn: Turn,
    bytes: u64,
    hash: Vec<u8>,
}

impl Incoming {
    /// Takes the next piece. May block.
    pub(crate) fn piece(&mut self, offset: u64, data: &[u8]) -> Result<(), SeedError> {
        let expected = self.writer.position();
        if offset != expected {
            return Err(SeedError::Order {
                found: offset,
                expected,
            });
        }
        let found = expected.saturating_add(data.len() as u64);
        if found > self.bytes {
            return Err(SeedError::Length {
                found,
                expected: self.bytes,
            });
        }
        std::io::Write::write_all(&mut self.writer, data)?;
        self.hasher.update(data);
        Ok(())
    }

    /// Checks the whole and keeps it. May block.
    pub(crate) fn finish(self) -> Result<u64, SeedError> {
        let found = self.writer.position();
        if found != self.bytes {
            return Err(SeedError::Length {
                found,
                expected: self.bytes,
            });
        }
        if self.hasher.finalize().as_bytes().as_slice() != self.hash {
            return Err(SeedError::Hash);
        }
        drop(self.writer.finish()?);
        // What does not verify is found out now, not when the shard is to begin.
        SnapshotFile::open(Arc::clone(&self.vfs), &self.temporary)?;
        durable::publish(self.vfs.as_ref(), &self.temporary, &self.turn.path)?;
        Ok(found)
    }
}

/// The hash by which the whole of a file is announced. May block for as long as it takes to read.
pub(crate) fn whole_hash(file: &SnapshotFile) -> Result<[u8; 32], SnapshotError> {
    let mut input = file.read()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; SNAPSHOT_CHUNK_BYTES];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        };
    }
}

#[cfg(test)]
mod tests {
    use vfs::SimDisk;
    use vfs::sim::every_mishap_twice;

    use super::*;

    fn seeds() -> Seeds {
        let seeds = Seeds::new(Arc::new(SimDisk::new()), Path::new("/data"));
        seeds.open().unwrap();
        seeds
    }

    fn announced(content: &[u8]) -> SnapshotInfo {
        SnapshotInfo {
            bytes: content.len() as u64,
            hash: blake3::hash(content).as_bytes().to_vec().into(),
            ..SnapshotInfo::default()
        }
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let seeds = seeds();
        let begin = |info: &SnapshotInfo| seeds.receive(ShardId(1), Incarnation(2), info).unwrap();
        let info = announced(b"abcdef");
        let mut incoming = begin(&info);
        incoming.piece(0, b"abc").unwrap();
        let error = incoming.piece(4, b"e").unwrap_err();
        assert!(matches!(
            error,
            SeedError::Order {
                found: 4,
                expected: 3
            }
        ));
        let error = incoming.piece(3, b"defg").unwrap_err();
        assert!(matches!(
            error,
            SeedError::Length {
                found: 7,
                expected: 6
            }
        ));
        let error = incoming.finish().unwrap_err();
        assert!(matches!(
            error,
            SeedError::Length {
                found: 3,
                expected: 6
            }
        ));

        let mut incoming = begin(&info);
        incoming.piece(0, b"abcdeX").unwrap();
        assert!(matches!(incoming.finish().unwrap_err(), SeedError::Hash));

        // The hash is right, but it is no snapshot.
        let mut incoming = begin(&info);
        incoming.piece(0, b"abcdef").unwrap();
        assert!(matches!(
            incoming.finish().unwrap_err(),
            SeedError::Content(_)
        ));
        let found = seeds.find(ShardId(1), Incarnation(2), &info.hash).unwrap();
        assert!(found.is_none());
    }

    const SHARD: ShardId = ShardId(1);

    fn at(disk: &SimDisk) -> Seeds {
        Seeds::new(Arc::new(disk.clone()), Path::new("/data"))
    }

    /// A snapshot that verifies: its numbers are all zero, and it has no members.
    fn snapshot() -> Vec<u8> {
        let mut bytes = b"ACSNAPSH".to_vec();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(57_u32.to_le_bytes());
        bytes.extend([0; 57]);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(b"content".repeat(200));
        bytes.extend(1400_u64.to_le_bytes());
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes.extend(b"ACSNAPOK");
        bytes
    }

    fn push(disk: &SimDisk, incarnation: u64) -> Result<(), SeedError> {
        let (seeds, content) = (at(disk), snapshot());
        let info = announced(&content);
        let mut incoming = seeds.receive(SHARD, Incarnation(incarnation), &info)?;
        for piece in content.chunks(500) {
            let offset = incoming.writer.position();
            incoming.piece(offset, piece)?;
        }
        incoming.finish().map(drop)
    }

    /// What a start finds: whether the snapshot for an incarnation is there, which is then the whole.
    fn start(disk: &SimDisk, incarnation: u64) -> Result<bool, SeedError> {
        let (seeds, content) = (at(disk), snapshot());
        seeds.open()?;
        let hash = announced(&content).hash;
        let Some(file) = seeds.find(SHARD, Incarnation(incarnation), &hash)? else {
            return Ok(false);
        };
        assert_eq!(disk.contents(file.path()).unwrap(), content);
        Ok(true)
    }

    /// As [`start`], of a disk that is sound by now; another start after power was lost finds the same.
    fn settled(image: &SimDisk, incarnation: u64) -> bool {
        let found = start(image, incarnation).unwrap();
        let after = image.crash_losing_all();
        assert_eq!(start(&after, incarnation).unwrap(), found);
        found
    }

    #[test]
    fn whatever_goes_wrong_while_a_snapshot_is_pushed_it_is_there_whole_or_not_at_all() {
        let disk = SimDisk::new();
        at(&disk).open().unwrap();
        let runs = every_mishap_twice(
            &disk,
            &false,
            |disk: &SimDisk, arrived: &mut bool| {
                push(disk, 2)?;
                *arrived = true;
                Ok::<(), SeedError>(())
            },
            |disk, arrived| {
                let found = start(disk, 2)?;
                assert!(found || !*arrived);
                *arrived = found;
                Ok(())
            },
            |image, arrived, what| {
                assert!(settled(image, 2) || !*arrived, "{what:?}");
                push(image, 2).unwrap();
                assert!(settled(&image.crash_losing_all(), 2));
            },
        );
        assert!(runs > 500, "{runs} runs");
    }

    #[test]
    fn whatever_goes_wrong_while_what_was_begun_from_is_removed_the_next_one_stays() {
        let disk = SimDisk::new();
        at(&disk).open().unwrap();
        for incarnation in [1, 2] {
            push(&disk, incarnation).unwrap();
        }
        let runs = every_mishap_twice(
            &disk,
            &false,
            |disk: &SimDisk, is_gone: &mut bool| {
                at(disk).remove(SHARD, Incarnation(1))?;
                *is_gone = true;
                Ok::<(), SeedError>(())
            },
            |disk, is_gone| {
                let found = start(disk, 1)?;
                assert!(!found || !*is_gone);
                *is_gone = !found;
                Ok(())
            },
            |image, is_gone, what| {
                assert!(!settled(image, 1) || !*is_gone, "{what:?}");
                assert!(settled(image, 2), "{what:?}");
                at(image).remove(SHARD, Incarnation(1)).unwrap();
                let after = image.crash_losing_all();
                assert!(!settled(&after, 1) && settled(&after, 2));
            },
        );
        assert!(runs > 100, "{runs} runs");
    }

    #[test]
    fn of_the_same_snapshot_one_push_is_taken_in_at_a_time() {
        let disk = SimDisk::new();
        let seeds = at(&disk);
        seeds.open().unwrap();
        let content = snapshot();
        let info = announced(&content);
        let begin = |incarnation| seeds.receive(SHARD, Incarnation(incarnation), &info);
        let mut first = begin(2).unwrap();
        first.piece(0, &content[..500]).unwrap();
        let refused = begin(2).unwrap_err();
        assert!(matches!(refused, SeedError::UnderWay), "{refused}");
        // For another life it is another file.
        drop(begin(3).unwrap());
        first.piece(500, &content[500..]).unwrap();
        first.finish().unwrap();
        assert!(start(&disk, 2).unwrap());
        // One that broke off keeps nobody from beginning anew.
        let mut broken = begin(3).unwrap();
        broken.piece(0, &content[..500]).unwrap();
        drop(broken);
        let mut again = begin(3).unwrap();
        again.piece(0, &content).unwrap();
        again.finish().unwrap();
        assert!(start(&disk, 3).unwrap());
    }
}
