//! What a node remembers of its last orders, so that a restart needs no coordinator: assignments, the map, and which groups
//! it has begun.
//!
//! A file of a magic number with the version (8 bytes, `ACORDR01`), then three parts, each behind its length (4 bytes, little-endian):
//! the last `SyncResponse` with its map, the groups begun (8 bytes shard, 8 bytes incarnation each), and a CRC32 of all before.
//!
//! *Invariant `begun_is_known`*: a group is in the file before its replica serves. Where the file names a group that is not on the disk any more, its
//! log was lost, and the replica is refused instead of being begun anew.

use std::collections::BTreeSet;
use std::path::Path;

use api::registry::v1::SyncResponse;
use cluster::{Incarnation, ShardId};
use prost::Message as _;
use vfs::{Vfs, durable};

use super::magic::{self, Unusable};

const FILE: &str = "orders";
const MAGIC: [u8; 8] = *b"ACORDR01";
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Memory {
    /// The last assignments, and the newest map.
    pub(crate) orders: SyncResponse,
    /// Every group that this node has begun and not removed.
    pub(crate) begun: BTreeSet<(ShardId, Incarnation)>,
}

/// The memory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// The file is damaged, or the disk does not give it back.
    #[error("the remembered orders are damaged: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// The file was written by a newer program. Nothing was changed: start that program.
    #[error(
        "the remembered orders have format version {version}, this program knows up to {known}"
    )]
    NewerFormat {
        /// Its version.
        version: u8,
        /// The newest known here.
        known: u8,
    },
}

impl From<Unusable> for MemoryError {
    fn from(found: Unusable) -> Self {
        match found {
            Unusable::Damaged(problem) => Self::Damaged {
                problem: problem.to_owned(),
            },
            Unusable::Newer { version, known } => Self::NewerFormat { version, known },
        }
    }
}

