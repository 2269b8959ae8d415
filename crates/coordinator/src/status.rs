//! What the cluster looks like from here. Pure: from the metadata, what was heard, and nothing else.

use std::collections::BTreeMap;

use api::admin::v1::{
    ActionReport, MemberChange, NodeStatus, PastChange, ReplicaRole, ReplicaStatus, ShardAudit,
    ShardState, ShardStatus,
};
use cluster::{NodeId, ShardId};

use crate::admin::turns;
use crate::liveness::{Heard, Rates, voices};
use crate::metadata::{NodeRecord, ShardRecord, State};
use crate::placement::audit::{self, Verdict};
use crate::registry::founder;

/// A whole map or status of a large cluster.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Everything that is known of one shard. `now_ms` tells whether the lease of a watchdog's turn has run out.
pub(crate) fn shard_status(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
    now_ms: i64,
) -> ShardStatus {
    let turns = state.recoveries.of(record.shard.id);
    let (shard_state, reason) = judge(state, heard, record);
    let rates: Rates = record
        .shard
        .replicas
        .iter()
        .filter_map(|at| heard.get(&at.node)?.rates.get(&record.shard.id.0).copied())
        .fold(Rates::default(), |sum, rates| Rates {
            // The leader's; reads are spread.
            records: sum.records.max(rates.records),
            reads: sum.reads + rates.reads,
        });
    ShardStatus {
        shard_id: record.shard.id.0,
        shard_key: shard_key(state, record.shard.id),
        incarnation: record.shard.incarnation.0,
        state: shard_state.into(),
        reason,
        replicas: shown(heard, record),
        records_per_second: rates.records,
        reads_per_second: rates.reads,
        recoveries: record.recoveries,
        last_attempt: turns.map_or(0, |turns| turns.attempts),
        turns: turns.map_or_else(Vec::new, |turns| turns::told(turns, now_ms)),
        change: record.members.change.as_ref().map(|change| MemberChange {
            add_node_id: change.intent.add.unwrap_or_default().0,
            remove_node_id: change.intent.remove.unwrap_or_default().0,
            reason: change.intent.reason.clone(),
            began_ms: change.began_ms,
        }),
        changes: record
            .members
            .ended
            .iter()
            .map(|ended| PastChange {
                add_node_id: ended.add.unwrap_or_default().0,
                remove_node_id: ended.remove.unwrap_or_default().0,
                reason: ended.reason.clone(),
                began_ms: ended.began_ms,
                ended_ms: ended.ended_ms,
            })
            .collect(),
        audit: compared(heard, record).map(|verdict| ShardAudit {
            index: verdict.index,
            undecided: verdict.is_undecided(),
            agreeing_node_ids: verdict.agreeing.iter().map(|node| node.0).collect(),
            differing_node_ids: verdict.differing.iter().map(|node| node.0).collect(),
        }),
        last_known_index: last_known_index(heard, record),
    }
}

/// How far a shard's present life is known to have come: as it was written down, or further, as alive nodes say.
pub(crate) fn last_known_index(heard: &BTreeMap<NodeId, Heard>, record: &ShardRecord) -> u64 {
    let reported = replicas(heard, record).into_iter();
    let reported = reported.map(|replica| replica.applied_index).max();
    record.last_known_index.max(reported.unwrap_or_default())
}

/// What comparing a shard's replicas came to, as far as it was heard.
pub(crate) fn compared(heard: &BTreeMap<NodeId, Heard>, record: &ShardRecord) -> Option<Verdict> {
    let report = |node| heard.get(&node).map(|heard| &heard.report);
    audit::judge(&voices(&record.shard, report))
}

/// Every replica that a shard should have: as its node last said, or that its node says nothing.
fn shown(heard: &BTreeMap<NodeId, Heard>, record: &ShardRecord) -> Vec<ReplicaStatus> {
    let shard = &record.shard;
    let of = |at: &cluster::Replica| {
        let node = heard.get(&at.node).filter(|node| node.alive);
        let known = node.and_then(|node| node.report.replica(shard.id, shard.incarnation));
        known.cloned().unwrap_or_else(|| ReplicaStatus {
            shard_id: shard.id.0,
            incarnation: shard.incarnation.0,
            node_id: at.node.0,
            reason: if node.is_some() {
                "its node has not opened it yet".to_owned()
            } else {
                "no word from its node".to_owned()
            },
            ..ReplicaStatus::default()
        })
    };
    shard.replicas.iter().map(of).collect()
}

