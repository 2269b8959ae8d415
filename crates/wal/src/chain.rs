//! The logical chain of a group: a running checksum over what its entries say, not how they are stored. Replicas
//! that hold the same entries have the same chain, so that one can tell from a place and a chain
//! whether another's copy is its own.

use crate::types::{GroupId, LogId};

/// The chain before the first entry.
pub(crate) const LOGICAL_SEED: u32 = 0x5761_6c4c;

/// The chain after an entry.
pub(crate) fn after(chain: u32, group: GroupId, id: LogId, kind: u8, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(chain);
    crc.update(&group.0.to_le_bytes());
    crc.update(&id.term.to_le_bytes());
    crc.update(&id.index.to_le_bytes());
    crc.update(&[kind]);
    crc.update(&(payload.len() as u64).to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// The chain at a purge point whose own chain nobody knows.
pub(crate) fn rebased(group: GroupId, upto: LogId) -> u32 {
    after(LOGICAL_SEED, group, upto, 0, &[])
}
