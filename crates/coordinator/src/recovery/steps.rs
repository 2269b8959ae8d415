//! The steps by which a shard begins anew. Each looks at the metadata first, so that a second run does only what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::v1::{RecoverShardResponse, RecoveryAction, ShardState};
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId};

use super::seed::{awaits_seed, not_held};
use super::{Case, Origin, Outcome, Recovery};
use crate::actions::{About, Action};
use crate::liveness::Heard;
use crate::meta::unexpected;
use crate::metadata::{Command, NewLife, Response, ShardRecord, State};
use crate::snapshots::{Held, take_and_pull};
use crate::status;

/// A node that gave up its data has this long to come back before another takes its place.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// The new life must serve within this long.
const SERVE_PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);
const PUSH_PAUSE: Duration = Duration::from_secs(1);
/// How often what a replica has is fetched because it has come further meanwhile, which takes a majority.
const RESCUES_MAX: usize = 3;

impl Recovery {
    /// Ends a shard's life and begins the next, or goes on with a next one that was begun and does not serve yet. Says from what, which
    /// may be another than was meant.
    pub(super) async fn begin_anew(&self, shard: ShardId, meant: Origin) -> (Origin, Outcome) {
        let mut origin = meant;
        let outcome = match self.begin_life(shard, &mut origin).await {
            Ok(last_known) => self.seed_and_serve(shard, last_known).await,
            Err(error) => Err(error),
        };
        (origin, outcome)
    }

