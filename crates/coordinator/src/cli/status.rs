//! `coordinator status`

use std::io::Write as _;

use api::admin::v1::{
    ActionReport, CoordinatorStatus, GetStatusRequest, GetStatusResponse, MemberChange, NodeStatus,
    PastChange, RecoveryTurn, ShardAudit, ShardState, ShardStatus, TurnState,
};
use serde_json::{Value, json};

use super::Done;
use super::connection::Connect;
use super::table::{Table, hex, mebibytes, printable};
use crate::status::{entries_behind, role_name};
use crate::upkeep::label;

/// Rows of the table of actions; the JSON has all.
const ACTIONS_SHOWN: usize = 20;

/// The options of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let status = connection
            .read(
                GetStatusRequest {
                    ask_others: true,
                    ..GetStatusRequest::default()
                },
                |mut admin, request| async move { admin.get_status(request).await },
            )
            .await?;
        let text = if self.json {
            format!("{:#}", as_json(&status))
        } else {
            as_text(&status, connection.runtime.wall_ms())
        };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(())
    }
}

/// All of it for people: lines, and tables below them.
pub(crate) fn as_text(status: &GetStatusResponse, now_ms: i64) -> String {
    let metadata = if status.metadata_available {
        "available"
    } else {
        "not available"
    };
    let mut parts = vec![format!(
        "cluster {}  epoch {}  namespaces {}  metadata {metadata}",
        hex(&status.cluster_id),
        status.epoch,
        status.namespaces
    )];
    parts.extend(status.coordinators.iter().map(|at| {
        let leads = if at.leads { "  leads" } else { "" };
        let (id, address) = (at.coordinator_id, &at.address);
        printable(&format!("coordinator {id}  {address}{leads}{}", heard(at)))
    }));
    let mut tables = vec![
        shard_table(&status.shards),
        replica_table(status),
        node_table(&status.nodes),
    ];
    if status.shards.iter().any(|shard| !shard.turns.is_empty()) {
        tables.push(turn_table(&status.shards));
    }
    if status.shards.iter().any(|shard| !shard.changes.is_empty()) {
        tables.push(change_table(&status.shards));
    }
    if !status.actions.is_empty() {
        tables.push(action_table(&status.actions, now_ms));
    }
    parts.extend(tables.iter().map(Table::to_string));
    parts.join("\n")
}

/// Whether a coordinator is there, as the one that was asked sees it.
fn heard(at: &CoordinatorStatus) -> String {
    match (at.answers, at.reached) {
        (true, _) => "  asked".to_owned(),
        (false, true) => String::new(),
        // One of an older version asks nobody.
        (false, false) if at.reason.is_empty() => String::new(),
        (false, false) => format!("  does not answer: {}", at.reason),
    }
}

fn state_of(shard: &ShardStatus) -> &'static str {
    label(ShardState::try_from(shard.state).unwrap_or(ShardState::Unspecified))
}

fn shard_table(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&[
        "shard",
        "from",
        "state",
        "life",
        "terms",
        "memory",
        "applied",
        "snapshot",
        "records/s",
        "reads/s",
        "why",
    ]);
    for shard in shards {
        let best = shard
            .replicas
            .iter()
            .max_by_key(|replica| (replica.serving, replica.applied_index))
            .cloned()
            .unwrap_or_default();
        table.add_row(vec![
            shard.shard_id.to_string(),
            format!("{:?}", shard.shard_key),
            state_of(shard).to_owned(),
            shard.incarnation.to_string(),
            best.terms.to_string(),
            mebibytes(best.memory_bytes.saturating_add(best.repeat_table_bytes)),
            best.applied_index.to_string(),
            best.snapshot_index.to_string(),
            format!("{:.1}", shard.records_per_second),
            format!("{:.1}", shard.reads_per_second),
            why(shard),
        ]);
    }
    table.right(&[0, 3, 4, 5, 6, 7, 8, 9]);
    table
}

