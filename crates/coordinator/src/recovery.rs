//! What is wrong with a shard, and how it comes back.
//!
//! Whether anything may be given up is decided by a person, never here: without `accept_loss` and the typed words a shard whose data
//! is lost or damaged stays as it is. With them, the steps are: the damaged node gives up its data (it keeps them aside) and comes back
//! as a new one; the shard begins a new life on a fresh node; the held snapshot is sent there; the shard serves.
//!
//! What always holds: each step is recorded in the metadata before the next, so that a recovery that was broken off (here or
//! by a crash) goes on where it was, by the same verb or by itself ([`Recovery::resume`]); one recovery of a shard runs at a
//! time; a shard that serves is left alone; no life is ended while, as any of the coordinators hears it, a majority may be at work, or one
//! of its replicas may turn out to reach further than what the next begins from.
//!
//! A shard of several replicas that has lost its majority for good can also begin anew from what one of them still has
//! ([`Recovery::begin_from`]). What needs nobody's word, because a majority is there, is [`repair`]. Whether a life that waits for its
//! snapshot will ever have it, [`seed`] finds out.
//!
//! On failure: what was given up by then stays set aside. A shard that has held something begins empty only where a person has said so
//! in words of their own: what is not held here, another coordinator may hold.

mod balance;
mod case;
mod observed;
pub(crate) mod repair;
mod seed;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::{
    GetStatusResponse, RecoverShardRequest, RecoverShardResponse, RecoveryAction, ShardState,
};
use api::shard::v1::GiveUpDataRequest;
use api::{ApiError, Reason};
use cluster::{Incarnation, NodeId, ShardId};
use parking_lot::Mutex;
use rpc::Deadline;
use runtime::Runtime;
use tokio::sync::watch;

pub(crate) use balance::Balance;
pub(crate) use observed::Observed;
pub(crate) use repair::{Repair, RepairSettings};

use case::{Case, add_heard_by_others};
use seed::awaits_seed;

use crate::actions::{About, Action, Actions};
use crate::admin::others;
use crate::liveness::{Heard, Liveness};
use crate::meta::Meta;
use crate::metadata::Command;
use crate::placement::repair::has_majority;
use crate::routing::Router;
use crate::snapshots::Store;
use crate::status;

/// Repairs shards.
#[derive(Debug, Clone)]
pub(crate) struct Recovery {
    runtime: Runtime,
    meta: Arc<Meta>,
    liveness: Arc<Liveness>,
    router: Arc<Router>,
    store: Arc<Store>,
    actions: Actions,
    /// Recoveries that run, and the last outcome of each that has ended; one for each shard.
    runs: Arc<Mutex<HashMap<ShardId, Run>>>,
}

/// How long a node may take to set its data aside.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(10);

/// What a shard begins anew from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The newest sound snapshot that is held, unless a sound replica reaches as far; where nothing is left, and a person has accepted
    /// that, nothing.
    Held { or_nothing: bool },
    /// What a replica still has.
    Replica(NodeId),
    /// The snapshot that the present life was to begin from.
    Seed,
}

impl Origin {
    const fn label(self) -> &'static str {
        match self {
            Self::Held { .. } | Self::Seed => "from_snapshot",
            Self::Replica(_) => "from_replica",
        }
    }
}

/// The sound replica that has come furthest, by its index in the present life, unless what is held reaches further. Of two that reach as
/// far it is the replica, which may have come further since it said so, while a file may have rotted. What was held of an earlier life
/// is older than all of this one, whatever its index: lives count anew.
pub(crate) fn furthest(
    present: Incarnation,
    sound: impl Iterator<Item = (u64, NodeId)>,
    held: impl Iterator<Item = (Incarnation, u64)>,
) -> Option<NodeId> {
    let (index, node) = sound.max()?;
    let reaches = held.max().is_none_or(|held| held <= (present, index));
    reaches.then_some(node)
}

type Outcome = Result<RecoverShardResponse, ApiError>;
type Run = watch::Receiver<Option<Outcome>>;

