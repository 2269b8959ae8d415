//! Whether and when a request that came back is sent again.

use std::collections::HashMap;
use std::time::Duration;

use api::{ApiError, Outcome, Reason, Retry};
use cluster::{NodeId, ShardId};
use runtime::{Instant, Runtime};

use super::choice::{Failure, Tries};
use super::leaders::Leaders;

/// Rounds of one request; more than fit into any deadline.
const ROUNDS_MAX: usize = 1024;
/// The pause before the third round; it doubles up to [`PAUSE_MAX`]. The second round follows at once.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The longest pause of a scout: one of few requests that ask for all others who leads now.
const PAUSE_OF_SCOUTS: Duration = Duration::from_millis(10);
/// A round that has less time than this is not begun: its answer would come too late, and the caller would not even hear what
/// went wrong before.
const ROUND_MIN: Duration = Duration::from_millis(20);

/// A try that failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) error: ApiError,
    /// Whom it went to; `None` where it went nowhere.
    pub(super) node: Option<NodeId>,
    /// Replicas that the shard has.
    pub(super) replicas: usize,
    /// Another replica that was asked at the same time, and how that failed.
    pub(super) beside: Option<(NodeId, Failure)>,
}

impl Failed {
    /// Two tries at the same time, both of which failed: what a replica said is worth more than the silence of the other.
    pub(super) fn both(first: Self, second: Self) -> Self {
        let (said, other) = match kind_of(&first.error) {
            Failure::Silent => (second, first),
            Failure::Refused { .. } | Failure::Broken | Failure::Damaged => (first, second),
        };
        let beside = other.node.map(|node| (node, kind_of(&other.error)));
        Self { beside, ..said }
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            node: None,
            replicas: 0,
            beside: None,
        }
    }
}

/// How a try failed, as far as the next choice depends on it.
pub(super) fn kind_of(error: &ApiError) -> Failure {
    let reason = error.reason();
    if matches!(reason, Reason::Deadline | Reason::Cancelled) {
        return Failure::Silent;
    }
    if reason == Reason::DataLoss {
        return Failure::Damaged;
    }
    let has_ended = matches!(reason, Reason::Disconnected | Reason::Stopped);
    if has_ended || reason == Reason::ShardUnavailable {
        return Failure::Broken;
    }
    Failure::Refused {
        leader: error.leader(),
    }
}

/// What a request does, which decides what may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    /// It travels under one request id, so that a second one that arrives has no effect.
    Write,
}

/// Counts the rounds of one request, and remembers whom it asked.
#[derive(Debug)]
pub(super) struct Rounds {
    tried: usize,
    kind: Kind,
    deadline: Instant,
    tries: HashMap<ShardId, Tries>,
    /// The last failure that came from a replica, for each shard.
    last: HashMap<ShardId, Failed>,
}

