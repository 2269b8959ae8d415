//! The snapshots that operators ask for. One that takes longer than the call goes on, and whoever asks again is told what came of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use cluster::ShardId;
use parking_lot::Mutex;
use rpc::Deadline;
use runtime::{Instant, Runtime};
use tokio::sync::watch;

use super::{Held, Store, take_and_pull};
use crate::actions::{ASKED, About, Action, Actions};
use crate::nodes::Link;

/// What came of one that nobody waited for is told to whoever asks within this time. After that another one is taken.
const TOLD_FOR: Duration = Duration::from_secs(60);

type Outcome = Result<Held, ApiError>;

/// What came of one, and when.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    outcome: Outcome,
    at: Instant,
}

/// One that is under way, or has ended.
pub(crate) type Run = watch::Receiver<Option<Ended>>;

/// At most one of a shard at a time.
#[derive(Debug)]
pub(crate) struct Pulls {
    runtime: Runtime,
    store: Arc<Store>,
    actions: Actions,
    runs: Mutex<HashMap<ShardId, Run>>,
}

impl Pulls {
    pub(crate) fn new(runtime: &Runtime, store: &Arc<Store>, actions: &Actions) -> Self {
        Self {
            runtime: runtime.clone(),
            store: Arc::clone(store),
            actions: actions.clone(),
            runs: Mutex::default(),
        }
    }

    /// The one that a call belongs to: it runs, or has ended a short while ago and nobody was told of it.
    pub(crate) fn run_of(&self, shard: ShardId) -> Option<Run> {
        let run = self.runs.lock().get(&shard)?.clone();
        let now = self.runtime.now();
        let is_new = |ended: &Ended| now.saturating_since(ended.at) < TOLD_FOR;
        let belongs = run.borrow().as_ref().is_none_or(is_new);
        belongs.then_some(run)
    }

    /// Begins one as a task of its own, so that it outlives the call that asked for it.
    pub(crate) fn start(&self, shard: ShardId, link: Arc<Link>) -> Run {
        let mut runs = self.runs.lock();
        if let Some(run) = runs.get(&shard).filter(|run| run.borrow().is_none()) {
            return run.clone();
        }
        let (sender, run) = watch::channel(None);
        runs.insert(shard, run.clone());
        drop(runs);
        let (runtime, store) = (self.runtime.clone(), Arc::clone(&self.store));
        let pulling = self.runtime.spawn("pull-snapshot", async move {
            take_and_pull(&runtime, &store, &link, shard).await
        });
        let (runtime, actions) = (self.runtime.clone(), self.actions.clone());
        self.runtime.spawn("pull-end", async move {
            // One that panicked has ended, too: else it would be waited for.
            let outcome = match pulling.await {
                Ok(outcome) => outcome,
                Err(failed) => Err(ApiError::internal(failed.to_string())),
            };
            let about = About::shard(shard);
            actions.count(Action::PullSnapshot, ASKED, about, &outcome);
            let at = runtime.now();
            sender.send_replace(Some(Ended { outcome, at }));
        });
        run
    }

    /// Waits for what comes of one for as long as the caller does.
    pub(crate) async fn follow(&self, shard: ShardId, mut run: Run, deadline: Deadline) -> Outcome {
        let left = deadline.remaining(&self.runtime);
        // A little is kept, so that the answer is ours and not the transport's.
        let limit = left - left / 10;
        let ended = async { run.wait_for(Option::is_some).await.map(|done| done.clone()) };
        let outcome = match self.runtime.timeout(limit, ended).await {
            Ok(Ok(Some(ended))) => ended.outcome,
            Ok(Ok(None) | Err(_)) => Err(ApiError::internal("the transfer ended without a word")),
            Err(_) => {
                let message =
                    format!("the snapshot of shard {shard} is still being fetched: ask again");
                return Err(ApiError::deadline(message));
            }
        };
        let mut runs = self.runs.lock();
        if runs
            .get(&shard)
            .is_some_and(|known| known.same_channel(&run))
        {
            runs.remove(&shard);
        }
        outcome
    }
}