/// What is wrong with a shard, and what is done about its members.
fn why(shard: &ShardStatus) -> String {
    let mut parts = Vec::new();
    if !shard.reason.is_empty() {
        parts.push(shard.reason.clone());
    }
    if let Some(audit) = shard.audit.as_ref() {
        parts.extend(difference(audit));
    }
    if let Some(change) = &shard.change {
        if change.add_node_id > 0 {
            parts.push(format!("node {} comes", change.add_node_id));
        }
        if change.remove_node_id > 0 {
            parts.push(format!("node {} leaves", change.remove_node_id));
        }
        parts.push(change.reason.clone());
    }
    parts.join(", ")
}

/// That replicas are not the same; nothing where they are.
fn difference(audit: &ShardAudit) -> Option<String> {
    let nodes: Vec<String> = audit
        .differing_node_ids
        .iter()
        .map(u64::to_string)
        .collect();
    let nodes = nodes.join(", ");
    let index = audit.index;
    if audit.undecided {
        return Some(format!(
            "nodes {nodes} differ at entry {index} and no majority agrees"
        ));
    }
    (!nodes.is_empty()).then(|| format!("node {nodes} differs from the majority at entry {index}"))
}

fn audit_json(audit: &ShardAudit) -> Value {
    json!({
        "index": audit.index,
        "agreeing_node_ids": audit.agreeing_node_ids,
        "differing_node_ids": audit.differing_node_ids,
        "undecided": audit.undecided,
    })
}

fn change_json(change: &MemberChange) -> Value {
    json!({
        "add_node_id": change.add_node_id,
        "remove_node_id": change.remove_node_id,
        "reason": change.reason,
        "began_ms": change.began_ms,
    })
}

fn past_change_json(change: &PastChange) -> Value {
    json!({
        "add_node_id": change.add_node_id,
        "remove_node_id": change.remove_node_id,
        "reason": change.reason,
        "began_ms": change.began_ms,
        "ended_ms": change.ended_ms,
    })
}

fn coordinator_json(at: &CoordinatorStatus) -> Value {
    json!({
        "coordinator_id": at.coordinator_id,
        "address": at.address,
        "leads": at.leads,
        "asked": at.answers,
        "reached": at.reached,
        "reason": at.reason,
    })
}

/// Who leads, and how far everybody is.
fn replica_table(status: &GetStatusResponse) -> Table {
    let mut table = Table::new(&[
        "shard", "node", "name", "role", "serves", "term", "applied", "behind", "why",
    ]);
    for shard in &status.shards {
        for replica in &shard.replicas {
            let mut nodes = status.nodes.iter();
            let node = nodes.find(|at| at.node_id == replica.node_id);
            table.add_row(vec![
                shard.shard_id.to_string(),
                replica.node_id.to_string(),
                node.map(|at| at.name.clone()).unwrap_or_default(),
                role_name(replica).to_owned(),
                if replica.serving { "yes" } else { "no" }.to_owned(),
                replica.raft_term.to_string(),
                replica.applied_index.to_string(),
                entries_behind(shard, replica).to_string(),
                replica.reason.clone(),
            ]);
        }
    }
    table.right(&[0, 1, 5, 6, 7]);
    table
}

/// Before the reasons, so that the columns of numbers stay where they are.
const REGION_COLUMN: usize = 7;

