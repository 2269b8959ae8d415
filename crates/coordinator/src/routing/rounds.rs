//! Whether and when a request that came back is sent again.

use std::time::Duration;

use api::{ApiError, Outcome, Reason, Retry};
use runtime::{Instant, Runtime};

/// Rounds of one request; with the pauses between them about three seconds, more than most deadlines.
const ROUNDS_MAX: usize = 32;
/// The pause before the third round; it doubles up to [`PAUSE_MAX`]. The second round follows at once.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a request does, which decides what may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Counts the rounds of one request.
#[derive(Debug)]
pub(super) struct Rounds {
    pub(super) tried: usize,
    kind: Kind,
    deadline: Instant,
}

impl Rounds {
    pub(super) fn new(kind: Kind, deadline: Instant) -> Self {
        Self {
            tried: 0,
            kind,
            deadline,
        }
    }

    /// Whether what failed so is worth another round.
    pub(super) fn may_follow(&self, error: &ApiError, other_replica: bool) -> bool {
        if self.tried + 1 >= ROUNDS_MAX {
            return false;
        }
        let not_applied = match self.kind {
            Kind::Read => true,
            Kind::Write => {
                let outcome = error.outcome();
                outcome.unwrap_or(error.reason().outcome_of_write()) == Outcome::NotApplied
            }
        };
        let unreached = matches!(
            error.reason(),
            Reason::Disconnected | Reason::ShardUnavailable | Reason::Stopped | Reason::Starting
        );
        not_applied && (error.retry() == Retry::Reroute || (unreached && other_replica))
    }

    /// Waits for the next round. False when the deadline comes first.
    pub(super) async fn next(&mut self, runtime: &Runtime) -> bool {
        let doublings = u32::try_from(self.tried.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = match self.tried {
            0 => Duration::ZERO,
            _ => PAUSE_FIRST
                .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
                .min(PAUSE_MAX),
        };
        self.tried += 1;
        if runtime.now() + pause >= self.deadline {
            return false;
        }
        if !pause.is_zero() {
            runtime.sleep(pause).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(reason: Reason) -> ApiError {
        ApiError::new(reason, "test")
    }

    #[test]
    fn a_write_that_may_have_been_applied_is_never_sent_again() {
        let rounds = Rounds::new(Kind::Write, Instant::default());
        for &reason in Reason::ALL {
            let unknown = error(reason).with_outcome(Outcome::Unknown);
            assert!(!rounds.may_follow(&unknown, true), "{reason:?}");
        }
        assert!(rounds.may_follow(&error(Reason::StaleEpoch), false));
        assert!(rounds.may_follow(&error(Reason::NotLeader), false));
        assert!(!rounds.may_follow(&error(Reason::Disconnected), true));
        let unsent = error(Reason::Disconnected).with_outcome(Outcome::NotApplied);
        assert!(rounds.may_follow(&unsent, true));
        assert!(!rounds.may_follow(&unsent, false), "nobody else to ask");
    }

    #[test]
    fn what_the_caller_must_decide_is_left_to_the_caller() {
        let rounds = Rounds::new(Kind::Read, Instant::default());
        for reason in [
            Reason::Overloaded,
            Reason::DiskFull,
            Reason::DataLoss,
            Reason::BadTerm,
            Reason::Deadline,
            Reason::SessionExpired,
        ] {
            assert!(!rounds.may_follow(&error(reason), true), "{reason:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_end_with_the_deadline() {
        let runtime = Runtime::real();
        let mut rounds = Rounds::new(Kind::Read, runtime.now() + Duration::from_millis(100));
        let mut count = 0;
        while rounds.next(&runtime).await {
            count += 1;
        }
        // At once, then after 5, 10, 20 and 40 ms; the next would be after 155 ms.
        assert_eq!(count, 5);
        assert!(runtime.now().since_origin() < Duration::from_millis(101));
    }
}
