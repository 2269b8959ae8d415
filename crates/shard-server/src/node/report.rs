//! What a node tells of itself.

use std::collections::BTreeSet;

use api::admin::v1::{ReplicaRole, ReplicaStatus};
use api::registry::v1::SyncRequest;
use cluster::limits;
use replication::Role;

use super::{Node, Place, Replica, Slot, SlotState};

impl Node {
    /// The parts of a report that are about replicas and resources.
    pub(super) fn report(&self) -> SyncRequest {
        let damage = self.damage();
        let free = self.vfs.free_space(self.data_dir());
        let disk_full = self.is_disk_full();
        let full = || disk_full.then(|| "the disk is full".to_owned());
        let stall = self.stall();
        let stalls = || stall.map(|stall| format!("the disk has not answered for {stall:?}"));
        SyncRequest {
            replicas: self.replica_reports(),
            process_memory_bytes: telemetry::process::resident_bytes().unwrap_or_default(),
            disk_free_bytes: free.unwrap_or_default(),
            data_loss: damage.is_some(),
            reason: damage.or_else(full).or_else(stalls).unwrap_or_default(),
            disk_full,
            disk_stalled: stall.is_some(),
            actions: self.metrics.recent_actions(),
            ..SyncRequest::default()
        }
    }

    /// Every replica, running or not, and what of one is still to be removed: whoever is not told of could not act any more.
    pub(crate) fn replica_reports(&self) -> Vec<ReplicaStatus> {
        let node = self.identity().map_or(0, |identity| identity.node.0);
        let slots = self.slots();
        // After the slots: one that is taken away is on this list before. What a life that does not run yet may begin from stays.
        let mut gone = self.being_removed();
        gone.retain(|(shard, incarnation)| {
            let slot = slots.get(shard);
            slot.is_none_or(|slot| slot.running().is_some() && *incarnation < slot.incarnation)
        });
        let of_slots = slots
            .into_iter()
            .map(|(shard, slot)| ((shard, slot.incarnation), of_slot(&slot)));
        let of_gone = gone.into_iter().map(|place| (place, of_what_is_left()));
        let named = |((shard, incarnation), status): (Place, ReplicaStatus)| ReplicaStatus {
            shard_id: shard.0,
            incarnation: incarnation.0,
            node_id: node,
            ..status
        };
        // A coordinator takes no report of more.
        let all = of_slots.chain(of_gone).take(limits::SHARDS_MAX);
        all.map(named).collect()
    }

    /// What was begun or joined here and may still be on the disk. Nothing is removed before the log is open.
    fn being_removed(&self) -> BTreeSet<Place> {
        let Some(host) = self.host() else {
            return BTreeSet::new();
        };
        let leaving = self.leaving.lock().clone();
        let mut places = self.lives_here(host);
        places.extend(leaving);
        places
    }
}

fn of_what_is_left() -> ReplicaStatus {
    ReplicaStatus {
        role: ReplicaRole::Stopped.into(),
        reason: "it is being removed".to_owned(),
        ..ReplicaStatus::default()
    }
}

fn of_slot(slot: &Slot) -> ReplicaStatus {
    let mut status = ReplicaStatus {
        role: ReplicaRole::Unspecified.into(),
        ..ReplicaStatus::default()
    };
    match &slot.state {
        SlotState::Running(replica) => return of_replica(replica),
        SlotState::Starting(watch) => {
            if let Some(watch) = watch {
                let replay = watch.get();
                status.replayed_entries = replay.done;
                status.replay_target = replay.target;
                status.start_bytes = watch.bytes();
            }
            status.reason = "it is being recovered".to_owned();
        }
        SlotState::Waiting { reason } => status.reason.clone_from(reason),
        SlotState::Failed(failure) => {
            status.role = ReplicaRole::Stopped.into();
            status.reason.clone_from(&failure.reason);
            status.data_loss = failure.data_loss;
        }
    }
    status
}

fn of_replica(replica: &Replica) -> ReplicaStatus {
    let group = replica.group().status();
    let stats = replica.state().stats();
    let serving = Replica::is_serving(&group);
    let role = match group.role {
        Role::Leader => ReplicaRole::Leader,
        Role::Follower => ReplicaRole::Follower,
        Role::Candidate => ReplicaRole::Candidate,
        Role::Learner => ReplicaRole::Learner,
        Role::Stopped => ReplicaRole::Stopped,
    };
    let reason = match &group.stopped {
        Some(stopped) => stopped.reason.clone(),
        None if !serving && group.role == Role::Leader => "no majority answers".to_owned(),
        None if !serving => "no leader is heard".to_owned(),
        None => String::new(),
    };
    ReplicaStatus {
        shard_id: 0,
        incarnation: 0,
        node_id: 0,
        role: role.into(),
        raft_term: group.term,
        committed_index: group.committed.unwrap_or_default(),
        applied_index: group.applied.map_or(0, |applied| applied.index),
        snapshot_index: group.snapshot.unwrap_or_default(),
        terms: stats.terms,
        total_count: stats.total_count,
        memory_bytes: stats.memory_bytes,
        repeat_table_bytes: stats.repeat_table_bytes,
        records_total: replica.state().counts().items,
        reads_total: replica.reads(),
        reason,
        data_loss: group.data_loss(),
        serving,
        replayed_entries: group.replay.done,
        replay_target: group.replay.target,
        leader_node_id: group.leader.map_or(0, |leader| leader.node.0),
        audits: replica.audits().lock().all(),
        start_bytes: 0,
    }
}
