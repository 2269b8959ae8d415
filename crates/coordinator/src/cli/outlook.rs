//! What is left of a shard, for a person who is to accept a loss: told before anything is asked.
//!
//! On failure: whoever does not answer is named, and the rest is told.

use std::io::{self, Write as _};

use api::ApiError;
use api::admin::v1::{
    GetStatusRequest, GetStatusResponse, ReplicaStatus, ShardState, ShardStatus, SnapshotInfo,
};
use cluster::{Incarnation, NodeId};

use super::connection::{Connection, Said};
use super::snapshot::{held_by_each, moment};
use super::table::printable;
use crate::recovery::furthest;

/// What the coordinators say of a shard.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub(crate) shard: u64,
    pub(crate) status: Result<GetStatusResponse, ApiError>,
    pub(crate) held: Said<Vec<SnapshotInfo>>,
}

/// What reaches furthest of all that is left.
#[derive(Debug, Clone, Copy)]
enum Left<'a> {
    Replica(&'a ReplicaStatus),
    /// With the coordinator that holds it.
    Snapshot(&'a str, &'a SnapshotInfo),
    Nothing,
}

impl Outlook {
    /// Asks each coordinator for what it holds, and the first that answers for the state.
    pub(super) async fn of(connection: &mut Connection, shard: u64) -> Self {
        let held = held_by_each(connection).await;
        Self::heard(connection, shard, held).await
    }

    /// The same, and whoever holds most of it is asked alone from then on, for the state, too: it acts by what it has heard, which may be
    /// less than what another one has.
    pub(super) async fn of_the_holder(connection: &mut Connection, shard: u64) -> Self {
        let held = held_by_each(connection).await;
        if let Some(address) = holder(&held, shard) {
            connection.pin(address);
        }
        Self::heard(connection, shard, held).await
    }

    async fn heard(connection: &mut Connection, shard: u64, held: Said<Vec<SnapshotInfo>>) -> Self {
        let status = connection
            .read(
                GetStatusRequest::default(),
                |mut admin, request| async move { admin.get_status(request).await },
            )
            .await;
        Self {
            shard,
            status,
            held,
        }
    }

    /// For people, a line each: where a recovery would begin.
    pub(crate) fn of_recovery(&self) -> Vec<String> {
        let mut lines = self.known();
        let state = self.shard_status().map(ShardStatus::state);
        if state == Some(ShardState::Serving) {
            lines.push("It serves, and is left alone.".to_owned());
            return lines;
        }
        lines.push(match self.left() {
            Left::Replica(replica) => self.of_replica(replica),
            Left::Snapshot(address, held) => {
                format!("It would begin anew from {}.", snapshot(address, held))
            }
            Left::Nothing => {
                let all_answer = self.held.iter().all(|(_, said)| said.is_ok());
                let by = if all_answer { "" } else { " by those that answer" };
                format!(
                    "It would begin anew EMPTY: no snapshot is held{by}, and no sound replica is heard of. Only --accept-empty allows that."
                )
            }
        });
        lines
    }

    /// For people, a line each: what the replica of a node has, and what reaches further.
    pub(crate) fn of_promotion(&self, node: &str) -> Vec<String> {
        let mut lines = self.known();
        let chosen = self.replica_on(node);
        lines.push(match chosen {
            Some(replica) => self.of_replica(replica),
            None => format!("No sound replica of node {node} is heard of."),
        });
        let index = chosen.map_or(0, |replica| replica.applied_index);
        match self.left() {
            Left::Replica(best) if best.applied_index > index => {
                let (name, index) = (self.name_of(best.node_id), best.applied_index);
                lines.push(format!(
                    "The replica of {name} reaches further, to index {index}."
                ));
            }
            Left::Snapshot(address, held) => {
                lines.push(format!("Further reaches {}.", snapshot(address, held)));
            }
            Left::Replica(_) | Left::Nothing => {}
        }
        lines
    }

    /// How far the shard had come, and what was not found out.
    fn known(&self) -> Vec<String> {
        let shard = self.shard;
        let mut lines = vec![match (&self.status, self.shard_status()) {
            (Err(error), _) => format!("How far shard {shard} had come is not known: {error}"),
            (Ok(_), None) => format!("There is no shard {shard}."),
            (Ok(_), Some(status)) => format!(
                "Shard {shard} is in its life {}, and is known to have come to index {}.",
                status.incarnation,
                self.highest(status)
            ),
        }];
        for (address, said) in &self.held {
            if let Err(error) = said {
                lines.push(format!("{address} does not say what it holds: {error}"));
            }
        }
        lines
    }

