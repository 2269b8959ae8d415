//! Who this coordinator is, and whose data lie in its directory.
//!
//! The file `coordinator-id` in the data directory, little endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `ACCI` |
//! | 4 | 2 | version 2 |
//! | 6 | 2 | stage: 0 new, 1 a member, 2 a member whose log has begun |
//! | 8 | 8 | the coordinator's id, from the configuration |
//! | 16 | 16 | the instance, drawn when the directory was first used |
//! | 32 | 16 | the cluster; zeros while new |
//! | 48 | 8 | number of members; 0 while new |
//! | 56 | 24 each | the members: identity (8), instance (16) |
//! | end | 4 | CRC32 of everything before |
//!
//! What always holds: the instance is on the disk before anybody is told of it, and the membership before the coordinator
//! takes part in anything. So an instance that the other members know belongs to this very directory, and one that they do not
//! know has never voted: an empty directory cannot pass for one that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluster::{ClusterId, NodeId};
use runtime::Runtime;
use vfs::{Vfs, durable};

use crate::Error;
use crate::metadata::number_of;

pub(crate) const NAME: &str = "coordinator-id";
const MAGIC: [u8; 4] = *b"ACCI";
const VERSION: u16 = 2;
const HEAD_BYTES: usize = 56;
const MEMBER_BYTES: usize = 24;
/// Coordinators of one cluster, with room for more than the configuration takes.
pub(crate) const MEMBERS_MAX: usize = 16;
const BYTES_MAX: usize = HEAD_BYTES + MEMBERS_MAX * MEMBER_BYTES + 4;

/// Drawn for a data directory.
pub(crate) type Instance = [u8; 16];

/// Who a coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) instance: Instance,
    /// `None` until the coordinator belongs to a cluster.
    pub(crate) membership: Option<Membership>,
    /// Something of the metadata's log was on this disk once.
    pub(crate) begun: bool,
}

/// A cluster, by its coordinators as far as this one knows them: the identity of each in the metadata's group, and the instance of its
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Membership {
    pub(crate) cluster: ClusterId,
    pub(crate) members: BTreeMap<NodeId, Instance>,
}

impl Membership {
    /// The identity of a directory, if it is a member's.
    pub(crate) fn of(&self, instance: &Instance) -> Option<NodeId> {
        let mut members = self.members.iter();
        members.find_map(|(id, known)| (known == instance).then_some(*id))
    }

    /// The numbers of the members.
    pub(crate) fn numbers(&self) -> BTreeSet<NodeId> {
        self.members.keys().map(|id| number_of(*id)).collect()
    }

    /// Whether this is newer: of two, the one with the newer identity in it is.
    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        self.newest() > other.newest()
    }

    /// The identity that was given last.
    pub(crate) fn newest(&self) -> Option<NodeId> {
        self.members.keys().next_back().copied()
    }
}

/// Reads who the directory belongs to; draws and writes an instance when it is new.
///
/// # Errors
/// When the disk fails, the file is damaged or missing beside a log, or the directory belongs to another coordinator.
pub(crate) fn open(
    vfs: &dyn Vfs,
    runtime: &Runtime,
    dir: &Path,
    id: NodeId,
) -> Result<Identity, Error> {
    durable::create_dir(vfs, dir)?;
    let path = dir.join(NAME);
    let has_log = vfs.exists(&dir.join("wal"))? && !vfs.list_dir(&dir.join("wal"))?.is_empty();
    if vfs.exists(&path)? {
        let bytes = durable::read_settled(vfs, &path, BYTES_MAX as u64)?;
        let found = decode(&bytes).map_err(|problem| refuse(&path, problem))?;
        if found.id != id {
            let problem = format!("belongs to coordinator {}, not to {id}", found.id);
            return Err(refuse(&path, problem));
        }
        if found.begun && !has_log {
            let problem = "tells of a log that is not there: the disk has lost data";
            return Err(refuse(&path, problem));
        }
        return Ok(found);
    }
    if has_log {
        return Err(refuse(&path, "is missing although there is a log"));
    }
    let drawn = Identity {
        id,
        instance: runtime.random_id(),
        membership: None,
        begun: false,
    };
    store(vfs, dir, &drawn)?;
    Ok(drawn)
}