/// What a replica does in its group, in a word.
pub(crate) fn role_name(replica: &ReplicaStatus) -> &'static str {
    match replica.role() {
        ReplicaRole::Unspecified => "unknown",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Leader => "leader",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Stopped => "stopped",
    }
}

/// How many entries a replica has not applied yet that another has. Of replicas that report at different moments it is an
/// estimate.
pub(crate) fn entries_behind(shard: &ShardStatus, replica: &ReplicaStatus) -> u64 {
    let applied = shard.replicas.iter().map(|at| at.applied_index);
    let newest = applied.max().unwrap_or_default();
    newest.saturating_sub(replica.applied_index)
}

/// The first term of a shard in the template.
pub(crate) fn shard_key(state: &State, shard: ShardId) -> String {
    let starts = state.template.iter().flat_map(|layout| layout.starts());
    starts
        .filter(|(_, owner)| *owner == shard)
        .map(|(start, _)| start.clone())
        .next()
        .unwrap_or_default()
}

/// What alive nodes say of the replicas of a shard's present life.
pub(crate) fn replicas<'a>(
    heard: &'a BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
) -> Vec<&'a ReplicaStatus> {
    let (id, incarnation) = (record.shard.id, record.shard.incarnation);
    record
        .shard
        .replicas
        .iter()
        .filter_map(|at| {
            let node = heard.get(&at.node).filter(|node| node.alive)?;
            node.report.replica(id, incarnation)
        })
        .collect()
}

/// How many replicas that a shard should have do not serve, or are not heard of.
pub(crate) fn not_serving(heard: &BTreeMap<NodeId, Heard>, record: &ShardRecord) -> usize {
    away(&replicas(heard, record), record).count()
}

/// The replicas of a shard that none of these reports says to serve.
fn away<'a>(
    reports: &'a [&ReplicaStatus],
    record: &'a ShardRecord,
) -> impl Iterator<Item = &'a cluster::Replica> {
    let serves = |node: NodeId| {
        let mut of_node = reports
            .iter()
            .filter(move |replica| replica.node_id == node.0);
        of_node.any(|replica| replica.serving)
    };
    let replicas = record.shard.replicas.iter();
    replicas.filter(move |at| !serves(at.node))
}

/// The state of a shard and why it is so, or what it lacks; for several replicas the best of them counts as long as it serves.
pub(crate) fn judge(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
) -> (ShardState, String) {
    if record.shard.replicas.is_empty() {
        return (
            ShardState::Unplaced,
            "waits for enough shard servers".into(),
        );
    }
    let reports = replicas(heard, record);
    let serves = |replica: &&ReplicaStatus| replica.serving && !is_denied(replica, &reports);
    if reports.iter().any(serves) {
        return (ShardState::Serving, lacking(state, &reports, record));
    }
    let voters = record.shard.replicas.iter().filter(|at| at.voter);
    let hopeless = voters
        .clone()
        .filter_map(|at| hopeless(state, heard, record, at));
    let hopeless: Vec<String> = hopeless.collect();
    let voters = voters.count();
    // As long as the others can be a majority, nothing is lost but time.
    if !hopeless.is_empty() && voters - hopeless.len() <= voters / 2 {
        return (ShardState::DataLoss, hopeless.join("; "));
    }
    if let Some(reason) = unfounded(state, heard, record) {
        return (ShardState::DataLoss, reason);
    }
    let on = |at: &cluster::Replica| state.nodes.get(&at.node);
    let places: Vec<&NodeRecord> = record.shard.replicas.iter().filter_map(on).collect();
    let mut sound = reports.iter().filter(|replica| !replica.data_loss);
    let sound = sound.find(|replica| !replica.serving);
    if let Some(replica) = sound.or(reports.first()) {
        let progress = match replica.replay_target {
            0 => "is starting".to_owned(),
            target => format!(
                "has replayed {} of {target} entries",
                replica.replayed_entries
            ),
        };
        let reason = if replica.reason.is_empty() {
            progress
        } else {
            replica.reason.clone()
        };
        return (ShardState::Recovering, reason);
    }
    let is_heard = places
        .iter()
        .any(|node| heard.get(&node.node.id).is_some_and(|heard| heard.alive));
    if is_heard {
        return (
            ShardState::Recovering,
            "its node has not opened it yet".into(),
        );
    }
    let names: Vec<&str> = places.iter().map(|node| node.node.name.as_str()).collect();
    let reason = format!("no word from {}", names.join(", "));
    (ShardState::Unreachable, reason)
}