    /// The highest index that is known of a shard's present life.
    fn highest(&self, status: &ShardStatus) -> u64 {
        let held = all_held(&self.held, self.shard).map(|(_, held)| held);
        let held = held.filter(|held| held.incarnation == status.incarnation);
        let held = held.map(|held| held.index);
        let reported = status.replicas.iter().map(|replica| replica.applied_index);
        held.chain(reported).fold(status.last_known_index, u64::max)
    }

    fn of_replica(&self, replica: &ReplicaStatus) -> String {
        let (name, index) = (self.name_of(replica.node_id), replica.applied_index);
        format!("It would begin anew from the replica of {name}, which has come to index {index}.")
    }

    fn shard_status(&self) -> Option<&ShardStatus> {
        let shards = &self.status.as_ref().ok()?.shards;
        shards.iter().find(|at| at.shard_id == self.shard)
    }

    fn sound_replicas(&self) -> impl Iterator<Item = &ReplicaStatus> {
        let replicas = self.shard_status().into_iter().flat_map(|at| &at.replicas);
        replicas.filter(|replica| !replica.data_loss && replica.applied_index > 0)
    }

    /// The sound replica of a node that is given by its number, or by the name that it has and no lost one.
    fn replica_on(&self, node: &str) -> Option<&ReplicaStatus> {
        let nodes = &self.status.as_ref().ok()?.nodes;
        let number = node.parse().ok();
        let by_number = nodes.iter().find(|at| Some(at.node_id) == number);
        let by_name = || nodes.iter().find(|at| !at.lost && at.name == node);
        let id = by_number.or_else(by_name)?.node_id;
        self.sound_replicas().find(|replica| replica.node_id == id)
    }

    fn name_of(&self, node_id: u64) -> String {
        let nodes = self.status.as_ref().map_or(&[][..], |status| &status.nodes);
        let known = nodes.iter().find(|at| at.node_id == node_id);
        known.map_or_else(
            || format!("node {node_id}"),
            |known| format!("node {node_id} ({})", known.name),
        )
    }

    /// As a coordinator judges it that holds the newest snapshot.
    fn left(&self) -> Left<'_> {
        let life = self.shard_status().map_or(0, |status| status.incarnation);
        let newest = newest_held(&self.held, self.shard);
        let indexes = self.sound_replicas();
        let indexes = indexes.map(|replica| (replica.applied_index, NodeId(replica.node_id)));
        let reach = newest.map(|(_, held)| reach(held));
        let best = furthest(Incarnation(life), indexes, reach.into_iter());
        let replica = best.and_then(|node| {
            let mut replicas = self.sound_replicas();
            replicas.find(|replica| replica.node_id == node.0)
        });
        match (replica, newest) {
            (Some(replica), _) => Left::Replica(replica),
            (None, Some((address, held))) => Left::Snapshot(address, held),
            (None, None) => Left::Nothing,
        }
    }
}

/// What is held of a shard, and where.
fn all_held(
    held: &Said<Vec<SnapshotInfo>>,
    shard: u64,
) -> impl Iterator<Item = (&str, &SnapshotInfo)> {
    let all = held.iter().flat_map(|(address, said)| {
        let snapshots = said.iter().flatten();
        snapshots.map(move |held| (address.as_str(), held))
    });
    all.filter(move |(_, held)| held.shard_id == shard)
}

/// Of several that are as new the one that comes first.
fn newest_held(held: &Said<Vec<SnapshotInfo>>, shard: u64) -> Option<(&str, &SnapshotInfo)> {
    all_held(held, shard).reduce(|best, next| {
        if reach(next.1) > reach(best.1) {
            next
        } else {
            best
        }
    })
}

/// The coordinator through which most of a shard is had back: the one that holds the newest snapshot, else the first that answers.
fn holder(held: &Said<Vec<SnapshotInfo>>, shard: u64) -> Option<&str> {
    let mut answering = held.iter().filter(|(_, said)| said.is_ok());
    let newest = newest_held(held, shard).map(|(address, _)| address);
    newest.or_else(|| answering.next().map(|(address, _)| address.as_str()))
}

/// Shows lines that may repeat what servers say.
pub(super) fn tell(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{}", printable(line)))
}

/// How far a snapshot reaches: later lives further than earlier ones.
fn reach(held: &SnapshotInfo) -> (Incarnation, u64) {
    (Incarnation(held.incarnation), held.index)
}

fn snapshot(address: &str, held: &SnapshotInfo) -> String {
    format!(
        "the snapshot of index {} of its life {}, taken {}, which {address} holds",
        held.index,
        held.incarnation,
        moment(held.taken_at_ms)
    )
}

#[cfg(test)]
mod tests {
    use api::Reason;
    use api::admin::v1::NodeStatus;

    use super::*;

    const SHARD: u64 = 2;