/// Writes who the directory belongs to.
pub(crate) fn store(vfs: &dyn Vfs, dir: &Path, identity: &Identity) -> Result<(), Error> {
    durable::replace(vfs, &dir.join(NAME), &encode(identity))?;
    Ok(())
}

fn refuse(path: &Path, problem: impl Into<String>) -> Error {
    Error::Identity {
        path: PathBuf::from(path),
        problem: problem.into(),
    }
}

pub(crate) fn encode(identity: &Identity) -> Vec<u8> {
    let stage: u16 = match (&identity.membership, identity.begun) {
        (None, _) => 0,
        (Some(_), false) => 1,
        (Some(_), true) => 2,
    };
    let (cluster, members) = match &identity.membership {
        Some(of) => (of.cluster, of.members.clone()),
        None => (ClusterId::default(), BTreeMap::new()),
    };
    let mut bytes = Vec::with_capacity(BYTES_MAX);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&stage.to_le_bytes());
    bytes.extend_from_slice(&identity.id.0.to_le_bytes());
    bytes.extend_from_slice(&identity.instance);
    bytes.extend_from_slice(&cluster.0);
    bytes.extend_from_slice(&(members.len() as u64).to_le_bytes());
    for (id, instance) in members {
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&instance);
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The identity in a file, or what is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let damaged = || "is damaged".to_owned();
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let mut rest = body;
    let (magic, version) = (take(&mut rest), take(&mut rest).map(u16::from_le_bytes));
    match (magic, version) {
        (Some(MAGIC), Some(VERSION)) => fields(rest).ok_or_else(damaged),
        (Some(MAGIC), Some(version)) if version > VERSION => Err(format!(
            "has format version {version}, this program knows up to {VERSION}"
        )),
        _ => Err(damaged()),
    }
}

