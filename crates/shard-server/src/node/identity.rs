//! Who this node is: a small file that outlives everything but the disk.
//!
//! The first start in an empty directory draws an instance id and writes it, durably, before anybody is told of it; registering
//! with it is then safe to repeat, and adds the node's number and the cluster to the file. A directory that holds data but no such file
//! has lost its identity and is refused; one that is empty gets a new identity, never its old one. Remembered orders alone are
//! no data: a node whose directory was emptied under it may have written them after.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `ACNODE01`, the last two digits are the format version |
//! | 8 | 16 | instance id |
//! | 24 | 16 | cluster id; zero until registered |
//! | 40 | 8 | node id, little-endian; 0 until registered |
//! | 48 | 2 | bytes of the name, little-endian |
//! | 50 | | name, UTF-8 |
//! | end | 4 | CRC32 of all before, little-endian |

use std::path::{Path, PathBuf};

use cluster::{ClusterId, NodeId};
use vfs::{Vfs, durable};

use super::magic::{self, Unusable};
use super::memory;

const FILE: &str = "identity";
const MAGIC: [u8; 8] = *b"ACNODE01";
const FILE_BYTES_MAX: u64 = 4096;
/// Entries of the data directory that may be there before the identity is.
const HARMLESS: [&str; 4] = ["LOCK", "lost+found", "given-up", memory::file_name()];

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityFile {
    /// Drawn when the directory was first used.
    pub(crate) instance: [u8; 16],
    /// Issued at registration.
    pub(crate) registered: Option<replication::Identity>,
    /// The name it was first used under.
    pub(crate) name: String,
}

/// The identity of a data directory cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// The file is damaged: move the directory aside to begin with a new identity.
    #[error("the identity in {} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The file was written by a newer program. Nothing was changed: start that program.
    #[error("the identity in {} has format version {version}, this program knows up to {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
        /// The newest known here.
        known: u8,
    },
    /// There is data, and nothing says whose it is.
    #[error("{} holds {found:?} but no identity: move it aside to begin with a new one", dir.display())]
    Missing {
        /// The data directory.
        dir: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The directory was used under another name.
    #[error("the data directory belongs to node {found:?}, not {expected:?}")]
    OtherName {
        /// In the file.
        found: String,
        /// In the configuration.
        expected: String,
    },
}

/// Reads the identity of a directory; where it is empty, writes one with the instance id given.
pub(crate) fn load_or_begin(
    vfs: &dyn Vfs,
    dir: &Path,
    name: &str,
    instance: [u8; 16],
) -> Result<IdentityFile, IdentityError> {
    let path = dir.join(FILE);
    let bytes = match durable::read_settled(vfs, &path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => {
            refuse_data(vfs, dir)?;
            // They name groups that went with the identity.
            durable::remove(vfs, &dir.join(memory::file_name()))?;
            let file = IdentityFile {
                instance,
                registered: None,
                name: name.to_owned(),
            };
            store(vfs, dir, &file)?;
            return Ok(file);
        }
        Err(error) => return Err(error.into()),
    };
    let file = decode(&bytes).map_err(|found| match found {
        Unusable::Damaged(problem) => IdentityError::Damaged { path, problem },
        Unusable::Newer { version, known } => IdentityError::NewerFormat {
            path,
            version,
            known,
        },
    })?;
    if file.name != name {
        return Err(IdentityError::OtherName {
            found: file.name,
            expected: name.to_owned(),
        });
    }
    Ok(file)
}

/// Writes the identity durably.
pub(crate) fn store(vfs: &dyn Vfs, dir: &Path, file: &IdentityFile) -> Result<(), vfs::Error> {
    durable::replace(vfs, &dir.join(FILE), &encode(file))
}

/// The name of the file, for moving it aside.
pub(crate) const fn file_name() -> &'static str {
    FILE
}

