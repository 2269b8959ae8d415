//! A life that waits for the snapshot that it is to begin from: who holds that, and what follows where nobody does any more.
//!
//! What always holds: such a life counts as lost only where its node says that it has nothing, and every coordinator that it does not hold
//! the snapshot. One that does not answer may hold it.

use api::admin::v1::{ShardState, SnapshotInfo};
use api::{ApiError, Reason};

use super::Recovery;
use super::case::Case;
use crate::admin::others;
use crate::metadata::ShardRecord;
use crate::snapshots::{Held, push};

/// A life that was begun from a snapshot which its node may not have yet.
pub(super) fn awaits_seed(record: &ShardRecord) -> bool {
    !record.begun && record.seed.is_some()
}

/// Why a life that waits for a snapshot is not helped from here.
pub(super) fn not_held(record: &ShardRecord) -> ApiError {
    let (shard, index) = (record.shard.id, record.last_known_index);
    let message = format!(
        "the snapshot of index {index} that shard {shard} is to begin from is not held here: `coordinator recover {shard}` says who holds it, or \
         what is left if nobody does"
    );
    ApiError::new(Reason::UnknownSnapshot, message)
}

/// Where a snapshot is that is not held here, by what the other coordinators say.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// With this coordinator, by its number.
    With(u64),
    /// With one of these, or nowhere: they do not say.
    Unknown(Vec<u64>),
    Nowhere,
}

fn whereabouts(
    wanted: &SnapshotInfo,
    said: &[(u64, Result<Vec<SnapshotInfo>, ApiError>)],
) -> Whereabouts {
    let holds = |held: &Result<Vec<SnapshotInfo>, ApiError>| {
        held.as_ref().is_ok_and(|held| held.contains(wanted))
    };
    if let Some((holder, _)) = said.iter().find(|(_, held)| holds(held)) {
        return Whereabouts::With(*holder);
    }
    let silent = said.iter().filter(|(_, held)| held.is_err());
    let silent: Vec<u64> = silent.map(|(coordinator, _)| *coordinator).collect();
    if silent.is_empty() {
        Whereabouts::Nowhere
    } else {
        Whereabouts::Unknown(silent)
    }
}

impl Recovery {
    /// Whether the snapshot that a life begins from is held here.
    pub(super) fn holds_seed(&self, record: &ShardRecord) -> bool {
        let shard = record.shard.id;
        let seed = record.seed.as_ref().map(|seed| Held::of_seed(shard, seed));
        seed.is_some_and(|seed| self.store.of(shard).contains(&seed))
    }

    /// Says of a life that waits for a snapshot which is not held here who holds it; or that it is lost.
    pub(super) async fn seek_seed(&self, mut case: Case) -> Case {
        let record = &case.record;
        let seed = record.seed.as_ref().filter(|_| case.waits_for_seed());
        let Some(seed) = seed.filter(|_| !self.holds_seed(record)) else {
            return case;
        };
        let (shard, index) = (record.shard.id, seed.index);
        let wanted = SnapshotInfo::from(&Held::of_seed(shard, seed));
        match whereabouts(&wanted, &others::held(&self.meta).await) {
            Whereabouts::With(holder) => {
                case.reason += &format!("; coordinator {holder} holds it, and sends it");
            }
            Whereabouts::Unknown(silent) => {
                let silent: Vec<String> = silent.iter().map(u64::to_string).collect();
                case.reason += &format!(
                    ", and is held by no coordinator that answers: bring those back that do not ({}), or start them with empty directories if \
                     theirs are gone for good",
                    silent.join(", ")
                );
            }
            Whereabouts::Nowhere => {
                case.state = ShardState::DataLoss;
                case.seed_is_lost = true;
                case.reason = format!(
                    "the snapshot of index {index} that shard {shard} was to begin from is held by nobody any more"
                );
            }
        }
        case
    }

    /// Sends the snapshot that a life waits for to its node.
    pub(super) async fn send_seed(&self, case: &Case) -> Result<(), ApiError> {
        let shard = &case.record.shard;
        let (Some(seed), Some(replica)) = (&case.record.seed, shard.replicas.first()) else {
            return Ok(());
        };
        if !self.holds_seed(&case.record) {
            return Err(not_held(&case.record));
        }
        let held = Held::of_seed(shard.id, seed);
        let link = self.router.link(replica.node)?;
        let pushed = push(&self.runtime, &self.store, &link, &held, shard.incarnation).await;
        // A file that has rotted, or that the disk does not give back, would be refused for ever.
        let is_doubted =
            |error: &ApiError| matches!(error.reason(), Reason::DataLoss | Reason::Internal);
        if pushed.as_ref().is_err_and(is_doubted) && !self.store.is_sound(&held).await {
            return Err(not_held(&case.record));
        }
        pushed.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_nowhere_only_where_every_coordinator_says_that_it_does_not_hold_it() {
        let wanted = SnapshotInfo {
            shard_id: 2,
            index: 105,
            ..SnapshotInfo::default()
        };
        let older = SnapshotInfo {
            index: 100,
            ..wanted.clone()
        };
        let silent = || Err(ApiError::new(Reason::Disconnected, "nobody"));
        let seek = |said: &[(u64, Result<Vec<SnapshotInfo>, ApiError>)]| whereabouts(&wanted, said);
        assert_eq!(seek(&[]), Whereabouts::Nowhere);
        let others = [(2, Ok(vec![older.clone()])), (3, Ok(Vec::new()))];
        assert_eq!(seek(&others), Whereabouts::Nowhere);
        let others = [(2, silent()), (3, Ok(vec![older.clone()]))];
        assert_eq!(seek(&others), Whereabouts::Unknown(vec![2]));
        let others = [(2, silent()), (3, Ok(vec![older, wanted.clone()]))];
        assert_eq!(seek(&others), Whereabouts::With(3));
    }
}