    fn replica(node_id: u64, applied_index: u64) -> ReplicaStatus {
        ReplicaStatus {
            node_id,
            applied_index,
            ..ReplicaStatus::default()
        }
    }

    fn held(incarnation: u64, index: u64) -> SnapshotInfo {
        SnapshotInfo {
            shard_id: SHARD,
            incarnation,
            index,
            taken_at_ms: 1_700_000_000_000,
            ..SnapshotInfo::default()
        }
    }

    fn status(replicas: Vec<ReplicaStatus>) -> GetStatusResponse {
        let node = |node_id| NodeStatus {
            node_id,
            name: format!("shard-{node_id}"),
            ..NodeStatus::default()
        };
        GetStatusResponse {
            nodes: (1..=3).map(node).collect(),
            shards: vec![ShardStatus {
                shard_id: SHARD,
                incarnation: 3,
                replicas,
                last_known_index: 44,
                ..ShardStatus::default()
            }],
            ..GetStatusResponse::default()
        }
    }

    fn outlook(replicas: Vec<ReplicaStatus>, held: [Vec<SnapshotInfo>; 3]) -> Outlook {
        let addresses = ["one:1", "two:1", "three:1"].map(str::to_owned);
        Outlook {
            shard: SHARD,
            status: Ok(status(replicas)),
            held: addresses.into_iter().zip(held.map(Ok)).collect(),
        }
    }

    /// What a recovery is told to begin from, and who is asked for it.
    fn told(outlook: &Outlook) -> (String, Option<&str>) {
        let lines = outlook.of_recovery();
        (lines.join("\n"), holder(&outlook.held, SHARD))
    }

    #[test]
    fn a_replica_is_named_that_reaches_as_far_as_any_snapshot() {
        let mut damaged = replica(3, 99);
        damaged.data_loss = true;
        let replicas = vec![replica(1, 40), replica(2, 39), damaged];
        let lives = [vec![held(2, 9_000)], vec![held(3, 40)], vec![held(3, 39)]];
        let outlook = outlook(replicas, lives);
        let (text, holder) = told(&outlook);
        let expected = "the replica of node 1 (shard-1), which has come to index 40.";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("life 3") && text.contains("99"), "{text}");
        assert_eq!(holder, Some("two:1"));
    }

    #[test]
    fn the_newest_snapshot_is_named_with_the_coordinator_that_holds_it() {
        let other = SnapshotInfo {
            shard_id: 1,
            ..held(9, 9)
        };
        let snapshots = [vec![], vec![other], vec![held(3, 41), held(3, 7)]];
        let outlook = outlook(vec![replica(1, 40)], snapshots);
        let (text, holder) = told(&outlook);
        let expected =
            "snapshot of index 41 of its life 3, taken 2023-11-14T22:13:20Z, which three:1 holds";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("known to have come to index 44"), "{text}");
        assert_eq!(holder, Some("three:1"));
        let promoted = outlook.of_promotion("shard-1").join("\n");
        assert!(promoted.contains("node 1 (shard-1)"), "{promoted}");
        assert!(promoted.contains(expected), "{promoted}");
    }

    #[test]
    fn that_nothing_is_left_is_told_and_who_was_not_heard() {
        let mut outlook = outlook(vec![replica(1, 0)], [vec![], vec![], vec![]]);
        let (text, holder) = told(&outlook);
        assert!(text.contains("EMPTY: no snapshot is held, "), "{text}");
        assert_eq!(holder, Some("one:1"));
        outlook.held[0].1 = Err(ApiError::new(Reason::Disconnected, "refused"));
        outlook.status = Err(ApiError::new(Reason::Disconnected, "nobody"));
        let (text, holder) = told(&outlook);
        assert!(text.contains("EMPTY: no snapshot is held by"), "{text}");
        assert!(text.contains("one:1 does not say"), "{text}");
        assert!(text.contains("not known: DISCONNECTED: nobody"), "{text}");
        assert_eq!(holder, Some("two:1"));
    }

    #[test]
    fn whoever_promotes_a_replica_is_told_which_one_has_come_further() {
        let outlook = outlook(
            vec![replica(1, 40), replica(2, 39)],
            [vec![], vec![], vec![]],
        );
        for named in ["2", "shard-2"] {
            let text = outlook.of_promotion(named).join("\n");
            assert!(text.contains("node 2 (shard-2), which has"), "{text}");
            assert!(text.contains("node 1 (shard-1) reaches further"), "{text}");
        }
        let text = outlook.of_promotion("1").join("\n");
        assert!(!text.contains("further"), "{text}");
        let text = outlook.of_promotion("shard-3").join("\n");
        assert!(text.contains("No sound replica of node shard-3"), "{text}");
    }
}