/// Whether the leader that a replica follows says itself that it does not serve: followers hear a leader that has no majority as well
/// as any.
fn is_denied(replica: &ReplicaStatus, reports: &[&ReplicaStatus]) -> bool {
    reports.iter().any(|at| {
        at.role() == ReplicaRole::Leader
            && (at.node_id, at.raft_term) == (replica.leader_node_id, replica.raft_term)
            && !at.serving
    })
}

/// Why a shard will never begin by itself, where that is so: who was to found its group is lost, and no other voter has been told anything. One
/// that has is no learner: the first entry of a group says who votes.
fn unfounded(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
) -> Option<String> {
    let shard = &record.shard;
    let founder = founder(shard).filter(|_| !record.begun)?;
    let founder = state.nodes.get(&founder).filter(|at| at.node.lost)?;
    let is_empty = |at: &cluster::Replica| {
        let alive = heard.get(&at.node).filter(|heard| heard.alive);
        let replica = alive.and_then(|heard| heard.report.replica(shard.id, shard.incarnation));
        replica.is_some_and(|replica| replica.role() == ReplicaRole::Learner)
    };
    let voters = shard.replicas.iter().filter(|at| at.voter);
    let mut others = voters.filter(|at| !state.is_lost(at.node));
    let (name, loss) = (&founder.node.name, founder.loss.words());
    others.all(is_empty).then(|| {
        format!("{name}, which was to begin the shard, {loss}; nothing has been in the shard yet")
    })
}

/// Which replicas of a shard that serves do not; empty where all do.
fn lacking(state: &State, reports: &[&ReplicaStatus], record: &ShardRecord) -> String {
    let name = |at: &cluster::Replica| {
        let known = state.nodes.get(&at.node);
        known.map_or_else(|| at.node.to_string(), |known| known.node.name.clone())
    };
    let names: Vec<String> = away(reports, record).map(name).collect();
    if names.is_empty() {
        return String::new();
    }
    let (count, all) = (names.len(), record.shard.replicas.len());
    format!(
        "{count} of {all} replicas do not serve: {}",
        names.join(", ")
    )
}

/// Why nothing can be had of a replica any more, where that is so: its data are lost, or it or its node says that it is damaged.
pub(crate) fn hopeless(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
    at: &cluster::Replica,
) -> Option<String> {
    let NodeRecord { node, loss, .. } = state.nodes.get(&at.node)?;
    if node.lost {
        return Some(format!("{} {}", node.name, loss.words()));
    }
    let report = &heard.get(&at.node).filter(|heard| heard.alive)?.report;
    if report.data_loss {
        return Some(report.reason.clone());
    }
    let replica = report.replica(record.shard.id, record.shard.incarnation)?;
    replica.data_loss.then(|| replica.reason.clone())
}

/// Why a replica that is not lost cannot say yet how far it has come, where that is so: it may have come further than all that is known.
pub(crate) fn not_heard_out(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    record: &ShardRecord,
    at: &cluster::Replica,
) -> Option<String> {
    let alive = heard.get(&at.node).filter(|heard| heard.alive)?;
    if hopeless(state, heard, record, at).is_some() {
        return None;
    }
    let Some(replica) = alive
        .report
        .replica(record.shard.id, record.shard.incarnation)
    else {
        return Some("its node has not opened it yet".to_owned());
    };
    match replica.role() {
        ReplicaRole::Unspecified | ReplicaRole::Stopped => Some(replica.reason.clone()),
        ReplicaRole::Follower
        | ReplicaRole::Candidate
        | ReplicaRole::Leader
        | ReplicaRole::Learner => None,
    }
}

/// What a node did lately.
pub(crate) fn actions_of(node: NodeId, heard: &Heard) -> impl Iterator<Item = ActionReport> {
    let reports = heard.report.actions.iter();
    reports.map(move |report| ActionReport {
        coordinator_id: 0,
        by_node_id: node.0,
        ..report.clone()
    })
}