impl Rounds {
    pub(super) fn new(kind: Kind, deadline: Instant) -> Self {
        Self {
            tried: 0,
            kind,
            deadline,
            tries: HashMap::new(),
            last: HashMap::new(),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What this request has seen of a shard's replicas.
    pub(super) fn tries(&self, shard: ShardId) -> Tries {
        self.tries.get(&shard).cloned().unwrap_or_default()
    }

    /// Whether no try for a shard has failed yet.
    pub(super) fn is_first(&self, shard: ShardId) -> bool {
        !self.tries.contains_key(&shard)
    }

    /// Notes what failed, and says whether it is worth another round.
    pub(super) fn may_follow(&mut self, shard: ShardId, failed: &Failed) -> bool {
        let error = &failed.error;
        let (mut asked, mut damaged) = (0, 0);
        if let Some(node) = failed.node {
            let tries = self.tries.entry(shard).or_default();
            if let Some((other, failure)) = failed.beside {
                tries.note(other, failure);
            }
            tries.note(node, kind_of(error));
            (asked, damaged) = (tries.asked(node), tries.damaged());
            self.last.insert(shard, failed.clone());
        }
        if self.tried + 1 >= ROUNDS_MAX {
            return false;
        }
        if error.retry() == Retry::Reroute {
            return self.kind == Kind::Read || failed.replicas > 1 || is_unapplied(error);
        }
        if failed.replicas > 1 {
            // What one replica has lost the others have, be it that they are still electing a leader. Once all have said so,
            // nobody has.
            let is_lost = error.reason() == Reason::DataLoss;
            return is_worth_another_replica(error.reason())
                || (is_lost && damaged < failed.replicas);
        }
        // A server that was started anew closes the connections to its predecessor under whoever comes first.
        let is_unsent = self.kind == Kind::Read || is_unapplied(error);
        error.reason() == Reason::Disconnected && is_unsent && asked == 1
    }

    /// Waits for the next round. False when the deadline comes first.
    ///
    /// While a shard elects, a few requests ask often, and the others wait longer or until somebody has found the new leader: an outage
    /// costs no more time than it must, and a thousand waiting requests do not load the servers that elect.
    pub(super) async fn next(&mut self, runtime: &Runtime, leaders: &Leaders) -> bool {
        let scout = leaders.scout();
        let longest = match scout {
            Some(_) => PAUSE_OF_SCOUTS,
            None => PAUSE_MAX,
        };
        let doublings = u32::try_from(self.tried.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = match self.tried {
            0 => Duration::ZERO,
            _ => PAUSE_FIRST
                .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
                .min(longest),
        };
        self.tried += 1;
        if runtime.now() + pause + ROUND_MIN >= self.deadline {
            return false;
        }
        if pause > PAUSE_FIRST {
            let found = leaders.found();
            runtime.sleep(PAUSE_FIRST).await;
            tokio::select! {
                () = runtime.sleep(pause - PAUSE_FIRST) => {}
                () = found => {}
            }
        } else if !pause.is_zero() {
            runtime.sleep(pause).await;
        }
        true
    }

    /// What the caller hears of a request that failed: what a replica said, rather than that time ran out before another was
    /// asked. Of several replicas the last may have been silent, or damaged while others are sound, which is not what became of
    /// the request.
    pub(super) fn conclude(&self, shard: ShardId, failed: Failed) -> ApiError {
        let is_late = failed.error.reason() == Reason::Deadline;
        let last = self
            .last
            .get(&shard)
            .filter(|_| is_late && failed.node.is_none());
        let Failed {
            error, replicas, ..
        } = last.cloned().unwrap_or(failed);
        let reason = error.reason();
        let is_damage_of_some =
            reason == Reason::DataLoss && self.tries(shard).damaged() < replicas;
        if replicas < 2 || !(is_damage_of_some || reason == Reason::Deadline) {
            return error;
        }
        let message = format!(
            "none of {replicas} replicas of shard {shard} could answer in time, the last: {}",
            error.message()
        );
        let concluded = ApiError::new(Reason::ShardUnavailable, message);
        match error.outcome() {
            Some(outcome) => concluded.with_outcome(outcome),
            None => concluded,
        }
    }
}

fn is_unapplied(error: &ApiError) -> bool {
    let outcome = error.outcome();
    outcome.unwrap_or(error.reason().outcome_of_write()) == Outcome::NotApplied
}

/// Whether the group may serve what one of its replicas did not.
fn is_worth_another_replica(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Disconnected
            | Reason::ShardUnavailable
            | Reason::Stopped
            | Reason::Starting
            | Reason::NoQuorum
            | Reason::Deadline
            | Reason::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn failed(error: ApiError, replicas: usize) -> Failed {
        Failed {
            error,
            node: Some(NodeId(1)),
            replicas,
            beside: None,
        }
    }

    fn error(reason: Reason) -> ApiError {
        ApiError::new(reason, "test")
    }

    fn follows(kind: Kind, error: ApiError, replicas: usize) -> bool {
        let mut rounds = Rounds::new(kind, Instant::default());
        rounds.may_follow(SHARD, &failed(error, replicas))
    }

    #[test]
    fn without_another_replica_a_write_that_may_have_been_applied_is_not_sent_again() {
        for &reason in Reason::ALL {
            let unknown = error(reason).with_outcome(Outcome::Unknown);
            assert!(!follows(Kind::Write, unknown, 1), "{reason:?}");
        }
        assert!(follows(Kind::Write, error(Reason::StaleEpoch), 1));
        assert!(follows(Kind::Write, error(Reason::NotLeader), 1));
        assert!(!follows(Kind::Write, error(Reason::Starting), 1));
    }

    #[test]
    fn a_connection_that_was_stale_is_made_anew_once() {
        let unsent = || error(Reason::Disconnected).with_outcome(Outcome::NotApplied);
        for kind in [Kind::Read, Kind::Write] {
            let mut rounds = Rounds::new(kind, Instant::default());
            assert!(rounds.may_follow(SHARD, &failed(unsent(), 1)));
            assert!(!rounds.may_follow(SHARD, &failed(unsent(), 1)));
        }
        assert!(follows(Kind::Read, error(Reason::Disconnected), 1));
        assert!(!follows(Kind::Write, error(Reason::Disconnected), 1));
    }

    #[test]
    fn with_other_replicas_the_same_request_goes_on() {
        for reason in [
            Reason::Disconnected,
            Reason::Deadline,
            Reason::NoQuorum,
            Reason::Stopped,
            Reason::Starting,
            Reason::NotLeader,
            Reason::DataLoss,
        ] {
            for kind in [Kind::Read, Kind::Write] {
                let unknown = error(reason).with_outcome(Outcome::Unknown);
                assert!(follows(kind, unknown, 3), "{reason:?}");
            }
        }
    }

    #[test]
    fn data_is_lost_when_all_replicas_say_so() {
        let mut rounds = Rounds::new(Kind::Write, Instant::default());
        let lost = |node| Failed {
            node: Some(NodeId(node)),
            ..failed(error(Reason::DataLoss), 3)
        };
        for node in [1, 2, 1, 2] {
            assert!(rounds.may_follow(SHARD, &lost(node)));
            let concluded = rounds.conclude(SHARD, lost(node));
            assert_eq!(concluded.reason(), Reason::ShardUnavailable);
        }
        assert!(!rounds.may_follow(SHARD, &lost(3)));
        let concluded = rounds.conclude(SHARD, lost(3));
        assert_eq!(concluded.reason(), Reason::DataLoss);
    }

    #[test]
    fn of_two_that_failed_at_the_same_time_both_are_remembered_and_the_one_that_spoke_is_heard() {
        let of = |node, reason| Failed {
            node: Some(NodeId(node)),
            ..failed(error(reason), 3)
        };
        let mut rounds = Rounds::new(Kind::Read, Instant::default());
        assert!(rounds.is_first(SHARD));
        let both = Failed::both(of(1, Reason::Deadline), of(2, Reason::Starting));
        assert_eq!(both.error.reason(), Reason::Starting);
        assert!(rounds.may_follow(SHARD, &both));
        assert!(!rounds.is_first(SHARD));
        let tries = rounds.tries(SHARD);
        assert_eq!([1, 2, 3].map(|node| tries.asked(NodeId(node))), [1, 1, 0]);
        // So do two that have lost their data.
        let both = Failed::both(of(1, Reason::DataLoss), of(2, Reason::DataLoss));
        assert!(rounds.may_follow(SHARD, &both));
        assert!(!rounds.may_follow(SHARD, &of(3, Reason::DataLoss)));
    }

    #[test]
    fn what_the_caller_must_decide_is_left_to_the_caller() {
        for reason in [
            Reason::Overloaded,
            Reason::DiskFull,
            Reason::BadTerm,
            Reason::RequestIdReused,
            Reason::SessionExpired,
            Reason::Internal,
        ] {
            for replicas in [1, 3] {
                assert!(!follows(Kind::Read, error(reason), replicas), "{reason:?}");
            }
        }
    }

    #[test]
    fn silence_of_several_replicas_is_unavailability_and_of_one_a_missed_deadline() {
        let late = || error(Reason::Deadline).with_outcome(Outcome::Unknown);
        let mut rounds = Rounds::new(Kind::Write, Instant::default());
        let concluded = rounds.conclude(SHARD, failed(late(), 3));
        assert_eq!(concluded.reason(), Reason::ShardUnavailable);
        assert_eq!(concluded.outcome(), Some(Outcome::Unknown));
        let concluded = rounds.conclude(SHARD, failed(late(), 1));
        assert_eq!(concluded.reason(), Reason::Deadline);
        // What a replica said is worth more than that nobody was asked after it.
        rounds.may_follow(SHARD, &failed(error(Reason::NoQuorum), 3));
        let concluded = rounds.conclude(SHARD, late().into());
        assert_eq!(concluded.reason(), Reason::NoQuorum);
    }

    /// Rounds that fit into a deadline of 100 ms.
    async fn rounds_within(runtime: &Runtime, leaders: &Leaders) -> usize {
        let start = runtime.now();
        let mut rounds = Rounds::new(Kind::Read, start + Duration::from_millis(100));
        let mut count = 0;
        while rounds.next(runtime, leaders).await {
            count += 1;
        }
        assert!(runtime.now().saturating_since(start) < Duration::from_millis(101));
        count
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_end_with_the_deadline_and_few_come_often() {
        let runtime = Runtime::real();
        let leaders = Leaders::new(&runtime);
        // At once, after 5 ms, and then every 10 ms.
        assert_eq!(rounds_within(&runtime, &leaders).await, 9);
        let _scouts: Vec<_> = std::iter::from_fn(|| leaders.scout()).collect();
        // At once, then after 5, 10, 20 and 40 ms; the next would be after 155 ms.
        assert_eq!(rounds_within(&runtime, &leaders).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_comes_back_when_a_leader_is_found() {
        let runtime = Runtime::real();
        let leaders = Leaders::new(&runtime);
        let _scouts: Vec<_> = std::iter::from_fn(|| leaders.scout()).collect();
        let mut rounds = Rounds::new(Kind::Write, runtime.now() + Duration::from_secs(10));
        for _ in 0..10 {
            assert!(rounds.next(&runtime, &leaders).await);
        }
        let waits = async {
            assert!(rounds.next(&runtime, &leaders).await);
            runtime.now()
        };
        let finds = async {
            runtime.sleep(Duration::from_millis(30)).await;
            leaders.learn(SHARD, NodeId(2));
            runtime.now()
        };
        let (came, found) = tokio::join!(waits, finds);
        assert_eq!(came, found);
    }
}
