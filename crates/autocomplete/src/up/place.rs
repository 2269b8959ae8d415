//! The data directory of a whole cluster.
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | held by the process that uses the directory |
//! | `cluster.json` | what the cluster was begun with |
//! | `coordinator/` | metadata and held snapshots |
//! | `node-<i>/` | the log and the snapshots of a shard server, from 1 |
//! | `sample.json` | how far the sample was loaded |

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vfs::{LockGuard, RealDisk, Vfs as _, durable};

use super::SHARDS_DEFAULT;
use crate::exit::usage;

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 4096;

/// What a cluster is begun with and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    version: u32,
    shards: u16,
}

/// A data directory that this process uses alone.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    begun: Begun,
    _lock: LockGuard,
}

impl Place {
    /// Takes the directory, and begins it where it is new.
    ///
    /// # Errors
    /// When another process uses it, or it was begun with another number of shards than the one asked for.
    pub(super) fn open(dir: &Path, shards: Option<u16>) -> Result<Self, anyhow::Error> {
        let disk = RealDisk::new();
        durable::create_dir(&disk, dir).context("the data directory")?;
        let lock = disk.lock_file(&dir.join("LOCK")).map_err(|error| {
            if error.is_locked() {
                return anyhow::anyhow!(
                    "{} is used by another process; stop it, or choose another --data-dir",
                    dir.display()
                );
            }
            error.into()
        })?;
        let path = dir.join("cluster.json");
        let begun = if disk.exists(&path)? {
            let bytes = durable::read(&disk, &path, FILE_BYTES_MAX)?;
            serde_json::from_slice::<Begun>(&bytes)
                .with_context(|| format!("{} is damaged", path.display()))?
        } else {
            let begun = Begun {
                version: VERSION,
                shards: shards.unwrap_or(SHARDS_DEFAULT),
            };
            durable::replace(&disk, &path, &serde_json::to_vec_pretty(&begun)?)?;
            begun
        };
        anyhow::ensure!(
            begun.version == VERSION,
            "{} has version {}, this program knows {VERSION}",
            path.display(),
            begun.version
        );
        if let Some(shards) = shards.filter(|shards| *shards != begun.shards) {
            return Err(usage(format!(
                "{} was begun with {} shards, and --shards {shards} cannot change that: leave --shards out, or choose another --data-dir",
                dir.display(),
                begun.shards
            )));
        }
        Ok(Self {
            dir: dir.to_owned(),
            begun,
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn shards(&self) -> usize {
        usize::from(self.begun.shards)
    }

    pub(super) fn coordinator_dir(&self) -> PathBuf {
        self.dir.join("coordinator")
    }

    /// Of the node with this number, from 1.
    pub(super) fn node_dir(&self, number: usize) -> PathBuf {
        self.dir.join(node_name(number))
    }

    pub(super) fn sample_state(&self) -> PathBuf {
        self.dir.join("sample.json")
    }
}

/// The name of a node, by its number from 1. Stable: the coordinator knows its disk by it.
pub(super) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Usage;

    #[test]
    fn the_number_of_shards_is_fixed_at_the_first_use() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("below/data");
        assert_eq!(Place::open(&dir, Some(5)).unwrap().shards(), 5);
        assert_eq!(Place::open(&dir, None).unwrap().shards(), 5);
        assert_eq!(Place::open(&dir, Some(5)).unwrap().shards(), 5);
        let error = Place::open(&dir, Some(3)).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(error.to_string().contains("begun with 5 shards"));
    }

    #[test]
    fn a_directory_is_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = Place::open(dir.path(), None).unwrap();
        assert_eq!(held.shards(), 3);
        let error = Place::open(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("used by another process"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(Place::open(dir.path(), None).unwrap());
        let path = dir.path().join("cluster.json");
        for text in ["", "{\"version\":1}", "{\"version\":2,\"shards\":3}"] {
            durable::replace(&RealDisk::new(), &path, text.as_bytes()).unwrap();
            assert!(Place::open(dir.path(), None).is_err(), "{text}");
        }
    }
}