impl Recovery {
    pub(crate) fn new(
        runtime: &Runtime,
        meta: Arc<Meta>,
        liveness: Arc<Liveness>,
        router: Arc<Router>,
        store: Arc<Store>,
        actions: Actions,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            meta,
            liveness,
            router,
            store,
            actions,
            runs: Arc::default(),
        }
    }

    /// RecoverShard. Waits for what it began as long as the caller does; a repeated call finds it again.
    pub(crate) async fn recover(
        &self,
        request: RecoverShardRequest,
        deadline: Deadline,
    ) -> Result<RecoverShardResponse, ApiError> {
        let shard = ShardId(request.shard_id);
        let case = self.look(shard)?;
        check_acceptance(&request)?;
        if let Some(run) = self.run_of(shard, &case, request.accept_loss) {
            return self.follow(run, deadline, &case).await;
        }
        let case = if request.accept_loss {
            self.look_by_all(shard).await?
        } else {
            self.seek_seed(case).await
        };
        match case.state {
            ShardState::Serving => Ok(answer(&case, RecoveryAction::None, "the shard serves")),
            ShardState::Unplaced
            | ShardState::Recovering
            | ShardState::Unreachable
            | ShardState::Unspecified => {
                if awaits_seed(&case.record) && self.holds_seed(&case.record) {
                    let run = self.start(shard, Origin::Seed);
                    return self.follow(run, deadline, &case).await;
                }
                let message = self.waiting(&case);
                Ok(answer(&case, RecoveryAction::WaitForProcess, &message))
            }
            ShardState::DataLoss if !request.accept_loss => {
                let message = format!(
                    "{}; only accepting the loss goes on (recover {shard} --accept-loss)",
                    case.reason
                );
                Ok(answer(&case, RecoveryAction::NeedsAcceptLoss, &message))
            }
            ShardState::DataLoss => {
                self.check_all_are_heard_out(&case, None)?;
                let or_nothing = request.accept_empty;
                let replica = case.furthest_left(&self.store.of(shard));
                let origin = replica.map_or(Origin::Held { or_nothing }, Origin::Replica);
                tracing::warn!(%shard, reason = case.reason, ?origin, "an operator accepts the loss of a shard's data");
                let run = self.start(shard, origin);
                self.follow(run, deadline, &case).await
            }
        }
    }

    /// Begins a shard anew from what a node's replica has, after an operator's word. Says whether it is done, and more for people.
    pub(crate) async fn begin_from(
        &self,
        shard: ShardId,
        node: NodeId,
        confirmation: &str,
        deadline: Deadline,
    ) -> Result<(bool, String), ApiError> {
        let case = self.look(shard)?;
        check_words(shard, confirmation)?;
        let known = self.run_of(shard, &case, true);
        let run = match known {
            Some(run) => run,
            None => {
                self.check_origin(&self.look_by_all(shard).await?, node)?;
                tracing::warn!(%shard, %node, "an operator has a shard begun anew from one of its replicas");
                self.start(shard, Origin::Replica(node))
            }
        };
        let done = self.follow(run, deadline, &case).await?;
        Ok((
            done.action() == RecoveryAction::NewIncarnation,
            done.message,
        ))
    }

    /// Whether a shard may begin anew from a node's replica, which ends all others: only where no majority is at work or may come to be,
    /// none of them reaches further or may still turn out to, and there is something sound.
    fn check_origin(&self, case: &Case, node: NodeId) -> Result<(), ApiError> {
        let shard = case.record.shard.id;
        let refused = |message: String| Err(ApiError::new(Reason::NotNeeded, message));
        let silent_for = |node| self.liveness.silent_for(node);
        let observed = self
            .meta
            .read(|state| Observed::new(state, &case.heard, silent_for));
        let view = observed.shards.iter().find(|at| at.id == shard);
        if view.is_some_and(has_majority) {
            return refused(format!("shard {shard} has a majority at work"));
        }
        let Some(index) = case.sound_index(node) else {
            return refused(format!("node {node} has nothing sound of shard {shard}"));
        };
        let best = case.best_replica().filter(|(best, _)| *best > index);
        if let Some((best, other)) = best {
            return refused(format!(
                "the replica of shard {shard} on node {other} reaches to index {best}, that on node {node} to {index}: begin from node {other}, \
                 or stop its server to go on without it"
            ));
        }
        self.check_all_are_heard_out(case, Some(node))?;
        if self.may_have_majority(case) {
            let message = format!(
                "so many voters of shard {shard} are there that they can be a majority: wait for them, or stop the servers of those that do not \
                 come to work, to go on without them"
            );
            return Err(ApiError::new(Reason::Starting, message));
        }
        Ok(())
    }

    /// Refuses that a life ends by a person's word while one of its replicas, which would be removed, may still turn out to be sound. The
    /// one that the next life is to begin from is not.
    fn check_all_are_heard_out(&self, case: &Case, origin: Option<NodeId>) -> Result<(), ApiError> {
        if case.seed_is_lost {
            return Ok(());
        }
        let (record, heard) = (&case.record, &case.heard);
        let open = self.meta.read(|state| {
            let replicas = record.shard.replicas.iter();
            let mut ended = replicas.filter(|at| Some(at.node) != origin);
            ended.find_map(|at| {
                let why = status::not_heard_out(state, heard, record, at)?;
                Some((at.node, why))
            })
        });
        let Some((node, why)) = open else {
            return Ok(());
        };
        let shard = record.shard.id;
        let message = format!(
            "node {node} may still have something sound of shard {shard}: {why}; wait for it, or stop its server to go on without it"
        );
        Err(ApiError::new(Reason::Starting, message))
    }

    /// Goes on with what was broken off: a new life that still waits for its snapshot, or is lost without it. Done by whoever holds that very
    /// snapshot; sending it twice does no harm.
    pub(crate) fn resume(&self) {
        let open: Vec<(ShardId, Incarnation)> = self.meta.read(|state| {
            let shards = state.shards.values();
            shards
                .filter(|record| awaits_seed(record) && self.holds_seed(record))
                .map(|record| (record.shard.id, record.shard.incarnation))
                .collect()
        });
        for (shard, incarnation) in open {
            if !self.is_cared_for(shard, incarnation) {
                tracing::info!(%shard, %incarnation, "a recovery goes on, for the life that it has begun awaits its snapshot");
                self.start(shard, Origin::Seed);
            }
        }
    }

    fn look(&self, shard: ShardId) -> Result<Case, ApiError> {
        self.look_with(shard, &[])
    }

    /// As [`Self::look`], by what any of the coordinators hears that answer: whoever is about to end a life must not take a server for gone
    /// that only this one does not hear.
    async fn look_by_all(&self, shard: ShardId) -> Result<Case, ApiError> {
        let views = others::views(&self.meta).await;
        let case = self.look_with(shard, &views)?;
        Ok(self.seek_seed(case).await)
    }

    fn look_with(&self, shard: ShardId, views: &[GetStatusResponse]) -> Result<Case, ApiError> {
        let mut heard: BTreeMap<NodeId, Heard> = self.liveness.all();
        self.meta.read(|metadata| {
            let record = metadata.shards.get(&shard).ok_or_else(|| {
                ApiError::new(Reason::UnknownShard, format!("there is no shard {shard}"))
            })?;
            add_heard_by_others(&mut heard, record, views);
            let (state, reason) = status::judge(metadata, &heard, record);
            Ok(Case {
                record: record.clone(),
                state,
                reason,
                heard,
                seed_is_lost: false,
            })
        })
    }

    /// Who has to bring a shard back that nothing can be done about from here.
    fn waiting(&self, case: &Case) -> String {
        let (shard, reason) = (case.record.shard.id, &case.reason);
        match case.state {
            ShardState::Unreachable => format!(
                "{reason}: bring its process back. If its disk is gone for good, start a server of the same name with an empty directory; \
                 the shard then counts as lost and can be recovered"
            ),
            ShardState::Recovering => {
                let resort = self.last_resort(case).unwrap_or_default();
                format!("shard {shard} {reason}{resort}")
            }
            ShardState::Unplaced
            | ShardState::Serving
            | ShardState::DataLoss
            | ShardState::Unspecified => format!("shard {shard} {reason}"),
        }
    }

    /// Whether so many of a shard's voters are there, and not hopeless, that they may be a majority.
    fn may_have_majority(&self, case: &Case) -> bool {
        let (record, heard) = (&case.record, &case.heard);
        let voters = record.shard.replicas.iter().filter(|at| at.voter);
        let able = self.meta.read(|state| {
            let may_vote = |at: &&cluster::Replica| {
                let is_alive = heard.get(&at.node).is_some_and(|heard| heard.alive);
                is_alive && status::hopeless(state, heard, record, at).is_none()
            };
            voters.clone().filter(may_vote).count()
        });
        able > voters.count() / 2
    }

    /// The verb that helps where the majority of a shard's voters stays away; nothing as long as it may be at work.
    fn last_resort(&self, case: &Case) -> Option<String> {
        if self.may_have_majority(case) {
            return None;
        }
        let (index, node) = case.best_replica()?;
        let name = self.meta.read(|state| {
            let node = state.nodes.get(&node);
            node.map_or_else(String::new, |known| known.node.name.clone())
        });
        let shard = case.record.shard.id;
        Some(format!(
            ": bring the servers back that are away. Only if they are gone for good, `coordinator promote {shard} {node} --accept-loss` begins the \
             shard anew from the replica of node {node} ({name}), the one that reaches furthest, as of index {index}"
        ))
    }

    /// Whether a recovery of the shard runs, or has brought it to this life: that the life has begun is known here a little later
    /// than that it serves.
    fn is_cared_for(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        let runs = self.runs.lock();
        runs.get(&shard).is_some_and(|run| match &*run.borrow() {
            None => true,
            Some(Ok(done)) => done.incarnation == incarnation.0,
            Some(Err(_)) => false,
        })
    }

    /// The recovery that a call belongs to: one that runs, or, for the operator who asks again, the one that has brought the shard
    /// to its present life.
    fn run_of(&self, shard: ShardId, case: &Case, accept_loss: bool) -> Option<Run> {
        let runs = self.runs.lock();
        let run = runs.get(&shard)?;
        let belongs = match &*run.borrow() {
            None => true,
            Some(Ok(done)) => {
                accept_loss
                    && case.state == ShardState::Serving
                    && done.incarnation == case.record.shard.incarnation.0
            }
            Some(Err(_)) => false,
        };
        belongs.then(|| run.clone())
    }

    /// Starts a recovery as a task of its own, so that it outlives the call that asked for it.
    fn start(&self, shard: ShardId, origin: Origin) -> Run {
        let mut runs = self.runs.lock();
        if let Some(run) = runs.get(&shard).filter(|run| run.borrow().is_none()) {
            return run.clone();
        }
        let (sender, run) = watch::channel(None);
        runs.insert(shard, run.clone());
        drop(runs);
        // What goes on was counted where it was begun, and goes on at each coordinator that holds the snapshot.
        let counts = origin != Origin::Seed;
        let shard_key = self.meta.read(|state| status::shard_key(state, shard));
        if counts {
            self.actions.recovery_begun(&shard_key);
        }
        let (runtime, began) = (self.runtime.clone(), self.runtime.now());
        let (recovery, actions) = (self.clone(), self.actions.clone());
        let task = self.runtime.spawn("recover-shard", async move {
            recovery.begin_anew(shard, origin).await
        });
        self.runtime.spawn("recovery-end", async move {
            // One that panicked has ended, too: else the shard would be taken for cared for.
            let (origin, outcome) = match task.await {
                Ok(ended) => ended,
                Err(failed) => (origin, Err(ApiError::internal(failed.to_string()))),
            };
            let about = About::shard(shard);
            actions.count(Action::BeginAnew, origin.label(), about, &outcome);
            if counts && outcome.is_ok() {
                actions.recovered(&shard_key, runtime.now().saturating_since(began));
            }
            match &outcome {
                Ok(done) => tracing::warn!(%shard, message = done.message, "shard recovered"),
                Err(error) => tracing::error!(%shard, %error, "the recovery of a shard broke off"),
            }
            sender.send_replace(Some(outcome));
        });
        run
    }

    async fn follow(&self, mut run: Run, deadline: Deadline, case: &Case) -> Outcome {
        let left = deadline.remaining(&self.runtime);
        // A little is kept, so that the answer is ours and not the transport's.
        let limit = left - left / 10;
        let ended = async { run.wait_for(Option::is_some).await.map(|done| done.clone()) };
        match self.runtime.timeout(limit, ended).await {
            Ok(Ok(Some(outcome))) => outcome,
            Ok(Ok(None) | Err(_)) => Err(ApiError::internal("the recovery ended without a word")),
            Err(_) => {
                let message = "the recovery goes on; ask again";
                Ok(answer(case, RecoveryAction::WaitForProcess, message))
            }
        }
    }
}

