//! Moves leads: at once from a server whose disk is full, that is drained, or that only its peers reach, and to spread them over the servers again once
//! nothing has happened for a while.
//!
//! Done by the coordinator that leads, from upkeep, one lead at a time. A leader that changed for any other cause begins the
//! wait anew, so that what an operator moved stays there for that long.
//!
//! On failure: nothing is lost but the pause of a hand-over; the next look tries again.

use std::sync::Arc;
use std::time::Duration;

use cluster::{NodeId, ShardId};
use parking_lot::Mutex;
use runtime::{Instant, Runtime, Task};

use super::observed::Observed;
use crate::actions::{About, Action, Actions};
use crate::placement::leads::{self, Move};
use crate::routing::Router;

/// How long a hand-over may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Moves leads.
#[derive(Debug)]
pub(crate) struct Balance {
    runtime: Runtime,
    router: Arc<Router>,
    /// How long leads must have stayed where they are; never, if none.
    after: Option<Duration>,
    calm: Mutex<Calm>,
    actions: Actions,
}

/// What was seen, since when, and what is being done.
#[derive(Debug, Default)]
struct Calm {
    leaders: Vec<(ShardId, Option<NodeId>)>,
    since: Instant,
    moving: Option<(Move, Task<()>)>,
}

impl Calm {
    /// Takes note of who leads now. A lead that went where it was sent does not disturb the calm.
    fn note(&mut self, now: Instant, leaders: Vec<(ShardId, Option<NodeId>)>) {
        if let Some((step, _)) = &self.moving {
            let sent = self
                .leaders
                .iter_mut()
                .find(|(shard, _)| *shard == step.shard);
            if let Some((_, leader)) = sent
                && leaders.contains(&(step.shard, Some(step.to)))
            {
                *leader = Some(step.to);
            }
        }
        if self.leaders != leaders {
            (self.leaders, self.since) = (leaders, now);
        }
    }
}

impl Balance {
    pub(crate) fn new(
        runtime: &Runtime,
        router: Arc<Router>,
        after: Option<Duration>,
        actions: Actions,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            router,
            after,
            calm: Mutex::default(),
            actions,
        }
    }

    /// Begins what is due. Returns at once.
    pub(crate) fn look(&self, observed: &Observed) {
        let now = self.runtime.now();
        let mut calm = self.calm.lock();
        calm.note(now, leads::leaders(&observed.shards));
        if calm
            .moving
            .as_ref()
            .is_some_and(|(_, task)| !task.is_finished())
        {
            return;
        }
        let calm_for = now.saturating_since(calm.since);
        let is_calm = self.after.is_some_and(|after| calm_for >= after);
        let (nodes, shards) = (&observed.nodes, &observed.shards);
        let away = leads::out_of_reach(nodes, shards).map(|step| (step, Cause::OutOfReach));
        let full = || leads::step_aside(nodes, shards, leads::is_stuck);
        let drained = || leads::step_aside(nodes, shards, |at| at.draining);
        let leaves = || {
            let full = full().map(|step| (step, Cause::FullDisk));
            full.or_else(|| drained().map(|step| (step, Cause::Draining)))
        };
        let uneven = || leads::plan(nodes, shards).map(|step| (step, Cause::Uneven));
        let due = away
            .or_else(leaves)
            .or_else(|| is_calm.then(uneven).flatten());
        if let Some((step, cause)) = due {
            calm.moving = Some((step, self.hand_over(step, cause)));
        }
    }

    fn hand_over(&self, step: Move, cause: Cause) -> Task<()> {
        let Move { shard, from, to } = step;
        let (router, deadline) = (Arc::clone(&self.router), self.runtime.now() + PATIENCE);
        let actions = self.actions.clone();
        self.runtime.spawn("lead-balance", async move {
            let reason = cause.text();
            tracing::info!(%shard, %from, %to, reason, "a lead moves");
            let moved = match cause {
                Cause::OutOfReach => router.take_lead(shard, to, PATIENCE).await,
                Cause::FullDisk | Cause::Draining | Cause::Uneven => {
                    let moved = router.transfer_leader(shard, Some(to), deadline).await;
                    moved.map(drop)
                }
            };
            let about = About::shard(shard).with_node(Some(to));
            actions.count(Action::MoveLead, cause.label(), about, &moved);
            if let Err(error) = moved {
                tracing::warn!(%shard, %error, "a lead did not move, trying again");
            }
        })
    }
}

/// Why a lead moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Its server is heard by its peers alone.
    OutOfReach,
    FullDisk,
    /// Its server is to hold nothing.
    Draining,
    /// Its server leads more than others do.
    Uneven,
}

impl Cause {
    const fn label(self) -> &'static str {
        match self {
            Self::OutOfReach => "out_of_reach",
            Self::FullDisk => "disk",
            Self::Draining => "draining",
            Self::Uneven => "uneven",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::OutOfReach => "its server is out of reach for all but its peers",
            Self::FullDisk => "the disk of its server is full",
            Self::Draining => "its server is being drained",
            Self::Uneven => "its server leads more shards than others",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(by: u64) -> Vec<(ShardId, Option<NodeId>)> {
        vec![(ShardId(1), Some(NodeId(by))), (ShardId(2), None)]
    }

    #[tokio::test]
    async fn only_our_own_moves_leave_the_calm_undisturbed() {
        let runtime = Runtime::real();
        let begun = runtime.now();
        let at = |second: u64| begun + Duration::from_secs(second);
        let mut calm = Calm::default();
        calm.note(at(1), led(1));
        calm.note(at(2), led(1));
        assert_eq!(calm.since, at(1));
        calm.note(at(3), led(2));
        assert_eq!(calm.since, at(3), "somebody moved a lead");
        let step = Move {
            shard: ShardId(1),
            from: NodeId(2),
            to: NodeId(3),
        };
        calm.moving = Some((step, runtime.spawn("a move", async {})));
        calm.note(at(4), led(2));
        calm.note(at(5), led(3));
        assert_eq!(calm.since, at(3), "it went where it was sent");
        calm.note(at(6), led(1));
        assert_eq!(calm.since, at(6));
    }
}