fn node_table(nodes: &[NodeStatus]) -> Table {
    let mut header = vec![
        "node",
        "name",
        "address",
        "state",
        "heard",
        "memory",
        "disk free",
        "why",
    ];
    let has_regions = nodes.iter().any(|node| !node.region.is_empty());
    if has_regions {
        header.insert(REGION_COLUMN, "region");
    }
    let mut table = Table::new(&header);
    for node in nodes {
        let state = match (node.lost, node.alive, node.draining) {
            (true, _, _) => "lost",
            (false, true, true) => "draining",
            (false, true, false) => "alive",
            (false, false, _) => "silent",
        };
        let heard = match node.silent_ms {
            -1 => "never".to_owned(),
            silent => format!("{:.1} s ago", silent as f64 / 1000.0),
        };
        let mut cells = vec![
            node.node_id.to_string(),
            node.name.clone(),
            node.address.clone(),
            state.to_owned(),
            heard,
            mebibytes(node.process_memory_bytes),
            mebibytes(node.disk_free_bytes),
            node.reason.clone(),
        ];
        if has_regions {
            cells.insert(REGION_COLUMN, node.region.clone());
        }
        table.add_row(cells);
    }
    table.right(&[0, 4, 5, 6]);
    table
}

/// What was done about the members of the shards.
fn change_table(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&["shard", "came", "left", "took", "why"]);
    for shard in shards {
        for change in &shard.changes {
            table.add_row(vec![
                shard.shard_id.to_string(),
                number(change.add_node_id),
                number(change.remove_node_id),
                took(change.began_ms, change.ended_ms),
                change.reason.clone(),
            ]);
        }
    }
    table.right(&[0, 1, 2, 3]);
    table
}

/// A node, where there is one.
fn number(id: u64) -> String {
    if id > 0 {
        id.to_string()
    } else {
        String::new()
    }
}

fn took(began_ms: i64, ended_ms: i64) -> String {
    let took = ended_ms.saturating_sub(began_ms);
    format!("{:.1} s", took as f64 / 1000.0)
}

/// What coordinators and shard servers did lately, the newest first.
fn action_table(actions: &[ActionReport], now_ms: i64) -> Table {
    let mut table = Table::new(&[
        "ago", "by", "action", "why", "shard", "node", "times", "failed",
    ]);
    for action in actions.iter().rev().take(ACTIONS_SHOWN) {
        let shard = action.shard_id.map(|shard| shard.to_string());
        table.add_row(vec![
            took(action.last_ms, now_ms.max(action.last_ms)),
            doer(action),
            action.kind.clone(),
            action.reason.clone(),
            shard.unwrap_or_default(),
            number(action.node_id),
            action.times.to_string(),
            action.error.clone(),
        ]);
    }
    table.right(&[0, 4, 5, 6]);
    table
}

fn doer(action: &ActionReport) -> String {
    match action.by_node_id {
        _ if !action.watchdog.is_empty() => action.watchdog.clone(),
        0 => format!("coordinator {}", action.coordinator_id),
        node => format!("node {node}"),
    }
}

fn action_json(action: &ActionReport) -> Value {
    json!({
        "coordinator_id": action.coordinator_id,
        "by_node_id": action.by_node_id,
        "watchdog": action.watchdog,
        "kind": action.kind,
        "reason": action.reason,
        "shard_id": action.shard_id,
        "node_id": action.node_id,
        "error": action.error,
        "times": action.times,
        "first_ms": action.first_ms,
        "last_ms": action.last_ms,
    })
}

/// What watchdogs did, and do.
fn turn_table(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&["shard", "recovery", "state", "took", "watchdog", "why"]);
    for shard in shards {
        for turn in &shard.turns {
            let took = if turn.state() == TurnState::Open {
                String::new()
            } else {
                took(turn.began_ms, turn.ends_ms)
            };
            table.add_row(vec![
                shard.shard_id.to_string(),
                turn.attempt.to_string(),
                turn_state(turn).to_owned(),
                took,
                turn.watchdog.clone(),
                turn.reason.clone(),
            ]);
        }
    }
    table.right(&[0, 1, 3]);
    table
}

fn turn_state(turn: &RecoveryTurn) -> &'static str {
    match turn.state() {
        TurnState::Unspecified => "unknown",
        TurnState::Open => "running",
        TurnState::Recovered => "recovered",
        TurnState::NeedsAcceptLoss => "needs accept-loss",
        TurnState::TimedOut => "timed out",
        TurnState::GivenUp => "given up",
        TurnState::Expired => "expired",
    }
}