    /// Ends a shard's life and begins the next, unless that was done. Returns how far the old one is known to have come.
    async fn begin_life(&self, shard: ShardId, origin: &mut Origin) -> Result<u64, ApiError> {
        let case = self.look_by_all(shard).await?;
        let or_nothing = match *origin {
            Origin::Replica(node) => return self.life_from_replica(&case, node).await,
            Origin::Seed | Origin::Held { .. } if case.state != ShardState::DataLoss => {
                return Ok(case.record.last_known_index);
            }
            // That has been accepted by nobody.
            Origin::Seed if case.seed_is_lost => return Err(not_held(&case.record)),
            Origin::Seed => false,
            Origin::Held { or_nothing } => or_nothing,
        };
        // Chosen was by names: only now it is known what of that is sound.
        let newest = self.store.of(shard).into_iter().next();
        let seed = self.store.newest_sound(shard).await;
        if let Some(node) = case.furthest_left(seed.as_slice()) {
            *origin = Origin::Replica(node);
            return self.life_from_replica(&case, node).await;
        }
        let sound = seed.as_ref().map(Held::reach);
        if let Some(rotten) = newest.filter(|newest| sound < Some(newest.reach())) {
            return Err(not_what_was_accepted(&rotten));
        }
        if seed.is_none() && !or_nothing {
            let heard = self.liveness.all();
            let known = status::last_known_index(&heard, &case.record);
            check_never_held(&case.record, known)?;
        }
        self.give_up(&case).await?;
        let fresh = self.fresh_node(&case).await?;
        let now = self.look_by_all(shard).await?;
        if now.state != ShardState::DataLoss {
            let message = format!("shard {shard} has come back: {}", now.reason);
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        // That took a while, in which a sound replica may have come back.
        if let Some(node) = now.furthest_left(seed.as_slice()) {
            *origin = Origin::Replica(node);
            return self.life_from_replica(&case, node).await;
        }
        self.check_all_are_heard_out(&now, None)?;
        self.new_life(&case, fresh, seed).await
    }

    async fn life_from_replica(&self, case: &Case, node: NodeId) -> Result<u64, ApiError> {
        let shard = case.record.shard.id;
        for _ in 0..RESCUES_MAX {
            let rescued = self.rescue(shard, node).await?;
            // That took a while, in which a majority may have come back, and gone again with more than was fetched.
            let now = self.look_by_all(shard).await?;
            self.check_origin(&now, node)?;
            if now.sound_index(node) <= Some(rescued.index) {
                return self.new_life(case, node, Some(rescued)).await;
            }
        }
        let message = format!(
            "the replica of shard {shard} on node {node} has come further each time that it was fetched: ask again once it stands still"
        );
        Err(ApiError::new(Reason::Starting, message))
    }

    /// The node whose whole log is damaged sets it aside and ends, to come back empty.
    async fn give_up(&self, case: &Case) -> Result<(), ApiError> {
        for replica in &case.record.shard.replicas {
            let heard = self.liveness.of(replica.node);
            let damaged = heard.is_some_and(|heard| heard.alive && heard.report.data_loss);
            let lost = self.meta.read(|state| state.is_lost(replica.node));
            if lost || !damaged {
                continue;
            }
            let (meta, liveness) = (&self.meta, &self.liveness);
            let given = super::give_up(meta, liveness, &self.router, replica.node).await;
            let about = About::node(replica.node);
            self.actions
                .count(Action::SetDataAside, "loss_accepted", about, &given);
            given?;
        }
        Ok(())
    }

    /// Where the new life begins: at the node of the same name when it comes back in time (or never went away), else at the
    /// one that holds least.
    async fn fresh_node(&self, case: &Case) -> Result<NodeId, ApiError> {
        let until = self.runtime.now() + RETURN_PATIENCE;
        loop {
            if let Some(node) = self.namesake(case) {
                return Ok(node);
            }
            if self.runtime.now() >= until {
                break;
            }
            self.runtime.sleep(POLL).await;
        }
        self.least_loaded(case).ok_or_else(|| {
            let message = "no shard server is there to begin the shard on";
            ApiError::new(Reason::ShardUnavailable, message)
        })
    }

    fn namesake(&self, case: &Case) -> Option<NodeId> {
        let heard = self.liveness.all();
        self.meta.read(|state| {
            let replicas = case.record.shard.replicas.iter();
            let names: Vec<&str> = replicas
                .filter_map(|at| state.nodes.get(&at.node))
                .map(|record| record.node.name.as_str())
                .collect();
            let nodes = state.nodes.values().map(|record| &record.node);
            let mut usable = nodes.filter(|node| {
                names.contains(&node.name.as_str()) && is_free(state, &heard, case, node)
            });
            usable.next().map(|node| node.id)
        })
    }

    fn least_loaded(&self, case: &Case) -> Option<NodeId> {
        let heard = self.liveness.all();
        self.meta.read(|state| {
            let nodes = state.nodes.values().map(|record| &record.node);
            nodes
                .filter(|node| is_free(state, &heard, case, node))
                .map(|node| node.id)
                .min_by_key(|node| (state.replicas_on(*node), *node))
        })
    }

    /// Fetches what a replica has, as a snapshot.
    async fn rescue(&self, shard: ShardId, node: NodeId) -> Result<Held, ApiError> {
        let link = self.router.link(node)?;
        take_and_pull(&self.runtime, &self.store, &link, shard).await
    }

    /// Records the new life. Returns how far the old one is known to have come.
    async fn new_life(
        &self,
        case: &Case,
        node: NodeId,
        seed: Option<Held>,
    ) -> Result<u64, ApiError> {
        let shard = &case.record.shard;
        let command = Command::NewIncarnation(NewLife {
            shard: shard.id,
            from: shard.incarnation,
            node,
            seed: seed.as_ref().map(Held::seed),
        });
        let response = self.meta.propose(&command).await?;
        let Response::Incarnation {
            incarnation,
            last_known_index,
        } = response
        else {
            return Err(unexpected(&response));
        };
        tracing::warn!(
            shard = %shard.id, %incarnation, %node, last_known_index,
            snapshot_index = seed.map_or(0, |held| held.index),
            "a shard begins a new life"
        );
        Ok(last_known_index)
    }

    /// Sends the snapshot until the node has it, and waits until the shard serves.
    async fn seed_and_serve(
        &self,
        shard: ShardId,
        last_known_index: u64,
    ) -> Result<RecoverShardResponse, ApiError> {
        let until = self.runtime.now() + SERVE_PATIENCE;
        let mut sent = false;
        loop {
            let case = self.look(shard)?;
            if case.state == ShardState::Serving {
                return Ok(recovered(&case, last_known_index));
            }
            if self.runtime.now() >= until {
                let message = format!("shard {shard} does not serve yet: {}", case.reason);
                return Err(ApiError::new(Reason::ShardUnavailable, message));
            }
            let pause = if sent || !awaits_seed(&case.record) {
                POLL
            } else if let Err(error) = self.send_seed(&case).await {
                if error.reason() == Reason::UnknownSnapshot {
                    return Err(error);
                }
                tracing::warn!(%shard, %error, "the snapshot was not taken, trying again");
                PUSH_PAUSE
            } else {
                sent = true;
                POLL
            };
            self.runtime.sleep(pause).await;
        }
    }
}

/// What was to be begun from has rotted. It is not held any more, and what is left is less than what a person was told: they have to
/// be asked again, for another coordinator may hold more.
fn not_what_was_accepted(rotten: &Held) -> ApiError {
    let (shard, index) = (rotten.shard, rotten.index);
    let message = format!(
        "the snapshot of shard {shard} that reaches to index {index} is damaged, and so is not held here any more: look at what is left by \
         `coordinator snapshot list`, of every coordinator, and ask again"
    );
    ApiError::new(Reason::UnknownSnapshot, message)
}

/// Refuses that a shard which has held something begins empty: a coordinator that lost its directory holds nothing, and others may.
fn check_never_held(record: &ShardRecord, index: u64) -> Result<(), ApiError> {
    let shard = record.shard.id;
    if !record.begun && index == 0 {
        return Ok(());
    }
    let message = format!(
        "shard {shard} had come to index {index} at least, and this coordinator holds no sound snapshot of it; another may: ask each of them by \
         `coordinator snapshot list`, and recover through the one that holds the newest. If none holds any, the shard can only begin empty \
         (recover {shard} --accept-loss --accept-empty)"
    );
    Err(ApiError::new(Reason::UnknownSnapshot, message))
}

/// Whether a new life may begin on a node: it is there, and has no replica of the last one that may still be sound, for that would be
/// removed. Nothing is there of one whose snapshot is lost.
fn is_free(
    state: &State,
    heard: &BTreeMap<NodeId, Heard>,
    case: &Case,
    node: &cluster::Node,
) -> bool {
    let is_alive = heard.get(&node.id).is_some_and(|heard| heard.alive);
    let mut replicas = case.record.shard.replicas.iter();
    let may_be_sound = replicas
        .any(|at| at.node == node.id && status::hopeless(state, heard, &case.record, at).is_none());
    is_alive && !node.lost && (case.seed_is_lost || !may_be_sound)
}

fn recovered(case: &Case, last_known_index: u64) -> RecoverShardResponse {
    let record = &case.record;
    let snapshot_index = record.seed.as_ref().map_or(0, |seed| seed.index);
    let message = match &record.seed {
        None => format!(
            "shard {} serves in its life {}, begun empty: no snapshot was held, and everything up to index {last_known_index} is lost",
            record.shard.id, record.shard.incarnation
        ),
        Some(_) if last_known_index <= snapshot_index => format!(
            "shard {} serves in its life {}, begun from the snapshot of index {snapshot_index}; nothing later is known to have been applied",
            record.shard.id, record.shard.incarnation
        ),
        Some(_) => format!(
            "shard {} serves in its life {}, begun from the snapshot of index {snapshot_index}; entries up to {last_known_index} or beyond may be missing",
            record.shard.id, record.shard.incarnation
        ),
    };
    RecoverShardResponse {
        action: RecoveryAction::NewIncarnation.into(),
        message,
        snapshot_index,
        last_known_index,
        incarnation: record.shard.incarnation.0,
    }
}

#[cfg(test)]
mod tests {
    use cluster::Incarnation;

    use super::*;

    #[test]
    fn what_a_person_is_told_of_a_rotten_snapshot_is_one_sentence() {
        let rotten = Held {
            shard: ShardId(7),
            incarnation: Incarnation::FIRST,
            raft_term: 1,
            index: 40,
            bytes: 1,
            hash: [0; 32],
            taken_at_ms: 0,
        };
        let told = not_what_was_accepted(&rotten).to_string();
        assert!(!told.contains("  ") && !told.contains('\n'), "{told}");
    }
}