/// Reads the memory of a data directory; empty where there is none.
pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Memory, MemoryError> {
    match durable::read_settled(vfs, &dir.join(FILE), FILE_BYTES_MAX) {
        Ok(bytes) => Ok(decode(&bytes)?),
        Err(error) if error.is_not_found() => Ok(Memory::default()),
        Err(error) if error.is_unreadable() => Err(MemoryError::Damaged {
            problem: error.to_string(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Writes the memory durably.
pub(crate) fn store(vfs: &dyn Vfs, dir: &Path, memory: &Memory) -> Result<(), vfs::Error> {
    durable::replace(vfs, &dir.join(FILE), &encode(memory))
}

/// The name of the file, for moving it aside.
pub(crate) const fn file_name() -> &'static str {
    FILE
}

pub(crate) fn encode(memory: &Memory) -> Vec<u8> {
    let orders = memory.orders.encode_to_vec();
    let mut bytes = Vec::with_capacity(orders.len() + memory.begun.len() * 16 + 24);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(orders.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&orders);
    bytes.extend_from_slice(&((memory.begun.len() * 16) as u32).to_le_bytes());
    for (shard, incarnation) in &memory.begun {
        bytes.extend_from_slice(&shard.0.to_le_bytes());
        bytes.extend_from_slice(&incarnation.0.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Memory, Unusable> {
    let short = "too short";
    let (content, check) = bytes.split_last_chunk::<4>().ok_or(short)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*check) {
        return Err("checksum".into());
    }
    let (magic, rest) = content.split_first_chunk::<8>().ok_or(short)?;
    magic::check(magic, &MAGIC)?;
    let (orders, rest) = part(rest).ok_or(short)?;
    let (begun, rest) = part(rest).ok_or(short)?;
    let (pairs, odd) = begun.as_chunks::<16>();
    if !rest.is_empty() || !odd.is_empty() {
        return Err("bytes behind the end".into());
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let pair = |pair: &[u8; 16]| {
        let (shard, incarnation) = pair.split_at(8);
        (ShardId(number(shard)), Incarnation(number(incarnation)))
    };
    Ok(Memory {
        orders: SyncResponse::decode(orders).map_err(|_| "orders do not decode")?,
        begun: pairs.iter().map(pair).collect(),
    })
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use api::registry::v1::Assignment;
    use vfs::sim::{Effect, Fault, every_mishap_twice};
    use vfs::{Op, SimDisk};

    use super::*;

    fn memory() -> Memory {
        Memory {
            orders: SyncResponse {
                assignments: vec![Assignment {
                    shard_id: 2,
                    incarnation: 1,
                    ..Assignment::default()
                }],
                map: None,
                epoch: 9,
                ..SyncResponse::default()
            },
            begun: BTreeSet::from([(ShardId(2), Incarnation(1)), (ShardId(7), Incarnation(3))]),
        }
    }

    #[test]
    fn orders_are_remembered() {
        let disk = SimDisk::new();
        let dir = Path::new("/data");
        durable::create_dir(&disk, dir).unwrap();
        assert_eq!(load(&disk, dir).unwrap(), Memory::default());
        store(&disk, dir, &memory()).unwrap();
        assert_eq!(load(&disk, dir).unwrap(), memory());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let good = encode(&memory());
        assert_eq!(decode(&good).unwrap(), memory());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = decode(&bytes);
            assert!(matches!(found, Err(Unusable::Damaged(_))), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_a_file_that_is_not_given_back_is_damage() {
        let disk = SimDisk::new();
        let dir = Path::new("/data");
        durable::create_dir(&disk, dir).unwrap();
        let mut newer = encode(&memory());
        newer[6..8].copy_from_slice(b"12");
        let content = newer.len() - 4;
        let check = crc32fast::hash(&newer[..content]);
        newer[content..].copy_from_slice(&check.to_le_bytes());
        durable::replace(&disk, &dir.join(FILE), &newer).unwrap();
        let error = load(&disk, dir).unwrap_err();
        let is_newer = matches!(
            error,
            MemoryError::NewerFormat {
                version: 12,
                known: 1
            }
        );
        assert!(is_newer, "{error}");
        assert_eq!(disk.contents(&dir.join(FILE)).unwrap(), newer);

        store(&disk, dir, &memory()).unwrap();
        disk.inject(Fault::next(Op::Read, Effect::Io));
        assert_eq!(load(&disk, dir).unwrap(), memory(), "one read that failed");
        disk.inject(Fault::next(Op::OpenRead, Effect::Io));
        let error = load(&disk, dir).unwrap_err();
        assert!(matches!(error, MemoryError::Disk(_)), "{error}");
        disk.make_unreadable(&dir.join(FILE), 0..1).unwrap();
        let error = load(&disk, dir).unwrap_err();
        assert!(matches!(error, MemoryError::Damaged { .. }), "{error}");
    }

    /// What was there before or what was to be written, whichever it was said to be; found again after power was lost, and written over.
    fn judge(image: &SimDisk, allowed: &[Memory; 2], told: Option<&Memory>, what: &str) {
        let dir = Path::new("/data");
        let found = load(image, dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(allowed.contains(&found), "{what}: {found:?}");
        assert!(told.is_none_or(|told| *told == found), "{what}: {found:?}");
        let after = image.crash_losing_all();
        assert_eq!(load(&after, dir).unwrap(), found, "{what}");
        let [_, new] = allowed;
        store(&after, dir, new).unwrap();
        assert_eq!(load(&after.crash_losing_all(), dir).unwrap(), *new);
    }

    #[test]
    fn whatever_goes_wrong_while_orders_are_written_and_read_they_are_the_old_or_the_new() {
        let dir = Path::new("/data");
        let disk = SimDisk::new();
        durable::create_dir(&disk, dir).unwrap();
        let later = Memory {
            begun: (0..90)
                .map(|shard| (ShardId(shard), Incarnation(4)))
                .collect(),
            ..memory()
        };
        for allowed in [[Memory::default(), memory()], [memory(), later]] {
            let [_, new] = &allowed;
            let write = |disk: &SimDisk, told: &mut Option<Memory>| {
                store(disk, dir, new)?;
                *told = Some(new.clone());
                Ok::<(), MemoryError>(())
            };
            let read = |disk: &SimDisk, told: &mut Option<Memory>| {
                *told = Some(load(disk, dir)?);
                Ok(())
            };
            let runs = every_mishap_twice(&disk, &None, write, read, |image, told, what| {
                judge(image, &allowed, told.as_ref(), &format!("{what:?}"));
            });
            assert!(runs > 100, "{runs} runs");
            store(&disk, dir, new).unwrap();
        }
    }
}