/// The words by which a person accepts a loss, or that nothing at all may be left.
pub(crate) fn words_of_loss(shard: ShardId, all: bool) -> String {
    let all = if all { "all of " } else { "" };
    format!("lose {all}shard {shard}")
}

/// A loss is accepted only in a person's words.
pub(crate) fn check_words(shard: ShardId, confirmation: &str) -> Result<(), ApiError> {
    check_confirmed(&words_of_loss(shard, false), confirmation)
}

/// As [`check_words`], where a loss is accepted at all; that nothing may be left is accepted in other words.
pub(crate) fn check_acceptance(request: &RecoverShardRequest) -> Result<(), ApiError> {
    if !request.accept_loss {
        return Ok(());
    }
    let words = words_of_loss(ShardId(request.shard_id), request.accept_empty);
    check_confirmed(&words, &request.confirmation)
}

fn check_confirmed(words: &str, confirmation: &str) -> Result<(), ApiError> {
    if confirmation == words {
        return Ok(());
    }
    let message = format!("accepting a loss must be confirmed by the words {words:?}");
    Err(ApiError::new(Reason::ConfirmationRequired, message))
}

/// A node sets its damaged data aside and ends, to come back as a new one; its identity is given up.
async fn give_up(
    meta: &Meta,
    liveness: &Liveness,
    router: &Router,
    node: NodeId,
) -> Result<(), ApiError> {
    let request = GiveUpDataRequest {
        node_id: node.0,
        cluster_id: meta.cluster().0.to_vec().into(),
    };
    let mut client = router.link(node)?.node_client()?;
    let call = client.give_up_data(rpc::request(request, GIVE_UP_PATIENCE));
    let moved = call.await?.into_inner().moved_to;
    tracing::warn!(%node, moved, "a node set its damaged data aside");
    meta.propose(&Command::MarkNodeLost { node }).await?;
    liveness.forget(node);
    Ok(())
}