/// Everything that is known of one node.
pub(crate) fn node_status(record: &NodeRecord, heard: Option<&Heard>) -> NodeStatus {
    let node = &record.node;
    let report = heard.map(|heard| &heard.report);
    NodeStatus {
        node_id: node.id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        region: node.region.clone(),
        silent_ms: heard.map_or(-1, |heard| {
            i64::try_from(heard.silent.as_millis()).unwrap_or(i64::MAX)
        }),
        alive: heard.is_some_and(|heard| heard.alive) && !node.lost,
        lost: node.lost,
        reason: if node.lost {
            record.loss.words().into()
        } else {
            report
                .map(|report| report.reason.clone())
                .unwrap_or_default()
        },
        process_memory_bytes: report.map_or(0, |report| report.process_memory_bytes),
        disk_free_bytes: report.map_or(0, |report| report.disk_free_bytes),
        draining: record.draining,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::Incarnation;

    use super::*;
    use crate::liveness::Report;
    use crate::metadata::Command;

    const SHARD: ShardId = ShardId(1);

    fn lose(state: &mut State, node: u64) {
        let node = NodeId(node);
        state.apply(0, Command::MarkNodeLost { node });
    }

    /// What the shard is found to be where these nodes tell of their replicas, which do not serve.
    fn found(state: &State, told: &[(u64, ReplicaRole)]) -> (ShardState, String) {
        let told = told.iter().map(|(node, role)| ReplicaStatus {
            node_id: *node,
            role: (*role).into(),
            ..ReplicaStatus::default()
        });
        found_by(state, told)
    }

    /// The same, by what the nodes tell of their replicas.
    fn found_by(
        state: &State,
        told: impl IntoIterator<Item = ReplicaStatus>,
    ) -> (ShardState, String) {
        let heard = told.into_iter().map(|replica| {
            let node = NodeId(replica.node_id);
            let replica = ReplicaStatus {
                shard_id: SHARD.0,
                incarnation: 1,
                ..replica
            };
            let heard = Heard {
                silent: Duration::ZERO,
                alive: true,
                report: Report {
                    replicas: vec![replica],
                    ..Report::default()
                },
                rates: BTreeMap::new(),
                damage_is_news: false,
            };
            (node, heard)
        });
        let heard: BTreeMap<NodeId, Heard> = heard.collect();
        judge(state, &heard, &state.shards[&SHARD])
    }

    #[test]
    fn who_follows_a_leader_without_a_majority_does_not_make_a_shard_serve() {
        let told = |leads_in, leader_serves| {
            let leader = ReplicaStatus {
                node_id: 1,
                role: ReplicaRole::Leader.into(),
                raft_term: leads_in,
                leader_node_id: 1,
                serving: leader_serves,
                reason: "no majority answers".to_owned(),
                ..ReplicaStatus::default()
            };
            let follower = ReplicaStatus {
                node_id: 2,
                role: ReplicaRole::Follower.into(),
                raft_term: 7,
                leader_node_id: 1,
                serving: true,
                ..ReplicaStatus::default()
            };
            found_by(&State::placed(3), [follower, leader])
        };
        let (state, reason) = told(7, false);
        assert_eq!(state, ShardState::Recovering);
        assert_eq!(reason, "no majority answers");
        assert_eq!(told(7, true).0, ShardState::Serving);
        // What was said before it led has nothing to do with whom it leads now.
        assert_eq!(told(6, false).0, ShardState::Serving);
    }

    #[test]
    fn a_shard_whose_founder_is_lost_before_anybody_was_told_anything_waits_for_a_person() {
        let empty = [(2, ReplicaRole::Learner), (3, ReplicaRole::Learner)];
        let state_of = |state: &State, told: &[(u64, ReplicaRole)]| found(state, told).0;
        let mut state = State::placed(3);
        assert_eq!(state_of(&state, &empty), ShardState::Recovering);
        lose(&mut state, 1);
        let (told, reason) = found(&state, &empty);
        assert_eq!(told, ShardState::DataLoss);
        assert!(
            reason.starts_with("n1, which was to begin the shard, has lost"),
            "{reason}"
        );
        // Whoever has been told anything, is silent, or does not run yet may have what was acknowledged.
        for role in [
            ReplicaRole::Follower,
            ReplicaRole::Candidate,
            ReplicaRole::Stopped,
            ReplicaRole::Unspecified,
        ] {
            let one_more = [(2, ReplicaRole::Learner), (3, role)];
            assert_eq!(state_of(&state, &one_more), ShardState::Recovering);
        }
        assert_eq!(state_of(&state, &empty[..1]), ShardState::Recovering);
        let mut begun = state.clone();
        let (shard, incarnation) = (SHARD, Incarnation(1));
        begun.apply(0, Command::ShardBegun { shard, incarnation });
        assert_eq!(state_of(&begun, &empty), ShardState::Recovering);
    }

    #[test]
    fn a_shard_is_begun_without_those_who_are_not_to_begin_it() {
        let mut state = State::placed(3);
        lose(&mut state, 2);
        let others = [(1, ReplicaRole::Learner), (3, ReplicaRole::Learner)];
        assert_eq!(found(&state, &others).0, ShardState::Recovering);
    }
}