fn turn_json(turn: &RecoveryTurn) -> Value {
    json!({
        "attempt": turn.attempt,
        "state": turn_state(turn),
        "watchdog": turn.watchdog,
        "reason": turn.reason,
        "began_ms": turn.began_ms,
        "ends_ms": turn.ends_ms,
    })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "node_id": node.node_id,
        "name": node.name,
        "address": node.address,
        "region": node.region,
        "silent_ms": node.silent_ms,
        "alive": node.alive,
        "lost": node.lost,
        "reason": node.reason,
        "draining": node.draining,
        "process_memory_bytes": node.process_memory_bytes,
        "disk_free_bytes": node.disk_free_bytes,
    })
}

/// All of it for programs.
pub(crate) fn as_json(status: &GetStatusResponse) -> Value {
    let shard = |shard: &ShardStatus| {
        let turns: Vec<Value> = shard.turns.iter().map(turn_json).collect();
        let changes: Vec<Value> = shard.changes.iter().map(past_change_json).collect();
        let replicas: Vec<Value> = shard
            .replicas
            .iter()
            .map(|replica| {
                json!({
                    "node_id": replica.node_id,
                    "role": role_name(replica),
                    "leader_node_id": replica.leader_node_id,
                    "entries_behind": entries_behind(shard, replica),
                    "serving": replica.serving,
                    "raft_term": replica.raft_term,
                    "committed_index": replica.committed_index,
                    "applied_index": replica.applied_index,
                    "snapshot_index": replica.snapshot_index,
                    "terms": replica.terms,
                    "total_count": replica.total_count,
                    "memory_bytes": replica.memory_bytes,
                    "repeat_table_bytes": replica.repeat_table_bytes,
                    "replayed_entries": replica.replayed_entries,
                    "replay_target": replica.replay_target,
                    "data_loss": replica.data_loss,
                    "reason": replica.reason,
                })
            })
            .collect();
        json!({
            "shard_id": shard.shard_id,
            "shard_key": shard.shard_key,
            "incarnation": shard.incarnation,
            "state": state_of(shard),
            "reason": shard.reason,
            "audit": shard.audit.as_ref().map(audit_json),
            "records_per_second": shard.records_per_second,
            "reads_per_second": shard.reads_per_second,
            "last_known_index": shard.last_known_index,
            "recoveries": shard.recoveries,
            "turns": turns,
            "change": shard.change.as_ref().map(change_json),
            "changes": changes,
            "replicas": replicas,
        })
    };
    json!({
        "cluster_id": hex(&status.cluster_id),
        "epoch": status.epoch,
        "namespaces": status.namespaces,
        "metadata_available": status.metadata_available,
        "version": status.version,
        "coordinators": status.coordinators.iter().map(coordinator_json).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(shard).collect::<Vec<_>>(),
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "actions": status.actions.iter().map(action_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(name: &str, region: &str) -> String {
        let node = NodeStatus {
            node_id: 1,
            name: name.to_owned(),
            region: region.to_owned(),
            ..NodeStatus::default()
        };
        let coordinator = CoordinatorStatus {
            address: name.to_owned(),
            ..CoordinatorStatus::default()
        };
        let status = GetStatusResponse {
            nodes: vec![node],
            coordinators: vec![coordinator],
            ..GetStatusResponse::default()
        };
        as_text(&status, 0)
    }

    #[test]
    fn regions_have_a_column_where_there_are_any() {
        assert!(!text_of("shard-1", "").contains("region"));
        let text = text_of("shard-1", "north");
        assert!(text.contains("region") && text.contains("north"), "{text}");
    }

    #[test]
    fn a_name_has_no_power_over_the_terminal() {
        let text = text_of("shard\u{1b}[2J", "");
        assert_eq!(text.matches("shard\u{fffd}[2J").count(), 2, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