fn refuse_data(vfs: &dyn Vfs, dir: &Path) -> Result<(), IdentityError> {
    for entry in vfs.list_dir(dir)? {
        let name = entry.name.to_string_lossy();
        let harmless = HARMLESS.iter().any(|known| name.starts_with(known))
            || name.ends_with(durable::TEMPORARY_SUFFIX);
        if !harmless {
            return Err(IdentityError::Missing {
                dir: dir.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

pub(crate) fn encode(file: &IdentityFile) -> Vec<u8> {
    let (cluster, node) = file
        .registered
        .map_or(([0; 16], 0), |issued| (issued.cluster.0, issued.node.0));
    let mut bytes = Vec::with_capacity(64 + file.name.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&file.instance);
    bytes.extend_from_slice(&cluster);
    bytes.extend_from_slice(&node.to_le_bytes());
    // The configuration limits names to 255 bytes.
    bytes.extend_from_slice(&(file.name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(file.name.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<IdentityFile, Unusable> {
    let short = "it is too short";
    let (content, check) = bytes.split_last_chunk::<4>().ok_or(short)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*check) {
        return Err("it does not verify".into());
    }
    let (magic, rest) = content.split_first_chunk::<8>().ok_or(short)?;
    magic::check(magic, &MAGIC)?;
    let (instance, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
    let (cluster, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
    let (node, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
    let (len, name) = rest.split_first_chunk::<2>().ok_or(short)?;
    if name.len() != usize::from(u16::from_le_bytes(*len)) {
        return Err("its name has another length".into());
    }
    let node = u64::from_le_bytes(*node);
    Ok(IdentityFile {
        instance: *instance,
        registered: (node > 0).then_some(replication::Identity {
            cluster: ClusterId(*cluster),
            node: NodeId(node),
        }),
        name: String::from_utf8(name.to_vec()).map_err(|_| "its name is not UTF-8")?,
    })
}

#[cfg(test)]
mod tests {
    use vfs::SimDisk;
    use vfs::sim::{Effect, Fault};

    use super::*;

    fn disk() -> (SimDisk, &'static Path) {
        let disk = SimDisk::new();
        let dir = Path::new("/data");
        durable::create_dir(&disk, dir).unwrap();
        (disk, dir)
    }

    #[test]
    fn an_empty_directory_gets_a_new_instance_and_keeps_it() {
        let (disk, dir) = disk();
        let first = load_or_begin(&disk, dir, "a", [1; 16]).unwrap();
        assert_eq!(first.registered, None);
        let again = load_or_begin(&disk, dir, "a", [2; 16]).unwrap();
        assert_eq!(again, first);
        let registered = registered(first);
        store(&disk, dir, &registered).unwrap();
        assert_eq!(load_or_begin(&disk, dir, "a", [2; 16]).unwrap(), registered);
    }

    /// A node's first two starts: an instance is drawn, then registered. What the node has told others, `None` at first.
    fn two_starts(disk: &SimDisk, told: &mut Option<IdentityFile>) -> Result<(), IdentityError> {
        let dir = Path::new("/data");
        durable::create_dir(disk, dir)?;
        let first = load_or_begin(disk, dir, "a", [1; 16])?;
        *told = Some(first.clone());
        let registered = registered(first);
        store(disk, dir, &registered)?;
        *told = Some(registered.clone());
        assert_eq!(load_or_begin(disk, dir, "a", [2; 16])?, registered);
        Ok(())
    }

    fn registered(file: IdentityFile) -> IdentityFile {
        let registered = Some(replication::Identity {
            cluster: ClusterId([7; 16]),
            node: NodeId(3),
        });
        IdentityFile { registered, ..file }
    }

    /// What a start finds is what others were told or newer, and is not less after power was lost.
    fn judge(image: &SimDisk, told: Option<&IdentityFile>) {
        let dir = Path::new("/data");
        durable::create_dir(image, dir).unwrap();
        let found = load_or_begin(image, dir, "a", [2; 16]).unwrap();
        if let Some(told) = told {
            assert_eq!(found.instance, told.instance);
            assert!(found.registered.is_some() || told.registered.is_none());
        }
        let later = load_or_begin(&image.crash_losing_all(), dir, "a", [3; 16]).unwrap();
        assert_eq!(later, found);
    }

    #[test]
    fn every_call_fails_once() {
        let effects = [
            Effect::Io,
            Effect::NoSpace,
            Effect::Short(10),
            Effect::TornIo(10),
        ];
        for effect in effects {
            for number in 0.. {
                let disk = SimDisk::new();
                disk.inject(Fault::nth(number, effect));
                let mut told = None;
                let done = two_starts(&disk, &mut told);
                let over = disk.take_back_faults() > 0;
                assert!(done.is_ok() || !over);
                for image in [
                    disk.restart(),
                    disk.crash_losing_all(),
                    disk.crash_keeping_all(),
                    disk.crash_seeded(number),
                ] {
                    judge(&image, told.as_ref());
                    inside_a_start(&image, told.as_ref());
                }
                if over {
                    assert!(number > 15, "{number} calls");
                    break;
                }
            }
        }
    }

    /// A start that fails at each of its calls leaves what the next one needs.
    fn inside_a_start(image: &SimDisk, told: Option<&IdentityFile>) {
        for inside in 0.. {
            let image = image.restart();
            image.inject(Fault::nth(inside, Effect::Io));
            let mut told = told.cloned();
            let found = load_or_begin(&image, Path::new("/data"), "a", [2; 16]);
            let over = image.take_back_faults() > 0;
            if let Ok(found) = found {
                told = Some(found);
            }
            judge(&image.restart(), told.as_ref());
            judge(&image.crash_losing_all(), told.as_ref());
            if over {
                break;
            }
        }
    }

    #[test]
    fn data_without_an_identity_is_refused() {
        let (disk, dir) = disk();
        durable::create_dir(&disk, &dir.join("wal")).unwrap();
        let error = load_or_begin(&disk, dir, "a", [1; 16]).unwrap_err();
        assert!(
            matches!(&error, IdentityError::Missing { found, .. } if found == "wal"),
            "{error}"
        );
    }

    #[test]
    fn orders_alone_are_no_data_and_are_not_followed_by_another() {
        let (disk, dir) = disk();
        memory::store(&disk, dir, &memory::Memory::default()).unwrap();
        let found = load_or_begin(&disk, dir, "a", [1; 16]).unwrap();
        assert_eq!((found.instance, found.registered), ([1; 16], None));
        let after_power = disk.crash_losing_all();
        for disk in [&disk, &after_power] {
            assert!(!disk.exists(&dir.join(memory::file_name())).unwrap());
        }
    }

    #[test]
    fn another_name_and_every_flipped_bit_are_refused() {
        let (disk, dir) = disk();
        let file = load_or_begin(&disk, dir, "a", [1; 16]).unwrap();
        let error = load_or_begin(&disk, dir, "b", [1; 16]).unwrap_err();
        assert!(matches!(error, IdentityError::OtherName { .. }), "{error}");
        let good = encode(&file);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            durable::replace(&disk, &dir.join(FILE), &bytes).unwrap();
            let error = load_or_begin(&disk, dir, "a", [1; 16]).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_not_called_damage() {
        let (disk, dir) = disk();
        let file = load_or_begin(&disk, dir, "a", [1; 16]).unwrap();
        for (digits, expected) in [(b"02", Some(2)), (b"10", Some(10)), (b"00", None)] {
            let mut bytes = encode(&file);
            bytes[6..8].copy_from_slice(digits);
            let content = bytes.len() - 4;
            let check = crc32fast::hash(&bytes[..content]);
            bytes[content..].copy_from_slice(&check.to_le_bytes());
            durable::replace(&disk, &dir.join(FILE), &bytes).unwrap();
            let refused = load_or_begin(&disk, dir, "a", [1; 16]).unwrap_err();
            if let IdentityError::NewerFormat { version, known, .. } = refused {
                assert_eq!((Some(version), known), (expected, 1));
            } else {
                let is_damage = matches!(refused, IdentityError::Damaged { .. });
                assert!(is_damage && expected.is_none(), "{refused}");
            }
            assert_eq!(disk.contents(&dir.join(FILE)).unwrap(), bytes);
        }
    }
}