/// Reads what follows the version.
fn fields(mut rest: &[u8]) -> Option<Identity> {
    let stage = u16::from_le_bytes(take(&mut rest)?);
    let id = NodeId(u64::from_le_bytes(take(&mut rest)?));
    let instance = take(&mut rest)?;
    let cluster = ClusterId(take(&mut rest)?);
    let count = usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?;
    if stage > 2 || count > MEMBERS_MAX {
        return None;
    }
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let id = NodeId(u64::from_le_bytes(take(&mut rest)?));
        members.insert(id, take(&mut rest)?);
    }
    let is_whole = rest.is_empty() && members.len() == count && (stage == 0) == (count == 0);
    is_whole.then_some(Identity {
        id,
        instance,
        membership: (stage > 0).then_some(Membership { cluster, members }),
        begun: stage == 2,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (value, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*value)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use vfs::SimDisk;
    use vfs::sim::every_mishap_twice;

    use super::*;

    fn member(begun: bool) -> Identity {
        Identity {
            id: NodeId(2),
            instance: [2; 16],
            membership: Some(Membership {
                cluster: ClusterId([9; 16]),
                members: (1..=3).map(|id| (NodeId(id), [id as u8; 16])).collect(),
            }),
            begun,
        }
    }

    #[test]
    fn an_instance_is_drawn_once_and_every_damage_is_noticed() {
        let disk = vfs::SimDisk::default();
        let runtime = Runtime::real();
        let dir = Path::new("data");
        let drawn = open(&disk, &runtime, dir, NodeId(1)).unwrap();
        assert_eq!(drawn.membership, None);
        assert_eq!(open(&disk, &runtime, dir, NodeId(1)).unwrap(), drawn);
        for identity in [drawn, member(false), member(true)] {
            let good = encode(&identity);
            assert!(good.len() <= BYTES_MAX);
            assert_eq!(decode(&good), Ok(identity));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bad), Err("is damaged".into()), "bit {bit}");
            }
            assert_eq!(decode(&good[1..]), Err("is damaged".into()));
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_not_called_damage() {
        let disk = vfs::SimDisk::default();
        let dir = Path::new("data");
        durable::create_dir(&disk, dir).unwrap();
        let mut bytes = encode(&member(true));
        bytes[4] = 3;
        let content = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..content]);
        bytes[content..].copy_from_slice(&crc.to_le_bytes());
        durable::replace(&disk, &dir.join(NAME), &bytes).unwrap();
        let error = open(&disk, &Runtime::real(), dir, NodeId(2)).unwrap_err();
        let told = "has format version 3, this program knows up to 2";
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(disk.contents(&dir.join(NAME)).unwrap(), bytes);
    }

    #[test]
    fn a_directory_serves_one_coordinator() {
        let disk = vfs::SimDisk::default();
        let runtime = Runtime::real();
        let dir = Path::new("data");
        open(&disk, &runtime, dir, NodeId(1)).unwrap();
        let error = open(&disk, &runtime, dir, NodeId(2)).unwrap_err();
        assert!(error.to_string().contains("coordinator 1"), "{error}");
    }

    #[test]
    fn a_log_and_the_identity_go_together() {
        let runtime = Runtime::real();
        let dir = Path::new("data");
        let disk = vfs::SimDisk::default();
        durable::create_dir(&disk, &dir.join("wal")).unwrap();
        durable::replace(&disk, &dir.join("wal").join("1"), b"x").unwrap();
        assert!(open(&disk, &runtime, dir, NodeId(1)).is_err());

        let disk = vfs::SimDisk::default();
        durable::create_dir(&disk, dir).unwrap();
        store(&disk, dir, &member(false)).unwrap();
        open(&disk, &runtime, dir, NodeId(2)).unwrap();
        store(&disk, dir, &member(true)).unwrap();
        let error = open(&disk, &runtime, dir, NodeId(2)).unwrap_err();
        assert!(error.to_string().contains("lost data"), "{error}");
    }

    const ID: NodeId = NodeId(2);

    fn dir() -> &'static Path {
        Path::new("/data")
    }

    /// A start of a coordinator: it is told its instance, belongs to a cluster, and begins a log. What others have been told is kept.
    fn begin(disk: &SimDisk, told: &mut Option<Identity>) -> Result<(), Error> {
        let found = open(disk, &Runtime::real(), dir(), ID)?;
        *told = Some(found.clone());
        let membership = member(false).membership;
        let mut identity = Identity {
            membership,
            ..found
        };
        store(disk, dir(), &identity)?;
        *told = Some(identity.clone());
        durable::create_dir(disk, &dir().join("wal"))?;
        durable::replace(disk, &dir().join("wal/1"), b"x")?;
        identity.begun = true;
        store(disk, dir(), &identity)?;
        *told = Some(identity);
        Ok(())
    }

    /// A start finds what others were told or something newer, finds it again after power was lost, and can go on.
    fn judge(image: &SimDisk, told: Option<&Identity>, what: &dyn Debug) {
        let found = open(image, &Runtime::real(), dir(), ID);
        let found = found.unwrap_or_else(|error| panic!("{what:?}: {error}"));
        if let Some(told) = told {
            assert_eq!(found.instance, told.instance, "{what:?}");
            assert!(found.membership.is_some() || told.membership.is_none());
            assert!(found.begun || !told.begun, "{what:?}");
        }
        assert!(found.membership.is_none() || found.membership == member(true).membership);
        let after = image.crash_losing_all();
        let again = open(&after, &Runtime::real(), dir(), ID).unwrap();
        assert_eq!(again, found, "{what:?}");
        let mut gone_on = None;
        begin(&after, &mut gone_on).unwrap();
        let instance = found.instance;
        assert_eq!(
            gone_on,
            Some(Identity {
                instance,
                ..member(true)
            })
        );
    }

    #[test]
    fn whatever_goes_wrong_in_the_first_start_and_the_next_the_identity_is_one_that_was_told() {
        let start = |disk: &SimDisk, told: &mut Option<Identity>| {
            *told = Some(open(disk, &Runtime::real(), dir(), ID)?);
            Ok(())
        };
        let runs = every_mishap_twice(&SimDisk::new(), &None, begin, start, |image, told, what| {
            judge(image, told.as_ref(), what);
        });
        assert!(runs > 1000, "{runs} runs");
    }
}
