//! Who this coordinator's data directory belongs to.
//!
//! The file `cluster-id` in the data directory, 28 bytes: magic `ACCI`, version 1 and a zero as two bytes each (little endian), the
//! cluster's 16 random bytes, and a CRC32 of the 24 bytes before. It is written once, before anything else, when the directory is
//! first used. A directory that has a log but not this file is not taken for a new one.

use std::path::Path;

use cluster::ClusterId;
use runtime::Runtime;
use vfs::{Vfs, durable};

use crate::Error;

const NAME: &str = "cluster-id";
const MAGIC: [u8; 4] = *b"ACCI";
const VERSION: u16 = 1;
const BYTES: usize = 28;

/// Reads the cluster's id, or draws and writes one when the directory is new. The flag says that it is new.
///
/// # Errors
/// When the disk fails, the file is damaged, or it is missing beside a log.
pub(crate) fn open(
    vfs: &dyn Vfs,
    runtime: &Runtime,
    dir: &Path,
) -> Result<(ClusterId, bool), Error> {
    durable::create_dir(vfs, dir)?;
    let path = dir.join(NAME);
    if vfs.exists(&path)? {
        let bytes = durable::read(vfs, &path, BYTES as u64)?;
        let cluster = decode(&bytes).ok_or_else(|| Error::Identity {
            path: path.clone(),
            problem: "is damaged",
        })?;
        return Ok((cluster, false));
    }
    if vfs.exists(&dir.join("wal"))? && !vfs.list_dir(&dir.join("wal"))?.is_empty() {
        return Err(Error::Identity {
            path,
            problem: "is missing although there is a log",
        });
    }
    let cluster = ClusterId(runtime.random_id());
    durable::replace(vfs, &path, &encode(cluster))?;
    Ok((cluster, true))
}

fn encode(cluster: ClusterId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&cluster.0);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<ClusterId> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (head, id) = body.split_last_chunk::<16>()?;
    let sound = bytes.len() == BYTES
        && crc32fast::hash(body) == u32::from_le_bytes(*crc)
        && encode(ClusterId(*id)).starts_with(head);
    sound.then_some(ClusterId(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_drawn_once_and_every_damage_is_noticed() {
        let disk = vfs::SimDisk::default();
        let runtime = Runtime::real();
        let dir = Path::new("data");
        let (drawn, is_new) = open(&disk, &runtime, dir).unwrap();
        assert!(is_new);
        assert_eq!(open(&disk, &runtime, dir).unwrap(), (drawn, false));
        let good = encode(drawn);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good[1..]), None);
    }

    #[test]
    fn a_log_without_an_id_is_not_a_new_directory() {
        let disk = vfs::SimDisk::default();
        let dir = Path::new("data");
        durable::create_dir(&disk, &dir.join("wal")).unwrap();
        durable::replace(&disk, &dir.join("wal").join("1"), b"x").unwrap();
        assert!(open(&disk, &Runtime::real(), dir).is_err());
    }
}
