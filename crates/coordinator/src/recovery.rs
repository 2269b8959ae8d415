//! What is wrong with a shard, and how it comes back.
//!
//! Whether anything may be given up is decided by a person, never here: without `accept_loss` and the typed words a shard whose data
//! is lost or damaged stays as it is. With them, the steps are: the damaged node gives up its data (it keeps them aside) and comes back
//! as a new one; the shard begins a new life on a fresh node; the held snapshot is sent there; the shard serves.
//!
//! What always holds: each step is recorded in the metadata before the next, so that a recovery that was broken off (here or
//! by a crash) goes on where it was, by the same verb or by itself ([`Recovery::resume`]); one recovery of a shard runs at a
//! time; a shard that serves is left alone.

mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::admin::v1::{RecoverShardRequest, RecoverShardResponse, RecoveryAction, ShardState};
use api::{ApiError, Reason};
use cluster::{NodeId, ShardId};
use parking_lot::Mutex;
use rpc::Deadline;
use runtime::Runtime;
use tokio::sync::watch;

use crate::liveness::{Heard, Liveness};
use crate::meta::Meta;
use crate::metadata::ShardRecord;
use crate::routing::Router;
use crate::snapshots::{Held, Store};
use crate::status;

/// Repairs shards.
#[derive(Debug, Clone)]
pub(crate) struct Recovery {
    runtime: Runtime,
    meta: Arc<Meta>,
    liveness: Arc<Liveness>,
    router: Arc<Router>,
    store: Arc<Store>,
    /// Recoveries that run, and the last outcome of each that has ended; one for each shard.
    runs: Arc<Mutex<HashMap<ShardId, Run>>>,
}

type Outcome = Result<RecoverShardResponse, ApiError>;
type Run = watch::Receiver<Option<Outcome>>;

/// What a recovery works on.
#[derive(Debug, Clone)]
struct Case {
    record: ShardRecord,
    state: ShardState,
    reason: String,
}

impl Recovery {
    pub(crate) fn new(
        runtime: &Runtime,
        meta: Arc<Meta>,
        liveness: Arc<Liveness>,
        router: Arc<Router>,
        store: Arc<Store>,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            meta,
            liveness,
            router,
            store,
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
        if request.accept_loss {
            let words = format!("lose shard {shard}");
            if request.confirmation != words {
                let message = format!("accepting a loss must be confirmed by the words {words:?}");
                return Err(ApiError::new(Reason::ConfirmationRequired, message));
            }
        }
        if let Some(run) = self.run_of(shard, &case, request.accept_loss) {
            return self.follow(run, deadline, &case).await;
        }
        match case.state {
            ShardState::Serving => Ok(answer(&case, RecoveryAction::None, "the shard serves")),
            ShardState::Unplaced
            | ShardState::Recovering
            | ShardState::Unreachable
            | ShardState::Unspecified => {
                if steps::awaits_seed(&case.record) {
                    let run = self.start(shard);
                    return self.follow(run, deadline, &case).await;
                }
                Ok(answer(
                    &case,
                    RecoveryAction::WaitForProcess,
                    &waiting(&case),
                ))
            }
            ShardState::DataLoss if !request.accept_loss => {
                let message = format!(
                    "{}; only accepting the loss goes on (recover {shard} --accept-loss)",
                    case.reason
                );
                Ok(answer(&case, RecoveryAction::NeedsAcceptLoss, &message))
            }
            ShardState::DataLoss => {
                tracing::warn!(%shard, reason = case.reason, "an operator accepts the loss of a shard's data");
                let run = self.start(shard);
                self.follow(run, deadline, &case).await
            }
        }
    }

    /// Goes on with what was broken off: a new life that still waits for its snapshot. Done by whoever leads, and by whoever holds
    /// that very snapshot; sending it twice does no harm.
    pub(crate) fn resume(&self) {
        let leads = self.meta.leads();
        let open: Vec<ShardId> = self.meta.read(|state| {
            let shards = state.shards.values();
            shards
                .filter(|record| steps::awaits_seed(record) && (leads || self.holds_seed(record)))
                .map(|record| record.shard.id)
                .collect()
        });
        for shard in open {
            if !self.is_running(shard) {
                self.start(shard);
            }
        }
    }

    fn holds_seed(&self, record: &ShardRecord) -> bool {
        let seed = record.seed.as_ref();
        seed.is_some_and(|seed| {
            let held = Held::of_seed(record.shard.id, seed);
            self.store.of(record.shard.id).contains(&held)
        })
    }

    fn look(&self, shard: ShardId) -> Result<Case, ApiError> {
        let heard: BTreeMap<NodeId, Heard> = self.liveness.all();
        self.meta.read(|metadata| {
            let record = metadata.shards.get(&shard).ok_or_else(|| {
                ApiError::new(Reason::UnknownShard, format!("there is no shard {shard}"))
            })?;
            let (state, reason) = status::judge(metadata, &heard, record);
            Ok(Case {
                record: record.clone(),
                state,
                reason,
            })
        })
    }

    fn is_running(&self, shard: ShardId) -> bool {
        let runs = self.runs.lock();
        runs.get(&shard).is_some_and(|run| run.borrow().is_none())
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
    fn start(&self, shard: ShardId) -> Run {
        let mut runs = self.runs.lock();
        if let Some(run) = runs.get(&shard).filter(|run| run.borrow().is_none()) {
            return run.clone();
        }
        let (sender, run) = watch::channel(None);
        runs.insert(shard, run.clone());
        drop(runs);
        let recovery = self.clone();
        self.runtime.spawn("recover-shard", async move {
            let outcome = recovery.begin_anew(shard).await;
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

fn waiting(case: &Case) -> String {
    let shard = case.record.shard.id;
    match case.state {
        ShardState::Unreachable => format!(
            "{}: bring its process back. If its disk is gone for good, start a server of the same name with an empty directory; \
             the shard then counts as lost and can be recovered",
            case.reason
        ),
        ShardState::Unplaced
        | ShardState::Recovering
        | ShardState::Serving
        | ShardState::DataLoss
        | ShardState::Unspecified => format!("shard {shard} {}", case.reason),
    }
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