fn answer(case: &Case, action: RecoveryAction, message: &str) -> RecoverShardResponse {
    RecoverShardResponse {
        action: action.into(),
        message: message.to_owned(),
        snapshot_index: 0,
        last_known_index: case.record.last_known_index,
        incarnation: case.record.shard.incarnation.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_is_taken_unless_what_is_held_reaches_further_in_its_life() {
        let present = Incarnation(3);
        let held = |life, index| Some((Incarnation(life), index));
        let replica = Some(NodeId(2));
        let sound = [(39, NodeId(3)), (40, NodeId(2)), (7, NodeId(1))];
        let best = |held: Option<_>| {
            let held = held.into_iter().chain([(Incarnation(1), 9_999)]);
            furthest(present, sound.into_iter(), held)
        };
        assert_eq!(best(None), replica);
        assert_eq!(best(held(3, 39)), replica);
        assert_eq!(best(held(3, 40)), replica, "a file may have rotted");
        assert_eq!(best(held(3, 41)), None);
        assert_eq!(best(held(2, 9_000)), replica, "lives count anew");
        let without = |held: Option<_>| furthest(present, std::iter::empty(), held.into_iter());
        assert_eq!(without(held(2, 1)), None);
        assert_eq!(without(None), None);
    }

    #[test]
    fn that_nothing_is_left_is_accepted_in_other_words_than_a_loss() {
        let asked = |accept_loss, accept_empty, words: &str| {
            check_acceptance(&RecoverShardRequest {
                shard_id: 7,
                accept_loss,
                confirmation: words.to_owned(),
                accept_empty,
            })
        };
        assert_eq!(asked(false, false, ""), Ok(()));
        assert_eq!(asked(true, false, "lose shard 7"), Ok(()));
        assert_eq!(asked(true, true, "lose all of shard 7"), Ok(()));
        for (accept_empty, words) in [
            (false, ""),
            (false, "lose all of shard 7"),
            (true, "lose shard 7"),
            (true, "lose all of shard 1"),
        ] {
            let refused = asked(true, accept_empty, words).unwrap_err();
            assert_eq!(refused.reason(), Reason::ConfirmationRequired, "{words:?}");
        }
    }
}
