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

use super::{REPLICAS_DEFAULT, SHARDS_DEFAULT};
use crate::exit::usage;

/// The version of a directory whose shards have one replica, and that of the others, which says how many they have.
const VERSION: u32 = 1;
const VERSION_REPLICATED: u32 = 2;
const FILE_BYTES_MAX: u64 = 4096;

/// What a cluster is begun with and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    version: u32,
    shards: u16,
    /// Absent in version 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    replicas: u16,
}

fn one() -> u16 {
    1
}

fn is_one(replicas: &u16) -> bool {
    *replicas == 1
}

impl Begun {
    fn new(shards: u16, replicas: u16) -> Self {
        Self {
            version: if replicas == 1 {
                VERSION
            } else {
                VERSION_REPLICATED
            },
            shards,
            replicas,
        }
    }
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
    /// When another process uses it, or it was begun with another number of shards or replicas than the one asked for.
    pub(super) fn open(
        dir: &Path,
        shards: Option<u16>,
        replicas: Option<u16>,
    ) -> Result<Self, anyhow::Error> {
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
            let begun = Begun::new(
                shards.unwrap_or(SHARDS_DEFAULT),
                replicas.unwrap_or(REPLICAS_DEFAULT),
            );
            durable::replace(&disk, &path, &serde_json::to_vec_pretty(&begun)?)?;
            begun
        };
        anyhow::ensure!(
            (VERSION..=VERSION_REPLICATED).contains(&begun.version),
            "{} has version {}, this program knows {VERSION} to {VERSION_REPLICATED}",
            path.display(),
            begun.version
        );
        for (what, asked, known) in [
            ("shards", shards, begun.shards),
            ("replicas", replicas, begun.replicas),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != known) {
                return Err(usage(format!(
                    "{} was begun with {known} {what}, and --{what} {asked} cannot change that: leave --{what} out, or choose another --data-dir",
                    dir.display(),
                )));
            }
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

    pub(super) fn replicas(&self) -> usize {
        usize::from(self.begun.replicas)
    }

    /// Shard servers: one a shard, and no two replicas of a shard on one.
    pub(super) fn nodes(&self) -> usize {
        self.shards().max(self.replicas())
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
        assert_eq!(Place::open(&dir, Some(5), None).unwrap().shards(), 5);
        assert_eq!(Place::open(&dir, None, None).unwrap().shards(), 5);
        assert_eq!(Place::open(&dir, Some(5), Some(1)).unwrap().shards(), 5);
        let error = Place::open(&dir, Some(3), None).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(error.to_string().contains("begun with 5 shards"));
        let error = Place::open(&dir, None, Some(3)).unwrap_err();
        assert!(error.to_string().contains("begun with 1 replicas"));
    }

    #[test]
    fn the_number_of_replicas_is_kept_and_asks_for_as_many_servers() {
        let dir = tempfile::tempdir().unwrap();
        let begun = Place::open(dir.path(), Some(2), Some(3)).unwrap();
        assert_eq!((begun.replicas(), begun.nodes()), (3, 3));
        drop(begun);
        let again = Place::open(dir.path(), None, None).unwrap();
        assert_eq!((again.shards(), again.replicas()), (2, 3));
    }

    #[test]
    fn a_directory_of_before_replicas_has_one_of_each_shard() {
        let dir = tempfile::tempdir().unwrap();
        drop(Place::open(dir.path(), Some(2), None).unwrap());
        let path = dir.path().join("cluster.json");
        let written = durable::read(&RealDisk::new(), &path, FILE_BYTES_MAX).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert!(!text.contains("replicas"), "older programs read it: {text}");
        let of_before = b"{\"version\":1,\"shards\":2}";
        durable::replace(&RealDisk::new(), &path, of_before).unwrap();
        let opened = Place::open(dir.path(), None, None).unwrap();
        assert_eq!((opened.shards(), opened.replicas()), (2, 1));
    }

    #[test]
    fn a_directory_is_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = Place::open(dir.path(), None, None).unwrap();
        assert_eq!(held.shards(), 3);
        let error = Place::open(dir.path(), None, None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("used by another process"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(Place::open(dir.path(), None, None).unwrap());
        let path = dir.path().join("cluster.json");
        for text in ["", "{\"version\":1}", "{\"version\":3,\"shards\":3}"] {
            durable::replace(&RealDisk::new(), &path, text.as_bytes()).unwrap();
            assert!(Place::open(dir.path(), None, None).is_err(), "{text}");
        }
    }
}
