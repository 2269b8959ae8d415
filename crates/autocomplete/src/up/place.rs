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

use super::{REPLICAS_DEFAULT, REPLICAS_MAX, SERVERS_MAX, SHARDS_DEFAULT};
use crate::exit::usage;

/// The version of a directory that says how many shard servers it has. In the two versions before there is one for each shard, and in the
/// first one replica of each.
const VERSION: u32 = 3;
const FILE_BYTES_MAX: u64 = 4096;

/// What a cluster is begun with and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    version: u32,
    shards: u16,
    /// Absent in version 1.
    #[serde(default = "one")]
    replicas: u16,
    /// Absent in versions 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    servers: Option<u16>,
}

fn one() -> u16 {
    1
}

impl Begun {
    /// One server writes one log, so that records for all its shards share a sync: there are no more than replicas need, unless
    /// more are asked for.
    fn new(asked: Asked) -> Self {
        let replicas = asked.replicas.unwrap_or(REPLICAS_DEFAULT);
        Self {
            version: VERSION,
            shards: asked.shards.unwrap_or(SHARDS_DEFAULT),
            replicas,
            servers: Some(asked.servers.unwrap_or(replicas)),
        }
    }

    fn servers(&self) -> u16 {
        self.servers.unwrap_or(self.shards.max(self.replicas))
    }

    /// What a file says.
    ///
    /// # Errors
    /// When it was not written here, or by a newer program.
    fn read(text: &[u8]) -> Result<Self, anyhow::Error> {
        let begun: Self = serde_json::from_slice(text).context("it is damaged")?;
        anyhow::ensure!(
            (1..=VERSION).contains(&begun.version),
            "it has version {}, this program knows 1 to {VERSION}",
            begun.version
        );
        anyhow::ensure!(
            begun.version < VERSION || begun.servers.is_some(),
            "it is damaged: it does not say how many servers there are"
        );
        let servers = begun.servers();
        let is_possible = (1..=SERVERS_MAX).contains(&begun.shards)
            && (1..=REPLICAS_MAX).contains(&begun.replicas)
            && (begun.replicas..=SERVERS_MAX).contains(&servers);
        anyhow::ensure!(
            is_possible,
            "it is damaged: {} shards of {} replicas on {servers} servers cannot be",
            begun.shards,
            begun.replicas
        );
        Ok(begun)
    }
}

/// Of the cluster that a file says was begun: shards, replicas, servers.
pub(crate) fn numbers_of(text: &[u8]) -> Option<[usize; 3]> {
    let begun = Begun::read(text).ok()?;
    Some([begun.shards, begun.replicas, begun.servers()].map(usize::from))
}

/// What somebody asks for; `None` where anything will do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) shards: Option<u16>,
    pub(super) replicas: Option<u16>,
    /// Shard servers.
    pub(super) servers: Option<u16>,
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
    /// When another process uses it, or it was begun with another number of shards, replicas or servers than the one asked for; when
    /// there are to be fewer servers than replicas.
    pub(super) fn open(dir: &Path, asked: Asked) -> Result<Self, anyhow::Error> {
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
            Begun::read(&bytes).with_context(|| format!("reading {}", path.display()))?
        } else {
            let begun = Begun::new(asked);
            if begun.servers() < begun.replicas {
                return Err(usage(format!(
                    "--servers {} is too few for --replicas {}: each replica of a shard is on another server",
                    begun.servers(),
                    begun.replicas
                )));
            }
            durable::replace(&disk, &path, &serde_json::to_vec_pretty(&begun)?)?;
            begun
        };
        for (what, asked, known) in [
            ("shards", asked.shards, begun.shards),
            ("replicas", asked.replicas, begun.replicas),
            ("servers", asked.servers, begun.servers()),
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

    /// Shard servers.
    pub(super) fn servers(&self) -> usize {
        usize::from(self.begun.servers())
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

    fn open(dir: &Path, asked: Asked) -> Place {
        Place::open(dir, asked).unwrap()
    }

    fn shards(number: u16) -> Asked {
        Asked {
            shards: Some(number),
            ..Asked::default()
        }
    }

    fn replicas(number: u16) -> Asked {
        Asked {
            replicas: Some(number),
            ..Asked::default()
        }
    }

    fn servers(number: u16) -> Asked {
        Asked {
            servers: Some(number),
            ..Asked::default()
        }
    }

    fn refusal(dir: &Path, asked: Asked) -> String {
        let error = Place::open(dir, asked).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn what_a_directory_was_begun_with_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("below/data");
        for asked in [shards(5), Asked::default(), shards(5), replicas(1)] {
            let place = open(&dir, asked);
            let numbers = (place.shards(), place.replicas(), place.servers());
            assert_eq!(numbers, (5, 1, 1));
        }
        assert!(refusal(&dir, shards(3)).contains("begun with 5 shards"));
        assert!(refusal(&dir, replicas(3)).contains("begun with 1 replicas"));
        assert!(refusal(&dir, servers(3)).contains("begun with 1 servers"));
    }

    #[test]
    fn there_are_as_many_servers_as_replicas_or_more_if_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let begun = open(&dir.path().join("a"), replicas(3));
        assert_eq!((begun.replicas(), begun.servers()), (3, 3));
        let begun = open(&dir.path().join("five"), replicas(5));
        assert_eq!((begun.replicas(), begun.servers()), (5, 5));
        let begun = open(&dir.path().join("b"), servers(4));
        assert_eq!((begun.replicas(), begun.servers()), (1, 4));
        let too_few = Asked {
            servers: Some(2),
            ..replicas(3)
        };
        assert!(refusal(&dir.path().join("c"), too_few).contains("--servers 2 is too few"));
    }

    #[test]
    fn directories_of_before_have_a_server_for_each_shard() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), shards(2)));
        let path = dir.path().join("cluster.json");
        for (text, expected) in [
            ("{\"version\":1,\"shards\":2}", (2, 1, 2)),
            ("{\"version\":2,\"shards\":2,\"replicas\":3}", (2, 3, 3)),
        ] {
            durable::replace(&RealDisk::new(), &path, text.as_bytes()).unwrap();
            let place = open(dir.path(), Asked::default());
            let numbers = (place.shards(), place.replicas(), place.servers());
            assert_eq!(numbers, expected, "{text}");
        }
    }

    #[test]
    fn a_directory_is_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = open(dir.path(), Asked::default());
        assert_eq!(held.shards(), 3);
        let error = Place::open(dir.path(), Asked::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("used by another process"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), Asked::default()));
        let path = dir.path().join("cluster.json");
        for text in [
            "",
            "{\"version\":1}",
            "{\"version\":3,\"shards\":3}",
            "{\"version\":4,\"shards\":3,\"servers\":3}",
            "{\"version\":3,\"shards\":0,\"servers\":3}",
            "{\"version\":3,\"shards\":65,\"servers\":3}",
            "{\"version\":3,\"shards\":3,\"replicas\":0,\"servers\":3}",
            "{\"version\":3,\"shards\":3,\"replicas\":9,\"servers\":9}",
            "{\"version\":3,\"shards\":3,\"replicas\":5,\"servers\":4}",
        ] {
            durable::replace(&RealDisk::new(), &path, text.as_bytes()).unwrap();
            assert!(Place::open(dir.path(), Asked::default()).is_err(), "{text}");
        }
    }
}
